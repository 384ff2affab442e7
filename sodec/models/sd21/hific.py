"""The coding side and the fidelity decoder of `sd21`: HiFiC's (Mentzer et al., NeurIPS 2020), without its critic.

Its padding by reflection is by the edge here, since a picture may be a single position of y.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...kernels import dispatch
from .. import ops
from ..blocks import Fidelity, ResBlock, Upsample
from ..blocks import conv as plain_conv
from ..coding import QualityShift, pad_to
from ..config import ModelConfig


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps (or, with a stride, divides) the size; the edge goes on."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, padding_mode="replicate")


def doubled(inputs: int, outputs: int, kernel: int) -> nn.ConvTranspose2d:
    """A transposed convolution to twice the size."""
    return nn.ConvTranspose2d(inputs, outputs, kernel, 2, kernel // 2, 1)


EPS = 1e-3  # of the norms


class ChannelNorm(nn.Module):
    """Normalises every position over its channels, so that a tile is as the picture would be."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        channels_last = F.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],), self.weight, self.bias, EPS)
        return channels_last.permute(0, 3, 1, 2)


def normed(norm: nn.Module, x: Tensor, *, act: str = "", **more: Any) -> Tensor:
    """`norm` by a kernel, with what `kernels.dispatch.channel_norm_act` has beside it."""
    x, weight, bias = ops.channels_last(x), norm.weight, norm.bias
    return dispatch.channel_norm_act(x, weight, bias, EPS, act, **more)  # type: ignore[arg-type]


class HificAnalysis(nn.Module):
    """E: picture (B, 3, H, W) in 0..1, H and W multiples of 16, to y (B, Cy, H/16, W/16)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        first, *rest = config.analysis
        layers: list[nn.Module] = [conv(3, first, 7), ChannelNorm(first), nn.ReLU()]
        width = first
        for wider in rest:
            layers += [conv(width, wider, 3, 2), ChannelNorm(wider), nn.ReLU()]
            width = wider
        self.layers = nn.Sequential(*layers, conv(width, config.y_channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(2 * x - 1)


class HificHyperAnalysis(nn.Module):
    """H_a: y (B, Cy, h, w), padded to multiples of 4 by its edge, to z (B, Cz, ceil(h/4), ceil(w/4))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.hyper
        last = conv(width, config.z_channels, 5, 2)
        self.layers = nn.Sequential(
            conv(config.y_channels, width), nn.ReLU(), conv(width, width, 5, 2), nn.ReLU(), last
        )
        with torch.no_grad():
            last.weight.mul_(64.0)  # large at first: small values would all round to 0

    def forward(self, y: Tensor) -> Tensor:
        return self.layers(pad_to(y, 4))


class HificHyperSynthesis(nn.Module):
    """Features at 1/16 from z (B, Cz, h, w): (B, outputs, 4 h, 4 w). The mean of y is one, w (H_s) another."""

    def __init__(self, config: ModelConfig, outputs: int) -> None:
        super().__init__()
        width = config.hyper
        self.layers = nn.Sequential(
            doubled(config.z_channels, width, 5), nn.ReLU(), doubled(width, width, 5), nn.ReLU(), conv(width, outputs)
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z)


class ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv(width, width), ChannelNorm(width), nn.ReLU(), conv(width, width), ChannelNorm(width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)

    def fused(self, x: Tensor, pad: int) -> Tensor:
        """The same of x that is padded by 1, and padded by `pad`, by kernels."""
        first, first_norm, _, second, second_norm = self.layers
        hidden = normed(first_norm, ops.without_bias(first, x, 0), before=first.bias, act="relu", pad=1)
        skip = x[..., 1:-1, 1:-1]
        return normed(second_norm, ops.without_bias(second, hidden, 0), before=second.bias, residual=skip, pad=pad)


class HificGenerator(nn.Module):
    """D_a: y_hat (B, Cy, h, w) to the fidelity picture x_f (B, 3, 16 h, 16 w), about 0..1.

    The quality, which HiFiC has none of, shifts the features behind the first convolution.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, *rest = config.fidelity
        self.enter = nn.Sequential(ChannelNorm(config.y_channels), conv(config.y_channels, width), ChannelNorm(width))
        self.shift = QualityShift(config, width)
        self.body = nn.Sequential(*(ResidualBlock(width) for _ in range(config.fidelity_blocks[0])))
        layers: list[nn.Module] = []
        for thinner in rest:
            layers += [doubled(width, thinner, 3), ChannelNorm(thinner), nn.ReLU()]
            width = thinner
        self.leave = nn.Sequential(*layers, conv(width, 3, 7))

    def forward(self, y_hat: Tensor, quality: Tensor) -> Fidelity:
        shift = self.shift(quality)[:, :, None, None].to(y_hat.dtype)
        if ops.may_have_kernels(y_hat) and dispatch.fuses("channel_norm_act", y_hat, self.enter[0].weight):  # type: ignore[arg-type]
            return Fidelity(self._fused(y_hat, shift) * 0.5 + 0.5)
        x = self.enter(y_hat) + shift
        return Fidelity(self.leave(x + self.body(x)) * 0.5 + 0.5)

    def _fused(self, y_hat: Tensor, shift: Tensor) -> Tensor:
        """The same before its last factor, where the kernel of the norms adds biases and skips, and pads."""
        y_norm, first, norm = self.enter
        x = ops.without_bias(first, normed(y_norm, y_hat, pad=1), 0)
        start = x = normed(norm, x, before=first.bias, residual=shift.expand(x.shape), pad=1)
        for block in self.body:
            x = block.fused(x, 1)  # type: ignore[operator]
        x = (start + x)[..., 1:-1, 1:-1]
        *doublings, last = self.leave
        for number in range(0, len(doublings), 3):
            doubling, norm, _ = doublings[number : number + 3]
            pad = 3 if number + 3 == len(doublings) else 0
            x = normed(norm, ops.without_bias(doubling, x), before=doubling.bias, act="relu", pad=pad)
        return dispatch.bias_act(ops.channels_last(ops.without_bias(last, x, 0)), last.bias)  # type: ignore[arg-type]


class DoublingTransformation(nn.Module):
    """T_s: y_hat (B, Cy, h, w) and w (B, Cw, h, w) to the noisy latent l_t, (B, Cl, 2 h, 2 w)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, blocks = config.transform, config.public.transform_blocks
        self.enter = plain_conv(config.y_channels + config.content, width)
        self.shift = QualityShift(config, width)
        self.body = nn.Sequential(
            *(ResBlock(width) for _ in range(blocks)), Upsample(width, width), *(ResBlock(width) for _ in range(blocks))
        )
        self.leave = plain_conv(width, config.latent)

    def forward(self, y_hat: Tensor, quality: Tensor, w: Tensor) -> Tensor:
        shift = self.shift(quality)[:, :, None, None].to(y_hat.dtype)
        x = ops.conv(self.enter, torch.cat([y_hat, w.to(y_hat.dtype)], 1), residual=shift)
        return self.leave(F.silu(self.body(x)))
