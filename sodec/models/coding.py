"""What both models share of coding: the quantiser, the two halves of y, and the quality as gains and shifts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import ModelConfig

if TYPE_CHECKING:
    from .lite import Context


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
    # A graph of any size has to pad whatever its size is; a question would fix the answer.
    padded = torch.compiler.is_exporting() or bottom or right
    return F.pad(x, (0, right, 0, bottom), mode="replicate") if padded else x
