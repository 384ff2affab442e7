"""Files to PIL images: which formats, without Pillow's process-wide limits, and past broken data that is no pixels."""

from __future__ import annotations

import importlib
import io
import struct
import zlib
from collections.abc import Iterator
from typing import IO, Any

from PIL import Image

from ..errors import UnsupportedPictureError, warn

# Raster formats that are decoded in this process. Others start programs (EPS: Ghostscript) or need a handler (WMF).
RASTER = frozenset({
    "AVIF", "BLP", "BMP", "CUR", "DCX", "DDS", "DIB", "FITS", "FLI", "FTEX", "GIF", "HEIF", "ICNS", "ICO", "IM",
    "JPEG", "JPEG2000", "JXL", "MPO", "MSP", "PCX", "PIXAR", "PNG", "PPM", "PSD", "QOI", "SGI", "SODEC", "SPIDER",
    "SUN", "TGA", "TIFF", "WEBP", "XBM", "XPM",
})  # fmt: skip
# Plugins for Pillow that are used where they are installed: what they bring, their module, and how they register.
PLUGINS = {"HEIF": ("pillow_heif", "register_heif_opener"), "JXL": ("pillow_jxl", "")}
PACKAGES = {"HEIF": "pillow-heif", "JXL": "pillow-jxl-plugin"}
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Chunks that decide on pixels, turn them or colour them. Without the others a picture is the same.
PNG_PIXELS = {
    b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"cICP", b"eXIf", b"acTL", b"fcTL", b"fdAT",
    b"pHYs",
}  # fmt: skip
HEAD = 1 << 16  # bytes of a file that its colour box is looked for in


def register_plugins() -> None:
    """Registers all of Pillow's formats, and those of the plugins that are installed."""
    Image.init()
    for kind, (module, function) in PLUGINS.items():
        if kind in Image.OPEN:
            continue
        try:
            plugin = importlib.import_module(module)
        except ImportError:
            continue
        if function:
            getattr(plugin, function)()


def suffixes() -> frozenset[str]:
    """Suffixes of the files that can be opened here as pictures, ".jpg" and so on; .sodec is not among them."""
    register_plugins()
    kinds = RASTER - {"SODEC"}
    return frozenset(
        suffix for suffix, kind in Image.EXTENSION.items() if kind in kinds and (kind in Image.OPEN or kind == "MPO")
    )


def open_image(file: IO[bytes]) -> Image.Image:
    """The image in a seekable binary file, its pixels not read yet.

    As `PIL.Image.open`, but without its check of `MAX_IMAGE_PIXELS`: that limit is one of the whole process, and its
    warning could only be silenced for all threads. The caller checks sizes.

    Raises `UnsupportedPictureError` for what is no picture or of a format outside `RASTER`, or what the format's
    plugin raises.
    """
    start, failure = file.read(16), None
    for initialise in (Image.preinit, register_plugins):
        initialise()
        for kind in [kind for kind in Image.ID if kind in RASTER and kind in Image.OPEN]:
            if not _accepts(kind, start):
                continue
            file.seek(0)
            try:
                return Image.OPEN[kind][0](file, "")
            except (SyntaxError, IndexError, TypeError, KeyError, EOFError, struct.error) as error:
                failure = error if Image.OPEN[kind][1] is not None else failure
    if failure is not None:  # its first bytes are those of a format
        raise failure
    raise UnsupportedPictureError(_why_not(start))


def _accepts(kind: str, start: bytes) -> bool:
    """Whether a file that begins with these bytes may be of this format."""
    accepts = Image.OPEN[kind][1]
    try:
        return accepts is None or accepts(start) is True
    except (IndexError, struct.error):  # of a file shorter than the format's signature
        return False


def _why_not(start: bytes) -> str:
    brand = start[8:12] if start[4:8] == b"ftyp" else b""
    missing = None
    if brand in (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"heim", b"heis"):
        missing = "HEIF"
    elif start[:2] == b"\xff\x0a" or start[4:8] == b"JXL ":
        missing = "JXL"
    if missing and missing not in Image.OPEN:
        return f"is {missing}, which Pillow opens with a plugin: pip install {PACKAGES[missing]}"
    for kind, (_, accepts) in Image.OPEN.items():
        if kind not in RASTER and accepts is not None and _accepts(kind, start):
            return f"is {kind}, which sodec does not open: it takes raster pictures, and starts no other program"
    return "is not a picture that Pillow can read"


def without_ancillary(data: bytes) -> bytes | None:
    """A PNG without the chunks that are not about its pixels, with a warning; None of another format."""
    if not data.startswith(PNG_SIGNATURE):
        return None
    out, left_out = [PNG_SIGNATURE], set()
    for kind, chunk in _png_chunks(data):
        damaged = zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big")
        if kind in PNG_PIXELS and not (damaged and kind[:1].islower()):
            out.append(chunk)
        else:
            left_out.add(kind.decode("latin-1"))
    if not left_out:
        return None
    warn(f"damaged or oversized data beside the pixels is left out: {', '.join(sorted(left_out))}")
    return b"".join(out)


def colour_codes(file: IO[bytes]) -> tuple[int, int] | None:
    """Primaries and transfer (H.273) that a PNG's cICP chunk, or an AVIF's or HEIF's nclx box states."""
    file.seek(0)
    head = file.read(HEAD)
    file.seek(0)
    if head.startswith(PNG_SIGNATURE):
        for kind, chunk in _png_chunks(head):
            if kind == b"cICP" and len(chunk) == 16:
                return chunk[8], chunk[9]
        return None
    if head[4:8] == b"ftyp" and (place := head.find(b"colrnclx")) >= 0 and len(head) >= place + 12:
        primaries, transfer = struct.unpack_from(">HH", head, place + 8)
        return primaries, transfer
    return None


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and bytes (length, type, body, check) of each chunk, as far as `data` goes."""
    at = len(PNG_SIGNATURE)
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : at + 8], data[at : at + 12 + length]
        at += 12 + length


def seekable(source: Any) -> IO[bytes]:
    """`source`, a binary file, as one that can seek: a pipe is read to its end."""
    if hasattr(source, "seekable") and source.seekable():
        return source
    return io.BytesIO(source.read())
