"""What our decoder is compared with: the same network as nobody tuned it, and what multi-step codecs do with theirs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..codec import Codec

# The last module of each UNet's encoder half, its middle included, which is what a control branch copies.
HALF_ENDS_AT = ("middle_out", "mid_block")
COMPILED = ("fidelity", "vit", "projection", "content", "transform", "unet", "latent_decoder")

Denoise = Callable[[Tensor, Tensor, Tensor], Tensor]  # latent, timestep (B,), tokens to eps


def plain(codec: Codec, dtype: str = "float32", *, compiled: bool = False) -> Codec:
    """The same weights in eager PyTorch as it comes: contiguous NCHW memory, nothing folded, no kernels of ours."""
    made = Codec(codec.bundle.name, weights=codec.bundle.folder, device=str(codec.device), dtype=dtype)
    made.model.to(memory_format=torch.contiguous_format)
    if compiled:
        for part in COMPILED:
            setattr(made.model, part, torch.compile(getattr(made.model, part)))
    return made


def rivals(codec: Codec) -> dict[str, Callable[[], Codec]]:
    """The plain codecs for this device, by name, made when called. torch.compile is for GPUs: on two cores it lost."""
    found = {"PyTorch eager, float32, NCHW": lambda: plain(codec)}
    if codec.device.type == "cuda":
        found["PyTorch eager, bfloat16, NCHW"] = lambda: plain(codec, "bfloat16")
        found["torch.compile, bfloat16, NCHW"] = lambda: plain(codec, "bfloat16", compiled=True)
    return found


class _ReachedError(Exception):
    """The encoder half is done."""


class ControlBranch:
    """The cost of a control branch: a copy of the UNet's encoder half with its middle, as ControlNet makes one.

    What it computes is thrown away, so adding its features to the UNet's, a small cost more, is left out.
    """

    def __init__(self, unet: nn.Module) -> None:
        self.copy = copy.deepcopy(unet)
        parts = dict(self.copy.named_children())
        end = next(parts[name] for name in HALF_ENDS_AT if name in parts)
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
