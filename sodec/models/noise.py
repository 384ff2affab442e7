"""The noise that a decoder adds: a function of the place in the whole picture alone, in integers.

Every machine, device, tile, region and thread count gets the same, so that a stream decodes to one picture, a region to
its crop, and tiles to each other. Without noise a convolutional decoder can only fill flat areas with what repeats.
FORMAT.md, section 8.1, defines it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

PIXELS = 4  # of the picture, across one value of noise
DEVIATION = (8 * (256**2 - 1) / 12) ** 0.5  # of the sum of eight bytes
FACTORS = 0x7FEB352D, 0x846CA68B  # of "lowbias32"
SECOND = 0x5BD1E995  # makes the second four bytes of the first four
EVEN_BYTES = np.uint32(0x00FF00FF)
WORD = 0xFFFFFFFF


def place_noise(channels: int, height: int, width: int, top: int = 0, left: int = 0) -> np.ndarray:
    """Noise of mean 0 and deviation 1, close to Gaussian: (channels, height, width) float32.

    The value at a place is the sum of eight bytes, hashed from channel, row and column, less its mean, over its
    deviation.

    Parameters
    ----------
    channels, height, width
        Values that are wanted.
    top, left
        Row and column of the first one in the noise of the whole picture.
    """
    channel = _mixed(np.arange(channels, dtype=np.uint32))
    row = _mixed(channel[:, None] + np.arange(top, top + height, dtype=np.uint32))
    first = _mixed(row[:, :, None] + np.arange(left, left + width, dtype=np.uint32))
    second = _mixed(first ^ np.uint32(SECOND))
    total = _byte_pairs(first)
    total += _byte_pairs(second)
    total = (total & np.uint32(0xFFFF)) + (total >> np.uint32(16))
    return (total.astype(np.float32) - np.float32(1020)) / np.float32(DEVIATION)


def _mixed(x: np.ndarray) -> np.ndarray:
    """A bijection of 32-bit integers whose results look random: "lowbias32" of Wellons (2018), modulo 2^32."""
    x = x ^ (x >> np.uint32(16))
    x *= np.uint32(FACTORS[0])
    x ^= x >> np.uint32(15)
    x *= np.uint32(FACTORS[1])
    x ^= x >> np.uint32(16)
    return x


def _byte_pairs(x: np.ndarray) -> np.ndarray:
    """The four bytes of each integer, two sums of two side by side in 16 bits each."""
    return (x & EVEN_BYTES) + ((x >> np.uint32(8)) & EVEN_BYTES)


def place_noise_on(
    device: torch.device | str, channels: int, height: int, width: int, top: int = 0, left: int = 0
) -> torch.Tensor:
    """`place_noise` of the same arguments, to the last bit, computed by PyTorch on a device.

    A GPU would wait 1.4 ms a tile for the noise of large pictures if the processor computed it.
    """
    import torch

    # 32-bit integers are held in 64 bits, since PyTorch shifts signed ones only.
    channel = _mixed_words(torch.arange(channels, device=device))
    row = _mixed_words(channel[:, None] + torch.arange(top, top + height, device=device) & WORD)
    first = _mixed_words(row[:, :, None] + torch.arange(left, left + width, device=device) & WORD)
    total = _sum_of_bytes(first) + _sum_of_bytes(_mixed_words(first ^ SECOND))
    return (total.float() - 1020) / DEVIATION


def _mixed_words(x: torch.Tensor) -> torch.Tensor:
    x = x ^ (x >> 16)
    x = x * FACTORS[0] & WORD
    x = x ^ (x >> 15)
    x = x * FACTORS[1] & WORD
    return x ^ (x >> 16)


def _sum_of_bytes(x: torch.Tensor) -> torch.Tensor:
    x = (x & 0x00FF00FF) + (x >> 8 & 0x00FF00FF)
    return (x & 0xFFFF) + (x >> 16)
