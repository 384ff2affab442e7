"""DDIM: the many steps that the one step replaces, kept as the baseline it is measured against.

    x_0 = (x_t - sqrt(1 - a_t) eps(x_t, t)) / sqrt(a_t)
    x_s = sqrt(a_s) x_0 + sqrt(1 - a_s) eps,   s the next timestep; after the last a_s = 1, so the result is x_0

Source: Song et al., ICLR 2021, equation 12 with sigma = 0. One step is the codec's own.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def timesteps(steps: int, start: int = 999) -> list[int]:
    """`steps` timesteps from `start` down, evenly spaced; one more would be -1 ("trailing", Lin et al., 2024)."""
    if not 1 <= steps <= start + 1:
        raise ValueError(f"steps must be 1 to {start + 1} from timestep {start} (got {steps})")
    return [round((start + 1) * (steps - i) / steps) - 1 for i in range(steps)]


@torch.no_grad()
def ddim(
    unet: Callable[[Tensor, Tensor], Tensor], latent: Tensor, steps: int, alphas: Tensor, start: int = 999
) -> Tensor:
    """The clean latent, in float32, after `steps` calls of `unet`.

    Parameters
    ----------
    unet
        Latent (B, C, h, w) of the dtype of `latent` and timestep (B,) to its noise (B, C, h, w).
    latent
        l_t, or noise of unit variance, at the timestep `start`.
    alphas
        Cumulative products a_t of the schedule, (1000,): `SodecModel.alphas`.
    """
    x = latent.float()
    at = timesteps(steps, start)
    for now, following in zip(at, [*at[1:], None], strict=True):
        step = torch.full((len(x),), now, device=x.device)
        eps = unet(x.to(latent.dtype), step).float()
        a = alphas[now].float()
        x = (x - (1 - a).sqrt() * eps) / a.sqrt()
        if following is not None:
            a = alphas[following].float()
            x = a.sqrt() * x + (1 - a).sqrt() * eps
    return x
