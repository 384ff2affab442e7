"""What follows a convolution, in one pass over channels_last memory.

    y = act(d(x + bias) + residual + sum_k weight[:, k] noise[k]),   act SiLU or nothing

x (B, C, H, W), what a convolution without a bias gives, and bias (C,) to y like x, written over x. `doubled`, d is a
pixel shuffle: x has 4 C channels, and y (B, C, 2 H, 2 W) is new. residual like y, or (B, C, 1, 1); noise (B, K, height,
width of y) and weight (C, K) are a 1x1 convolution of few channels. Residual and noise may be None. All are in
channels_last memory. Math in float32, rounded once.

PyTorch launches bias, sum and SiLU one by one after cuDNN's convolution, each a pass over memory. Here x is read while
it is still in the L2 cache, and overwriting it keeps a second tensor out of there.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import launch, legality
from .reference import bias_act as reference

__all__ = ["bias_act", "reference"]


@triton.jit
def _kernel(
    x, bias, residual, noise, weight, out, positions, units, height, width,
    UNIT: tl.constexpr, EVERYWHERE: tl.constexpr, NOISE: tl.constexpr, SILU: tl.constexpr, DOUBLED: tl.constexpr,
    BLOCK_ROWS: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    channels = units * UNIT
    channel_blocks = tl.cdiv(channels, BLOCK_C)
    row = (tl.program_id(0) // channel_blocks) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    channel = (tl.program_id(0) % channel_blocks) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = (row < positions)[:, None] & (channel < channels)[None, :]
    at = row.to(tl.int64)[:, None] * channels + channel[None, :]
    if DOUBLED:  # height and width are those of y
        above, left = row // width, row % width
        corner = 2 * (above % height % 2) + left % 2
        source = (above // height * (height // 2) + above % height // 2) * (width // 2) + left // 2
        own = 4 * channel[None, :] + corner[:, None]
        y = tl.load(x + source.to(tl.int64)[:, None] * (4 * channels) + own, mask=inside, other=0.0).to(tl.float32)
        y += tl.load(bias + own, mask=inside, other=0.0).to(tl.float32)
    else:
        y = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        y += tl.load(bias + channel, mask=channel < channels, other=0.0).to(tl.float32)[None, :]
    if residual is not None and EVERYWHERE:  # one row of channels for a picture
        shared = (row // (height * width)).to(tl.int64)[:, None] * channels + channel[None, :]
        y += tl.load(residual + shared, mask=inside, other=0.0).to(tl.float32)
    elif residual is not None:
        y += tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
    for k in tl.static_range(NOISE):
        of_row = tl.load(noise + row.to(tl.int64) * NOISE + k, mask=row < positions, other=0.0).to(tl.float32)
        of_channel = tl.load(weight + channel * NOISE + k, mask=channel < channels, other=0.0).to(tl.float32)
        y += of_row[:, None] * of_channel[None, :]
    if SILU:
        y = y / (1.0 + tl.exp(-y))
    tl.store(out + at, y.to(out.dtype.element_ty), mask=inside)


def _launch(
    x: Tensor, out: Tensor, bias: Tensor, residual: Tensor | None, noise: Tensor | None, weight: Tensor | None,
    silu: bool, doubled: bool,
) -> None:  # fmt: skip
    legality.require(legality.bias_act(x, bias, residual, noise, weight, doubled), "bias_act")
    batch, channels, height, width = out.shape
    config = launch.config("bias_act", x)
    positions, unit = batch * height * width, launch.unit(channels)
    few, few_rows = config.pop("FEW"), config.pop("FEW_ROWS")
    if out.numel() <= few:  # smaller tiles, so that there is one for every multiprocessor
        config["BLOCK_ROWS"] = min(config["BLOCK_ROWS"], few_rows)
    grid = (launch.blocks(positions, config["BLOCK_ROWS"]) * launch.blocks(channels, config["BLOCK_C"]),)
    with launch.on_device_of(x):
        _kernel[grid](
            x, bias, residual, noise, weight, out, positions, channels // unit, height, width,
            UNIT=unit, EVERYWHERE=residual is not None and residual.shape[2:] != out.shape[2:],
            NOISE=0 if noise is None else noise.shape[1], SILU=silu, DOUBLED=doubled, **config,
        )  # fmt: skip


@torch.library.custom_op("sodec::bias_act_", mutates_args=("x",))
def in_place(
    x: Tensor, bias: Tensor, residual: Tensor | None, noise: Tensor | None, weight: Tensor | None, silu: bool
) -> None:
    """Launches the kernel; x becomes y."""
    _launch(x, x, bias, residual, noise, weight, silu, False)


@in_place.register_fake
def _(
    x: Tensor, bias: Tensor, residual: Tensor | None, noise: Tensor | None, weight: Tensor | None, silu: bool
) -> None:
    return None


@torch.library.custom_op("sodec::bias_act_doubled", mutates_args=())
def doubling(
    x: Tensor, bias: Tensor, residual: Tensor | None, noise: Tensor | None, weight: Tensor | None, silu: bool
) -> Tensor:
    """Launches the kernel with a pixel shuffle."""
    out = _doubled_like(x)
    _launch(x, out, bias, residual, noise, weight, silu, True)
    return out


@doubling.register_fake
def _(
    x: Tensor, bias: Tensor, residual: Tensor | None, noise: Tensor | None, weight: Tensor | None, silu: bool
) -> Tensor:
    return _doubled_like(x)


def _doubled_like(x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    return torch.empty(
        (batch, channels // 4, 2 * height, 2 * width),
        dtype=x.dtype, device=x.device, memory_format=torch.channels_last,
    )  # fmt: skip


def bias_act(
    x: Tensor, bias: Tensor, residual: Tensor | None = None, noise: Tensor | None = None,
    weight: Tensor | None = None, silu: bool = False, doubled: bool = False,
) -> Tensor:  # fmt: skip
    """y; unless `doubled`, it is x, overwritten."""
    if doubled:
        return doubling(x, bias, residual, noise, weight, silu)
    in_place(x, bias, residual, noise, weight, silu)
    return x
