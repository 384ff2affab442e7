"""The parts joined: what the encoder computes, and the parts of the decoder, whose order is that of `flow.py`.

.. code::

    y = E(x); z = round(H_a(y)); symbols = round(gain(q) (y - mu))
    y_hat = symbols / gain(q) + mu

The mean mu is one of z alone for the first half of y, and for the second of z and the first. `sd21` has neither that
nor the sum: its mu is of z, its picture D_m(l_0).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from . import lite
from .blocks import Origin
from .coding import QualityGain
from .config import ModelConfig
from .flow import Flow
from .lite import Context, LatentDecoder, UNet
from .scale_network import ScaleNetwork
from .sd21 import DiffusionUNet, VaeDecoder
from .sd21.hific import (
    DoublingTransformation,
    HificAnalysis,
    HificGenerator,
    HificHyperAnalysis,
    HificHyperSynthesis,
)
from .sd21.vit import Dinov2, Resampler

# The class of each part, by family; what a part takes and gives is the same in both.
LITE_PARTS: dict[str, Any] = {
    "analysis": lite.Analysis, "hyper_analysis": lite.HyperAnalysis, "synthesis": lite.HyperSynthesis,
    "fidelity": lite.FidelityDecoder, "vit": lite.VisionTransformer, "projection": lite.Projection,
    "transform": lite.Transformation, "unet": lite.UNet, "latent_decoder": lite.LatentDecoder,
}  # fmt: skip
SD21_PARTS: dict[str, Any] = {
    "analysis": HificAnalysis, "hyper_analysis": HificHyperAnalysis, "synthesis": HificHyperSynthesis,
    "fidelity": HificGenerator, "vit": Dinov2, "projection": Resampler,
    "transform": DoublingTransformation, "unet": DiffusionUNet, "latent_decoder": VaeDecoder,
}  # fmt: skip


def cumulative_alphas(config: ModelConfig) -> Tensor:
    """a_t of the scaled-linear schedule, (1000,) float32."""
    ends = (config.beta_start**0.5, config.beta_end**0.5)
    betas = torch.linspace(*ends, 1000, dtype=torch.float64, device="cpu") ** 2
    return torch.cumprod(1 - betas, 0).float()


class SodecModel(nn.Module):
    """Every part of SODEC, of the sizes in `config`. Parts are attributes; training freezes them by name.

    `lite` and `sd21` differ in the classes of their parts, `LITE_PARTS` and `SD21_PARTS`.

    Attributes
    ----------
    one_step
        Factors of l_t and of eps in the one step, l_0 = one_step[0] * l_t + one_step[1] * eps. Once `prepare` has
        folded them into convolutions both are 1, and l_t is what T_s gives times `latent_scale`.
    """

    alphas: Tensor
    unet: UNet | DiffusionUNet

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        parts = LITE_PARTS if config.sizes is None else SD21_PARTS
        self.analysis = parts["analysis"](config)
        self.hyper_analysis = parts["hyper_analysis"](config)
        self.gain = QualityGain(config)
        self.mean = parts["synthesis"](config, config.y_channels)
        self.scale_network = ScaleNetwork(config)
        self.context = Context(config) if config.context else None
        self.content = parts["synthesis"](config, config.content)
        self.fidelity = parts["fidelity"](config)
        self.vit = parts["vit"](config)
        self.projection = parts["projection"](config)
        self.transform = parts["transform"](config)
        self.unet = parts["unet"](config)
        self.latent_decoder = parts["latent_decoder"](config)
        self.register_buffer("alphas", cumulative_alphas(config), persistent=False)
        a = float(self.alphas[config.timestep])
        self.one_step = (a**-0.5, -((1 - a) ** 0.5) * a**-0.5)
        self.latent_scale = 1.0
        self.to(memory_format=torch.channels_last)

    def decode(self, y_hat: Tensor, z_hat: Tensor, quality: Tensor) -> Tensor:
        """The whole decoder: y_hat (B, Cy, h, w), z_hat (B, Cz, ceil(h/4), ceil(w/4)) to (B, 3, 16 h, 16 w) in 0..1."""
        w = self.content(z_hat)[..., : y_hat.shape[-2], : y_hat.shape[-1]]
        return Flow(self, y_hat, w, quality).run().x.float().clamp(0, 1)

    def denoise(self, l_t: Tensor, tokens: Tensor, origin: Origin = (0.0, 0.0)) -> Tensor:
        """The one step: l_t (B, Cl, h, w), as `transform` gives it, and tokens (B, T, D) to l_0, in float32."""
        step = torch.full((len(l_t),), self.config.timestep, device=l_t.device)
        eps = self.unet(l_t, step, tokens, origin)
        if self.one_step == (1.0, 1.0):
            return l_t.float() + eps
        keep, noise = self.one_step
        return keep * l_t.float() + noise * eps

    def picture(self, l_0: Tensor, fidelity: Tensor) -> Tensor:
        """The final picture (B, 3, H, W), about 0..1, of the clean latent and the fidelity picture."""
        if isinstance(self.latent_decoder, LatentDecoder):
            return self.latent_decoder(l_0, fidelity)
        return self.latent_decoder(l_0)

    def dequantise(self, symbols: Tensor, z_hat: Tensor, quality: Tensor) -> Tensor:
        """y_hat of symbols (B, Cy, h, w) and z_hat (B, Cz, ceil(h/4), ceil(w/4)): float32."""
        residual = symbols.float() / self.gain(quality).exp()[:, :, None, None]
        mean = self.mean(z_hat).float()[..., : symbols.shape[-2], : symbols.shape[-1]]
        return residual + (mean if self.context is None else self.context(mean, residual))

    def guidance(self, fidelity: Tensor, origin: Origin = (0.0, 0.0)) -> Tensor:
        """Guidance tokens of a fidelity picture: (B, T, D)."""
        return self.projection(self.vit(fidelity.clamp(0, 1), origin))

    def index_offsets(self, quality: Tensor) -> Tensor:
        """The gain as integer offsets on the scale index, in 1/16: quality (B,) to int32 (B, Cy)."""
        return torch.round(self.gain(quality) / self.config.scale_step * 16).to(torch.int32)
