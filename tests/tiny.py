"""A codec of the tiny configuration with random weights: every part runs, in milliseconds, and pictures are noise."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np
import torch

from sodec import weights
from sodec.codec import Codec
from sodec.models import TINY, ModelConfig, SodecModel
from sodec.models.export import coding_of, networks_of


def write_weights(folder: Path, seed: int = 0, config: ModelConfig = TINY) -> weights.Bundle:
    """Random weights in `folder`."""
    torch.manual_seed(seed)
    model = SodecModel(config)
    with torch.no_grad():
        for part in (model.analysis, model.hyper_analysis):
            last = [module for module in part.modules() if isinstance(module, torch.nn.Conv2d)][-1]
            last.weight.mul_(20)  # so that symbols are not all zero
    reach = np.arange(-16, 17)
    chance = np.exp(-0.5 * (reach / 4) ** 2)
    z = [chance / chance.sum()] * config.z_channels
    coding = coding_of(model, z, np.full(len(z), reach[0]))
    return weights.write(folder, config.to_dict(), coding, networks_of(model))


@functools.cache
def folder() -> Path:
    """One folder of weights for the whole run of the tests."""
    path = Path(tempfile.mkdtemp(prefix="sodec-tiny-"))
    write_weights(path)
    return path


@functools.cache
def codec() -> Codec:
    """One codec for the whole run of the tests."""
    return Codec(weights=folder())


def photo(width: int, height: int, seed: int = 0) -> np.ndarray:
    """A smooth picture with some texture and edges, uint8 (H, W, 3)."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(float)
    waves = [np.sin(x / random.uniform(5, 40) + y / random.uniform(5, 40) + random.uniform(0, 6)) for _ in range(3)]
    picture = 128 + 60 * np.stack(waves, -1) + random.normal(0, 4, (height, width, 3))
    picture[height // 3 : height // 2, width // 4 : width // 2] += 50
    return np.clip(picture, 0, 255).astype(np.uint8)
