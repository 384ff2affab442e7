"""From a training checkpoint to a folder of weights that the codec reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from .. import weights
from ..container import QUALITY_STEPS
from ..entropy import PRECISION, gaussian_tables, tables_from_probabilities
from ..errors import TrainingError
from . import prior
from .parts import Parts
from .run import CONFIGS


def export(checkpoint: Path, folder: Path) -> weights.Bundle:
    """Writes the weights in `checkpoint` to `folder`: networks in float16, what decides on symbols in integers."""
    try:
        saved = torch.load(checkpoint, weights_only=False)
        parts = Parts(CONFIGS[saved["model"]])
        parts.load_state_dict(saved["parts"])
    except (OSError, KeyError, RuntimeError) as error:
        raise TrainingError(f"{checkpoint} is not a checkpoint of training: {error}") from None
    return weights.write(folder, parts.model.config.to_dict(), coding(parts), networks(parts))


def coding(parts: Parts) -> weights.Coding:
    """The integers of `parts`: frequency tables, scale network, index offsets of every quality a stream can hold."""
    model, config = parts.model, parts.model.config
    probabilities, minimums = prior.tables(parts.prior)
    qualities = torch.arange(QUALITY_STEPS, 100 * QUALITY_STEPS + 1) / QUALITY_STEPS
    with torch.no_grad():
        offsets = model.index_offsets(qualities).numpy().astype(np.int32)
    return weights.Coding(
        z_tables=tables_from_probabilities(probabilities, minimums, precision=PRECISION),
        y_tables=gaussian_tables(config.scales, precision=PRECISION),
        layers=[(*layer,) for layer in model.scale_network.export()],
        offsets=offsets,
    )


def networks(parts: Parts) -> dict[str, np.ndarray]:
    """Every tensor that runs in floats, float16. `TrainingError` names one that is not finite."""
    tensors = {}
    for name, value in parts.model.state_dict().items():
        if name.startswith("scale_network."):
            continue
        array = value.float().numpy().astype(np.float16)
        if not np.isfinite(array).all():
            raise TrainingError(f"{name} is not finite in float16")
        tensors[name] = array
    return tensors
