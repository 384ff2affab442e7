"""Building blocks shared by the parts. Tensors are (B, C, H, W) in channels_last memory.

No normalisation layer crosses positions: a tile then decodes as the picture would. Residual branches start small (the
last convolution's weights x 0.1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import ops

PLACE = 2.0  # weight of the positional encoding beside the features, in queries and keys
# Position of the window's corner in the picture, down and across, in tokens; in training a tensor (2,).
Origin = tuple[float, float] | Tensor


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps (or, with a stride, divides) the size."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)


def conv_in_float32(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """The convolution in float32, whatever the dtype of x and of the weights."""
    assert layer.bias is not None
    with torch.autocast(x.device.type, enabled=False):
        return F.conv2d(x.float(), layer.weight.float(), layer.bias.float(), padding=layer.padding)


class ResBlock(nn.Module):
    """x + conv(silu(conv(silu(norm(x))) + time)): two 3x3 convolutions, optionally shifted by a time embedding.

    `norm` is of the channels of each position. Without it activations stayed at a tenth, where silu is a line. Where
    there is time, in the UNet, both convolutions are `steady`.
    """

    def __init__(self, width: int, time_width: int = 0) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.conv1 = conv(width, width)
        self.conv2 = conv(width, width)
        self.time = nn.Linear(time_width, width) if time_width else None
        nn.init.kaiming_normal_(self.conv1.weight)
        with torch.no_grad():
            self.conv2.weight.mul_(0.1)

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        hidden = self.conv1(F.silu(over_channels(self.norm, x)))
        if self.time is not None and time is not None:
            hidden = steady(hidden) + self.time(time)[:, :, None, None]
            return x + steady(self.conv2(F.silu(hidden)))
        return x + self.conv2(F.silu(hidden))

    def fold_time(self, time: Tensor) -> bool:
        """Adds the shift of this embedding (1, time_width) to the bias. False if the block has no shift."""
        if self.time is None:
            return False
        fold_shift(self.conv1, self.time, time)
        self.time = None
        return True


def fold_shift(layer: nn.Conv2d, shift: nn.Linear, time: Tensor) -> None:
    """Adds `shift(time)`, time (1, time_width), to the bias of `layer`; computed in float64."""
    assert layer.bias is not None
    layer.bias.copy_(layer.bias.double() + shift.double()(time.double())[0])


def over_channels(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """`norm` of the channels of x (B, C, H, W), position by position."""
    return norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _Steady(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, channels: int) -> Tensor:
        ctx.others = [dim for dim in range(x.ndim) if dim != channels % x.ndim]
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient - gradient.mean(ctx.others, keepdim=True), None


def steady(x: Tensor, channels: int = 1) -> Tensor:
    """The identity; backwards, the gradient less each channel's mean over batch and positions.

    `channels` is the dimension of the channels. The part of the gradient that all positions share asks for another
    constant, and Adam moves all inputs of a layer towards it at once, by 0.4 a step in a layer of 1,440. Where norms
    follow, constants cost nothing: in three trainings they grew until the UNet's output was constant. Without that part
    of the gradient they stay as they are.
    """
    steadied: Tensor = _Steady.apply(x, channels) if torch.is_grad_enabled() else x
    return steadied


class Upsample(nn.Sequential):
    """Twice the size: a convolution to 4x channels, then a pixel shuffle."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1) -> None:
        super().__init__(conv(inputs, 4 * outputs, kernel), nn.PixelShuffle(2))


class PixelDecoder(nn.Module):
    """From features at 1/16 to a picture: residual blocks at 1/16, 1/8 and 1/4, then a shuffle by 4.

    `shift` (B, C) is added to the features behind the first convolution. Returns (B, 3, 16 H, 16 W), about 0..1.
    """

    def __init__(self, inputs: int, widths: tuple[int, ...], blocks: tuple[int, ...]) -> None:
        super().__init__()
        self.enter = conv(inputs, widths[0])
        self.body = nn.Sequential(*(ResBlock(widths[0]) for _ in range(blocks[0])))
        self.to_8 = Upsample(widths[0], widths[1])
        self.at_8 = nn.Sequential(*(ResBlock(widths[1]) for _ in range(blocks[1])))
        self.to_4 = Upsample(widths[1], widths[2])
        self.at_4 = nn.Sequential(*(ResBlock(widths[2]) for _ in range(blocks[2])))
        self.leave = conv(widths[2], 48)

    def forward(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        x = self.enter(x)
        if shift is not None:
            x = x + shift[:, :, None, None]
        x = self.to_4(self.at_8(self.to_8(self.body(x))))
        return F.pixel_shuffle(self.leave(F.silu(self.at_4(x))), 4) + 0.5


class JoinedLinear(nn.Module):
    """Base of attentions with a linear layer each for q, k and v (`names`), which `join` merges into one."""

    names = ("to_q", "to_k", "to_v")

    def __init__(self) -> None:
        super().__init__()
        self.joined: nn.Linear | None = None

    def qkv(self, x: Tensor) -> Tensor:
        """q, k and v of x (..., C), side by side: (..., 3 C)."""
        if self.joined is not None:
            return self.joined(x)
        return torch.cat([getattr(self, name)(x) for name in self.names], -1)

    def join(self) -> None:
        """Merges the three layers into one with the same outputs."""
        self.joined = joined_linear([getattr(self, name) for name in self.names])
        for name in self.names:
            delattr(self, name)


def joined_linear(layers: Sequence[nn.Linear]) -> nn.Linear:
    """One layer whose outputs are those of `layers` side by side; all have a bias, or none."""
    first = layers[0]
    outputs = sum(layer.out_features for layer in layers)
    with torch.device("meta"):
        whole = nn.Linear(first.in_features, outputs, first.bias is not None)
    whole.weight = nn.Parameter(torch.cat([layer.weight for layer in layers]), requires_grad=False)
    if first.bias is not None:
        whole.bias = nn.Parameter(torch.cat([layer.bias for layer in layers]), requires_grad=False)
    return whole


class CrossAttention(nn.Module):
    """Pixels attend to tokens: x + attention(q = LN(x) + position, k, v = tokens), then a GEGLU feed-forward."""

    def __init__(self, width: int, token_width: int, head: int = 32) -> None:
        super().__init__()
        self.heads = max(1, width // head)
        self.norm = nn.LayerNorm(width)
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(token_width, 2 * width)
        self.place: slice | None = None  # of our keys and values, once those of all blocks are one product
        self.out = nn.Linear(width, width)
        self.norm_ff = nn.LayerNorm(width)
        self.ff_in = nn.Linear(width, 4 * width)
        self.ff_out = nn.Linear(2 * width, width)
        with torch.no_grad():
            near = _nearness(width, width // self.heads)
            self.q.weight.copy_(near)
            self.kv.weight[:width].copy_(near[:, :token_width])

    def forward(self, x: Tensor, tokens: Tensor, position: Tensor) -> Tensor:
        """x (B, C, H, W), tokens (B, T, D) or all blocks' keys and values of them, position (H W, C)."""
        flat = x.flatten(2).transpose(1, 2)
        q = self.q(self.norm(flat) + PLACE * position.to(flat.dtype))
        kv = self.kv(tokens) if self.place is None else tokens[..., self.place]
        k, v = kv.chunk(2, -1)
        q, k, v = (t.unflatten(-1, (self.heads, -1)) for t in (q, k, v))
        flat = flat + steady(self.out(ops.guided_attention(q, k, v).flatten(2)), -1)
        flat = flat + steady(self.ff_out(ops.geglu(self.ff_in(self.norm_ff(flat)))), -1)
        return flat.transpose(1, 2).reshape(x.shape).contiguous(memory_format=torch.channels_last)


def _nearness(width: int, head: int) -> Tensor:
    """Of queries and of keys alike: by the finest of `positions`, so that at first a pixel asks the tokens around it.

    From random weights attention begins as the mean of all tokens, which says little, and stayed that: with the first
    two bundled models it made no difference whose tokens they were. Sharpness: a token away is worth e^-2.6.
    """
    finest, count = head // 4, width // 4
    rows = torch.arange(width)
    weight = torch.zeros(width, width)
    weight[rows, rows % head // finest * count + rows % finest] = 3**0.5 / PLACE
    return weight


def positions(features: Tensor, spacing: float = 1.0, origin: Origin = (0.0, 0.0)) -> Tensor:
    """Sines and cosines of the centres of the cells of `features` (B, C, H, W): (H W, C), C a multiple of 4.

    The unit is one guidance token (32 pixels of the picture): `spacing` is the size of a cell in it, so that
    features of every level and the tokens speak of the same places. Periods run from 4 to 256 units.
    """
    channels, height, width = features.shape[1:]
    device, count = features.device, channels // 4
    periods = 4.0 * 64.0 ** (torch.arange(count, device=device) / max(1, count - 1))
    angles = []
    for size, start in ((height, origin[0]), (width, origin[1])):
        centre = (torch.arange(size, device=device) + 0.5) * spacing + start
        angles.append(2 * math.pi * centre[:, None] / periods)
    down = angles[0][:, None].expand(-1, width, -1)
    across = angles[1][None].expand(height, -1, -1)
    return torch.cat([down.sin(), down.cos(), across.sin(), across.cos()], -1).flatten(0, 1)
