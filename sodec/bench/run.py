"""A whole run: every size, its stages and their floors, and growth, into one report."""

from __future__ import annotations

import copy
import dataclasses
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch

from .. import __version__
from ..codec import Codec
from ..errors import SodecError
from ..pipeline.torch_engine import TorchEngine
from .clock import BUDGET, CEILINGS_BUDGET, Ceilings, Deadline, Timing, ceilings, measure
from .growth import QUALITY, Growth, growth
from .machine import Machine, describe, scene
from .roofline import Work, work
from .stages import Dissection, encoder

SCHEMA = 1
NEEDED = {"size": 6.0, "graphs": 3.0, "ratios": 25.0, "growth": 240.0}  # seconds on an H100, estimated
CAPTURED_AFTER = 2  # runs until a size is captured as a graph; only replays are timed
TRACEBACK = 1500  # characters of one that are kept
Size = tuple[int, int]
# Codec, stream, width, height, budget, deadline to ratios, a dataclass: see benchmarks/claim.py.
Compare = Callable[[Codec, bytes, int, int, float, Deadline], Any]


class Part(NamedTuple):
    """A part of a run, and the seconds that must be left to begin it."""

    name: str
    seconds: float
    measure: Callable[[], None]


@dataclass(frozen=True)
class StageResult:
    """One stage: its time, and the time over its floor."""

    name: str
    time: Timing
    share: float  # of the stages' sum
    work: Work
    above_floor: float | None


@dataclass(frozen=True)
class SizeResult:
    """One picture, encoded and decoded: the networks alone, and end to end between bytes and pixels."""

    width: int
    height: int
    bytes: int
    windows: int  # rectangles that synthesis decodes one by one
    encode_end_to_end: Timing
    encode_network: Timing
    decode_end_to_end: Timing
    decode_network: Timing
    decode_network_graphs: Timing | None  # the networks replayed as CUDA graphs
    stages: list[StageResult]


@dataclass
class Report:
    """The figures of a run. docs/latency.md documents `as_json`."""

    schema: int
    sodec: str
    model: str
    weights: str
    quality: float
    machine: Machine
    ceilings: Ceilings
    sizes: list[SizeResult] = field(default_factory=list)
    ratios: Any = None  # what `compare` returns
    growth: list[Growth] = field(default_factory=list)
    not_measured: dict[str, str] = field(default_factory=dict)  # parts, with the reason
    errors: dict[str, str] = field(default_factory=dict)  # parts that failed, with the end of the traceback
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return dataclasses.asdict(self)


def bench(
    codec: Codec,
    sizes: Sequence[Size],
    growth_sizes: Sequence[Size],
    *,
    budget: float = BUDGET,
    say: Callable[[str], None] = lambda line: None,
    compare: Compare | None = None,
    deadline: Deadline | None = None,
    save: Callable[[Report], None] = lambda report: None,
) -> Report:
    """Measures everything for one codec.

    A part for which memory or time is too short is named in `not_measured`, one that fails in `errors`; the others are
    measured all the same.

    Parameters
    ----------
    sizes, growth_sizes
        Widths and heights.
    budget
        Seconds of repeats for each figure.
    say
        Is called with the name of each part before it begins.
    compare
        Compares decoding of the first size with that of other decoders, for `Report.ratios`.
    deadline
        No part begins that would not be done by then.
    save
        Is called with the report after each part.
    """
    start = time.perf_counter()
    limit = deadline or Deadline()
    device, dtype = codec.device, codec.dtype
    say("the machine's ceilings")
    report = Report(SCHEMA, __version__, codec.bundle.name, codec.bundle.fingerprint.hex(), QUALITY,
                    describe(device, dtype), ceilings(device, dtype, min(budget, CEILINGS_BUDGET)))  # fmt: skip
    if device.type != "cuda":
        why = "this run was on the CPU; --device cuda" if torch.cuda.is_available() else "no CUDA device here"
        report.not_measured["GPU"] = why
    for name, needed, part in _parts(codec, sizes, growth_sizes, budget, compare, limit, report):
        if not limit.allows(needed):
            report.not_measured[name] = f"{max(0, limit.left):.0f} s were left, and it takes about {needed:.0f}"
        else:
            say(name)
            with _Fitting(report, name):
                part()
        report.seconds = time.perf_counter() - start
        save(report)
    return report


def _parts(
    codec: Codec, sizes: Sequence[Size], growth_sizes: Sequence[Size], budget: float, compare: Compare | None,
    deadline: Deadline, report: Report,
) -> Iterator[Part]:  # fmt: skip
    """The parts of a run, the most important first."""

    def stages(width: int, height: int) -> None:
        report.sizes.append(one_size(codec, width, height, report.ceilings, budget))

    def graphs(number: int) -> None:
        report.sizes[number] = with_graphs(codec, report.sizes[number], budget)

    def ratios(compare: Compare, width: int, height: int) -> None:
        data = codec.compress(scene(width, height), QUALITY)
        report.ratios = compare(codec, data, width, height, budget, deadline)
        if deadline.limited and codec.device.type == "cuda":
            report.not_measured["the rival with torch.compile"] = "it takes minutes to compile"
        if not report.ratios.multi_step:
            report.not_measured["(c)"] = "too little time was left"

    def grown() -> None:
        report.growth = growth(codec, growth_sizes, torch.get_num_threads())

    for number, (width, height) in enumerate(sizes):
        yield Part(f"{width}x{height}", NEEDED["size"], partial(stages, width, height))
        if number == 0 and compare is not None:
            yield Part("ratios", NEEDED["ratios"], partial(ratios, compare, width, height))
    if codec.device.type == "cuda":  # after the sizes, because a failed capture may leave the device unusable
        for number, size in enumerate(report.sizes):
            yield Part(f"CUDA graphs at {size.width}x{size.height}", NEEDED["graphs"], partial(graphs, number))
    if growth_sizes:
        yield Part("growth", NEEDED["growth"], grown)


def one_size(codec: Codec, width: int, height: int, limits: Ceilings, budget: float = BUDGET) -> SizeResult:
    """Measures encoding, decoding and every stage of the scene at one size."""
    device, picture = codec.device, scene(width, height)
    data = codec.compress(picture, QUALITY)
    parts = Dissection(graphed(codec, False), data)
    times = [measure(stage.call, device, host=stage.host, budget=budget) for stage in parts.stages]
    total = sum(timing.median_s for timing in times)
    stages = []
    for stage, timing in zip(parts.stages, times, strict=True):
        least = work(stage, codec.model, limits)
        above = timing.median_s / least.floor_s if least.floor_s else None
        stages.append(StageResult(stage.name, timing, timing.median_s / total, least, above))
    return SizeResult(
        width, height, len(data), len(parts.windows),
        measure(lambda: codec.compress(picture, QUALITY), device, host=True, budget=budget),
        measure(encoder(codec, picture), device, budget=budget),
        measure(lambda: codec.decompress(data, output="numpy"), device, host=True, budget=budget),
        measure(parts.network, device, budget=budget),
        None,
        stages,
    )  # fmt: skip


def with_graphs(codec: Codec, result: SizeResult, budget: float) -> SizeResult:
    """The same result with the time of the networks replayed as CUDA graphs."""
    data = codec.compress(scene(result.width, result.height), QUALITY)
    network = Dissection(graphed(codec, True), data).network
    for _ in range(CAPTURED_AFTER):
        network()
    replayed = measure(network, codec.device, budget=budget)
    return dataclasses.replace(result, decode_network_graphs=replayed)


def graphed(codec: Codec, graphs: bool) -> Codec:
    """The same codec, its networks replayed as CUDA graphs or run without."""
    copied = copy.copy(codec)
    copied.engine = TorchEngine(codec.prepared, codec.bundle.coding, tile=codec.engine.tile, cuda_graphs=graphs)
    return copied


class _Fitting:
    """A context that notes an error of a part in the report, so that the other parts go on."""

    def __init__(self, report: Report, name: str) -> None:
        self.report, self.name = report, name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, Exception):
            return False
        if isinstance(error, (torch.OutOfMemoryError, SodecError)):
            self.report.not_measured[self.name] = str(error).splitlines()[0]
        else:
            self.report.errors[self.name] = end_of_traceback(error)
        with suppress(RuntimeError):  # if the device itself is lost
            torch.cuda.empty_cache()
        return True


def end_of_traceback(error: BaseException) -> str:
    """The last lines of an error's traceback."""
    return "".join(traceback.format_exception(error)).strip()[-TRACEBACK:]
