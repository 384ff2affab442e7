"""The options of a training run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from ..errors import TrainingError
from ..models import CONFIGS, ModelConfig


@dataclass(frozen=True)
class Options:
    """What `sodec train` takes, the stage excepted. See `dataclasses.replace` for changing one.

    Parameters
    ----------
    data
        A folder of pictures, or of tar shards of them.
    out
        The folder of checkpoints and logs.
    cache
        The folder of the decoded pixels, see `load_pictures`; None is out/pixels.
    model
        The name of a configuration.
    start
        Checkpoints of earlier stages, each giving the parts that were trained up to it, or a folder of exported
        weights.
    steps, minutes
        The length: one of the two.
    max_minutes
        The run stops after these, as it does after SIGTERM. Called again, it goes on from there.
    batch, size
        A step takes `batch` crops of size x size pixels, on each process.
    seed
        Of everything that is drawn at random.
    exclude
        File names of pictures to leave out.
    ema
        Decay of the average of the weights, which is what later stages and the export take; 0 keeps none.
    learning_rate, final, lowest
        In place of the stage's own: the highest learning rate, the share of it that is left at the end, and the lowest
        quality that is drawn at first.
    lora_rank
        Above 0, the UNet is trained by adapters of this rank.
    device
        "cpu" or "cuda". Several processes (`torchrun -m sodec train ...`) share a step. One process on a GPU replays
        its steps as CUDA graphs, except with `eager`, with `tensorboard`, or where there is a critic.
    compiled
        Compile each part by torch.compile.
    tensorboard, progress
        Write scalars and pictures to out/tensorboard; show a progress bar.

    Raises
    ------
    TrainingError
        The model is unknown, or the length is not given in one of steps and minutes.
    """

    data: Path
    out: Path
    cache: Path | None = None
    model: str = "lite"
    start: tuple[Path, ...] = ()
    steps: int | None = None
    minutes: float | None = None
    max_minutes: float = math.inf
    batch: int = 8
    size: int = 128
    seed: int = 0
    exclude: frozenset[str] = frozenset()
    ema: float = 0.998
    learning_rate: float | None = None
    final: float | None = None
    lowest: float | None = None
    lora_rank: int = 0
    device: str = "cpu"
    compiled: bool = False
    eager: bool = False
    tensorboard: bool = False
    progress: bool = False

    def __post_init__(self) -> None:
        if self.model not in CONFIGS:
            raise TrainingError(f"model must be one of {', '.join(CONFIGS)} (got {self.model!r})")
        if (self.steps is None) == (self.minutes is None):
            raise TrainingError(
                f"the length must be given in steps or minutes (got steps={self.steps}, minutes={self.minutes})"
            )

    @property
    def config(self) -> ModelConfig:
        """The configuration of the model."""
        return CONFIGS[self.model]

    @property
    def pixels(self) -> Path:
        """The folder of the decoded pixels."""
        return self.cache or self.out / "pixels"
