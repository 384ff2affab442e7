"""From the pixels that Pillow has loaded to 8-bit sRGB and alpha, band by band, and what memory that takes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from PIL import Image

from ..errors import UnsupportedPictureError, warn
from . import colour

PLAIN = ("1", "L", "P", "PA", "LA", "La", "RGB", "RGBA", "RGBa", "RGBX")  # modes of 8 bits and RGB
HIGH_DEPTH = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")  # Pillow's modes of more than 8 bits
Bands = Iterator[tuple[slice, np.ndarray, np.ndarray | None]]  # rows, colours (h, W, 3), and alpha (h, W) or None
BAND_PIXELS = 1 << 21  # pixels that are converted at once: bounds memory
# Larger pictures go through a temporary file from Pillow's memory into ours, so that only one of them is taken at a
# time: of 96 megapixels in colour Pillow's is 384 MB and ours 288.
FILE_PIXELS = 1 << 25
# Bytes per pixel that Pillow's plugins take beside its own pixels, and bands while they are converted: measured on 24
# megapixels, as the peak of `load` less what its planes take.
PLUGIN_BYTES = {"AVIF": 7, "HEIF": 7, "WEBP": 13, "JPEG2000": 16, "JXL": 16, "TIFF": 4}
PROGRESSIVE_BYTES = 7  # libjpeg holds the coefficients of all of a progressive JPEG
BAND_BYTES, BAND_BYTES_HIGH_DEPTH = 20, 40


def bytes_to_load(image: Image.Image) -> int:
    """The peak of memory while an opened image becomes planes: 1-30 % above what was measured."""
    pixels = image.width * image.height
    pillow = {"1": 1, "L": 1, "P": 1}.get(image.mode, 2 if image.mode.startswith("I;16") else 4)
    plugin = PLUGIN_BYTES.get(str(image.format), 0)
    if image.format in ("JPEG", "MPO") and image.info.get("progressive"):
        plugin = PROGRESSIVE_BYTES
    planes = 3 + 2 * (image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info)
    at_once = max(pillow, planes) if pixels > FILE_PIXELS else pillow + planes
    band = BAND_BYTES_HIGH_DEPTH if image.mode in HIGH_DEPTH else BAND_BYTES
    return max(pixels * (pillow + plugin), pixels * at_once + band * min(pixels, BAND_PIXELS))


def depth_of(image: Image.Image) -> int:
    """Bits of a sample as it is stored, as far as Pillow's mode does not say it; asked before pixels are loaded."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else None
    raw = str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)  # Pillow's raw mode
    if image.mode == "L" and raw in ("L;2", "L;4"):
        return int(raw[-1])
    if image.mode.startswith("I;16") and raw.startswith("I;12"):
        return 12
    return 16 if image.mode in HIGH_DEPTH else 8


def conversion_of(image: Image.Image, codes: tuple[int, int] | None) -> colour.Conversion | None:
    """How the image's colours become sRGB: by colour codes, a profile, or PNG's gamma and chromaticities."""
    info = image.info
    nclx = info.get("nclx_profile")
    if codes is None and isinstance(nclx, Mapping):  # as pillow-heif gives it
        codes = nclx.get("color_primaries", 2), nclx.get("transfer_characteristics", 2)
    icc, conversion = info.get("icc_profile"), None
    if codes is not None and not (icc and image.format != "PNG"):
        conversion = colour.from_codes(*codes)
    elif icc:
        conversion = colour.from_profile(image, icc)
    elif image.format == "PNG" and "srgb" not in info and ("gamma" in info or "chromaticity" in info):
        gamma = info.get("gamma", colour.GAMMA_SRGB)
        exponent = None if abs(gamma - colour.GAMMA_SRGB) < colour.GAMMA or gamma <= 0 else 1 / gamma
        chromaticities = info.get("chromaticity", (*colour.D65, *colour.SRGB))
        if len(chromaticities) == 8 and min(chromaticities[1::2]) > 0:
            conversion = colour.from_chromaticities(tuple(chromaticities), exponent)
    if conversion is not None:
        warn(f"the colours are converted from {conversion.source!r} to sRGB")
    return conversion


def in_bands(height: int, width: int) -> Iterator[slice]:
    rows = max(1, BAND_PIXELS // max(1, width))
    return (slice(top, min(top + rows, height)) for top in range(0, height, rows))


def planes_of(
    image: Image.Image, depth: int, conversion: colour.Conversion | None, free: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """sRGB (H, W, 3) and alpha (H, W) or None, both uint8, band by band.

    `free`: the image's own pixels are not needed afterwards.
    """
    width, height = image.size
    top = _top(image, depth) if image.mode in HIGH_DEPTH else 0.0
    if image.mode not in (*PLAIN, *HIGH_DEPTH) and not conversion:
        warn(f"the picture is {image.mode}; it is converted to 8-bit sRGB")

    def bands() -> Bands:
        for rows in in_bands(height, width):
            base, mask = _split(image.crop((0, rows.start, width, rows.stop)), depth, top)
            values = np.asarray(base.convert("RGB")) if conversion is None else conversion.apply(base)
            values = np.broadcast_to(values[..., None] if values.ndim == 2 else values, (*values.shape[:2], 3))
            yield rows, values, mask

    if free and width * height > FILE_PIXELS:
        try:
            return _through_files(image, bands())
        except OSError:  # no place for a temporary file
            pass
    rgb, alpha = np.empty((height, width, 3), np.uint8), None
    for rows, values, mask in bands():
        rgb[rows] = values
        if mask is not None:
            alpha = np.empty((height, width), np.uint8) if alpha is None else alpha
            alpha[rows] = mask
    return rgb, alpha


def _through_files(image: Image.Image, bands: Bands) -> tuple[np.ndarray, np.ndarray | None]:
    """As `planes_of`, from the bands of `image`, whose own pixels are freed before memory is taken for the arrays.

    Raises `OSError`, and keeps the image's pixels, where temporary files can't be written.
    """
    with tempfile.TemporaryFile() as colours, tempfile.TemporaryFile() as masks:
        for _, values, mask in bands:
            colours.write(np.ascontiguousarray(values).data)
            if mask is not None:
                masks.write(np.ascontiguousarray(mask, np.uint8).data)
        has_alpha = masks.tell() > 0
        for file in (colours, masks):
            file.seek(0)  # and writes what is buffered
        width, height = image.size
        Image.Image.close(image)  # frees its pixels; `image.close` would close the caller's file too
        rgb = np.fromfile(colours, np.uint8).reshape(height, width, 3)
        return rgb, np.fromfile(masks, np.uint8).reshape(height, width) if has_alpha else None


def _split(band: Image.Image, depth: int, top: float) -> tuple[Image.Image, np.ndarray | None]:
    """The colours of a band, of mode L, I;16, RGB, CMYK or LAB, and its alpha (h, W), or None."""
    mode, hidden = band.mode, band.info.get("transparency")
    if mode in HIGH_DEPTH:
        values = np.asarray(band)
        mask = None if hidden is None else np.where(values == hidden, 0, 255)
        scaled = np.clip(values.astype(np.float64) * (65535 / top), 0, 65535)
        if mode.startswith("I;16") and "icc_profile" in band.info:
            return Image.fromarray(np.round(scaled).astype(np.uint16)), mask
        return Image.fromarray(np.round(scaled / 257).astype(np.uint8)), mask
    if mode in ("LA", "La"):
        planes = np.asarray(band.convert("LA"))
        return Image.fromarray(planes[..., 0]), planes[..., 1]
    if mode in ("RGBA", "RGBa", "PA") or (mode == "P" and hidden is not None):
        planes = np.asarray(band.convert("RGBA"))
        return Image.fromarray(planes[..., :3]), planes[..., 3]
    if mode in ("1", "L"):
        base = band.convert("L")
        if hidden is None:
            return base, None
        value = hidden * {2: 85, 4: 17}.get(depth, 1)  # Pillow widens the pixels and not the transparent value
        return base, np.where(np.asarray(base) == value, 0, 255)
    if mode == "RGB" and hidden is not None:
        colours = np.array([value >> 8 if max(hidden) > 255 else value for value in hidden], np.uint8)
        return band, np.where((np.asarray(band) == colours).all(-1), 0, 255)
    if mode in ("CMYK", "LAB", "RGB"):
        return band, None
    return band.convert("RGB"), None


def _top(image: Image.Image, depth: int) -> float:
    """The value that is white in a picture of more than 8 bits, with a warning that names it."""
    if image.mode.startswith("I;16"):
        top = 4095.0 if depth == 12 else 65535.0
    else:
        if image.mode == "F" and not np.isfinite(np.asarray(image)).all():
            raise UnsupportedPictureError("the picture has NaN or infinite values")
        highest: Any = image.getextrema()[1]
        tops = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0, 2.0**31 - 1)
        top = next((value for value in tops if highest <= value), tops[-1])
    warn(f"the picture is of mode {image.mode}; its values 0..{top:.0f} are converted to 8 bits")
    return top
