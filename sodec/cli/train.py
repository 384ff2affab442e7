"""`sodec train` and `sodec export`. Heavy imports wait until a command runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from .options import THREADS

PathArgument = click.Path(path_type=Path)
ONE_STAGE_ONLY = ("learning_rate", "final", "lowest")  # options that a recipe can't take
RECIPES = ("all", "picture")


@click.command("train")
@click.argument("stage")
@click.option("--data", type=PathArgument, required=True, help="Folder of pictures, or of tar shards of them.")
@click.option("--out", type=PathArgument, required=True, help="Folder of checkpoints and logs.")
@click.option("--cache", type=PathArgument, help="Folder of the decoded pixels (default: OUT/pixels).")
@click.option("--model", default="lite", show_default=True, help="Name of a configuration: lite, tiny, sd21, ...")
@click.option("--start", type=PathArgument, multiple=True,
              help="Checkpoint of an earlier stage, or a folder of weights. Can be repeated.")  # fmt: skip
@click.option("--steps", type=click.IntRange(1), help="Length in steps; give this or --minutes.")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="Length in minutes on this machine.")
@click.option("--max-minutes", type=click.FloatRange(0), default=math.inf,
              help="Stop after so many minutes; the same command continues (default: no limit).")  # fmt: skip
@click.option("--batch", type=click.IntRange(1), default=8, show_default=True, help="Crops a step, on each process.")
@click.option("--size", type=click.IntRange(16), default=128, show_default=True, help="Side of a crop, in pixels.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of all random numbers.")
@click.option("--exclude", multiple=True, metavar="NAME", help="File name of a picture to leave out. Can be repeated.")
@click.option("--ema", type=click.FloatRange(0, 1), default=0.998, show_default=True,
              help="Decay of the average of the weights, which is what is exported; 0 keeps none.")  # fmt: skip
@click.option("--learning-rate", type=float, help="The highest learning rate (default: the stage's).")
@click.option("--final", type=float, help="Share of the learning rate that is left at the end (default: the stage's).")
@click.option("--lowest", type=click.FloatRange(1, 100), help="Lowest quality drawn at first (default: the stage's).")
@click.option("--lora", "lora_rank", type=click.IntRange(0), default=0, help="Rank of LoRA adapters for the UNet.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--compile", "compiled", is_flag=True, help="Compile each part by torch.compile.")
@click.option("--eager", is_flag=True, help="Without CUDA graphs, which a GPU uses by default.")
@click.option("--tensorboard", is_flag=True, help="Write scalars and pictures to OUT/tensorboard.")
@THREADS
def train_command(stage: str, threads: int | None, **options: Any) -> None:
    """Train STAGE, or a piece of it (extra: train). docs/training.md explains the stages.

    \b
    STAGE is one of these, in the order of training:
      compression, warm-up, annealing, finish, decoder, adversarial
    or several of them, of which the last one is exported to OUT/weights:
      all      from nothing, one after the other
      picture  decoder and adversarial, from --start: a better picture from the same streams

    \b
      sodec train all --data photos --out run --minutes 180
      sodec train picture --data photos --out run --minutes 60 --start sodec/weights/lite
      sodec train finish --data photos --out run --minutes 30 --start sodec/weights/lite
    """
    _require_extra("sodec train")
    import torch

    from ..train.options import Options
    from ..train.run import train, train_all

    given = [f"--{name.replace('_', '-')}" for name in ONE_STAGE_ONLY if options[name]]
    given += ["--start"] if stage == "all" and options["start"] else []
    if stage in RECIPES and given:
        raise click.UsageError(f"{given[0]} goes with a single stage, not with {stage}")
    if stage == "picture" and not options["start"]:
        raise click.UsageError("picture needs --start, the weights to continue from, as --start sodec/weights/lite")
    if threads:
        torch.set_num_threads(threads)
    run = Options(**options | {"exclude": frozenset(options["exclude"]), "progress": True})
    click.echo(train_all(stage, run) if stage in RECIPES else train(stage, run))


@click.command("export")
@click.argument("checkpoint", type=PathArgument)
@click.argument("folder", type=PathArgument)
def export_command(checkpoint: Path, folder: Path) -> None:
    """Write a CHECKPOINT of training as a FOLDER of weights, for --weights (extra: train)."""
    _require_extra("sodec export")
    from ..train.checkpoint import export

    bundle = export(checkpoint, folder)
    click.echo(f"{folder}: model {bundle.name}, weights {bundle.fingerprint.hex()}")


def _require_extra(command: str) -> None:
    """Names what to install where the extra "train" is missing."""
    from ..extras import require

    for module in ("accelerate", "compressai"):
        require(module, command, "'sodec[train]'")
