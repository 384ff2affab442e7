"""Time and memory of larger and larger pictures, each in a process of its own, since a peak is a process's own."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..codec import Codec
from ..errors import DeviceError
from .machine import scene

DIRECTIONS = ("encode", "decode")
QUALITY = 50.0


@dataclass(frozen=True)
class Point:
    """One direction at one size."""

    direction: str
    width: int
    height: int
    time: Any  # clock.Timing
    first_pixel_s: float  # from the start of the process to the first result: imports, loading and one run
    imports_bytes: int | None  # the process's peak once everything is imported; None where the system has no figure
    peak_bytes: int | None
    gpu_peak_bytes: int | None

    @property
    def pixels(self) -> int:
        """Width times height."""
        return self.width * self.height

    @property
    def memory(self) -> int | None:
        """Peak above the imports, in bytes; of the GPU where there is one."""
        if self.gpu_peak_bytes is not None:
            return self.gpu_peak_bytes
        if self.peak_bytes is None or self.imports_bytes is None:
            return None
        return self.peak_bytes - self.imports_bytes


@dataclass(frozen=True)
class Growth:
    """Points of one direction and how they grow: as pixels to the power of the exponent."""

    direction: str
    points: list[Point]
    time_exponent: float | None  # least squares over all sizes
    time_exponent_last: float | None  # between the two largest
    memory_exponent: float | None
    memory_exponent_last: float | None


def growth(codec: Codec, sizes: Sequence[tuple[int, int]], threads: int) -> list[Growth]:
    """Measures encoding and decoding of the scene at every size."""
    points = []
    with tempfile.TemporaryDirectory(prefix="sodec-bench-") as folder:
        for width, height in sizes:
            picture = scene(width, height)
            files = {"encode": Path(folder) / "picture.npy", "decode": Path(folder) / "picture.sodec"}
            np.save(files["encode"], picture)
            files["decode"].write_bytes(codec.compress(picture, QUALITY))
            points += [_in_a_process(codec, direction, files[direction], threads) for direction in DIRECTIONS]
    return [_fitted(direction, [point for point in points if point.direction == direction]) for direction in DIRECTIONS]


def exponent(pixels: Sequence[int], values: Sequence[float | None]) -> float | None:
    """Slope of log value over log pixels, by least squares; None of fewer than two values."""
    pairs = [(pixel, value) for pixel, value in zip(pixels, values, strict=True) if value]
    if len(pairs) < 2:
        return None
    x, y = (np.log(np.asarray(column, dtype=float)) for column in zip(*pairs, strict=True))
    slope = float(np.polyfit(x, y, 1)[0])
    return slope if math.isfinite(slope) else None


def _fitted(direction: str, points: list[Point]) -> Growth:
    pixels = [point.pixels for point in points]
    times = [point.time.median_s for point in points]
    memory = [point.memory for point in points]
    ends = (exponent(pixels[-2:], times[-2:]), exponent(pixels, memory), exponent(pixels[-2:], memory[-2:]))
    return Growth(direction, points, exponent(pixels, times), *ends)


def _in_a_process(codec: Codec, direction: str, file: Path, threads: int) -> Point:
    task = {
        "direction": direction, "file": str(file), "model": codec.bundle.name, "weights": str(codec.bundle.folder),
        "device": str(codec.device), "dtype": str(codec.dtype).removeprefix("torch."), "threads": threads,
        "started": time.time(),
    }  # fmt: skip
    command = [sys.executable, "-m", "sodec.bench.growth", json.dumps(task)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=file.parent, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise DeviceError(f"{direction} of {file.name} ended with code {done.returncode}: {last}")
    from .clock import Timing

    measured = json.loads(done.stdout)
    return Point(direction, **{**measured, "time": Timing(**measured["time"])})


def _peak() -> int | None:
    """The peak memory of this process, in bytes. None where the system has no figure."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not by getrusage, which on Linux begins with the peak of the parent process.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _run(task: dict[str, Any]) -> dict[str, Any]:
    """Measures one size in one direction, in the process that was started for it."""
    import dataclasses

    import torch

    from ..stream import container
    from .clock import measure

    imports = _peak()
    torch.set_num_threads(task["threads"])
    codec = Codec(task["model"], weights=task["weights"], device=task["device"], dtype=task["dtype"])
    file = Path(task["file"])
    if task["direction"] == "encode":
        source = np.load(file)
        height, width = source.shape[:2]

        def call() -> Any:
            return codec.compress(source, QUALITY)
    else:
        data = file.read_bytes()
        stream = container.read(data)
        width, height = stream.width, stream.height

        def call() -> Any:
            return codec.decompress(data, output="numpy")

    call()
    first = time.time() - task["started"]
    timing = measure(call, codec.device, host=True, budget=0, warm_ups=1)
    gpu = torch.cuda.max_memory_allocated(codec.device) if codec.device.type == "cuda" else None
    return {
        "width": width, "height": height, "time": dataclasses.asdict(timing), "first_pixel_s": first,
        "imports_bytes": imports, "peak_bytes": _peak(), "gpu_peak_bytes": gpu,
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(_run(json.loads(sys.argv[1]))))
