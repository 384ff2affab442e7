"""Decoded pictures to files of any format that Pillow writes, or an error where the format can't hold the picture."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image, ImageChops, ImageStat

from ..errors import OutputError, UnsupportedPictureError, warn
from .alpha import flattened
from .metadata import save_options
from .opening import RASTER, open_image

QUALITY = 95  # of formats with a loss, where none is asked for
FULL_COLOUR = 90  # quality from which on colour is stored at full resolution
LOSSY = ("AVIF", "JPEG", "JPEG2000", "WEBP", "MPO", "PDF", "HEIF", "JXL")
# These hold whatever Pillow writes to them without an error, so they are not read back: that takes 4 bytes per pixel.
SURE = ("PNG", "JPEG")
ROWS = 512  # that are compared at once: bounds memory
NOTICED = 3.0  # mean change of a pixel, in grey levels, from which on a format's own loss is reported


def format_of(suffix: str) -> str:
    """Pillow's name of the format with this suffix. `OutputError` where Pillow writes none."""
    Image.init()
    kind = Image.EXTENSION.get(suffix.lower())
    if kind is None or kind not in Image.SAVE:
        raise OutputError(f"Pillow writes no format of suffix {suffix!r}")
    return kind


def encoded(image: Image.Image, kind: str, *, quality: int = QUALITY, flatten: str | None = None) -> bytes:
    """The bytes of a file of the format `kind` ("PNG", ...) with the picture `image`, of mode RGB, L, RGBA or LA.

    What the file read back doesn't show as it was is an error (size, transparency) or a warning (few colours); metadata
    that the format refuses are left out with a warning.

    Raises `OutputError` where the format can't hold the picture.
    """
    if flatten is not None and image.mode in ("RGBA", "LA"):
        image = _on_colour(image, flatten)
    options: dict[str, Any] = {"quality": quality} if kind in LOSSY else {}
    if kind == "PNG":
        options["compress_level"] = 1
    if kind in ("JPEG", "AVIF") and quality >= FULL_COLOUR:
        options["subsampling"] = "4:4:4"
    data = _saved(image, kind, options, save_options(kind, {str(key): value for key, value in image.info.items()}))
    _check(image, kind, data)
    return data


def _on_colour(image: Image.Image, colour: str) -> Image.Image:
    import numpy as np

    rgba = np.asarray(image.convert("RGBA"))
    solid = Image.fromarray(flattened(rgba[..., :3], rgba[..., 3], colour))
    solid.info |= image.info
    return solid if image.mode == "RGBA" else solid.convert("L")


def _saved(image: Image.Image, kind: str, options: dict[str, Any], carried: dict[str, Any]) -> bytes:
    """The file with the options `carried` for its metadata, or without, where they fail in a picture of this size."""
    failure = ""
    for candidate in _candidates(image):
        try:
            return _save(candidate, kind, options, carried)
        except Exception as error:  # of many kinds, by format and by what is wrong
            failure = str(error) or type(error).__name__
        if carried:
            try:
                data = _save(candidate, kind, options, {})
            except Exception:
                continue
            warn(f"{kind} does not take the metadata of this picture; it is left out: {failure}")
            return data
    if _transparent(image):
        raise OutputError(f"{kind} can't hold transparency; write a PNG, or give --flatten COLOUR")
    raise OutputError(f"{kind} can't hold this picture of {image.width}x{image.height}, {image.mode}: {failure}")


def _candidates(image: Image.Image) -> list[Image.Image]:
    """The image in the modes that hold it without a loss: more formats take RGB than grey, or than opaque RGBA."""
    modes = [image.mode, *{"L": ["RGB"], "LA": ["RGBA"]}.get(image.mode, [])]
    if image.mode in ("LA", "RGBA") and not _transparent(image):
        modes += ["L", "RGB"] if image.mode == "LA" else ["RGB"]
    return [image if mode == image.mode else image.convert(mode) for mode in modes]


def _transparent(image: Image.Image) -> bool:
    if image.mode not in ("RGBA", "LA"):
        return False
    lowest: Any = image.getchannel("A").getextrema()[0]
    return bool(lowest < 255)


def _save(image: Image.Image, kind: str, options: dict[str, Any], carried: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    info, image.info = image.info, {}  # some formats write what they find there, others only what they are given
    try:
        image.save(buffer, kind, **options, **carried)
    finally:
        image.info = info
    return buffer.getvalue()


def _check(image: Image.Image, kind: str, data: bytes) -> None:
    """Reads the file back: of another size, or opaque where the picture was not, it is refused."""
    if kind in SURE:
        return
    transparent = _transparent(image)
    if kind not in RASTER or (kind not in Image.OPEN and kind != "MPO"):
        if transparent and kind != "PDF":
            raise OutputError(f"{kind} is not known to hold transparency; write a PNG, or give --flatten COLOUR")
        return
    try:
        back = open_image(io.BytesIO(data))
        back.load()
    except Exception as error:
        reason = "" if isinstance(error, UnsupportedPictureError) else f" ({error})"
        raise OutputError(
            f"{kind} can't hold {image.width}x{image.height} pixels: what was written can't be read{reason}"
        ) from None
    if back.size != image.size:
        raise OutputError(f"{kind} can't hold {image.width}x{image.height} pixels, only {back.width}x{back.height}")
    if transparent and "A" not in back.getbands() and "transparency" not in back.info:
        raise OutputError(f"{kind} can't hold transparency; write a PNG, or give --flatten COLOUR")
    if kind not in LOSSY and (changed := _mean_change(image, back, "RGBA" if transparent else "RGB")) > NOTICED:
        warn(f"{kind} holds the picture only roughly: pixels change by {changed:.0f} levels in the mean")


def _mean_change(one: Image.Image, other: Image.Image, mode: str) -> float:
    """The mean difference of two images of one size, in grey levels, of the channel of `mode` where it is largest."""
    sums = [0.0] * len(mode)
    for top in range(0, one.height, ROWS):
        rows = (0, top, one.width, min(top + ROWS, one.height))
        parts = (image.crop(rows).convert(mode) for image in (one, other))
        sums = [
            total + part for total, part in zip(sums, ImageStat.Stat(ImageChops.difference(*parts)).sum, strict=True)
        ]
    return max(sums) / (one.width * one.height)
