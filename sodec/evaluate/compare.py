"""Codecs side by side at equal bytes: sodec at some qualities, and each rival at the setting nearest in bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from ..errors import SodecError, UnsupportedPictureError
from .codecs import ImageCodec
from .metrics import Array, Metric
from .run import Mean, Row, figure, markdown, means, measure_and_keep, read_picture
from .sheet import nearest

SIDE = 1280  # of the window that is kept to be shown: whole pictures of more would make a page too large to send


@dataclass(frozen=True, eq=False)
class Version:
    """What one codec makes of a picture."""

    row: Row  # of the whole picture
    shown: Array  # the window of it that is kept


@dataclass(frozen=True, eq=False)
class Comparison:
    """One picture."""

    name: str
    size: tuple[int, int]  # width and height of the whole
    shown: Array  # the window of the original
    levels: tuple[tuple[Version, ...], ...]  # by quality: sodec's version, then those near it in bytes

    @property
    def cropped(self) -> bool:
        """Whether what is shown is only the middle of the picture."""
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
    """`codec` at each of the qualities, and the rivals at the bytes that it takes there.

    Parameters
    ----------
    picture
        uint8 (H, W, 3).
    side
        Of a longer picture only the middle, so many pixels wide and high at most, is kept to be shown.
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
    """`compare` for each of the pictures, with a bar; and the reason for each that can't be read or coded, by path.

    Raises `UnsupportedPictureError` where none can.
    """
    found: list[Comparison] = []
    skipped = {}
    for path in tqdm(paths, unit="picture", disable=None):
        try:
            found.append(compare(path.name, read_picture(path), codec, qualities, rivals, metrics, side))
        except SodecError as error:
            skipped[str(path)] = str(error)
    if paths and not found:
        raise UnsupportedPictureError(next(iter(skipped.values())))
    return found, skipped


def table(comparison: Comparison, metrics: Sequence[Metric]) -> str:
    """A row per version, in markdown; the ratio is of its bytes to those of sodec at the same level."""
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
