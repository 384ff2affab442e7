"""A stream to a picture: tiles are read when a window needs them, and kept only while another one may."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .. import memory
from ..errors import CorruptStreamError
from ..picture import Picture
from ..stream import symbols
from ..stream.container import Stream
from . import tiles
from .engine import Engine, Features
from .tiles import BLEND, HALO, Box
from .view import Region, View

Symbols = tuple[np.ndarray, np.ndarray]
Progress = Callable[[float], None]
T = TypeVar("T")

# What is next to a tile: steps down and right in the grid, and the row or column of the neighbour that touches it.
SIDES = {"top": (-1, 0), "bottom": (1, 0), "left": (0, -1), "right": (0, 1)}


class Decoded(NamedTuple):
    """A picture, and where it was lost and filled from its surroundings."""

    picture: Picture
    lost: tuple[Region, ...]


def decode(
    engine: Engine, stream: Stream, view: View, *, conceal: bool = False, progress: Progress | None = None
) -> Decoded:
    """The picture of a stream, or the part of it that `view` asks for.

    Raises `CorruptStreamError` where a tile can't be read; with `conceal`, where none can.
    """
    wanted = view.box(stream.width, stream.height)
    width, height = wanted.width // view.shrink, wanted.height // view.shrink
    # Twice 8 bits of three planes, as they are handed out, and twice the floats of a row of windows.
    needed = 6 * width * height + 24 * width * min(height, engine.tile + 2 * BLEND)
    memory.check(needed, f"a picture of {width}x{height} pixels", "a region or a scale takes less")
    source = TileSource(engine, stream, content=view.fidelity < 1, conceal=conceal)
    with torch.inference_mode():
        rgb = _joined(engine, source, stream, view, wanted, progress)
    alpha = None
    if stream.alpha is not None:
        alpha = _shrunk_alpha(stream.alpha, wanted, view.shrink)
    boxes = [source.boxes[number] for number in sorted(source.lost)]
    lost = tuple((box.left, box.top, box.width, box.height) for box in boxes)
    return Decoded(Picture(rgb, alpha, stream.grey, stream.metadata), lost)


class TileSource:
    """y_hat and w of any window of a stream. A tile is decoded once, and dropped when `forget` says so."""

    def __init__(self, engine: Engine, stream: Stream, *, content: bool, conceal: bool = False) -> None:
        self.engine, self.stream, self.content, self.conceal = engine, stream, content, conceal
        self.boxes = list(tiles.grid(stream.width, stream.height, 1 << stream.tile_log2))
        self.ready: dict[int, Features] = {}
        self.lost: set[int] = set()

    def load(self, windows: Iterable[Box]) -> None:
        """Decodes the tiles that `windows` touch, and stands in for the lost ones of them."""
        needed = sorted({number for window in windows for number in self._touched(window)})
        self._read(needed)
        for number in needed:
            if number not in self.ready:
                self.ready[number] = self._concealed(number)

    def symbols(self, number: int) -> Symbols:
        """z and y of a tile, as they were coded."""
        cells = self.boxes[number].cells()
        payload = self.stream.payloads[number]
        return symbols.decode(self.engine.coding, payload, self.stream.quality, cells.height, cells.width)

    def _read(self, numbers: Iterable[int]) -> None:
        """Makes tiles ready, side by side: the native coder leaves the GIL to the others. `lost` takes the rest."""
        missing = [number for number in numbers if number not in self.ready and number not in self.lost]
        with self.engine.stage("entropy"):
            read = side_by_side(self._symbols_or_none if self.conceal else self.symbols, missing)
        with self.engine.stage("hyper-synthesis"):
            for number, found in zip(missing, read, strict=True):
                if found is None:
                    self.lost.add(number)
                else:
                    self.ready[number] = self.engine.dequantise(*found, self.stream.quality, content=self.content)
        if len(self.lost) == len(self.boxes):
            raise CorruptStreamError("every tile of the stream is damaged")

    def _symbols_or_none(self, number: int) -> Symbols | None:
        try:
            return self.symbols(number) if self.stream.payloads[number] else None
        except CorruptStreamError:
            return None

    def _concealed(self, number: int) -> Features:
        columns, rows = self.stream.tiles
        row, column = divmod(number, columns)
        around = {
            side: number + down * columns + across
            for side, (down, across) in SIDES.items()
            if 0 <= row + down < rows and 0 <= column + across < columns
        }
        self._read(around.values())
        whole = {side: self.ready[other] for side, other in around.items() if other not in self.lost}
        cells = self.boxes[number].cells()
        if not whole:
            z, y = self.engine.nothing(cells.height, cells.width)
            return self.engine.dequantise(z, y, self.stream.quality, content=self.content)
        y_hat = fill(cells.height, cells.width, {side: one.y_hat for side, one in whole.items()})
        parts = {side: one.w for side, one in whole.items() if one.w is not None}
        return Features(y_hat, fill(cells.height, cells.width, parts) if parts else None)

    def window(self, window: Box) -> Features:
        """The features of a window (pixels, in whole cells) whose tiles are loaded."""
        cells = window.cells()
        parts = [(self.boxes[number].cells(), self.ready[number]) for number in self._touched(window)]

        def mosaic(tensors: list[Tensor]) -> Tensor:
            whole = tensors[0].new_empty((1, tensors[0].shape[1], cells.height, cells.width))
            for (tile, _), tensor in zip(parts, tensors, strict=True):
                shared = tile.common(cells)
                rows, columns = shared.within(cells)
                from_rows, from_columns = shared.within(tile)
                whole[..., rows, columns] = tensor[..., from_rows, from_columns]
            return whole

        if len(parts) == 1 and parts[0][0] == cells:
            return parts[0][1]
        w = mosaic([one.w for _, one in parts if one.w is not None]) if self.content else None
        return Features(mosaic([one.y_hat for _, one in parts]), w)

    def forget(self, above: int) -> None:
        """Drops the tiles that end above this row of pixels."""
        for number in [n for n in self.ready if self.boxes[n].bottom <= above]:
            del self.ready[number]

    def _touched(self, window: Box) -> Iterator[int]:
        """Numbers of the tiles that the window meets. Its right and bottom may lie in the picture's last cells."""
        columns, rows = self.stream.tiles
        log2 = self.stream.tile_log2
        for row in range(window.top >> log2, min(rows, (window.bottom - 1 >> log2) + 1)):
            for column in range(window.left >> log2, min(columns, (window.right - 1 >> log2) + 1)):
                yield row * columns + column


def _joined(
    engine: Engine, source: TileSource, stream: Stream, view: View, wanted: Box, progress: Progress | None
) -> np.ndarray:
    """uint8 (h, w, 3) of the pixels `wanted`: windows decoded with a halo, joined by ramps, a row of them at a time.

    The floats of one row are held; of the row above, only the lines that the ramps of this one reach.
    """
    whole = Box(0, 0, tiles.padded(stream.width), tiles.padded(stream.height))
    shrink = view.shrink
    out = np.empty((wanted.height // shrink, wanted.width // shrink, 3), np.uint8)

    def shown_part(box: Box) -> Box:
        return box.grown(BLEND, whole.right, whole.bottom).common(wanted)

    rows = list(_rows(whole, wanted, engine.tile))
    count, done = sum(map(len, rows)), 0
    carried = np.zeros((0, out.shape[1], 3), np.float32)
    for number, row in enumerate(rows):
        windows = [box.grown(HALO, whole.right, whole.bottom) for box in row]
        source.forget(windows[0].top)
        source.load(windows)
        shown = [shown_part(box) for box in row]
        top, bottom = shown[0].top, shown[0].bottom
        band = np.zeros(((bottom - top) // shrink, out.shape[1], 3), np.float32)
        band[: len(carried)] += carried
        for box, window, part in zip(row, windows, shown, strict=True):
            x = engine.synthesise(source.window(window), stream.quality, view.fidelity)
            lines, places = part.within(window)
            pixels = x[..., lines, places]
            if shrink > 1:
                pixels = F.avg_pool2d(pixels, shrink)
            down = _weights(box.top, box.bottom, part.top, part.bottom, whole.bottom, shrink)
            across = _weights(box.left, box.right, part.left, part.right, whole.right, shrink)
            left = (part.left - wanted.left) // shrink
            values = (pixels[0] * 255).permute(1, 2, 0).cpu().numpy()
            band[:, left : left + len(across)] += values * (down[:, None] * across[None])[..., None]
            done += 1
            if progress:
                progress(done / count)
        # What the next row of windows shows too is not finished.
        next_top = shown_part(rows[number + 1][0]).top if number + 1 < len(rows) else bottom
        finished = (next_top - top) // shrink
        start = (top - wanted.top) // shrink
        out[start : start + finished] = _rounded(band[:finished], stream.grey)
        carried = band[finished:]
    return out


def _rows(whole: Box, wanted: Box, tile: int) -> Iterator[list[Box]]:
    """The tiles of synthesis whose ramps reach into `wanted`, row by row."""
    row: list[Box] = []
    for box in tiles.grid(whole.right, whole.bottom, tile):
        shown = box.grown(BLEND, whole.right, whole.bottom).common(wanted)
        if shown.width <= 0 or shown.height <= 0:
            continue
        if row and row[0].top != box.top:
            yield row
            row = []
        row.append(box)
    yield row


def _weights(start: int, stop: int, low: int, high: int, size: int, shrink: int) -> np.ndarray:
    return tiles.ramp(start, stop, low, high, size).reshape(-1, shrink).mean(1)


def _rounded(rgb: np.ndarray, grey: bool) -> np.ndarray:
    if grey:
        # Rec. 601, the weights by which Pillow makes grey.
        rgb = np.repeat((rgb @ np.array([0.299, 0.587, 0.114], np.float32))[..., None], 3, -1)
    return rgb.round().astype(np.uint8)


def _shrunk_alpha(alpha: np.ndarray, wanted: Box, shrink: int) -> np.ndarray:
    """Alpha of the pixels `wanted`; a preview's is the mean of the pixels that are there."""
    part = alpha[wanted.top : wanted.bottom, wanted.left : wanted.right]
    if shrink == 1:
        return np.ascontiguousarray(part)
    missing = (wanted.height - part.shape[0], wanted.width - part.shape[1])
    part = np.pad(part, ((0, missing[0]), (0, missing[1])), "edge")
    blocks = part.reshape(wanted.height // shrink, shrink, wanted.width // shrink, shrink)
    return blocks.mean((1, 3)).round().astype(np.uint8)


def side_by_side(one: Callable[[int], T], numbers: list[int]) -> list[T]:
    """`one` of each number, in threads: for what leaves the GIL to the others."""
    if len(numbers) <= 1:
        return [one(n) for n in numbers]
    with ThreadPoolExecutor() as pool:
        return list(pool.map(one, numbers))


def fill(height: int, width: int, neighbours: Mapping[str, Tensor]) -> Tensor:
    """(1, C, height, width) from at least one neighbour, (1, C, h, w) by the side of `SIDES` that it lies on."""
    rows = torch.arange(1, height + 1, dtype=torch.float32)[:, None].expand(height, width)
    columns = torch.arange(1, width + 1, dtype=torch.float32)[None].expand(height, width)
    distance = {"top": rows, "bottom": height + 1 - rows, "left": columns, "right": width + 1 - columns}
    edge = {"top": (slice(-1, None), slice(None)), "bottom": (slice(0, 1), slice(None)),
            "left": (slice(None), slice(-1, None)), "right": (slice(None), slice(0, 1))}  # fmt: skip
    total = weights = torch.zeros(())
    for side, tensor in neighbours.items():
        down, across = edge[side]
        weight = (1 / distance[side]).to(tensor.device)
        total = total.to(tensor.device) + weight * tensor[..., down, across].float()
        weights = weights.to(tensor.device) + weight
    return (total / weights).to(next(iter(neighbours.values())).dtype)
