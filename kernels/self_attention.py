"""Self-attention on one packed product: q, k and v are read where the product left them.

    out = softmax(q k^T / sqrt(D)) v, head by head;   q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]

qkv (B, N, 3, H, D) with the channels of a head side by side; out (B, N, H, D) contiguous. Scores and softmax in
float32, weights rounded to the dtype for the second product. The N x N scores never leave the chip.
Source: FlashAttention (Dao et al., NeurIPS 2022) and, for the order of loops, FlashAttention-2 (Dao, 2023).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import launch, legality
from .online_softmax import attend, product
from .reference import self_attention as reference

__all__ = ["reference", "self_attention"]


@triton.jit
def _kernel(
    qkv, out, positions, heads, scale, by_batch, by_row, by_part, by_head,
    WIDTH: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, EVEN: tl.constexpr,
    UPCAST: tl.constexpr,
):  # fmt: skip
    row_blocks = tl.cdiv(positions, BLOCK_Q)
    row = ((tl.program_id(0) % row_blocks) * BLOCK_Q + tl.arange(0, BLOCK_Q)).to(tl.int64)[:, None]
    batch = (tl.program_id(0) // row_blocks // heads).to(tl.int64)
    head = (tl.program_id(0) // row_blocks % heads).to(tl.int64)
    key = tl.arange(0, BLOCK_T)
    channel = tl.arange(0, BLOCK_D)[None, :]
    inside = (row < positions) & (channel < WIDTH)

    start_of_head = qkv + batch * by_batch + head * by_head
    queries = tl.load(start_of_head + row * by_row + channel, mask=inside, other=0.0)
    keys_at = start_of_head + by_part + key.to(tl.int64)[:, None] * by_row + channel
    values_at = keys_at + by_part

    acc = tl.zeros((BLOCK_Q, BLOCK_D), tl.float32)
    top = tl.full((BLOCK_Q,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_Q,), tl.float32)
    for start in range(0, positions, BLOCK_T):
        if EVEN:  # every tile is full: no masks in the loop
            keys = tl.load(keys_at)
            values = tl.load(values_at)
            scores = product(queries, tl.trans(keys), UPCAST) * scale
        else:
            valid = (start + key < positions)[:, None] & (channel < WIDTH)
            keys = tl.load(keys_at, mask=valid, other=0.0)
            values = tl.load(values_at, mask=valid, other=0.0)
            scores = product(queries, tl.trans(keys), UPCAST) * scale
            scores = tl.where((start + key < positions)[None, :], scores, float("-inf"))
        acc, top, total = attend(acc, top, total, scores, values, UPCAST)
        keys_at += BLOCK_T * by_row
        values_at += BLOCK_T * by_row

    out_at = out + ((batch * positions + row) * heads + head) * WIDTH + channel
    tl.store(out_at, (acc / total[:, None]).to(out.dtype.element_ty), mask=inside)


@torch.library.custom_op("sodec::self_attention", mutates_args=())
def self_attention(qkv: Tensor) -> Tensor:
    """Launches the kernel."""
    legality.require(legality.self_attention(qkv), "self_attention")
    b, n, _, h, d = qkv.shape
    out = torch.empty((b, n, h, d), dtype=qkv.dtype, device=qkv.device)
    config = launch.config("self_attention", qkv)
    padded = launch.power_of_two(d)
    grid = (launch.blocks(n, config["BLOCK_Q"]) * b * h,)
    with launch.on_device_of(qkv):
        _kernel[grid](
            qkv, out, n, h, launch.LOG2_E * d**-0.5, *qkv.stride()[:4],
            WIDTH=d, BLOCK_D=padded, EVEN=n % config["BLOCK_T"] == 0 and d == padded,
            UPCAST=legality.interpreted(), **config,
        )  # fmt: skip
    return out


@self_attention.register_fake
def _(qkv: Tensor) -> Tensor:
    b, n, _, h, d = qkv.shape
    return qkv.new_empty((b, n, h, d))
