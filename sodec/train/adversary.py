"""The critic of the adversarial finish: patches of a picture, given the latent that it was decoded from.

Conditional patch discriminator with the non-saturating loss, as HiFiC (Mentzer et al., NeurIPS 2020).
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

CONDITION = 12  # channels that the latent is reduced to before it is laid over the picture


class Critic(nn.Module):
    """Pictures (B, 3, H, W) and y_hat (B, Cy, H/16, W/16) to logits (B, 1, H/16, W/16): real above 0."""

    def __init__(self, y_channels: int, width: int = 48) -> None:
        super().__init__()
        self.condition = nn.Conv2d(y_channels, CONDITION, 3, padding=1)
        widths = [3 + CONDITION, width, 2 * width, 4 * width, 4 * width]
        self.layers = nn.ModuleList(spectral_norm(nn.Conv2d(a, b, 4, 2, 1)) for a, b in itertools.pairwise(widths))
        self.leave = spectral_norm(nn.Conv2d(widths[-1], 1, 1))

    def forward(self, x: Tensor, y_hat: Tensor) -> Tensor:
        known = F.interpolate(F.leaky_relu(self.condition(y_hat), 0.2), scale_factor=16, mode="nearest")
        x = torch.cat([2 * x - 1, known.to(x.dtype)], 1)
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
        return self.leave(x)


def generator_loss(logits: Tensor) -> Tensor:
    """-log D of decoded pictures, averaged."""
    return F.softplus(-logits.float()).mean()


def critic_loss(real: Tensor, decoded: Tensor) -> Tensor:
    """-log D of originals - log(1 - D) of decoded pictures, averaged."""
    return F.softplus(-real.float()).mean() + F.softplus(decoded.float()).mean()
