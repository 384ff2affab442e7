"""Codecs side by side at equal bytes: sodec at some qualities, and each rival at the setting nearest in bytes.

As a `Comparison`, which `report` makes a page of, and as a contact sheet of crops."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from ..errors import SodecError, UnsupportedPictureError
from .codecs import ImageCodec
from .metrics import Array, Metric
from .run import Mean, Row, figure, markdown, means, measure_and_keep, read_picture

SIDE = 1280  # pixels of the window that a page shows: with larger pictures it would be too large to send


@dataclass(frozen=True, eq=False)
class Version:
    """A picture coded by one codec."""

    row: Row  # of the whole picture
    shown: Array  # the window that a page shows, decoded


@dataclass(frozen=True, eq=False)
class Comparison:
    """A picture coded by several codecs."""

    name: str
    size: tuple[int, int]  # width and height of the whole picture
    shown: Array  # the window that a page shows, of the original
    levels: tuple[tuple[Version, ...], ...]  # by quality: sodec's version, then those near it in bytes

    @property
    def cropped(self) -> bool:
        """Whether only the middle of the picture is shown."""
        return (self.shown.shape[1], self.shown.shape[0]) != self.size


def compare(
    name: str,
    picture: Array,
    codec: ImageCodec,
    qualities: Sequence[float],
    rivals: Sequence[ImageCodec],
    metrics: Sequence[Metric],
    side: int = SIDE,
) -> Comparison:
    """Codes a picture with `codec` at each of the qualities, and with each rival at the bytes that `codec` took.

    Parameters
    ----------
    picture
        uint8 (H, W, 3).
    side
        Of a larger picture only the middle is shown, at most so many pixels wide and high.
    """
    window = _middle(picture, side)
    levels = []
    for quality in qualities:
        row, decoded = measure_and_keep(codec, quality, picture, name, metrics)
        level = [Version(row, decoded[window])]
        for rival in rivals:
            setting, _ = nearest(rival, picture, row.bytes)
            other, decoded = measure_and_keep(rival, setting, picture, name, metrics)
            level.append(Version(other, decoded[window]))
        levels.append(tuple(level))
    return Comparison(name, (picture.shape[1], picture.shape[0]), picture[window], tuple(levels))


def compare_files(
    paths: Sequence[Path],
    codec: ImageCodec,
    qualities: Sequence[float],
    rivals: Sequence[ImageCodec],
    metrics: Sequence[Metric],
    side: int = SIDE,
) -> tuple[list[Comparison], dict[str, str]]:
    """`compare` for each of the pictures; and the reason for each that can't be read or coded, by path.

    Raises `UnsupportedPictureError` if that is every picture.
    """
    comparisons: list[Comparison] = []
    skipped = {}
    for path in tqdm(paths, unit="picture", disable=None):
        try:
            comparisons.append(compare(path.name, read_picture(path), codec, qualities, rivals, metrics, side))
        except SodecError as error:
            skipped[str(path)] = str(error)
    if paths and not comparisons:
        raise UnsupportedPictureError(next(iter(skipped.values())))
    return comparisons, skipped


def comparison_table(comparison: Comparison, metrics: Sequence[Metric]) -> str:
    """Markdown, a row per version; the ratio is that of its bytes to those of sodec at the same level."""
    head = ["codec", "setting", "bytes", "x sodec's", "bpp", *(m.label for m in metrics), "encode, s", "decode, s"]
    body = [
        [
            version.row.codec,
            f"{version.row.setting:g}",
            f"{version.row.bytes:,}",
            f"{version.row.bytes / level[0].row.bytes:.2f}",
            f"{version.row.bpp:.4f}",
            *(figure(version.row.metrics[m.name], m.digits) for m in metrics),
            f"{version.row.encode_s:.3f}",
            f"{version.row.decode_s:.3f}",
        ]
        for level in comparison.levels
        for version in level
    ]
    return markdown(head, body)


def level_means(comparisons: Sequence[Comparison]) -> list[Mean]:
    """Means over pictures by codec and level, since a rival's own setting differs from picture to picture.

    `setting` is the quality of sodec that a rival was matched to in bytes.
    """
    rows = [
        replace(version.row, setting=level[0].row.setting)
        for comparison in comparisons
        for level in comparison.levels
        for version in level
    ]
    return means(rows)


def _middle(picture: Array, side: int) -> tuple[slice, slice]:
    height, width = picture.shape[:2]
    top, left = max(0, height - side) // 2, max(0, width - side) // 2
    return slice(top, top + min(side, height)), slice(left, left + min(side, width))


MARGIN = 4
TEXT = 12


def nearest(codec: ImageCodec, picture: Array, target: float) -> tuple[float, bytes]:
    """The integer setting whose stream is nearest to `target` bytes by ratio, and that stream; by bisection.

    Where the target is out of the codec's reach it is the lowest or highest setting.
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
        Bits per pixel. A codec that can't reach a rate shows its nearest setting. The label gives bytes, rate, and
        the ratio of the bytes to those of `codec`.
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
