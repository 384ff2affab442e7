"""The sum with a skip, and the LayerNorm of the sum for what comes next.

    s = x + before + skip,   y = act(LayerNorm(s))

x (..., C) contiguous, overwritten by s; skip and y like x; before (C,), the bias of the convolution before, or None;
weight, bias, eps and act as in channel_norm_act.py, whose kernel it is. The sum is read from memory once less.
"""

import torch
from torch import Tensor

from . import launch, legality
from .channel_norm_act import _kernel
from .reference import skip_norm_act as reference

__all__ = ["reference", "skip_norm_act"]


@torch.library.custom_op("sodec::skip_norm_act_", mutates_args=("x",))
def in_place(
    x: Tensor, skip: Tensor, weight: Tensor, bias: Tensor, eps: float, act: str, before: Tensor | None
) -> Tensor:
    """Launches the kernel; x becomes s, and y is returned."""
    legality.require(legality.skip_norm_act(x, skip, weight, bias, before), "skip_norm_act")
    config = launch.config("skip_norm_act", x)
    out = torch.empty_like(x)
    channels = x.shape[-1]
    block_c, unit = launch.power_of_two(channels), launch.unit(channels)
    block_rows, rows = max(1, config.pop("TILE") // block_c), x.numel() // channels
    with launch.on_device_of(x):
        _kernel[(launch.blocks(rows, block_rows),)](
            x, weight, bias, before, skip, None, x, out, rows, channels // unit, rows, 1, 0, 0, 0, eps,
            UNIT=unit, PAD=0, SILU=act == "silu", RELU=act == "relu",
            BLOCK_ROWS=block_rows, BLOCK_C=block_c, **config,
        )  # fmt: skip
    return out


@in_place.register_fake
def _(x: Tensor, skip: Tensor, weight: Tensor, bias: Tensor, eps: float, act: str, before: Tensor | None) -> Tensor:
    return torch.empty_like(x)


def skip_norm_act(
    x: Tensor, skip: Tensor, weight: Tensor, bias: Tensor, eps: float, act: str = "", before: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """s, which is x, overwritten, and y."""
    return x, in_place(x, skip, weight, bias, eps, act, before)
