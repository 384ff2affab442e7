"""The parts joined: what the encoder computes, and the parts of the decoder, whose order is that of `flow.py`.

.. code::

    y = E(x); z = round(H_a(y)); symbols = round(gain(q) (y - mu))
    y_hat = symbols / gain(q) + mu

The mean mu is one of z alone for the first half of y, and for the second of z and the first; of `sd21` of z alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from . import lite
from .blocks import Fidelity
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
    "fidelity": lite.FidelityDecoder, "projection": lite.Projection,
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
        self.content = parts["synthesis"](config, config.content) if config.content else None
        self.fidelity = parts["fidelity"](config)
        self.vit = parts["vit"](config) if "vit" in parts else None
        self.projection = parts["projection"](config)
        self.transform = parts["transform"](config)
        self.unet = parts["unet"](config)
        self.latent_decoder = parts["latent_decoder"](config)
        self.register_buffer("alphas", cumulative_alphas(config), persistent=False)
        a = float(self.alphas[config.timestep])
        self.one_step = (a**-0.5, -((1 - a) ** 0.5) * a**-0.5)
        self.latent_scale = 1.0
        self.to(memory_format=torch.channels_last)

    def decode(self, y_hat: Tensor, z_hat: Tensor, quality: Tensor, noise: Tensor | None = None) -> Tensor:
        """The whole decoder: y_hat (B, Cy, h, w), z_hat (B, Cz, ceil(h/4), ceil(w/4)) to (B, 3, 16 h, 16 w) in 0..1."""
        flow = Flow(self, y_hat, quality, w=self.content_latent(z_hat, y_hat), noise=noise)
        return flow.run().x.float().clamp(0, 1)

    def features(self, symbols: Tensor, z_hat: Tensor, quality: Tensor) -> tuple[Tensor, ...]:
        """What synthesis reads of a stream: y_hat in float32, and with `sd21` w. Arguments as of `dequantise`."""
        y_hat = self.dequantise(symbols, z_hat, quality)
        w = self.content_latent(z_hat, y_hat)
        return (y_hat,) if w is None else (y_hat, w)

    def content_latent(self, z_hat: Tensor, y_hat: Tensor) -> Tensor | None:
        """w (B, Cw, h, w) of z_hat, of the size of y_hat; None in `lite`, which has none."""
        if self.content is None:
            return None
        return self.content(z_hat)[..., : y_hat.shape[-2], : y_hat.shape[-1]]

    def guidance(self, fidelity: Fidelity) -> Any:
        """What steers the UNet: `lite.Guidance`, or with `sd21` tokens (B, T, D)."""
        if self.vit is None:
            return self.projection(fidelity.features)
        return self.projection(self.vit(fidelity.picture.clamp(0, 1)))

    def predict_noise(self, latent: Tensor, step: Tensor, guidance: Any, noise: Tensor | None) -> Tensor:
        """eps of a latent (B, Cl, H/8, W/8) at the timestep (B,), in float32. The UNet of `lite` knows but one."""
        if isinstance(self.unet, UNet):
            return self.unet(latent, guidance, noise)
        return self.unet(latent, step, guidance)

    def denoise(self, l_t: Tensor, guidance: Any, noise: Tensor | None) -> Tensor:
        """The one step: l_t, as `transform` gives it, to l_0, both (B, Cl, H/8, W/8), in float32."""
        step = torch.full((len(l_t),), self.config.timestep, device=l_t.device)
        eps = self.predict_noise(l_t, step, guidance, noise)
        if self.one_step == (1.0, 1.0):
            return l_t.float() + eps
        keep, factor = self.one_step
        return keep * l_t.float() + factor * eps

    def picture(self, l_0: Tensor, fidelity: Fidelity, guidance: Any, noise: Tensor | None) -> Tensor:
        """The final picture of the clean latent, as `unfolded` takes it."""
        if isinstance(self.latent_decoder, LatentDecoder):
            return fidelity.pixels + self.latent_decoder(l_0, guidance.at_4, noise)
        return self.latent_decoder(l_0)

    def dequantise(self, symbols: Tensor, z_hat: Tensor, quality: Tensor) -> Tensor:
        """y_hat of symbols (B, Cy, h, w) and z_hat (B, Cz, ceil(h/4), ceil(w/4)): float32."""
        residual = symbols.float() / self.gain(quality).exp()[:, :, None, None]
        mean = self.mean(z_hat).float()[..., : symbols.shape[-2], : symbols.shape[-1]]
        return residual + (mean if self.context is None else self.context(mean, residual))

    def index_offsets(self, quality: Tensor) -> Tensor:
        """The gain as integer offsets on the scale index, in 1/16: quality (B,) to int32 (B, Cy)."""
        return torch.round(self.gain(quality) / self.config.scale_step * 16).to(torch.int32)
