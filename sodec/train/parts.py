"""The model with the networks that only training needs, and the coded forward pass that most stages share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from compressai.entropy_models import EntropyBottleneck
from torch import Tensor, nn

from ..models import ModelConfig, SodecModel
from ..models.coding import quantise
from ..models.prepare import merge_adapters
from .losses import laplace_bits

# Parts that decide y_hat, given a stream: while they stay, streams stay readable.
DECIDES_Y_HAT = frozenset({"gain", "mean", "context", "scale_network", "prior"})
PRIOR_REACH = 40  # the prior's tables hold -40..40 at most; other values are coded as escapes


class Coded(NamedTuple):
    """What the decoder would receive of a batch, and what it costs."""

    y_hat: Tensor  # (B, Cy, h, w)
    z_hat: Tensor  # (B, Cz, h/4, w/4)
    bpp: Tensor  # (B,)
    z_bpp: Tensor  # (B,), the hyper latent's share of bpp
    kept: Tensor  # (B,), share of y that is coded and not SKIP

    def values(self) -> dict[str, Tensor]:
        """For the log. If z_bpp or kept stays near 0, the coding is not learning."""
        return {"bpp": self.bpp.mean(), "z_bpp": self.z_bpp.mean(), "kept": self.kept.mean()}


class Parts(nn.Module):
    """The model and the prior of z. A part's name is that of its attribute."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.model = SodecModel(config)
        # a factorised density for each channel of z (Balle et al., ICLR 2018, appendix 6.1)
        self.prior = EntropyBottleneck(config.z_channels, init_scale=8)

    def names(self) -> list[str]:
        """Names of all parts."""
        own = [name for name, _ in self.named_children() if name != "model"]
        return [*own, *(name for name, _ in self.model.named_children())]

    def part(self, name: str) -> nn.Module:
        """The part of this name."""
        return self.prior if name == "prior" else getattr(self.model, name)

    def train_only(self, names: Iterable[str]) -> list[nn.Parameter]:
        """Freezes everything but the named parts, statistics of batch norms too; returns their parameters."""
        self.requires_grad_(False).eval()
        chosen = [self.part(name).train().requires_grad_(True) for name in names]
        return [parameter for part in chosen for parameter in part.parameters()]

    def add_adapters(self, rank: int) -> list[nn.Parameter]:
        """Gives the UNet low-rank adapters (Hu et al., ICLR 2022); returns all parameters that are then trained.

        Every convolution and linear layer gets one, except the last, whose weight the affine of the one step reads.
        """
        from peft import LoraConfig, inject_adapter_in_model

        unet = self.model.unet
        last = unet.ends()[1]
        names = [name for name, m in unet.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear)) and m is not last]
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=names), unet)
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def merge_adapters(self) -> None:
        """Adds the adapters, if there are any, to the weights, and removes them."""
        merge_adapters(self.model.unet)

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
        kept = index.detach() >= 0.5  # index 0 is SKIP

        def rounded(scaled: Tensor) -> Tensor:
            return _straight_through(scaled, torch.round(scaled) * kept)

        symbols, mean, residual = quantise(y - mean, mean, gain, self.model.context, rounded)
        pixels = x.shape[-2] * x.shape[-1]
        z_bpp = prior_bits(self.prior, z) / pixels
        bpp = laplace_bits(residual, index, config) / pixels + z_bpp
        return Coded(symbols / gain + mean, z_hat, bpp, z_bpp, kept.float().mean((1, 2, 3)))


def _straight_through(x: Tensor, rounded: Tensor) -> Tensor:
    return x + (rounded - x).detach()


def prior_bits(prior: EntropyBottleneck, z: Tensor) -> Tensor:
    """Bits of z (B, C, h, w) with uniform noise in place of rounding, per picture: (B,)."""
    with torch.autocast(z.device.type, enabled=False):
        noisy = z.float() + torch.rand_like(z.float()) - 0.5
        flat = noisy.permute(1, 0, 2, 3).reshape(z.shape[1], 1, -1)
        mass = _mass(prior, flat).clamp_min(1e-9)
        return -torch.log2(mass).reshape(z.shape[1], len(z), -1).sum((0, 2))


@torch.no_grad()
def prior_tables(prior: EntropyBottleneck) -> tuple[list[np.ndarray], np.ndarray]:
    """For the coder: probabilities of each channel's integers, cut where below 1e-5, and the first integers."""
    values = torch.arange(-PRIOR_REACH, PRIOR_REACH + 1).float()
    mass = _mass(prior, values.expand(prior.channels, 1, -1))[:, 0].double().numpy()
    probabilities, minimums = [], []
    for row in mass:
        likely = np.flatnonzero(row >= 1e-5)
        first, last = (likely[0], likely[-1]) if len(likely) else (PRIOR_REACH, PRIOR_REACH)
        probabilities.append(row[first : last + 1])
        minimums.append(first - PRIOR_REACH)
    return probabilities, np.array(minimums)


def _mass(prior: EntropyBottleneck, values: Tensor) -> Tensor:
    """Probability of value - 1/2..value + 1/2 under each channel's density: (C, 1, N), as the values."""
    upper, lower = prior._logits_cumulative(values + 0.5, False), prior._logits_cumulative(values - 0.5, False)
    return torch.sigmoid(upper) - torch.sigmoid(lower)
