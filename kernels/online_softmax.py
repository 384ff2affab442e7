"""What the attention kernels share: a product of tiles, and one key tile of a softmax with running maximum.

Softmax is taken in base 2 (scores arrive multiplied by log2 e), because GPUs have exp2 and no exp.
Source: online softmax (Milakov and Gimelshein, 2018), as in FlashAttention (Dao et al., NeurIPS 2022).
"""

import triton
import triton.language as tl


@triton.jit
def product(a, b, UPCAST: tl.constexpr):
    """a @ b summed in float32. Products of 16-bit numbers are exact in float32, so UPCAST changes no value on a
    GPU and would only miss its matrix units; the interpreter, which has no bfloat16 arithmetic, needs it."""
    if UPCAST:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, input_precision="ieee")  # of float32: not TF32, which has 10 bits


@triton.jit
def attend(acc, top, total, scores, values, UPCAST: tl.constexpr):
    """One tile of keys. scores (M, T) with -inf where there is no key, at least one key; values (T, D).
    acc (M, D), running maximum top (M,) and sum total (M,) as they were, and returned as they are now."""
    new_top = tl.maximum(top, tl.max(scores, 1))
    weights = tl.exp2(scores - new_top[:, None])
    keep = tl.exp2(top - new_top)
    acc = acc * keep[:, None] + product(weights.to(values.dtype), values, UPCAST)
    return acc, new_top, total * keep + tl.sum(weights, 1)
