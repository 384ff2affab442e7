"""Checkpoints: written whole or not at all, read back as parts, averaged and merged as they will be used."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from ..errors import TrainingError
from ..models import ModelConfig
from . import lora
from .parts import Parts


def save(path: Path, state: dict[str, Any]) -> None:
    """Beside it first, then renamed: an interrupted or failed write leaves the last good checkpoint."""
    beside = path.with_suffix(".tmp")
    try:
        torch.save(state, beside)
        os.replace(beside, path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        beside.unlink(missing_ok=True)
        raise TrainingError(f"{path} can't be written: {error}; the one before is whole") from None


def load(path: Path) -> dict[str, Any]:
    """The state that `save` wrote. `TrainingError` where it is no checkpoint."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=False)
        if not {"parts", "config", "touched"} <= state.keys():
            raise KeyError("parts, config, touched")
    except Exception as error:  # whatever torch and pickle raise on foreign bytes
        raise TrainingError(f"{path} is not a checkpoint of training: {type(error).__name__}: {error}") from None
    return dict(state)


def parts_of(path: Path) -> tuple[Parts, set[str]]:
    """The parts of a checkpoint, their averages where it has them, LoRA merged; and the names of those trained."""
    state = load(path)
    parts = Parts(ModelConfig.from_dict(state["config"]))
    if state["lora"]:
        lora.inject(parts, state["lora"])
    parts.load_state_dict(state["parts"])
    if state["average"]:
        parts.load_state_dict(state["average"], strict=False)
    lora.merge(parts)
    return parts, set(state["touched"])
