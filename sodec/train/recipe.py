"""All stages in the paper's order as one run: each has a share of the budget and starts from those before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from . import checkpoint
from .export import export
from .run import train


class Step(NamedTuple):
    """A stage of the recipe."""

    stage: str
    share: float  # of the whole budget
    start: tuple[str, ...] = ()  # earlier stages whose parts it takes
    large: bool = False  # crops half again as wide and half as many: the later stages see more of a picture


# After what paid in lite's trainings, docs/training-log.md; there the critic had none.
RECIPE = (
    Step("autoencoder", 0.05),
    Step("compression", 0.30),
    Step("denoiser", 0.05, ("autoencoder",)),
    Step("warm-up", 0.05, ("autoencoder", "compression", "denoiser")),
    Step("annealing", 0.20, ("warm-up",), large=True),
    Step("finish", 0.10, ("annealing",), large=True),
    Step("decoder", 0.20, ("finish",), large=True),
    Step("adversarial", 0.05, ("decoder",), large=True),
)


def train_all(
    data: Path,
    cache: Path,
    out: Path,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    batch: int = 8,
    size: int = 128,
    **options: Any,
) -> Path:
    """Trains every stage of `RECIPE` and exports the last to out/weights, which is returned.

    A run that was ended, by `max_minutes` of a stage or by SIGTERM, goes on where it was when called again; until all
    stages are through, the checkpoint of the one under way is returned.

    Parameters
    ----------
    steps, minutes
        Of all stages together.
    batch, size
        Of the early stages: see `train`, which takes the other `options` too, a `start` excepted.
    """
    path = out
    for step in RECIPE:
        path = train(
            step.stage, data, cache, out,
            start=tuple(out / f"{stage}.pt" for stage in step.start),
            steps=None if steps is None else max(1, round(step.share * steps)),
            minutes=None if minutes is None else step.share * minutes,
            batch=max(1, batch // 2) if step.large else batch,
            size=size * 3 // 2 if step.large else size,
            **options,
        )  # fmt: skip
        if not checkpoint.load(path)["finished"]:
            return path
    export(path, out / "weights")
    return out / "weights"
