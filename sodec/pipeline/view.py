"""View: which part of a picture is wanted, how large, and how faithful. Checked once, before anything is decoded."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ViewError
from .tiles import Box

MODES = ("full", "fidelity")
SCALES = (1, 2, 4, 8)  # the divisors

Region = tuple[int, int, int, int]  # x, y, width, height


@dataclass(frozen=True)
class View:
    """Made by `checked_view`."""

    region: Region | None = None
    shrink: int = 1  # sides are divided by it
    fidelity: float = 0.0  # the share of the fidelity decoder's picture
    noise: float = 1.0  # how loud the decoder's noise is

    def box(self, width: int, height: int) -> Box:
        """The pixels wanted of a picture of this size, grown to whole pixels of the result.

        Raises `ViewError` where the region is not within the picture.
        """
        if self.region is None:
            return Box(0, 0, self.out(width) * self.shrink, self.out(height) * self.shrink)
        x, y, w, h = self.region
        if x < 0 or y < 0 or w < 1 or h < 1 or x + w > width or y + h > height:
            raise ViewError(f"region {x},{y},{w},{h} is not within the picture of {width}x{height}")
        s = self.shrink
        return Box(x // s * s, y // s * s, self.out(x + w) * s, self.out(y + h) * s)

    def out(self, size: int) -> int:
        """Pixels of the result that `size` pixels take: what is not whole counts as one."""
        return -(-size // self.shrink)


def checked_view(
    mode: str = "full", fidelity: float | None = None, region: Sequence[int] | None = None, scale: float = 1,
    noise: float = 1,
) -> View:  # fmt: skip
    """The view that these arguments of `Codec.decompress` ask for.

    Raises
    ------
    ViewError
        A value that is not allowed, with the value.
    """
    if mode not in MODES:
        raise ViewError(f"mode must be one of {', '.join(MODES)} (got {mode!r})")
    if fidelity is not None:
        if mode != "full":
            raise ViewError(f"mode {mode!r} already is fidelity 1; fidelity {fidelity!r} goes with mode 'full'")
        _check_share("fidelity", fidelity)
    _check_share("noise", noise)
    shrink = next((s for s in SCALES if scale == 1 / s), None)
    if shrink is None:
        raise ViewError(f"scale must be one of 1, 1/2, 1/4, 1/8 (got {scale!r})")
    share = 1.0 if mode == "fidelity" or shrink > 1 else float(fidelity or 0)
    return View(None if region is None else _checked_region(region), shrink, share, float(noise))


def _check_share(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ViewError(f"{name} must be a number from 0 to 1 (got {value!r})")


def _checked_region(region: Sequence[int]) -> Region:
    try:
        x, y, w, h = map(operator.index, region)
    except (TypeError, ValueError):
        raise ViewError(f"region {region!r} is not four whole numbers (x, y, width, height)") from None
    return x, y, w, h
