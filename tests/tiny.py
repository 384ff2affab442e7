"""A codec of the tiny configuration with random weights: every part runs in milliseconds, and pictures are noise."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np

from sodec import weights
from sodec.bench.random_weights import write_random_weights
from sodec.codec import Codec
from sodec.models import TINY, ModelConfig
from sodec.pipeline.threads import Tasks


def write_weights(folder: Path, seed: int = 0, config: ModelConfig = TINY) -> weights.Bundle:
    """Random weights in `folder`."""
    return write_random_weights(folder, config, seed)


@functools.cache
def folder() -> Path:
    """A folder of weights, the same for all tests."""
    path = Path(tempfile.mkdtemp(prefix="sodec-tiny-"))
    write_weights(path)
    return path


@functools.cache
def codec() -> Codec:
    """A codec, the same for all tests."""
    return Codec(weights=folder())


def noted_tasks(monkeypatch) -> list:
    """A list that every task which is given to threads is added to from now on."""
    tasks, submit = [], Tasks.submit

    def noted(self, *arguments):
        tasks.append(submit(self, *arguments))
        return tasks[-1]

    monkeypatch.setattr(Tasks, "submit", noted)
    return tasks


def photo(width: int, height: int, seed: int = 0) -> np.ndarray:
    """A smooth picture with some texture and edges, uint8 (H, W, 3)."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(float)
    waves = [np.sin(x / random.uniform(5, 40) + y / random.uniform(5, 40) + random.uniform(0, 6)) for _ in range(3)]
    picture = 128 + 60 * np.stack(waves, -1) + random.normal(0, 4, (height, width, 3))
    picture[height // 3 : height // 2, width // 4 : width // 2] += 50
    return np.clip(picture, 0, 255).astype(np.uint8)
