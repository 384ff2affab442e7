"""Devices and dtypes of PyTorch, by name, and what memory a device has."""

from __future__ import annotations

import torch

from .. import memory
from ..errors import DeviceError
from . import engines, fitting

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Times the files' size is the peak while a model is read: for the weights in float32, and as much again for those that
# a model of lite's architecture is drawn with first (140 MB for 35 MB of files).
READ, DRAWN = 2, 2


def check_weights(size: int, device: torch.device, dtype: torch.dtype, name: str, *, drawn_first: bool = False) -> None:
    """`DeviceError` where weights of `size` bytes in 16 bits fit no memory: the machine's, as they are read and
    prepared, then the device's in `dtype`. `drawn_first`: the model is built with weights of its own before.
    """
    read = size * (READ + DRAWN * drawn_first)
    for place, needed in ((torch.device("cpu"), read), (device, size // 2 * dtype.itemsize)):
        fitting.check_weights(name, str(place), available(place), needed)


def available(device: torch.device) -> int | None:
    """Bytes that can be taken on the device; None where nothing tells."""
    if device.type == "cuda":
        kept = torch.cuda.memory_stats_as_nested_dict(device)  # flattened, as others give them, they take a millisecond
        unused = kept["reserved_bytes"]["all"]["current"] - kept["allocated_bytes"]["all"]["current"] if kept else 0
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    return memory.free() if device.type == "cpu" else None


def resolve_device(name: str) -> torch.device:
    """`DeviceError` where torch does not know the name or the machine has no such device."""
    try:
        device = torch.device(name)
        if device.type == "cuda" and not torch.cuda.is_available():
            raise DeviceError(f"device {name!r}: torch {torch.__version__} sees no CUDA GPU here")
        torch.empty(1, device=device)
    except DeviceError:
        raise
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise DeviceError(f"device {name!r} can't be used: {str(error).splitlines()[0]}") from None
    return device


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype of this name; "auto" takes bfloat16 where `device` multiplies it natively. Else `DeviceError`."""
    if name == "auto":
        return torch.bfloat16 if _has_bfloat16(device) else torch.float32
    if name not in DTYPES:
        raise DeviceError(f"dtype must be one of auto, {', '.join(DTYPES)} (got {name!r})")
    return DTYPES[name]


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return engines.has_bfloat16()
    return False
