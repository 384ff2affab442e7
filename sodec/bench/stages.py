"""What is timed: a stream's decoding taken apart, each stage on the tensors that it gets in a decode."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..codec import Codec
from ..models.flow import STEPS, Flow
from ..pipeline import tiles
from ..pipeline.batches import alone
from ..pipeline.source import TileSource
from ..pipeline.tiles import HALO, Box
from ..pipeline.torch_engine import TorchEngine
from ..stream import container

NAMES = ("entropy", "dequantisation", "fidelity", "guidance", "transformation", "UNet", "latent decoder")
SETTING = "SODEC_KERNELS"  # of kernels.dispatch


@dataclass(frozen=True)
class Stage:
    """One stage of decoding, of the whole picture: of each tile of the stream, or of each window of synthesis.

    Attributes
    ----------
    parts
        Names of the model's parts that it runs, whose weights it must read.
    inputs
        The tensors that it reads besides.
    host
        It works on the processor, whatever the device.
    """

    name: str
    call: Callable[[], Any]
    parts: tuple[str, ...] = ()
    inputs: tuple[Tensor, ...] = ()
    host: bool = False


class Dissection:
    """What every stage of a stream's decoding gets, computed once.

    Attributes
    ----------
    windows
        Rectangles that synthesis decodes one by one: the picture, or its tiles with their halo.
    stages
        In the order of `NAMES`; each can be called again and again.
    """

    @torch.inference_mode()
    def __init__(self, codec: Codec, data: bytes) -> None:
        self.codec, self.model, self.dtype = codec, codec.model, codec.dtype
        stream = container.read(data)
        self.source = TileSource(codec.engine, stream, content=True)
        right, bottom = tiles.padded(stream.width), tiles.padded(stream.height)
        self.windows = [box.grown(HALO, right, bottom) for box in tiles.parts(right, bottom, codec.engine.tile)]
        self.quality = stream.quality
        self.symbols = [self.source.symbols(number) for number in range(len(stream.payloads))]
        self.z_hat = [torch.from_numpy(z).to(codec.device)[None].to(self.dtype) for z, _ in self.symbols]
        alone(codec.engine, self.source.load(self.windows))
        engine = codec.engine
        assert isinstance(engine, TorchEngine)
        self.flows: list[Flow] = [
            engine.flow(self.source.window(window), self.quality, corner=(window.top, window.left)).run()
            for window in self.windows
        ]
        self.stages = self._stages()

    def stage(self, name: str) -> Stage:
        """The stage of this name."""
        return self.stages[NAMES.index(name)]

    @torch.inference_mode()
    def network(self) -> list[Tensor]:
        """All networks as the codec runs them: symbols to the floats of every window."""
        engine = self.codec.engine
        self._dequantise(content=True)
        return [
            engine.synthesise(self.source.window(window), self.quality, 0.0, 1.0, (window.top, window.left)).values
            for window in self.windows
        ]

    def _stages(self) -> list[Stage]:
        symbols = tuple(torch.from_numpy(array) for pair in self.symbols for array in pair)
        context = () if self.model.context is None else ("context",)
        content = () if self.model.content is None else ("content",)
        guide = ("projection",) if self.model.vit is None else ("vit", "projection")
        read = {name: tuple(getattr(flow, name) for flow in self.flows) for name in ("y_hat", "l_t", "l_0")}
        given = {
            name: tuple(tensor for flow in self.flows for tensor in tensors(getattr(flow, name)))
            for name in ("fidelity", "guidance", "noise")
        }
        stages = [
            Stage("entropy", self._decode_symbols, host=True),
            Stage("dequantisation", self._dequantise, ("mean", *context, "gain"), symbols),
            Stage("fidelity", self._step("fidelity", "fidelity"), ("fidelity",), read["y_hat"]),
            Stage("guidance", self._step("guidance", "guidance"), guide, given["fidelity"]),
            Stage("transformation", self._content_and_transform, (*content, "transform"),
                  (*self.z_hat, *read["y_hat"])),
            Stage("UNet", self._step("UNet", "l_0"), ("unet",), (*read["l_t"], *given["guidance"], *given["noise"])),
            Stage("latent decoder", self._step("latent decoder", "pixels"), ("latent_decoder",),
                  (*read["l_0"], *given["fidelity"], *given["guidance"], *given["noise"])),
        ]  # fmt: skip
        assert tuple(stage.name for stage in stages) == NAMES
        return stages

    def _step(self, name: str, result: str) -> Callable[[], list[Any]]:
        """A step of the decoder alone, for every window; returns what it leaves."""

        @torch.inference_mode()
        def run() -> list[Any]:
            for flow in self.flows:
                STEPS[name](flow)
            return [getattr(flow, result) for flow in self.flows]

        return run

    def _decode_symbols(self) -> Sequence[Any]:
        """The symbols of all tiles, in threads: the native coder leaves the GIL to the others."""
        if len(self.source.boxes) == 1:
            return [self.source.symbols(0)]
        with ThreadPoolExecutor() as pool:
            return list(pool.map(self.source.symbols, range(len(self.source.boxes))))

    @torch.inference_mode()
    def _dequantise(self, content: bool = False) -> list[Tensor]:
        engine = self.codec.engine
        return [engine.dequantise(z, y, self.quality, content=content)[0] for z, y in self.symbols]

    @torch.inference_mode()
    def _content_and_transform(self) -> list[Tensor]:
        if self.model.content is not None:
            for z_hat in self.z_hat:
                self.model.content(z_hat)
        return self._step("transformation", "l_t")()


@contextmanager
def without_kernels() -> Iterator[None]:
    """Uses PyTorch in place of our Triton kernels: for rivals, and to count operations."""
    before = os.environ.get(SETTING)
    os.environ[SETTING] = "torch"
    try:
        yield
    finally:
        if before is None:
            del os.environ[SETTING]
        else:
            os.environ[SETTING] = before


def tensors(value: Any) -> list[Tensor]:
    """The tensors among what a stage reads or returns, in tuples of tuples too."""
    if isinstance(value, Tensor):
        return [value]
    return [tensor for item in value or () for tensor in tensors(item)] if isinstance(value, (list, tuple)) else []


def encoder(codec: Codec, picture: Any) -> Callable[[], Any]:
    """Analysis alone of a picture (H, W, 3): every tile's pixels to its coefficients."""
    boxes: list[Box] = list(tiles.grid(picture.shape[1], picture.shape[0]))
    return lambda: [codec.engine.analyse(picture, box) for box in boxes]
