"""The small model, `lite`, part by part in the order that a picture takes: encoder, hyperprior, decoder.

Tensors are (B, C, H, W); h = H/16 and w = W/16 are the size of y.

.. code::

    picture (3, H, W)
      Analysis E               y        (128, h, w)
      HyperAnalysis H_a        z        (64, h/4, w/4)
      HyperSynthesis           mean of y (128, h, w);  Context: of its second half, given the first
      FidelityDecoder D_a      x_f      (3, H, W), and features at 1/16, 1/8, 1/4
      Projection F_p           guidance (160, h, w), (128, 2 h, 2 w), (64, 4 h, 4 w)
      Transformation T_s       l_t      (32, 2 h, 2 w)
      UNet                     eps      (32, 2 h, 2 w), over 1/8, 1/16, 1/32 and 1/64, guided at 1/16 and 1/8
      LatentDecoder D_m        x - x_f  (3, H, W), guided at 1/4

Noise (4, 4 h, 4 w) is an input of UNet and D_m (`noise.py`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import ops
from .blocks import Centred, CentredBlock, Fidelity, ResBlock, ResBlocks, Upsample, conv, conv_in_float32
from .coding import QualityShift, first_half, pad_to
from .config import ModelConfig

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
        x = ops.conv(self.down, ops.conv(self.enter, pad_to(y, 4), silu=True), silu=True)
        return self.leave(x)


class HyperSynthesis(nn.Module):
    """Features at 1/16 from z (B, Cz, h, w): (B, outputs, 4 h, 4 w): the mean of y."""

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
        return mean + self.leave(ops.conv(self.enter, known, silu=True)).to(mean.dtype) * ~first


# -- decoder: fidelity picture, guidance, latent


class FidelityDecoder(nn.Module):
    """D_a: y_hat (B, Cy, h, w) to the fidelity picture, folded by 4: (B, 48, 4 h, 4 w), about -0.5..0.5.

    Its features are those of 1/16 (B, C16, h, w), 1/8 (B, C8, 2 h, 2 w) and 1/4 (B, C4, 4 h, 4 w).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.shift = QualityShift(config, config.fidelity[0])
        self.decoder = PixelDecoder(config.y_channels, config.fidelity, config.fidelity_blocks)

    def forward(self, y_hat: Tensor, quality: Tensor) -> Fidelity:
        return self.decoder(y_hat, self.shift(quality).to(y_hat.dtype))


class PixelDecoder(nn.Module):
    """Residual blocks at 1/16, 1/8 and 1/4. `shift` (B, C) is added to the features behind the first convolution."""

    def __init__(self, inputs: int, widths: tuple[int, ...], blocks: tuple[int, ...]) -> None:
        super().__init__()
        self.enter = conv(inputs, widths[0])
        self.body = ResBlocks(widths[0], blocks[0])
        self.to_8 = Upsample(widths[0], widths[1])
        self.at_8 = ResBlocks(widths[1], blocks[1])
        self.to_4 = Upsample(widths[1], widths[2])
        self.at_4 = ResBlocks(widths[2], blocks[2])
        self.leave = conv(widths[2], 48)

    def forward(self, x: Tensor, shift: Tensor) -> Fidelity:
        at_16 = self.body(ops.conv(self.enter, x, residual=shift[:, :, None, None]))
        at_8 = self.at_8(self.to_8(at_16))
        at_4 = self.at_4(self.to_4(at_8))
        return Fidelity(self.leave(F.silu(at_4)), (at_16, at_8, at_4))


class Guidance(NamedTuple):
    """What is added to the UNet's features at 1/16 and 1/8 and to D_m's at 1/4, each of their width."""

    at_16: Tensor
    at_8: Tensor
    at_4: Tensor


class Projection(nn.Module):
    """F_p: the features of D_a to `Guidance`, by a 1x1 convolution each.

    The paper guides by tokens of a ViT that sees the fidelity picture. In our trainings tokens made no difference
    (0.0 % of ST-LPIPS); these features are worth what MODEL_CARD.md says.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        widths = (config.unet[1], config.unet[0], config.decoder[0])
        self.at_16, self.at_8, self.at_4 = (
            Centred(conv(inputs, width, 1), width) for inputs, width in zip(config.fidelity, widths, strict=True)
        )

    def forward(self, features: tuple[Tensor, ...]) -> Guidance:
        return Guidance(self.at_16(features[0]), self.at_8(features[1]), self.at_4(features[2]))


class Transformation(nn.Module):
    """T_s: y_hat (B, Cy, h, w) to the noisy latent l_t, (B, Cl, 2 h, 2 w)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.enter = conv(config.y_channels, config.transform)
        self.shift = QualityShift(config, config.transform)
        self.leave = Upsample(config.transform, config.latent, 3)

    def forward(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        shift = self.shift(quality)[:, :, None, None].to(y_hat.dtype)
        return self.leave(ops.conv(self.enter, y_hat, residual=shift, silu=True))


# -- the diffusion step


class UNet(nn.Module):
    """Noise in l_t: latent (B, Cl, H/8, W/8), `Guidance` and noise (B, Cn, H/4, W/4) to eps (B, Cl, H/8, W/8), float32.

    It is run at one timestep, so it knows none.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        at_8, at_16, at_32, at_64 = config.unet
        blocks_8, blocks_16 = config.unet_blocks
        self.enter = Centred(conv(config.latent + 4 * config.noise, at_8), at_8)
        self.to_16 = Centred(conv(at_8, at_16, 3, 2), at_16)
        self.down_16 = CentredBlock(at_16)
        self.to_32 = Centred(conv(at_16, at_32, 3, 2), at_32)
        self.down_32 = CentredBlock(at_32)
        self.to_64 = Centred(conv(at_32, at_64, 3, 2), at_64)
        self.middle = nn.Sequential(CentredBlock(at_64), CentredBlock(at_64))
        self.from_64 = Centred(Upsample(at_64, at_32), at_32)
        self.up_32 = CentredBlock(at_32)
        self.from_32 = Centred(Upsample(at_32, at_16), at_16)
        self.up_16 = nn.Sequential(*(CentredBlock(at_16) for _ in range(blocks_16)))
        self.from_16 = Centred(Upsample(at_16, at_8), at_8)
        self.up_8 = nn.Sequential(*(CentredBlock(at_8) for _ in range(blocks_8)))
        self.leave = conv(at_8, config.latent)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]
        with torch.no_grad():
            self.leave.weight.mul_(0.3)

    def forward(self, latent: Tensor, guidance: Guidance, noise: Tensor) -> Tensor:
        noisy = torch.cat([latent, F.pixel_unshuffle(noise, 2).to(latent.dtype)], 1)
        x8 = self.enter(noisy, residual=guidance.at_8)
        x16 = self.to_16(x8, residual=guidance.at_16)
        height, width = x16.shape[-2:]
        x16 = self.down_16(pad_to(x16, 4))
        x32 = self.down_32(self.to_32(x16))
        x32 = self.up_32(self.from_64(self.middle(self.to_64(x32)), residual=x32))
        x16 = self.up_16(self.from_32(x32, residual=x16))
        x8 = self.from_16(x16[..., :height, :width], residual=x8)
        *others, last = self.up_8
        for block in others:
            x8 = block(x8)
        return conv_in_float32(self.leave, last(x8, silu=True))

    def ends(self) -> tuple[nn.Conv2d, nn.Conv2d]:
        """The first and the last convolution."""
        return self.enter.layer, self.leave  # type: ignore[return-value]


# -- the picture


class LatentDecoder(nn.Module):
    """D_m: what is added to the fidelity picture, folded by 4: (B, 48, H/4, W/4).

    Of l_0 (B, Cl, H/8, W/8), the guidance at 1/4 (B, C, H/4, W/4) and noise (B, Cn, H/4, W/4). The paper's D_m, Stable
    Diffusion's, decodes the whole picture from the latent; ours did too, and was 0.4 to 0.7 dB behind the fidelity
    picture.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        (width,), (blocks,) = config.decoder, config.decoder_blocks
        self.to_4 = Centred(Upsample(config.latent, width, 3), width)
        self.noise = conv(config.noise, width, 1)
        self.at_4 = nn.Sequential(*(CentredBlock(width) for _ in range(blocks)))
        self.leave = conv(width, 48)
        for parameter in self.leave.parameters():
            nn.init.zeros_(parameter)

    def forward(self, latent: Tensor, guidance: Tensor, noise: Tensor) -> Tensor:
        x = self.to_4(latent, residual=guidance, noise=noise.to(latent.dtype), noise_layer=self.noise)
        for number, block in enumerate(self.at_4, 1):
            x = block(x, silu=number == len(self.at_4))
        return self.leave(x)
