"""How things are timed: warm-up, repeats, median and quartiles; CUDA events on a GPU.

Beside it a device's best rates, measured in this way, and deadlines. It needs nothing but torch, so that kernels can be
timed on a machine without the native module.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

WARM_UPS = 2
ROUNDS = 3
MAX_CALLS = 10  # in a round
CEILINGS_BUDGET = 0.5  # seconds for each ceiling
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
    """A call to time.

    On a GPU, CUDA events around the call measure the device's time. With `host` it is the time until the result is
    there, which is what counts where the processor works too.
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
    """Times `call` as often as fits into `budget` seconds, 3 to 30 times, after `warm_ups` calls that do not count."""
    return together([Timed(call, host)], device, budget=budget, warm_ups=warm_ups)[0]


def together(
    calls: Sequence[Timed],
    device: torch.device,
    *,
    budget: float = BUDGET,
    warm_ups: int = WARM_UPS,
    deadline: Deadline | None = None,
) -> list[Timing]:
    """Times several calls that are compared. They take turns, so that a slow minute slows all of them.

    After `deadline` no further round begins, but there is always one.
    """
    seconds: list[list[float]] = [[] for _ in calls]
    counts = []
    for call in calls:
        warm = [_seconds(call, device) for _ in range(warm_ups)]
        counts.append(max(1, min(MAX_CALLS, int(budget / ROUNDS / max(warm[-1], 1e-9)))))
    for number in range(ROUNDS):
        if number and deadline is not None and not deadline.allows(0):
            break
        for call, count, times in zip(calls, counts, seconds, strict=True):
            times += [_seconds(call, device) for _ in range(count)]
    return [Timing.of(times) for times in seconds]


def _seconds(timed: Timed, device: torch.device) -> float:
    return (_host_seconds if timed.host or device.type != "cuda" else _event_seconds)(timed.call, device)


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
    """Waits until the device has nothing left to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def graph_seconds(call: Callable[..., Any], sets: Sequence[tuple[Any, ...]], calls: int = 16) -> float:
    """Median seconds of one call on a GPU, replayed as a CUDA graph over several `sets` of arguments.

    In a graph launches cost nothing, and with several sets the caches can't hold the arguments of the previous call, as
    in a decoder.
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


class Deadline:
    """The end of a run's time: so many seconds from now, or None for no limit."""

    def __init__(self, seconds: float | None = None) -> None:
        self._end = math.inf if seconds is None else time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds left: negative after the deadline, infinite without one."""
        return self._end - time.monotonic()

    @property
    def limited(self) -> bool:
        """Whether there is a limit."""
        return self._end < math.inf

    def allows(self, seconds: float) -> bool:
        """Whether so many seconds are left."""
        return self.left >= seconds


@dataclass(frozen=True)
class Ceilings:
    """The best rates of the device in this run."""

    flops_per_s: float
    bytes_per_s: float


def ceilings(device: torch.device, dtype: torch.dtype, budget: float = CEILINGS_BUDGET) -> Ceilings:
    """Best rate of a large matrix product and a wide convolution, and bandwidth of a large copy (read and written)."""
    side, channels, bytes_copied = (8192, 256, 2**30) if device.type == "cuda" else (1536, 128, 2**27)
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    x = torch.randn(1, channels, 128, 128, device=device).to(dtype).contiguous(memory_format=torch.channels_last)
    kernel = (
        torch.randn(channels, channels, 3, 3, device=device).to(dtype).contiguous(memory_format=torch.channels_last)
    )
    source = torch.ones(bytes_copied, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    with torch.inference_mode():
        product = measure(lambda: a @ b, device, budget=budget).q1_s
        convolution = measure(lambda: F.conv2d(x, kernel, padding=1), device, budget=budget).q1_s
        copy = measure(lambda: target.copy_(source), device, budget=budget).q1_s
    rates = (2 * side**3 / product, 2 * 128**2 * 9 * channels**2 / convolution)
    return Ceilings(max(rates), 2 * bytes_copied / copy)
