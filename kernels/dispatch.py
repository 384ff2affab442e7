"""What callers use: each function is computed by PyTorch or by a Triton kernel, and this module chooses which.

The mode is the argument `choice`, else that of the environment variable SODEC_KERNELS, else "auto".

- "auto": the kernel where it serves the input (legality.py) and was measured to beat PyTorch on this architecture
  (launch.py), else PyTorch. Within `in_graphs()` kernels count that win only where CUDA graphs replay their launches.
- "triton": the kernel, or a `DeviceError` that says why it can't be used.
- "torch": PyTorch.

SODEC_KERNELS holds one mode for all kernels, names with a mode of their own, or both:
`SODEC_KERNELS=triton`, `SODEC_KERNELS=triton,geglu=torch`.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..errors import DeviceError
from . import launch, legality, reference

MODES = ("auto", "triton", "torch")
KERNELS = ("bias_act", "channel_norm_act", "geglu", "group_norm_silu", "guided_attention", "skip_norm_act")
_in_graphs: ContextVar[bool] = ContextVar("in_graphs", default=False)


@contextmanager
def in_graphs() -> Iterator[None]:
    """What runs within is captured as CUDA graphs, or has to equal what is: launches from Python count nothing."""
    token = _in_graphs.set(True)
    try:
        yield
    finally:
        _in_graphs.reset(token)


@cache
def parse(setting: str) -> dict[str, str]:
    """The mode of every kernel, from a value of SODEC_KERNELS."""
    modes = dict.fromkeys(KERNELS, "auto")
    named: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in setting.split(","))):
        name, equals, mode = part.rpartition("=")
        if mode not in MODES or (equals and name not in KERNELS):
            raise DeviceError(f"SODEC_KERNELS must be one of {', '.join(MODES)}, or KERNEL=MODE with KERNEL one of "
                              f"{', '.join(KERNELS)}, as in geglu=torch (got {part!r})")  # fmt: skip
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
        raise DeviceError(f"choice must be one of {', '.join(MODES)} (got {choice!r})")
    return choice


def _kernel(name: str, choice: str | None, device: torch.device, refuse: Callable[[], str | None]) -> Any:
    """The kernel's operator if it serves this call, None for PyTorch. Triton is imported only for the kernel."""
    mode = mode_of(name, choice)
    if mode == "torch" or (mode == "auto" and not launch.won(name, device, _in_graphs.get())):
        return None
    refusal = refuse()
    if mode == "triton":
        legality.require(refusal, name)
    return None if refusal else getattr(importlib.import_module(f".{name}", __package__), name)


def geglu(x: Tensor, choice: str | None = None) -> Tensor:
    """h * gelu(g) with the exact GELU, (..., 2 C) to (..., C), h the first half."""
    kernel = _kernel("geglu", choice, x.device, lambda: legality.geglu(x))
    return (kernel or reference.geglu)(x)


def bias_act(
    x: Tensor, bias: Tensor, residual: Tensor | None = None, noise: Tensor | None = None, weight: Tensor | None = None,
    silu: bool = False, doubled: bool = False, choice: str | None = None,
) -> Tensor:  # fmt: skip
    """What follows a convolution; the kernel overwrites x, unless `doubled`, and wants channels_last memory."""
    kernel = _kernel(
        "bias_act", choice, x.device, lambda: legality.bias_act(x, bias, residual, noise, weight, doubled)
    )  # fmt: skip
    return (kernel or reference.bias_act)(x, bias, residual, noise, weight, silu, doubled)


def fuses(name: str, x: Tensor, *others: Tensor | None) -> bool:
    """Whether a kernel would serve what a convolution makes of x, which then has to leave its bias to the kernel."""
    return _kernel(name, None, x.device, lambda: legality.epilogue(x, *others)) is not None


def channel_norm_act(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, act: str = "", before: Tensor | None = None,
    residual: Tensor | None = None, pad: int = 0, choice: str | None = None,
) -> Tensor:  # fmt: skip
    """act(LayerNorm(x + before)) + residual, padded, of (B, C, H, W); the kernel wants channels_last memory."""
    kernel = _kernel(
        "channel_norm_act", choice, x.device, lambda: legality.channel_norm_act(x, weight, bias, before, residual)
    )  # fmt: skip
    return (kernel or reference.channel_norm_act)(x, weight, bias, eps, act, before, residual, pad)


def skip_norm_act(
    x: Tensor, skip: Tensor, weight: Tensor, bias: Tensor, eps: float, act: str = "", before: Tensor | None = None,
    choice: str | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """s = x + before + skip of (..., C), and act(LayerNorm(s)); the kernel overwrites x by s."""
    kernel = _kernel(
        "skip_norm_act", choice, x.device, lambda: legality.skip_norm_act(x, skip, weight, bias, before)
    )  # fmt: skip
    result: tuple[Tensor, Tensor] = (kernel or reference.skip_norm_act)(x, skip, weight, bias, eps, act, before)
    return result


def group_norm_silu(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float = 1e-5, silu: bool = True,
    before: Tensor | None = None, choice: str | None = None,
) -> Tensor:  # fmt: skip
    """silu(GroupNorm(x + before)) of (B, C, H, W); the kernel wants channels_last memory."""
    kernel = _kernel(
        "group_norm_silu", choice, x.device, lambda: legality.group_norm_silu(x, groups, weight, bias, before)
    )  # fmt: skip
    return (kernel or reference.group_norm_silu)(x, groups, weight, bias, eps, silu, before)


def guided_attention(q: Tensor, k: Tensor, v: Tensor, choice: str | None = None) -> Tensor:
    """Attention of many positions q (B, N, H, D) to few tokens k, v (B, T, H, D): (B, N, H, D)."""
    kernel = _kernel("guided_attention", choice, q.device, lambda: legality.guided_attention(q, k, v))
    return (kernel or reference.guided_attention)(q, k, v)
