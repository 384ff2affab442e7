"""`sd21` in plain diffusers: its UNet and its autoencoder's decoder, with our weights, in the places of ours."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..extras import require
from ..models import ModelConfig, SodecModel
from ..models.coding import pad_to


class PlainUNet(nn.Module):
    """diffusers' UNet2DConditionModel, called as `DiffusionUNet` is."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        public = config.public
        kinds = ["CrossAttn" * guided for guided in public.unet_attention]
        self.multiple = 2 ** (len(config.unet) - 1)
        self.unet = require("diffusers", "plain sd21").UNet2DConditionModel(
            in_channels=config.latent, out_channels=config.latent, block_out_channels=config.unet,
            layers_per_block=public.unet_blocks, cross_attention_dim=config.tokens, norm_num_groups=public.groups,
            attention_head_dim=[width // public.unet_head for width in config.unet], use_linear_projection=True,
            down_block_types=[f"{kind}DownBlock2D" for kind in kinds],
            up_block_types=[f"{kind}UpBlock2D" for kind in reversed(kinds)],
        )  # fmt: skip

    def forward(self, latent: Tensor, timestep: Tensor, tokens: Tensor, origin: Any = None) -> Tensor:
        height, width = latent.shape[-2:]
        return self.unet(pad_to(latent, self.multiple), timestep, tokens).sample.float()[..., :height, :width]


class PlainDecoder(nn.Module):
    """diffusers' AutoencoderKL, its encoder left out, called as `VaeDecoder` is."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        widths = tuple(reversed(config.decoder))
        self.scale = config.public.latent_scale
        self.autoencoder = require("diffusers", "plain sd21").AutoencoderKL(
            block_out_channels=widths, layers_per_block=config.decoder_blocks[0] - 1, latent_channels=config.latent,
            down_block_types=["DownEncoderBlock2D"] * len(widths), up_block_types=["UpDecoderBlock2D"] * len(widths),
            norm_num_groups=config.public.groups, scaling_factor=self.scale,
        )  # fmt: skip
        del self.autoencoder.encoder, self.autoencoder.quant_conv

    def forward(self, latent: Tensor) -> Tensor:
        return self.autoencoder.decode(latent / self.scale).sample / 2 + 0.5


def replace_parts(model: SodecModel) -> None:
    """Puts diffusers' modules, with the same weights, where an unprepared model has ours."""
    replaced: Any = model
    unet, decoder = PlainUNet(model.config), PlainDecoder(model.config)
    unet.unet.load_state_dict(model.unet.state_dict())
    decoder.autoencoder.load_state_dict(model.latent_decoder.state_dict())
    replaced.unet, replaced.latent_decoder = unet.eval().requires_grad_(False), decoder.eval().requires_grad_(False)
