"""The denoiser of Stable Diffusion 2.1: levels of residual blocks, with transformers at all but the lowest."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import ops
from ..blocks import conv, conv_in_float32
from ..coding import pad_to
from ..config import ModelConfig
from .resnet import Downsample, NearestUpsample, ResnetBlock
from .transformer import Transformer

EPS = 1e-5  # of the residual blocks' norms


class DiffusionUNet(nn.Module):
    """Noise in l_t: latent (B, Cl, h, w), timestep (B,), tokens (B, T, D) to eps (B, Cl, h, w) in float32.

    Once the time embedding is folded into biases, `time_embedding` is None and the timestep is not looked at.
    `token_kv` computes keys and values of all blocks at once where they are packed.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        layout, widths = config.public, config.unet
        time_width = 4 * widths[0]
        self.multiple = 2 ** (len(widths) - 1)
        self.conv_in = conv(config.latent, widths[0])
        self.time_embedding: TimeEmbedding | None = TimeEmbedding(widths[0], time_width)
        self.token_kv: nn.Linear | None = None

        def resnet(inputs: int, outputs: int) -> ResnetBlock:
            return ResnetBlock(inputs, outputs, layout.groups, time_width, EPS)

        def transformer(level: int) -> Transformer | None:
            if not layout.unet_attention[level]:
                return None
            width = widths[level]
            return Transformer(width, config.public.tokens, width // layout.unet_head, layout.groups)

        down, skips, current = [], [widths[0]], widths[0]
        for level, width in enumerate(widths):
            block = Down()
            for _ in range(layout.unet_blocks):
                block.add(resnet(current, width), transformer(level))
                skips.append(current := width)
            if level < len(widths) - 1:
                block.downsamplers = nn.ModuleList([Downsample(width)])
                skips.append(width)
            down.append(block)
        self.down_blocks = nn.ModuleList(down)
        middle = Middle()
        middle.add(resnet(current, current), None)
        lowest = Transformer(current, config.public.tokens, current // layout.unet_head, layout.groups)
        middle.add(resnet(current, current), lowest)
        self.mid_block = middle
        up = []
        for level, width in reversed(list(enumerate(widths))):
            higher = Up()
            for _ in range(layout.unet_blocks + 1):
                higher.add(resnet(current + skips.pop(), width), transformer(level))
                current = width
            if level > 0:
                higher.upsamplers = nn.ModuleList([NearestUpsample(width)])
            up.append(higher)
        self.up_blocks = nn.ModuleList(up)
        self.conv_norm_out = nn.GroupNorm(layout.groups, widths[0], EPS)
        self.conv_out = conv(widths[0], config.latent)

    def forward(self, latent: Tensor, timestep: Tensor, tokens: Tensor) -> Tensor:
        height, width = latent.shape[-2:]
        time = self.time_features(timestep, tokens.dtype)
        if self.token_kv is not None:
            tokens = self.token_kv(tokens)
        x = ops.conv(self.conv_in, pad_to(latent, self.multiple))
        skips = [x]
        for block in self.down_blocks:
            x = block(x, time, tokens, skips)
        x = self.mid_block(x, time, tokens)
        for block in self.up_blocks:
            x = block(x, time, tokens, skips)
        # The one step multiplies what is lost here by 1/sqrt(a_t), so eps is never rounded to 16 bits.
        eps = conv_in_float32(self.conv_out, ops.group_norm(x, self.conv_norm_out, silu=True))
        return eps[..., :height, :width]

    def time_features(self, timestep: Tensor, dtype: torch.dtype) -> Tensor | None:
        """What the residual blocks are shifted by, (B, 4 widths[0]); None once it is in their biases."""
        return None if self.time_embedding is None else self.time_embedding(timestep, dtype)

    def ends(self) -> tuple[nn.Conv2d, nn.Conv2d]:
        """The first and the last convolution."""
        return self.conv_in, self.conv_out

    def forget_time(self) -> None:
        """After the fold of the time embedding."""
        self.time_embedding = None


class Level(nn.Module):
    """Residual blocks of one resolution, with a transformer each or without."""

    def __init__(self) -> None:
        super().__init__()
        self.resnets = nn.ModuleList()
        self.attentions = nn.ModuleList()

    def add(self, resnet: ResnetBlock, transformer: Transformer | None) -> None:
        """Appends a block."""
        self.resnets.append(resnet)
        if transformer is not None:
            self.attentions.append(transformer)

    def guided(self, number: int, x: Tensor, tokens: Tensor) -> Tensor:
        """What the transformer behind a residual block makes of its result."""
        return self.attentions[number](x, tokens) if len(self.attentions) else x


class Down(Level):
    """Every result is appended to `skips`."""

    downsamplers: nn.ModuleList

    def forward(self, x: Tensor, time: Tensor | None, tokens: Tensor, skips: list[Tensor]) -> Tensor:
        for number, resnet in enumerate(self.resnets):
            x = self.guided(number, resnet(x, time), tokens)
            skips.append(x)
        if hasattr(self, "downsamplers"):
            x = self.downsamplers[0](x)
            skips.append(x)
        return x


class Middle(Level):
    """Two residual blocks, a transformer between them."""

    def forward(self, x: Tensor, time: Tensor | None, tokens: Tensor) -> Tensor:
        first, second = self.resnets
        return second(self.attentions[0](first(x, time), tokens), time)


class Up(Level):
    """Every residual block takes the last of `skips` too."""

    upsamplers: nn.ModuleList

    def forward(self, x: Tensor, time: Tensor | None, tokens: Tensor, skips: list[Tensor]) -> Tensor:
        for number, resnet in enumerate(self.resnets):
            x = self.guided(number, resnet(torch.cat([x, skips.pop()], 1), time), tokens)
        return self.upsamplers[0](x) if hasattr(self, "upsamplers") else x


class TimeEmbedding(nn.Module):
    """Timesteps (B,) to the vector that the residual blocks are shifted by, SiLU applied: (B, outputs)."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.width = width
        self.linear_1 = nn.Linear(width, outputs)
        self.linear_2 = nn.Linear(outputs, outputs)

    def forward(self, timestep: Tensor, dtype: torch.dtype) -> Tensor:
        half = self.width // 2
        frequencies = torch.exp(-math.log(10000.0) * torch.arange(half, device=timestep.device) / half)
        angles = timestep.float()[:, None] * frequencies
        waves = torch.cat([angles.cos(), angles.sin()], -1).to(dtype)
        return F.silu(self.linear_2(F.silu(self.linear_1(waves))))
