"""What claim.py compares our decoder with: the same network in plain PyTorch or diffusers, and multi-step codecs."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sodec.codec import Codec
from sodec.extras import require
from sodec.models import ModelConfig, SodecModel
from sodec.models.coding import pad_to
from sodec.models.files import read_model
from sodec.models.lite import UNet
from sodec.models.prepare import Prepared, prepare
from sodec.pipeline.device import DTYPES
from sodec.pipeline.torch_engine import TorchEngine

# The last module of each UNet's encoder half, its middle included, which is what a control branch copies.
HALF_ENDS_AT = ("middle", "mid_block.resnets.1")
COMPILED = ("fidelity", "vit", "projection", "content", "transform", "unet", "latent_decoder")  # those that it has

# Latent, timestep (B,), guidance and noise, as `SodecModel.predict_noise` takes them, to eps.
Denoise = Callable[[Tensor, Tensor, Any, Tensor | None], Tensor]


def many_steps(codec: Codec) -> Codec:
    """The same codec for `ddim`: prepared, but without the folds that hold at one timestep alone."""
    return _with(codec, prepare(read_model(codec.bundle), codec.device, codec.dtype, one_step=False).model, codec.dtype)


def plain(codec: Codec, dtype: str = "float32", *, compiled: bool = False) -> Codec:
    """The same weights in plain PyTorch: contiguous NCHW memory, nothing folded; call it `without_kernels`.

    UNet and latent decoder of `sd21` are diffusers' own where that is installed.
    """
    model = read_model(codec.bundle).requires_grad_(False)
    if _diffusers(codec):
        use_diffusers(model)
    log_gain, alphas = model.gain.log_gain.detach().clone(), model.alphas.clone()
    model.to(device=codec.device, dtype=DTYPES[dtype]).to(memory_format=torch.contiguous_format)
    # As in `prepare`, these stay in float32, because symbols and steps depend on them.
    model.gain.log_gain.data, model.alphas = log_gain.to(codec.device), alphas.to(codec.device)
    if compiled:
        for part in COMPILED:
            if (module := getattr(model, part)) is not None:
                module.compile()
    return _with(codec, model, DTYPES[dtype])


def rivals(codec: Codec, *, compiled: bool = True) -> dict[str, Callable[[], Codec]]:
    """The plain codecs for this device: functions that make them, by name.

    torch.compile is only for GPUs; on two cores of a CPU it was slower.
    """
    what = "diffusers" if _diffusers(codec) else "PyTorch"
    makers = {f"plain {what}, eager, float32": lambda: plain(codec)}
    if codec.device.type == "cuda":
        makers[f"plain {what}, eager, bfloat16"] = lambda: plain(codec, "bfloat16")
        if compiled:
            makers[f"plain {what}, torch.compile, bfloat16"] = lambda: plain(codec, "bfloat16", compiled=True)
    return makers


def _diffusers(codec: Codec) -> bool:
    """Whether parts of the plain codec are diffusers'."""
    return codec.model.config.sizes is not None and importlib.util.find_spec("diffusers") is not None


def _with(codec: Codec, model: SodecModel, dtype: torch.dtype) -> Codec:
    """The same codec with other networks."""
    copied = copy.copy(codec)
    copied.dtype = dtype
    copied.engine = TorchEngine(Prepared(model, codec.device, dtype), codec.bundle.coding, tile=codec.engine.tile)
    return copied


class _ReachedError(Exception):
    """The encoder half is done."""


class ControlBranch:
    """The cost of a control branch: a copy of the UNet's encoder half with its middle, as ControlNet makes one.

    Its results are not used, so the small cost of adding its features to the UNet's is left out.
    """

    def __init__(self, unet: nn.Module) -> None:
        half = copy.deepcopy(unet)
        end = next(part for name, part in half.named_modules() if name.endswith(HALF_ENDS_AT))
        end.register_forward_hook(_stop)
        self.copy = called(half)

    def __call__(self, latent: Tensor, timestep: Tensor, guidance: Any, noise: Tensor | None) -> None:
        """Runs the copied half on the UNet's inputs."""
        try:
            self.copy(latent, timestep, guidance, noise)
        except _ReachedError:
            return
        raise AssertionError("the UNet ended before its middle")


def _stop(module: nn.Module, inputs: Any, output: Any) -> None:
    raise _ReachedError


def called(unet: nn.Module) -> Denoise:
    """The UNet of either model, called alike."""
    if isinstance(unet, UNet):
        return lambda latent, timestep, guidance, noise: unet(latent, guidance, noise)
    return lambda latent, timestep, guidance, noise: unet(latent, timestep, guidance)


def controlled(unet: nn.Module, branch: ControlBranch) -> Denoise:
    """A UNet whose control branch runs before it, in every step."""
    predict = called(unet)

    def denoise(latent: Tensor, timestep: Tensor, guidance: Any, noise: Tensor | None) -> Tensor:
        branch(latent, timestep, guidance, noise)
        return predict(latent, timestep, guidance, noise)

    return denoise


def guided(unet: nn.Module, scale: float = 3.0) -> Denoise:
    """A UNet under classifier-free guidance: with and without what guides, as a batch of two, in every step."""
    predict = called(unet)

    def and_without(guidance: Any) -> Any:
        if isinstance(guidance, Tensor):
            return torch.cat([torch.zeros_like(guidance), guidance])
        return type(guidance)(*map(and_without, guidance))

    def denoise(latent: Tensor, timestep: Tensor, guidance: Any, noise: Tensor | None) -> Tensor:
        twice = None if noise is None else torch.cat([noise] * 2)
        both = predict(torch.cat([latent] * 2), torch.cat([timestep] * 2), and_without(guidance), twice)
        without, with_guidance = both.chunk(2)
        return without + scale * (with_guidance - without)

    return denoise


class PlainUNet(nn.Module):
    """diffusers' UNet2DConditionModel, called as `DiffusionUNet` is."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        public = config.public
        kinds = ["CrossAttn" * guided for guided in public.unet_attention]
        self.multiple = 2 ** (len(config.unet) - 1)
        self.unet = require("diffusers", "plain sd21").UNet2DConditionModel(
            in_channels=config.latent, out_channels=config.latent, block_out_channels=config.unet,
            layers_per_block=public.unet_blocks, cross_attention_dim=public.tokens, norm_num_groups=public.groups,
            attention_head_dim=[width // public.unet_head for width in config.unet], use_linear_projection=True,
            down_block_types=[f"{kind}DownBlock2D" for kind in kinds],
            up_block_types=[f"{kind}UpBlock2D" for kind in reversed(kinds)],
        )  # fmt: skip

    def forward(self, latent: Tensor, timestep: Tensor, tokens: Tensor) -> Tensor:
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


def use_diffusers(model: SodecModel) -> None:
    """Replaces our UNet and latent decoder by diffusers', with the same weights, in an unprepared `sd21`."""
    replaced: Any = model
    unet, decoder = PlainUNet(model.config), PlainDecoder(model.config)
    unet.unet.load_state_dict(model.unet.state_dict())
    decoder.autoencoder.load_state_dict(model.latent_decoder.state_dict())
    replaced.unet, replaced.latent_decoder = unet.eval().requires_grad_(False), decoder.eval().requires_grad_(False)
