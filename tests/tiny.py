"""A codec of the tiny configuration with random weights: every part runs, in milliseconds, and pictures are noise."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np
import torch

from sodec import weights
from sodec.codec import Codec
from sodec.entropy import gaussian_tables
from sodec.models import TINY, SodecModel


def write_weights(folder: Path, seed: int = 0) -> weights.Bundle:
    """Random weights of the tiny configuration in `folder`."""
    torch.manual_seed(seed)
    model = SodecModel(TINY)
    with torch.no_grad():
        model.analysis.leave.weight.mul_(20)  # so that symbols are not all zero
        model.hyper_analysis.leave.weight.mul_(20)
        qualities = torch.arange(2, 201) / 2
        offsets = model.index_offsets(qualities).numpy().astype(np.int32)
    coding = weights.Coding(
        z_tables=gaussian_tables([4.0] * TINY.z_channels),
        y_tables=gaussian_tables(TINY.scales),
        layers=[(*layer,) for layer in model.scale_network.export()],
        offsets=offsets,
    )
    networks = {
        name: value.numpy().astype(np.float16)
        for name, value in model.state_dict().items()
        if not name.startswith("scale_network.")
    }
    return weights.write(folder, TINY.to_dict(), coding, networks)


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
