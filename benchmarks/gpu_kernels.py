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
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from kernel_shapes import ODD, TIMED, Case, inputs, work
from torch import Tensor

COMPILE_UNTIL = 190.0  # seconds from the start; what is left then takes well under a minute
RIVALS = ("eager", "sdpa", "compile")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def written_out(kernel: str, reference: Any) -> Callable[..., Tensor]:
    """The formula without fused attention; for the other kernels the reference is that already."""
    if kernel == "wide_attention":
        return lambda q, k, v: reference.softmax_attention(q[:, :, None], k[:, :, None], v[:, :, None])[:, :, 0]
    if kernel == "self_attention":
        return lambda qkv: reference.softmax_attention(*qkv.unbind(2))
    formula: Callable[..., Tensor] = getattr(reference, "softmax_attention" if kernel == "guided_attention" else kernel)
    return formula


def errors(case: Case, dtype: torch.dtype, device: str, modules: Any) -> tuple[float, float, float]:
    """Largest errors of the kernel and of PyTorch against float64, and the largest value."""
    kernel, _, sizes = case
    dispatch, reference = modules
    args = inputs(kernel, sizes, dtype, device)
    exact = written_out(kernel, reference)(*(a.double() if isinstance(a, Tensor) else a for a in args))
    got = getattr(dispatch, kernel)(*args, choice="triton").double() - exact
    plain = getattr(dispatch, kernel)(*args, choice="torch").double() - exact
    return got.abs().max().item(), plain.abs().max().item(), exact.abs().max().item()


def check(cases: list[Case], dtypes: tuple[torch.dtype, ...], device: str, modules: Any) -> list[str]:
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


def seconds(call: Callable[..., Tensor], sets: list[tuple[Any, ...]], device: str) -> float:
    """Median time of one call. On a GPU, a graph of one call per set of inputs is replayed."""
    if device == "cpu":
        start = time.perf_counter()
        call(*sets[0])
        return time.perf_counter() - start
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for args in sets:
            call(*args)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(math.ceil(16 / len(sets))):
            for args in sets:
                call(*args)
    calls = math.ceil(16 / len(sets)) * len(sets)
    times = []
    for turn in range(30):
        first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        first.record()
        graph.replay()
        last.record()
        last.synchronize()
        if turn >= 5:
            times.append(first.elapsed_time(last) / 1000 / calls)
    return statistics.median(times)


def ceilings(device: str) -> tuple[float, float]:
    """Measured bytes per second of a large copy, and operations per second of a large bfloat16 product."""
    side = 8192 if device == "cuda" else 64
    a, b = (torch.randn(side, side, device=device).bfloat16() for _ in range(2))
    product = seconds(torch.mm, [(a, b)], device)
    source = torch.empty(2**30 if device == "cuda" else 2**10, dtype=torch.uint8, device=device).random_()
    copy = seconds(lambda x, y: x.copy_(y), [(torch.empty_like(source), source)], device)
    return 2 * source.numel() / copy, 2 * side**3 / product


def measure(case: Case, device: str, modules: Any, limits: tuple[float, float], compiled: bool) -> dict[str, Any]:
    """Times of the kernel and of its rivals, in seconds."""
    kernel, where, sizes = case
    dispatch, reference = modules
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
            row[name] = seconds(call, sets, device)
        except Exception as error:  # out of memory, or a compiler's failure: an empty cell, and why
            row[f"{name}_error"] = f"{type(error).__name__}: {str(error)[:300]}"
    row["floor"] = max(moved / limits[0], operations / limits[1])
    row["bound"] = "bytes" if moved / limits[0] >= operations / limits[1] else "matrix"
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


def load_kernels() -> Any:
    """From the installed package, else from this checkout, so that a bare GPU machine needs no build."""
    try:
        importlib.import_module("sodec.kernels")
    except ImportError:
        root = str(Path(__file__).resolve().parent.parent)
        sys.path.insert(0, root)
        importlib.import_module("sodec").__path__.append(root)  # kernels/ is installed as sodec.kernels
    return importlib.import_module("sodec.kernels.dispatch"), importlib.import_module("sodec.kernels.reference")


def main() -> int:
    start = time.perf_counter()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--json", default="gpu_kernels.json", help="where the figures go")
    parser.add_argument("--rehearse", action="store_true", help="tiny shapes under Triton's interpreter, on the CPU")
    options = parser.parse_args()
    if options.rehearse:
        os.environ["TRITON_INTERPRET"] = "1"  # before triton is imported
    elif not torch.cuda.is_available():
        print("gpu_kernels: no CUDA device here; run it on a GPU machine, or rehearse it with --rehearse")
        return 2
    device = "cpu" if options.rehearse else "cuda"
    torch.manual_seed(0)
    modules = load_kernels()
    triton = importlib.import_module("triton")
    timed = [shrunk(case) for case in TIMED] if options.rehearse else TIMED
    # The interpreter truncates to bfloat16 where a GPU rounds, so a rehearsal checks the other dtypes.
    with torch.inference_mode():
        torch.use_deterministic_algorithms(True, warn_only=True)  # fills new buffers with NaN: unwritten elements show
        bad = check(ODD, tuple(d for d in DTYPES if d != torch.bfloat16 or not options.rehearse), device, modules)
        bad += check(timed, () if options.rehearse else (torch.bfloat16,), device, modules)
        torch.use_deterministic_algorithms(False)
        for line in bad:
            print("WRONG:", line)
        print(f"checked at {len(ODD)} odd shapes: {len(bad)} wrong, {time.perf_counter() - start:.0f} s")
        limits = ceilings(device)
        rows = []
        for case in timed:
            compiled = device == "cuda" and time.perf_counter() - start < COMPILE_UNTIL
            rows.append(measure(case, device, modules, limits, compiled))

    name = torch.cuda.get_device_name() if device == "cuda" else f"rehearsal on {platform.machine()}, no GPU"
    wrong = {line.split()[0] for line in bad}
    ratios: dict[str, list[float]] = {}
    for row in rows:
        ratios.setdefault(row["kernel"], []).append(row["ratio"] or 0.0)
    winners = [k for k, r in ratios.items() if min(r) > 1.02 and k not in wrong]  # 2 %: the spread between runs
    section = "sm{}{}".format(*torch.cuda.get_device_capability()) if device == "cuda" else "interpreter"
    report = {
        "device": name, "section": section, "torch": torch.__version__, "triton": triton.__version__,
        "bytes_per_second": limits[0], "operations_per_second": limits[1], "wrong": bad, "rows": rows,
        "wins_everywhere": winners, "seconds": time.perf_counter() - start,
    }  # fmt: skip
    Path(options.json).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"\n{name}, torch {torch.__version__}, triton {triton.__version__}; bfloat16, batch 1; "
          f"copy {limits[0] / 1e12:.2f} TB/s, matrix {limits[1] / 1e12:.0f} TFLOP/s\n")  # fmt: skip
    print(table(rows))
    print(f'\nFaster than the best rival at every shape, for "wins": {json.dumps({k: [section] for k in winners})}')
    print(f"{time.perf_counter() - start:.0f} s; figures in {options.json}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
