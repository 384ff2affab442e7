"""One stage, in pieces: from checkpoints to a checkpoint, whose state resumes the very same run."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path
from typing import Any

import torch

from ..errors import TrainingError
from ..models import LITE, TINY, ModelConfig
from .data import Crops, load_pictures
from .export import restore
from .parts import Parts
from .perceptual import make_perceptual
from .stages import PERCEPTUAL_EVERY, STAGES, Batch, Stage

CONFIGS = {"lite": LITE, "tiny": TINY}
WARM_UP_STEPS = 100
SAVE_SECONDS = 120
# Elsewhere bf16 is emulated. 3x3 convolutions on two cores: Zen 4, which has it, 415 GFLOP/s against 200 in float32;
# Zen 3, 16 against 112.
BFLOAT16 = torch.cpu._is_avx512_bf16_supported()


def train(
    stage: str,
    data: Path,
    cache: Path,
    out: Path,
    *,
    model: str = "lite",
    start: tuple[Path, ...] = (),
    steps: int | None = None,
    minutes: float | None = None,
    piece_minutes: float = math.inf,
    batch: int = 8,
    size: int = 128,
    seed: int = 0,
    exclude: frozenset[str] = frozenset(),
) -> Path:
    """Trains `stage` for `steps` (resumed bit for bit on a CPU) or `minutes`; returns out/<stage>.pt.

    `start` are checkpoints of earlier stages; each gives the parts trained so far in it. A run stops after
    `piece_minutes` and goes on when called again. Pictures come from `data` (see `load_pictures`).
    Raises `TrainingError` for an unknown stage or a budget that is not one of steps and minutes.
    """
    if stage not in STAGES:
        raise TrainingError(f"unknown stage {stage!r}; there are {', '.join(STAGES)}")
    if (steps is None) == (minutes is None):
        raise TrainingError(f"give steps or minutes, not both or neither (steps={steps}, minutes={minutes})")
    plan = STAGES[stage]
    out.mkdir(parents=True, exist_ok=True)
    checkpoint, log = out / f"{stage}.pt", out / f"{stage}.jsonl"
    torch.manual_seed(seed)
    parts = Parts(CONFIGS[model])
    parameters = parts.train_only(plan.trains)
    optimizer = torch.optim.Adam(parameters, plan.learning_rate, (0.9, 0.99), fused=True)
    crops = Crops(load_pictures(data, cache, exclude), seed + sum(map(ord, stage)))
    touched, step, spent = set(plan.trains), 0, 0.0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=False)
        parts.load_state_dict(saved["parts"])
        optimizer.load_state_dict(saved["optimizer"])
        torch.set_rng_state(saved["rng"])
        crops.random.bit_generator.state = saved["crops"]
        touched, step, spent = set(saved["touched"]), saved["step"], saved["spent"]
    else:
        for path in start:
            touched |= load_parts(parts, path)
    perceptual = make_perceptual() if plan.perceptual else None

    def save() -> None:
        state = {
            "parts": parts.state_dict(), "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state(),
            "crops": crops.random.bit_generator.state, "touched": sorted(touched), "step": step, "spent": spent,
            "config": parts.model.config.to_dict(),
        }  # fmt: skip
        torch.save(state, checkpoint.with_suffix(".tmp"))
        os.replace(checkpoint.with_suffix(".tmp"), checkpoint)

    begun = saved_at = time.monotonic()
    before = spent
    while True:
        now = time.monotonic()
        spent = before + now - begun
        progress = step / steps if steps is not None else spent / (60 * (minutes or 1))
        if progress >= 1 or now - begun >= 60 * piece_minutes:
            break
        if now - saved_at > SAVE_SECONDS:
            save()
            saved_at = now
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(plan, step, progress)
        due = perceptual if step % PERCEPTUAL_EVERY == 0 else None
        values = _step(plan, parts, optimizer, parameters, crops, batch, size, progress, due)
        if step % 50 == 0:
            with log.open("a") as lines:
                lines.write(json.dumps({"step": step, "seconds": round(spent), **values}) + "\n")
        step += 1
    save()
    return checkpoint


def load_parts(parts: Parts, path: Path) -> set[str]:
    """Copies the parts that a checkpoint has trained, or all of a folder of exported weights; returns their names."""
    if path.is_dir():
        other = restore(path)
        touched = set(other.names())
    else:
        saved = torch.load(path, weights_only=False)
        other = Parts(ModelConfig.from_dict(saved["config"]))
        other.load_state_dict(saved["parts"])
        touched = set(saved["touched"])
    if other.model.config != parts.model.config:
        raise TrainingError(f"{path} is of another configuration than {parts.model.config.name!r}")
    for name in touched:
        parts.part(name).load_state_dict(other.part(name).state_dict())
    return touched


def learning_rate(plan: Stage, step: int, progress: float) -> float:
    """Linear warm-up, then half a cosine from the stage's learning rate to its final share."""
    share = plan.final + (1 - plan.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return plan.learning_rate * share * min(1.0, (step + 1) / WARM_UP_STEPS)


def _step(
    plan: Stage, parts: Parts, optimizer: Any, parameters: list[Any], crops: Crops, batch: int, size: int,
    progress: float, perceptual: Any,
) -> dict[str, float]:  # fmt: skip
    x = crops.batch(batch, size)
    first, last = plan.lowest
    lowest = first + (last - first) * min(1.0, 2 * progress)
    # stratified: every batch spans the range
    place = (torch.randperm(batch) + torch.rand(batch)) / batch
    quality = lowest + (100 - lowest) * place
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=BFLOAT16):
        loss, values = plan.loss(parts, Batch(x, quality, perceptual))
    if not torch.isfinite(loss):
        raise TrainingError(f"the loss is {loss.item()}: {values}")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    return {"loss": round(loss.item(), 5)} | {name: round(value.item(), 5) for name, value in values.items()}
