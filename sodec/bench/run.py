"""A whole run: every size, its stages and their floors, the ratios, and growth, into one report."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from .. import __version__
from ..codec import Codec
from ..errors import DeviceError
from .ceilings import Ceilings, ceilings
from .clock import BUDGET, Timing, measure
from .growth import QUALITY, Growth, growth
from .machine import Machine, describe
from .ratios import Ratios, ratios
from .rivals import graphed
from .roofline import Work, work
from .scene import scene
from .stages import Dissection, encoder

SCHEMA = 1
Size = tuple[int, int]


@dataclass(frozen=True)
class StageResult:
    """One stage: its time, and how that stands to its floor."""

    name: str
    time: Timing
    share: float  # of the stages' sum
    work: Work
    above_floor: float | None


@dataclass(frozen=True)
class SizeResult:
    """One picture there and back. Networks only beside end to end: bytes in, pixels out, and the other way round."""

    width: int
    height: int
    bytes: int
    windows: int  # that synthesis decodes one by one
    encode_end_to_end: Timing
    encode_network: Timing
    decode_end_to_end: Timing
    decode_network: Timing
    decode_network_graphs: Timing | None  # the networks replayed as CUDA graphs
    stages: list[StageResult]


@dataclass
class Report:
    """What a run found; `as_json` is what docs/latency.md documents."""

    schema: int
    sodec: str
    model: str
    weights: str
    quality: float
    machine: Machine
    ceilings: Ceilings
    sizes: list[SizeResult] = field(default_factory=list)
    ratios: Ratios | None = None
    growth: list[Growth] = field(default_factory=list)
    not_measured: dict[str, str] = field(default_factory=dict)  # and why
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
) -> Report:
    """Measures everything for one codec; `say` is told what comes next. The ratios are those of the first size.

    A size that does not fit into the GPU's memory is named in `not_measured`.
    """
    start = time.perf_counter()
    device, dtype = codec.device, codec.dtype
    say("the machine's ceilings")
    report = Report(SCHEMA, __version__, codec.bundle.name, codec.bundle.fingerprint.hex(), QUALITY,
                    describe(device, dtype), ceilings(device, dtype))  # fmt: skip
    for width, height in sizes:
        say(f"stages at {width}x{height}")
        with _Fitting(report, f"{width}x{height}"):
            report.sizes.append(one_size(codec, width, height, report.ceilings, budget))
        if device.type == "cuda" and report.sizes:
            with _Fitting(report, f"CUDA graphs at {width}x{height}", RuntimeError):
                report.sizes[-1] = with_graphs(codec, report.sizes[-1], budget)
    if sizes:
        width, height = sizes[0]
        say(f"ratios at {width}x{height}")
        with _Fitting(report, "ratios"):
            report.ratios = ratios(codec, codec.compress(scene(width, height), QUALITY), width, height, budget)
    if growth_sizes:
        say("time and memory from " + " to ".join("{}x{}".format(*growth_sizes[end]) for end in (0, -1)))
        with _Fitting(report, "growth"):
            report.growth = growth(codec, growth_sizes, torch.get_num_threads())
    if device.type != "cuda":
        why = "this run was on the CPU; --device cuda" if torch.cuda.is_available() else "no CUDA device here"
        report.not_measured["GPU"] = why
    report.seconds = time.perf_counter() - start
    return report


def one_size(codec: Codec, width: int, height: int, limits: Ceilings, budget: float = BUDGET) -> SizeResult:
    """Encoding, decoding and every stage of the scene at one size."""
    device, picture = codec.device, scene(width, height)
    data = codec.compress(picture, QUALITY)
    parts = Dissection(codec, data)
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


def with_graphs(codec: Codec, found: SizeResult, budget: float) -> SizeResult:
    """The same result with the time of the networks as CUDA graphs, which only some sizes and GPUs bear."""
    data = codec.compress(scene(found.width, found.height), QUALITY)
    replayed = measure(Dissection(graphed(codec), data).network, codec.device, budget=budget)
    return dataclasses.replace(found, decode_network_graphs=replayed)


class _Fitting:
    """Notes what the GPU's memory is too small for, or what else it may fail at, and lets the rest go on."""

    def __init__(self, report: Report, name: str, bearable: type[Exception] = torch.OutOfMemoryError) -> None:
        self.report, self.name, self.bearable = report, name, (bearable, torch.OutOfMemoryError, DeviceError)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, self.bearable):
            return False
        self.report.not_measured[self.name] = str(error).splitlines()[0]
        torch.cuda.empty_cache()
        return True
