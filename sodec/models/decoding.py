"""The decoding side before diffusion: transformation T_s, the ViT F and the projection F_p of its tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import ops
from .blocks import PLACE, Origin, PixelDecoder, ResBlock, Upsample, conv, positions
from .coding import QualityShift, pad_to
from .config import ModelConfig


class Transformation(nn.Module):
    """T_s: y_hat (B, Cy, h, w) and w (B, Cw, h, w) to the noisy latent l_t, (B, Cl, h, w); of `sd21` twice the size."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.enter = conv(config.y_channels + config.content, config.transform)
        self.shift = QualityShift(config, config.transform)
        self.body = nn.Sequential(*(ResBlock(config.transform) for _ in range(config.transform_blocks)))
        if config.sizes is not None:
            self.body.append(Upsample(config.transform, config.transform))
            self.body.extend(ResBlock(config.transform) for _ in range(config.transform_blocks))
        self.leave = conv(config.transform, config.latent)

    def forward(self, y_hat: Tensor, w: Tensor, quality: Tensor) -> Tensor:
        x = self.enter(torch.cat([y_hat, w.to(y_hat.dtype)], 1)) + self.shift(quality)[:, :, None, None].to(y_hat.dtype)
        return self.leave(F.silu(self.body(x)))


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
        return self.norm(x) + PLACE * place  # a pixel of the UNet finds the tokens around it by their places


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


class LatentDecoder(PixelDecoder):
    """D_m of `lite`: l_0 (B, Cl, h, w) and the fidelity picture (B, 3, 16 h, 16 w) to what should be added to that.

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
        seen = 4 * (fidelity - 0.5)  # about unit variance
        x = self.to_8(self.body(self.enter(latent))) + self.see_8(F.pixel_unshuffle(seen, 8))
        x = self.at_4(self.to_4(self.at_8(x)) + self.see_4(F.pixel_unshuffle(seen, 4)))
        return fidelity + F.pixel_shuffle(self.leave(F.silu(x)), 4)
