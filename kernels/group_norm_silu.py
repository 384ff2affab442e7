"""GroupNorm and SiLU in one, on channels_last features.

    y = z * sigmoid(z),   z = (s - mean_g) / sqrt(var_g + eps) * weight + bias,   s = x + before,   g a channel's group

x (B, C, H, W) in channels_last memory, so (B, H W, C) to the kernels; weight, bias (C,); before (C,), the bias of the
convolution before, or None, costs nothing here; y like x. Math in float32.

Groups of up to `WHOLE` values take one launch (`_whole`), a program for each. Others take three:
1. partial: tiles of rows are dealt to splits in turn, so that batch 1 fills the GPU. A program keeps mean and sum of
   squared deviations of each place of a tile, without a word between threads, and merges them at its end; whole rows of
   channels keep loads wide whatever the size of a group.
2. combine: one program per group merges its channels and splits to mean and 1 / deviation.
3. apply: reads x again, the last rows first, since they are still in the L2 cache, and writes y.
E[x^2] - E[x]^2 is never formed: it cancels where the mean is far from zero.
Source: Group normalization (Wu and He, 2018); running deviations by Welford (1962), merged by Chan, Golub and LeVeque
(1979).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import launch, legality
from .reference import group_norm_silu as reference

__all__ = ["group_norm_silu", "reference"]

COMBINED = 2048  # values at once: 32,768, of 33 channels of a group, took the compiler 13 s and spilled


@triton.jit
def _partial(x, partial, rows, channels, splits, BLOCK_ROWS: tl.constexpr, BLOCK_C: tl.constexpr):
    """partial (B, splits, 2, C): mean and sum of squared deviations of each channel in each split."""
    batch = tl.program_id(1).to(tl.int64)
    split = tl.program_id(0) % splits
    channel = (tl.program_id(0) // splits) * BLOCK_C + tl.arange(0, BLOCK_C)
    row = tl.arange(0, BLOCK_ROWS)[:, None]
    real = (channel < channels)[None, :]
    mean = tl.zeros((BLOCK_ROWS, BLOCK_C), tl.float32)
    squares = tl.zeros((BLOCK_ROWS, BLOCK_C), tl.float32)
    seen = tl.zeros((BLOCK_ROWS, 1), tl.float32)
    tiles = 0.0
    for start in range(split * BLOCK_ROWS, rows, splits * BLOCK_ROWS):
        inside = (start + row < rows) & real
        at = x + (batch * rows + start + row) * channels + channel[None, :]
        tile = tl.load(at, mask=inside, other=0.0).to(tl.float32)
        tiles += 1.0
        seen += tl.where(start + row < rows, 1.0, 0.0)
        off = tl.where(inside, tile - mean, 0.0)
        mean += off * (1.0 / tiles)  # only the last tile has rows outside, whose mean stays
        squares += off * tl.where(inside, tile - mean, 0.0)
    whole = tl.sum(mean * seen, 0) / tl.sum(seen)
    off = mean - whole[None, :]
    squares += seen * off * off
    at = partial + (batch * splits + split) * 2 * channels + channel
    tl.store(at, whole, mask=channel < channels)
    tl.store(at + channels, tl.sum(squares, 0), mask=channel < channels)


@triton.jit
def _combine(
    partial, before, stats, rows, channels, groups, splits, eps,
    TILE_ROWS: tl.constexpr, BLOCK_SPLITS: tl.constexpr, BLOCK_G: tl.constexpr,
):  # fmt: skip
    """stats (B, 2, groups): mean and 1 / sqrt(variance + eps) of x + before."""
    group = tl.program_id(0)
    batch = tl.program_id(1).to(tl.int64)
    width = channels // groups
    channel = tl.arange(0, BLOCK_G)[None, :]
    added = tl.zeros((1, BLOCK_G), tl.float32)
    if before is not None:
        added += tl.load(before + group * width + channel, mask=channel < width, other=0.0).to(tl.float32)
    tiles = tl.cdiv(rows, TILE_ROWS)
    size = rows * 1.0 * width
    mean = 0.0
    variance = 0.0
    for number in tl.static_range(2):
        for start in range(0, splits, BLOCK_SPLITS):
            split = start + tl.arange(0, BLOCK_SPLITS)[:, None]
            at = partial + (batch * splits + split) * 2 * channels + group * width + channel
            inside = (split < splits) & (channel < width)
            # Tiles of a split times their rows, less what the last of all tiles lacks.
            lacking = tl.where((tiles - 1) % splits == split, tiles * TILE_ROWS - rows, 0)
            count = (tl.cdiv(tiles - split, splits) * TILE_ROWS - lacking).to(tl.float32)
            means = tl.load(at, mask=inside, other=0.0) + added
            if number == 0:
                mean += tl.sum(tl.sum(tl.where(inside, means * count, 0.0), 1), 0) / size
            else:
                squares = tl.load(at + channels, mask=inside, other=0.0) + count * (means - mean) * (means - mean)
                variance += tl.sum(tl.sum(tl.where(inside, squares, 0.0), 1), 0) / size
    tl.store(stats + batch * 2 * groups + group, mean)
    tl.store(stats + (batch * 2 + 1) * groups + group, 1.0 / tl.sqrt(variance + eps))


@triton.jit
def _apply(
    x, before, stats, weight, bias, out, rows, channels, groups,
    BLOCK_ROWS: tl.constexpr, BLOCK_C: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    batch = tl.program_id(1).to(tl.int64)
    channel_blocks = tl.cdiv(channels, BLOCK_C)
    number = tl.num_programs(0) - 1 - tl.program_id(0)
    row = (number // channel_blocks) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[:, None]
    channel = (number % channel_blocks) * BLOCK_C + tl.arange(0, BLOCK_C)
    real = channel < channels
    group = channel // (channels // groups)
    mean = tl.load(stats + batch * 2 * groups + group, mask=real, other=0.0)
    scale = tl.load(stats + (batch * 2 + 1) * groups + group, mask=real, other=0.0)
    scale = (scale * tl.load(weight + channel, mask=real, other=0.0).to(tl.float32))[None, :]
    shift = tl.load(bias + channel, mask=real, other=0.0).to(tl.float32)[None, :]
    if before is not None:
        mean -= tl.load(before + channel, mask=real, other=0.0).to(tl.float32)

    at = (batch * rows + row) * channels + channel[None, :]
    inside = (row < rows) & real[None, :]
    y = (tl.load(x + at, mask=inside, other=0.0).to(tl.float32) - mean[None, :]) * scale + shift
    if SILU:
        y = y / (1.0 + tl.exp(-y))
    tl.store(out + at, y.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _whole(
    x, before, weight, bias, out, rows, channels, units, eps,
    UNIT: tl.constexpr, BLOCK_ROWS: tl.constexpr, BLOCK_G: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """All of a group, whose second reading is of the caches."""
    width = units * UNIT  # of a group
    batch = tl.program_id(1).to(tl.int64)
    row = tl.arange(0, BLOCK_ROWS)[:, None]
    place = tl.arange(0, BLOCK_G)[None, :]
    channel = tl.program_id(0) * width + place
    real = place < width
    added = tl.zeros((1, BLOCK_G), tl.float32)
    if before is not None:
        added += tl.load(before + channel, mask=real, other=0.0).to(tl.float32)
    mean = tl.zeros((BLOCK_ROWS, BLOCK_G), tl.float32)
    squares = tl.zeros((BLOCK_ROWS, BLOCK_G), tl.float32)
    seen = tl.zeros((BLOCK_ROWS, 1), tl.float32)
    tiles = 0.0
    for start in range(0, rows, BLOCK_ROWS):
        inside = (start + row < rows) & real
        tile = tl.load(x + (batch * rows + start + row) * channels + channel, mask=inside, other=0.0).to(tl.float32)
        tiles += 1.0
        seen += tl.where(start + row < rows, 1.0, 0.0)
        off = tl.where(inside, tile + added - mean, 0.0)
        mean += off * (1.0 / tiles)
        squares += off * tl.where(inside, tile + added - mean, 0.0)
    size = rows * 1.0 * width
    of_group = tl.sum(tl.sum(mean * seen, 1), 0) / size
    off = tl.where(real, mean - of_group, 0.0)
    variance = tl.sum(tl.sum(squares + seen * off * off, 1), 0) / size
    scale = tl.load(weight + channel, mask=real, other=0.0).to(tl.float32) / tl.sqrt(variance + eps)
    shift = tl.load(bias + channel, mask=real, other=0.0).to(tl.float32)
    for start in range(0, rows, BLOCK_ROWS):
        inside = (start + row < rows) & real
        at = (batch * rows + start + row) * channels + channel
        y = (tl.load(x + at, mask=inside, other=0.0).to(tl.float32) + (added - of_group)) * scale + shift
        if SILU:
            y = y / (1.0 + tl.exp(-y))
        tl.store(out + at, y.to(out.dtype.element_ty), mask=inside)


@torch.library.custom_op("sodec::group_norm_silu", mutates_args=())
def group_norm_silu(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, silu: bool, before: Tensor | None
) -> Tensor:
    """Launches the kernels."""
    legality.require(legality.group_norm_silu(x, groups, weight, bias, before), "group_norm_silu")
    batch, channels, height, width = x.shape
    rows, of_group = height * width, channels // groups
    config = launch.config("group_norm_silu", x)
    out = torch.empty_like(x)
    block_g, unit = launch.power_of_two(of_group, 1), launch.unit(of_group)
    if rows * of_group <= config["WHOLE"]:
        with launch.on_device_of(x):
            _whole[(groups, batch)](
                x, before, weight, bias, out, rows, channels, of_group // unit, eps,
                UNIT=unit, BLOCK_ROWS=max(1, config["WHOLE_TILE"] // block_g), BLOCK_G=block_g, SILU=silu,
                num_warps=config["WHOLE_WARPS"], num_stages=config["num_stages"],
            )  # fmt: skip
        return out
    sizes = {key: config[key] for key in ("BLOCK_C", "num_warps", "num_stages")}
    channel_blocks = launch.blocks(channels, config["BLOCK_C"])
    tiles = launch.blocks(rows, config["PARTIAL_ROWS"])
    splits = min(config["SPLITS"], tiles, max(1, config["PROGRAMS"] // (batch * channel_blocks)))
    partial = torch.empty((batch, splits, 2, channels), dtype=torch.float32, device=x.device)
    stats = torch.empty((batch, 2, groups), dtype=torch.float32, device=x.device)
    with launch.on_device_of(x):
        _partial[(splits * channel_blocks, batch)](
            x, partial, rows, channels, splits, BLOCK_ROWS=config["PARTIAL_ROWS"], **sizes
        )
        _combine[(groups, batch)](
            partial, before, stats, rows, channels, groups, splits, eps, TILE_ROWS=config["PARTIAL_ROWS"],
            BLOCK_SPLITS=min(launch.power_of_two(splits, 1), max(1, COMBINED // block_g)), BLOCK_G=block_g, num_warps=4,
        )  # fmt: skip
        _apply[(launch.blocks(rows, config["APPLY_ROWS"]) * channel_blocks, batch)](
            x, before, stats, weight, bias, out, rows, channels, groups,
            BLOCK_ROWS=config["APPLY_ROWS"], SILU=silu, **sizes,
        )  # fmt: skip
    return out


@group_norm_silu.register_fake
def _(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, silu: bool, before: Tensor | None) -> Tensor:
    return torch.empty_like(x)
