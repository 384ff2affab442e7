"""Parts of `sd21` against diffusers and transformers, on random weights: the same tensors, the same numbers.

pytest tests/test_parity.py            (reduced width)
pytest tests/test_parity.py -m slow    (full width: gigabytes, minutes)
"""

import pytest
import torch
from torch import nn

from sodec.models import SD21, SD21_TINY
from sodec.models.sd21 import DiffusionUNet, VaeDecoder
from sodec.models.sd21.public import vit_tensors
from sodec.models.sd21.vit import Dinov2

SIZES = [pytest.param(SD21_TINY, id="reduced"), pytest.param(SD21, id="full", marks=pytest.mark.slow)]


def relative_error(ours, theirs):
    return ((ours - theirs).norm() / theirs.norm()).item()


def randomised(module):
    """Makes norms and biases random too: at their defaults errors could go unnoticed."""
    with torch.no_grad():
        for child in module.modules():
            if isinstance(child, (nn.GroupNorm, nn.LayerNorm)):
                child.weight.uniform_(0.5, 1.5)
                child.bias.uniform_(-0.5, 0.5)
    return module.eval().requires_grad_(False)


@pytest.mark.parametrize("config", SIZES)
@pytest.mark.parametrize("size", [(16, 16), (8, 24)])
def test_unet(config, size):
    diffusers = pytest.importorskip("diffusers", reason="needs the extra 'sd21'")
    public = config.public
    torch.manual_seed(0)
    kinds = ["CrossAttn" * guided for guided in public.unet_attention]
    theirs = randomised(diffusers.UNet2DConditionModel(
        in_channels=config.latent, out_channels=config.latent, block_out_channels=config.unet,
        layers_per_block=public.unet_blocks, cross_attention_dim=public.tokens, norm_num_groups=public.groups,
        attention_head_dim=[width // public.unet_head for width in config.unet], use_linear_projection=True,
        down_block_types=[f"{kind}DownBlock2D" for kind in kinds],
        up_block_types=[f"{kind}UpBlock2D" for kind in reversed(kinds)],
    ))  # fmt: skip
    ours = DiffusionUNet(config)
    ours.load_state_dict(theirs.state_dict(), assign=True)
    latent, tokens = torch.randn(2, config.latent, *size), torch.randn(2, public.guidance_tokens, config.public.tokens)
    step = torch.tensor([999, 20])
    with torch.no_grad():
        expected = theirs(latent, step, tokens).sample
        assert relative_error(ours(latent, step, tokens), expected) <= 1e-4


@pytest.mark.parametrize("config", SIZES)
def test_latent_decoder(config):
    diffusers = pytest.importorskip("diffusers", reason="needs the extra 'sd21'")
    torch.manual_seed(0)
    widths = tuple(reversed(config.decoder))
    theirs = randomised(diffusers.AutoencoderKL(
        block_out_channels=widths, layers_per_block=config.decoder_blocks[0] - 1, latent_channels=config.latent,
        down_block_types=["DownEncoderBlock2D"] * len(widths), up_block_types=["UpDecoderBlock2D"] * len(widths),
        norm_num_groups=config.public.groups, scaling_factor=config.public.latent_scale,
    ))  # fmt: skip
    ours = VaeDecoder(config)
    wanted = ours.state_dict().keys()
    ours.load_state_dict({name: value for name, value in theirs.state_dict().items() if name in wanted}, assign=True)
    latent = torch.randn(1, config.latent, 8, 12)
    with torch.no_grad():
        expected = theirs.decode(latent / config.public.latent_scale).sample / 2 + 0.5
        assert relative_error(ours(latent), expected) <= 1e-4


@pytest.mark.parametrize("config", SIZES)
@pytest.mark.parametrize("grid", [(5, 5), (3, 7)])
def test_vit(config, grid):
    transformers = pytest.importorskip("transformers", reason="needs the extra 'sd21'")
    torch.manual_seed(0)
    public = config.public
    theirs = randomised(transformers.Dinov2Model(transformers.Dinov2Config(
        hidden_size=config.public.vit, num_hidden_layers=config.public.vit_depth, patch_size=config.public.vit_patch,
        num_attention_heads=config.public.vit // public.vit_head, image_size=public.vit_grid * config.public.vit_patch,
    )))  # fmt: skip
    with torch.no_grad():
        for name, value in theirs.named_parameters():
            if "layer_scale" in name:
                value.uniform_(0.5, 1.5)
    ours = Dinov2(config)
    ours.load_state_dict(vit_tensors(theirs.state_dict()), assign=True)
    pixels = torch.randn(1, 3, *(side * config.public.vit_patch for side in grid))
    with torch.no_grad():
        assert relative_error(ours.features(pixels), theirs(pixels).last_hidden_state) <= 1e-4
