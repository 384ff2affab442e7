"""Engine: a model on a device. Pixels of one tile to symbols and back; nothing here knows of containers or files."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..entropy import MAX_VALUE, SKIP
from ..models import SodecModel
from ..models.coding import quantise
from ..models.flow import Flow
from ..models.graphs import GraphedDecoder
from ..stream import symbols
from ..weights import Coding
from . import device
from .tiles import CELL, HALO, TILE, Box, padded


class Coefficients(NamedTuple):
    """What analysis makes of a tile, whatever the quality: the same serve every entropy pass."""

    z: np.ndarray  # (Cz, ceil(h/4), ceil(w/4)) int16
    y: Tensor  # (1, Cy, h, w) of the networks' dtype, since a search for a size keeps those of the whole picture


class Features(NamedTuple):
    """What synthesis knows of some cells."""

    y_hat: Tensor  # (1, Cy, h, w) float32
    w: Tensor | None  # (1, Cw, h, w), None where only the fidelity decoder is asked


class Engine:
    """The networks and integers of one model.

    Attributes
    ----------
    tile
        Side in pixels of what is synthesised at once, beside its halo.
    times
        Seconds by stage are added up here; None where nobody asked for them.
    """

    def __init__(
        self, model: SodecModel, coding: Coding, device: torch.device, dtype: torch.dtype, *,
        tile: int = TILE, cuda_graphs: bool = False,
    ) -> None:  # fmt: skip
        self.model, self.coding, self.device, self.dtype, self.tile = model, coding, device, dtype, tile
        self.graphed = GraphedDecoder(model) if cuda_graphs else None
        self.times: dict[str, float] | None = None

    def timed(self, times: dict[str, float] | None) -> Engine:
        """The same engine, adding the seconds of its stages to `times`; one for each call, so threads can share it."""
        engine = copy.copy(self)
        engine.times = times
        return engine

    # -- encoding

    def analyse(self, rgb: np.ndarray, box: Box) -> Coefficients:
        """The coefficients of the tile `box` of a picture, uint8 (H, W, 3)."""
        window = box.grown(HALO, padded(rgb.shape[1]), padded(rgb.shape[0]))
        with self.stage("analysis"), torch.inference_mode():
            y = self.model.analysis(self.tensor(rgb, window))
            rows, columns = box.cells().within(window.cells())
            y = y[..., rows, columns].clone()  # a view would keep the halo's too
            z = self.model.hyper_analysis(y.to(self.dtype)).float().round().clamp(-MAX_VALUE, MAX_VALUE)
            return Coefficients(z[0].to(torch.int16).cpu().numpy(), y)

    def encode(self, coefficients: Coefficients, quality: float, deadzone: float = 0.0) -> bytes:
        """The payload of a tile. A symbol is rounded up, away from zero, from 1/2 + `deadzone` on."""
        with self.stage("entropy"), torch.inference_mode():
            z = coefficients.z
            indexes = symbols.scale_indexes(self.coding, z, quality, *coefficients.y.shape[2:])
            y = self._quantised(coefficients, quality, indexes != SKIP, deadzone)
            return symbols.encode(self.coding, np.ascontiguousarray(z), y, indexes)

    def residual(self, coefficients: Coefficients) -> tuple[Tensor, Tensor]:
        """y less the mean that z alone gives, and that mean, both (1, Cy, h, w) float32.

        The mean is computed anew for each coding: it takes a tenth of its time (10 ms of 100 for a tile of 1024x1024
        pixels, two cores), and as much memory as y if it is kept.
        """
        z, y = coefficients
        mean = cropped(self.model.mean(torch.from_numpy(z).to(self.device)[None].to(self.dtype)), y)
        return y.float() - mean, mean

    def _quantised(self, coefficients: Coefficients, quality: float, coded: np.ndarray, deadzone: float) -> np.ndarray:
        """The symbols of y, (Cy, h, w) int16: those of the first half, and with them the means of the second."""
        residual, mean = self.residual(coefficients)
        gain, coded_here = self.gain(quality), torch.from_numpy(coded).to(self.device)

        def rounded(scaled: Tensor) -> Tensor:
            scaled = (scaled - deadzone * scaled.sign()).round().clamp(-MAX_VALUE, MAX_VALUE)
            return torch.where(coded_here, scaled, 0.0)

        y, _, _ = quantise(residual, mean, gain, self.model.context, rounded)
        return np.ascontiguousarray(y[0].to(torch.int16).cpu().numpy())

    def tensor(self, rgb: np.ndarray, window: Box) -> Tensor:
        """The window's pixels, (1, 3, H, W) in 0..1; beyond the picture its edge goes on."""
        pixels = rgb[window.top : window.bottom, window.left : window.right]
        missing = (window.height - pixels.shape[0], window.width - pixels.shape[1])
        if any(missing):
            pixels = np.pad(pixels, ((0, missing[0]), (0, missing[1]), (0, 0)), "edge")
        tensor = torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device)
        return (tensor.permute(2, 0, 1)[None].to(torch.float32) / 255).to(self.dtype)

    # -- decoding

    def dequantise(self, z: np.ndarray, y: np.ndarray, quality: float, *, content: bool = True) -> Features:
        """y_hat, and w if `content`, of the symbols of one tile."""
        z_hat = torch.from_numpy(z).to(self.device)[None].to(self.dtype)
        scaled = torch.from_numpy(y).to(self.device)[None]
        y_hat = self.model.dequantise(scaled, z_hat, torch.tensor([quality], device=self.device))
        w = cropped(self.model.content(z_hat), y_hat).to(self.dtype) if content else None
        return Features(y_hat, w)

    def nothing(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """z and y of zeros for a tile of so many cells: they decode to the mean of the prior."""
        config = self.model.config
        z = np.zeros((config.z_channels, -(-height // 4), -(-width // 4)), np.int16)
        return z, np.zeros((config.y_channels, height, width), np.int16)

    def synthesise(self, features: Features, quality: float, fidelity: float) -> Tensor:
        """The picture of a window, (1, 3, 16 h, 16 w) float32 in 0..1.

        `fidelity` is the share of the fidelity decoder's picture; at 1 nothing else is computed.
        """
        at = torch.tensor([quality], device=self.device)
        y_hat = features.y_hat.to(self.dtype)
        device.check(self.model.config, self.device, self.dtype, CELL * y_hat.shape[-2], CELL * y_hat.shape[-1])
        if fidelity == 1:
            with self.stage("fidelity"):
                return self.model.fidelity(y_hat, at).float().clamp(0, 1)
        assert features.w is not None
        if self.graphed is not None:
            with self.stage("networks"):
                full, faithful = self.graphed(y_hat, features.w, at)
        else:
            flow = Flow(self.model, y_hat, features.w, at).run(self.stage)
            full, faithful = flow.x, flow.x_f
        full = full.float().clamp(0, 1)
        return full if fidelity == 0 else full + fidelity * (faithful.float().clamp(0, 1) - full)

    # -- both

    def gain(self, quality: float) -> Tensor:
        """(1, Cy, 1, 1) float32."""
        return self.model.gain(torch.tensor([quality], device=self.device)).exp()[:, :, None, None].detach()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the seconds that the block takes to `times`, the GPU's included."""
        if self.times is None:
            yield
            return
        start = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.times[name] = self.times.get(name, 0.0) + time.perf_counter() - start


def cropped(x: Tensor, like: Tensor) -> Tensor:
    """`x` in float32, of the height and width of `like`."""
    return x.float()[..., : like.shape[-2], : like.shape[-1]]
