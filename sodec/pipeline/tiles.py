"""Geometry of tiles: what is coded together, what synthesis sees around it, and how its edges are blended.

Everything is in pixels unless said otherwise. A cell is one position of y, 16x16 pixels.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..stream.header import CELL as CELL

# Of what is coded together. Chosen on 3072x2048 pixels of Kodak at 0.055 bpp (benchmarks/tile_sizes.py): 0.16 % more
# bytes than as one tile, and the same PSNR. A halo of 128 or 192 changes neither PSNR nor the steps at borders, which
# are 0.97 of those of one tile, and costs a fifth more time.
TILE = 1024
# Pixels of the largest window that is decoded at once, its halo included: one for 1920x1080, four for 3840x2160.
# With windows of 1,152 pixels a side, 19 and 23 % of their pixels were computed twice.
WINDOW = 2_300_000
SMALLEST = 512  # pixels a side, about, of the parts that a picture is divided into
# Real pixels (encoding) or neighbours' y (decoding) that a tile sees beyond its edge; a multiple of 64, so that
# guidance tokens (32 pixels) and the lowest level of the UNet (64) fall on the same grid in every tile.
HALO = 64
# Half the width of the ramp between two tiles; below HALO, so that no pixel of a window's own border is shown.
BLEND = 32


class Box(NamedTuple):
    """A rectangle, half open."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """In the box's own unit, like all of it."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """In the box's own unit, like all of it."""
        return self.bottom - self.top

    def grown(self, by: int, width: int, height: int) -> Box:
        """`by` more on each side, but within (0, 0, width, height)."""
        return Box(
            max(0, self.left - by), max(0, self.top - by), min(width, self.right + by), min(height, self.bottom + by)
        )

    def common(self, other: Box) -> Box:
        """What both cover; of no width or height, or of less, where they do not meet."""
        return Box(
            max(self.left, other.left), max(self.top, other.top),
            min(self.right, other.right), min(self.bottom, other.bottom),
        )  # fmt: skip

    def cells(self) -> Box:
        """The same in cells; what is not whole is rounded up."""
        return Box(self.left // CELL, self.top // CELL, -(-self.right // CELL), -(-self.bottom // CELL))

    def within(self, outer: Box) -> tuple[slice, slice]:
        """Rows and columns of this box in an array that holds `outer`."""
        top, left = self.top - outer.top, self.left - outer.left
        return slice(top, top + self.height), slice(left, left + self.width)


def grid(width: int, height: int, tile: int = TILE) -> Iterator[Box]:
    """The tiles of a picture, row by row."""
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            yield Box(left, top, min(left + tile, width), min(top + tile, height))


def parts(width: int, height: int, tile: int | None = None) -> Iterator[Box]:
    """What is decoded at once beside its halo, row by row: tiles of `tile` pixels, or of None those of `divided`."""
    if tile is not None:
        yield from grid(width, height, tile)
        return
    columns, rows = divided(width, height)
    across, down = _edges(width, columns), _edges(height, rows)
    for top, bottom in itertools.pairwise(down):
        for left, right in itertools.pairwise(across):
            yield Box(left, top, right, bottom)


@functools.lru_cache(maxsize=256)
def divided(width: int, height: int) -> tuple[int, int]:
    """Columns and rows of the equal parts of which, with their halos, no one has more than `WINDOW` pixels and all
    together have the fewest.
    """
    best = (width * height * 64, 1, 1)
    for columns in range(1, width // SMALLEST + 2):
        for rows in range(1, height // SMALLEST + 2):
            if _reach(width, columns) * _reach(height, rows) <= WINDOW:
                pixels = (width + 2 * HALO * (columns - 1)) * (height + 2 * HALO * (rows - 1))
                best = min(best, (pixels, columns, rows))
                break
    return best[1:]


def _edges(size: int, count: int) -> list[int]:
    """Where `count` equal parts of an axis begin and end, in multiples of `HALO`."""
    return [min(size, part * _steps(size) // count * HALO) for part in range(count + 1)]


def _reach(size: int, count: int) -> int:
    """The size of the largest of `count` equal parts of an axis, with its halo."""
    largest = -(-_steps(size) // count)
    return size if count == 1 else (largest + min(2, count - 1)) * HALO


def _steps(size: int) -> int:
    return -(-size // HALO)


def padded(size: int) -> int:
    """The size that whole cells cover."""
    return -(-size // CELL) * CELL


def ramp(start: int, stop: int, low: int, high: int, size: int) -> np.ndarray:
    """Weights of the pixels low..high - 1 for the tile start..stop of an axis of `size` pixels, (high - low,) float32.

    A straight line over 2 BLEND pixels at each inner edge, so that the weights of all tiles add up to one.
    """
    place = np.arange(low, high, dtype=np.float32) + 0.5
    rising = np.clip((place - (start - BLEND)) / (2 * BLEND), 0, 1) if start > 0 else np.ones_like(place)
    falling = np.clip((place - (stop - BLEND)) / (2 * BLEND), 0, 1) if stop < size else np.zeros_like(place)
    return np.asarray(rising - falling, dtype=np.float32)
