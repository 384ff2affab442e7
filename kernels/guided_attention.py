"""Guided attention: many positions attend to few tokens.

    out = softmax(q k^T / sqrt(D)) v, head by head

q (B, N, H, D), k and v (B, T, H, D), T up to 128 (sd21 has 77), 16-bit, any strides with the channels of a head side
by side (slices of a packed product serve); out (B, N, H, D) contiguous. All tokens are one padded tile: a plain
softmax, no loop, no running maximum. Scores and softmax are float32, weights are rounded to v's dtype for the second
product, as in PyTorch's fused kernels. The softmax has base 2 (scores times log2 e), because GPUs have exp2 and no exp.
Two cases are left to PyTorch: more tokens, where its fused attention was 1.4 to 1.7 times as fast as a loop over tiles
(docs/latency.md), and float32, whose tile of 128 tokens spills registers.
Source: Attention is all you need (Vaswani et al., 2017).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import launch, legality
from .reference import guided_attention as reference

__all__ = ["guided_attention", "reference"]

LOG2_E = 1.4426950408889634


@triton.jit
def _product(a, b, UPCAST: tl.constexpr):
    """a @ b summed in float32. Products of 16-bit numbers are exact in float32, so UPCAST changes no value on a
    GPU and would only miss its matrix units; the interpreter, which has no bfloat16 arithmetic, needs it."""
    if UPCAST:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, input_precision="ieee")  # of float32: not TF32, which has 10 bits


@triton.jit
def _kernel(
    q, k, v, out, positions, tokens, heads, scale,
    q_batch, q_row, q_head, k_batch, k_row, k_head, v_batch, v_row, v_head,
    WIDTH: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr,
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

    valid = (token < tokens)[:, None] & (channel < WIDTH)
    keys = tl.load(keys_at, mask=valid, other=0.0)
    values = tl.load(values_at, mask=valid, other=0.0)
    scores = _product(queries, tl.trans(keys), UPCAST) * scale
    scores = tl.where((token < tokens)[None, :], scores, float("-inf"))
    weights = tl.exp2(scores - tl.max(scores, 1)[:, None])
    total = tl.sum(weights, 1)
    acc = _product(weights.to(values.dtype), values, UPCAST)

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
    grid = (launch.blocks(n, config["BLOCK_Q"]) * b * h,)
    with launch.on_device_of(q):
        _kernel[grid](
            q, k, v, out, n, tokens, h, LOG2_E * d**-0.5,
            *q.stride()[:3], *k.stride()[:3], *v.stride()[:3],
            WIDTH=d, BLOCK_T=launch.power_of_two(tokens), BLOCK_D=launch.power_of_two(d),
            UPCAST=legality.interpreted(), **config,
        )  # fmt: skip
    return out


@guided_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return q.new_empty(q.shape)
