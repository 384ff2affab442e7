"""Guided attention: many positions ask, few tokens answer.

    out = softmax(q k^T / sqrt(D)) v, head by head

q (B, N, H, D), k and v (B, T, H, D), any strides with the channels of a head side by side (slices of a packed
product serve); out (B, N, H, D) contiguous. Scores and softmax in float32, weights rounded to v's dtype for the
second product, as PyTorch's fused kernels do.
Up to 128 tokens (77 of sd21) are one padded tile: a plain softmax, no loop. More (a token is 32x32 pixels in lite,
so 2,040 at 1920x1080), and float32, whose tile of 128 spills registers, go tile by tile with a running maximum.
Source: Attention is all you need (Vaswani et al., 2017); for the loop, online_softmax.py.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import launch, legality
from .online_softmax import attend, product
from .reference import guided_attention as reference

__all__ = ["guided_attention", "reference"]

ONE_TILE = 128  # tokens


@triton.jit
def _kernel(
    q, k, v, out, positions, tokens, heads, scale,
    q_batch, q_row, q_head, k_batch, k_row, k_head, v_batch, v_row, v_head,
    WIDTH: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, LOOP: tl.constexpr,
    UPCAST: tl.constexpr,
):  # fmt: skip
    row_blocks = tl.cdiv(positions, BLOCK_Q)
    row = ((tl.program_id(0) % row_blocks) * BLOCK_Q + tl.arange(0, BLOCK_Q)).to(tl.int64)[:, None]
    batch = (tl.program_id(0) // row_blocks // heads).to(tl.int64)
    head = (tl.program_id(0) // row_blocks % heads).to(tl.int64)
    token = tl.arange(0, BLOCK_T)
    channel = tl.arange(0, BLOCK_D)[None, :]
    inside = (row < positions) & (channel < WIDTH)

    queries = tl.load(q + batch * q_batch + head * q_head + row * q_row + channel, mask=inside, other=0.0)
    keys_at = k + batch * k_batch + head * k_head + token.to(tl.int64)[:, None] * k_row + channel
    values_at = v + batch * v_batch + head * v_head + token.to(tl.int64)[:, None] * v_row + channel

    if LOOP:
        acc = tl.zeros((BLOCK_Q, BLOCK_D), tl.float32)
        top = tl.full((BLOCK_Q,), float("-inf"), tl.float32)
        total = tl.zeros((BLOCK_Q,), tl.float32)
        for start in range(0, tokens, BLOCK_T):
            valid = (start + token < tokens)[:, None] & (channel < WIDTH)
            keys = tl.load(keys_at, mask=valid, other=0.0)
            values = tl.load(values_at, mask=valid, other=0.0)
            scores = product(queries, tl.trans(keys), UPCAST) * scale
            scores = tl.where((start + token < tokens)[None, :], scores, float("-inf"))
            acc, top, total = attend(acc, top, total, scores, values, UPCAST)
            keys_at += BLOCK_T * k_row
            values_at += BLOCK_T * v_row
    else:
        valid = (token < tokens)[:, None] & (channel < WIDTH)
        keys = tl.load(keys_at, mask=valid, other=0.0)
        values = tl.load(values_at, mask=valid, other=0.0)
        scores = product(queries, tl.trans(keys), UPCAST) * scale
        scores = tl.where((token < tokens)[None, :], scores, float("-inf"))
        weights = tl.exp2(scores - tl.max(scores, 1)[:, None])
        total = tl.sum(weights, 1)
        acc = product(weights.to(values.dtype), values, UPCAST)

    out_at = out + ((batch * positions + row) * heads + head) * WIDTH + channel
    tl.store(out_at, (acc / total[:, None]).to(out.dtype.element_ty), mask=inside)


@torch.library.custom_op("sodec::guided_attention", mutates_args=())
def guided_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Launches the kernel."""
    legality.require(legality.guided_attention(q, k, v), "guided_attention")
    b, n, h, d = q.shape
    tokens = k.shape[1]
    out = torch.empty((b, n, h, d), dtype=q.dtype, device=q.device)
    config = launch.config("guided_attention", q)
    padded = launch.power_of_two(d)
    loop = tokens > ONE_TILE or q.dtype == torch.float32
    if not loop:
        config["BLOCK_T"] = launch.power_of_two(tokens)
    grid = (launch.blocks(n, config["BLOCK_Q"]) * b * h,)
    with launch.on_device_of(q):
        _kernel[grid](
            q, k, v, out, n, tokens, h, launch.LOG2_E * d**-0.5,
            *q.stride()[:3], *k.stride()[:3], *v.stride()[:3],
            WIDTH=d, BLOCK_D=padded, LOOP=loop, UPCAST=legality.interpreted(), **config,
        )  # fmt: skip
    return out


@guided_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return q.new_empty(q.shape)
