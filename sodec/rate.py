"""A size in bytes to a quality: bisection over the qualities that a stream can hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from .container import QUALITY_STEPS
from .errors import TargetError

# 199 qualities and "none" are told apart by 8 comparisons.
MAX_PASSES = 8
# A stream this near below its limit ends the search: the next quality is about 1.5 % larger.
NEAR = 0.02

Coded = TypeVar("Coded")


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
