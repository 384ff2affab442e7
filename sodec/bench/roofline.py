"""How fast a stage could be: its arithmetic and its least traffic against what this machine was measured to do.

The floor is the larger of two times: operations over the rate of large products, bytes over the bandwidth of a large
copy. Bytes are the least that any program must move: weights once, inputs once, results once; what stays between the
layers is taken to stay in caches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from .clock import measure
from .stages import Stage, tensors

BUDGET = 0.5  # seconds for each ceiling


@dataclass(frozen=True)
class Ceilings:
    """What the device did at its best in this run."""

    flops_per_s: float
    bytes_per_s: float


@dataclass(frozen=True)
class Work:
    """What a stage must do at least, and the time that this takes. Floors are None where nothing is counted."""

    flops: int  # a multiplication and an addition are two
    weight_bytes: int
    activation_bytes: int
    floor_s: float | None
    bound: str | None  # "arithmetic" or "bandwidth"


def ceilings(device: torch.device, dtype: torch.dtype) -> Ceilings:
    """Best rate of a large matrix product and a wide convolution, and bandwidth of a large copy (read and written)."""
    side, channels, bytes_copied = (8192, 256, 2**30) if device.type == "cuda" else (1536, 128, 2**27)
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    x = torch.randn(1, channels, 128, 128, device=device).to(dtype).contiguous(memory_format=torch.channels_last)
    kernel = (
        torch.randn(channels, channels, 3, 3, device=device).to(dtype).contiguous(memory_format=torch.channels_last)
    )
    source = torch.ones(bytes_copied, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    with torch.inference_mode():
        product = measure(lambda: a @ b, device, budget=BUDGET).q1_s
        convolution = measure(lambda: F.conv2d(x, kernel, padding=1), device, budget=BUDGET).q1_s
        copy = measure(lambda: target.copy_(source), device, budget=BUDGET).q1_s
    rates = (2 * side**3 / product, 2 * 128**2 * 9 * channels**2 / convolution)
    return Ceilings(max(rates), 2 * bytes_copied / copy)


def work(stage: Stage, model: nn.Module, limits: Ceilings) -> Work:
    """What `stage` must do, counted on one run of it. The coder's work is integers, which are not counted."""
    if stage.host:
        return Work(0, 0, 0, None, None)
    found: list[Tensor] = []
    flops = count_flops(lambda: found.extend(tensors(stage.call())))
    weights = sum(_bytes(value) for part in stage.parts for value in getattr(model, part).parameters())
    activations = sum(map(_bytes, (*stage.inputs, *found)))
    arithmetic, traffic = flops / limits.flops_per_s, (weights + activations) / limits.bytes_per_s
    return Work(
        flops, weights, activations, max(arithmetic, traffic), "arithmetic" if arithmetic >= traffic else "bandwidth"
    )


def count_flops(call: Callable[[], Any]) -> int:
    """Floating point operations of the convolutions, products and attentions that `call` runs."""
    counter = FlopCounterMode(display=False, custom_mapping={
        # torch has no formula for its fused attention on processors.
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    })  # fmt: skip
    with counter:
        call()
    return counter.get_total_flops()


def _attention(query: Any, key: Any, value: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    batch, heads, queries, width = query  # the shapes (B, heads, T, D)
    return 2 * int(batch * heads * queries * key[2]) * (width + value[3])


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
