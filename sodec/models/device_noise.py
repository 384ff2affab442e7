"""`place_noise` by PyTorch: a GPU would wait for the noise of large pictures made by a processor (1.4 ms a tile)."""

from __future__ import annotations

import torch
from torch import Tensor

from .noise import DEVIATION

WORD = 0xFFFFFFFF  # 32-bit integers are held in 64 bits, since PyTorch shifts signed ones only


def place_noise(
    channels: int, height: int, width: int, top: int = 0, left: int = 0, *, device: torch.device | str = "cpu"
) -> Tensor:
    """`noise.place_noise` of the same arguments, (channels, height, width) float32."""
    channel = _mixed(torch.arange(channels, device=device))
    row = _mixed(channel[:, None] + torch.arange(top, top + height, device=device) & WORD)
    first = _mixed(row[:, :, None] + torch.arange(left, left + width, device=device) & WORD)
    total = _bytes(first) + _bytes(_mixed(first ^ 0x5BD1E995))
    return (total.float() - 1020) / DEVIATION


def _mixed(x: Tensor) -> Tensor:
    x = x ^ (x >> 16)
    x = x * 0x7FEB352D & WORD
    x = x ^ (x >> 15)
    x = x * 0x846CA68B & WORD
    return x ^ (x >> 16)


def _bytes(x: Tensor) -> Tensor:
    """The sum of the four bytes of each integer."""
    x = (x & 0x00FF00FF) + (x >> 8 & 0x00FF00FF)
    return (x & 0xFFFF) + (x >> 16)
