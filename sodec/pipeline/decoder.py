"""A stream to a picture, window by window, joined by ramps where tiles of synthesis meet."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .. import memory
from ..picture import Picture
from ..stream.container import Stream
from . import batches, fitting, tiles
from .batches import Work
from .engine import Engine, Planes, Window
from .source import TileSource
from .threads import Tasks
from .tiles import Box
from .view import Region, View

Progress = Callable[[float], None]


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
    ((_, decoded),) = decode_all(engine, [stream], view, conceal=conceal, progress=progress)
    return decoded


def decode_all(
    engine: Engine,
    streams: Sequence[Stream],
    view: View,
    *,
    conceal: bool = False,
    progress: Progress | None = None,
    naming: Callable[[int], AbstractContextManager[None]] = lambda number: nullcontext(),
) -> Iterator[tuple[int, Decoded]]:
    """What `decode` gives for each of several streams, with its number, as soon as it is there.

    What concerns one stream runs within `naming` of its number, so that an error can say which it is.
    """
    shares: dict[int, float] = {}  # of those that are being decoded
    ended = 0

    def tell(number: int, share: float) -> None:
        nonlocal ended
        shares[number] = share
        if share == 1:
            del shares[number]
            ended += 1
        if progress is not None:
            progress((ended + sum(shares.values())) / len(streams))

    def named(number: int, work: Work[Decoded]) -> Work[Decoded]:
        with naming(number):
            return (yield from work)

    with Tasks() as readers:
        works = [
            named(number, _decoding(engine, stream, view, conceal, partial(tell, number), readers, len(streams) > 1))
            for number, stream in enumerate(streams)
        ]
        pixels = [tiles.padded(stream.width) * tiles.padded(stream.height) for stream in streams]
        yield from batches.run(engine, works, pixels)


def _decoding(
    engine: Engine, stream: Stream, view: View, conceal: bool, tell: Progress, readers: Tasks, several: bool
) -> Work[Decoded]:
    wanted = view.box(stream.width, stream.height)
    width, height = wanted.width // view.shrink, wanted.height // view.shrink
    # As it is handed out: three planes, and Pillow's four; alpha by itself and within what Pillow is given.
    handed_out = (7 if stream.opaque else 12) * width * height
    memory.check(handed_out, f"a picture of {width}x{height} pixels", "a region or a scale takes less")
    whole = Box(0, 0, tiles.padded(stream.width), tiles.padded(stream.height))
    rows = list(_rows(whole, wanted, engine.tile))
    windows = [place.window for row in rows for place in row]
    largest = max(windows, key=lambda window: window.width * window.height)
    read = _whole_tiles(windows[0], windows[-1], stream.tile_log2).common(whole)
    ramps = 24 * wanted.width * min(wanted.height, 2 * tiles.BLEND)
    y_channels = engine.coding.offsets.shape[1]
    beside = 3 * width * height + ramps + fitting.read_ahead_bytes(y_channels, read, largest.height)
    engine.check(largest.height, largest.width, beside)
    source = TileSource(
        engine, stream, content=view.fidelity < 1, conceal=conceal, readers=readers, ahead=several
    )  # fmt: skip
    source.begin(place.window for place in rows[0])
    canvas = engine.canvas(height, width)
    joiner = Joiner(engine, whole, wanted, view.shrink, stream.grey, canvas)
    done = 0
    for row, next_row in zip(rows, [*rows[1:], []], strict=True):
        source.forget(row[0].window.top)
        yield from source.load(place.window for place in row)
        source.begin(place.window for place in next_row)
        for together in _alike(row, engine):
            planes = yield [
                Window(source.window(window), stream.quality, view.fidelity, view.noise, (window.top, window.left))
                for _, window in together
            ]
            for place, made in zip(together, planes, strict=True):
                joiner.add(place, made)
            done += len(together)
            tell(done / len(windows))
    (rgb,) = yield [batches.Fetch(canvas)]
    shown = wanted.common(Box(0, 0, stream.width, stream.height))
    alpha = stream.alpha_part(*shown.within(Box(0, 0, stream.width, stream.height)))
    if alpha is not None:
        alpha = _shrunk_alpha(alpha, wanted, view.shrink)
    boxes = [source.boxes[number] for number in sorted(source.lost)]
    lost = tuple((box.left, box.top, box.width, box.height) for box in boxes)
    return Decoded(Picture(rgb, alpha, stream.grey, stream.metadata), lost)


def _whole_tiles(first: Box, last: Box, log2: int) -> Box:
    """What the stream's tiles cover that the windows from `first` to `last` reach into."""
    return Box(
        first.left >> log2 << log2, first.top >> log2 << log2,
        -(-last.right >> log2) << log2, -(-last.bottom >> log2) << log2,
    )  # fmt: skip


class Place(NamedTuple):
    """A part that is synthesised at once, and the window around it that is decoded for it."""

    box: Box
    window: Box


def _rows(whole: Box, wanted: Box, tile: int | None) -> Iterator[list[Place]]:
    """The parts of synthesis whose ramps reach into `wanted`, row by row."""
    row: list[Place] = []
    for box in tiles.parts(whole.right, whole.bottom, tile):
        shown = box.grown(tiles.BLEND, whole.right, whole.bottom).common(wanted)
        if shown.width <= 0 or shown.height <= 0:
            continue
        if row and row[0].box.top != box.top:
            yield row
            row = []
        row.append(Place(box, box.grown(tiles.HALO, whole.right, whole.bottom)))
    yield row


def _alike(row: list[Place], engine: Engine) -> Iterator[list[Place]]:
    """The places of a row, those together that are next to each other, of one size, and best computed at once."""
    for (width, height), group in itertools.groupby(row, lambda place: (place.window.width, place.window.height)):
        places, most = list(group), engine.at_once(width * height)
        yield from (places[first : first + most] for first in range(0, len(places), most))


class Joiner:
    """Writes windows onto a canvas, row by row, mixed with what the windows before them have left on their ramps.

    A ramp is a straight line over twice `tiles.BLEND` pixels. Where one tile ends and the next begins, the first leaves
    its pixels there to the second, which mixes both: across first, then down. So only ramps are held and passed over
    twice.
    """

    def __init__(self, engine: Engine, whole: Box, wanted: Box, shrink: int, grey: bool, canvas: Any) -> None:
        self.engine, self.whole, self.wanted, self.shrink, self.grey = engine, whole, wanted, shrink, grey
        self.canvas = canvas
        self._beside: dict[tuple[int, int], Any] = {}  # the ramp that the tile to the left has left, by where they meet
        self._above: dict[int, Any] = {}  # those of the tiles above, by their left edge

    def add(self, place: Place, planes: Planes) -> None:
        """The next window, in the order of rows."""
        box, window, whole = *place, self.whole
        # The pixels that this window finishes: up to the ramps that it leaves to others.
        own = Box(max(0, box.left - tiles.BLEND), max(0, box.top - tiles.BLEND), _end(box.right, whole.right),
                  _end(box.bottom, whole.bottom))  # fmt: skip
        if box != whole:
            planes = self.engine.blendable(planes)
            self._join(box, own, window, planes)
        shown = own.common(self.wanted)
        if shown.width <= 0 or shown.height <= 0:
            return
        rows, columns = shown.within(self.wanted)
        part = self.canvas[_divided(rows, self.shrink), _divided(columns, self.shrink)]
        self.engine.paint(planes, shown.top - window.top, shown.left - window.left, self.shrink, self.grey, part)

    def _join(self, box: Box, own: Box, window: Box, planes: Planes) -> None:
        engine, whole = self.engine, self.whole
        low, high = -planes.offset, 1 - planes.offset

        def part(area: Box) -> Any:
            return planes.part(*area.within(window))

        beside = self._beside.pop((box.left, box.top), None)
        self._beside.clear()
        if beside is not None:
            ramp = own._replace(right=min(box.left + tiles.BLEND, whole.right), bottom=window.bottom, top=window.top)
            engine.blend(part(ramp), beside, engine.leaving_share(ramp.width, planes.fold, 1), low, high)
        if box.right < whole.right:
            ramp = window._replace(left=own.right, right=min(box.right + tiles.BLEND, whole.right))
            self._beside[box.right, box.top] = engine.clipped(part(ramp), low, high)
        above = self._above.pop(box.left, None)
        if above is not None:
            ramp = own._replace(bottom=min(box.top + tiles.BLEND, whole.bottom))
            engine.blend(part(ramp), above, engine.leaving_share(ramp.height, planes.fold, 0), low, high)
        if box.bottom < whole.bottom:
            ramp = own._replace(top=own.bottom, bottom=min(box.bottom + tiles.BLEND, whole.bottom))
            self._above[box.left] = engine.clipped(part(ramp), low, high)


def _end(edge: int, last: int) -> int:
    return edge if edge == last else edge - tiles.BLEND


def _divided(part: slice, by: int) -> slice:
    return slice(part.start // by, part.stop // by)


def _shrunk_alpha(part: np.ndarray, wanted: Box, shrink: int) -> np.ndarray:
    """Alpha of the pixels `wanted`, of which `part` is there; a preview's is the mean of those."""
    if shrink == 1:
        return np.ascontiguousarray(part)
    missing = (wanted.height - part.shape[0], wanted.width - part.shape[1])
    part = np.pad(part, ((0, missing[0]), (0, missing[1])), "edge")
    blocks = part.reshape(wanted.height // shrink, shrink, wanted.width // shrink, shrink)
    return blocks.mean((1, 3)).round().astype(np.uint8)
