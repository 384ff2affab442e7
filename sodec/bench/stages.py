"""What is timed: a stream's decoding taken apart, each stage on the tensors that it gets in a decode."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..codec import Codec
from ..pipeline import tiles
from ..pipeline.decoder import TileSource, side_by_side
from ..pipeline.tiles import HALO, Box
from ..stream import container

NAMES = ("entropy", "dequantisation", "fidelity", "ViT", "transformation", "UNet", "latent decoder")
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
        self.windows = [box.grown(HALO, right, bottom) for box in tiles.grid(right, bottom, codec.engine.tile)]
        self.quality = stream.quality
        self.at = torch.tensor([stream.quality], device=codec.device)
        self.symbols = [self.source.symbols(number) for number in range(len(stream.payloads))]
        self.z_hat = [torch.from_numpy(z).to(codec.device)[None].to(self.dtype) for z, _ in self.symbols]
        self.source.load(self.windows)
        features = [self.source.window(window) for window in self.windows]
        self.y_hat = [one.y_hat.to(self.dtype) for one in features]
        self.w = [one.w for one in features if one.w is not None]
        self.x_f = self._fidelity()
        self.tokens = self._guidance()
        self.l_t = self._transform()
        self.l_0 = self._denoise()
        self.stages = self._stages()

    def stage(self, name: str) -> Stage:
        """The stage of this name."""
        return self.stages[NAMES.index(name)]

    @torch.inference_mode()
    def network(self) -> list[Tensor]:
        """All networks as the codec runs them: symbols to the floats of every window."""
        engine = self.codec.engine
        self._dequantise(content=True)
        return [engine.synthesise(self.source.window(window), self.quality, 0.0) for window in self.windows]

    def _stages(self) -> list[Stage]:
        symbols = tuple(torch.from_numpy(array) for pair in self.symbols for array in pair)
        context = () if self.model.context is None else ("context",)
        made = [
            Stage("entropy", self._decode_symbols, host=True),
            Stage("dequantisation", self._dequantise, ("mean", *context, "gain"), symbols),
            Stage("fidelity", self._fidelity, ("fidelity",), (*self.y_hat,)),
            Stage("ViT", self._guidance, ("vit", "projection"), (*self.x_f,)),
            Stage("transformation", self._content_and_transform, ("content", "transform"), (*self.z_hat, *self.y_hat)),
            Stage("UNet", self._denoise, ("unet",), (*self.l_t, *self.tokens)),
            Stage("latent decoder", self._decode_latent, ("latent_decoder",), (*self.l_0, *self.x_f)),
        ]
        assert tuple(stage.name for stage in made) == NAMES
        return made

    def _decode_symbols(self) -> Sequence[Any]:
        return side_by_side(self.source.symbols, list(range(len(self.source.boxes))))

    @torch.inference_mode()
    def _dequantise(self, content: bool = False) -> list[Tensor]:
        engine = self.codec.engine
        return [engine.dequantise(z, y, self.quality, content=content).y_hat for z, y in self.symbols]

    @torch.inference_mode()
    def _fidelity(self) -> list[Tensor]:
        return [self.model.fidelity(y_hat, self.at) for y_hat in self.y_hat]

    @torch.inference_mode()
    def _guidance(self) -> list[Tensor]:
        return [self.model.guidance(x_f) for x_f in self.x_f]

    @torch.inference_mode()
    def _content_and_transform(self) -> list[Tensor]:
        for z_hat in self.z_hat:
            self.model.content(z_hat)
        return self._transform()

    @torch.inference_mode()
    def _transform(self) -> list[Tensor]:
        return [self.model.transform(y_hat, w, self.at) for y_hat, w in zip(self.y_hat, self.w, strict=True)]

    @torch.inference_mode()
    def _denoise(self) -> list[Tensor]:
        pairs = zip(self.l_t, self.tokens, strict=True)
        return [self.model.denoise(l_t, tokens).to(self.dtype) for l_t, tokens in pairs]

    @torch.inference_mode()
    def _decode_latent(self) -> list[Tensor]:
        return [self.model.picture(l_0, x_f) for l_0, x_f in zip(self.l_0, self.x_f, strict=True)]


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
    """The tensors among what a stage returns."""
    return [one for one in value if isinstance(one, Tensor)]


def encoder(codec: Codec, picture: Any) -> Callable[[], Any]:
    """Analysis alone of a picture (H, W, 3): every tile's pixels to its coefficients."""
    boxes: list[Box] = list(tiles.grid(picture.shape[1], picture.shape[0]))
    return lambda: [codec.engine.analyse(picture, box) for box in boxes]
