"""The one way in which things are timed: warm-up, repeats, median and quartiles; CUDA events on a GPU."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from .deadline import Deadline

WARM_UPS = 2
ROUNDS = 3
MOST = 10  # calls in a round
BUDGET = 2.0  # seconds of repeats, unless a call in each round takes longer

_event: Any = torch.cuda.Event  # torch has no types for them
_stream: Any = torch.cuda.Stream


@dataclass(frozen=True)
class Timing:
    """Seconds of one call."""

    median_s: float
    q1_s: float
    q3_s: float
    repeats: int

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        """Median and quartiles of at least one measurement."""
        ends = statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else [seconds[0]] * 3
        return cls(statistics.median(seconds), ends[0], ends[2], len(seconds))


class Timed(NamedTuple):
    """Something to time.

    On a GPU, events around the call tell the time of the device; with `host` it is the clock of a user who waits for
    the result, which is what counts where the processor works too.
    """

    call: Callable[[], Any]
    host: bool = False


def measure(
    call: Callable[[], Any],
    device: torch.device,
    *,
    host: bool = False,
    budget: float = BUDGET,
    warm_ups: int = WARM_UPS,
) -> Timing:
    """Times `call` as often as fits into `budget` seconds, 3 to 30 times, after one or more that are not counted."""
    return together([Timed(call, host)], device, budget=budget, warm_ups=warm_ups)[0]


def together(
    calls: Sequence[Timed],
    device: torch.device,
    *,
    budget: float = BUDGET,
    warm_ups: int = WARM_UPS,
    deadline: Deadline | None = None,
) -> list[Timing]:
    """The same of several calls that are compared: they take turns, so that a slow minute is everyone's.

    Once `deadline` has passed there are no further rounds, but always one.
    """
    seconds: list[list[float]] = [[] for _ in calls]
    counts = []
    for one in calls:
        warm = [_seconds(one, device) for _ in range(warm_ups)]
        counts.append(max(1, min(MOST, int(budget / ROUNDS / max(warm[-1], 1e-9)))))
    for number in range(ROUNDS):
        if number and deadline is not None and not deadline.allows(0):
            break
        for one, count, found in zip(calls, counts, seconds, strict=True):
            found += [_seconds(one, device) for _ in range(count)]
    return [Timing.of(found) for found in seconds]


def _seconds(one: Timed, device: torch.device) -> float:
    return (_host_seconds if one.host or device.type != "cuda" else _event_seconds)(one.call, device)


def _host_seconds(call: Callable[[], Any], device: torch.device) -> float:
    synchronise(device)
    start = time.perf_counter()
    call()
    synchronise(device)
    return time.perf_counter() - start


def _event_seconds(call: Callable[[], Any], device: torch.device) -> float:
    synchronise(device)
    with torch.cuda.device(device):
        first, last = _event(enable_timing=True), _event(enable_timing=True)
        first.record()
        call()
        last.record()
        last.synchronize()
        return float(first.elapsed_time(last)) / 1000


def synchronise(device: torch.device) -> None:
    """Waits for what the device has been told to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def graph_seconds(call: Callable[..., Any], sets: Sequence[tuple[Any, ...]], calls: int = 16) -> float:
    """Median seconds of one call on a GPU, replayed as a CUDA graph over several `sets` of arguments.

    Launches cost nothing so, and caches can't hold the arguments of the call before: kernels run as in a decoder.
    """
    stream = _stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for args in sets:
            call(*args)
    torch.cuda.synchronize()
    rounds = math.ceil(calls / len(sets))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(rounds):
            for args in sets:
                call(*args)
    device = torch.device("cuda")
    times = [_event_seconds(graph.replay, device) for _ in range(30)]
    return statistics.median(times[5:]) / (rounds * len(sets))
