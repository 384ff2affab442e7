"""Engine: what the pipeline asks of the networks of one model. Pixels of a tile to symbols, symbols to 8-bit pixels.

Nothing here knows of containers, files or PyTorch. Arrays that only networks read are the engine's own, on its device:
NumPy's, or tensors. The pipeline indexes them and assigns parts of them, and hands them back.
"""

from __future__ import annotations

import copy
import time
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..entropy import SKIP
from ..models.noise import PIXELS, place_noise
from ..stream import symbols
from ..weights import Coding
from . import tiles
from .tiles import CELL, Box, padded

NOISES = 8  # windows whose noise is kept: 1.3 MB of a window of 1,152 pixels, which takes 4 ms to make

Features = tuple[Any, ...]  # what synthesis knows of some cells: arrays (1, C, h, w), y_hat first


class Coefficients(NamedTuple):
    """What analysis makes of a tile, whatever the quality: the same serve every entropy pass."""

    z: Any  # (Cz, ceil(h/4), ceil(w/4)) int16; of `begin_analysis`, on its way to the host's memory
    y: Any  # (1, Cy, h, w), an array of the engine


class Planes(NamedTuple):
    """A picture as the networks give it: pixel (c, y f + i, x f + j) is `values[c, i, j, y, x]` plus `offset`.

    So a convolution that ends at a quarter of the size needs no pass over all pixels before they are rounded.
    """

    values: Any  # (3, f, f, h, w), an array of the engine
    offset: float
    rounded: Any = None  # the same in 8 bits, (H, W, 3), where that was computed with it

    @property
    def fold(self) -> int:
        """Pixels a side that lie at one place."""
        return int(self.values.shape[1])

    def part(self, rows: slice, columns: slice) -> Any:
        """The values of these pixels, whose edges are multiples of `fold`: a view."""
        f = self.fold
        down, across = (slice(part.start // f, part.stop // f) for part in (rows, columns))
        return self.values[..., down, across]


class Tile(NamedTuple):
    """A tile to dequantise. Those with one `key` can be computed together."""

    z: np.ndarray  # (Cz, ceil(h/4), ceil(w/4)) int16
    y: np.ndarray  # (Cy, h, w) int16
    quality: float
    content: bool  # whether more than y_hat is wanted

    @property
    def key(self) -> Hashable:
        """Of all that has to be equal."""
        return Tile, self.z.shape, self.y.shape, self.content

    @property
    def pixels(self) -> int:
        """Pixels of the picture that it covers."""
        return self.y.shape[1] * self.y.shape[2] * CELL**2


class Window(NamedTuple):
    """A window to synthesise; the fields are the arguments of `Engine.synthesise`."""

    features: Features
    quality: float
    fidelity: float
    noise: float
    corner: tuple[int, int]

    @property
    def key(self) -> Hashable:
        """Of all that has to be equal."""
        return Window, tuple(tuple(array.shape) for array in self.features), self.fidelity, self.noise

    @property
    def pixels(self) -> int:
        """Pixels of the picture that it covers."""
        height, width = self.features[0].shape[-2:]
        return int(height * width * CELL**2)


class Engine(ABC):
    """The networks and integers of one model.

    Attributes
    ----------
    tile
        Side in pixels of what is synthesised at once, beside its halo; None: as `tiles.divided` says.
    times
        Seconds by stage are added up here; None where nobody asked for them.
    call
        Stands for the call of the codec that `timed` was asked for.
    device, dtype
        Where the networks compute, and with which numbers: of PyTorch's types, or names.
    prepared
        How the networks were specialised for this device; printed, it is a summary.
    coders
        Threads in which tiles are coded while the device works on others.
    """

    coders = 0
    name: ClassVar[str]  # by which `Codec(engine=)` asks for it
    device: Any
    dtype: Any
    prepared: Any

    def __init__(self, coding: Coding, tile: int | None, noise_channels: int) -> None:
        self.coding, self.tile, self.noise_channels = coding, tile, noise_channels
        self.times: dict[str, float] | None = None
        self.call: object = None
        self._ramps: dict[tuple[int, int, int], Any] = {}
        self._noises: dict[tuple[int, ...], Any] = {}

    def timed(self, times: dict[str, float] | None) -> Engine:
        """The same engine, adding the seconds of its stages to `times`; one for each call, so threads can share it."""
        engine = copy.copy(self)
        engine.times = times
        engine.call = object()
        return engine

    def running(self) -> AbstractContextManager[Any]:
        """Around everything that touches the engine's arrays."""
        return nullcontext()

    @abstractmethod
    def check(self, height: int, width: int, beside: int) -> None:
        """`DeviceError` where a window of so many pixels, the largest of a picture, does not fit the memory.

        `beside` are the bytes that the picture takes in the host's memory meanwhile.
        """

    @abstractmethod
    def check_encoding(self, width: int, height: int, *, transparent: bool, keeps_y: bool) -> None:
        """`DeviceError` where there is too little memory to encode a picture of so many pixels.

        `transparent`: it has alpha. `keeps_y`: y of all of it is kept, for several passes.
        """

    # -- encoding

    def analyse(self, rgb: np.ndarray, box: Box) -> Coefficients:
        """The coefficients of the tile `box` of a picture, uint8 (H, W, 3); beyond the picture its edge goes on."""
        return self.analysed(self.begin_analysis(rgb, box))

    def begin_analysis(self, rgb: np.ndarray, box: Box) -> Coefficients:
        """What `analysed` makes the coefficients of, once the device has computed them."""
        window = box.grown(tiles.HALO, padded(rgb.shape[1]), padded(rgb.shape[0]))
        pixels = rgb[window.top : window.bottom, window.left : window.right]
        missing = (window.height - pixels.shape[0], window.width - pixels.shape[1])
        if any(missing):
            pixels = np.pad(pixels, ((0, missing[0]), (0, missing[1]), (0, 0)), "edge")
        with self.stage("analysis"), self.running():
            return self.coefficients(pixels, *box.cells().within(window.cells()))

    @abstractmethod
    def coefficients(self, pixels: np.ndarray, rows: slice, columns: slice) -> Coefficients:
        """Begins y of pixels, uint8 (H, W, 3) in whole cells, and z of the `rows` and `columns` of y that are kept."""

    def analysed(self, begun: Coefficients) -> Coefficients:
        """The coefficients, once they are there."""
        return begun

    def encode(self, coefficients: Coefficients, quality: float, deadzone: float = 0.0) -> bytes:
        """The payload of a tile. A symbol is rounded up, away from zero, from 1/2 + `deadzone` on."""
        with self.stage("entropy"), self.running():
            z = coefficients.z
            indexes = symbols.scale_indexes(self.coding, z, quality, *coefficients.y.shape[2:])
            y = self.quantise(coefficients, quality, indexes != SKIP, deadzone)
            return symbols.encode(self.coding, np.ascontiguousarray(z), y, indexes)

    @abstractmethod
    def quantise(
        self, coefficients: Coefficients, quality: float, coded: np.ndarray, deadzone: float = 0.0
    ) -> np.ndarray:
        """The symbols of y, contiguous (Cy, h, w) int16, 0 where `coded` (Cy, h, w) is false."""

    # -- decoding

    @abstractmethod
    def dequantise(self, z: np.ndarray, y: np.ndarray, quality: float, *, content: bool = True) -> Features:
        """What synthesis needs of the symbols of one tile: of y_hat alone unless `content`."""

    def dequantise_all(self, tiles: Sequence[Tile]) -> list[Features]:
        """`dequantise` of tiles of one key."""
        return [self.dequantise(z, y, quality, content=content) for z, y, quality, content in tiles]

    def nothing(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """z and y of zeros for a tile of so many cells: they decode to the mean of the prior."""
        z_channels = sum(tables.count for tables in self.coding.z_tables)
        z = np.zeros((z_channels, -(-height // 4), -(-width // 4)), np.int16)
        return z, np.zeros((self.coding.offsets.shape[1], height, width), np.int16)

    @abstractmethod
    def synthesise(
        self, features: Features, quality: float, fidelity: float, noise: float = 1.0, corner: tuple[int, int] = (0, 0)
    ) -> Planes:
        """The picture of a window of `features`, not clipped.

        Parameters
        ----------
        fidelity
            The share of the fidelity decoder's picture; at 1 nothing else is computed.
        noise
            How loud the decoder's noise is.
        corner
            The window's first row and column in the whole picture, in pixels.
        """

    def synthesise_all(self, windows: Sequence[Window]) -> list[Planes]:
        """`synthesise` of windows of one key."""
        return [self.synthesise(*window) for window in windows]

    # -- batches

    def takes_more(self, pixels: Sequence[int], begun: bool) -> bool:
        """Whether another picture should be begun while those of so many pixels are being decoded.

        `begun`: one has just been, so that it could go along with that.
        """
        return not pixels

    def at_once(self, pixels: int) -> int:
        """How many tiles or windows of so many pixels are best computed together."""
        return 1

    def limit_to(self, pixels: int) -> bool:
        """Computes no more pixels at once from now on; whether that is the first limit."""
        return False

    def holds_memory(self) -> bool:
        """Whether `give_up_memory` could help."""
        return False

    def give_up_memory(self) -> None:
        """Frees what can be made again, after memory has run out."""
        return

    def noise(self, y_hat: Any, loudness: float = 1.0, corner: tuple[int, int] = (0, 0)) -> Any:
        """The noise of a window whose first pixel is at `corner`, (1, Cn, 4 h, 4 w), if the model has any.

        That of the last few windows is kept.
        """
        if not self.noise_channels:
            return None
        key = (
            self.noise_channels,
            *(CELL // PIXELS * side for side in y_hat.shape[-2:]),
            *(place // PIXELS for place in corner),
        )
        kept = self._noises.get(key)
        if kept is None:
            kept = self.place_noise(key)
            if len(self._noises) >= NOISES:
                self._noises.clear()
            self._noises[key] = kept
        return kept if loudness == 1 else kept * loudness

    def place_noise(self, place: tuple[int, ...]) -> Any:
        """The noise of these arguments of `models.noise.place_noise`, with a first axis of one."""
        return self.constant(place_noise(*place)[None])

    # -- arrays

    @abstractmethod
    def empty(self, like: Any, height: int, width: int) -> Any:
        """An array of features of the kind and channels of `like`, for so many cells."""

    @abstractmethod
    def to_host(self, features: Any) -> np.ndarray:
        """An array of features as float32."""

    @abstractmethod
    def from_host(self, values: np.ndarray, like: Any) -> Any:
        """The inverse of `to_host`; `like` is of the kind that is wanted."""

    # -- pixels

    @abstractmethod
    def blendable(self, planes: Planes) -> Planes:
        """The same picture, of which `blend` can change parts without rounding them."""

    @abstractmethod
    def blend(self, values: Any, other: Any, share: Any, low: float, high: float) -> None:
        """Clips `values`, in place, and mixes in this share of `other`, which is clipped."""

    @abstractmethod
    def clipped(self, values: Any, low: float, high: float) -> Any:
        """A copy of a part of a picture, clipped."""

    def leaving_share(self, count: int, fold: int, axis: int) -> Any:
        """The share of the tile that ends, over the first `count` pixels of a ramp down (axis 0) or across (axis 1)."""
        key = count, fold, axis
        if key not in self._ramps:
            falling = tiles.ramp(0, tiles.BLEND, 0, count, 2 * tiles.BLEND)
            shape = (1, fold, 1, -1, 1) if axis == 0 else (1, 1, fold, 1, -1)
            self._ramps[key] = self.constant(np.ascontiguousarray(falling.reshape(-1, fold).T).reshape(shape))
        return self._ramps[key]

    @abstractmethod
    def constant(self, values: np.ndarray) -> Any:
        """The engine's array of these values."""

    @abstractmethod
    def canvas(self, height: int, width: int) -> Any:
        """Room for a picture, uint8 (height, width, 3), on the device."""

    @abstractmethod
    def paint(self, planes: Planes, top: int, left: int, shrink: int, grey: bool, part: Any) -> None:
        """Fills `part` of a canvas with the pixels from (top, left) on: averaged over squares of `shrink`, and rounded.

        `grey` gives all colours the brightness of Rec. 601, the weights by which Pillow makes grey.
        """

    def fetch(self, canvas: Any) -> Any:
        """Begins to copy a canvas to the host's memory; `fetched` takes what comes back."""
        return canvas

    def fetched(self, begun: Any) -> np.ndarray:
        """The canvas in the host's memory, once it is there."""
        return np.asarray(begun)

    # -- times

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the seconds that the block takes to `times`, the device's included."""
        if self.times is None:
            yield
            return
        start = time.perf_counter()
        yield
        self.wait()
        self.times[name] = self.times.get(name, 0.0) + time.perf_counter() - start

    def wait(self) -> None:
        """Until the device has done what it was asked for."""
        return
