"""From y_hat to the picture: the steps of the decoder, in the only place where they follow one another.

.. code::

    x_f = D_a(y_hat)                                    fidelity
    c   = F_p(F(x_f))                                   guidance
    l_t = T_s(y_hat, w)                                 transformation
    l_0 = (l_t - sqrt(1 - a_t) UNet(l_t, t, c)) / sqrt(a_t)      UNet, one step
    x   = D_m(l_0), with `lite` x_f + D_m(l_0, x_f)     latent decoder

The codec times the steps, CUDA graphs capture them, training calls them, the benchmark repeats them one by one, and the
table of parts runs them with a part left out.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from torch import Tensor

from .blocks import Origin

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
    y_hat, w
        (B, Cy, h, w) and (B, Cw, h, w).
    quality
        (B,).
    x_f
        The fidelity picture, if it is known: the first step then has nothing to do.
    origin
        The place of the window's corner in a larger picture, in guidance tokens.

    Attributes
    ----------
    x_f, x
        The fidelity and the final picture (B, 3, 16 h, 16 w), about 0..1.
    guidance
        What steers the UNet; its kind is the model's own.
    l_t, l_0
        The noisy latent as T_s gives it, and the clean one in float32.
    """

    x_f: Tensor
    guidance: Tensor
    l_t: Tensor
    l_0: Tensor
    x: Tensor

    def __init__(
        self, model: SodecModel, y_hat: Tensor, w: Tensor, quality: Tensor, *,
        x_f: Tensor | None = None, origin: Origin = (0.0, 0.0),
    ) -> None:  # fmt: skip
        self.model, self.y_hat, self.w, self.quality, self.origin = model, y_hat, w, quality, origin
        self.known = x_f

    def fidelity_step(self) -> None:
        """x_f, by D_a."""
        self.x_f = self.model.fidelity(self.y_hat, self.quality) if self.known is None else self.known

    def guidance_step(self) -> None:
        """c, by F and F_p."""
        self.guidance = self.model.guidance(self.x_f, self.origin)

    def transformation_step(self) -> None:
        """l_t, by T_s."""
        self.l_t = self.model.transform(self.y_hat, self.w, self.quality)

    def unet_step(self) -> None:
        """l_0, by the UNet and the one step."""
        self.l_0 = self.model.denoise(self.l_t, self.guidance, self.origin)

    def latent_decoder_step(self) -> None:
        """x, by D_m."""
        self.x = self.model.picture(self.l_0.to(self.y_hat.dtype), self.x_f)

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
