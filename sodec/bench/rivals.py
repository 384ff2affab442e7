"""What our decoder is compared with: the same network as nobody tuned it, and what multi-step codecs do with theirs."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..codec import Codec
from ..models import SodecModel
from ..models.load import DTYPES, read_model
from ..models.prepare import prepare
from ..pipeline.engine import Engine
from . import plain_diffusers

# The last module of each UNet's encoder half, its middle included, which is what a control branch copies.
HALF_ENDS_AT = ("middle_out", "mid_block.resnets.1")
COMPILED = ("fidelity", "vit", "projection", "content", "transform", "unet", "latent_decoder")

Denoise = Callable[[Tensor, Tensor, Tensor], Tensor]  # latent, timestep (B,), tokens to eps


def many_steps(codec: Codec) -> Codec:
    """The same codec for `ddim`: all that `prepare` does, but for what holds at one timestep alone."""
    return _with(codec, prepare(read_model(codec.bundle), codec.device, codec.dtype, one_step=False).model, codec.dtype)


def plain(codec: Codec, dtype: str = "float32", *, compiled: bool = False) -> Codec:
    """The same weights in PyTorch as it comes: contiguous NCHW memory, nothing folded; call it `without_kernels`.

    UNet and latent decoder of `sd21` are diffusers' own where that is installed.
    """
    model = read_model(codec.bundle).requires_grad_(False).eval()
    if _diffusers(codec):
        plain_diffusers.replace_parts(model)
    log_gain, alphas = model.gain.log_gain.detach().clone(), model.alphas.clone()
    model.to(device=codec.device, dtype=DTYPES[dtype]).to(memory_format=torch.contiguous_format)
    # These two decide on symbols and steps, and stay in float32 as `prepare` keeps them.
    model.gain.log_gain.data, model.alphas = log_gain.to(codec.device), alphas.to(codec.device)
    if compiled:
        for part in COMPILED:
            setattr(model, part, torch.compile(getattr(model, part)))
    return _with(codec, model, DTYPES[dtype])


def graphed(codec: Codec) -> Codec:
    """The same codec, its networks replayed as CUDA graphs."""
    made = copy.copy(codec)
    made.engine = Engine(
        codec.model, codec.bundle.coding, codec.device, codec.dtype, tile=codec.engine.tile, cuda_graphs=True
    )
    return made


def rivals(codec: Codec, *, compiled: bool = True) -> dict[str, Callable[[], Codec]]:
    """The plain codecs for this device, by name, made when called. torch.compile is for GPUs: on two cores it lost."""
    what = "diffusers" if _diffusers(codec) else "PyTorch"
    found = {f"plain {what}, eager, float32": lambda: plain(codec)}
    if codec.device.type == "cuda":
        found[f"plain {what}, eager, bfloat16"] = lambda: plain(codec, "bfloat16")
        if compiled:
            found[f"plain {what}, torch.compile, bfloat16"] = lambda: plain(codec, "bfloat16", compiled=True)
    return found


def _diffusers(codec: Codec) -> bool:
    """Whether parts of the plain codec are diffusers'."""
    return codec.model.config.sizes is not None and importlib.util.find_spec("diffusers") is not None


def _with(codec: Codec, model: SodecModel, dtype: torch.dtype) -> Codec:
    """A codec like this one, but for its networks."""
    made = copy.copy(codec)
    made.dtype = dtype
    made.engine = Engine(model, codec.bundle.coding, codec.device, dtype, tile=codec.engine.tile)
    return made


class _ReachedError(Exception):
    """The encoder half is done."""


class ControlBranch:
    """The cost of a control branch: a copy of the UNet's encoder half with its middle, as ControlNet makes one.

    What it computes is thrown away, so adding its features to the UNet's, a small cost more, is left out.
    """

    def __init__(self, unet: nn.Module) -> None:
        self.copy = copy.deepcopy(unet)
        end = next(part for name, part in self.copy.named_modules() if name.endswith(HALF_ENDS_AT))
        end.register_forward_hook(_stop)

    def __call__(self, latent: Tensor, timestep: Tensor, tokens: Tensor) -> None:
        """Runs the half on what the UNet gets."""
        try:
            self.copy(latent, timestep, tokens)
        except _ReachedError:
            return
        raise AssertionError("the UNet ended before its middle")


def _stop(module: nn.Module, inputs: Any, output: Any) -> None:
    raise _ReachedError


def controlled(unet: Denoise, branch: ControlBranch) -> Denoise:
    """A UNet whose control branch runs before it, in every step."""

    def denoise(latent: Tensor, timestep: Tensor, tokens: Tensor) -> Tensor:
        branch(latent, timestep, tokens)
        return unet(latent, timestep, tokens)

    return denoise


def guided(unet: Denoise, scale: float = 3.0) -> Denoise:
    """A UNet under classifier-free guidance: with and without the tokens, as a batch of two, in every step."""

    def denoise(latent: Tensor, timestep: Tensor, tokens: Tensor) -> Tensor:
        both = torch.cat([torch.zeros_like(tokens), tokens])
        without, with_tokens = unet(torch.cat([latent] * 2), torch.cat([timestep] * 2), both).chunk(2)
        return without + scale * (with_tokens - without)

    return denoise
