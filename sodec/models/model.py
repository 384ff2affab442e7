"""The parts joined: what the encoder computes, and what the decoder computes from it.

.. code::

    y = E(x); z = round(H_a(y)); symbols = round(gain(q) (y - mu(z)))
    y_hat = symbols / gain(q) + mu(z); x_f = D_a(y_hat); c = F_p(F(x_f)); l_t = T_s(y_hat, H_s(z))
    l_0 = (l_t - sqrt(1 - a_t) UNet(l_t, t, c)) / sqrt(a_t); x = D_m(l_0)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .blocks import PixelDecoder
from .coding import Analysis, HyperAnalysis, HyperSynthesis, QualityGain, QualityShift
from .config import ModelConfig
from .decoding import Projection, Transformation, VisionTransformer
from .scale_network import ScaleNetwork
from .unet import UNet

VARIANTS = ("full", "fidelity", "no_unet", "zero_tokens", "zero_content")


class FidelityDecoder(nn.Module):
    """D_a: y_hat (B, Cy, h, w) to the fidelity picture x_f (B, 3, 16 h, 16 w), about 0..1."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.shift = QualityShift(config, config.fidelity[0])
        self.decoder = PixelDecoder(config.y_channels, config.fidelity, config.fidelity_blocks)

    def forward(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        return self.decoder(y_hat, self.shift(quality).to(y_hat.dtype))


def cumulative_alphas(config: ModelConfig) -> Tensor:
    """a_t of the scaled-linear schedule, (1000,) float32."""
    betas = torch.linspace(config.beta_start**0.5, config.beta_end**0.5, 1000, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0).float()


class SodecModel(nn.Module):
    """Every part of SODEC, of the sizes in `config`. Parts are attributes; training freezes them by name."""

    alphas: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.analysis = Analysis(config)
        self.hyper_analysis = HyperAnalysis(config)
        self.gain = QualityGain(config)
        self.mean = HyperSynthesis(config, config.y_channels)
        self.scale_network = ScaleNetwork(config)
        self.content = HyperSynthesis(config, config.content)
        self.fidelity = FidelityDecoder(config)
        self.vit = VisionTransformer(config)
        self.projection = Projection(config)
        self.transform = Transformation(config)
        self.unet = UNet(config)
        self.latent_decoder = PixelDecoder(config.latent, config.decoder, config.decoder_blocks)
        self.register_buffer("alphas", cumulative_alphas(config), persistent=False)
        self.to(memory_format=torch.channels_last)

    def decode(
        self,
        y_hat: Tensor,
        z_hat: Tensor,
        quality: Tensor,
        *,
        variant: str = "full",
        tokens: Tensor | None = None,
    ) -> Tensor:
        """The whole decoder: y_hat (B, Cy, h, w), z_hat (B, Cz, ceil(h/4), ceil(w/4)) to (B, 3, 16 h, 16 w) in 0..1.

        `variant` leaves a part out, for the table of what each is worth: "fidelity" (x_f alone), "no_unet"
        (l_0 = l_t), "zero_tokens", "zero_content" (w = 0). `tokens` (B, T, D) replace the picture's own.
        """
        fidelity = self.fidelity(y_hat, quality)
        if variant == "fidelity":
            return fidelity.float().clamp(0, 1)
        w = self.content(z_hat)[..., : y_hat.shape[-2], : y_hat.shape[-1]]
        return self.refine(y_hat, w, fidelity, quality, variant=variant, tokens=tokens)

    def refine(
        self,
        y_hat: Tensor,
        w: Tensor,
        fidelity: Tensor,
        quality: Tensor,
        origin: tuple[float, float] = (0.0, 0.0),
        *,
        variant: str = "full",
        tokens: Tensor | None = None,
    ) -> Tensor:
        """From the fidelity picture (B, 3, 16 h, 16 w) and the content w (B, Cw, h, w) to the final picture in 0..1."""
        if variant not in VARIANTS:
            raise ValueError(f"variant {variant!r} is none of {', '.join(VARIANTS)}")
        l_t = self.transform(y_hat, torch.zeros_like(w) if variant == "zero_content" else w, quality)
        if variant == "no_unet":
            l_0 = l_t.float()
        else:
            tokens = self.guidance(fidelity, origin) if tokens is None else tokens
            l_0 = self.denoise(l_t, torch.zeros_like(tokens) if variant == "zero_tokens" else tokens, origin)
        return self.latent_decoder(l_0.to(y_hat.dtype)).float().clamp(0, 1)

    def denoise(self, l_t: Tensor, tokens: Tensor, origin: tuple[float, float] = (0.0, 0.0)) -> Tensor:
        """The one step: l_t (B, Cl, h, w) and tokens (B, T, D) to l_0, in float32."""
        step = torch.full((len(l_t),), self.config.timestep, device=l_t.device)
        return self.remove(l_t, self.unet(l_t, step, tokens, origin))

    def remove(self, l_t: Tensor, eps: Tensor) -> Tensor:
        """l_0 = (l_t - sqrt(1 - a_t) eps) / sqrt(a_t) at the configured t."""
        a = self.alphas[self.config.timestep]
        return (l_t.float() - (1 - a).sqrt() * eps) / a.sqrt()

    def guidance(self, fidelity: Tensor, origin: tuple[float, float] = (0.0, 0.0)) -> Tensor:
        """Guidance tokens of a fidelity picture: (B, T, D)."""
        return self.projection(self.vit(fidelity.clamp(0, 1), origin))

    def index_offsets(self, quality: Tensor) -> Tensor:
        """The gain as integer offsets on the scale index, in 1/16: quality (B,) to int32 (B, Cy)."""
        return torch.round(self.gain(quality) / self.config.scale_step * 16).to(torch.int32)
