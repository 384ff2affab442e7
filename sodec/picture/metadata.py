"""EXIF, XMP, ICC profiles and resolutions: what is read of an opened picture, and what a format's file is given."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping
from typing import Any

from PIL import ExifTags, Image, PngImagePlugin

from ..errors import warn
from ..stream.sections import MAX_METADATA
from . import exif
from .opening import RASTER

PILLOW_NAMES = {"exif": "exif", "icc": "icc_profile", "xmp": "xmp"}
TITLES = {"exif": "EXIF", "xmp": "XMP", "icc_profile": "ICC profile", "dpi": "resolution"}  # by Pillow's names
UNSTATED_DPI = (72, 72)  # what Pillow and EXIF assume where a file says nothing
EXIF_DIRECTORIES = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
XMP_TAG = 700
# Tags of a TIFF that describe how its pixels are stored, and no other file's; and those with XMP, ICC and further
# directories, which have their own places.
TIFF_LAYOUT = frozenset({
    254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 277, 278, 279, 280, 281, 284, 288, 289, 290, 291, 292,
    293, 297, 301, 317, 318, 319, 320, 321, 322, 323, 324, 325, 330, 332, 334, 338, 339, 340, 341, 342, 347, 512, 513,
    514, 515, 519, 520, 521, 529, 530, 531, 532, XMP_TAG, 34675,
})  # fmt: skip
XMP_ORIENTATION = re.compile(rb"(tiff:Orientation\s*(?:=\s*[\"']|>)\s*)([0-9])")
TRIAL_SIDE = 16  # pixels of the picture that is written to see whether a format takes metadata


def orientation_of(image: Image.Image) -> tuple[bytes | None, int]:
    """EXIF as it is in the file and its orientation. It is None where it has to be made from tags, empty if broken."""
    raw = image.info.get("exif")
    try:
        if raw is None and "Raw profile type exif" in image.info:  # of PNGs by ImageMagick
            raw = bytes.fromhex("".join(image.info["Raw profile type exif"].split("\n")[3:]))
        if isinstance(raw, bytes):
            return (raw, exif.orientation(raw) or _xmp_orientation(image)) if raw else (None, _xmp_orientation(image))
        orientation = image.getexif().get(exif.ORIENTATION, 1)
        if not isinstance(orientation, int):
            raise exif.BrokenExifError(f"its orientation is {orientation!r}, not a number")
        return None, orientation if orientation in exif.UPRIGHT else 1
    except Exception as error:  # Pillow's parser raises many kinds
        warn(f"the picture's EXIF is broken and left out: {error}")
        return b"", 1


def read(image: Image.Image, raw: bytes | None) -> dict[str, bytes]:
    """EXIF and XMP of an opened picture whose pixels are turned upright, with `raw` as `orientation_of` gives it.

    Their orientation becomes 1. A resolution that the file states elsewhere goes into EXIF that has none. What is too
    long for a stream is left out with a warning.
    """
    try:
        raw = _from_tags(image.getexif()) if raw is None else exif.upright(raw) if raw else b""
    except Exception as error:  # of many kinds
        warn(f"the picture's EXIF can't be kept: {error}")
        raw = b""
    resolution = _dpi(image.info.get("dpi"))
    if resolution is not None:
        raw = exif.with_dpi(raw, resolution)
    return checked({"exif": raw, "xmp": XMP_ORIENTATION.sub(rb"\g<1>1", _xmp(image))})


def _xmp(image: Image.Image) -> bytes:
    xmp = image.info.get("xmp", b"")
    return xmp if isinstance(xmp, bytes) else str(xmp).encode()


def _xmp_orientation(image: Image.Image) -> int:
    """The orientation that XMP states, which counts where EXIF states none, as in Pillow; 1 where there is none."""
    match = XMP_ORIENTATION.search(_xmp(image))
    orientation = int(match[2]) if match else 1
    return orientation if orientation in exif.UPRIGHT else 1


def checked(metadata: Mapping[str, bytes]) -> dict[str, bytes]:
    """The metadata that a stream can hold; what is too long is left out with a warning, what is empty without one."""
    for name, data in metadata.items():
        if len(data) > MAX_METADATA:
            warn(
                f"{TITLES[PILLOW_NAMES[name]]} of {len(data)} bytes is left out; a stream holds at most {MAX_METADATA}"
            )
    return {name: data for name, data in metadata.items() if 0 < len(data) <= MAX_METADATA}


def pillow_info(metadata: Mapping[str, bytes]) -> dict[str | tuple[int, int], Any]:
    """A stream's metadata under Pillow's names; "dpi" is that of EXIF."""
    info: dict[str | tuple[int, int], Any] = {PILLOW_NAMES[name]: data for name, data in metadata.items()}
    try:
        resolution = exif.dpi(metadata["exif"]) if "exif" in metadata else None
    except exif.BrokenExifError:
        resolution = None
    return info if resolution is None else info | {"dpi": resolution}


def given(options: Mapping[str, Any], own: Mapping[str, bytes]) -> dict[str, bytes]:
    """`own` metadata of a picture, with those in their place that a caller of `Image.save` gives as `options`.

    An empty value drops what the picture has. Broken EXIF is left out with a warning; `TypeError` for other types.
    """
    metadata = dict(own)
    if "exif" in options:
        metadata["exif"] = _given_exif(options["exif"] or b"")
    if "xmp" in options:
        xmp = options["xmp"] or b""
        metadata["xmp"] = xmp.encode() if isinstance(xmp, str) else _bytes("xmp", xmp)
    resolution = _dpi(options.get("dpi"))
    if resolution is not None:
        metadata["exif"] = exif.with_dpi(metadata.get("exif", b""), resolution)
    return checked(metadata)


def _given_exif(value: Any) -> bytes:
    raw = value if isinstance(value, Image.Exif) else _bytes("exif", value)
    try:
        return _from_tags(raw) if isinstance(raw, Image.Exif) else exif.upright(raw) if raw else b""
    except Exception as error:  # of many kinds
        warn(f"the EXIF that is given is broken and left out: {error}")
        return b""


def _bytes(name: str, value: Any) -> bytes:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise TypeError(f"{name} must be bytes (got {type(value).__name__})")


def save_options(kind: str, info: Mapping[Any, Any]) -> dict[str, Any]:
    """Options of `Image.save` that write the metadata in `info`, under Pillow's names, to a file of the format `kind`.

    What the format does not take is left out with a warning. Whether it does is tried on a small picture.
    """
    taken: dict[str, Any] = {}
    failures: dict[str, list[str]] = {}
    for name in TITLES:
        if not info.get(name):
            continue
        failure = _failure(kind, name, taken | {name: info[name]})
        if failure is None:
            taken[name] = info[name]
        elif name != "dpi":
            failures.setdefault(failure, []).append(f"{TITLES[name]} ({len(info[name])} bytes)")
    for failure, names in failures.items():
        warn(f"{failure}: {', '.join(names)} left out")
    return _options(kind, taken)


def _from_tags(tags: Image.Exif) -> bytes:
    """EXIF made from the tags of a TIFF, which has no block of bytes to copy; text keeps its bytes."""
    fresh = Image.Exif()
    fresh.endian = tags.endian
    for tag, value in tags.items():
        if tag in EXIF_DIRECTORIES:
            directory = dict(tags.get_ifd(tag))
            if ExifTags.IFD.Interop in directory:
                directory[ExifTags.IFD.Interop] = dict(tags.get_ifd(ExifTags.IFD.Interop))
            fresh[tag] = _with_text_as_bytes(directory)
        elif tag not in TIFF_LAYOUT and tag != exif.ORIENTATION:
            fresh[tag] = value
    for tag, value in _with_text_as_bytes(dict(fresh)).items():
        fresh[tag] = value
    return fresh.tobytes() if fresh else b""


def _as_tags(raw: bytes) -> Image.Exif:
    """EXIF as tags of a TIFF, whose writer takes no bytes; text keeps its bytes, and layout is the new file's."""
    tags = Image.Exif()
    tags.load(raw)
    for directory in EXIF_DIRECTORIES:
        if directory in tags:
            values = tags.get_ifd(directory)
            values.update(_with_text_as_bytes(values))
            if ExifTags.IFD.Interop in values:
                values[ExifTags.IFD.Interop] = dict(tags.get_ifd(ExifTags.IFD.Interop))
    for tag, value in _with_text_as_bytes(dict(tags)).items():
        tags[tag] = value
    for tag in TIFF_LAYOUT & set(tags):
        del tags[tag]
    return tags


def _with_text_as_bytes(tags: dict[int, Any]) -> dict[int, Any]:
    """Pillow reads text as Latin-1, in which every byte is a character, and writes question marks for most of them."""

    def encode(text: str) -> bytes:
        try:
            return text.encode("latin-1")
        except UnicodeEncodeError:  # set by the caller
            return text.encode()

    return {
        tag: encode(value) if isinstance(value, str) and not value.isascii() else value for tag, value in tags.items()
    }


def _dpi(resolution: Any) -> tuple[float, float] | None:
    """A resolution that is stated and makes sense."""
    try:
        x, y = (float(value) for value in resolution)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    if (x, y) == UNSTATED_DPI or not (math.isfinite(x) and math.isfinite(y)):
        return None
    return (x, y) if 0 < x <= exif.MAX_DPI and 0 < y <= exif.MAX_DPI else None


def _options(kind: str, taken: Mapping[str, Any]) -> dict[str, Any]:
    """`taken`, as this format's writer wants it. Raises what Pillow's parser does of broken EXIF."""
    options = dict(taken)
    if "exif" in options:
        exif.orientation(options["exif"])
        if kind in ("JPEG", "MPO") and not options["exif"].startswith(exif.PREFIX):
            options["exif"] = exif.PREFIX + options["exif"]
        elif kind == "AVIF":  # Pillow would take the orientation out, and make question marks of names on the way
            options["exif"] = exif.without_orientation(options["exif"])
    if kind == "PNG" and "xmp" in options:
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", options.pop("xmp"))
    if kind == "TIFF" and ("exif" in options or "xmp" in options):
        options["exif"] = _as_tags(options.get("exif", b""))
        if "xmp" in options:
            options["exif"][XMP_TAG] = options.pop("xmp")
    return options


def _failure(kind: str, name: str, carried: Mapping[str, Any]) -> str | None:
    """Why a file of this format does not take the metadatum `name` beside the others; None where it does."""
    if kind not in RASTER or (kind not in Image.OPEN and kind != "MPO"):
        return None if name == "dpi" else f"{kind} is not known to hold such metadata"
    buffer = io.BytesIO()
    try:
        Image.new("RGB", (TRIAL_SIDE, TRIAL_SIDE)).save(buffer, kind, **_options(kind, carried))
        back = Image.open(buffer)
        back.load()
        if name == "dpi":
            return None
        found = back.info.get(name)
        if name == "exif":
            found = dict(back.getexif()) or not exif.says_more(carried[name])
        return None if found else f"{kind} does not hold such metadata"
    except Exception as error:  # of many kinds, by format and by what is wrong
        return f"{kind} does not take the metadata ({error or type(error).__name__})"
