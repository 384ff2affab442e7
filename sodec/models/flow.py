"""From y_hat to the picture: the steps of the decoder, in the only place where they follow one another.

.. code::

    x_f, features = D_a(y_hat)                          fidelity
    c   = F_p(features), with `sd21` F_p(F(x_f))        guidance
    l_t = T_s(y_hat), with `sd21` T_s(y_hat, w)         transformation
    l_0 = (l_t - sqrt(1 - a_t) UNet(l_t, c, noise)) / sqrt(a_t)  UNet, one step
    x   = x_f + D_m(l_0, c, noise), with `sd21` D_m(l_0)         latent decoder

The codec times the steps, CUDA graphs capture them, training calls them, the benchmark repeats them one by one, and the
table of parts runs them with a part left out.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from torch import Tensor

from .blocks import Fidelity, unfolded

if TYPE_CHECKING:
    from .model import SodecModel

# Called with a step's name; the step runs inside of what it returns.
Hook = Callable[[str], AbstractContextManager[None]]


def no_hook(name: str) -> AbstractContextManager[None]:
    """Runs the steps with nothing around them."""
    return nullcontext()


class Flow:
    """One run of the decoder. Each step reads what the steps before it have left, so each can be run again alone.

    Parameters
    ----------
    y_hat
        (B, Cy, h, w).
    quality
        (B,).
    w
        (B, Cw, h, w), which only `sd21` has.
    noise
        (B, Cn, 4 h, 4 w), which only `lite` has: `place_noise` of the window. None is none.
    fidelity
        What D_a gives, if it is known: the first step then has nothing to do.

    Attributes
    ----------
    guidance
        What steers the UNet; its kind is the model's own.
    l_t, l_0
        The noisy latent as T_s gives it, and the clean one in float32.
    pixels
        The final picture as `unfolded` takes it.
    """

    fidelity: Fidelity
    guidance: Any
    l_t: Tensor
    l_0: Tensor
    pixels: Tensor

    def __init__(
        self, model: SodecModel, y_hat: Tensor, quality: Tensor, *,
        w: Tensor | None = None, noise: Tensor | None = None, fidelity: Fidelity | None = None,
    ) -> None:  # fmt: skip
        self.model, self.y_hat, self.quality, self.w, self.known = model, y_hat, quality, w, fidelity
        channels = model.config.noise
        if noise is None and channels:
            batch, _, height, width = y_hat.shape
            noise = y_hat.new_zeros(batch, channels, 4 * height, 4 * width)
        self.noise = noise

    @property
    def x_f(self) -> Tensor:
        """The fidelity picture (B, 3, 16 h, 16 w), about 0..1."""
        return self.fidelity.picture

    @property
    def x(self) -> Tensor:
        """The final picture (B, 3, 16 h, 16 w), about 0..1."""
        return unfolded(self.pixels)

    def fidelity_step(self) -> None:
        """x_f, by D_a."""
        self.fidelity = self.model.fidelity(self.y_hat, self.quality) if self.known is None else self.known

    def guidance_step(self) -> None:
        """c, by F and F_p."""
        self.guidance = self.model.guidance(self.fidelity)

    def transformation_step(self) -> None:
        """l_t, by T_s."""
        content = () if self.w is None else (self.w,)
        self.l_t = self.model.transform(self.y_hat, self.quality, *content)

    def unet_step(self) -> None:
        """l_0, by the UNet and the one step."""
        self.l_0 = self.model.denoise(self.l_t, self.guidance, self.noise)

    def latent_decoder_step(self) -> None:
        """x, by D_m."""
        l_0 = self.l_0.to(self.y_hat.dtype)
        self.pixels = self.model.picture(l_0, self.fidelity, self.guidance, self.noise)

    def run(self, hook: Hook = no_hook) -> Flow:
        """All steps in turn."""
        for name, step in STEPS.items():
            with hook(name):
                step(self)
        return self


STEPS: dict[str, Callable[[Flow], None]] = {
    "fidelity": Flow.fidelity_step,
    "guidance": Flow.guidance_step,
    "transformation": Flow.transformation_step,
    "UNet": Flow.unet_step,
    "latent decoder": Flow.latent_decoder_step,
}
