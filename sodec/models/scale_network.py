"""The scale branch: z to the scale index of every y, trained as the integers that the native module computes.

Training sees the rounding of weights, biases, activations and result (straight-through), so nothing is lost at export.
The layers, their fixed-point units and the order of operations are those of `csrc/scale_network` (FORMAT.md):
activations are uint8 in units of 1/32, weights int8 per output channel, the result is in 1/16 of an index.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import WeightsError
from .blocks import conv
from .config import ModelConfig

ACTIVATION_UNIT = 1 / 32  # hidden activations reach 255/32, about 8
INDEX_UNIT = 1 / 16
ZERO_POINT = 128  # of z, which arrives as clamp(z + 128, 0, 255)


class IntegerLayer(NamedTuple):
    """One layer as the native module takes it."""

    weights: np.ndarray  # int8 (out, k, k, in)
    bias: np.ndarray  # int32 (out,)
    multiplier: np.ndarray  # int32 (out,)
    shift: int
    upsample: int


class ScaleNetwork(nn.Module):
    """z (B, Cz, h, w), integers, to the scale index (B, Cy, 4 h, 4 w), a float in steps of 1/16, unclamped."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [conv(config.z_channels, config.hyper, 1), conv(config.hyper, 256), conv(64, 256),
             conv(64, config.y_channels, 1)]
        )  # fmt: skip
        self.upsample = (1, 2, 2, 1)
        *hidden, last = self._convolutions()
        with torch.no_grad():
            for layer in hidden:
                _bias(layer).add_(1.0)  # within the activations' range, which ends at 0 and at 8
                layer.weight.mul_(1.7)  # so that what z says is as loud behind a layer as before it
            _bias(last).fill_(14.0)  # near scale 0.5 before the gain
            last.weight.mul_(4.0)

    def _convolutions(self) -> list[nn.Conv2d]:
        return [layer for layer in self.layers if isinstance(layer, nn.Conv2d)]

    def forward(self, z: Tensor) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):
            x = bounded(z.float(), -ZERO_POINT, 255 - ZERO_POINT)
            unit = 1.0
            for number, layer in enumerate(self._convolutions()):
                bias = _rounded(_bias(layer), unit * _units(layer.weight).flatten())
                x = F.conv2d(x, _quantised(layer.weight), bias, padding=layer.padding)
                if number == len(self.layers) - 1:
                    return _rounded(x, INDEX_UNIT)
                x = bounded(_rounded(x, ACTIVATION_UNIT), 0, 255 * ACTIVATION_UNIT)
                unit = ACTIVATION_UNIT
                if self.upsample[number] == 2:
                    x = F.pixel_shuffle(x, 2)
        raise AssertionError("a scale network has at least one layer")

    @torch.no_grad()
    def export(self) -> list[IntegerLayer]:
        """The integers. Raises `WeightsError` where a sum could leave 32 bits."""
        layers = []
        unit = 1.0
        for number, layer in enumerate(self._convolutions()):
            assert layer.bias is not None
            last = number == len(self.layers) - 1
            weight = layer.weight.double()
            weight_unit = _units(weight).flatten()
            integers = torch.round(weight / weight_unit[:, None, None, None])
            bias = torch.round(layer.bias.double() / (weight_unit * unit))
            if number == 0:
                bias -= ZERO_POINT * integers.sum((1, 2, 3))
            reach = bias.abs() + 255 * integers.abs().sum((1, 2, 3))
            if reach.max() >= 2**31:
                raise WeightsError(f"layer {number} of the scale network can reach {reach.max():.0f}, beyond 32 bits")
            out_unit = INDEX_UNIT if last else ACTIVATION_UNIT
            factor = weight_unit * unit / out_unit
            shift = min(46, 30 - int(torch.log2(factor.max()).ceil()))
            layers.append(
                IntegerLayer(
                    np.ascontiguousarray(integers.permute(0, 2, 3, 1).cpu().numpy().astype(np.int8)),
                    bias.cpu().numpy().astype(np.int32),
                    torch.round(factor * 2.0**shift).cpu().numpy().astype(np.int32),
                    shift,
                    self.upsample[number],
                )
            )
            unit = out_unit
        return layers


class _Bounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bounds = low, high
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (x,), (low, high) = ctx.saved_tensors, ctx.bounds
        kept = ((x >= low) | (gradient < 0)) & ((x <= high) | (gradient > 0))
        return gradient * kept, None, None


def bounded(x: Tensor, low: float, high: float) -> Tensor:
    """x within low..high; outside, the gradient passes only where it leads back.

    With a plain clamp a unit once outside learns no more, and the index of a channel that is not coded drifts away
    without end: the first weights of lite died so, 98 of 128 channels for good and the scales of all others constant.
    """
    bound: Tensor = _Bounded.apply(x, low, high)
    return bound


def _bias(layer: nn.Conv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias


def _units(weight: Tensor) -> Tensor:
    return weight.detach().abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-8) / 127


def _quantised(weight: Tensor) -> Tensor:
    return _rounded(weight, _units(weight))


def _rounded(x: Tensor, unit: float | Tensor) -> Tensor:
    """x rounded to multiples of `unit`, the gradient passing straight through."""
    return x + (torch.floor(x.detach() / unit + 0.5) * unit - x.detach())
