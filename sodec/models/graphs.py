"""The decoder as CUDA graphs, one per size, without launches from Python; the fidelity branch has its own stream.

On an H200 the networks of `lite` decoded 512x512 in 3.4 ms instead of 8.7, those of `sd21` in 44 instead of 55. On by
default on CUDA (`Codec(cuda_graphs=False)` turns them off). Graphs never run at once, so all share the memory of the
largest; each keeps its own inputs and outputs. The tests run the bookkeeping on a CPU.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from ..errors import warn
from ..kernels import dispatch
from .flow import Flow
from .model import SodecModel

_cuda: Any = torch.cuda  # typed in some versions of torch, in others not
# Graphs of each kind that are kept. A large picture has windows of up to nine sizes, and each comes in several batches.
CAPACITY = 32
# Runs after which a graph that was not used in them may make room. If the next one always did, more sizes than graphs,
# one after the other, would be captured over and over.
UNUSED = 8 * CAPACITY
REMEMBERED = 256  # sizes that were decoded before
WARM_UPS = 1  # the size has run before, so that libraries are loaded and kernels compiled
# Windows of one size in one call of the codec from which on a capture, which takes as long as two or three, pays in it.
MANY = 8

Value = TypeVar("Value")
Decode = Callable[..., tuple[Tensor, ...]]


class SizeCache(Generic[Value]):
    """At most `capacity` values by key; the least recently used is dropped first."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._kept: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()
        self._asked = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable) -> Value | None:
        """The value, or None."""
        self._asked += 1
        if key not in self._kept:
            return None
        value, _ = self._kept[key]
        self.put(key, value)
        return value

    def put(self, key: Hashable, value: Value) -> None:
        """Stores the value."""
        self._kept[key] = value, self._asked
        self._kept.move_to_end(key)
        if len(self._kept) > self.capacity:
            self._kept.popitem(last=False)

    def has_room(self, unused: int) -> bool:
        """Whether nothing would be dropped that was used within the last so many calls of `get`."""
        if len(self) < self.capacity:
            return True
        _, used = next(iter(self._kept.values()))
        return self._asked - used > unused


class Met(NamedTuple):
    """In which call of the codec a size was met first, and how often since then."""

    call: object
    times: int


class GraphedDecoder:
    """What a device does for windows of one size, from their symbols to their pixels, replayed as graphs.

    A size is captured when a second call of the codec meets it, or when one call meets it `MANY` times: a capture
    takes longer than a decode, so a first decode does without. Sizes are not rounded up, since padding would change
    pixels. Where a capture fails, that is said once, and everything runs without graphs from then on. Threads may share
    a decoder: they take turns.

    Parameters
    ----------
    finish
        Makes 8-bit pixels of the final pictures, within the graph.
    affords
        Whether there is memory to capture a batch of so many windows, of so many rows and columns of y.
    capture
        Takes a function and its inputs, and returns what replays it: `Captured`, unless a test has no GPU.
    """

    def __init__(
        self,
        model: SodecModel,
        finish: Callable[[Tensor], Tensor],
        affords: Callable[[int, int, int], bool] = lambda batch, height, width: True,
        capture: Callable[[Decode, tuple[Tensor, ...]], Decode] | None = None,
    ) -> None:
        self.model, self.finish, self.affords = model, finish, affords
        self._met: SizeCache[Met] = SizeCache(REMEMBERED)
        self._capture = capture or self._captured
        self._lock = threading.RLock()
        self._on_device = capture is None
        self._side = _cuda.Stream() if self._on_device else None
        self._last = _cuda.Event() if self._on_device else None  # after the last replay, whose memory the next one uses
        self.failed = False
        self.clear()

    def clear(self) -> None:
        """Gives up all graphs and their memory."""
        with self._lock:
            self.decoders, self.dequantisers, self.encoders = (SizeCache[Decode](CAPACITY) for _ in range(3))
            self._pool = _cuda.graph_pool_handle() if self._on_device else None

    def __len__(self) -> int:
        """How many graphs there are."""
        return len(self.decoders) + len(self.dequantisers) + len(self.encoders)

    def dequantise(
        self, symbols: Tensor, z_hat: Tensor, quality: Tensor, call: object = None, *, content: bool = True
    ) -> tuple[Tensor, ...]:
        """`SodecModel.features`, or y_hat alone unless `content`.

        `call` stands for one call of the codec; without one, each is a call of its own.
        """
        function = self.model.features if content else self._y_hat
        return self._run(function, self.dequantisers, call, symbols.shape, (symbols, z_hat, quality))

    def fidelity(self, y_hat: Tensor, quality: Tensor, call: object = None) -> tuple[Tensor, ...]:
        """The fidelity pictures, as `blocks.unfolded` takes them, and in 8 bits."""
        return self._run(self._fidelity, self.decoders, call, y_hat.shape, (y_hat, quality))

    def decode(self, y_hat: Tensor, quality: Tensor, other: Tensor, call: object = None) -> tuple[Tensor, ...]:
        """The full and the fidelity pictures, as `blocks.unfolded` takes them, and the full ones in 8 bits.

        `other` is w or noise, whichever the model has.
        """
        return self._run(self._decode, self.decoders, call, y_hat.shape, (y_hat, quality, other))

    def encode(
        self, function: Decode, call: object, shape: Sequence[int], inputs: tuple[Tensor, ...], fixed: Hashable = None
    ) -> tuple[Tensor, ...]:
        """What `function` of the encoder returns. `shape` is that of y, `fixed` what else its work depends on."""
        return self._run(function, self.encoders, call, shape, inputs, fixed)

    def _run(
        self,
        function: Decode,
        graphs: SizeCache[Decode],
        call: object,
        shape: Sequence[int],
        inputs: tuple[Tensor, ...],
        fixed: Hashable = None,
    ) -> tuple[Tensor, ...]:
        with self._lock:
            key = function.__name__, fixed, tuple((tuple(tensor.shape), tensor.dtype) for tensor in inputs)
            graph = self._graph(function, graphs, call, key, shape, inputs)
            if graph is None:
                with dispatch.in_graphs():  # a first decode has the pixels of those that follow
                    return function(*inputs)
            if self._last is None:
                return graph(*inputs)
            here = _cuda.current_stream()
            here.wait_event(self._last)
            outputs = graph(*inputs)
            self._last.record(here)
            return outputs

    def _graph(
        self,
        function: Decode,
        graphs: SizeCache[Decode],
        call: object,
        key: Hashable,
        shape: Sequence[int],
        inputs: tuple[Tensor, ...],
    ) -> Decode | None:
        """The graph of this key, captured if it is time; None where there is none."""
        if self.failed:
            return None
        graph = graphs.get(key)
        if graph is not None:
            return graph
        first, times = self._met.get(key) or Met(None, 0)
        self._met.put(key, Met(first if times else call, times + 1))
        again = times > 0 and (call is None or call is not first)
        batch, _, height, width = shape
        due = (again or times + 1 >= MANY) and graphs.has_room(UNUSED)
        if not due or not self.affords(batch, height, width):
            return None
        try:
            with dispatch.in_graphs():
                graph = self._capture(function, inputs)
        except RuntimeError as error:
            self.failed = True
            self.clear()
            why = (str(error).splitlines() or [type(error).__name__])[0]
            warn(f"CUDA graphs can't be captured here, so everything runs without them and takes longer: {why}")
            return None
        graphs.put(key, graph)
        return graph

    def _captured(self, function: Decode, inputs: tuple[Tensor, ...]) -> Decode:
        return Captured(function, inputs, self._pool)

    def _y_hat(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return (self.model.dequantise(*inputs),)

    def _fidelity(self, y_hat: Tensor, quality: Tensor) -> tuple[Tensor, ...]:
        pixels = self.model.fidelity(y_hat, quality).pixels
        return pixels, self.finish(pixels)

    def _decode(self, y_hat: Tensor, quality: Tensor, other: Tensor) -> tuple[Tensor, ...]:
        """The networks, with the fidelity branch beside T_s where there are streams."""
        read: dict[str, Any] = {"noise" if self.model.config.noise else "w": other}
        flow = Flow(self.model, y_hat, quality, **read)
        if self._side is None:
            flow.run()
            return flow.pixels, flow.fidelity.pixels, self.finish(flow.pixels)
        here = _cuda.current_stream()
        self._side.wait_stream(here)
        flow.run(self._beside)
        guidance = [flow.guidance] if isinstance(flow.guidance, Tensor) else flow.guidance
        if not _cuda.is_current_stream_capturing():  # in a graph, a stream's memory is reused by that stream alone
            for tensor in (flow.fidelity.pixels, *guidance):
                tensor.record_stream(here)
        return flow.pixels, flow.fidelity.pixels, self.finish(flow.pixels)

    @contextmanager
    def _beside(self, step: str) -> Iterator[None]:
        """Runs the steps to the guidance on a stream of their own; the UNet waits for them."""
        if step in ("fidelity", "guidance"):
            with _cuda.stream(self._side):
                yield
            return
        if step == "UNet":
            _cuda.current_stream().wait_stream(self._side)
        yield


class Captured:
    """A CUDA graph of `function` at the sizes of `inputs`. Inputs are copied into it, and results are copies.

    Graphs that never run at once may share the memory `pool` (`torch.cuda.graph_pool_handle()`).
    """

    def __init__(self, function: Decode, inputs: tuple[Tensor, ...], pool: Any = None) -> None:
        self.inputs = tuple(tensor.clone() for tensor in inputs)
        here, side = _cuda.current_stream(), _cuda.Stream()
        side.wait_stream(here)
        with _cuda.stream(side):
            for _ in range(WARM_UPS):
                function(*self.inputs)
        here.wait_stream(side)
        self.graph = _cuda.CUDAGraph()
        # Thread-local, so that other threads may pin memory for the next picture meanwhile.
        with _cuda.graph(self.graph, pool=pool, capture_error_mode="thread_local"):
            self.outputs = function(*self.inputs)

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        for own, given in zip(self.inputs, inputs, strict=True):
            own.copy_(given)
        self.graph.replay()
        return tuple(tensor.clone() for tensor in self.outputs)
