"""The one-step denoiser: a UNet of three levels (1/16, 1/32, 1/64) with guided attention at the lower two."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import CrossAttention, Origin, ResBlock, Upsample, conv, conv_in_float32, over_channels, positions, steady
from .coding import pad_to
from .config import ModelConfig

TIME_WIDTH = 128


class UNet(nn.Module):
    """Noise in l_t: latent (B, Cl, h, w), timestep (B,), tokens (B, T, D) to eps (B, Cl, h, w) in float32.

    Once the time embedding is folded into biases the timestep is not looked at. `token_kv` computes keys and values
    of all blocks at once where they are packed.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        a, b, c = config.unet
        self.token_kv: nn.Linear | None = None
        self.time: nn.Sequential | None = nn.Sequential(
            nn.Linear(TIME_WIDTH, TIME_WIDTH), nn.SiLU(), nn.Linear(TIME_WIDTH, TIME_WIDTH)
        )
        self.enter = conv(config.latent, a)
        self.down_16 = UNetBlock(a)
        self.to_32 = Resized(a, conv(a, b, 3, 2))
        self.down_32 = UNetBlock(b)
        self.guide_32 = CrossAttention(b, config.tokens)
        self.to_64 = Resized(b, conv(b, c, 3, 2))
        self.middle_in = UNetBlock(c)
        self.guide_64 = CrossAttention(c, config.tokens)
        self.middle_out = UNetBlock(c)
        self.from_64 = Resized(c, Upsample(c, b))
        self.up_32 = UNetBlock(b)
        self.guide_up = CrossAttention(b, config.tokens)
        self.from_32 = Resized(b, Upsample(b, a))
        self.up_16 = nn.ModuleList(UNetBlock(a) for _ in range(config.unet_blocks))
        self.norm = nn.LayerNorm(a)
        self.leave = conv(a, config.latent)
        # It begins as no noise at all. What random layers said instead was only in the way of l_t, and the fastest way
        # to silence it was to let constants grow before every norm: all of the UNet gave one constant from then on.
        for parameter in self.leave.parameters():
            nn.init.zeros_(parameter)

    def forward(self, latent: Tensor, timestep: Tensor, tokens: Tensor, origin: Origin = (0.0, 0.0)) -> Tensor:
        """`origin` is the place of the latent's corner in units of a token, as given to the ViT."""
        height, width = latent.shape[-2:]
        time = self.time_features(timestep, tokens.dtype)
        if self.token_kv is not None:
            tokens = self.token_kv(tokens)
        x16 = self.down_16(steady(self.enter(pad_to(latent, 4))), time)
        x32 = self.down_32(self.to_32(x16), time)
        here = positions(x32, 1.0, origin)
        x32 = self.guide_32(x32, tokens, here)
        x64 = self.middle_in(self.to_64(x32), time)
        there = positions(x64, 2.0, origin)
        x64 = self.middle_out(self.guide_64(x64, tokens, there), time)
        x32 = self.guide_up(self.up_32(x32 + self.from_64(x64), time), tokens, here)
        x16 = x16 + self.from_32(x32)
        for block in self.up_16:
            x16 = block(x16, time)
        # The one step multiplies what is lost here by 1/sqrt(a_t), so eps is never rounded to 16 bits.
        eps = conv_in_float32(self.leave, F.silu(over_channels(self.norm, x16).float()))
        return eps[..., :height, :width]

    def time_features(self, timestep: Tensor, dtype: torch.dtype) -> Tensor | None:
        """What the residual blocks are shifted by, (B, TIME_WIDTH); None once it is in their biases."""
        return None if self.time is None else F.silu(self.time(time_embedding(timestep).to(dtype)))

    def ends(self) -> tuple[nn.Conv2d, nn.Conv2d]:
        """The first and the last convolution."""
        return self.enter, self.leave

    def forget_time(self) -> None:
        """After the fold of the time embedding."""
        self.time = None


class UNetBlock(ResBlock):
    """A residual block shifted by the time embedding."""

    def __init__(self, width: int) -> None:
        super().__init__(width, TIME_WIDTH)


class Resized(nn.Module):
    """A layer that changes the size of features, which it normalises first.

    Without that the convolutions between levels grew, a thousandfold together in 40 minutes of training, since the
    norms behind them undo it; beside what they gave guidance, which is about one, was nothing.
    """

    def __init__(self, width: int, layer: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return steady(self.layer(over_channels(self.norm, x)))


def time_embedding(timestep: Tensor) -> Tensor:
    """Sines and cosines of the timestep, (B, TIME_WIDTH) (Vaswani et al., 2017; periods to 10,000)."""
    half = TIME_WIDTH // 2
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(half, device=timestep.device) / half)
    angles = timestep.float()[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], -1)
