"""Normalisation, activation and attention of the blocks.

Those that have a kernel in `sodec.kernels` go through `kernels.dispatch` on CUDA, which chooses between it and PyTorch
(SODEC_KERNELS overrides); elsewhere they are PyTorch. B batch, N positions, T tokens, H heads, D channels of a head.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels import dispatch, reference


def group_norm(x: Tensor, norm: nn.GroupNorm, *, silu: bool) -> Tensor:
    """The norm of x (B, C, H, W), then SiLU if asked for."""
    function = dispatch.group_norm_silu if x.is_cuda else reference.group_norm_silu
    return function(x, norm.num_groups, norm.weight, norm.bias, norm.eps, silu)


def geglu(x: Tensor) -> Tensor:
    """h * gelu(g), (..., 2 C) to (..., C), h the first half."""
    return dispatch.geglu(x) if x.is_cuda else reference.geglu(x)


def guided_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of q (B, N, H, D) to few tokens k, v (B, T, H, D): (B, N, H, D)."""
    return dispatch.guided_attention(q, k, v) if q.is_cuda else reference.guided_attention(q, k, v)


def self_attention(qkv: Tensor) -> Tensor:
    """Attention of packed qkv (B, N, 3, H, D): (B, N, H, D), contiguous."""
    return reference.guided_attention(*qkv.unbind(2))


def wide_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention with one head as wide as the features, q, k, v (B, N, C): (B, N, C), contiguous."""
    one_head = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])  # fused only with four dimensions
    return one_head[:, 0].contiguous()
