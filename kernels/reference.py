"""What the kernels compute, in plain PyTorch: the fallback everywhere, and what the tests compare with.

B batch, N positions, T tokens, H heads, D channels of a head, C channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def geglu(x: Tensor) -> Tensor:
    """h * gelu(g), (..., 2 C) to (..., C); h is the first half, the GELU is the exact one (erf)."""
    hidden, gate = x.chunk(2, -1)
    return hidden * F.gelu(gate)


def group_norm_silu(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, silu: bool) -> Tensor:
    """GroupNorm of (B, C, H, W), then SiLU unless switched off."""
    y = F.group_norm(x, groups, weight.to(x.dtype), bias.to(x.dtype), eps)
    return F.silu(y) if silu else y


def guided_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of q (B, N, H, D) to k, v (B, T, H, D): (B, N, H, D), contiguous."""
    heads_first = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return heads_first.transpose(1, 2).contiguous()


def softmax_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D)) v written out, (B, N, H, D); the tests' reference in float64."""
    weights = torch.einsum("bnhd,bthd->bhnt", q, k) * q.shape[-1] ** -0.5
    return torch.einsum("bhnt,bthd->bnhd", weights.softmax(-1), v)
