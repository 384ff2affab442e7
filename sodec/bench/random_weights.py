"""Weights drawn at random: networks take the same time with them, and pictures are noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from .. import weights
from ..models import ModelConfig, SodecModel
from ..models.decoding import LatentDecoder
from ..models.export import coding_of, networks_of


def write_random_weights(folder: Path, config: ModelConfig, seed: int = 0) -> weights.Bundle:
    """A folder of weights for `config`. The bytes of its streams, and so the coder's time, mean nothing."""
    torch.manual_seed(seed)
    model = SodecModel(config)
    with torch.no_grad():
        for part in (model.analysis, model.hyper_analysis):
            last = [module for module in part.modules() if isinstance(module, torch.nn.Conv2d)][-1]
            last.weight.mul_(20)  # so that symbols are not all zero
        if isinstance(model.latent_decoder, LatentDecoder):  # it adds nothing before it has learnt something
            model.latent_decoder.leave.weight.normal_(std=0.1)
    reach = np.arange(-16, 17)
    chance = np.exp(-0.5 * (reach / 4) ** 2)
    probabilities = [chance / chance.sum()] * config.z_channels
    coding = coding_of(model, probabilities, np.full(len(probabilities), reach[0]))
    return weights.write(folder, config.to_dict(), coding, networks_of(model))
