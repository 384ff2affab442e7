"""D_m of `sd21`: the decoder of Stable Diffusion's autoencoder."""

from __future__ import annotations

from torch import Tensor, nn

from .. import ops
from ..blocks import JoinedLinear, conv
from ..config import ModelConfig
from .resnet import NearestUpsample, ResnetBlock


class VaeDecoder(nn.Module):
    """Latent (B, Cl, h, w), as the UNet sees it, to a picture (B, 3, 8 h, 8 w), about 0..1.

    `scale` divides the latent and `centred` says that the last layer gives -1..1, until both are folded.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.scale, self.centred = config.public.latent_scale, True
        self.post_quant_conv = conv(config.latent, config.latent, 1)
        self.decoder = Decoder(config)

    def forward(self, latent: Tensor) -> Tensor:
        if self.scale != 1:
            latent = latent / self.scale
        picture = self.decoder(self.post_quant_conv(latent))
        return picture / 2 + 0.5 if self.centred else picture


class Decoder(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        widths, groups = config.decoder, config.public.groups
        self.conv_in = conv(config.latent, widths[0])
        self.mid_block = Middle(widths[0], groups)
        current, up = widths[0], []
        for number, (width, count) in enumerate(zip(widths, config.decoder_blocks, strict=True)):
            up.append(Level(current, width, count, groups, last=number == len(widths) - 1))
            current = width
        self.up_blocks = nn.ModuleList(up)
        self.conv_norm_out = nn.GroupNorm(groups, current, 1e-6)
        self.conv_out = conv(current, 3)

    def forward(self, latent: Tensor) -> Tensor:
        x = self.mid_block(ops.conv(self.conv_in, latent))
        for level in self.up_blocks:
            x = level(x)
        return ops.conv(self.conv_out, ops.group_norm(x, self.conv_norm_out, silu=True))


class Level(nn.Module):
    def __init__(self, inputs: int, width: int, count: int, groups: int, *, last: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(inputs if i == 0 else width, width, groups) for i in range(count))
        if not last:
            self.upsamplers = nn.ModuleList([NearestUpsample(width)])

    def forward(self, x: Tensor) -> Tensor:
        for resnet in self.resnets:
            x = resnet(x)
        return self.upsamplers[0](x) if hasattr(self, "upsamplers") else x


class Middle(nn.Module):
    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResnetBlock(width, width, groups) for _ in range(2))
        self.attentions = nn.ModuleList([PixelAttention(width, groups)])

    def forward(self, x: Tensor) -> Tensor:
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class PixelAttention(JoinedLinear):
    """x (B, C, H, W) + attention of its pixels, with one head as wide as the features."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, width, 1e-6)
        self.to_q = nn.Linear(width, width)
        self.to_k = nn.Linear(width, width)
        self.to_v = nn.Linear(width, width)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor) -> Tensor:
        batch, width, height, across = x.shape
        pixels = ops.group_norm(x, self.group_norm, silu=False).permute(0, 2, 3, 1).reshape(batch, -1, width)
        out = ops.wide_attention(*self.qkv(pixels).chunk(3, -1))
        for layer in self.to_out:  # none once `prepare` has folded it
            out = layer(out)
        return x + out.reshape(batch, height, across, width).permute(0, 3, 1, 2)
