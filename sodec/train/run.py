"""A stage of training, or all of them, in pieces: a run that was stopped goes on where it was."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from . import checkpoint
from .data import Batches, Crops, batches, load_pictures
from .options import Options
from .report import LOG_EVERY, Report
from .stages import RECIPES, adjusted, stage_for
from .state import State

SAVE_SECONDS = 120
# oneDNN on a CPU keeps 1,024 compiled primitives, but the four sizes of crops need more. Compiling again at every step,
# the stage "finish" took 0.74 s a step instead of 0.56 s.
PRIMITIVES = "8192"


def train(name: str, options: Options) -> Path:
    """Trains the stage of this name, or goes on with it; returns its checkpoint, out/<name>.pt.

    On a CPU and with `options.steps`, a run in pieces gives exactly the weights of one in one piece.

    Raises
    ------
    TrainingError
        The stage is unknown; there are no pictures; a checkpoint is damaged, or of another configuration; the disk is
        full; or the loss or its gradient is not finite, where the step and the tensor are named. A GPU is asked for
        that at every 50th step; between those, a step whose gradient is not finite changes nothing.
    """
    stage = adjusted(stage_for(name, options.config), options.learning_rate, options.final, options.lowest)
    out = options.out
    out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", PRIMITIVES)
    state = State(stage, out / f"{name}.pt", options)
    accelerator = state.accelerator
    main = accelerator.is_main_process
    if main:
        load_pictures(options.data, options.pixels, options.exclude)
    accelerator.wait_for_everyone()
    pictures = load_pictures(options.data, options.pixels, options.exclude)
    crops = Crops(pictures, options.seed + sum(map(ord, name)) + accelerator.process_index)
    if state.crops is not None:
        crops.random.bit_generator.state = state.crops
    ahead = batches(crops, options.batch, options.size, accelerator.device)
    report = Report(out, name, progress=options.progress and main, tensorboard=options.tensorboard and main)
    try:
        with _terminated() as terminated:
            _loop(state, ahead, report, options, terminated)
    finally:
        ahead.close()
        report.close()
    return state.path


def train_all(recipe: str, options: Options) -> Path:
    """Trains every stage of this recipe and exports the last one to out/weights, which is returned.

    Steps and minutes are those of all stages together, as is `max_minutes`; batch and size are those of the early
    stages. A run that was stopped goes on when it is called again; until all stages are finished, the checkpoint of the
    current one is returned.
    """
    path, begun = options.out, time.monotonic()
    for step in RECIPES[recipe]:
        path = train(step.stage, replace(
            options,
            start=tuple(options.out / f"{stage}.pt" for stage in step.start) or options.start,
            max_minutes=options.max_minutes - (time.monotonic() - begun) / 60,
            steps=None if options.steps is None else max(1, round(step.share * options.steps)),
            minutes=None if options.minutes is None else step.share * options.minutes,
            batch=max(1, options.batch // 2) if step.large else options.batch,
            size=options.size * 3 // 2 if step.large else options.size,
        ))  # fmt: skip
        if not checkpoint.load(path)["finished"]:
            return path
    checkpoint.export(path, options.out / "weights")
    return options.out / "weights"


def _loop(state: State, ahead: Batches, report: Report, options: Options, terminated: threading.Event) -> None:
    """Steps until the stage is finished, `max_minutes` are over, or SIGTERM; then saves."""
    begun = saved_at = time.monotonic()
    spent_before, first, waited = state.spent, state.step, 0.0
    main = state.accelerator.is_main_process
    while True:
        now = time.monotonic()
        state.spent = spent_before + now - begun
        if options.steps is not None:
            progress = state.step / options.steps
        else:
            progress = state.spent / (60 * (options.minutes or 1))
        stop = progress >= 1 or now - begun >= 60 * options.max_minutes or terminated.is_set()
        progress, stop, save = _agreed(state.accelerator, progress, stop, now - saved_at > SAVE_SECONDS)
        if stop:
            break
        if progress >= state.stage.frozen and not state.frozen:
            state.freeze_statistics(ahead.take, progress)
        if save:
            state.save(ahead.state)
            saved_at = now
        asked = time.monotonic()
        x = ahead.take()
        waited += time.monotonic() - asked
        number = state.step
        outcome = state.advance(x, progress)
        if number % LOG_EVERY == 0 and main:
            elapsed = max(1e-9, time.monotonic() - begun)
            images = (number + 1 - first) * len(x)
            speed = {"images/s": round(images / elapsed, 1), "wait": round(waited / elapsed, 3)}
            report.step(number, state.spent, progress, speed, outcome.values)
            if number % (20 * LOG_EVERY) == 0 and outcome.decoded is not None:
                report.pictures(number, x.float() / 255, outcome.decoded)
    state.save(ahead.state, finished=progress >= 1)


def _agreed(accelerator: Accelerator, *values: Any) -> tuple[Any, ...]:
    """The values of the first process: clocks differ, but all processes must save and stop at the same step."""
    if accelerator.num_processes == 1:
        return values
    return tuple(broadcast_object_list(list(values)))


@contextmanager
def _terminated() -> Iterator[threading.Event]:
    """An event that SIGTERM sets, instead of ending the process."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # only the main thread may set handlers
        return
    old = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, old)
