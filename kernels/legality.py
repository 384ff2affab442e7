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
MOST_NOISE = 16  # channels
WIDEST_NORM = 4096


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


def _common(first: Tensor, *others: Tensor | None) -> str | None:
    tensors = [first, *(t for t in others if t is not None)]
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


def group_norm_silu(x: Tensor, groups: int, weight: Tensor, bias: Tensor, before: Tensor | None = None) -> str | None:
    """(B, C, H, W) in channels_last memory, C a multiple of groups."""
    if refusal := _common(x, weight, bias, before) or _image(x):
        return refusal
    if groups < 1 or x.shape[1] % groups:
        return f"{groups} groups do not divide {x.shape[1]} channels"
    return _vectors(x.shape[1], weight=weight, bias=bias, before=before)


def bias_act(
    x: Tensor, bias: Tensor, residual: Tensor | None, noise: Tensor | None, weight: Tensor | None, doubled: bool
) -> str | None:
    """All in channels_last memory. `doubled`, x has four times the channels of the others, and half their size."""
    if refusal := epilogue(x, bias, residual, noise, weight) or _image(x):
        return refusal
    channels, shape = x.shape[1], (x.shape[0], *(side * (2 if doubled else 1) for side in x.shape[2:]))
    if doubled and channels % 4:
        return f"{channels} channels, must be a multiple of 4 for a pixel shuffle"
    if refusal := _vectors(channels, bias=bias):
        return refusal
    wanted = (shape[0], channels // 4 if doubled else channels, *shape[1:])
    if residual is not None and (residual.shape not in (wanted, (*wanted[:2], 1, 1)) or _image(residual)):
        return f"residual {tuple(residual.shape)} is not {wanted} in channels_last memory"
    if (noise is None) != (weight is None):
        return "noise and its weight come together"
    if noise is not None and weight is not None:
        if (noise.shape[0], *noise.shape[2:]) != shape or _image(noise) or noise.shape[1] > MOST_NOISE:
            return (
                f"noise {tuple(noise.shape)} is not of up to {MOST_NOISE} channels and {shape} in channels_last memory"
            )
        if weight.shape != (wanted[1], noise.shape[1]) or not weight.is_contiguous():
            return f"weight {tuple(weight.shape)} of the noise is not {(wanted[1], noise.shape[1])}, contiguous"
    return None


def epilogue(x: Tensor, *others: Tensor | None) -> str | None:
    """Whether what a convolution makes of x may go to `bias_act`: asked before, since it then adds no bias itself."""
    return _common(x, *others)


def channel_norm_act(
    x: Tensor, weight: Tensor, bias: Tensor, before: Tensor | None = None, residual: Tensor | None = None
) -> str | None:
    """(B, C, H, W) in channels_last memory, C up to 4096."""
    if refusal := _common(x, weight, bias, before, residual) or _image(x):
        return refusal
    if x.shape[1] > WIDEST_NORM:
        return f"{x.shape[1]} channels, at most {WIDEST_NORM}"
    if residual is not None and (residual.shape != x.shape or (residual.stride(1) != 1 and x.shape[1] > 1)):
        return f"residual {tuple(residual.shape)}, strides {residual.stride()}, is not like x, channels side by side"
    return _vectors(x.shape[1], weight=weight, bias=bias, before=before)


def skip_norm_act(x: Tensor, skip: Tensor, weight: Tensor, bias: Tensor, before: Tensor | None = None) -> str | None:
    """x and skip (..., C), contiguous, C up to 4096."""
    if refusal := _common(x, skip, weight, bias, before):
        return refusal
    if x.ndim == 0 or x.shape[-1] > WIDEST_NORM:
        return f"{x.shape[-1] if x.ndim else 0} channels, must be 1 to {WIDEST_NORM}"
    if skip.shape != x.shape or not (skip.is_contiguous() and x.is_contiguous()):
        return f"x {tuple(x.shape)} and skip {tuple(skip.shape)} are not alike and contiguous"
    return _vectors(x.shape[-1], weight=weight, bias=bias, before=before)


def _image(x: Tensor) -> str | None:
    if x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return None
    return f"not (B, C, H, W) in channels_last memory: shape {tuple(x.shape)}, strides {x.stride()}"


def _vectors(channels: int, **named: Tensor | None) -> str | None:
    for name, vector in named.items():
        if vector is not None and (vector.shape != (channels,) or not vector.is_contiguous()):
            return f"{name} {tuple(vector.shape)} is not ({channels},), contiguous"
    return None


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
