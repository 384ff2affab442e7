"""Rate, distortion and perception: each term is a pure function of tensors."""

from __future__ import annotations

import math
from collections.abc import Callable

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

    Per element, -log2 of the mass that a Laplace distribution has in x - 1/2..x + 1/2; summed over the elements of a
    picture: (B,). The noise stands for rounding (Balle et al., ICLR 2018). Index 0 is SKIP, which is not coded; indexes
    below it count as 0.

    Laplace and not Gauss: over pictures, 54 % of the symbols of one index are 0. A Laplace distribution of the same
    standard deviation gives 55 %, a Gaussian 43 %.
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

    Five scales with the weights of Wang, Simoncelli and Bovik (2003); fewer where the picture is too small. It keeps
    local contrast, which MSE alone blurs.
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
    """255^2 times the squared mean error of each of the 4x4 phases of the last pixel shuffle: (B,).

    A bias of one phase is a visible lattice. MSE hardly sees it, and ST-LPIPS even prefers it. The means are over 32x32
    pixels, because over a whole crop lattices of opposite signs would cancel.
    """
    error = F.pixel_unshuffle((x.float() - target) * 255, 4)
    phases = F.avg_pool2d(error, min(8, *error.shape[-2:]), 4).reshape(len(x), 3, 16, -1)
    return (phases - phases.mean(2, keepdim=True)).square().mean((1, 2, 3))


def colour(x: Tensor, target: Tensor) -> Tensor:
    """255^2 times the squared error of chroma, without the mean of R, G and B: (B,).

    Perceptual terms hardly see coloured speckles.
    """
    return _off_grey((x.float() - target) * 255).square().mean((1, 2, 3))


def tint(x: Tensor, target: Tensor) -> Tensor:
    """`colour` of the means of 16x16 pixels: (B,). MSE hardly sees a wall that is a little too pink; the eye does."""
    return _off_grey(F.avg_pool2d((x.float() - target) * 255, 16)).square().mean((1, 2, 3))


def _off_grey(error: Tensor) -> Tensor:
    return error - error.mean(1, keepdim=True)


def repeats(added: Tensor, period: int = 16) -> Tensor:
    """255^2 times the mean |covariance| between blocks of period x period pixels of `added` (B, C, H, W): (B,).

    Blocks of texture correlate only by chance; blocks of a mesh, which pixel shuffles from 1/16 upwards leave, all
    correlate. ST-LPIPS takes such a mesh for detail. All pairs count: when only vertical and horizontal neighbours did,
    the mesh came back along the diagonals.
    """
    height, width = (size // period * period for size in added.shape[-2:])
    blocks = F.pixel_unshuffle(255 * added.float()[..., :height, :width], period)
    blocks = blocks.reshape(len(added), added.shape[1], period**2, -1)  # (B, C, pixels, blocks)
    blocks = (blocks - blocks.mean(2, keepdim=True)).flatten(1, 2)
    count = blocks.shape[-1]
    shared = (blocks.transpose(1, 2) @ blocks / blocks.shape[1]).abs()
    own = shared.diagonal(dim1=1, dim2=2).sum(1)
    return (shared.sum((1, 2)) - own) / max(1, count * (count - 1))


def make_perceptual(
    crops: int = 4, size: int = 96, device: torch.device | str = "cpu"
) -> Callable[[Tensor, Tensor], Tensor]:
    """The learned perceptual term: shift-tolerant LPIPS (Ghildyal and Liu, ECCV 2022) with VGG features.

    It returns a function of two batches (B, 3, H, W) in 0..1 that compares a part of at most size x size pixels of the
    first `crops` pictures, moved at random: (crops,). Few and small on a CPU, where one evaluation costs as much as the
    rest of a step. The variant with AlexNet judges results and is never trained on.
    """
    from stlpips_pytorch import stlpips

    network = stlpips.LPIPS(net="vgg", variant="shift_tolerant", verbose=False).eval().requires_grad_(False)
    network = network.to(device).to(memory_format=torch.channels_last)

    def distance(x: Tensor, target: Tensor) -> Tensor:
        a, b = moved_alike(x[:crops], target[:crops], size)
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            return network(a * 2 - 1, b * 2 - 1).float().flatten()

    return distance


def moved_alike(x: Tensor, target: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The same random part of both (B, 3, H, W), enlarged 0.9 to 1.33 times, half of them flipped: side at most `size`.

    A metric of features has blind spots that a decoder finds, as hatching; they lie elsewhere once pictures are moved
    (E-LPIPS, Kettunen et al., 2019). The moves are drawn on the pictures' device.
    """
    count, side = len(x), min(size, *x.shape[-2:])
    draw = torch.rand(4, count, device=x.device)
    scales = [(0.75 + 0.35 * draw[0]) * side / whole for whole in (x.shape[-1], x.shape[-2])]
    flip = torch.where(draw[1] < 0.5, -1.0, 1.0)
    shifts = [(2 * draw[i] - 1) * (1 - scale).clamp_min(0) for i, scale in zip((2, 3), scales, strict=True)]
    zero = torch.zeros_like(flip)
    rows = [torch.stack([scales[0] * flip, zero, shifts[0]], 1), torch.stack([zero, scales[1], shifts[1]], 1)]
    with torch.autocast(x.device.type, enabled=False):
        grid = F.affine_grid(torch.stack(rows, 1), [count, 3, side, side], align_corners=False)
        both = torch.cat([x.float(), target.float()], 1)
        both = F.grid_sample(both, grid, padding_mode="reflection", align_corners=False)
    return both[:, :3], both[:, 3:]
