"""Attention with one head as wide as the features: the middle block of Stable Diffusion's latent decoder.

    out = softmax(q k^T / sqrt(C)) v

q, k, v (B, N, C), C up to 512, any strides with the channels side by side; out (B, N, C) contiguous. Scores and
softmax in float32, weights rounded to the dtype for the second product.
At batch 1 and 512x512 there are 64 tiles of 64 queries, half a large GPU; and a float32 accumulator of 512
channels crowds the registers. So SPLIT programs share a tile of queries: each computes all of its scores and
sums C / SPLIT channels of the result. With two that is 1.5x the arithmetic on twice the processors.
Source: as self_attention.py; the split is ours.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import launch, legality
from .online_softmax import attend, product
from .reference import wide_attention as reference

__all__ = ["reference", "wide_attention"]


@triton.jit
def _kernel(
    q, k, v, out, positions, scale, q_batch, q_row, k_batch, k_row, v_batch, v_row,
    WIDTH: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, SPLIT: tl.constexpr,
    UPCAST: tl.constexpr,
):  # fmt: skip
    PART: tl.constexpr = BLOCK_D // SPLIT
    row_blocks = tl.cdiv(positions, BLOCK_Q)
    row = (tl.program_id(0) // SPLIT % row_blocks * BLOCK_Q + tl.arange(0, BLOCK_Q)).to(tl.int64)[:, None]
    batch = (tl.program_id(0) // SPLIT // row_blocks).to(tl.int64)
    key = tl.arange(0, BLOCK_T)
    channel = tl.arange(0, BLOCK_D)[None, :]
    part = (tl.program_id(0) % SPLIT) * PART + tl.arange(0, PART)[None, :]

    queries = tl.load(
        q + batch * q_batch + row * q_row + channel, mask=(row < positions) & (channel < WIDTH), other=0.0
    )
    keys_at = k + batch * k_batch + key.to(tl.int64)[:, None] * k_row + channel
    values_at = v + batch * v_batch + key.to(tl.int64)[:, None] * v_row + part

    acc = tl.zeros((BLOCK_Q, PART), tl.float32)
    top = tl.full((BLOCK_Q,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_Q,), tl.float32)
    for start in range(0, positions, BLOCK_T):
        valid = (start + key < positions)[:, None]
        keys = tl.load(keys_at, mask=valid & (channel < WIDTH), other=0.0)
        values = tl.load(values_at, mask=valid & (part < WIDTH), other=0.0)
        scores = product(queries, tl.trans(keys), UPCAST) * scale
        scores = tl.where((start + key < positions)[None, :], scores, float("-inf"))
        acc, top, total = attend(acc, top, total, scores, values, UPCAST)
        keys_at += BLOCK_T * k_row
        values_at += BLOCK_T * v_row

    out_at = out + (batch * positions + row) * WIDTH + part
    tl.store(out_at, (acc / total[:, None]).to(out.dtype.element_ty), mask=(row < positions) & (part < WIDTH))


@torch.library.custom_op("sodec::wide_attention", mutates_args=())
def wide_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Launches the kernel."""
    legality.require(legality.wide_attention(q, k, v), "wide_attention")
    b, n, c = q.shape
    out = torch.empty((b, n, c), dtype=q.dtype, device=q.device)
    config = launch.config("wide_attention", q)
    padded = launch.power_of_two(c, 16 * config["SPLIT"])
    grid = (launch.blocks(n, config["BLOCK_Q"]) * b * config["SPLIT"],)
    with launch.on_device_of(q):
        _kernel[grid](
            q, k, v, out, n, launch.LOG2_E * c**-0.5, *q.stride()[:2], *k.stride()[:2], *v.stride()[:2],
            WIDTH=c, BLOCK_D=padded, UPCAST=legality.interpreted(), **config,
        )  # fmt: skip
    return out


@wide_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return q.new_empty(q.shape)
