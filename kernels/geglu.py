"""The gated GELU between the two products of a feed-forward.

    y = h * g * (1 + erf(g / sqrt(2))) / 2,   (h, g) the halves of x

x (..., 2 C) contiguous to y (..., C), same dtype. Math in float32, rounded once. One read, one write.
Source: GLU variants (Shazeer, 2020), with the exact GELU that Stable Diffusion's UNet was trained with.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import launch, legality
from .reference import geglu as reference

__all__ = ["geglu", "reference"]


@triton.jit
def _kernel(x, out, rows, width, BLOCK_ROWS: tl.constexpr, BLOCK_COLUMNS: tl.constexpr):
    column_blocks = tl.cdiv(width, BLOCK_COLUMNS)
    row = (tl.program_id(0) // column_blocks).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)[:, None]
    column = (tl.program_id(0) % column_blocks) * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)[None, :]
    inside = (row < rows) & (column < width)
    hidden = tl.load(x + row * 2 * width + column, mask=inside).to(tl.float32)
    gate = tl.load(x + row * 2 * width + width + column, mask=inside).to(tl.float32)
    y = hidden * 0.5 * gate * (1.0 + tl.erf(gate * 0.7071067811865476))
    tl.store(out + row * width + column, y.to(out.dtype.element_ty), mask=inside)


@torch.library.custom_op("sodec::geglu", mutates_args=())
def geglu(x: Tensor) -> Tensor:
    """Launches the kernel."""
    legality.require(legality.geglu(x), "geglu")
    width = x.shape[-1] // 2
    rows = x.numel() // x.shape[-1]
    out = torch.empty((*x.shape[:-1], width), dtype=x.dtype, device=x.device)
    config = launch.config("geglu", x)
    grid = (launch.blocks(rows, config["BLOCK_ROWS"]) * launch.blocks(width, config["BLOCK_COLUMNS"]),)
    with launch.on_device_of(x):
        _kernel[grid](x, out, rows, width, **config)
    return out


@geglu.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:-1], x.shape[-1] // 2))
