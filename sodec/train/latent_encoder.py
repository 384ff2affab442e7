"""E_m: the encoder half of the latent autoencoder. It gives training its target latents and is never shipped."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..models import ModelConfig
from ..models.blocks import ResBlock, conv


class LatentEncoder(nn.Module):
    """Picture (B, 3, H, W) in 0..1 to the clean latent l_0 (B, Cl, H/16, W/16), about unit variance."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv(48, 64), ResBlock(64), conv(64, 128, 3, 2), ResBlock(128), conv(128, 128, 3, 2), ResBlock(128),
            nn.SiLU(), conv(128, config.latent),
        )  # fmt: skip

    def forward(self, picture: Tensor) -> Tensor:
        return self.layers(F.pixel_unshuffle(picture - 0.5, 4))
