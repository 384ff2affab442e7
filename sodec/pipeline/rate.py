"""How large a stream may be: a quality, or a size, to which quality and rounding are found by a search."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np

from ..errors import QualityError, TargetError
from ..stream.header import QUALITY_STEPS

DEFAULT_QUALITY = 50
MAX_PASSES = 8
NEAR = 0.02  # a stream this near below its limit ends the search
# Between two qualities, 1-5 % of a stream, the encoder rounds towards zero a little more: on three Kodak pictures a
# dead zone of 0.02 took 1-6 % of the bytes, for the error that a lower quality of as many bytes has.
DEADZONE = 0.02
PARTS = 8  # of a quality step
HALFWAY = 40.0 * QUALITY_STEPS  # splits the range, so that each half is nearly a line

Coded = TypeVar("Coded")


def resolve_target(quality: float | None, target_bpp: float | None, max_bytes: int | None) -> float | None:
    """The quality to code at, or None where a target is given instead.

    Raises
    ------
    QualityError, TargetError
        A value is not within its range; or more than one is given.
    """
    if [quality, target_bpp, max_bytes].count(None) < 2:
        raise TargetError("give only one of quality, target_bpp and max_bytes")
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


class Point(NamedTuple):
    """How finely a stream is coded: a quality that it can hold, and how far rounding leans towards zero below it."""

    quality: float
    deadzone: float = 0.0  # added to the half that a symbol must pass to be rounded up

    @classmethod
    def at(cls, place: float) -> Point:
        """`place` counts quality steps; a share of one is made by the dead zone of the step above."""
        step = math.ceil(place)
        return cls(step / QUALITY_STEPS, (step - place) * DEADZONE)


def largest_within(limit: int, code: Callable[[Point], Coded], size: Callable[[Coded], int], note: str = "") -> Coded:
    """What `code` makes at the finest point whose `size` is within `limit`, in at most `MAX_PASSES` calls of it.

    Ends within `NEAR` below the limit, where the sizes grow with the point and without leaps.

    Raises
    ------
    TargetError
        The lowest quality makes more than `limit`; the message says how many bytes it makes, and `note`.
    """
    low, high, passes = float(QUALITY_STEPS), 100.0 * QUALITY_STEPS, 1
    best = code(Point.at(low))
    if (smallest := size(best)) > limit:
        raise TargetError(
            f"a size of {limit} bytes can't be met: the smallest possible is {smallest} bytes, quality 1{note}"
        )
    for place in (HALFWAY, high):
        passes += 1
        coded = code(Point.at(place))
        if size(coded) > limit:
            high = place
            break
        low, best = place, coded
    else:
        return best
    # False position on the logarithm of the size, as the Pegasus algorithm does it: an end that stays twice
    # counts for less.
    aim = math.log(limit * (1 - NEAR / 2))
    below, above = math.log(size(best)) - aim, math.log(size(coded)) - aim
    moved = 0
    for _ in range(MAX_PASSES - passes):
        place = round((low + (high - low) * below / (below - above)) * PARTS) / PARTS if below < above else low
        if size(best) >= limit * (1 - NEAR) or not low < place < high:
            break
        coded = code(Point.at(place))
        distance = math.log(size(coded)) - aim
        if size(coded) > limit:
            below *= above / (above + distance) if moved == 1 else 1
            high, above, moved = place, distance, 1
        else:
            above *= below / (below + distance) if moved == -1 else 1
            low, below, best, moved = place, distance, coded, -1
    return best
