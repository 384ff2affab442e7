"""Estimates the memory that coding takes, whatever the engine, and refuses early where there is less.

`dtype` is that of the networks, of PyTorch or NumPy: what counts is its `itemsize`. `free` are the bytes of `place`.
"""

from __future__ import annotations

from typing import Any

from ..errors import DeviceError
from ..memory import gigabytes
from ..models import ModelConfig
from .tiles import CELL, HALO, TILE, Box

TILES = (1024, 512, 256, 128)
ALIVE = 3  # tensors at once where a part is widest: input, normalised input, output
# Encoding takes, beside the tensors of its widest level, a float32 picture and copies of it, and the coder's arrays, by
# pixels; and what the first run of the networks takes. tests/test_memory_peaks.py compares the estimate with peaks.
ENCODING_BYTES, FIRST_RUN, FIRST_RUN_WEIGHTS = 30, 20_000_000, 4_000_000
# Decoding likewise. The convolutions of `lite` hold their weights a second time, in oneDNN's order, or transformed for
# Winograd's algorithm, in 16/9 of the memory; peaks vary by 12 MB between runs.
DECODING_BYTES, DECODER_FIRST_RUN, PACKED_WEIGHTS = 22, 42_000_000, 14_000_000


def decoding_bytes(config: ModelConfig, dtype: Any, height: int, width: int) -> int:
    """What a window of so many pixels takes in the decoder beside the weights: an upper bound."""
    last = 1 if config.sizes is not None else 4  # pixels across a position of the last level
    levels = len(config.decoder)
    scales = [last * 2 ** (levels - 1 - level) for level in range(levels)]
    # A level is entered with the width of the one before it.
    entered = [config.decoder[0], *config.decoder[:-1]]
    values = ALIVE * max(wide / scale**2 for wide, scale in zip(entered, scales, strict=True))
    if config.sizes is None:  # D_a's features are kept until they have guided the others
        values += sum(wide / scale**2 for wide, scale in zip(config.fidelity, (16, 8, 4), strict=True))
    values += ALIVE * 3  # both pictures, and one of them in float32
    fixed = DECODER_FIRST_RUN + (PACKED_WEIGHTS if config.sizes is None else 0)
    return int(fixed + round((DECODING_BYTES + values * dtype.itemsize) * height * width))


def read_ahead_bytes(y_channels: int, tiles: Box, window: int) -> int:
    """What is read of the `tiles` of a picture before all of their pixels are decoded, in windows of so many rows.

    y in float32, symbols and indexes, of the tiles that reach into a row of windows or the next.
    """
    rows = min(tiles.height, 2 * window + 2 * TILE)
    return (tiles.width // CELL + 1) * (rows // CELL + 1) * y_channels * (4 + 2 + 1)


def encoding_bytes(config: ModelConfig, dtype: Any, height: int, width: int) -> int:
    """What a window of so many pixels takes in the encoder beside the weights and the picture: an upper bound."""
    scale = 4 if config.sizes is None else 1  # pixels across a position of the first level
    values = 2 * 3 + ALIVE * config.analysis[0] / scale**2
    fixed = FIRST_RUN + FIRST_RUN_WEIGHTS * dtype.itemsize
    return int(fixed + round((ENCODING_BYTES + values * dtype.itemsize) * height * width))


def check(
    config: ModelConfig, place: str, free: int | None, dtype: Any, height: int, width: int, beside: int = 0
) -> None:
    """`DeviceError` where a window of so many pixels does not fit; it names a tile that would, if one does.

    `beside` are the bytes that are taken on the same place meanwhile.
    """
    needed = decoding_bytes(config, dtype, height, width) + beside
    if free is None or needed <= free:
        return
    sides = {tile: tile + 2 * HALO for tile in TILES}
    fitting = [tile for tile, side in sides.items() if decoding_bytes(config, dtype, side, side) <= free - beside]
    advice = "no tile would fit; a region or a scale takes less, as do fewer workers at once"
    if fitting:
        advice = f"tile={fitting[0]} (--tile {fitting[0]}) would fit"
    raise DeviceError(
        f"decoding {width}x{height} pixels at once with {config.name} takes {gigabytes(needed)} beside the "
        f"weights; {place} has {gigabytes(free)} free: {advice}"
    )


def check_encoding(
    config: ModelConfig, place: str, free: int | None, dtype: Any, width: int, height: int, *,
    transparent: bool, keeps_y: bool,
) -> None:  # fmt: skip
    """`DeviceError` where a picture of so many pixels can't be encoded; `keeps_y` says that y of all of it is kept."""
    window = (min(size, TILE + 2 * HALO) for size in (height, width))
    kept = width * height // CELL**2 * config.y_channels * dtype.itemsize if keeps_y else 0
    packing = 2 * width * height * transparent  # of alpha, before the first tile
    needed = max(encoding_bytes(config, dtype, *window) + kept, packing)
    if free is not None and needed > free:
        raise DeviceError(
            f"encoding {width}x{height} pixels with {config.name} takes {gigabytes(needed)} beside the picture; "
            f"{place} has {gigabytes(free)} free: fewer workers at once, or a machine or container with more memory"
        )


def check_weights(name: str, place: str, free: int | None, needed: int) -> None:
    """`DeviceError` where the weights of the model `name` do not fit."""
    if free is not None and needed > free:
        raise DeviceError(f"the weights of {name} take {gigabytes(needed)}; {place} has {gigabytes(free)} free")
