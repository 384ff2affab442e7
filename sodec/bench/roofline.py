"""How fast a stage could be: its operations and bytes against the best rates measured on this machine.

The floor is the larger of two times: operations over the rate of large products, bytes over the bandwidth of a large
copy. Bytes are the least that any program must move: weights once, inputs once, results once. Tensors between layers
are assumed to stay in caches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..models.fused import OnePassConv2d
from .clock import Ceilings
from .stages import Stage, tensors, without_kernels


@dataclass(frozen=True)
class Work:
    """The least work of a stage, and the time that it takes. Floors are None where nothing is counted."""

    flops: int  # a multiplication and an addition are two
    weight_bytes: int
    activation_bytes: int
    floor_s: float | None
    bound: str | None  # "arithmetic" or "bandwidth"


def work(stage: Stage, model: nn.Module, limits: Ceilings) -> Work:
    """The work of `stage`, counted in one run. The coder's work, which is in integers, is not counted."""
    if stage.host:
        return Work(0, 0, 0, None, None)
    results: list[Tensor] = []
    flops = count_flops(lambda: results.extend(tensors(stage.call())))
    parts = [getattr(model, part) for part in stage.parts]
    packed = (layer.weight for part in parts for layer in part.modules() if isinstance(layer, OnePassConv2d))
    weights = sum(map(_bytes, (*packed, *(value for part in parts for value in part.parameters()))))
    activations = sum(map(_bytes, (*stage.inputs, *results)))
    arithmetic, traffic = flops / limits.flops_per_s, (weights + activations) / limits.bytes_per_s
    return Work(
        flops, weights, activations, max(arithmetic, traffic), "arithmetic" if arithmetic >= traffic else "bandwidth"
    )


def count_flops(call: Callable[[], Any]) -> int:
    """Floating point operations of the convolutions, products and attentions that `call` runs."""
    counter = FlopCounterMode(display=False, custom_mapping={
        # torch has no formula for its fused attention on processors.
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        # ... nor for the convolutions of models/fused.py.
        torch.ops.mkldnn._convolution_pointwise: _convolution,
        torch.ops.sodec.winograd: _winograd,
    })  # fmt: skip
    with counter, without_kernels():
        call()
    return counter.get_total_flops()


def _attention(query: Any, key: Any, value: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    batch, heads, queries, width = query  # the shapes (B, heads, T, D)
    return 2 * int(batch * heads * queries * key[2]) * (width + value[3])


def _convolution(x: Any, *shapes: Any, out_shape: Any = None, **kwargs: Any) -> int:
    """Before the weights (O, I, k, k) comes a residual, where there is one."""
    weight = next(shape for shape in shapes if tuple(shape) != tuple(out_shape))
    return 2 * int(out_shape[0] * out_shape[2] * out_shape[3]) * int(np.prod(weight))


def _winograd(x: Any, weight: Any, bias: Any, *others: Any, out_shape: Any = None, **kwargs: Any) -> int:
    """Of the convolution that it computes, and not what it saves."""
    return 2 * 9 * int(x[1]) * int(np.prod(out_shape))


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
