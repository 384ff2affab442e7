"""The coding side: analysis E, hyper-analysis H_a, the mean of y, and the gain that is quality."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import ResBlock, Upsample, conv
from .config import ModelConfig


class Analysis(nn.Module):
    """E: picture (B, 3, H, W) in 0..1, H and W multiples of 16, to y (B, Cy, H/16, W/16)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        a, b, c = config.analysis
        self.enter = conv(48, a)
        self.body = nn.Sequential(
            ResBlock(a), conv(a, b, 3, 2), ResBlock(b), conv(b, c, 3, 2), ResBlock(c), ResBlock(c)
        )  # fmt: skip
        self.leave = conv(c, config.y_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(F.silu(self.body(self.enter(F.pixel_unshuffle(x - 0.5, 4)))))


class HyperAnalysis(nn.Module):
    """H_a: y (B, Cy, h, w), padded to multiples of 4 by its edge, to z (B, Cz, ceil(h/4), ceil(w/4))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.enter = conv(config.y_channels, config.hyper)
        self.down = conv(config.hyper, config.hyper, 3, 2)
        self.leave = conv(config.hyper, config.z_channels, 3, 2)
        with torch.no_grad():
            self.leave.weight.mul_(64.0)  # z is rounded: at first it has to say something at all

    def forward(self, y: Tensor) -> Tensor:
        return self.leave(F.silu(self.down(F.silu(self.enter(pad_to(y, 4))))))


class HyperSynthesis(nn.Module):
    """Features at 1/16 from z (B, Cz, h, w): (B, outputs, 4 h, 4 w). The mean of y is one, w (H_s) another."""

    def __init__(self, config: ModelConfig, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv(config.z_channels, config.hyper, 1), nn.SiLU(), Upsample(config.hyper, 64, 3), nn.SiLU(),
            Upsample(64, 64, 3), nn.SiLU(), conv(64, outputs),
        )  # fmt: skip

    def forward(self, z: Tensor) -> Tensor:
        # z reaches tens, weights expect about one
        return self.layers(z * 0.25)


class Context(nn.Module):
    """The mean of one half of y, given the other: mu(z) (B, Cy, h, w) and what was coded of the first half to the mean.

    The halves are a checkerboard, whose colours are swapped for the second half of the channels, so that every
    element has neighbours and other channels of its place among what is known (as He et al., CVPR 2021; there for the
    scale too, which here has to be an integer of z alone). A mean may be float: symbols don't depend on it.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.enter = conv(2 * config.y_channels, config.context)
        self.leave = conv(config.context, config.y_channels)
        with torch.no_grad():
            self.leave.weight.mul_(0.1)

    def forward(self, mean: Tensor, residual: Tensor) -> Tensor:
        """`residual` is what y_hat exceeds `mean` by in the first half; its second half is not looked at."""
        first = first_half(mean)
        known = torch.cat([mean, residual * first], 1).to(self.enter.weight.dtype)
        return mean + self.leave(F.silu(self.enter(known))).to(mean.dtype) * ~first


def quantise(
    residual: Tensor, mean: Tensor, gain: Tensor, context: Context | None, rounded: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Symbols of y in two passes: the first half of y by the mean of z, the second by what the context makes of both.

    Parameters
    ----------
    residual, mean
        y less the mean that z gives, and that mean, (B, Cy, h, w).
    gain
        (B, Cy, 1, 1).
    rounded
        Residual times gain to symbols: with a dead zone where they are coded, with a gradient where they are learnt.

    Returns the symbols, the mean that they are added to, and the residual times gain that they were rounded from.
    """
    scaled = residual * gain
    symbols = rounded(scaled)
    if context is None:
        return symbols, mean, scaled
    refined = context(mean, symbols / gain)
    first = first_half(symbols)
    scaled = torch.where(first, scaled, (residual - (refined - mean)) * gain)
    return torch.where(first, symbols, rounded(scaled)), refined, scaled


def first_half(y: Tensor) -> Tensor:
    """Which elements of y (B, Cy, h, w) are coded without context: bool (Cy, h, w)."""
    colour = [torch.arange(size, device=y.device) for size in y.shape[-2:]]
    board = (colour[0][:, None] + colour[1]) % 2 == 0
    swapped = torch.arange(y.shape[1], device=y.device) >= y.shape[1] // 2
    return board[None] ^ swapped[:, None, None]


class QualityGain(nn.Module):
    """The continuous gain vector: log-linear between learnt anchors spread evenly over qualities 1 to 100."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        start = torch.linspace(-1.6, 1.2, config.quality_anchors) + math.log(2.0)
        self.log_gain = nn.Parameter(start[:, None].repeat(1, config.y_channels))

    def forward(self, quality: Tensor) -> Tensor:
        """quality (B,) in 1..100 to the logarithm of the gain (B, Cy)."""
        return interpolate(self.log_gain, quality)


class QualityShift(nn.Module):
    """What a part should know of the quality: a vector added to its features, linear between learnt anchors."""

    def __init__(self, config: ModelConfig, width: int) -> None:
        super().__init__()
        self.anchors = nn.Parameter(torch.zeros(config.quality_anchors, width))

    def forward(self, quality: Tensor) -> Tensor:
        return interpolate(self.anchors, quality)


def interpolate(anchors: Tensor, quality: Tensor) -> Tensor:
    """Rows of `anchors` (K, C), linearly interpolated at quality (B,) in 1..100: (B, C)."""
    place = (quality.float() - 1) / 99 * (len(anchors) - 1)
    low = place.floor().clamp(0, len(anchors) - 2).long()
    share = (place - low)[:, None]
    return anchors[low] * (1 - share) + anchors[low + 1] * share


def pad_to(x: Tensor, multiple: int) -> Tensor:
    """Pads bottom and right by the edge value to a multiple of `multiple`."""
    bottom, right = -x.shape[-2] % multiple, -x.shape[-1] % multiple
    return F.pad(x, (0, right, 0, bottom), mode="replicate") if bottom or right else x
