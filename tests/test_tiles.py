"""Geometry of tiles: they cover the picture once, and their blending weights add up to one.

pytest tests/test_tiles.py
"""

import numpy as np
import pytest

from sodec.pipeline import tiles
from sodec.pipeline.tiles import BLEND, HALO, Box


@pytest.mark.parametrize("size", [(1, 1), (1024, 1024), (1025, 3), (2048, 1030), (3001, 2050)])
def test_tiles_cover_every_pixel_once(size):
    covered = np.zeros(size[::-1], int)
    for box in tiles.grid(*size):
        covered[box.within(Box(0, 0, *size))] += 1
    assert (covered == 1).all()


@pytest.mark.parametrize("size", [1024, 1025, 1030, 1100, 2048, 2049, 3001])
def test_blending_weights_add_up_to_one(size):
    total = np.zeros(size)
    for box in tiles.grid(size, 1):
        shown = box.grown(BLEND, size, 1)
        weights = tiles.ramp(box.left, box.right, shown.left, shown.right, size)
        assert (weights >= 0).all()
        total[shown.left : shown.right] += weights
    np.testing.assert_allclose(total, 1, atol=1e-6)


def test_windows_lie_on_the_grid_of_tokens():
    for box in tiles.grid(3001, 2050):
        window = box.grown(HALO, tiles.padded(3001), tiles.padded(2050))
        assert window.left % 64 == 0
        assert window.top % 64 == 0


PICTURES = [(1, 1), (1920, 1080), (3840, 2160), (6000, 4000), (65535, 16), (65535, 2049), (2048, 1536), (30000, 30000)]


@pytest.mark.parametrize("size", PICTURES)
def test_equal_parts_cover_a_picture_and_their_windows_are_bounded(size):
    width, height = map(tiles.padded, size)
    parts = list(tiles.parts(width, height))
    columns, rows = tiles.divided(width, height)
    assert len(parts) == columns * rows
    assert sum(part.width * part.height for part in parts) == width * height
    for number, part in enumerate(parts):
        assert part.left % HALO == part.top % HALO == 0
        if number % columns:
            assert part.left == parts[number - 1].right
            assert min(part.width, parts[number - 1].width) >= 2 * BLEND, "ramps would overlap"
        if number >= columns:
            assert part.top == parts[number - columns].bottom
            assert min(part.height, parts[number - columns].height) >= 2 * BLEND
        window = part.grown(HALO, width, height)
        assert window.width * window.height <= tiles.WINDOW


@pytest.mark.parametrize(
    ("size", "count"), [((1920, 1080), 1), ((3840, 2160), 4), ((1024, 1024), 1), ((2048, 1024), 1)]
)
def test_common_sizes_are_decoded_in_few_parts(size, count):
    assert len(list(tiles.parts(*map(tiles.padded, size)))) == count


def test_cells_round_up():
    assert Box(1024, 0, 1041, 16).cells() == Box(64, 0, 66, 1)
