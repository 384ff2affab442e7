"""The decoder as CUDA graphs, one per size, without launches from Python; the fidelity branch has its own stream.

On an H200 the networks of `lite` decode 512x512 in 3.4 ms instead of 8.7, those of `sd21` in 44 instead of 55. Off by
default (`Codec(cuda_graphs=True)`), since each size keeps the memory of a whole decode. The tests run the bookkeeping
on a CPU.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from ..kernels import dispatch
from .flow import Flow
from .model import SodecModel

_cuda: Any = torch.cuda  # typed in some versions of torch, in others not
CAPACITY = 4  # graphs: each holds the memory of a whole decode
REMEMBERED = 256  # sizes that were decoded before
WARM_UPS = 2

Value = TypeVar("Value")
Decode = Callable[..., tuple[Tensor, ...]]


class SizeCache(Generic[Value]):
    """At most `capacity` values by key; the least recently used is dropped first."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._kept: OrderedDict[Hashable, Value] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable) -> Value | None:
        """The value, or None."""
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, key: Hashable, value: Value) -> None:
        """Stores the value."""
        self._kept[key] = value
        self._kept.move_to_end(key)
        if len(self._kept) > self.capacity:
            self._kept.popitem(last=False)


class GraphedDecoder:
    """What a device does for a window, from its symbols to its pixels, replayed as graphs.

    A size is captured when it is decoded for the second time: most windows of a large picture have one size, and for a
    picture that is decoded once a capture does not pay. Sizes are not rounded up, since padding would change pixels.

    Parameters
    ----------
    finish
        Makes 8-bit pixels of the final picture, within the graph.
    capture
        Takes a function and its inputs, and returns what replays it: `Captured`, unless a test has no GPU.
    """

    def __init__(
        self,
        model: SodecModel,
        finish: Callable[[Tensor], Tensor],
        capture: Callable[[Decode, tuple[Tensor, ...]], Decode] | None = None,
    ) -> None:
        self.model, self.finish = model, finish
        self.decoders, self.dequantisers = (SizeCache[Decode](CAPACITY) for _ in range(2))
        self._met: SizeCache[bool] = SizeCache(REMEMBERED)
        self._capture = capture or Captured
        self._side = _cuda.Stream() if capture is None else None

    def dequantise(self, symbols: Tensor, z_hat: Tensor, quality: Tensor) -> tuple[Tensor, ...]:
        """`SodecModel.features`."""
        return self._run(self.model.features, self.dequantisers, symbols, z_hat, quality)

    def decode(self, y_hat: Tensor, quality: Tensor, other: Tensor) -> tuple[Tensor, ...]:
        """The full and the fidelity picture, as `blocks.unfolded` takes them, and the full one in 8 bits.

        `other` is w or noise, whichever the model has.
        """
        return self._run(self._decode, self.decoders, y_hat, quality, other)

    def _run(self, function: Decode, graphs: SizeCache[Decode], *inputs: Tensor) -> tuple[Tensor, ...]:
        key = tuple((tuple(tensor.shape), tensor.dtype) for tensor in inputs)
        graph = graphs.get(key)
        if graph is None:
            if self._met.get((function.__name__, key)) is None:
                self._met.put((function.__name__, key), True)
                with dispatch.in_graphs():  # a first decode has the pixels of those that follow
                    return function(*inputs)
            with dispatch.in_graphs():
                graph = self._capture(function, inputs)
            graphs.put(key, graph)
        return graph(*inputs)

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
