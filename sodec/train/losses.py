"""Rate, distortion and perception, each a function of a few lines."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models import ModelConfig
from ..models.scale_network import bounded

LAMBDA_LOW, LAMBDA_HIGH = 0.0001, 0.1  # weight of 255^2 MSE against bits per pixel, at qualities 1 and 100
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of MS-SSIM


def lambdas(quality: Tensor) -> Tensor:
    """The weight of the squared error: (B,)."""
    return log_linear(quality, LAMBDA_LOW, LAMBDA_HIGH)


def log_linear(quality: Tensor, low: float, high: float) -> Tensor:
    """From `low` at quality 1 to `high` at 100 in equal ratios: (B,)."""
    share = (quality - 1) / 99
    return torch.exp(math.log(low) * (1 - share) + math.log(high) * share)


def laplace_bits(residual: Tensor, index: Tensor, config: ModelConfig) -> Tensor:
    """Bits of round(residual) under the table at `index`, by the density of residual + uniform noise.

    -log2 of what a Laplace distribution has in x - 1/2..x + 1/2 per element, elements summed per picture: (B,). The
    noise stands for rounding (Balle et al., ICLR 2018). Below index 0 the table is SKIP; its scale is the bound.

    Laplace and not Gauss: counted over pictures, the symbols of one index are 0 in 54 of 100 cases where a Gaussian
    of the same deviation has 43 and this has 55.
    """
    index = bounded(index, 0.0, config.scale_count - 1.0)
    rate = math.sqrt(2) / (config.scale_min * torch.exp(config.scale_step * index))
    x = (residual + torch.rand_like(residual) - 0.5).abs()
    near = 1 - torch.exp(-rate / 2) * torch.cosh(rate * x.clamp_max(0.5))  # beyond 1/2 it falls as exp(-rate x)
    return (rate * (x - 0.5).clamp_min(0) - torch.log(near)).sum((1, 2, 3)) / math.log(2)


def squared_error(x: Tensor, target: Tensor) -> Tensor:
    """255^2 MSE per picture: (B,)."""
    return ((x.float() - target) * 255).square().mean((1, 2, 3))


def structure(x: Tensor, target: Tensor) -> Tensor:
    """-log MS-SSIM, with 8x8 boxes every second pixel in place of Gaussian windows: (B,).

    Five scales and their weights as Wang, Simoncelli and Bovik (2003); a picture too small for all has fewer. MSE alone
    blurs what this keeps, the local contrast.
    """
    total = torch.zeros(len(x), device=x.device)
    a, b = x.float(), target
    levels = sum(min(a.shape[-2:]) >> i >= 8 for i in range(len(SCALE_WEIGHTS)))
    for level, weight in enumerate(SCALE_WEIGHTS[:levels]):
        mean_a, mean_b = _boxes(a), _boxes(b)
        var_a, var_b = _boxes(a * a) - mean_a**2, _boxes(b * b) - mean_b**2
        cov = _boxes(a * b) - mean_a * mean_b
        likeness = (2 * cov + 9e-4) / (var_a + var_b + 9e-4)
        if level == levels - 1:
            likeness = likeness * (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
        total = total - weight * likeness.mean((1, 2, 3)).clamp_min(0.01).log()
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return total / sum(SCALE_WEIGHTS[:levels])


def _boxes(x: Tensor) -> Tensor:
    """Means of 8x8 boxes every second pixel, in two passes."""
    return F.avg_pool2d(F.avg_pool2d(x, 2), 4, 1)


def lattice(x: Tensor, target: Tensor) -> Tensor:
    """255^2 times the squared mean error of each of the 4x4 phases that the last shuffle lays side by side: (B,).

    A bias of a phase is a lattice, worth little to MSE, welcome to ST-LPIPS and ugly to the eye. The means are of
    32x32 pixels: of a whole crop, lattices of opposite signs would cancel.
    """
    error = F.pixel_unshuffle((x.float() - target) * 255, 4)
    phases = F.avg_pool2d(error, min(8, *error.shape[-2:]), 4).reshape(len(x), 3, 16, -1)
    return (phases - phases.mean(2, keepdim=True)).square().mean((1, 2, 3))


def colour(x: Tensor, target: Tensor) -> Tensor:
    """255^2 times the squared error of what differs from grey: (B,). Perceptual terms hardly see speckles of colour."""
    return _off_grey((x.float() - target) * 255).square().mean((1, 2, 3))


def tint(x: Tensor, target: Tensor) -> Tensor:
    """`colour` of the means of 16x16 pixels: (B,). A wall a little too pink is nothing to MSE, and seen at once."""
    return _off_grey(F.avg_pool2d((x.float() - target) * 255, 16)).square().mean((1, 2, 3))


def _off_grey(error: Tensor) -> Tensor:
    return error - error.mean(1, keepdim=True)


def repeats(added: Tensor, period: int = 16) -> Tensor:
    """255^2 times what blocks of period x period pixels of `added` (B, C, H, W) share, or their negatives: (B,).

    Two blocks of texture are no more alike than chance has it; those of a pattern of the pixel shuffles, from 1/16 up,
    are. ST-LPIPS takes such a mesh for detail. The mean of |covariance| over all pairs: a mesh that was looked for in
    neighbours down and across came back along the diagonals.
    """
    height, width = (size // period * period for size in added.shape[-2:])
    blocks = F.pixel_unshuffle(255 * added.float()[..., :height, :width], period)
    blocks = blocks.reshape(len(added), added.shape[1], period**2, -1)  # (B, C, pixels, blocks)
    blocks = (blocks - blocks.mean(2, keepdim=True)).flatten(1, 2)
    count = blocks.shape[-1]
    shared = (blocks.transpose(1, 2) @ blocks / blocks.shape[1]).abs()
    own = shared.diagonal(dim1=1, dim2=2).sum(1)
    return (shared.sum((1, 2)) - own) / max(1, count * (count - 1))
