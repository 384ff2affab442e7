"""The shapes that gpu_kernels.py checks and times, their inputs, and the least work that each of them needs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
Sizes = dict[str, int]
Case = tuple[str, str, Sizes]  # kernel, where it runs, sizes

TIMED: list[Case] = [
    ("guided_attention", "sd21 UNet 64x64", {"n": 4096, "t": 77, "h": 5, "d": 64}),
    ("guided_attention", "sd21 UNet 32x32", {"n": 1024, "t": 77, "h": 10, "d": 64}),
    ("guided_attention", "sd21 UNet 16x16", {"n": 256, "t": 77, "h": 20, "d": 64}),
    ("group_norm_silu", "sd21 UNet 64x64", {"c": 320, "g": 32, "y": 64, "x": 64}),
    ("group_norm_silu", "sd21 UNet 32x32", {"c": 640, "g": 32, "y": 32, "x": 32}),
    ("group_norm_silu", "sd21 UNet 16x16", {"c": 1280, "g": 32, "y": 16, "x": 16}),
    ("group_norm_silu", "sd21 VAE 128x128", {"c": 512, "g": 32, "y": 128, "x": 128}),
    ("group_norm_silu", "sd21 VAE 256x256", {"c": 256, "g": 32, "y": 256, "x": 256}),
    ("group_norm_silu", "sd21 VAE 512x512", {"c": 128, "g": 32, "y": 512, "x": 512}),
    ("geglu", "sd21 UNet 64x64", {"n": 4096, "c": 1280}),
    ("geglu", "sd21 UNet 32x32", {"n": 1024, "c": 2560}),
    ("geglu", "lite UNet 1/32", {"n": 2040, "c": 384}),
]
ODD: list[Case] = [  # few, because each is a compilation; tests/test_kernels.py has more
    ("guided_attention", "1x1", {"n": 1, "t": 1, "h": 2, "d": 32}),
    ("guided_attention", "63x77", {"n": 63, "t": 77, "h": 2, "d": 64}),
    ("guided_attention", "77x128", {"n": 77, "t": 128, "h": 2, "d": 128}),
    ("guided_attention", "1000x99", {"n": 1000, "t": 99, "h": 2, "d": 40}),
    ("group_norm_silu", "1x1", {"c": 64, "g": 32, "y": 1, "x": 1}),
    ("group_norm_silu", "9x7", {"c": 40, "g": 4, "y": 9, "x": 7}),
    ("group_norm_silu", "25x40", {"c": 33, "g": 33, "y": 25, "x": 40}),
    ("geglu", "1", {"n": 1, "c": 1}),
    ("geglu", "77", {"n": 77, "c": 130}),
    ("geglu", "1000", {"n": 1000, "c": 384}),
]


def dtypes(kernel: str) -> tuple[torch.dtype, ...]:
    """The dtypes that a kernel serves."""
    return DTYPES[1:] if kernel == "guided_attention" else DTYPES


def inputs(kernel: str, sizes: Sizes, dtype: torch.dtype, device: str) -> tuple[Any, ...]:
    """Fresh random arguments, their mean far from zero."""

    def draw(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return (torch.randn(shape, device=device) - 2.3).to(dtype)

    def image() -> Tensor:
        x = draw(1, sizes["c"], sizes["y"], sizes["x"])
        return x.contiguous(memory_format=torch.channels_last)

    if kernel == "geglu":
        return (draw(1, sizes["n"], 2 * sizes["c"]),)
    if kernel == "group_norm_silu":
        weight, bias = draw(sizes["c"], dtype=torch.float32), draw(sizes["c"], dtype=torch.float32)
        return image(), sizes["g"], weight, bias, 1e-5, True
    keys, values = draw(1, sizes["t"], 2, sizes["h"], sizes["d"]).unbind(2)
    return draw(1, sizes["n"], sizes["h"], sizes["d"]), keys, values


def work(kernel: str, sizes: Sizes) -> tuple[float, float]:
    """Matrix operations and least bytes moved, in bfloat16."""
    if kernel == "geglu":
        return 0, 3 * sizes["n"] * sizes["c"] * 2
    if kernel == "group_norm_silu":
        return 0, 2 * sizes["c"] * sizes["y"] * sizes["x"] * 2
    n, t, width = sizes["n"], sizes["t"], sizes["h"] * sizes["d"]
    return 4 * n * t * width, 2 * (n + t) * width * 2
