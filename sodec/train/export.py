"""From a training checkpoint to a folder of weights that the codec reads, and back to go on training from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from .. import weights
from ..container import QUALITY_STEPS
from ..entropy import PRECISION, gaussian_tables, tables_from_probabilities
from ..errors import TrainingError
from ..models import ModelConfig
from . import checkpoint, prior
from .parts import Parts

TRAINING_FILE = "train.safetensors"
ONLY_TRAINING = ("prior.", "latent_encoder.", "model.scale_network.")  # prefixes of what the codec does not read


def export(path: Path, folder: Path) -> weights.Bundle:
    """Writes the weights of checkpoint `path` to `folder`: networks in float16, what decides on symbols in integers.

    Beside them goes train.safetensors, not needed by the codec nor part of the fingerprint: see `restore`.
    """
    parts, _ = checkpoint.parts_of(path)
    kept = {n: value.contiguous() for n, value in parts.state_dict().items() if n.startswith(ONLY_TRAINING)}
    extra = {TRAINING_FILE: save(kept)}
    return weights.write(folder, parts.model.config.to_dict(), coding(parts), networks(parts), extra)


def restore(folder: Path) -> Parts:
    """The parts as `export` wrote them, to train on from: all as they were, but networks rounded to float16."""
    bundle = weights.find("", folder)
    parts = Parts(ModelConfig.from_dict(dict(bundle.config)))
    try:
        state = load_file(folder / TRAINING_FILE)
        state |= {f"model.{name}": torch.from_numpy(array).float() for name, array in bundle.tensors().items()}
        parts.load_state_dict(state)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise TrainingError(f"{folder} can't be trained on from: {error}") from None
    return parts


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
