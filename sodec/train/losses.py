"""Rate, distortion and perception, each a function of a few lines."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models import ModelConfig

LAMBDA_LOW, LAMBDA_HIGH = 0.0002, 0.015  # weight of 255^2 MSE against bits per pixel, at qualities 1 and 100


def lambdas(quality: Tensor) -> Tensor:
    """Log-linear in quality, (B,)."""
    share = (quality - 1) / 99
    return torch.exp(math.log(LAMBDA_LOW) * (1 - share) + math.log(LAMBDA_HIGH) * share)


def gaussian_bits(residual: Tensor, index: Tensor, config: ModelConfig) -> Tensor:
    """Bits of round(residual) under the table at `index`, by the density of residual + uniform noise.

    -log2(Phi((|x| + 1/2)/s) - Phi((|x| - 1/2)/s)) per element, elements summed per picture: (B,). The noise
    stands for rounding (Balle et al., ICLR 2018). Below index 0 the table is SKIP; its scale is the bound.
    """
    low, high = 0.0, float(config.scale_count - 1)
    # outside the table the gradient passes only where it leads back
    index = index + (index.detach().clamp(low, high) - index.detach())
    scale = config.scale_min * torch.exp(config.scale_step * index)
    x = (residual + torch.rand_like(residual) - 0.5).abs()
    upper = torch.special.ndtr((0.5 - x) / scale)
    lower = torch.special.ndtr((-0.5 - x) / scale)
    return -torch.log2((upper - lower).clamp_min(1e-9)).sum((1, 2, 3))


def squared_error(x: Tensor, target: Tensor) -> Tensor:
    """255^2 MSE per picture: (B,)."""
    return ((x.float() - target) * 255).square().mean((1, 2, 3))


def structure(x: Tensor, target: Tensor, levels: int = 3) -> Tensor:
    """1 - contrast and structure of SSIM (Wang et al., 2004), averaged over a pyramid of 8x8 boxes: (B,).

    The cheap perceptual term: MSE alone blurs what this keeps, the local contrast.
    """
    total = torch.zeros(len(x), device=x.device)
    a, b = x.float(), target
    for _ in range(levels):
        mean_a, mean_b = F.avg_pool2d(a, 8, 2), F.avg_pool2d(b, 8, 2)
        var_a = F.avg_pool2d(a * a, 8, 2) - mean_a**2
        var_b = F.avg_pool2d(b * b, 8, 2) - mean_b**2
        cov = F.avg_pool2d(a * b, 8, 2) - mean_a * mean_b
        total = total + (1 - (2 * cov + 9e-4) / (var_a + var_b + 9e-4)).mean((1, 2, 3))
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return total / levels
