"""The log of a run: a line of JSON every LOG_EVERY steps, a progress bar, and TensorBoard if it is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

LOG_EVERY = 50


class Report:
    """The log of one stage in `folder`. With `progress` a bar is shown too."""

    def __init__(self, folder: Path, stage: str, *, progress: bool, tensorboard: bool) -> None:
        self.log = folder / f"{stage}.jsonl"
        self.bar = tqdm(total=100.0, unit="%", desc=stage, disable=not progress, bar_format="{l_bar}{bar}|{postfix}")
        self.board: Any = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(folder / "tensorboard" / stage)

    def step(
        self, step: int, seconds: float, progress: float, speed: dict[str, float], values: dict[str, Tensor]
    ) -> None:
        """Writes one line: the step, the seconds spent so far, the speed, and every term of the loss."""
        numbers = {name: round(float(value), 5) for name, value in values.items()}
        line = {"step": step, "seconds": round(seconds), **speed, **numbers}
        with self.log.open("a") as lines:
            lines.write(json.dumps(line) + "\n")
        self.bar.n = 100 * min(1.0, progress)
        left = seconds / progress * (1 - progress) / 60 if progress > 0 else 0.0
        self.bar.set_postfix({**numbers, **speed, "left": f"{left:.0f} min"})
        if self.board is not None:
            for name, value in {**numbers, **speed}.items():
                self.board.add_scalar(name, value, step)

    def pictures(self, step: int, original: Tensor, decoded: Tensor) -> None:
        """Originals above decoded pictures, (B, 3, H, W) each, at most four of them."""
        if self.board is not None:
            rows = [torch.cat(list(x[:4].detach().float().cpu().clamp(0, 1)), -1) for x in (original, decoded)]
            self.board.add_image("original, decoded", torch.cat(rows, -2), step)

    def close(self) -> None:
        """Closes the bar and TensorBoard's file."""
        self.bar.close()
        if self.board is not None:
            self.board.close()
