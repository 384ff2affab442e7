"""One tile's integers to bytes and back: z, then y, through the scale network. NumPy and the native module only."""

from __future__ import annotations

import numpy as np

from .. import entropy
from ..entropy import SKIP
from ..errors import WeightsError
from ..weights import Coding
from .header import QUALITY_STEPS

LOWEST = 1  # quality


def row_of(quality: float) -> int:
    """The row of `Coding.offsets` that belongs to a stored quality."""
    return round((quality - LOWEST) * QUALITY_STEPS)


def scale_indexes(coding: Coding, z: np.ndarray, quality: float, height: int, width: int) -> np.ndarray:
    """Scale indexes of y, SKIP where nothing is coded: z (Cz, ceil(h/4), ceil(w/4)) int16 to (Cy, h, w) uint8."""
    return coding.scale_network.planes(z, coding.offsets[row_of(quality)], height, width, SKIP)


def encode(coding: Coding, z: np.ndarray, y: np.ndarray, indexes: np.ndarray) -> bytes:
    """The payload of one tile. z int16 (Cz, h/4, w/4), y int16 (Cy, h, w) and 0 where `indexes` are SKIP."""
    if len(z) != (wanted := sum(tables.count for tables in coding.z_tables)):
        raise WeightsError(f"z has {len(z)} channels, but there are {wanted} tables for it")
    sections, first = [], 0
    for tables in coding.z_tables:
        part = np.ascontiguousarray(z[first : first + tables.count])
        sections.append((part, _channel_numbers(*part.shape), tables))
        first += tables.count
    return entropy.encode_sections([*sections, (y, indexes, coding.y_tables)])


def decode(coding: Coding, payload: bytes, quality: float, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """z int16 (Cz, ceil(h/4), ceil(w/4)) and y's symbols int16 (Cy, h, w) of a tile of `height` x `width` cells.

    Raises `CorruptStreamError` where the payload is not one of such a tile.
    """
    decoder, z = _read_z(coding, payload, height, width)
    y = decoder.read(scale_indexes(coding, z, quality, height, width), coding.y_tables)
    decoder.finish()
    return z, y


def z_end(coding: Coding, payload: bytes, height: int, width: int) -> int:
    """Bytes of the payload that are used once z has been read."""
    return _read_z(coding, payload, height, width)[0].position


def _channel_numbers(channels: int, height: int, width: int) -> np.ndarray:
    """A z symbol's table is that of its channel: (Cz, h, w) uint8."""
    numbers = np.arange(channels, dtype=np.uint8)[:, None, None]
    return np.ascontiguousarray(np.broadcast_to(numbers, (channels, height, width)))


def _read_z(coding: Coding, payload: bytes, height: int, width: int) -> tuple[entropy.Decoder, np.ndarray]:
    decoder = entropy.Decoder(payload)
    size = (-(-height // 4), -(-width // 4))
    parts = [decoder.read(_channel_numbers(tables.count, *size), tables) for tables in coding.z_tables]
    return decoder, np.concatenate(parts) if len(parts) > 1 else parts[0]
