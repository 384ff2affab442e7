"""Random weights: networks take the same time with them, but pictures are noise."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .. import weights
from ..models import ModelConfig, SodecModel
from ..models.coding import QualityGain
from ..models.files import COUNT, coding_of, empty, fill, networks_of
from ..models.lite import LatentDecoder
from ..models.scale_network import ScaleNetwork

IN_MEMORY = "random"  # stands for the folder


def write_random_weights(folder: Path, config: ModelConfig, seed: int = 0) -> weights.Bundle:
    """Writes a folder of random weights. The bytes of its streams, and so the coder's time, mean nothing."""
    torch.manual_seed(seed)
    model = SodecModel(config)
    with torch.no_grad():
        for part in (model.analysis, model.hyper_analysis):
            last = [module for module in part.modules() if isinstance(module, torch.nn.Conv2d)][-1]
            last.weight.mul_(20)  # so that symbols are not all zero
        if isinstance(model.latent_decoder, LatentDecoder):  # it adds nothing before it has learnt something
            model.latent_decoder.leave.weight.normal_(std=0.1)
    return weights.write(folder, config.to_dict(), _coding(model), networks_of(model))


def drawn(config: ModelConfig, device: torch.device) -> weights.Bundle:
    """The same without a folder: a model is drawn on `device` whenever it is read, each time the same one."""
    return _Drawn(Path(IN_MEMORY), config.to_dict(), b"\0\0\0", "none", (), device)


@dataclass(frozen=True)
class _Drawn(weights.Bundle):
    device: torch.device

    def made(self) -> SodecModel:
        config = ModelConfig.from_dict(dict(self.config))
        model = empty(config)
        del model.scale_network
        generator = torch.Generator(self.device).manual_seed(0)
        state = {name: value for name, value in model.state_dict().items() if not name.endswith(COUNT)}
        tensors = {name: _random(name, value, generator) for name, value in state.items()}
        tensors["gain.log_gain"] = QualityGain(config).log_gain.detach().to(self.device)  # that of `coding`
        for part, factor in (("analysis.", 20), ("hyper_analysis.", 64)):  # so that symbols are not all zero
            tensors[[name for name in tensors if name.startswith(part) and tensors[name].ndim == 4][-1]].mul_(factor)
        fill(model, tensors, self.folder)
        model.alphas = model.alphas.to(self.device)
        return model

    @functools.cached_property
    def coding(self) -> weights.Coding:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = empty(ModelConfig.from_dict(dict(self.config)))
            model.gain, model.scale_network = QualityGain(model.config), ScaleNetwork(model.config)
        return _coding(model)

    @property
    def size(self) -> int:
        return 2 * sum(value.numel() for value in empty(ModelConfig.from_dict(dict(self.config))).parameters())


def _random(name: str, like: Tensor, generator: torch.Generator) -> Tensor:
    """As wide as torch draws a layer's weights; norms change nothing, and there are no biases."""
    if like.ndim < 2:
        return torch.full(like.shape, float(not name.endswith("bias")), device=generator.device)
    spread = (3 * like[0].numel()) ** -0.5
    return torch.randn(like.shape, generator=generator, device=generator.device).mul_(spread)


def _coding(model: SodecModel) -> weights.Coding:
    reach = np.arange(-16, 17)
    chance = np.exp(-0.5 * (reach / 4) ** 2)
    probabilities = [chance / chance.sum()] * model.config.z_channels
    return coding_of(model, probabilities, np.full(len(probabilities), reach[0]))
