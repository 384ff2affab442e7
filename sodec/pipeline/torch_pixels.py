"""Pictures as PyTorch's networks give them, to 8-bit pixels on a device: what `_native.pixels` does on a processor."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .engine import Planes

GREY = (0.299, 0.587, 0.114)  # Rec. 601


def planes_of(x: Tensor) -> Planes:
    """A picture (1, 3, H, W) in 0..1, or one folded by f and less 0.5: (1, 3 f f, H/f, W/f)."""
    fold = round((x.shape[1] // 3) ** 0.5)
    return Planes(x.view(3, fold, fold, *x.shape[-2:]), 0.0 if fold == 1 else 0.5)


def all_planes(x: Tensor, pixels: Tensor | None = None) -> list[Planes]:
    """`planes_of` of each of several such pictures (B, ...), with their `pixels` in 8 bits where those are known."""
    whole = [planes_of(x[number : number + 1]) for number in range(len(x))]
    if pixels is None:
        return whole
    return [planes._replace(rounded=own) for planes, own in zip(whole, pixels, strict=True)]


def in_8_bits(x: Tensor) -> Tensor:
    """All pixels of such pictures (B, ...), uint8 (B, H, W, 3)."""
    first = planes_of(x[:1])
    values = x.view(len(x), 3, first.fold, first.fold, *x.shape[-2:]).float() + first.offset
    pixels = (values.clamp_(0, 1) * 255).round().to(torch.uint8)
    return pixels.permute(0, 4, 2, 5, 3, 1).flatten(3, 4).flatten(1, 2)


def rounded(planes: Planes, top: int, left: int, shrink: int, grey: bool, height: int, width: int) -> Tensor:
    """What `_native.pixels` computes, on a device: uint8 (height, width, 3)."""
    fold = planes.fold
    bottom, right = top + height * shrink, left + width * shrink
    edges = [(low // fold, -(-high // fold)) for low, high in ((top, bottom), (left, right))]
    (first_row, last_row), (first_column, last_column) = edges
    values = planes.values[..., first_row:last_row, first_column:last_column].float() + planes.offset
    values = values.clamp_(0, 1).permute(0, 3, 1, 4, 2).flatten(3, 4).flatten(1, 2)
    top, left = top - first_row * fold, left - first_column * fold
    values = values[:, top : top + height * shrink, left : left + width * shrink]
    if shrink > 1:
        values = F.avg_pool2d(values, shrink)
    if grey:
        bright = sum(weight * plane for weight, plane in zip(GREY, values, strict=True))
        values = bright.clamp_(0, 1).expand(3, -1, -1)
    return (values * 255).round().to(torch.uint8).permute(1, 2, 0)
