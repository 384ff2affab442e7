"""Transparency: colour under it, what it costs, and how it is put onto a colour."""

from __future__ import annotations

import zlib

import numpy as np
from PIL import ImageColor

from ..errors import UnsupportedPictureError

LEVELS = 32  # of lossy alpha
WORTH = 0.85  # of its bytes without loss: more, and lossy alpha is not worth its steps
MAX_ERROR = 4  # of lossy alpha, in 255ths; 0 and 255 stay exact
BAND = 1024  # rows that are filled at once: bounds memory
MODES = ("lossy", "lossless")


def lossy(alpha: np.ndarray) -> np.ndarray:
    """`alpha` (H, W) uint8 at 32 levels where that pays, off by at most `MAX_ERROR`; 0 and 255 stay exact.

    It pays for noise: of 256x256 pixels with noise of +-30, 54.6 KB become 40.5. A smooth edge deflates well as it is
    (6.2 KB, and 5.4 at 32 levels, which one would see as steps), so it stays exact.
    """
    levels = np.round(np.arange(256) * ((LEVELS - 1) / 255))
    table = np.round(levels * (255 / (LEVELS - 1))).astype(np.uint8)
    table[1 : MAX_ERROR + 1], table[255 - MAX_ERROR : 255] = MAX_ERROR, 255 - MAX_ERROR
    coarse = table[alpha]
    return coarse if _estimated_bytes(coarse) < WORTH * _estimated_bytes(alpha) else alpha


def _estimated_bytes(alpha: np.ndarray) -> int:
    deflate, size = zlib.compressobj(1), 0
    for top in range(0, len(alpha), BAND):
        above = alpha[max(0, top - 1) : max(1, top)]
        size += len(deflate.compress(np.diff(alpha[top : top + BAND], axis=0, prepend=above).tobytes()))
    return size + len(deflate.flush())


def fill_transparent(rgb: np.ndarray, alpha: np.ndarray, *, in_place: bool = False) -> np.ndarray:
    """`rgb` (H, W, 3) whose pixels under alpha 0 have the mean colour of their visible surroundings.

    Their own colour is never seen, but a codec's filters reach across the edge: black there leaves a dark ring. The
    surroundings are doubled until all is filled (push and pull; Gortler et al., SIGGRAPH 1996, section 3.4).
    """
    if alpha.min() > 0 or alpha.max() == 0:
        return rgb
    rgb = rgb if in_place else np.array(rgb)
    for top in range(0, len(rgb), BAND):
        band = slice(top, top + BAND)
        hidden = alpha[band] == 0
        if hidden.all():
            rgb[band] = 128
        elif hidden.any():
            rgb[band] = _filled(rgb[band], ~hidden)
    return rgb


def _filled(rgb: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3): where `seen` is False, a mean of what is seen around."""
    height, width = seen.shape
    if seen.all() or max(height, width) == 1:
        return rgb
    pad = ((0, height % 2), (0, width % 2))
    weight = _sum_of_four(np.pad(seen, pad))
    colour = _sum_of_four(np.pad(rgb * seen[..., None], (*pad, (0, 0))))
    coarse = (colour // np.maximum(weight, 1)[..., None]).astype(np.uint8)
    coarse = _filled(coarse, weight > 0).repeat(2, 0).repeat(2, 1)[:height, :width]
    return np.where(seen[..., None], rgb, coarse)


def _sum_of_four(planes: np.ndarray) -> np.ndarray:
    """uint16: sums of 2x2 blocks of an array of even height and width."""
    rows = np.add(planes[::2], planes[1::2], dtype=np.uint16)
    return rows[:, ::2] + rows[:, 1::2]


def flattened(rgb: np.ndarray, alpha: np.ndarray, colour: str) -> np.ndarray:
    """`rgb` (H, W, 3) over a colour, "white" or "#rrggbb". `UnsupportedPictureError` if it is unknown."""
    try:
        behind = np.array(ImageColor.getrgb(colour)[:3], np.uint16)
    except (ValueError, AttributeError):
        raise UnsupportedPictureError(f"flatten must be a colour, as white or #ffffff (got {colour!r})") from None
    out = np.empty(rgb.shape, np.uint8)
    for top in range(0, len(rgb), BAND):
        band = slice(top, top + BAND)
        share = alpha[band, :, None].astype(np.uint16)
        out[band] = (rgb[band] * share + behind * (255 - share) + 127) // 255
    return out
