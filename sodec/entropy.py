"""Entropy coding of integers: the NumPy face of the native rANS coder. Imports no torch.

A payload holds one or more sections. A section is an array of symbols (int16, -32767..32767), an array of the same
shape that gives the number of each symbol's frequency table (uint8; `SKIP` means that the symbol is 0 and is not
coded at all), and the `Tables`. The reader knows indexes and tables beforehand; the payload holds neither, nor how
many symbols there are. FORMAT.md defines every byte.

    data = encode(symbols, indexes, tables)
    symbols = decode(data, indexes, tables)

Sections share one coder state. So where the second one's indexes follow from the first one's symbols, a `Decoder`
reads them one after the other, and the second costs no overhead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from . import _native
from ._native import Tables
from .errors import InvalidTableError

__all__ = [
    "SKIP", "Decoder", "Tables", "decode", "encode", "encode_sections", "gaussian_tables", "laplace_tables",
    "payload_info", "tables_from_probabilities",
]  # fmt: skip

SKIP = 255
MAX_VALUE = 32767
MAX_PRECISION = 16
# Bits of a table's total. Fewer cost where symbols are rare: 14 take 0.55 % over the entropy at 1.4 KB of 0.028 bit per
# symbol, 15 take 0.41 %, 16 take 0.34 %. More leave a state that is kept above 2^16 too coarse: 16 take 0.16-0.18 % at
# 0.25-1.4 bit per symbol, 15 take 0.05-0.10 %, 14 take 0.02-0.07 %.
PRECISION = 15
MAX_SYMBOLS = 4097  # of one table, the escape included

_Scalar = TypeVar("_Scalar", bound=np.generic)
Section = tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8], Tables]


def encode(symbols: npt.NDArray[np.int16], indexes: npt.NDArray[np.uint8], tables: Tables, *, lanes: int = 0) -> bytes:
    """The payload of one section.

    Parameters
    ----------
    symbols
        int16 of any shape; values -32767..32767, and 0 where `indexes` is `SKIP`. Coded in C order.
    indexes
        uint8 of the same shape: the table of each symbol, or `SKIP`.
    lanes
        Coder states side by side: a power of two up to 64, or 0 for the most that the payload's size affords. The
        choice depends on the input alone, so every machine writes the same bytes.

    Raises
    ------
    InvalidTableError
        An index has no table.
    TypeError, ValueError
        Another dtype, shapes that differ, a symbol that can't be coded, or such a number of lanes.
    """
    return encode_sections([(symbols, indexes, tables)], lanes=lanes)


def encode_sections(sections: Sequence[Section], *, lanes: int = 0) -> bytes:
    """The payload of several (symbols, indexes, tables), to be read in this order; see `encode`.

    All tables must have the same precision; `InvalidTableError` otherwise.
    """
    checked = []
    for number, (symbols, indexes, tables) in enumerate(sections):
        where = f"section {number}: " if len(sections) > 1 else ""
        symbols = _array(symbols, np.int16, f"{where}symbols")
        indexes = _array(indexes, np.uint8, f"{where}indexes")
        if symbols.shape != indexes.shape:
            raise ValueError(f"{where}symbols have the shape {symbols.shape}, indexes {indexes.shape}")
        checked.append((symbols, indexes, _tables(tables)))
    return _native.encode(checked, lanes)


def decode(
    data: bytes | bytearray | memoryview, indexes: npt.NDArray[np.uint8], tables: Tables
) -> npt.NDArray[np.int16]:
    """The symbols (int16, the shape of `indexes`) of a payload of one section.

    Raises
    ------
    CorruptStreamError
        The bytes are not the whole payload of such a section.
    InvalidTableError
        An index has no table.
    """
    decoder = Decoder(data)
    symbols = decoder.read(indexes, tables)
    decoder.finish()
    return symbols


class Decoder:
    """Reads the sections of one payload in order. Other threads run meanwhile; the bytes are not copied.

    Raises
    ------
    CorruptStreamError
        The first bytes are not those of a payload.
    """

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._native = _native.Decoder(data)

    def read(self, indexes: npt.NDArray[np.uint8], tables: Tables) -> npt.NDArray[np.int16]:
        """The symbols (int16) of the next section, in the shape of `indexes` (uint8).

        Raises `CorruptStreamError` or `InvalidTableError` as `decode` does; nothing can be read after either.
        """
        return self._native.read(_array(indexes, np.uint8, "indexes"), _tables(tables))

    def finish(self) -> None:
        """Raises `CorruptStreamError` unless all was read: bytes are left, or a state is not the initial one."""
        self._native.finish()

    @property
    def cpu(self) -> str:
        """The instruction set in use: the processor's best, or the one that SODEC_CPU named when this was made."""
        return self._native.cpu

    @property
    def position(self) -> int:
        """Bytes consumed so far; those that `payload_info` counts are from the start."""
        return self._native.position


def payload_info(data: bytes | bytearray | memoryview) -> tuple[int, int, int]:
    """Lanes, precision in bits, and how many bytes the header byte and the lane states take together.

    Raises `CorruptStreamError` where the first bytes are not those of a payload.
    """
    return _native.payload_info(data)


def gaussian_tables(scales: Sequence[float], *, precision: int = PRECISION, tail: float | None = None) -> Tables:
    """Tables of rounded zero-mean Gaussians, one per standard deviation.

    Each table reaches to the smallest m for which no more than `tail` (2^-precision unless given) lies beyond
    -m..m, within the coder's limit of 4096 values; what lies beyond is the escape's. Different mathematics libraries
    may differ in a last bit, so tables are made once and stored with the weights.

    Raises
    ------
    ValueError
        A scale is not a positive number.
    InvalidTableError
        The precision is not 1..16, or there are no scales or more than 255.
    """
    return _symmetric_tables(scales, lambda x: math.erfc(x / math.sqrt(2)), precision, tail)


def laplace_tables(scales: Sequence[float], *, precision: int = PRECISION, tail: float | None = None) -> Tables:
    """Tables of rounded zero-mean Laplace distributions, one per standard deviation; otherwise as `gaussian_tables`."""
    return _symmetric_tables(scales, lambda x: math.exp(-x * math.sqrt(2)), precision, tail)


def _symmetric_tables(
    scales: Sequence[float], beyond: Callable[[float], float], precision: int, tail: float | None
) -> Tables:
    """Of a distribution of unit variance, `beyond(x)` being the probability of more than x to either side."""
    if tail is None:
        tail = 2.0**-precision
    limit = min((MAX_SYMBOLS - 2) // 2, ((1 << max(precision, 1)) - 2) // 2)
    probabilities = []
    for number, scale in enumerate(scales):
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"scale {number} is {scale}, not a positive number")
        left = [beyond((m + 0.5) / scale) for m in range(limit + 1)]  # P(|v| > m)
        reach = next((m for m in range(limit) if left[m] <= tail), limit)
        half = [(left[m - 1] - left[m]) / 2 for m in range(1, reach + 1)]
        probabilities.append(np.array([*reversed(half), 1 - left[0], *half]))
    return tables_from_probabilities(probabilities, [-(len(row) // 2) for row in probabilities], precision=precision)


def tables_from_probabilities(
    probabilities: Sequence[npt.ArrayLike], minimums: Sequence[int] | npt.ArrayLike, *, precision: int = PRECISION
) -> Tables:
    """Tables from the probabilities of consecutive integers; what a row lacks to 1 is its escape's.

    Parameters
    ----------
    probabilities
        One 1-D array per table, not negative; a sum above 1 is scaled down to 1.
    minimums
        The integer that the first probability of each row belongs to.

    Raises
    ------
    ValueError
        A row is not 1-D, is negative or not finite, or has more symbols than 2^precision.
    InvalidTableError
        A table breaks a limit of the coder: 1..255 tables, 4096 values each, -32767..32767, precision 1..16.
    """
    if not 1 <= precision <= MAX_PRECISION:
        raise InvalidTableError(f"precision is {precision}, not 1 to {MAX_PRECISION} bits")
    first = np.asarray(minimums)
    if first.shape != (len(probabilities),):
        raise ValueError(f"minimums have the shape {first.shape}, not {(len(probabilities),)}")
    if first.size and not np.issubdtype(first.dtype, np.integer):
        raise TypeError(f"minimums are {first.dtype}, not integers")
    rows = [
        np.cumsum([0, *_frequencies(np.asarray(row, dtype=np.float64), precision, f"probabilities of table {number}")])
        for number, row in enumerate(probabilities)
    ]
    offsets = np.cumsum([0, *map(len, rows)]).astype(np.int32)
    cumulative = np.concatenate(rows).astype(np.int32) if rows else np.zeros(0, np.int32)
    return Tables(cumulative, offsets, np.clip(first, -MAX_VALUE - 1, MAX_VALUE + 1).astype(np.int32), precision)


def _frequencies(row: npt.NDArray[np.float64], precision: int, what: str) -> npt.NDArray[np.int64]:
    """Positive integers that sum to 2^precision, nearest to `row` and, last, the escape.

    Each probability is rounded down, but to no less than 1. What is left goes to the largest remainders, one each;
    what is too much is taken from the largest frequencies, one at a time. The first of equals comes first.
    """
    if row.ndim != 1:
        raise ValueError(f"{what}: the shape is {row.shape}, not 1-D")
    if not (np.isfinite(row).all() and (row >= 0).all()):
        raise ValueError(f"{what}: negative or not finite")
    total = 1 << precision
    if len(row) + 1 > total:
        raise ValueError(f"{what}: {len(row)} values and the escape do not fit {precision} bits")
    mass = math.fsum(row)
    exact = np.append(row, max(0.0, 1 - mass)) / max(1.0, mass) * total
    frequencies: npt.NDArray[np.int64] = np.maximum(np.floor(exact), 1).astype(np.int64)
    left = total - int(frequencies.sum())
    if left > 0:
        frequencies[np.argsort(frequencies - exact, kind="stable")[:left]] += 1
    for _ in range(-left):
        frequencies[frequencies.argmax()] -= 1
    return frequencies


def _array(value: npt.NDArray[_Scalar], dtype: type[_Scalar], what: str) -> npt.NDArray[_Scalar]:
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{what} are a {type(value).__name__}, not a NumPy array")
    # Never cast: a symbol that wraps around would be coded without a word.
    if value.dtype != dtype:
        raise TypeError(f"{what} are {value.dtype}, not {np.dtype(dtype)}")
    return np.ascontiguousarray(value).reshape(value.shape)


def _tables(value: Tables) -> Tables:
    if not isinstance(value, Tables):
        raise TypeError(f"tables are a {type(value).__name__}, not sodec.entropy.Tables")
    return value
