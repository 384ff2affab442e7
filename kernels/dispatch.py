"""What callers use: each function computes the same by PyTorch or by a Triton kernel, and here it is chosen which.

The choice is, in this order: the argument `choice`, then the environment's SODEC_KERNELS, then "auto".

- "auto": the kernel where it serves the input (legality.py) and was measured to beat PyTorch on this
  architecture (launch.py, `wins`), else PyTorch.
- "triton": the kernel, or a `DeviceError` that says why it can't.
- "torch": PyTorch.

SODEC_KERNELS holds one mode for all kernels, names with a mode of their own, or both:
`SODEC_KERNELS=triton`, `SODEC_KERNELS=triton,geglu=torch`.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..errors import DeviceError
from . import launch, legality, reference

MODES = ("auto", "triton", "torch")
KERNELS = (
    "affine_step", "geglu", "group_norm_silu", "guided_attention", "self_attention", "wide_attention",
)  # fmt: skip


@cache
def parse(setting: str) -> dict[str, str]:
    """The mode of every kernel, from a value of SODEC_KERNELS."""
    modes = dict.fromkeys(KERNELS, "auto")
    named: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in setting.split(","))):
        name, equals, mode = part.rpartition("=")
        if mode not in MODES or (equals and name not in KERNELS):
            raise DeviceError(f"SODEC_KERNELS: {part!r} is neither one of {', '.join(MODES)} nor a kernel with a mode, "
                              f"as in geglu=torch; kernels: {', '.join(KERNELS)}")  # fmt: skip
        if equals:
            named[name] = mode
        else:
            modes = dict.fromkeys(KERNELS, mode)
    return modes | named


def mode_of(name: str, choice: str | None = None) -> str:
    """The mode in force for a kernel."""
    if choice is None:
        return parse(os.environ.get("SODEC_KERNELS", "auto"))[name]
    if choice not in MODES:
        raise DeviceError(f"choice {choice!r} is not one of {', '.join(MODES)}")
    return choice


def _kernel(name: str, choice: str | None, device: torch.device, refuse: Callable[[], str | None]) -> Any:
    """The kernel's operator if it is to serve this call, None for PyTorch. Triton is imported only for the former."""
    mode = mode_of(name, choice)
    if mode == "torch" or (mode == "auto" and not launch.won(name, device)):
        return None
    refusal = refuse()
    if mode == "triton":
        legality.require(refusal, name)
    return None if refusal else getattr(importlib.import_module(f".{name}", __package__), name)


def affine_step(latent: Tensor, noise: Tensor, alpha: float, choice: str | None = None) -> Tensor:
    """(l_t - sqrt(1 - a) eps) / sqrt(a) in float32, returned in the latent's dtype."""
    kernel = _kernel("affine_step", choice, latent.device, lambda: legality.affine_step(latent, noise, alpha))
    return (kernel or reference.affine_step)(latent, noise, alpha)


def geglu(x: Tensor, choice: str | None = None) -> Tensor:
    """h * gelu(g) with the exact GELU, (..., 2 C) to (..., C), h the first half."""
    kernel = _kernel("geglu", choice, x.device, lambda: legality.geglu(x))
    return (kernel or reference.geglu)(x)


def group_norm_silu(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float = 1e-5, silu: bool = True,
    choice: str | None = None,
) -> Tensor:  # fmt: skip
    """silu(GroupNorm(x)) of (B, C, H, W); the kernel wants channels_last memory."""
    kernel = _kernel(
        "group_norm_silu", choice, x.device, lambda: legality.group_norm_silu(x, groups, weight, bias)
    )  # fmt: skip
    return (kernel or reference.group_norm_silu)(x, groups, weight, bias, eps, silu)


def guided_attention(q: Tensor, k: Tensor, v: Tensor, choice: str | None = None) -> Tensor:
    """Attention of many positions q (B, N, H, D) to few tokens k, v (B, T, H, D)."""
    kernel = _kernel("guided_attention", choice, q.device, lambda: legality.guided_attention(q, k, v))
    return (kernel or reference.guided_attention)(q, k, v)


def self_attention(qkv: Tensor, choice: str | None = None) -> Tensor:
    """Attention of packed qkv (B, N, 3, H, D), to (B, N, H, D)."""
    kernel = _kernel("self_attention", choice, qkv.device, lambda: legality.self_attention(qkv))
    return (kernel or reference.self_attention)(qkv)


def wide_attention(q: Tensor, k: Tensor, v: Tensor, choice: str | None = None) -> Tensor:
    """Attention with one head of up to 512 channels, q, k, v (B, N, C)."""
    kernel = _kernel("wide_attention", choice, q.device, lambda: legality.wide_attention(q, k, v))
    return (kernel or reference.wide_attention)(q, k, v)
