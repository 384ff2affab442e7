"""A step of a training stage, taken apart: pixels a second by batch and size, and the kernels that take the time.

    python benchmarks/train_step.py STAGE --data PHOTOS [--start WEIGHTS] [--device cuda] [--batch 24] [--size 256]

Prints, and with `--out` writes as JSON: milliseconds of a step as training runs it (CUDA graphs on a GPU), of a step
whose perceptual windows are larger or smaller, and of each operator of one step by torch.profiler. The weights are not
kept. `--model tiny --steps 2` rehearses it in seconds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from sodec.train import state as training
from sodec.train.data import Crops, batches, load_pictures
from sodec.train.optimise import Gradients
from sodec.train.options import Options
from sodec.train.stages import stage_for

ROWS = 25  # operators in the table


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("stage")
    parser.add_argument("--data", type=Path, required=True, help="folder of pictures or of tar shards")
    parser.add_argument("--cache", type=Path, help="folder of the decoded pixels")
    parser.add_argument("--model", default="lite")
    parser.add_argument("--start", type=Path, action="append", default=[], help="weights or checkpoints to begin with")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--windows", type=int, nargs="*", default=[], help="other sides of the perceptual windows")
    parser.add_argument("--steps", type=int, default=30, help="steps that are timed")
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    report: dict[str, Any] = {"stage": options.stage, "batch": options.batch, "size": options.size}
    with tempfile.TemporaryDirectory() as folder:
        run = Run(options, Path(folder))
        report |= {"device": run.name, "pictures": len(run.pictures)}
        report["as trained"] = run.timed(options.steps)
        for side in options.windows:
            training.PERCEPTUAL_ON_GPU["size"] = side
            run.begin()
            report[f"perceptual windows of {side}"] = run.timed(options.steps)
        report["operators, ms"] = run.operators()
    for name, value in report.items():
        print(f"{name}: {value}" if not isinstance(value, dict) else f"{name}:", flush=True)
        for key, number in value.items() if isinstance(value, dict) else ():
            print(f"  {number:>10}  {key}")
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


class Run:
    """A stage's state and its batches, of one size."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options, self.folder = options, folder
        self.pictures = load_pictures(options.data, options.cache or folder / "pixels")
        self.begin()

    def begin(self) -> None:
        """A new state, and crops that all have the full size: each size has a graph of its own."""
        given = self.options
        options = Options(
            given.data, self.folder, model=given.model, start=tuple(given.start), steps=1, batch=given.batch,
            size=given.size, device=given.device,
        )  # fmt: skip
        self.state = training.State(stage_for(given.stage, options.config), self.folder / "none.pt", options)
        self.device = self.state.accelerator.device
        self.name = torch.cuda.get_device_name() if self.device.type == "cuda" else "CPU"
        crops = Crops(list(self.pictures), 0)
        self.batches = batches(crops, given.batch, given.size, self.device)
        self.crops = crops

    def take(self) -> torch.Tensor:
        """A batch of the full size."""
        while (x := self.batches.take()).shape[-1] != self.options.size:
            pass
        return x

    def wait(self) -> float:
        """The time, once the device has done all."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def timed(self, steps: int) -> dict[str, float]:
        """Milliseconds of a step, of cutting its crops, and of the first one; millions of pixels a second."""
        begun = self.wait()
        self.state.advance(self.take(), 0.0)
        first = self.wait() - begun
        begun = self.wait()
        for _ in range(steps):
            x = self.take()
        cutting = (self.wait() - begun) / steps
        begun = self.wait()
        for _ in range(steps):
            self.state.advance(x, 0.0)
        step = (self.wait() - begun) / steps
        pixels = len(x) * x.shape[-2] * x.shape[-1]
        found = {
            "first step, ms": first * 1e3, "step, ms": step * 1e3, "crops, ms": cutting * 1e3,
            "Mpixel/s, crops apart": pixels / step / 1e6,
        }  # fmt: skip
        if self.device.type == "cuda":
            found["GB at most"] = torch.cuda.max_memory_allocated() / 1e9
        return {name: round(value, 2) for name, value in found.items()}

    def operators(self) -> dict[str, float]:
        """Milliseconds of the kernels of one eager step, the longest first."""
        state, cuda = self.state, self.device.type == "cuda"
        eager: Any = Gradients(
            state.gradients.objective, state.accelerator, state.parameters, state._batch, graphs=False,
            adversary=state.adversary,
        )  # fmt: skip
        x, quality = self.take().to(self.device), state._qualities(self.options.batch, 0.0)
        eager(x, quality)
        with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as found:
            eager(x, quality)
            self.wait()
        times = {
            f"{row.key[:90]} ({row.count})": (row.self_device_time_total if cuda else row.self_cpu_time_total) / 1e3
            for row in found.key_averages()
        }
        longest = sorted(times.items(), key=lambda row: -row[1])[:ROWS]
        return {"all": round(sum(times.values()), 2), **{name: round(value, 3) for name, value in longest}}


if __name__ == "__main__":
    main()
