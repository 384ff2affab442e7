"""What a stream's tiles hold, window by window: a tile is read once one needs it, or ahead of the device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future

import numpy as np

from ..errors import CorruptStreamError
from ..stream import symbols
from ..stream.container import Stream
from . import tiles
from .batches import Work
from .engine import Engine, Features, Tile
from .threads import Tasks
from .tiles import Box

Symbols = tuple[np.ndarray, np.ndarray]

# Tiles beyond this many pixels a side, which sodec writes none of, are not dequantised whole. Around what a window
# needs of one this many cells go in too, which is further than any value of y depends on: 9 cells in lite.
LARGE, REACH = 1024, 16
# What is next to a tile: steps down and right in the grid, and the row or column of the neighbour that touches it.
SIDES = {"top": (-1, 0), "bottom": (1, 0), "left": (0, -1), "right": (0, 1)}


class TileSource:
    """The features of any window of a stream. A tile is decoded once, and dropped when `forget` says so.

    `load` is a piece of work for `batches.run`.

    Parameters
    ----------
    readers
        What is read ahead goes to; whoever made them ends them.
    ahead
        Whether a single tile is read in a thread too, because there is other work meanwhile.
    """

    def __init__(
        self,
        engine: Engine,
        stream: Stream,
        *,
        content: bool,
        conceal: bool = False,
        readers: Tasks | None = None,
        ahead: bool = False,
    ) -> None:
        self.engine, self.stream, self.content, self.conceal = engine, stream, content, conceal
        self.boxes = list(tiles.grid(stream.width, stream.height, 1 << stream.tile_log2))
        self.ready: dict[int, Features] = {}
        self.packed: dict[int, Symbols] = {}  # of large tiles, dequantised window by window
        self.lost: set[int] = set()
        self._begun: dict[int, Future[Symbols | None]] = {}
        self._readers, self._ahead = readers or Tasks(), ahead

    def begin(self, windows: Iterable[Box]) -> None:
        """Reads the symbols of the tiles that `windows` touch in threads: the native coder leaves the GIL to others."""
        missing = [number for number in self._needed(windows) if not self._is_read(number)]
        self._ahead = self._ahead or len(missing) > 1
        if self._ahead:
            for number in missing:
                if number not in self._begun:
                    self._begun[number] = self._readers.submit(self._symbols_or_none, number)

    def load(self, windows: Iterable[Box]) -> Work[None]:
        """Decodes the tiles that `windows` touch, and stands in for the lost ones of them."""
        windows = list(windows)
        self.begin(windows)
        needed = self._needed(windows)
        yield from self._read(needed)
        for number in needed:
            if number in self.lost and number not in self.ready:
                self.ready[number] = yield from self._concealed(number)

    def symbols(self, number: int) -> Symbols:
        """z and y of a tile, as they were coded."""
        cells = self.boxes[number].cells()
        payload = self.stream.payloads[number]
        return symbols.decode(self.engine.coding, payload, self.stream.quality, cells.height, cells.width)

    def _read(self, numbers: Iterable[int]) -> Work[None]:
        """Makes tiles ready; `lost` takes the rest."""
        for number in numbers:
            if self._is_read(number):
                continue
            with self.engine.stage("entropy"):  # of what was begun, the time that it has to be waited for
                begun = self._begun.pop(number, None)
                found = self._symbols_or_none(number) if begun is None else begun.result()
            if found is None:
                self.lost.add(number)
                continue
            if self._is_large(number):
                self.packed[number] = found
                continue
            (self.ready[number],) = yield [Tile(*found, self.stream.quality, self.content)]
        if len(self.lost) == len(self.boxes):
            raise CorruptStreamError("every tile of the stream is damaged")

    def _is_read(self, number: int) -> bool:
        return number in self.ready or number in self.packed or number in self.lost

    def _is_large(self, number: int) -> bool:
        # What stands in for a lost tile is made of all of its neighbours.
        return not self.conceal and max(self.boxes[number].width, self.boxes[number].height) > LARGE

    def _features(self, number: int, cells: Box) -> Features:
        """The features of some cells of a tile that is loaded."""
        tile = self.boxes[number].cells()
        if number in self.ready:
            rows, columns = cells.within(tile)
            return tuple(array[..., rows, columns] for array in self.ready[number])
        # From whole cells of z on, of which each is four cells of y wide and high.
        reached = cells.grown(REACH, tile.right, tile.bottom).common(tile)
        near = reached._replace(left=reached.left - (reached.left - tile.left) % 4,
                                top=reached.top - (reached.top - tile.top) % 4)  # fmt: skip
        rows, columns = near.within(tile)
        z, y = self.packed[number]
        z = z[:, rows.start // 4 : -(-rows.stop // 4), columns.start // 4 : -(-columns.stop // 4)]
        with self.engine.stage("hyper-synthesis"):
            features = self.engine.dequantise(
                np.ascontiguousarray(z), np.ascontiguousarray(y[:, rows, columns]), self.stream.quality,
                content=self.content,
            )  # fmt: skip
        rows, columns = cells.within(near)
        return tuple(array[..., rows, columns] for array in features)

    def _symbols_or_none(self, number: int) -> Symbols | None:
        if not self.conceal:
            return self.symbols(number)
        try:
            return self.symbols(number) if self.stream.payloads[number] else None
        except CorruptStreamError:
            return None

    def _concealed(self, number: int) -> Work[Features]:
        columns, rows = self.stream.tiles
        row, column = divmod(number, columns)
        around = {
            side: number + down * columns + across
            for side, (down, across) in SIDES.items()
            if 0 <= row + down < rows and 0 <= column + across < columns
        }
        yield from self._read(around.values())
        whole = {side: self.ready[other] for side, other in around.items() if other not in self.lost}
        cells = self.boxes[number].cells()
        if not whole:
            (features,) = yield [
                Tile(*self.engine.nothing(cells.height, cells.width), self.stream.quality, self.content)
            ]
            return features

        def filled(place: int) -> Features:
            beside = {side: features[place] for side, features in whole.items()}
            values = fill(cells.height, cells.width, {side: self.engine.to_host(x) for side, x in beside.items()})
            return self.engine.from_host(values, next(iter(beside.values())))

        return tuple(filled(place) for place in range(len(next(iter(whole.values())))))

    def window(self, window: Box) -> Features:
        """The features of a window (pixels, in whole cells) whose tiles are loaded."""
        cells = window.cells()
        shared = [(number, self.boxes[number].cells().common(cells)) for number in self._touched(window)]
        if len(shared) == 1 and self.boxes[shared[0][0]].cells() == cells:
            return self._features(*shared[0])
        whole: Features = ()
        for number, part in shared:
            features = self._features(number, part)
            whole = whole or tuple(self.engine.empty(array, cells.height, cells.width) for array in features)
            rows, columns = part.within(cells)
            for array, feature in zip(whole, features, strict=True):
                array[..., rows, columns] = feature
        return whole

    def forget(self, above: int) -> None:
        """Drops the tiles that end above this row of pixels."""
        for number in [n for n in self.ready if self.boxes[n].bottom <= above]:
            del self.ready[number]
        for number in [n for n in self.packed if self.boxes[n].bottom <= above]:
            del self.packed[number]

    def _needed(self, windows: Iterable[Box]) -> list[int]:
        return sorted({number for window in windows for number in self._touched(window)})

    def _touched(self, window: Box) -> Iterator[int]:
        """Numbers of the tiles that the window meets. Its right and bottom may lie in the picture's last cells."""
        columns, rows = self.stream.tiles
        log2 = self.stream.tile_log2
        for row in range(window.top >> log2, min(rows, (window.bottom - 1 >> log2) + 1)):
            for column in range(window.left >> log2, min(columns, (window.right - 1 >> log2) + 1)):
                yield row * columns + column


def fill(height: int, width: int, neighbours: Mapping[str, np.ndarray]) -> np.ndarray:
    """(1, C, height, width) from at least one neighbour, (1, C, h, w) by the side of `SIDES` that it lies on."""
    rows = np.broadcast_to(np.arange(1, height + 1, dtype=np.float32)[:, None], (height, width))
    columns = np.broadcast_to(np.arange(1, width + 1, dtype=np.float32), (height, width))
    distance = {"top": rows, "bottom": height + 1 - rows, "left": columns, "right": width + 1 - columns}
    edge = {"top": (slice(-1, None), slice(None)), "bottom": (slice(0, 1), slice(None)),
            "left": (slice(None), slice(-1, None)), "right": (slice(None), slice(0, 1))}  # fmt: skip
    total: np.ndarray | float = 0.0
    weights: np.ndarray | float = 0.0
    for side, values in neighbours.items():
        down, across = edge[side]
        weight = 1 / distance[side]
        total = total + weight * values[..., down, across]
        weights = weights + weight
    return np.asarray(total / weights, np.float32)
