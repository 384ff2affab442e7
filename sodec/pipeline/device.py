"""Estimates the memory that decoding takes, and refuses early where there is less."""

from __future__ import annotations

import torch

from .. import memory
from ..errors import DeviceError
from ..memory import gigabytes
from ..models import ModelConfig
from .tiles import CELL, HALO, TILE

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
TILES = (1024, 512, 256, 128)
ALIVE = 3  # tensors at once where a part is widest: input, normalised input, output
# Encoding takes, beside the tensors of its widest level, a float32 picture and copies of it, and the coder's arrays, by
# pixels; and what the first run of the networks takes. tests/test_memory.py compares the estimate with peaks.
ENCODING_BYTES, FIRST_RUN, FIRST_RUN_WEIGHTS = 30, 20_000_000, 4_000_000
# Times the files' size is the peak while a model is read: for the weights in float32, and as much again for those that
# a model of lite's architecture is drawn with first (140 MB for 35 MB of files).
READ, DRAWN = 2, 2


def decoding_bytes(config: ModelConfig, dtype: torch.dtype, height: int, width: int) -> int:
    """What a window of so many pixels takes beside the weights, by the latent decoder's widest level: a lower bound."""
    last = 1 if config.sizes is not None else 4  # pixels across a position of the last level
    levels = len(config.decoder)
    scales = [last * 2 ** (levels - 1 - level) for level in range(levels)]
    # A level is entered with the width of the one before it.
    entered = [config.decoder[0], *config.decoder[:-1]]
    channels = max(wide / scale**2 for wide, scale in zip(entered, scales, strict=True))
    return round(ALIVE * channels * height * width * dtype.itemsize)


def encoding_bytes(config: ModelConfig, dtype: torch.dtype, height: int, width: int) -> int:
    """What a window of so many pixels takes in the encoder beside the weights and the picture: an upper bound."""
    scale = 4 if config.sizes is None else 1  # pixels across a position of the first level
    values = 2 * 3 + ALIVE * config.analysis[0] / scale**2
    fixed = FIRST_RUN + FIRST_RUN_WEIGHTS * dtype.itemsize
    return fixed + round((ENCODING_BYTES + values * dtype.itemsize) * height * width)


def check_encoding(
    config: ModelConfig, device: torch.device, dtype: torch.dtype, width: int, height: int, *,
    transparent: bool, keeps_y: bool,
) -> None:  # fmt: skip
    """`DeviceError` where a picture of so many pixels can't be encoded; `keeps_y` says that y of all of it is kept."""
    window = (min(size, TILE + 2 * HALO) for size in (height, width))
    kept = width * height // CELL**2 * config.y_channels * dtype.itemsize if keeps_y else 0
    packing = 2 * width * height * transparent  # of alpha, before the first tile
    free, needed = available(device), max(encoding_bytes(config, dtype, *window) + kept, packing)
    if free is not None and needed > free:
        raise DeviceError(
            f"encoding {width}x{height} pixels with {config.name} takes {gigabytes(needed)} beside the picture; "
            f"{device} has {gigabytes(free)} free: fewer workers at once, or a machine or container with more memory"
        )


def check(config: ModelConfig, device: torch.device, dtype: torch.dtype, height: int, width: int) -> None:
    """`DeviceError` where a window of so many pixels does not fit; it names a tile that would, if one does."""
    free, needed = available(device), decoding_bytes(config, dtype, height, width)
    if free is None or needed <= free:
        return
    fitting = [tile for tile in TILES if decoding_bytes(config, dtype, tile + 2 * HALO, tile + 2 * HALO) <= free]
    advice = f"tile={fitting[0]} (--tile {fitting[0]}) would fit" if fitting else "no tile would fit"
    raise DeviceError(
        f"decoding {width}x{height} pixels at once with {config.name} takes {gigabytes(needed)} or more beside the "
        f"weights; {device} has {gigabytes(free)} free: {advice}"
    )


def check_weights(size: int, device: torch.device, dtype: torch.dtype, name: str, *, drawn_first: bool = False) -> None:
    """`DeviceError` where weights of `size` bytes in 16 bits fit no memory: the machine's, as they are read and
    prepared, then the device's in `dtype`. `drawn_first`: the model is built with weights of its own before.
    """
    read = size * (READ + DRAWN * drawn_first)
    for place, needed in ((torch.device("cpu"), read), (device, size // 2 * dtype.itemsize)):
        free = available(place)
        if free is not None and needed > free:
            raise DeviceError(f"the weights of {name} take {gigabytes(needed)}; {place} has {gigabytes(free)} free")


def available(device: torch.device) -> int | None:
    """Bytes that can be taken on the device; None where nothing tells."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
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
        from .. import _native

        # Where it is emulated it is slow: convolutions ran at 16 GFLOP/s against 112 in float32 (two Zen 3 cores).
        return bool(_native.cpu()["bfloat16"])
    return False
