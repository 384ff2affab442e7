"""What a device can do at its best, measured: the rates that floors are made of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .clock import measure

BUDGET = 0.5  # seconds for each


@dataclass(frozen=True)
class Ceilings:
    """What the device did at its best in this run."""

    flops_per_s: float
    bytes_per_s: float


def ceilings(device: torch.device, dtype: torch.dtype, budget: float = BUDGET) -> Ceilings:
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
        product = measure(lambda: a @ b, device, budget=budget).q1_s
        convolution = measure(lambda: F.conv2d(x, kernel, padding=1), device, budget=budget).q1_s
        copy = measure(lambda: target.copy_(source), device, budget=budget).q1_s
    rates = (2 * side**3 / product, 2 * 128**2 * 9 * channels**2 / convolution)
    return Ceilings(max(rates), 2 * bytes_copied / copy)
