"""The contact sheet: crops of the original and of each codec at equal bytes, side by side, to be looked at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .codecs import ImageCodec
from .metrics import Array

MARGIN = 4
TEXT = 12


def nearest(codec: ImageCodec, picture: Array, target: float) -> tuple[float, bytes]:
    """The whole setting within the codec's range whose stream is nearest to `target` bytes, by bisection.

    Nearest by ratio: 50 bytes more weigh more on a small file. Where the codec can't go so low or so high, its end.
    """
    low, high = math.ceil(min(codec.settings)), math.floor(max(codec.settings))
    coded = {setting: codec.encode(picture, setting) for setting in {low, high}}
    while high - low > 1:
        middle = (low + high) // 2
        coded[middle] = codec.encode(picture, middle)
        if len(coded[middle]) < target:
            low = middle
        else:
            high = middle
    setting = min(coded, key=lambda s: (abs(math.log(len(coded[s]) / target)), s))
    return setting, coded[setting]


def contact_sheet(
    pictures: Mapping[str, Array],
    codec: ImageCodec,
    rivals: Sequence[ImageCodec],
    rates: Sequence[float] = (0.05, 0.1, 0.2),
    *,
    crop: int = 256,
    corners: Mapping[str, tuple[int, int]] | None = None,
) -> Image.Image:
    """A row per picture and rate: original, `codec` near that rate, and each rival near the bytes that `codec` took.

    Parameters
    ----------
    pictures
        uint8 (H, W, 3) by name.
    rates
        Bits per pixel. A codec that can't reach one shows its nearest setting; the label has bytes, rate, and how
        many times the bytes of `codec` that is.
    crop
        Side of the crops, in pixels; smaller where the picture is.
    corners
        Top and left of the crop by picture name; otherwise the crop is from the middle.
    """
    rows = []
    for name, picture in pictures.items():
        window = _window(picture, crop, (corners or {}).get(name))
        pixels = picture.shape[0] * picture.shape[1]
        for rate in rates:
            setting, data = nearest(codec, picture, rate * pixels / 8)
            row = [_cell(picture[window], name, "original"), _coded(codec, setting, data, pixels, window, len(data))]
            for rival in rivals:
                row.append(_coded(rival, *nearest(rival, picture, len(data)), pixels, window, len(data)))
            rows.append(_join(row, horizontal=True))
    return _join(rows, horizontal=False)


def _window(picture: Array, crop: int, corner: tuple[int, int] | None) -> tuple[slice, slice]:
    height, width = min(crop, picture.shape[0]), min(crop, picture.shape[1])
    top, left = corner or ((picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2)
    top, left = min(top, picture.shape[0] - height), min(left, picture.shape[1] - width)
    return slice(top, top + height), slice(left, left + width)


def _coded(
    codec: ImageCodec, setting: float, data: bytes, pixels: int, window: tuple[slice, slice], equal: int
) -> Image.Image:
    first = f"{codec.name} {setting:g}"
    second = f"{len(data):,} B  {8 * len(data) / pixels:.3f} bpp  x{len(data) / equal:.2f}"
    return _cell(codec.decode(data)[window], first, second)


def _cell(pixels: Array, first: str, second: str) -> Image.Image:
    """A crop over two lines of text."""
    height, width = pixels.shape[:2]
    cell = Image.new("RGB", (max(width, 160) + MARGIN, height + 2 * (TEXT + 4) + MARGIN), "white")
    cell.paste(Image.fromarray(np.ascontiguousarray(pixels)), (0, 0))
    draw = ImageDraw.Draw(cell)
    font = ImageFont.load_default(TEXT)
    for number, line in enumerate((first, second)):
        draw.text((1, height + 1 + number * (TEXT + 3)), line, fill="black", font=font)
    return cell


def _join(cells: Sequence[Image.Image], *, horizontal: bool) -> Image.Image:
    widths, heights = [cell.width for cell in cells], [cell.height for cell in cells]
    size = (sum(widths), max(heights)) if horizontal else (max(widths), sum(heights))
    sheet = Image.new("RGB", size, "white")
    x = y = 0
    for cell in cells:
        sheet.paste(cell, (x, y))
        x, y = (x + cell.width, y) if horizontal else (x, y + cell.height)
    return sheet
