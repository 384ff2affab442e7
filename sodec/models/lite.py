"""The small model, `lite`, part by part in the order that a picture takes: encoder, hyperprior, decoder.

Tensors are (B, C, H, W); h = H/16 and w = W/16 are the size of y.

.. code::

    picture (3, H, W)
      Analysis E               y        (128, h, w)
      HyperAnalysis H_a        z        (64, h/4, w/4)
      HyperSynthesis           mean of y (128, h, w);  Context: of its second half, given the first
      FidelityDecoder D_a      x_f      (3, H, W)
      VisionTransformer F, Projection F_p    tokens (H/32 W/32, 192)
      HyperSynthesis H_s       w        (64, h, w)
      Transformation T_s       l_t      (64, h, w)
      UNet                     eps      (64, h, w), over 1/16, 1/32 and 1/64
      LatentDecoder D_m        x        (3, H, W), x_f and what it adds
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import ops
from .blocks import (
    PLACE,
    CrossAttention,
    Origin,
    PixelDecoder,
    ResBlock,
    Upsample,
    conv,
    conv_in_float32,
    over_channels,
    positions,
    steady,
)
from .coding import QualityShift, first_half, pad_to
from .config import ModelConfig

TIME_WIDTH = 128

# -- encoder and hyperprior


class Analysis(nn.Module):
    """E: picture (B, 3, H, W) in 0..1, H and W multiples of 16, to y (B, Cy, H/16, W/16)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        a, b, c = config.analysis
        self.enter = conv(48, a)
        self.body = nn.Sequential(
            ResBlock(a), conv(a, b, 3, 2), ResBlock(b), conv(b, c, 3, 2), ResBlock(c), ResBlock(c)
        )  # fmt: skip
        self.leave = conv(c, config.y_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(F.silu(self.body(self.enter(F.pixel_unshuffle(x - 0.5, 4)))))


class HyperAnalysis(nn.Module):
    """H_a: y (B, Cy, h, w), padded to multiples of 4 by its edge, to z (B, Cz, ceil(h/4), ceil(w/4))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.enter = conv(config.y_channels, config.hyper)
        self.down = conv(config.hyper, config.hyper, 3, 2)
        self.leave = conv(config.hyper, config.z_channels, 3, 2)
        with torch.no_grad():
            self.leave.weight.mul_(64.0)  # start large: small values would all round to 0, and z would never learn

    def forward(self, y: Tensor) -> Tensor:
        return self.leave(F.silu(self.down(F.silu(self.enter(pad_to(y, 4))))))


class HyperSynthesis(nn.Module):
    """Features at 1/16 from z (B, Cz, h, w): (B, outputs, 4 h, 4 w). One predicts the mean of y, another is H_s (w)."""

    def __init__(self, config: ModelConfig, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv(config.z_channels, config.hyper, 1), nn.SiLU(), Upsample(config.hyper, 64, 3), nn.SiLU(),
            Upsample(64, 64, 3), nn.SiLU(), conv(64, outputs),
        )  # fmt: skip

    def forward(self, z: Tensor) -> Tensor:
        # z has values of tens, the layers expect about one
        return self.layers(z * 0.25)


class Context(nn.Module):
    """The mean of one half of y from mu(z) (B, Cy, h, w) and the coded residual of the other half to the mean.

    The halves are a checkerboard, whose colours are swapped for the second half of the channels, so that every
    element has neighbours and other channels of its place among what is known (as He et al., CVPR 2021; there for the
    scale too, which here has to be an integer of z alone). A mean may be float: symbols don't depend on it.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.enter = conv(2 * config.y_channels, config.context)
        self.leave = conv(config.context, config.y_channels)
        with torch.no_grad():
            self.leave.weight.mul_(0.1)

    def forward(self, mean: Tensor, residual: Tensor) -> Tensor:
        """`residual` is y_hat - `mean` in the first half; its second half is ignored."""
        first = first_half(mean)
        known = torch.cat([mean, residual * first], 1).to(self.enter.weight.dtype)
        return mean + self.leave(F.silu(self.enter(known))).to(mean.dtype) * ~first


# -- decoder: fidelity picture, guidance, latent


class FidelityDecoder(nn.Module):
    """D_a: y_hat (B, Cy, h, w) to the fidelity picture x_f (B, 3, 16 h, 16 w), about 0..1."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.shift = QualityShift(config, config.fidelity[0])
        self.decoder = PixelDecoder(config.y_channels, config.fidelity, config.fidelity_blocks)

    def forward(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        return self.decoder(y_hat, self.shift(quality).to(y_hat.dtype))


class VisionTransformer(nn.Module):
    """F: a picture (B, 3, H, W) to tokens (B, T, D), one per 32x32 pixels of it, row by row.

    The picture is halved first; positions are fixed sines and cosines, so any size fits. Pre-norm blocks
    (Dosovitskiy et al., ICLR 2021).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.patch = config.vit_patch
        self.embed = nn.Conv2d(3, config.vit, config.vit_patch, config.vit_patch)
        self.blocks = nn.ModuleList(TransformerBlock(config.vit) for _ in range(config.vit_depth))
        self.norm = nn.LayerNorm(config.vit)

    def forward(self, picture: Tensor, origin: Origin = (0.0, 0.0)) -> Tensor:
        x = self.embed(pad_to(F.avg_pool2d(picture - 0.5, 2), self.patch))
        place = positions(x, origin=origin).to(x.dtype)
        x = x.flatten(2).transpose(1, 2) + place
        for block in self.blocks:
            x = block(x)
        return self.norm(x) + PLACE * place  # by its position a pixel of the UNet attends to the tokens around it


class TransformerBlock(nn.Module):
    def __init__(self, width: int, head: int = 32) -> None:
        super().__init__()
        self.heads = max(1, width // head)
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.ff = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1))
        x = x + self.out(ops.self_attention(qkv).flatten(2))
        return x + self.ff(self.norm2(x))


class Projection(nn.Module):
    """F_p: ViT tokens (B, T, vit) to guidance tokens (B, T, D)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(config.vit, config.tokens), nn.GELU(), nn.Linear(config.tokens, config.tokens)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens + self.layers(tokens)


class Transformation(nn.Module):
    """T_s: y_hat (B, Cy, h, w) and w (B, Cw, h, w) to the noisy latent l_t, (B, Cl, h, w)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.enter = conv(config.y_channels + config.content, config.transform)
        self.shift = QualityShift(config, config.transform)
        self.body = nn.Sequential(*(ResBlock(config.transform) for _ in range(config.transform_blocks)))
        self.leave = conv(config.transform, config.latent)

    def forward(self, y_hat: Tensor, w: Tensor, quality: Tensor) -> Tensor:
        x = self.enter(torch.cat([y_hat, w.to(y_hat.dtype)], 1)) + self.shift(quality)[:, :, None, None].to(y_hat.dtype)
        return self.leave(F.silu(self.body(x)))


# -- the diffusion step


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
        # eps starts at zero. A random start only disturbs l_t, and the fastest way for training to suppress it was to
        # let constants grow before every norm, after which the UNet's output was constant.
        for parameter in self.leave.parameters():
            nn.init.zeros_(parameter)

    def forward(self, latent: Tensor, timestep: Tensor, tokens: Tensor, origin: Origin = (0.0, 0.0)) -> Tensor:
        """`origin` is the position of the latent's corner in units of a token, as in the ViT."""
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
        # The one step multiplies rounding errors of eps by 1/sqrt(a_t), so eps is never rounded to 16 bits.
        eps = conv_in_float32(self.leave, F.silu(over_channels(self.norm, x16).float()))
        return eps[..., :height, :width]

    def time_features(self, timestep: Tensor, dtype: torch.dtype) -> Tensor | None:
        """The shift of the residual blocks, (B, TIME_WIDTH); None once it is folded into their biases."""
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
    """A norm, then a layer that changes the size of features.

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


# -- the picture


class LatentDecoder(PixelDecoder):
    """D_m of `lite`: l_0 (B, Cl, h, w) and the fidelity picture (B, 3, 16 h, 16 w) to what is added to the latter.

    The paper's D_m, Stable Diffusion's, makes the whole picture of the latent. Ours did too, through 32 channels at
    1/16, and its picture was 0.4 to 0.7 dB behind the fidelity picture that it could have begun from.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config.latent, config.decoder, config.decoder_blocks)
        self.see_8 = conv(3 * 8**2, config.decoder[1], 1)
        self.see_4 = conv(3 * 4**2, config.decoder[2], 1)
        for parameter in self.leave.parameters():
            nn.init.zeros_(parameter)

    def forward(self, latent: Tensor, fidelity: Tensor) -> Tensor:  # type: ignore[override]
        seen = 4 * (fidelity - 0.5)  # unit variance, about
        x = self.to_8(self.body(self.enter(latent))) + self.see_8(F.pixel_unshuffle(seen, 8))
        x = self.at_4(self.to_4(self.at_8(x)) + self.see_4(F.pixel_unshuffle(seen, 4)))
        return fidelity + F.pixel_shuffle(self.leave(F.silu(x)), 4)
