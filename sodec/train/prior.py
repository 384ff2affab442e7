"""The learnt prior of z: CompressAI's factorised entropy bottleneck, and its integer tables for the coder."""

from __future__ import annotations

import numpy as np
import torch
from compressai.entropy_models import EntropyBottleneck
from torch import Tensor

REACH = 40  # values beyond the table's range are escapes


def make_prior(channels: int) -> EntropyBottleneck:
    """Factorised density of each channel of z (Balle et al., ICLR 2018, appendix 6.1)."""
    return EntropyBottleneck(channels, init_scale=8)


def bits(prior: EntropyBottleneck, z: Tensor) -> Tensor:
    """Bits of z (B, C, h, w) with uniform noise in place of rounding, per picture: (B,)."""
    with torch.autocast(z.device.type, enabled=False):
        noisy = z.float() + torch.rand_like(z.float()) - 0.5
        flat = noisy.permute(1, 0, 2, 3).reshape(z.shape[1], 1, -1)
        upper, lower = prior._logits_cumulative(flat + 0.5, False), prior._logits_cumulative(flat - 0.5, False)
        chance = (torch.sigmoid(upper) - torch.sigmoid(lower)).clamp_min(1e-9)
        return -torch.log2(chance).reshape(z.shape[1], len(z), -1).sum((0, 2))


@torch.no_grad()
def tables(prior: EntropyBottleneck) -> tuple[list[np.ndarray], np.ndarray]:
    """Probabilities of each channel's integers (trimmed where below 1e-5) and the first integer of each."""
    values = torch.arange(-REACH, REACH + 1).float()
    flat = values.expand(prior.channels, 1, -1)
    upper, lower = prior._logits_cumulative(flat + 0.5, False), prior._logits_cumulative(flat - 0.5, False)
    chance = (torch.sigmoid(upper) - torch.sigmoid(lower))[:, 0].double().numpy()
    probabilities, minimums = [], []
    for row in chance:
        kept = np.flatnonzero(row >= 1e-5)
        first, last = (kept[0], kept[-1]) if len(kept) else (REACH, REACH)
        probabilities.append(row[first : last + 1])
        minimums.append(first - REACH)
    return probabilities, np.array(minimums)
