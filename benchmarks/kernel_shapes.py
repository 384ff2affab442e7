"""The shapes that gpu_kernels.py checks and times, their inputs, and the least work that each of them needs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
Sizes = dict[str, int]
Case = tuple[str, str, Sizes]  # kernel, where it runs, sizes

# Beside sizes: what of its arguments a kernel gets (1) and channels of noise.
TIMED: list[Case] = [
    ("skip_norm_act", "lite D_a 1/16", {"n": 8160, "c": 160, "silu": 1, "before": 1}),
    ("skip_norm_act", "lite D_a 1/4", {"n": 130560, "c": 40, "silu": 1, "before": 1}),
    ("skip_norm_act", "sd21 UNet 64x64", {"n": 4096, "c": 320}),
    ("skip_norm_act", "sd21 UNet 16x16", {"n": 256, "c": 1280}),
    ("bias_act", "lite D_m 1/4, SiLU", {"c": 64, "y": 272, "x": 480, "silu": 1}),
    ("bias_act", "lite D_m 1/4, skip", {"c": 64, "y": 272, "x": 480, "residual": 1}),
    ("bias_act", "lite D_m to 1/4", {"c": 256, "y": 136, "x": 240, "residual": 1, "doubled": 1, "noise": 4}),
    ("bias_act", "lite UNet 1/8, SiLU", {"c": 128, "y": 136, "x": 240, "silu": 1}),
    ("bias_act", "lite UNet 1/16, skip", {"c": 160, "y": 68, "x": 120, "residual": 1}),
    ("bias_act", "lite UNet to 1/8", {"c": 512, "y": 68, "x": 120, "residual": 1, "doubled": 1}),
    ("bias_act", "lite D_a 1/4, skip", {"c": 40, "y": 272, "x": 480, "residual": 1}),
    ("bias_act", "sd21 UNet 64x64, skip", {"c": 320, "y": 64, "x": 64, "residual": 1}),
    ("bias_act", "sd21 VAE 128x128", {"c": 512, "y": 128, "x": 128}),
    ("bias_act", "sd21 VAE 256x256, skip", {"c": 256, "y": 256, "x": 256, "residual": 1}),
    ("bias_act", "sd21 VAE 512x512, skip", {"c": 128, "y": 512, "x": 512, "residual": 1}),
    ("channel_norm_act", "lite D_a 1/16", {"c": 160, "y": 68, "x": 120, "silu": 1}),
    ("channel_norm_act", "lite D_a 1/8", {"c": 80, "y": 136, "x": 240, "silu": 1}),
    ("channel_norm_act", "lite D_a 1/4", {"c": 40, "y": 272, "x": 480, "silu": 1}),
    ("channel_norm_act", "sd21 D_a 32x32", {"c": 960, "y": 32, "x": 32, "relu": 1, "before": 1, "pad": 1}),
    ("channel_norm_act", "sd21 D_a 32x32, skip", {"c": 960, "y": 32, "x": 32, "before": 1, "residual": 1, "pad": 1}),
    ("channel_norm_act", "sd21 D_a 512x512", {"c": 60, "y": 512, "x": 512, "relu": 1, "before": 1, "pad": 3}),
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
]
ODD: list[Case] = [  # few, because each is a compilation; tests/test_kernels.py has more
    ("bias_act", "1x1", {"c": 3, "y": 1, "x": 1, "silu": 1}),
    ("bias_act", "9x7", {"c": 40, "y": 9, "x": 7, "residual": 1, "noise": 4}),
    ("bias_act", "25x40", {"c": 33, "y": 25, "x": 40, "silu": 1, "residual": 1}),
    ("bias_act", "9x7 doubled", {"c": 132, "y": 9, "x": 7, "doubled": 1, "silu": 1, "residual": 1, "noise": 2}),
    ("channel_norm_act", "1x1", {"c": 3, "y": 1, "x": 1, "pad": 1}),
    ("channel_norm_act", "9x7", {"c": 40, "y": 9, "x": 7, "silu": 1, "before": 1, "residual": 1}),
    ("channel_norm_act", "25x40", {"c": 961, "y": 25, "x": 40, "relu": 1, "residual": 1, "pad": 3}),
    ("guided_attention", "1x1", {"n": 1, "t": 1, "h": 2, "d": 32}),
    ("guided_attention", "63x77", {"n": 63, "t": 77, "h": 2, "d": 64}),
    ("guided_attention", "77x128", {"n": 77, "t": 128, "h": 2, "d": 128}),
    ("guided_attention", "1000x99", {"n": 1000, "t": 99, "h": 2, "d": 40}),
    ("skip_norm_act", "1", {"n": 1, "c": 3, "silu": 1}),
    ("skip_norm_act", "333", {"n": 333, "c": 132, "before": 1}),
    ("group_norm_silu", "1x1", {"c": 64, "g": 32, "y": 1, "x": 1}),
    ("group_norm_silu", "9x7", {"c": 40, "g": 4, "y": 9, "x": 7}),
    ("group_norm_silu", "25x40", {"c": 33, "g": 33, "y": 25, "x": 40, "before": 1}),
    ("group_norm_silu", "200x333", {"c": 66, "g": 2, "y": 200, "x": 333, "before": 1}),
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

    def image(channels: int, times: int = 1) -> Tensor:
        x = draw(1, channels, times * sizes["y"], times * sizes["x"])
        return x.contiguous(memory_format=torch.channels_last)

    def vector() -> Tensor:
        return draw(sizes["c"])

    if kernel == "bias_act":
        times = 2 if "doubled" in sizes else 1
        channels, noise = sizes["c"] // times**2, sizes.get("noise", 0)
        residual = image(channels, times) if "residual" in sizes else None
        noises = (image(noise, times), draw(channels, noise)) if noise else (None, None)
        return image(sizes["c"]), vector(), residual, *noises, "silu" in sizes, times == 2
    if kernel == "channel_norm_act":
        act = "silu" if "silu" in sizes else "relu" if "relu" in sizes else ""
        before, residual = (
            (vector() if "before" in sizes else None),
            (image(sizes["c"]) if "residual" in sizes else None),
        )
        return image(sizes["c"]), vector(), vector(), 1e-3, act, before, residual, sizes.get("pad", 0)
    if kernel == "geglu":
        return (draw(1, sizes["n"], 2 * sizes["c"]),)
    if kernel == "skip_norm_act":
        rows = (1, sizes["n"], sizes["c"])
        before = vector() if "before" in sizes else None
        return draw(*rows), draw(*rows), vector(), vector(), 1e-5, "silu" if "silu" in sizes else "", before
    if kernel == "group_norm_silu":
        weight, bias = draw(sizes["c"], dtype=torch.float32), draw(sizes["c"], dtype=torch.float32)
        return image(sizes["c"]), sizes["g"], weight, bias, 1e-5, True, vector() if "before" in sizes else None
    keys, values = draw(1, sizes["t"], 2, sizes["h"], sizes["d"]).unbind(2)
    return draw(1, sizes["n"], sizes["h"], sizes["d"]), keys, values


def work(kernel: str, sizes: Sizes) -> tuple[float, float]:
    """Matrix operations and least bytes moved, in bfloat16."""
    if kernel == "skip_norm_act":
        return 0, 4 * sizes["n"] * sizes["c"] * 2
    if kernel == "geglu":
        return 0, 3 * sizes["n"] * sizes["c"] * 2
    if kernel.endswith(("act", "silu")):
        size = sizes["c"] * sizes["y"] * sizes["x"]
        return 0, ((3 if "residual" in sizes else 2) * size + sizes.get("noise", 0) * 4 * sizes["y"] * sizes["x"]) * 2
    n, t, width = sizes["n"], sizes["t"], sizes["h"] * sizes["d"]
    return 4 * n * t * width, 2 * (n + t) * width * 2
