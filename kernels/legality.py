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
WIDEST_SINGLE_HEAD = 512


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


def affine_step(latent: Tensor, noise: Tensor, alpha: float) -> str | None:
    """Any shape; both tensors dense and laid out alike."""
    if refusal := _common(latent, noise):
        return refusal
    if latent.shape != noise.shape or latent.stride() != noise.stride():
        return f"latent and noise differ in shape or layout: {tuple(latent.shape)}, {tuple(noise.shape)}"
    if not _dense(latent):
        return f"not dense: shape {tuple(latent.shape)}, strides {latent.stride()}"
    return None if 0.0 < alpha <= 1.0 else f"alpha {alpha} is not in (0, 1]"


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
    """q (B, N, H, D), k and v (B, T, H, D), channels of a head side by side, D up to 128."""
    if refusal := _common(q, k, v):
        return refusal
    if q.ndim != 4 or k.ndim != 4 or k.shape != v.shape or (q.shape[0], *q.shape[2:]) != (k.shape[0], *k.shape[2:]):
        return f"shapes do not match: q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
    return "no tokens" if k.shape[1] == 0 else _attention(WIDEST_HEAD, q, k, v)


def self_attention(qkv: Tensor) -> str | None:
    """(B, N, 3, H, D), channels of a head side by side, D up to 128."""
    if refusal := _common(qkv):
        return refusal
    if qkv.ndim != 5 or qkv.shape[2] != 3:
        return f"not (B, N, 3, H, D): {tuple(qkv.shape)}"
    return _attention(WIDEST_HEAD, qkv)


def wide_attention(q: Tensor, k: Tensor, v: Tensor) -> str | None:
    """q, k, v (B, N, C), channels side by side, C up to 512."""
    if refusal := _common(q, k, v):
        return refusal
    if q.ndim != 3 or q.shape != k.shape or q.shape != v.shape:
        return f"not three times (B, N, C): q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
    return _attention(WIDEST_SINGLE_HEAD, q, k, v)


def _attention(widest: int, *tensors: Tensor) -> str | None:
    if any(t.dtype != tensors[0].dtype for t in tensors):
        return "inputs of different dtypes: " + ", ".join(str(t.dtype) for t in tensors)
    if tensors[0].shape[-1] > widest:
        return f"{tensors[0].shape[-1]} channels per head, at most {widest}"
    return None if all(t.stride(-1) == 1 for t in tensors) else "channels of a head are not side by side in memory"


def _dense(x: Tensor) -> bool:
    """Whether the elements fill one block of memory, in any order of dimensions."""
    expected = 1
    for stride, size in sorted((stride, size) for stride, size in zip(x.stride(), x.shape, strict=True) if size > 1):
        if stride != expected:
            return False
        expected *= size
    return True
