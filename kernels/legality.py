"""Which inputs each kernel serves: the one place that decides. A refusal is a sentence, None means yes.

Dispatch asks before it chooses; launchers ask again, so that an operator called by name is as safe.
"""

from __future__ import annotations

import importlib.util
import os
from functools import cache

import torch
from torch import Tensor

from ..errors import DeviceError

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
OLDEST = (8, 0)  # Ampere: the first with bfloat16 matrix units
WIDEST_HEAD = 128
MOST_TOKENS = 128


def interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels (then CPU tensors are served, slowly: for tests)."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def has_triton() -> bool:
    """Whether triton is installed; asked without importing it."""
    return importlib.util.find_spec("triton") is not None


@cache
def capability(index: int) -> tuple[int, int]:
    """The compute capability of a CUDA device."""
    return torch.cuda.get_device_capability(index)


def require(refusal: str | None, name: str) -> None:
    """Raise the refusal, if there is one, as a `DeviceError`."""
    if refusal is not None:
        raise DeviceError(f"kernel {name}: {refusal}")


def _common(*tensors: Tensor) -> str | None:
    first = tensors[0]
    if not has_triton():
        return "triton is not installed"
    if any(t.device != first.device for t in tensors):
        return "inputs on different devices: " + ", ".join(str(t.device) for t in tensors)
    if torch.version.hip is not None:
        return "not tried on ROCm"
    if first.device.type != "cuda" and not (first.device.type == "cpu" and interpreted()):
        return f"needs a CUDA device, the input is on {first.device}"
    if first.device.type == "cuda" and capability(first.device.index or 0) < OLDEST:
        return "needs compute capability {}.{}, the GPU has {}.{}".format(*OLDEST, *capability(first.device.index or 0))
    if bad := [t.dtype for t in tensors if t.dtype not in DTYPES]:
        return f"dtype {bad[0]} is not one of float32, bfloat16, float16"
    if first.numel() == 0:
        return f"no elements in {tuple(first.shape)}"
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return "has no backward, and an input requires a gradient"
    return None


def geglu(x: Tensor) -> str | None:
    """(..., 2 C), contiguous."""
    if refusal := _common(x):
        return refusal
    if x.ndim == 0 or x.shape[-1] % 2:
        return f"the last dimension of {tuple(x.shape)} is not even"
    return None if x.is_contiguous() else "not contiguous"


def group_norm_silu(x: Tensor, groups: int, weight: Tensor, bias: Tensor) -> str | None:
    """(B, C, H, W) in channels_last memory, C a multiple of groups."""
    if refusal := _common(x, weight, bias):
        return refusal
    if x.ndim != 4 or not x.is_contiguous(memory_format=torch.channels_last):
        return f"not (B, C, H, W) in channels_last memory: shape {tuple(x.shape)}, strides {x.stride()}"
    if groups < 1 or x.shape[1] % groups:
        return f"{groups} groups do not divide {x.shape[1]} channels"
    if weight.shape != (x.shape[1],) or bias.shape != weight.shape:
        return f"weight {tuple(weight.shape)} and bias {tuple(bias.shape)} are not ({x.shape[1]},)"
    return None if weight.is_contiguous() and bias.is_contiguous() else "weight or bias not contiguous"


def guided_attention(q: Tensor, k: Tensor, v: Tensor) -> str | None:
    """q (B, N, H, D), k and v (B, T, H, D), 16-bit, channels of a head side by side, D and T up to 128."""
    if refusal := _common(q, k, v):
        return refusal
    if q.ndim != 4 or k.ndim != 4 or k.shape != v.shape or (q.shape[0], *q.shape[2:]) != (k.shape[0], *k.shape[2:]):
        return f"shapes do not match: q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
    if any(t.dtype != q.dtype for t in (k, v)):
        return f"inputs of different dtypes: {q.dtype}, {k.dtype}, {v.dtype}"
    if q.dtype == torch.float32:
        return "dtype float32 is not one of bfloat16, float16"
    if not 1 <= k.shape[1] <= MOST_TOKENS:
        return f"{k.shape[1]} tokens, must be 1 to {MOST_TOKENS}"
    if q.shape[-1] > WIDEST_HEAD:
        return f"{q.shape[-1]} channels per head, at most {WIDEST_HEAD}"
    side_by_side = all(t.stride(-1) == 1 for t in (q, k, v))
    return None if side_by_side else "channels of a head are not side by side in memory"
