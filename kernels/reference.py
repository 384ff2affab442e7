"""What the kernels compute, in plain PyTorch: the fallback everywhere, and what the tests compare with.

B batch, N positions, T tokens, H heads, D channels of a head, C channels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"": lambda x: x, "silu": F.silu, "relu": F.relu}


def geglu(x: Tensor) -> Tensor:
    """h * gelu(g), (..., 2 C) to (..., C); h is the first half, the GELU is the exact one (erf)."""
    hidden, gate = x.chunk(2, -1)
    return hidden * F.gelu(gate)


def bias_act(
    x: Tensor, bias: Tensor, residual: Tensor | None = None, noise: Tensor | None = None,
    weight: Tensor | None = None, silu: bool = False, doubled: bool = False,
) -> Tensor:  # fmt: skip
    """x (B, C, H, W) + bias, then a pixel shuffle to twice the size if `doubled`; + residual, like the result or (B, C,
    1, 1), + a 1x1 convolution of noise (B, K, ...) with weight (C, K); then SiLU if asked for."""
    y = x + bias.to(x.dtype)[:, None, None]
    if doubled:
        y = F.pixel_shuffle(y, 2)
    if residual is not None:
        y = y + residual
    if noise is not None and weight is not None:
        y = y + F.conv2d(noise.to(x.dtype), weight.to(x.dtype)[:, :, None, None])
    return F.silu(y) if silu else y


def channel_norm_act(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, act: str = "", before: Tensor | None = None,
    residual: Tensor | None = None, pad: int = 0,
) -> Tensor:  # fmt: skip
    """LayerNorm over the channels of (B, C, H, W) + `before`, then act ("silu", "relu" or ""), + residual, padded."""
    s = x if before is None else x + before.to(x.dtype)[:, None, None]
    y = F.layer_norm(s.permute(0, 2, 3, 1), (x.shape[1],), weight.to(x.dtype), bias.to(x.dtype), eps)
    y = ACTIVATIONS[act](y).permute(0, 3, 1, 2)
    if residual is not None:
        y = y + residual
    return F.pad(y, (pad,) * 4, mode="replicate") if pad else y


def skip_norm_act(
    x: Tensor, skip: Tensor, weight: Tensor, bias: Tensor, eps: float, act: str = "", before: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """x (..., C) + before + skip, and act(LayerNorm) of it over its channels."""
    total = skip + (x if before is None else x + before.to(x.dtype))
    y = F.layer_norm(total, total.shape[-1:], weight.to(x.dtype), bias.to(x.dtype), eps)
    return total, ACTIVATIONS[act](y)


def group_norm_silu(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, silu: bool, before: Tensor | None = None
) -> Tensor:
    """GroupNorm of (B, C, H, W) + `before` (C,), then SiLU unless switched off."""
    if before is not None:
        x = x + before.to(x.dtype)[:, None, None]
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
