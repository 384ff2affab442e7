"""Every Triton kernel on this machine's GPU: is it right, and is it faster than PyTorch's best? One command:

    python benchmarks/gpu_kernels.py [--json FILE]

1. Each kernel at odd shapes, in float32, bfloat16 and float16, against float64: at most twice PyTorch's own error.
2. Times in bfloat16 at the shapes of an sd21 decode at 512x512 and a lite decode at 1920x1080, beside PyTorch
   eager, its fused attention (SDPA) and torch.compile; calls are replayed as a CUDA graph over several sets of inputs,
   as the decoder runs them; medians. `x floor` is the time over the least that this GPU's measured bandwidth and
   matrix rate allow.
3. A table, a JSON file with the GPU's name, and the line for `wins` in kernels/launch_configs.json.

Ends within 4 minutes (torch.compile is left out once time runs short). Without a GPU it says so and exits with 2;
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
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from kernel_shapes import ODD, TIMED, Case, inputs, work
from torch import Tensor

COMPILE_UNTIL = 190.0  # seconds from the start; what is left then takes well under a minute
RIVALS = ("eager", "sdpa", "compile")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class Modules(NamedTuple):
    """What is measured, and what measures it."""

    dispatch: Any
    reference: Any
    clock: Any
    ceilings: Any


def written_out(kernel: str, reference: Any) -> Callable[..., Tensor]:
    """The formula without fused attention; for the other kernels the reference is that already."""
    if kernel == "wide_attention":
        return lambda q, k, v: reference.softmax_attention(q[:, :, None], k[:, :, None], v[:, :, None])[:, :, 0]
    if kernel == "self_attention":
        return lambda qkv: reference.softmax_attention(*qkv.unbind(2))
    formula: Callable[..., Tensor] = getattr(reference, "softmax_attention" if kernel == "guided_attention" else kernel)
    return formula


def errors(case: Case, dtype: torch.dtype, device: str, modules: Modules) -> tuple[float, float, float]:
    """Largest errors of the kernel and of PyTorch against float64, and the largest value."""
    kernel, _, sizes = case
    dispatch, reference = modules.dispatch, modules.reference
    args = inputs(kernel, sizes, dtype, device)
    exact = written_out(kernel, reference)(*(a.double() if isinstance(a, Tensor) else a for a in args))
    got = getattr(dispatch, kernel)(*args, choice="triton").double() - exact
    plain = getattr(dispatch, kernel)(*args, choice="torch").double() - exact
    return got.abs().max().item(), plain.abs().max().item(), exact.abs().max().item()


def check(cases: list[Case], dtypes: tuple[torch.dtype, ...], device: str, modules: Modules) -> list[str]:
    """One line per kernel, shape and dtype that is wrong or does not run; a NaN is wrong."""
    bad = []
    for case in cases:
        for dtype in dtypes:
            label = f"{case[0]} {case[1]} {str(dtype).removeprefix('torch.')}"
            try:
                got, plain, size = errors(case, dtype, device, modules)
            except Exception as error:  # a kernel that does not compile must not cost the others their figures
                bad.append(f"{label}: {type(error).__name__}: {str(error)[:300]}")
                continue
            if not got <= 2 * plain + 2e-6 * size + 1e-7:
                bad.append(f"{label}: error {got:.3g}, PyTorch's {plain:.3g}")
    return bad


def seconds(call: Callable[..., Tensor], sets: list[tuple[Any, ...]], device: str, modules: Modules) -> float:
    """Median time of one call. On a GPU, a graph of one call per set of inputs is replayed."""
    if device == "cuda":
        return float(modules.clock.graph_seconds(call, sets))
    start = time.perf_counter()
    call(*sets[0])
    return time.perf_counter() - start


def measure(case: Case, device: str, modules: Modules, limits: Any, compiled: bool) -> dict[str, Any]:
    """Times of the kernel and of its rivals, in seconds."""
    kernel, where, sizes = case
    dispatch, reference = modules.dispatch, modules.reference
    operations, moved = work(kernel, sizes)
    # Enough sets that the caches (50 to 60 MB on Hopper) can't hold them all, up to a bound.
    sets = [
        inputs(kernel, sizes, torch.bfloat16, device) for _ in range(max(2, min(16, math.ceil(128e6 / max(moved, 1)))))
    ]
    fused = getattr(reference, kernel)
    calls = {"triton": lambda *args: getattr(dispatch, kernel)(*args, choice="triton")}
    calls["eager"] = written_out(kernel, reference)
    if kernel.endswith("attention"):
        calls["sdpa"] = fused
    if compiled:
        torch._dynamo.reset()
        calls["compile"] = torch.compile(fused, dynamic=False)
    row: dict[str, Any] = {"kernel": kernel, "where": where, "sizes": sizes}
    for name, call in calls.items():
        try:
            row[name] = seconds(call, sets, device, modules)
        except Exception as error:  # out of memory, or a compiler's failure: an empty cell, and why
            row[f"{name}_error"] = f"{type(error).__name__}: {str(error)[:300]}"
    traffic, arithmetic = moved / limits.bytes_per_s, operations / limits.flops_per_s
    row["floor"] = max(traffic, arithmetic)
    row["bound"] = "bytes" if traffic >= arithmetic else "matrix"
    rivals = [row[name] for name in RIVALS if name in row]
    row["ratio"] = min(rivals) / row["triton"] if rivals and "triton" in row else None
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown; microseconds."""
    lines = [
        "| kernel | where | kernel us | eager us | SDPA us | compile us | best rival / kernel | floor us | x floor |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        cells = [f"{1e6 * row[name]:.1f}" if name in row else "" for name in ("triton", *RIVALS)]
        ratio = f"{row['ratio']:.2f}" if row["ratio"] else ""
        above = f"{row['triton'] / row['floor']:.1f}" if "triton" in row else ""
        floor = f"{1e6 * row['floor']:.1f} ({row['bound']})"
        lines.append(f"| {' | '.join([row['kernel'], row['where'], *cells, ratio, floor, above])} |")
    return "\n".join(lines)


def shrunk(case: Case) -> Case:
    """A shape that the interpreter bears."""
    small = {key: size if key in "dg" else min(size, 8 if key in "xy" else 96) for key, size in case[2].items()}
    return case[0], case[1], small


def load() -> Modules:
    """From the installed package, else from this checkout, so that a bare GPU machine needs no build."""
    try:
        importlib.import_module("sodec.kernels")
    except ImportError:
        root = str(Path(__file__).resolve().parent.parent)
        sys.path.insert(0, root)
        importlib.import_module("sodec").__path__.append(root)  # kernels/ is installed as sodec.kernels
    names = ("kernels.dispatch", "kernels.reference", "bench.clock", "bench.ceilings")
    return Modules(*(importlib.import_module(f"sodec.{name}") for name in names))


def run(rehearse: bool = False) -> dict[str, Any]:
    """Checks and times every kernel; what is wrong is printed at once. The report that --json writes."""
    start = time.perf_counter()
    device = "cpu" if rehearse else "cuda"
    torch.manual_seed(0)
    modules = load()
    triton = importlib.import_module("triton")
    timed = [shrunk(case) for case in TIMED] if rehearse else TIMED
    # The interpreter truncates to bfloat16 where a GPU rounds, so a rehearsal checks the other dtypes.
    with torch.inference_mode():
        torch.use_deterministic_algorithms(True, warn_only=True)  # fills new buffers with NaN: unwritten elements show
        bad = check(ODD, tuple(d for d in DTYPES if d != torch.bfloat16 or not rehearse), device, modules)
        bad += check(timed, () if rehearse else (torch.bfloat16,), device, modules)
        torch.use_deterministic_algorithms(False)
        for line in bad:
            print("WRONG:", line)
        print(f"checked at {len(ODD)} odd shapes: {len(bad)} wrong, {time.perf_counter() - start:.0f} s")
        limits = modules.ceilings.ceilings(torch.device(device), torch.bfloat16)
        rows = []
        for case in timed:
            compiled = device == "cuda" and time.perf_counter() - start < COMPILE_UNTIL
            rows.append(measure(case, device, modules, limits, compiled))
    return {
        "device": f"rehearsal on {platform.machine()}, no GPU" if rehearse else torch.cuda.get_device_name(),
        "section": "interpreter" if rehearse else "sm{}{}".format(*torch.cuda.get_device_capability()),
        "torch": torch.__version__, "triton": triton.__version__,
        "bytes_per_second": limits.bytes_per_s, "operations_per_second": limits.flops_per_s, "wrong": bad,
        "rows": rows, "wins_everywhere": winners(rows, bad), "seconds": time.perf_counter() - start,
    }  # fmt: skip


def winners(rows: list[dict[str, Any]], bad: list[str]) -> list[str]:
    """The kernels that are right, and faster than the best rival at every shape."""
    wrong = {line.split()[0] for line in bad}
    ratios: dict[str, list[float]] = {}
    for row in rows:
        ratios.setdefault(row["kernel"], []).append(row["ratio"] or 0.0)
    return [k for k, r in ratios.items() if min(r) > 1.02 and k not in wrong]  # 2 %: the spread between runs


def text(report: dict[str, Any]) -> str:
    """The table, under the device's name."""
    wins = {kernel: [report["section"]] for kernel in report["wins_everywhere"]}
    return (
        f"{report['device']}, torch {report['torch']}, triton {report['triton']}; bfloat16, batch 1; copy "
        f"{report['bytes_per_second'] / 1e12:.2f} TB/s, matrix {report['operations_per_second'] / 1e12:.0f} TFLOP/s\n\n"
        f"{table(report['rows'])}\n\n"
        f'Faster than the best rival at every shape, for "wins": {json.dumps(wins)}\n{report["seconds"]:.0f} s'
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--json", default="gpu_kernels.json", help="where the figures go")
    parser.add_argument("--rehearse", action="store_true", help="tiny shapes under Triton's interpreter, on the CPU")
    options = parser.parse_args()
    if not options.rehearse and not torch.cuda.is_available():
        print("gpu_kernels: no CUDA device here; run it on a GPU machine, or rehearse it with --rehearse")
        return 2
    if options.rehearse:
        os.environ["TRITON_INTERPRET"] = "1"  # before triton is imported
    report = run(options.rehearse)
    Path(options.json).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"\n{text(report)}; figures in {options.json}")
    return 1 if report["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
