"""What training holds beside the model, and the coded forward pass that every stage but the first shares."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..models import ModelConfig, SodecModel
from .latent_encoder import LatentEncoder
from .losses import laplace_bits
from .prior import bits as prior_bits
from .prior import make_prior


class Coded(NamedTuple):
    """What the decoder would receive of a batch, and its cost."""

    y_hat: Tensor  # (B, Cy, h, w)
    z_hat: Tensor  # (B, Cz, h/4, w/4)
    bpp: Tensor  # (B,)
    z_bpp: Tensor  # (B,), the hyper latent's part of it
    kept: Tensor  # (B,), share of y that is coded and not SKIP

    def values(self) -> dict[str, Tensor]:
        """For the log. A hyper latent of no bits or a share that stays small says that the coding is not learning."""
        return {"bpp": self.bpp.mean(), "z_bpp": self.z_bpp.mean(), "kept": self.kept.mean()}


class Parts(nn.Module):
    """The model with the parts that only training needs. A part's name is its attribute's.

    There is a latent encoder for `lite` alone, whose autoencoder is trained here.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.model = SodecModel(config)
        self.prior = make_prior(config.z_channels)
        self.latent_encoder: nn.Module | None = None
        if config.sizes is None:
            self.latent_encoder = LatentEncoder(config).to(memory_format=torch.channels_last)

    def names(self) -> list[str]:
        """Names of all parts."""
        own = [name for name, _ in self.named_children() if name != "model"]
        return [*own, *(name for name, _ in self.model.named_children())]

    def part(self, name: str) -> nn.Module:
        """The part of this name."""
        return getattr(self, name) if name in ("prior", "latent_encoder") else getattr(self.model, name)

    def train_only(self, names: Iterable[str]) -> list[nn.Parameter]:
        """Freezes everything but the named parts; returns their parameters."""
        self.requires_grad_(False)
        chosen = [parameter for name in names for parameter in self.part(name).parameters()]
        for parameter in chosen:
            parameter.requires_grad_(True)
        return chosen

    def code(self, x: Tensor, quality: Tensor) -> Coded:
        """Analysis and coding as the codec does it; rounding passes the gradient straight through.

        The rate is that of uniform noise in place of rounding, the decoder sees what rounding gives
        (Minnen and Singh, ICIP 2020).
        """
        config = self.model.config
        y = self.model.analysis(x).float()
        z = self.model.hyper_analysis(y).float()
        z_hat = _straight_through(z, torch.round(z))
        mean = self.model.mean(z_hat).float()[..., : y.shape[-2], : y.shape[-1]]
        log_gain = self.model.gain(quality)
        offset = log_gain / config.scale_step
        offset = _straight_through(offset, torch.round(offset * 16) / 16)[:, :, None, None]
        index = self.model.scale_network(z_hat)[..., : y.shape[-2], : y.shape[-1]] + offset
        gain = log_gain.exp()[:, :, None, None]
        residual = (y - mean) * gain
        kept = index.detach() >= 0.5  # index 0 is SKIP
        symbols = _straight_through(residual, torch.round(residual) * kept)
        if self.model.context is not None:
            mean = self.model.context(mean, symbols / gain)
            residual = (y - mean) * gain  # of the first half it stays what it was
            symbols = _straight_through(residual, torch.round(residual) * kept)
        pixels = x.shape[-2] * x.shape[-1]
        z_bpp = prior_bits(self.prior, z) / pixels
        bpp = laplace_bits(residual, index, config) / pixels + z_bpp
        return Coded(symbols / gain + mean, z_hat, bpp, z_bpp, kept.float().mean((1, 2, 3)))


def _straight_through(x: Tensor, rounded: Tensor) -> Tensor:
    return x + (rounded - x).detach()
