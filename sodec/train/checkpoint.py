"""Files of training: checkpoints, and folders of weights that the codec reads and that training goes on from."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors
from torch import Tensor

from .. import weights
from ..errors import SodecError, TrainingError
from ..models import ModelConfig
from ..models.files import COUNT, TRAINING_FILE, coding_of, networks_of
from ..weights.bundle import coding_from
from ..weights.saving import coding_arrays
from .parts import Parts, prior_tables

ONLY_TRAINING = ("prior.", "model.scale_network.")  # prefixes of what the codec does not read
SINGULAR = {"matrices": "matrix", "biases": "bias", "factors": "factor"}
PLURAL = {singular: plural for plural, singular in SINGULAR.items()}
NEEDED = {"parts", "config", "touched", "lora", "average"}  # keys of a checkpoint without which it is none


def save(path: Path, state: dict[str, Any]) -> None:
    """Writes a checkpoint. If that fails or is interrupted, the checkpoint before it stays as it was."""
    partial = path.with_suffix(".tmp")
    try:
        torch.save(state, partial)
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        partial.unlink(missing_ok=True)
        raise TrainingError(f"{path} can't be written: {error}; the previous checkpoint is intact") from None


def load(path: Path) -> dict[str, Any]:
    """The state that `save` wrote. No code of the file is run: only tensors and plain values are read.

    Raises
    ------
    TrainingError
        The file can't be read, holds anything else, or is no checkpoint of training.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if missing := NEEDED - state.keys():
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        if not isinstance(state["config"], dict):
            raise ValueError("config is not a dictionary")
    except Exception as error:  # torch and pickle raise errors of every kind on foreign bytes
        reason = str(error).splitlines()[0] if str(error) else ""
        raise TrainingError(f"{path} is not a checkpoint of training ({type(error).__name__}: {reason})") from None
    return dict(state)


def parts_of(path: Path) -> tuple[Parts, set[str]]:
    """The parts of a checkpoint as they are used, averaged and with adapters merged; and the names of those trained.

    Raises
    ------
    TrainingError
        As `load`; or the tensors do not fit the configuration.
    """
    state = load(path)
    try:
        parts = Parts(ModelConfig.from_dict(state["config"]))
        if state["lora"]:
            parts.add_adapters(state["lora"])
        parts.load_state_dict(state["parts"])
        if state["average"]:
            parts.load_state_dict(state["average"], strict=False)
        parts.merge_adapters()
        trained = set(state["touched"])
    except (SodecError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise TrainingError(f"{path} does not fit its configuration: {str(error).splitlines()[0]}") from None
    return parts, trained


def load_parts(parts: Parts, path: Path) -> set[str]:
    """Copies what a checkpoint has trained, or all of a folder of weights, into `parts`; returns the parts' names."""
    if path.is_dir():
        source = restore(path)
        names = set(source.names())
    else:
        source, names = parts_of(path)
    if source.model.config != parts.model.config:
        raise TrainingError(f"{path} is of configuration {source.model.config.name!r}, not {parts.model.config.name!r}")
    for name in names:
        parts.part(name).load_state_dict(source.part(name).state_dict())
    return names


def coding_of_source(path: Path) -> dict[str, Tensor] | None:
    """The integers of the coding that a folder of weights has, or that a checkpoint has kept from one, by name.

    None of a checkpoint whose coding was trained: it has no integers before its export.
    """
    if not path.is_dir():
        coding = load(path).get("coding")
        return None if coding is None else dict(coding)
    return {name: torch.tensor(array) for name, array in coding_arrays(weights.find("", path).coding).items()}


def export(path: Path, folder: Path) -> weights.Bundle:
    """Writes checkpoint `path` as a folder of weights: networks in float16, what decides the symbols in integers.

    A coding that was not trained is written as it was: made anew of networks in float16, one index offset in eleven
    would be another, and older streams could not be read. Beside them goes train.safetensors, which only `restore`
    reads; it is not part of the fingerprint.
    """
    parts, _ = parts_of(path)
    kept = coding_of_source(path)
    tensors = {name: t.contiguous() for name, t in parts.state_dict().items() if name.startswith(ONLY_TRAINING)}
    extra = {TRAINING_FILE: to_safetensors(tensors)}
    if kept is None:
        coding = coding_of(parts.model, *prior_tables(parts.prior))
    else:
        coding = coding_from({name: tensor.numpy() for name, tensor in kept.items()})
    return weights.write(folder, parts.model.config.to_dict(), coding, networks_of(parts.model), extra)


def restore(folder: Path) -> Parts:
    """The parts that `export` wrote, to go on training. They are the same, except that networks are in float16.

    A folder of `sodec init` has no prior yet; the prior then begins as a new one.

    Raises
    ------
    TrainingError
        train.safetensors is missing or damaged, or does not fit.
    """
    bundle = weights.find("", folder)
    parts = Parts(ModelConfig.from_dict(dict(bundle.config)))
    new = {name: t for name, t in parts.state_dict().items() if name.startswith("prior.") or name.endswith(COUNT)}
    try:
        state = new | _as_installed(load_file(folder / TRAINING_FILE), set(new))
        state |= {f"model.{name}": torch.from_numpy(array).float() for name, array in bundle.tensors().items()}
        parts.load_state_dict(state)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise TrainingError(f"training can't go on from {folder}: {error}") from None
    return parts


def _as_installed(tensors: dict[str, Tensor], wanted: set[str]) -> dict[str, Tensor]:
    """The prior's tensors under the names that the installed compressai gives them.

    Those of its layers are `_matrix0`, `_bias0`, `_factor0` in some versions and `matrices.0`, `biases.0`, `factors.0`
    in others.
    """
    named = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(r"prior\.(?:(matrices|biases|factors)\.|_(matrix|bias|factor))(\d+)", name)
        if match and name not in wanted:
            plural, singular, number = match.groups()
            name = f"prior._{SINGULAR[plural]}{number}" if plural else f"prior.{PLURAL[singular]}.{number}"
        named[name] = tensor
    return named
