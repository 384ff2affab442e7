"""The one step of the decoder.

    l_0 = (l_t - sqrt(1 - a) eps) / sqrt(a)

latent l_t and noise eps of any one shape and layout, a a number; l_0 in the latent's dtype and layout.
Math in float32: 1/sqrt(a) magnifies what a 16-bit difference would lose. One read of each input, one write.
Source: DDIM (Song et al., ICLR 2021), equation 12 with one step to a = 1.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import launch, legality
from .reference import affine_step as reference

__all__ = ["affine_step", "reference"]


@triton.jit
def _kernel(latent, noise, out, size, noise_scale, out_scale, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    a = tl.load(latent + at, mask=inside).to(tl.float32)
    b = tl.load(noise + at, mask=inside).to(tl.float32)
    tl.store(out + at, ((a - noise_scale * b) * out_scale).to(out.dtype.element_ty), mask=inside)


@torch.library.custom_op("sodec::affine_step", mutates_args=())
def affine_step(latent: Tensor, noise: Tensor, alpha: float) -> Tensor:
    """Launches the kernel."""
    legality.require(legality.affine_step(latent, noise, alpha), "affine_step")
    out = torch.empty_like(latent)
    config = launch.config("affine_step", latent)
    grid = (launch.blocks(latent.numel(), config["BLOCK"]),)
    with launch.on_device_of(latent):
        _kernel[grid](latent, noise, out, latent.numel(), (1.0 - alpha) ** 0.5, alpha**-0.5, **config)
    return out


@affine_step.register_fake
def _(latent: Tensor, noise: Tensor, alpha: float) -> Tensor:
    return torch.empty_like(latent)
