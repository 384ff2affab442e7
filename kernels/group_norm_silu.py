"""GroupNorm and SiLU in one, on channels_last features.

    y = z * sigmoid(z),   z = (x - mean_g) / sqrt(var_g + eps) * weight + bias,   g the group of the channel

x (B, C, H, W) in channels_last memory, so (B, H W, C) to the kernels; weight, bias (C,); y like x. Math in
float32. Three launches:
1. partial: the rows are split so that batch 1 fills the GPU. A program reads its rows of a block of channels once
   and keeps mean and sum of squared deviations per channel, tile by tile; whole rows of channels keep loads wide
   whatever the size of a group.
2. combine: one program per group merges its channels and splits to mean and 1 / deviation.
3. apply: reads x again, writes y.
E[x^2] - E[x]^2 is never formed: it cancels where the mean is far from zero.
Source: Group normalization (Wu and He, 2018); merging by Chan, Golub and LeVeque (1979).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import launch, legality
from .reference import group_norm_silu as reference

__all__ = ["group_norm_silu", "reference"]

MOST_SPLITS = 128  # the combining program reads them all


@triton.jit
def _partial(x, partial, rows, channels, splits, split_rows, BLOCK_ROWS: tl.constexpr, BLOCK_C: tl.constexpr):
    """partial (B, splits, 2, C): mean and sum of squared deviations of each channel in each split."""
    batch = tl.program_id(1).to(tl.int64)
    split = tl.program_id(0) % splits
    channel = (tl.program_id(0) // splits) * BLOCK_C + tl.arange(0, BLOCK_C)
    first = split * split_rows
    last = tl.minimum(first + split_rows, rows)
    row = tl.arange(0, BLOCK_ROWS)[:, None]
    count = 0.0
    mean = tl.zeros((BLOCK_C,), tl.float32)
    squares = tl.zeros((BLOCK_C,), tl.float32)
    for start in range(first, last, BLOCK_ROWS):
        inside = (start + row < last) & (channel < channels)[None, :]
        at = x + (batch * rows + start + row) * channels + channel[None, :]
        tile = tl.load(at, mask=inside, other=0.0).to(tl.float32)
        new = tl.minimum(last - start, BLOCK_ROWS).to(tl.float32)
        tile_mean = tl.sum(tile, 0) / new
        off = tl.where(inside, tile - tile_mean[None, :], 0.0)
        delta = tile_mean - mean
        mean += delta * (new / (count + new))
        squares += tl.sum(off * off, 0) + delta * delta * (count * new / (count + new))
        count += new
    at = partial + (batch * splits + split) * 2 * channels + channel
    tl.store(at, mean, mask=channel < channels)
    tl.store(at + channels, squares, mask=channel < channels)


@triton.jit
def _combine(
    partial, stats, rows, channels, groups, splits, split_rows, eps, BLOCK_SPLITS: tl.constexpr, BLOCK_G: tl.constexpr
):
    """stats (B, 2, groups): mean and 1 / sqrt(variance + eps)."""
    group = tl.program_id(0)
    batch = tl.program_id(1).to(tl.int64)
    width = channels // groups
    split = tl.arange(0, BLOCK_SPLITS)[:, None]
    channel = tl.arange(0, BLOCK_G)[None, :]
    at = partial + (batch * splits + split) * 2 * channels + group * width + channel
    inside = (split < splits) & (channel < width)
    count = tl.minimum(rows - split * split_rows, split_rows).to(tl.float32)
    size = rows * 1.0 * width
    means = tl.load(at, mask=inside, other=0.0)
    mean = tl.sum(tl.sum(tl.where(inside, means * count, 0.0), 1), 0) / size
    squares = tl.load(at + channels, mask=inside, other=0.0) + count * (means - mean) * (means - mean)
    variance = tl.sum(tl.sum(tl.where(inside, squares, 0.0), 1), 0) / size
    tl.store(stats + batch * 2 * groups + group, mean)
    tl.store(stats + (batch * 2 + 1) * groups + group, 1.0 / tl.sqrt(variance + eps))


@triton.jit
def _apply(
    x, stats, weight, bias, out, rows, channels, groups,
    BLOCK_ROWS: tl.constexpr, BLOCK_C: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    batch = tl.program_id(1).to(tl.int64)
    channel_blocks = tl.cdiv(channels, BLOCK_C)
    row = (tl.program_id(0) // channel_blocks) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[:, None]
    channel = (tl.program_id(0) % channel_blocks) * BLOCK_C + tl.arange(0, BLOCK_C)
    real = channel < channels
    group = channel // (channels // groups)
    mean = tl.load(stats + batch * 2 * groups + group, mask=real, other=0.0)[None, :]
    scale = tl.load(stats + (batch * 2 + 1) * groups + group, mask=real, other=0.0)
    scale = (scale * tl.load(weight + channel, mask=real, other=0.0).to(tl.float32))[None, :]
    shift = tl.load(bias + channel, mask=real, other=0.0).to(tl.float32)[None, :]

    at = (batch * rows + row) * channels + channel[None, :]
    inside = (row < rows) & real[None, :]
    y = (tl.load(x + at, mask=inside, other=0.0).to(tl.float32) - mean) * scale + shift
    if SILU:
        y = y / (1.0 + tl.exp(-y))
    tl.store(out + at, y.to(out.dtype.element_ty), mask=inside)


@torch.library.custom_op("sodec::group_norm_silu", mutates_args=())
def group_norm_silu(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, silu: bool) -> Tensor:
    """Launches the kernels."""
    legality.require(legality.group_norm_silu(x, groups, weight, bias), "group_norm_silu")
    b, c, h, w = x.shape
    rows = h * w
    config = launch.config("group_norm_silu", x)
    programs, partial_rows, apply_rows = (config.pop(key) for key in ("PROGRAMS", "PARTIAL_ROWS", "APPLY_ROWS"))
    channel_blocks = launch.blocks(c, config["BLOCK_C"])
    # Whole tiles per split, none of them empty.
    splits = min(MOST_SPLITS, launch.blocks(rows, partial_rows), max(1, programs // (b * channel_blocks)))
    split_rows = launch.blocks(launch.blocks(rows, splits), partial_rows) * partial_rows
    splits = launch.blocks(rows, split_rows)

    partial = torch.empty((b, splits, 2, c), dtype=torch.float32, device=x.device)
    stats = torch.empty((b, 2, groups), dtype=torch.float32, device=x.device)
    out = torch.empty_like(x)
    with launch.on_device_of(x):
        _partial[(splits * channel_blocks, b)](
            x, partial, rows, c, splits, split_rows, BLOCK_ROWS=partial_rows, **config
        )
        _combine[(groups, b)](
            partial, stats, rows, c, groups, splits, split_rows, eps,
            BLOCK_SPLITS=launch.power_of_two(splits, 1), BLOCK_G=launch.power_of_two(c // groups, 1), num_warps=4,
        )  # fmt: skip
        _apply[(launch.blocks(rows, apply_rows) * channel_blocks, b)](
            x, stats, weight, bias, out, rows, c, groups, BLOCK_ROWS=apply_rows, SILU=silu, **config
        )
    return out


@group_norm_silu.register_fake
def _(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, silu: bool) -> Tensor:
    return torch.empty_like(x)
