"""LayerNorm over the channels of each position, with what stands around it in D_a.

    y = act(z) + residual,   z = (s - mean) / sqrt(var + eps) * weight + bias,   s = x + before

x (B, C, H, W) in channels_last memory, so (B, H W, C) to the kernel; mean and var over the channels of a position.
weight, bias, before (C,), the bias of the convolution before, or None; act is SiLU, ReLU or nothing. residual (B, C, H,
W) with channels side by side, or None. y is padded by `pad` positions of its edge on each side (replication): (B, C,
H + 2 pad, W + 2 pad), so that a convolution needs no pass for its padding. Math in float32, rounded once. One read, one
write.
Source: Layer normalization (Ba, Kiros and Hinton, 2016); HiFiC calls it ChannelNorm (Mentzer et al., 2020).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import launch, legality
from .reference import channel_norm_act as reference

__all__ = ["channel_norm_act", "reference"]


@triton.jit
def _kernel(
    x, weight, bias, before, skip, residual, total, out, positions, units, height, width,
    residual_batch, residual_row, residual_column, eps,
    UNIT: tl.constexpr, PAD: tl.constexpr, SILU: tl.constexpr, RELU: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    channels = units * UNIT
    row = tl.program_id(0) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    channel = tl.arange(0, BLOCK_C)
    real = (channel < channels)[None, :]
    inside = (row < positions)[:, None] & real
    across, down = width + 2 * PAD, height + 2 * PAD
    left = tl.minimum(tl.maximum(row % across - PAD, 0), width - 1)
    above = tl.minimum(tl.maximum(row // across % down - PAD, 0), height - 1)
    batch = row // across // down

    source = ((batch.to(tl.int64) * height + above) * width + left)[:, None] * channels + channel[None, :]
    s = tl.load(x + source, mask=inside, other=0.0).to(tl.float32)
    if before is not None:
        s += tl.load(before + channel, mask=channel < channels, other=0.0).to(tl.float32)[None, :]
    if skip is not None:
        s += tl.load(skip + source, mask=inside, other=0.0).to(tl.float32)
    if total is not None:  # the norm is of what others will read
        rounded = s.to(total.dtype.element_ty)
        tl.store(total + source, rounded, mask=inside)
        s = rounded.to(tl.float32)
    s = tl.where(real, s, 0.0)
    mean = tl.sum(s, 1) / channels
    off = tl.where(real, s - mean[:, None], 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(off * off, 1) / channels + eps)
    y = off * scale[:, None] * tl.load(weight + channel, mask=channel < channels, other=0.0).to(tl.float32)[None, :]
    y += tl.load(bias + channel, mask=channel < channels, other=0.0).to(tl.float32)[None, :]
    if SILU:
        y = y / (1.0 + tl.exp(-y))
    if RELU:
        y = tl.maximum(y, 0.0)
    if residual is not None:
        at = batch.to(tl.int64) * residual_batch + above.to(tl.int64) * residual_row + left * residual_column
        y += tl.load(residual + at[:, None] + channel[None, :], mask=inside, other=0.0).to(tl.float32)
    tl.store(
        out + row.to(tl.int64)[:, None] * channels + channel[None, :], y.to(out.dtype.element_ty), mask=inside
    )  # fmt: skip


@torch.library.custom_op("sodec::channel_norm_act", mutates_args=())
def channel_norm_act(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, act: str, before: Tensor | None, residual: Tensor | None,
    pad: int,
) -> Tensor:  # fmt: skip
    """Launches the kernel."""
    legality.require(legality.channel_norm_act(x, weight, bias, before, residual), "channel_norm_act")
    config = launch.config("channel_norm_act", x)
    out = _padded_like(x, pad)
    channels, height, width = x.shape[1:]
    block_c = launch.power_of_two(channels)
    block_rows = max(1, config.pop("TILE") // block_c)
    positions, unit = out.numel() // channels, launch.unit(channels)
    strides = (0, 0, 0) if residual is None else (residual.stride(0), *residual.stride()[2:])
    with launch.on_device_of(x):
        _kernel[(launch.blocks(positions, block_rows),)](
            x, weight, bias, before, None, residual, None, out, positions, channels // unit, height, width,
            *strides, eps, UNIT=unit, PAD=pad, SILU=act == "silu", RELU=act == "relu",
            BLOCK_ROWS=block_rows, BLOCK_C=block_c, **config,
        )  # fmt: skip
    return out


@channel_norm_act.register_fake
def _(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, act: str, before: Tensor | None, residual: Tensor | None,
    pad: int,
) -> Tensor:  # fmt: skip
    return _padded_like(x, pad)


def _padded_like(x: Tensor, pad: int) -> Tensor:
    batch, channels, height, width = x.shape
    return torch.empty(
        (batch, channels, height + 2 * pad, width + 2 * pad),
        dtype=x.dtype, device=x.device, memory_format=torch.channels_last,
    )  # fmt: skip
