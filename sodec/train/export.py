"""From a training checkpoint to a folder of weights that the codec reads, and back to go on training from it."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from .. import weights
from ..errors import TrainingError
from ..models import ModelConfig
from ..models.export import TRAINING_FILE, coding_of, networks_of
from . import checkpoint, prior
from .parts import Parts

ONLY_TRAINING = ("prior.", "latent_encoder.", "model.scale_network.")  # prefixes of what the codec does not read


def export(path: Path, folder: Path) -> weights.Bundle:
    """Writes the weights of checkpoint `path` to `folder`: networks in float16, what decides on symbols in integers.

    Beside them goes train.safetensors, not needed by the codec nor part of the fingerprint: see `restore`.
    """
    parts, _ = checkpoint.parts_of(path)
    kept = {n: value.contiguous() for n, value in parts.state_dict().items() if n.startswith(ONLY_TRAINING)}
    extra = {TRAINING_FILE: save(kept)}
    coding, networks = coding_of(parts.model, *prior.tables(parts.prior)), networks_of(parts.model)
    return weights.write(folder, parts.model.config.to_dict(), coding, networks, extra)


def restore(folder: Path) -> Parts:
    """The parts as `export` wrote them, to train on from: all as they were, but networks rounded to float16.

    Those of `sodec init` have no prior yet; it begins as a new one.
    """
    bundle = weights.find("", folder)
    parts = Parts(ModelConfig.from_dict(dict(bundle.config)))
    new = {f"prior.{name}": value for name, value in parts.prior.state_dict().items()}
    try:
        state = new | load_file(folder / TRAINING_FILE)
        state |= {f"model.{name}": torch.from_numpy(array).float() for name, array in bundle.tensors().items()}
        parts.load_state_dict(state)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise TrainingError(f"{folder} can't be trained on from: {error}") from None
    return parts
