"""One stage, in pieces: from checkpoints to a checkpoint, whose state resumes the very same run."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor, nn

from ..errors import TrainingError
from ..models import CONFIGS
from . import checkpoint, lora
from .adversary import Critic, critic_loss
from .average import Average
from .bound import Bound
from .data import Ahead, Crops, load_pictures
from .export import restore
from .gradients import Gradients
from .parts import Parts
from .perceptual import make_perceptual
from .report import LOG_EVERY, Report
from .stages import Batch, Stage, lowest_quality, plan_of, replanned

WARM_UP_STEPS = 100
SAVE_SECONDS = 120
# What ST-LPIPS sees on a GPU, all of it: a corner drawn at random would be drawn once.
PERCEIVED = {"crops": 64, "size": 512}
CUTTERS = 8  # threads that cut crops for a GPU; one cuts about 500 of up to 192x192 a second
# Of oneDNN, on a CPU. Crops come in four sizes, and what it compiles for all of them is more than the 1,024 that it
# keeps by itself: compiling again at every step, the finish took 0.74 s a step in place of 0.56.
PRIMITIVES = "8192"
BETAS = (0.9, 0.99)


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
    max_minutes: float = math.inf,
    batch: int = 8,
    size: int = 128,
    seed: int = 0,
    exclude: frozenset[str] = frozenset(),
    ema: float = 0.998,
    learning_rate: float | None = None,
    final: float | None = None,
    lowest: float | None = None,
    lora_rank: int = 0,
    device: str = "cpu",
    compiled: bool = False,
    eager: bool = False,
    tensorboard: bool = False,
    progress: bool = False,
) -> Path:
    """Trains `stage` for `steps` (resumed bit for bit on a CPU) or `minutes`; returns out/<stage>.pt.

    Parameters
    ----------
    data, cache
        Pictures and the folder of their decoded pixels: see `load_pictures`.
    start
        Checkpoints of earlier stages, each giving the parts trained so far in it, or a folder of exported weights.
    max_minutes
        The run stops after these and goes on when called again, as it does after SIGTERM.
    batch, size
        Crops of size x size pixels a step, on each process.
    ema
        Decay of the average of the weights, which is what later stages and the export take; 0 is none.
    learning_rate, final, lowest
        In place of the stage's: at its highest, the share of it left at the end, the lowest quality drawn at first.
    lora_rank
        Above 0, the UNet is trained by adapters of this rank.
    device
        "cpu" or "cuda"; several processes (`torchrun -m sodec.train ...`) share a step. One process on a GPU replays
        its steps as CUDA graphs, unless `eager`, where there is no critic and no `tensorboard`.
    compiled
        By torch.compile, part by part.

    Raises
    ------
    TrainingError
        An unknown stage, a budget that is not one of steps and minutes, no data, a checkpoint of another
        configuration, a disk that is full, or a loss that is not a number: the step and the tensor are named. A GPU is
        asked at every 50th step; between those, a step whose gradient is not finite changes nothing.
    """
    plan = replanned(plan_of(stage, CONFIGS[model]), learning_rate, final, lowest)
    if (steps is None) == (minutes is None):
        raise TrainingError(f"give steps or minutes, not both or neither (steps={steps}, minutes={minutes})")
    out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", PRIMITIVES)
    run = _Run(plan, model, start, out / f"{stage}.pt", seed, ema, lora_rank, device, eager or tensorboard)
    if compiled:
        for name in run.parts.names():
            run.parts.part(name).compile()
    main = run.accelerator.is_main_process
    if main:
        load_pictures(data, cache, exclude)
    run.accelerator.wait_for_everyone()
    crops = Crops(load_pictures(data, cache, exclude), seed + sum(map(ord, stage)) + run.accelerator.process_index)
    if run.crops is not None:
        crops.random.bit_generator.state = run.crops
    ahead = Ahead(crops, batch, size, *((CUTTERS, True) if device == "cuda" else ()))
    report = Report(out, stage, progress=progress and main, tensorboard=tensorboard and main)
    try:
        with _terminated() as terminated:
            _loop(run, ahead, report, steps, minutes, max_minutes, terminated)
    finally:
        ahead.close()
        report.close()
    return out / f"{stage}.pt"


class _Objective(nn.Module):
    """The loss as a module, so that accelerate can spread it over processes and lower its precision."""

    def __init__(self, parts: Parts, plan: Stage) -> None:
        super().__init__()
        self.parts = parts
        self.plan = plan

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        return self.plan.loss(self.parts, batch)


class _Run:
    """All that a checkpoint holds, on its device."""

    def __init__(
        self,
        plan: Stage,
        model: str,
        start: tuple[Path, ...],
        path: Path,
        seed: int,
        ema: float,
        rank: int,
        device: str,
        eager: bool,
    ) -> None:
        bfloat16 = torch.cuda.is_bf16_supported() if device == "cuda" else _fast_bfloat16()
        self.accelerator = Accelerator(
            cpu=device == "cpu",
            mixed_precision="bf16" if bfloat16 else "no",
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
        torch.manual_seed(seed + self.accelerator.process_index)
        self.plan, self.path, self.rank = plan, path, rank
        self.parts = Parts(CONFIGS[model])
        saved = checkpoint.load(path) if path.exists() else None
        self.touched = set(plan.trains)
        if saved is None:
            for source in start:
                self.touched |= load_parts(self.parts, source)
        parameters = self.parts.train_only(plan.trains)
        if rank:
            lora.inject(self.parts, rank)
            parameters = [p for p in self.parts.parameters() if p.requires_grad]
        self.parts.to(self.accelerator.device)
        self.optimizer: Any = torch.optim.Adam(parameters, plan.learning_rate, BETAS, fused=True)
        self.parameters = parameters
        self.average = Average(self.parts, ema) if ema else None
        # a public UNet stays as its makers scaled it
        self.bound = Bound(self.parts.model.unet) if "unet" in plan.trains and self.parts.latent_encoder else None
        self.critic: Any = None
        self.critic_optimizer: Any = None
        if plan.adversarial:
            self.critic = Critic(self.parts.model.config.y_channels).to(self.accelerator.device)
            self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), plan.learning_rate, (0.5, 0.99))
        self.step, self.spent = 0, 0.0
        self.crops: Any = None  # the state of their generator
        if saved is not None:
            self._resume(saved)
        self.objective: Any = self.accelerator.prepare_model(_Objective(self.parts, plan))
        self.perceptual: Any = None
        if plan.perceptual:
            sizes = PERCEIVED if device == "cuda" else {}
            self.perceptual = make_perceptual(**sizes, device=self.accelerator.device)
        self.gradients = Gradients(
            self.objective, self.accelerator, self.parameters, self._batch,
            device == "cuda" and self.accelerator.num_processes == 1 and self.critic is None and not eager,
        )  # fmt: skip

    def _resume(self, saved: dict[str, Any]) -> None:
        if saved["config"] != self.parts.model.config.to_dict() or saved["lora"] != self.rank:
            raise TrainingError(
                f"{self.path} is of configuration {saved['config']['name']!r} and LoRA rank {saved['lora']}, "
                f"not of {self.parts.model.config.name!r} as it is now and rank {self.rank}"
            )
        self.parts.load_state_dict(saved["parts"])
        self.optimizer.load_state_dict(saved["optimizer"])
        if self.average and saved["average"]:
            self.average.load(saved["average"])
        if self.critic is not None:
            self.critic.load_state_dict(saved["critic"])
            self.critic_optimizer.load_state_dict(saved["critic_optimizer"])
        if self.bound and saved["bound"]:
            self.bound.load(saved["bound"])
        own = self.accelerator.process_index
        if own < len(saved["random"]):
            torch.set_rng_state(saved["random"][own]["torch"])
            self.crops = saved["random"][own]["crops"]
        self.touched, self.step, self.spent = set(saved["touched"]), saved["step"], saved["spent"]

    def save(self, crops: Any, finished: bool = False) -> None:
        """All processes take part, the first writes."""
        random = gather_object([{"torch": torch.get_rng_state(), "crops": crops}])
        if self.accelerator.is_main_process:
            checkpoint.save(self.path, {
                "parts": self.parts.state_dict(), "optimizer": self.optimizer.state_dict(), "random": random,
                "average": self.average.values if self.average else None, "lora": self.rank,
                "bound": self.bound.directions if self.bound else None,
                "critic": self.critic.state_dict() if self.critic is not None else None,
                "critic_optimizer": self.critic_optimizer.state_dict() if self.critic is not None else None,
                "touched": sorted(self.touched), "step": self.step, "spent": self.spent,
                "finished": finished,
                "config": self.parts.model.config.to_dict(),
            })  # fmt: skip
        self.accelerator.wait_for_everyone()

    def _batch(self, x: Tensor, quality: Tensor) -> Batch:
        return Batch(x, quality, self.perceptual, self.plan.perceptual, self.critic)

    def advance(self, x: Tensor, progress: float) -> tuple[Batch, dict[str, Tensor]]:
        """One step on the pictures x (B, 3, H, W), uint8."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.plan, self.step, progress)
        lowest = lowest_quality(self.plan, progress)
        device, count = self.accelerator.device, len(x)
        # stratified: every batch spans the range
        place = (torch.randperm(count, device=device) + torch.rand(count, device=device)) / count
        batch, values = self.gradients(x.to(device, non_blocking=True), lowest + (100 - lowest) * place)
        if device.type == "cpu" or self.step % LOG_EVERY == 0:  # asking a GPU makes it wait
            self._check(values)
        if device.type != "cpu":  # Adam then leaves the step out by itself
            self.optimizer.found_inf = (~torch.isfinite(values["gradient"])).float()
        self.optimizer.step()
        if self.bound:
            self.bound.apply()
        if self.critic is not None:
            values["critic"] = self._criticise(batch)
        self.step += 1
        if self.average:
            self.average.update(self.step)
        return batch, values

    def _criticise(self, batch: Batch) -> Tensor:
        assert batch.decoded is not None
        decoded, y_hat = batch.decoded
        with self.accelerator.autocast():
            loss = critic_loss(self.critic(batch.x, y_hat), self.critic(decoded.float(), y_hat))
        self.critic_optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(loss)
        for parameter in self.critic.parameters():  # not wrapped for several processes: it is small
            if parameter.grad is not None:
                parameter.grad = self.accelerator.reduce(parameter.grad, "mean")
        self.critic_optimizer.step()
        return loss.detach()

    def _check(self, values: dict[str, Tensor]) -> None:
        if torch.isfinite(values["loss"]) and torch.isfinite(values["gradient"]):
            return
        named = {f"gradient of {name}": p.grad for name, p in self.parts.named_parameters() if p.grad is not None}
        first = next((name for name, t in {**values, **named}.items() if not torch.isfinite(t).all()), "none")
        numbers = {name: float(value) for name, value in values.items()}
        raise TrainingError(f"step {self.step}: the loss or its gradient is not finite, first {first}: {numbers}")


def _loop(
    run: _Run, ahead: Ahead, report: Report, steps: int | None, minutes: float | None, max_minutes: float,
    terminated: threading.Event,
) -> None:  # fmt: skip
    begun = saved_at = time.monotonic()
    before, first, waited = run.spent, run.step, 0.0
    while True:
        now = time.monotonic()
        run.spent = before + now - begun
        progress = run.step / steps if steps is not None else run.spent / (60 * (minutes or 1))
        done = progress >= 1 or now - begun >= 60 * max_minutes or terminated.is_set()
        progress, done, due = _agreed(run.accelerator, progress, done, now - saved_at > SAVE_SECONDS)
        if done:
            break
        if due:
            run.save(ahead.state)
            saved_at = now
        asked = time.monotonic()
        x = ahead.take()
        waited += time.monotonic() - asked
        batch, values = run.advance(x, progress)
        if (run.step - 1) % LOG_EVERY == 0 and run.accelerator.is_main_process:
            elapsed = max(1e-9, time.monotonic() - begun)
            speed = {"images/s": round((run.step - first) * len(x) / elapsed, 1), "wait": round(waited / elapsed, 3)}
            report.step(run.step - 1, run.spent, progress, speed, values)
            if (run.step - 1) % (20 * LOG_EVERY) == 0 and batch.decoded is not None:
                report.pictures(run.step - 1, batch.x, batch.decoded[0])
    run.save(ahead.state, finished=progress >= 1)


def _agreed(accelerator: Accelerator, *values: Any) -> tuple[Any, ...]:
    """What the first process says: clocks differ, but all must save and stop at the same step."""
    if accelerator.num_processes == 1:
        return values
    return tuple(broadcast_object_list(list(values)))


@contextmanager
def _terminated() -> Iterator[threading.Event]:
    """An event that SIGTERM sets, in place of ending the process."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # only the main thread may set handlers
        return
    old = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, old)


def load_parts(parts: Parts, path: Path) -> set[str]:
    """Copies the parts that a checkpoint has trained, or all of a folder of exported weights; returns their names."""
    if path.is_dir():
        other = restore(path)
        touched = set(other.names())
    else:
        other, touched = checkpoint.parts_of(path)
    if other.model.config != parts.model.config:
        raise TrainingError(f"{path} is of configuration {other.model.config.name!r}, not {parts.model.config.name!r}")
    for name in touched:
        parts.part(name).load_state_dict(other.part(name).state_dict())
    return touched


def learning_rate(plan: Stage, step: int, progress: float) -> float:
    """Linear warm-up, then half a cosine from the stage's learning rate to its final share."""
    share = plan.final + (1 - plan.final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return plan.learning_rate * share * min(1.0, (step + 1) / WARM_UP_STEPS)


def _fast_bfloat16() -> bool:
    """Whether the processor has it. 3x3 convolutions on two cores: Zen 4, 415 GFLOP/s against 200 in float32;
    Zen 3, which emulates it, 16 against 112.
    """
    return bool(torch.cpu._is_avx512_bf16_supported())
