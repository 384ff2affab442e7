"""What stands in for the features of a lost tile: the edges of its neighbours, each weighing less with its distance.

Features and not pixels are filled, so that synthesis joins the tile to its neighbours as it joins any other.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

# What is next to a tile: steps down and right in the grid, and the row or column of the neighbour that touches it.
SIDES = {"top": (-1, 0), "bottom": (1, 0), "left": (0, -1), "right": (0, 1)}


def fill(height: int, width: int, neighbours: Mapping[str, Tensor]) -> Tensor:
    """(1, C, height, width) from at least one neighbour, (1, C, h, w) by the side of `SIDES` that it lies on."""
    rows = torch.arange(1, height + 1, dtype=torch.float32)[:, None].expand(height, width)
    columns = torch.arange(1, width + 1, dtype=torch.float32)[None].expand(height, width)
    distance = {"top": rows, "bottom": height + 1 - rows, "left": columns, "right": width + 1 - columns}
    edge = {"top": (slice(-1, None), slice(None)), "bottom": (slice(0, 1), slice(None)),
            "left": (slice(None), slice(-1, None)), "right": (slice(None), slice(0, 1))}  # fmt: skip
    total = weights = torch.zeros(())
    for side, tensor in neighbours.items():
        down, across = edge[side]
        weight = (1 / distance[side]).to(tensor.device)
        total = total.to(tensor.device) + weight * tensor[..., down, across].float()
        weights = weights.to(tensor.device) + weight
    return (total / weights).to(next(iter(neighbours.values())).dtype)
