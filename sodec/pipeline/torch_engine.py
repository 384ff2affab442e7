"""The engine of PyTorch: any device that torch knows, and every model."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import _native, memory
from ..entropy import MAX_VALUE
from ..errors import DeviceError
from ..models.coding import quantise
from ..models.files import load_model
from ..models.flow import Flow
from ..models.graphs import GraphedDecoder
from ..models.noise import place_noise_on
from ..models.prepare import Prepared
from ..weights import Bundle, Coding
from . import device as devices
from . import fitting
from .engine import Coefficients, Engine, Features, Planes, Tile, Window
from .tiles import CELL, TILE
from .torch_pixels import all_planes, in_8_bits, rounded

# Pixels that are decoded together on a GPU: 16 pictures of 768x512.
BATCH_PIXELS = 3 << 21
PINNED = 1 << 30  # bytes of results in pinned memory, which the system can neither move nor swap; more are copied
CODERS = 4  # threads in which tiles are coded while a GPU works on others


def prepared_engine(
    bundle: Bundle, device: str, dtype: str, *, tile: int | None, threads: int | None, cuda_graphs: bool | None
) -> TorchEngine:
    """The engine of a model that is read from its files. Arguments are those of `Codec`."""
    if threads:
        torch.set_num_threads(threads)
    on = devices.resolve_device(device)
    kind = devices.resolve_dtype(dtype, on)
    if cuda_graphs and on.type != "cuda":
        raise DeviceError(f"cuda_graphs needs a CUDA device (got {on})")
    if cuda_graphs is None:
        cuda_graphs = on.type == "cuda"
    coding = bundle.coding
    devices.check_weights(bundle.size, on, kind, bundle.name, drawn_first=bundle.config.get("sizes") is None)
    return TorchEngine(load_model(bundle, on, kind), coding, tile=tile, cuda_graphs=cuda_graphs)


@dataclass
class _Memory:
    """What is known of the device's memory, in pixels; all calls share it."""

    checked: int = 0  # the largest window for which it was found to suffice
    limit: int | None = None  # of what is computed at once, since it has not sufficed for more
    fitting: dict[int, int] = field(default_factory=dict)  # how many windows of a size fit at once
    pinned: int = 0  # bytes of the host's memory in results that callers hold

    def unpin(self, size: int) -> None:
        """So many bytes are held no more."""
        self.pinned -= size


class TorchEngine(Engine):
    """The networks of a prepared model, on its device in its dtype."""

    name = "torch"

    def __init__(
        self, prepared: Prepared, coding: Coding, *, tile: int | None = None, cuda_graphs: bool = False
    ) -> None:  # fmt: skip
        if prepared.model.config.sizes is not None:
            tile = tile or TILE  # its attention takes memory and time by the square of the pixels
        super().__init__(coding, tile, prepared.model.config.noise)
        self.prepared, self.model = prepared, prepared.model
        self.device, self.dtype = prepared.device, prepared.dtype
        self.on_cuda = self.device.type == "cuda"
        if self.device.type == "cpu":
            memory.keep_freed()
        self.batch_pixels, self.coders = (BATCH_PIXELS, CODERS) if self.on_cuda else (0, 0)
        self._memory = _Memory()
        self._qualities: dict[float, Tensor] = {}
        self._gains: dict[float, Tensor] = {}
        self.graphed: GraphedDecoder | None = None
        if cuda_graphs:
            with self.running():
                self.graphed = GraphedDecoder(self.model, in_8_bits, self._affords_graph)

    @contextmanager
    def running(self) -> Iterator[None]:
        with torch.inference_mode(), torch.cuda.device(self.device) if self.on_cuda else nullcontext():
            yield

    def _affords_graph(self, batch: int, height: int, width: int) -> bool:
        """Whether a graph of so many windows of y would leave half of the device's memory to others."""
        free = devices.available(self.device)
        needed = batch * fitting.decoding_bytes(self.model.config, self.dtype, CELL * height, CELL * width)
        return free is None or 2 * needed <= free

    def check(self, height: int, width: int, beside: int) -> None:
        if self.on_cuda and height * width <= self._memory.checked:
            return  # what PyTorch took then, it keeps
        free = devices.available(self.device)
        beside = beside if self.device.type == "cpu" else 0
        fitting.check(self.model.config, str(self.device), free, self.dtype, height, width, beside)
        self._memory.checked = max(self._memory.checked, height * width)

    def check_encoding(self, width: int, height: int, *, transparent: bool, keeps_y: bool) -> None:
        free = devices.available(self.device)
        fitting.check_encoding(
            self.model.config, str(self.device), free, self.dtype, width, height,
            transparent=transparent, keeps_y=keeps_y,
        )  # fmt: skip

    # -- encoding

    def coefficients(self, pixels: np.ndarray, rows: slice, columns: slice) -> Coefficients:
        def analysis(pixels: Tensor) -> tuple[Tensor, ...]:
            y = self.model.analysis(self.scaled(pixels))
            y = y[..., rows, columns].clone()  # a view would keep the halo's too
            z = self.model.hyper_analysis(y.to(self.dtype)).float().round().clamp(-MAX_VALUE, MAX_VALUE)
            return y, z[0].to(torch.int16)

        height, width = pixels.shape[0] // CELL, pixels.shape[1] // CELL
        place = rows.start, rows.stop, columns.start, columns.stop
        y, z = self._replayed(analysis, (1, 0, height, width), self.stacked([pixels]), fixed=place)
        return Coefficients(self.fetch(z), y)

    def analysed(self, begun: Coefficients) -> Coefficients:
        return begun._replace(z=self.fetched(begun.z))

    def tensor(self, pixels: np.ndarray) -> Tensor:
        """Pixels, uint8 (H, W, 3), as (1, 3, H, W) in 0..1."""
        return self.scaled(self.stacked([pixels]))

    def scaled(self, pixels: Tensor) -> Tensor:
        """Pixels, uint8 (B, H, W, 3), as (B, 3, H, W) in 0..1."""
        return pixels.permute(0, 3, 1, 2).to(torch.float32).div_(255).to(self.dtype)

    def _replayed(
        self, function: Callable[..., tuple[Tensor, ...]], shape: tuple[int, ...], *inputs: Tensor,
        fixed: Hashable = None,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """What a function of the encoder returns, by a graph where there are graphs. `shape` is that of y."""
        if self.graphed is None:
            return function(*inputs)
        return self.graphed.encode(function, self.call, shape, inputs, fixed)

    def residual(self, coefficients: Coefficients) -> tuple[Tensor, Tensor]:
        """y less the mean that z alone gives, and that mean, both (1, Cy, h, w) float32.

        The mean is computed anew for each coding: it takes a tenth of its time (10 ms of 100 for a tile of 1024x1024
        pixels, two cores), and as much memory as y if it is kept.
        """
        return self._residual(self.stacked([coefficients.z]), coefficients.y)

    def _residual(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        mean = cropped(self.model.mean(z.to(self.dtype)), y)
        return y.float() - mean, mean

    def quantise(
        self, coefficients: Coefficients, quality: float, coded: np.ndarray, deadzone: float = 0.0
    ) -> np.ndarray:
        z, y = coefficients
        (symbols,) = self._replayed(
            self._symbols, y.shape, self.stacked([z]), y, self.gain(quality), self.stacked([coded]), self.at(deadzone)
        )  # fmt: skip
        return self.fetched(self.fetch(symbols))

    def _symbols(self, z: Tensor, y: Tensor, gain: Tensor, coded: Tensor, deadzone: Tensor) -> tuple[Tensor, ...]:
        """The symbols of y, contiguous (Cy, h, w) int16, of tensors of one tile."""
        residual, mean = self._residual(z, y)

        def rounded(scaled: Tensor) -> Tensor:
            scaled = (scaled - deadzone * scaled.sign()).round().clamp(-MAX_VALUE, MAX_VALUE)
            return scaled.masked_fill(~coded, 0.0)

        made, _, _ = quantise(residual, mean, gain, self.model.context, rounded)
        return (made[0].to(torch.int16).contiguous(),)

    def gain(self, quality: float) -> Tensor:
        """(1, Cy, 1, 1) float32."""
        if quality not in self._gains:
            self._gains[quality] = self.model.gain(self.at(quality)).exp()[:, :, None, None].detach()
        return self._gains[quality]

    def at(self, *qualities: float) -> Tensor:
        """Qualities, or other numbers, as the networks take them, (B,) float32."""
        for quality in qualities:
            if quality not in self._qualities:
                self._qualities[quality] = torch.tensor([quality], device=self.device)
        known = [self._qualities[quality] for quality in qualities]
        return known[0] if len(known) == 1 else torch.cat(known)

    # -- decoding

    def dequantise(self, z: np.ndarray, y: np.ndarray, quality: float, *, content: bool = True) -> Features:
        return self.dequantise_all([Tile(z, y, quality, content)])[0]

    def dequantise_all(self, tiles: Sequence[Tile]) -> list[Features]:
        z_hat = self.stacked([tile.z for tile in tiles]).to(self.dtype)
        scaled, quality = self.stacked([tile.y for tile in tiles]), self.at(*(tile.quality for tile in tiles))
        features: Features
        if self.graphed is not None:
            features = self.graphed.dequantise(scaled, z_hat, quality, self.call, content=tiles[0].content)
        elif tiles[0].content:
            features = self.model.features(scaled, z_hat, quality)
        else:
            features = (self.model.dequantise(scaled, z_hat, quality),)
        return [tuple(array[number : number + 1] for array in features) for number in range(len(tiles))]

    def stacked(self, arrays: Sequence[np.ndarray]) -> Tensor:
        """Arrays of one shape and dtype, one after the other along a new first axis, on the device.

        From pinned memory, so that the device is not waited for.
        """
        if not self.on_cuda:
            one = np.ascontiguousarray(arrays[0])[None] if len(arrays) == 1 else np.stack(arrays)
            # PyTorch warns of memory that can't be written, as that of PIL images.
            return torch.from_numpy(one if one.flags.writeable else one.copy()).to(self.device)
        dtype = {"uint8": torch.uint8, "int16": torch.int16, "bool": torch.bool}[str(arrays[0].dtype)]
        host = torch.empty((len(arrays), *arrays[0].shape), dtype=dtype, pin_memory=True)
        np.stack(arrays, out=host.numpy())
        return host.to(self.device, non_blocking=True)

    def flow(
        self, features: Features, quality: float, noise: float = 1.0, corner: tuple[int, int] = (0, 0)
    ) -> Flow:  # fmt: skip
        """The decoder's run for a window, not begun. Arguments are those of `synthesise`."""
        return self._flow([Window(features, quality, 0.0, noise, corner)])

    def _flow(self, windows: Sequence[Window]) -> Flow:
        features = zip(*(window.features for window in windows), strict=True)
        y_hat, *content = (arrays[0] if len(arrays) == 1 else torch.cat(arrays) for arrays in features)
        y_hat = y_hat.to(self.dtype)
        drawn = [self.noise(y_hat, window.noise, window.corner) for window in windows]
        noise = drawn[0] if len(drawn) == 1 or drawn[0] is None else torch.cat(drawn)  # type: ignore[arg-type]
        w = content[0] if content else None
        return Flow(self.model, y_hat, self.at(*(window.quality for window in windows)), w=w, noise=noise)

    def synthesise(
        self, features: Features, quality: float, fidelity: float, noise: float = 1.0, corner: tuple[int, int] = (0, 0)
    ) -> Planes:
        return self.synthesise_all([Window(features, quality, fidelity, noise, corner)])[0]

    def synthesise_all(self, windows: Sequence[Window]) -> list[Planes]:
        fidelity = windows[0].fidelity
        flow = self._flow(windows)
        if fidelity == 1:
            with self.stage("fidelity"):
                if self.graphed is None:
                    return all_planes(self.model.fidelity(flow.y_hat, flow.quality).pixels)
                return all_planes(*self.graphed.fidelity(flow.y_hat, flow.quality, self.call))
        if self.graphed is not None:
            other = flow.w if flow.noise is None else flow.noise
            assert other is not None
            with self.stage("networks"):
                full, faithful, pixels = self.graphed.decode(flow.y_hat, flow.quality, other, self.call)
            made = all_planes(full, pixels)
        else:
            flow.run(self.stage)
            full, faithful = flow.pixels, flow.fidelity.pixels
            made = all_planes(full)
        if fidelity == 0:
            return made
        low, high = -made[0].offset, 1 - made[0].offset

        def mixed(one: Planes, other: Planes) -> Planes:
            values, faithful = (planes.values.float().clamp(low, high) for planes in (one, other))
            return Planes(values.lerp_(faithful, fidelity), one.offset)

        return list(map(mixed, made, all_planes(faithful)))

    # -- batches

    def takes_more(self, pixels: Sequence[int], begun: bool) -> bool:
        if not self.batch_pixels:
            return not pixels
        # One batch is on the device while the next one is read. When one has ended, another is begun as a whole.
        full = sum(pixels) >= 2 * self.batch_pixels if begun else sum(pixels) > self.batch_pixels
        return len(pixels) < 2 or not full

    def at_once(self, pixels: int) -> int:
        count = min(self.batch_pixels, self._memory.limit or self.batch_pixels) // pixels
        return max(1, min(count, self._fitting(pixels)) if count > 1 else 1)

    def _fitting(self, pixels: int) -> int:
        """How many windows of so many pixels fit half of the memory that was free when the size was met first."""
        if pixels not in self._memory.fitting:
            free = devices.available(self.device)
            needed = fitting.decoding_bytes(self.model.config, self.dtype, 1, pixels)
            self._memory.fitting[pixels] = sys.maxsize if free is None else free // 2 // needed
        return self._memory.fitting[pixels]

    def limit_to(self, pixels: int) -> bool:
        before = self._memory.limit
        self._memory.limit = min(pixels, before or pixels)
        return before is None

    def holds_memory(self) -> bool:
        return self.graphed is not None and len(self.graphed) > 0

    def give_up_memory(self) -> None:
        if self.graphed is not None:
            self.graphed.clear()
        if self.on_cuda:
            torch.cuda.empty_cache()

    def noise(self, y_hat: Tensor, loudness: float = 1.0, corner: tuple[int, int] = (0, 0)) -> Tensor | None:
        drawn = super().noise(y_hat, loudness, corner)
        return None if drawn is None else drawn.to(self.dtype)

    def place_noise(self, place: tuple[int, ...]) -> Tensor:
        if self.on_cuda:
            return place_noise_on(self.device, *place)[None]
        return super().place_noise(place)

    # -- arrays

    def empty(self, like: Tensor, height: int, width: int) -> Tensor:
        return like.new_empty((1, like.shape[1], height, width))

    def to_host(self, features: Tensor) -> np.ndarray:
        return features.float().cpu().numpy()

    def from_host(self, values: np.ndarray, like: Tensor) -> Tensor:
        return torch.from_numpy(values).to(like.device, like.dtype)

    # -- pixels

    def blendable(self, planes: Planes) -> Planes:
        return Planes(planes.values.float(), planes.offset)

    def blend(self, values: Tensor, other: Tensor, share: Tensor, low: float, high: float) -> None:
        values.clamp_(low, high).lerp_(other, share)

    def clipped(self, values: Tensor, low: float, high: float) -> Tensor:
        return values.clamp(low, high)

    def constant(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.device)

    def canvas(self, height: int, width: int) -> Any:
        if self.device.type == "cpu":
            return np.empty((height, width, 3), np.uint8)
        return torch.empty((height, width, 3), dtype=torch.uint8, device=self.device)

    def paint(self, planes: Planes, top: int, left: int, shrink: int, grey: bool, part: Any) -> None:
        if isinstance(part, Tensor):
            height, width = part.shape[:2]
            if planes.rounded is not None and shrink == 1 and not grey:
                part.copy_(planes.rounded[top : top + height, left : left + width])
            else:
                part.copy_(rounded(planes, top, left, shrink, grey, height, width))
            return
        values = planes.values
        if values.dtype == torch.bfloat16:
            values = values.view(torch.uint16)  # NumPy has no such type
        elif values.dtype != torch.float32:
            values = values.float()
        _native.pixels(values.numpy(), planes.offset, top, left, shrink, grey, part, torch.get_num_threads())

    def fetch(self, canvas: Any) -> Any:
        if not self.on_cuda:
            return canvas.cpu().numpy() if isinstance(canvas, Tensor) else canvas
        # A copy to memory that is not pinned passes through such memory too, piece by piece.
        host = torch.empty(canvas.shape, dtype=canvas.dtype, pin_memory=True)
        host.copy_(canvas, non_blocking=True)
        return host, torch.cuda.current_stream().record_event()

    def fetched(self, begun: Any) -> np.ndarray:
        if not self.on_cuda:
            return np.asarray(begun)
        host, copied = begun
        copied.synchronize()
        array = np.asarray(host.numpy())
        if self._memory.pinned + array.nbytes > PINNED:
            return array.copy()
        self._memory.pinned += array.nbytes
        weakref.finalize(array, self._memory.unpin, array.nbytes)
        return array

    def wait(self) -> None:
        if self.on_cuda:
            torch.cuda.synchronize(self.device)


def cropped(x: Tensor, like: Tensor) -> Tensor:
    """`x` in float32, of the height and width of `like`."""
    return x.float()[..., : like.shape[-2], : like.shape[-1]]
