"""No seams: pixels change no more at the border of tiles than elsewhere. Only a few tiles are in memory.

pytest tests/test_seams.py
"""

import numpy as np
import pytest
from tiny import codec, photo

from sodec.pipeline.source import TileSource
from sodec.pipeline.tiles import BLEND, CELL, TILE


@pytest.fixture(autouse=True)
def tiles_of_synthesis(monkeypatch):
    """As small as those of the stream, since a picture of a few pixels in height is decoded at once by default."""
    monkeypatch.setattr(codec().engine, "tile", TILE)


def smooth(width, height):
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 200 / width + 20, y * 100 / height + 60, 180 - x * 90 / width], -1).astype(np.uint8)


def steps(picture, axis):
    """The mean change from each row or column to the next."""
    return np.abs(np.diff(picture.astype(float), axis=axis)).mean(axis=tuple({0, 1, 2} - {axis}))


@pytest.mark.parametrize("make", [smooth, photo])
@pytest.mark.parametrize("mode", ["full", "fidelity"])
@pytest.mark.parametrize("axis", [0, 1])
def test_no_step_at_a_border_is_larger_than_elsewhere(make, mode, axis):
    size = (2304, 96) if axis == 1 else (96, 2304)
    decoded = codec().decompress(codec().compress(make(*size), 70), output="numpy", mode=mode)
    change = steps(decoded, axis)
    # A decoder of cells has its own rhythm: columns are compared with those of the same place in their cell.
    place = np.arange(len(change))
    near = np.zeros(len(change), bool)
    for border in (TILE, 2 * TILE):
        near |= np.abs(place + 1 - border) <= BLEND + 1  # the ramp and both its ends
    # The cells at the picture's own edge see no neighbours.
    inner = (place >= 8 * CELL) & (place < len(change) - 8 * CELL)
    for phase in range(CELL):
        same = place % CELL == phase
        # 3 %: the pictures are small, and so their means are not exact.
        assert change[same & near].max() <= change[same & inner & ~near].max() * 1.03


def test_the_test_above_sees_a_step(monkeypatch):
    """The test must fail if tiles are not blended and the decoder gives each another brightness."""
    monkeypatch.setattr(codec().engine, "leaving_share", lambda *_: codec().engine.constant(np.zeros(1, np.float32)))
    synthesise, tile = codec().engine.synthesise_all, []

    def brighter(windows):
        tile.append(1)
        return [planes._replace(values=planes.values + 0.2 * len(tile)) for planes in synthesise(windows)]

    monkeypatch.setattr(codec().engine, "synthesise_all", brighter)
    with pytest.raises(AssertionError):
        test_no_step_at_a_border_is_larger_than_elsewhere(photo, "fidelity", 1)


def test_a_few_tiles_are_held_and_not_the_picture(monkeypatch):
    held = []
    window = TileSource.window

    def counting(self, box):
        held.append(len(self.ready))
        return window(self, box)

    monkeypatch.setattr(TileSource, "window", counting)
    data = codec().compress(photo(40, 7 * TILE), 50)
    codec().decompress(data)
    assert len(held) == 7
    assert max(held) == 3
