"""From a model to what a folder of weights holds: integers that decide on symbols, and networks in float16."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from .. import weights
from ..entropy import PRECISION, laplace_tables, tables_from_probabilities
from ..errors import WeightsError
from ..stream.container import QUALITY_STEPS
from .model import SodecModel

MAX_TABLES = 255  # in a set
TRAINING_FILE = "train.safetensors"  # what only training needs, beside the weights


def coding_of(model: SodecModel, probabilities: Sequence[np.ndarray], minimums: np.ndarray) -> weights.Coding:
    """The integers of `model`, given the probabilities of each channel of z and the integer that each begins at."""
    qualities = torch.arange(QUALITY_STEPS, 100 * QUALITY_STEPS + 1) / QUALITY_STEPS
    with torch.no_grad():
        offsets = model.index_offsets(qualities).numpy().astype(np.int32)
    sets = [slice(first, first + MAX_TABLES) for first in range(0, len(probabilities), MAX_TABLES)]
    return weights.Coding(
        z_tables=tuple(
            tables_from_probabilities(probabilities[part], minimums[part], precision=PRECISION) for part in sets
        ),
        y_tables=laplace_tables(model.config.scales, precision=PRECISION),
        layers=[(*layer,) for layer in model.scale_network.export()],
        offsets=offsets,
    )


def networks_of(model: SodecModel) -> dict[str, np.ndarray]:
    """Every tensor that runs in floats, float16. `WeightsError` names one that is not finite."""
    tensors = {}
    for name, value in model.state_dict().items():
        if name.startswith("scale_network."):
            continue
        array = value.to(torch.float16).numpy()
        if not np.isfinite(array).all():
            raise WeightsError(f"{name} is not finite in float16")
        tensors[name] = array
    return tensors
