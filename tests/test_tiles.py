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


def test_cells_round_up():
    assert Box(1024, 0, 1041, 16).cells() == Box(64, 0, 66, 1)
