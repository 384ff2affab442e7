"""Runs of the tiny configuration, a few steps each: checkpoints that several test files read."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from tiny import photo
from torch import Tensor

from sodec.train.checkpoint import parts_of
from sodec.train.options import Options
from sodec.train.run import train


@functools.cache
def pictures() -> Path:
    """A folder of three pictures."""
    folder = Path(tempfile.mkdtemp(prefix="sodec-pictures-"))
    for number in range(3):
        Image.fromarray(photo(160, 140, number)).save(folder / f"{number}.png")
    return folder


@functools.cache
def _pixels() -> Path:
    return Path(tempfile.mkdtemp(prefix="sodec-pixels-"))


def run(stage: str, out: Path, **options: Any) -> Path:
    """Three steps of a stage, or what the options say; returns its checkpoint."""
    defaults = {"cache": _pixels(), "model": "tiny", "batch": 2, "size": 64, "steps": 3}
    return train(stage, Options(pictures(), out, **{**defaults, **options}))


@functools.cache
def chain() -> dict[str, Path]:
    """A checkpoint of each of the first stages, each from the one before."""
    out = Path(tempfile.mkdtemp(prefix="sodec-chain-"))
    paths = {}
    paths["compression"] = run("compression", out)
    paths["warm-up"] = run("warm-up", out, start=(paths["compression"],))
    paths["annealing"] = run("annealing", out, start=(paths["warm-up"],))
    return paths


def parameters(path: Path) -> dict[str, Tensor]:
    """The averaged weights, as later stages and the export use them."""
    return parts_of(path)[0].state_dict()
