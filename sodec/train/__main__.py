"""`sodec train STAGE --data FOLDER --out FOLDER --minutes N`: one stage of training or a piece of it, or all stages."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch

from ..models import CONFIGS
from .recipe import train_all
from .run import train
from .stages import STAGES


def main(arguments: list[str] | None = None) -> None:
    """Parses the command line and trains."""
    parser = argparse.ArgumentParser("sodec train", description=__doc__)
    parser.add_argument("stage", choices=(*STAGES, "all"), help="all: one after the other, then OUT/weights")
    parser.add_argument("--data", type=Path, required=True, help="folder of pictures, or of tar shards of them")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints and logs")
    parser.add_argument("--cache", type=Path, help="folder of the decoded pixels (default: OUT/pixels)")
    parser.add_argument("--model", choices=CONFIGS, default="lite")
    parser.add_argument(
        "--start", type=Path, nargs="*", default=(), help="checkpoints of earlier stages, or a folder of weights"
    )
    parser.add_argument("--steps", type=int, help="length in steps ...")
    parser.add_argument("--minutes", type=float, help="... or in minutes of this machine")
    parser.add_argument("--max-minutes", type=float, default=math.inf, help="stop early; the same command goes on")
    parser.add_argument("--batch", type=int, default=8, help="crops a step, on each process")
    parser.add_argument("--size", type=int, default=128, help="side of a crop in pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--exclude", nargs="*", default=(), help="names of pictures to leave out")
    parser.add_argument("--ema", type=float, default=0.998, help="decay of the average that is exported; 0: none")
    parser.add_argument("--learning-rate", type=float, help="at its highest (default: the stage's)")
    parser.add_argument("--final", type=float, help="share of it that is left at the end (default: the stage's)")
    parser.add_argument("--lowest", type=float, help="lowest quality drawn at the start (default: the stage's)")
    parser.add_argument("--lora", type=int, default=0, dest="lora_rank", help="train the UNet by adapters of this rank")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--compile", action="store_true", dest="compiled", help="by torch.compile, part by part")
    parser.add_argument("--eager", action="store_true", help="without CUDA graphs")
    parser.add_argument("--tensorboard", action="store_true", help="scalars and pictures in OUT/tensorboard")
    parser.add_argument("--threads", type=int)
    options = vars(parser.parse_args(arguments))
    if threads := options.pop("threads"):
        torch.set_num_threads(threads)
    options["cache"] = options["cache"] or options["out"] / "pixels"
    options["progress"] = True
    options |= {"start": tuple(options["start"]), "exclude": frozenset(options["exclude"])}
    stage, data, cache, out = (options.pop(name) for name in ("stage", "data", "cache", "out"))
    if stage != "all":
        print(train(stage, data, cache, out, **options))
        return
    for name in ("start", "learning_rate", "final", "lowest"):
        if options.pop(name):
            parser.error(f"--{name.replace('_', '-')} is for one stage, not for all")
    print(train_all(data, cache, out, **options))


if __name__ == "__main__":
    main()
