"""Checks every Triton kernel on this machine's GPU and times it beside PyTorch:

    python benchmarks/gpu_kernels.py [--seconds N] [--part check] [--json FILE | --out FOLDER]

1. Checks each kernel at odd shapes, in each dtype that it serves, against float64: its error must be at most twice
   PyTorch's own. These are about 40 compilations of half a second to five each, so every kernel and dtype has a process
   of its own (kernel_checks.py); a compiler's crash or an illegal access in one does not stop the others.
2. Times each in bfloat16 at the shapes of an sd21 decode at 512x512 and a lite decode at 1920x1080, beside PyTorch
   eager, its fused attention (SDPA) and torch.compile. Calls are replayed as a CUDA graph over several sets of inputs,
   as the decoder runs them; figures are medians. `x floor` is the time over the least that this GPU's measured
   bandwidth and matrix rate allow.
3. Replays the networks of lite and sd21 (random weights) with all kernels, with none, and with each alone, and times
   tile sizes beside those of kernels/launch_configs.json and choices that need no kernel (kernel_networks.py).
4. Prints tables and the line for `wins_in_graphs` in launch_configs.json, and writes a JSON file.

The JSON is written again after each process and each time; `not_measured` lists what there was no time for or failed.
`--part check`, `networks` and `time`, one after the other, fill one file. Without a GPU it says so and exits with 2;
`--rehearse` runs all of it under Triton's interpreter at tiny shapes, where times mean nothing.
Exit code 1: a kernel is wrong or does not compile; the others are still timed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import kernel_networks
import torch
from kernel_checks import Modules, load, run_checks, written_out
from kernel_shapes import TIMED, Case, inputs, work
from torch import Tensor

SECONDS = 240.0  # default limit
PARTS = ("check", "networks", "time")
CHECKS_SHARE, CHECKS_LEAST = 0.4, 20.0  # of the limit, and seconds, that the checks have at most
NETWORKS_LEAVE = 20.0  # seconds that the networks leave to the times after them
ROW, COMPILED_ROW = 3.0, 12.0  # seconds that are left at least when the times of a shape are begun
PROCESSES = 16  # at most, each with half a GB on the GPU
RIVALS = ("eager", "sdpa", "compile")
INSTEAD = RIVALS[:2]  # these run where the kernel does not


def seconds(call: Callable[..., Tensor], sets: list[tuple[Any, ...]], device: str, modules: Modules) -> float:
    """Median time of one call. On a GPU, a graph of one call per set of inputs is replayed."""
    if device == "cuda":
        return float(modules.clock.graph_seconds(call, sets))
    start = time.perf_counter()
    call(*sets[0])
    return time.perf_counter() - start


def measure(case: Case, device: str, modules: Modules, limits: Any) -> dict[str, Any]:
    """Times of the kernel and of its rivals but for torch.compile, in seconds."""
    kernel, where, sizes = case
    dispatch, reference = modules.dispatch, modules.reference
    operations, moved = work(kernel, sizes)
    fused = getattr(reference, kernel)
    calls = {"triton": lambda *args: getattr(dispatch, kernel)(*args, choice="triton")}
    calls["eager"] = written_out(kernel, reference)
    if kernel.endswith("attention"):
        calls["sdpa"] = fused
    row: dict[str, Any] = {"kernel": kernel, "where": where, "sizes": sizes}
    sets = argument_sets(case, device)
    for name, call in calls.items():
        add_time(row, name, call, sets, device, modules)
    traffic, arithmetic = moved / limits.bytes_per_s, operations / limits.flops_per_s
    row["floor"] = max(traffic, arithmetic)
    row["bound"] = "bytes" if traffic >= arithmetic else "matrix"
    return row


def add_compiled(row: dict[str, Any], device: str, modules: Modules) -> None:
    """The time of torch.compile, into a row."""
    torch._dynamo.reset()
    compiled = torch.compile(getattr(modules.reference, row["kernel"]), dynamic=False)
    add_time(
        row, "compile", compiled, argument_sets((row["kernel"], row["where"], row["sizes"]), device), device, modules
    )


def argument_sets(case: Case, device: str) -> list[tuple[Any, ...]]:
    """Enough that the caches (50 to 60 MB on Hopper) can't hold them all, up to a bound."""
    moved = work(case[0], case[2])[1]
    count = max(2, min(16, math.ceil(128e6 / max(moved, 1))))
    return [inputs(case[0], case[2], torch.bfloat16, device) for _ in range(count)]


def add_time(
    row: dict[str, Any], name: str, call: Callable[..., Tensor], sets: list[Any], device: str, modules: Modules
) -> None:
    """The time of one call into a row, with the ratio that it changes; or why there is none."""
    try:
        row[name] = seconds(call, sets, device, modules)
    except Exception as error:  # out of memory, or a compiler's failure
        row[f"{name}_error"] = f"{type(error).__name__}: {str(error)[:600]}"
    rivals = [row[rival] for rival in INSTEAD if rival in row]
    row["ratio"] = min(rivals) / row["triton"] if rivals and "triton" in row else None


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown; microseconds."""
    lines = [
        "| kernel | where | kernel us | eager us | SDPA us | compile us | PyTorch / kernel | floor us | x floor |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        cells = [f"{1e6 * row[name]:.1f}" if name in row else "" for name in ("triton", *RIVALS)]
        ratio = f"{row['ratio']:.2f}" if row["ratio"] else ""
        above = f"{row['triton'] / row['floor']:.1f}" if "triton" in row else row.get("triton_error", "")[:40]
        floor = f"{1e6 * row['floor']:.1f} ({row['bound']})"
        lines.append(f"| {' | '.join([row['kernel'], row['where'], *cells, ratio, floor, above])} |")
    return "\n".join(lines)


def shrunk(case: Case) -> Case:
    """The shape, reduced to what the interpreter can run in a moment."""
    small = {key: size if key in "dg" else min(size, 8 if key in "xy" else 96) for key, size in case[2].items()}
    return case[0], case[1], small


def start(rehearse: bool) -> dict[str, Any]:
    """An empty report."""
    triton = importlib.import_module("triton")
    return {
        "device": f"rehearsal on {platform.machine()}, no GPU" if rehearse else torch.cuda.get_device_name(),
        "section": "interpreter" if rehearse else "sm{}{}".format(*torch.cuda.get_device_capability()),
        "torch": torch.__version__, "triton": triton.__version__, "seconds": 0.0,
        "checks": [], "wrong": [], "rows": [], "wins_everywhere": [], "not_measured": {},
    }  # fmt: skip


def run_times(
    report: dict[str, Any], rehearse: bool, modules: Modules, deadline: Any, save: Callable[[], None]
) -> None:
    """Times every kernel, into the report; torch.compile once all else is known."""
    device = "cpu" if rehearse else "cuda"
    timed = [shrunk(case) for case in TIMED] if rehearse else TIMED
    rows: list[dict[str, Any]] = []
    with torch.inference_mode():
        limits = modules.clock.ceilings(torch.device(device), torch.bfloat16)
        report |= {"bytes_per_second": limits.bytes_per_s, "operations_per_second": limits.flops_per_s, "rows": rows}
        for case in timed:
            if deadline.allows(ROW):
                rows.append(measure(case, device, modules, limits))
                save()
            else:
                report["not_measured"][f"{case[0]} {case[1]}, times"] = "no time was left"
    report["wins_everywhere"] = winners(rows, report["wrong"])


def run_compiled(
    report: dict[str, Any], rehearse: bool, modules: Modules, deadline: Any, save: Callable[[], None]
) -> None:
    """Times torch.compile beside them; long, and so the last."""
    with torch.inference_mode():
        for row in () if rehearse else report["rows"]:
            if deadline.allows(COMPILED_ROW):
                add_compiled(row, "cuda", modules)
                save()
            else:
                report["not_measured"][f"{row['kernel']} {row['where']}, torch.compile"] = "no time was left"


def run_alternatives(
    report: dict[str, Any], rehearse: bool, modules: Modules, deadline: Any, save: Callable[[], None]
) -> None:
    """Times tile sizes, and choices without a kernel."""
    device = "cpu" if rehearse else "cuda"
    timed = [shrunk(case) for case in TIMED][::5] if rehearse else TIMED

    def timer(call: Callable[..., Tensor], sets: list[tuple[Any, ...]]) -> float:
        return seconds(call, sets, device, modules)

    def sets_of(case: Case) -> list[tuple[Any, ...]]:
        return argument_sets(case, device)

    launch = importlib.import_module("sodec.kernels.launch")
    kernel_networks.run_choices(report, device, rehearse, timer, deadline, save)
    kernel_networks.run_variants(report, timed, timer, launch, modules.dispatch, sets_of, deadline, save)


def run_networks(
    report: dict[str, Any], rehearse: bool, modules: Modules, deadline: Any, save: Callable[[], None],
    building: Future[Any],
) -> None:  # fmt: skip
    """Times the networks, once they are built."""
    kernel_networks.run_networks(report, rehearse, modules, deadline, save, NETWORKS_LEAVE, building.result())


def winners(rows: list[dict[str, Any]], bad: list[str]) -> list[str]:
    """The kernels that are right, and faster than what PyTorch runs in their place at every shape."""
    wrong = {line.split()[0] for line in bad}
    ratios: dict[str, list[float]] = {}
    for row in rows:
        ratios.setdefault(row["kernel"], []).append(row["ratio"] or 0.0)
    return [k for k, r in ratios.items() if min(r) > 1.02 and k not in wrong]  # 2 %: the spread between runs


def text(report: dict[str, Any]) -> str:
    """The tables, under the device's name, the networks last."""
    wins = {kernel: [report["section"]] for kernel in report["wins_everywhere"]}
    parts = [f"{report['device']}, torch {report['torch']}, triton {report['triton']}; bfloat16, batch 1"]
    if "bytes_per_second" in report:
        parts[0] += (
            f"; copy {report['bytes_per_second'] / 1e12:.2f} TB/s, "
            f"matrix {report['operations_per_second'] / 1e12:.0f} TFLOP/s"
        )
        parts.append(table(report["rows"]))
        parts.append(f'Faster than what PyTorch runs at every shape, for "wins_in_graphs": {json.dumps(wins)}')
    for name in ("variants", "choices", "networks"):
        if report.get(name):
            parts.append(getattr(kernel_networks, f"{name}_table")(report[name]))
    parts.append(f"{len(report['wrong'])} wrong, {len(report['not_measured'])} not measured")
    return "\n\n".join(parts)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--json", type=Path, default=Path("gpu_kernels.json"), help="where the figures go")
    parser.add_argument("--part", choices=("all", *PARTS), default="all", help="one part alone")
    parser.add_argument("--out", type=Path, help="a folder for the figures, as kernels.json")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="limit for all of it")
    parser.add_argument("--workers", type=int, help="processes that check")
    parser.add_argument("--rehearse", action="store_true", help="tiny shapes under Triton's interpreter, on the CPU")
    options = parser.parse_args()
    began = time.perf_counter()
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        options.json = options.out / "kernels.json"
    if options.rehearse:
        os.environ["TRITON_INTERPRET"] = "1"  # before triton is imported
    elif not torch.cuda.is_available():
        print("gpu_kernels: no CUDA device here; run it on a GPU machine, or rehearse it with --rehearse")
        return 2
    modules = load()
    deadline = modules.clock.Deadline(options.seconds)
    report = start(options.rehearse)
    if options.part not in ("all", "check") and options.json.exists():
        report = json.loads(options.json.read_text(encoding="utf-8"))
    before = report["seconds"]

    def save() -> None:
        report["seconds"] = before + time.perf_counter() - began
        beside = options.json.with_suffix(".partial")
        beside.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        beside.replace(options.json)

    workers = options.workers or (2 if options.rehearse else min(PROCESSES, os.cpu_count() or 1))

    def checks(*given: Any) -> None:
        share = options.seconds if options.part == "check" else max(CHECKS_SHARE * options.seconds, CHECKS_LEAST)
        limit = modules.clock.Deadline(min(deadline.left, share))
        run_checks(report, options.rehearse, workers, limit, save)

    def networks(*given: Any) -> None:
        assert building is not None
        run_networks(*given, building)

    steps = {"check": [checks], "networks": [networks], "time": [run_times, run_alternatives, run_compiled]}
    parts = [part for part in PARTS if options.part in ("all", part)]
    # They are built while processes check the kernels, which no time is measured of.
    pool, building = ThreadPoolExecutor(1), None
    if "networks" in parts:
        building = pool.submit(kernel_networks.built, options.rehearse, modules.dispatch)
    for part in parts:
        for step in steps[part]:
            try:
                step(report, options.rehearse, modules, deadline, save)
            except Exception as error:  # the parts after it must not be lost
                report["not_measured"][part] = f"{type(error).__name__}: {str(error)[:600]}"
                traceback.print_exc()
    if options.part != "check":
        print(f"\n{text(report)}")
    save()
    print(f"figures in {options.json}", flush=True)
    return 1 if report["wrong"] and options.part in ("all", "check") else 0


if __name__ == "__main__":
    sys.exit(main())
