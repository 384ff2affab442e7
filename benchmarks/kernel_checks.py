"""For gpu_kernels.py: each kernel against float64, every kernel and dtype in a process of its own."""

from __future__ import annotations

import importlib
import multiprocessing
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

import torch
from kernel_shapes import DTYPES, ODD, TIMED, Case, dtypes, inputs
from torch import Tensor

Group = tuple[list[Case], torch.dtype, str]  # device
Finding = dict[str, Any]


class Modules(NamedTuple):
    """What is measured, and what measures it."""

    dispatch: Any
    reference: Any
    clock: Any


def load() -> Modules:
    """From the installed package, else from this checkout, so that a bare GPU machine needs no build."""
    try:
        importlib.import_module("sodec.kernels")
    except ImportError:
        root = str(Path(__file__).resolve().parent.parent)
        sys.path.insert(0, root)
        importlib.import_module("sodec").__path__.append(root)  # kernels/ is installed as sodec.kernels
    names = ("kernels.dispatch", "kernels.reference", "bench.clock")
    return Modules(*(importlib.import_module(f"sodec.{name}") for name in names))


def written_out(kernel: str, reference: Any) -> Callable[..., Tensor]:
    """The formula without fused attention, in the dtype of its arguments."""
    formula: Callable[..., Tensor] = getattr(reference, "softmax_attention" if kernel == "guided_attention" else kernel)
    return formula


def joined(result: Any) -> Tensor:
    """One tensor of a result of several alike."""
    return result if isinstance(result, Tensor) else torch.stack(tuple(result))


def errors(case: Case, dtype: torch.dtype, device: str, modules: Modules) -> tuple[float, float, float]:
    """Largest errors of the kernel and of PyTorch against float64, and the largest value."""
    kernel, _, sizes = case
    dispatch, reference = modules.dispatch, modules.reference
    args = inputs(kernel, sizes, dtype, device)
    exact = joined(written_out(kernel, reference)(*(a.double() if isinstance(a, Tensor) else a for a in args)))
    plain = joined(getattr(dispatch, kernel)(*args, choice="torch")).double() - exact
    got = joined(getattr(dispatch, kernel)(*args, choice="triton")).double() - exact  # last: it may overwrite its input
    return got.abs().max().item(), plain.abs().max().item(), exact.abs().max().item()


def check(group: Group, modules: Modules | None = None) -> list[Finding]:
    """The errors of every case of a group; `wrong` says which is too large or NaN."""
    cases, dtype, device = group
    modules = modules or load()
    findings = []
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of operations without a deterministic form
        torch.use_deterministic_algorithms(True, warn_only=True)  # fills new buffers with NaN: unwritten elements show
        torch.manual_seed(0)
        for case in cases:
            finding: Finding = {"kernel": case[0], "where": case[1], "dtype": str(dtype).removeprefix("torch.")}
            try:
                got, plain, size = errors(case, dtype, device, modules)
                finding |= {"error": got, "error_of_torch": plain, "largest": size}
                if not got <= 2 * plain + 2e-6 * size + 1e-7:
                    finding["wrong"] = f"error {got:.3g}, PyTorch's {plain:.3g}"
            except Exception as error:  # a kernel that does not compile must not cost the others their figures
                finding["wrong"] = f"{type(error).__name__}: {str(error)[:600]}"
            findings.append(finding)
        torch.use_deterministic_algorithms(False)
    return findings


def groups(timed: list[Case], rehearse: bool) -> list[Group]:
    """Odd shapes by kernel and dtype; timed shapes by kernel, in bfloat16. The slowest compilations come first."""
    device = "cpu" if rehearse else "cuda"
    names = sorted({case[0] for case in ODD}, key=lambda name: (not name.endswith("attention"), name))
    # The interpreter truncates to bfloat16 where a GPU rounds, so a rehearsal checks the other dtypes.
    checked = [dtype for dtype in DTYPES if dtype != torch.bfloat16 or not rehearse]
    result = [
        ([case for case in ODD if case[0] == name], dtype, device)
        for dtype in checked
        for name in names
        if dtype in dtypes(name)
    ]
    if not rehearse:
        result += [([case for case in timed if case[0] == name], torch.bfloat16, device) for name in names]
    return result


def in_a_process(group: Group, deadline: Any) -> list[Finding]:
    """`check` in a process of its own; cases that it did not return are `wrong`, or `not_checked` if time ran out."""
    context = multiprocessing.get_context("forkserver")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(send, group), daemon=True)
    process.start()
    send.close()
    findings: list[Finding] = []
    why = "not_checked", "no time was left"
    try:
        if receive.poll(min(1e6, max(0.0, deadline.left))):
            findings = receive.recv()
    except EOFError:
        process.join(5)
        why = "wrong", f"its process ended with code {process.exitcode}"
    process.kill()
    named = {"dtype": str(group[1]).removeprefix("torch.")}
    return findings or [{"kernel": case[0], "where": case[1], **named, why[0]: why[1]} for case in group[0]]


def _answer(send: Any, group: Group) -> None:
    send.send(check(group))


def run_checks(report: dict[str, Any], rehearse: bool, workers: int, deadline: Any, save: Callable[[], None]) -> None:
    """Checks every kernel, into the report."""
    timed = [] if rehearse else TIMED
    todo = groups(timed, rehearse)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "triton", "kernel_shapes"])  # what each process begins with
    report |= {"checks": [], "wrong": []}
    with ThreadPoolExecutor(workers) as pool:
        for done in as_completed([pool.submit(in_a_process, group, deadline) for group in todo]):
            report["checks"] += done.result()
            for finding in done.result():
                label = f"{finding['kernel']} {finding['where']} {finding['dtype']}"
                if "wrong" in finding:
                    report["wrong"].append(f"{label}: {finding['wrong']}")
                    print("WRONG:", report["wrong"][-1], flush=True)
                elif "not_checked" in finding:
                    report["not_measured"][label] = finding["not_checked"]
            save()
    print(f"checked {len(report['checks'])} shapes and dtypes: {len(report['wrong'])} wrong", flush=True)
