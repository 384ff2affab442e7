"""How large a stream may be: a quality, or a size, to which the quality is found by bisection."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from .container import QUALITY_STEPS
from .errors import QualityError, TargetError

DEFAULT_QUALITY = 50
# 199 qualities and "none" are told apart by 8 comparisons.
MAX_PASSES = 8
# A stream this near below its limit ends the search: the next quality is about 1.5 % larger.
NEAR = 0.02

Coded = TypeVar("Coded")


def check_wish(quality: float | None, target_bpp: float | None, max_bytes: int | None) -> float | None:
    """The quality to code at, or None where a target is given instead.

    Raises
    ------
    QualityError, TargetError
        A value is not within its range; or more than one is given.
    """
    if [quality, target_bpp, max_bytes].count(None) < 2:
        raise TargetError("quality, target_bpp and max_bytes: only one can be given")
    if target_bpp is None and max_bytes is None:
        return checked_quality(DEFAULT_QUALITY if quality is None else quality)
    byte_limit(1, 1, target_bpp, max_bytes)
    return None


def checked_quality(quality: float) -> float:
    """`quality` rounded to what a stream can hold. `QualityError` unless it is a number from 1 to 100."""
    if isinstance(quality, bool) or not isinstance(quality, (int, float, np.number)) or not 1 <= quality <= 100:
        raise QualityError(f"quality {quality!r} is not a number from 1 to 100")
    return round(float(quality) * QUALITY_STEPS) / QUALITY_STEPS


def byte_limit(width: int, height: int, target_bpp: float | None, max_bytes: int | None) -> int:
    """The bytes that a picture may take. `TargetError` unless the target is a positive, finite number."""
    name, value = ("target_bpp", target_bpp) if max_bytes is None else ("max_bytes", max_bytes)
    kinds = (int, float, np.number) if max_bytes is None else (int, np.integer)
    if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value) or value <= 0:
        raise TargetError(f"{name} {value!r} is not a positive {'number' if max_bytes is None else 'whole number'}")
    return int(value if target_bpp is None else target_bpp * width * height / 8)


def largest_within(limit: int, code: Callable[[float], Coded], size: Callable[[Coded], int]) -> Coded:
    """What `code` makes of the highest quality whose `size` is within `limit`, in at most `MAX_PASSES` calls of it.

    Sizes are taken to grow with quality. Where they do not, the result is still within the limit.

    Raises
    ------
    TargetError
        The lowest quality makes more than `limit`; the message says how many bytes it makes.
    """
    low, high = QUALITY_STEPS - 1, 100 * QUALITY_STEPS  # in steps; `low` fits or is below every quality
    best: Coded | None = None
    smallest = 0
    while low < high:
        middle = (low + high + 1) // 2
        coded = code(middle / QUALITY_STEPS)
        smallest = size(coded)
        if smallest > limit:
            high = middle - 1
            continue
        low, best = middle, coded
        if smallest >= limit * (1 - NEAR):
            break
    if best is None:
        # Only the lowest quality can have been the last one tried.
        raise TargetError(f"a size of {limit} bytes can't be met: the smallest possible is {smallest} bytes, quality 1")
    return best
