"""All figures of a GPU by one command: `lite` and `sd21` as by `claim.py`, and every Triton kernel.

    python benchmarks/gpu.py [--seconds N] [--sd21 FOLDER] [--out FOLDER]

Writes a JSON file per part and a chart per model, and prints the tables; the models' last one is the README's column.
Weights of sd21 are drawn at random where none are given: its networks take the same time. Without a GPU it says so and
ends with 2; with 1 where a part failed or a kernel is wrong, after all others are measured. `--rehearse` runs all of it
on the CPU at tiny sizes, where times mean nothing.

In the order of their worth, so that a limit cuts the end off: the kernels' errors (in processes of their own, while
sd21's weights are made), sd21, lite, the kernels' times. With `--seconds` figures have fewer repeats, and torch.compile
for whole models and growth, which take minutes, are left out. Every file is written as soon as a part of it is
measured.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from claim import ratios

from sodec import Codec
from sodec.bench.clock import Deadline
from sodec.bench.random_weights import drawn, write_random_weights
from sodec.bench.report import chart, summary, text
from sodec.bench.run import Report, bench, end_of_traceback
from sodec.errors import DeviceError
from sodec.models import SD21, SD21_TINY
from sodec.pipeline.device import resolve_device

SIZES = {"sd21": [(512, 512), (768, 512)], "lite": [(512, 512), (768, 512), (1920, 1080)]}
MORE = [(1920, 1080)]  # of sd21, where there is no limit
GROWTH = [(256, 256), (512, 512), (1024, 1024), (2048, 2048), (4096, 4096)]
TINY = [(64, 48)]
BUDGET, SHORT = 2.0, 0.2  # seconds of repeats for each figure; with a limit
CHECKED, AFTER = 60.0, 1.0  # most that the kernels' errors may take of a limit; what is kept of it for the end
LEAST = 20.0  # seconds for a model or for the kernels' times


class Run:
    """What one call of the command has, and what went wrong in it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.deadline = Deadline(options.seconds)
        self.device = "cpu" if options.rehearse else "cuda"
        self.failed: list[str] = []

    def guarded(self, name: str, part: Callable[[], Any]) -> Any:
        """What `part` returns; None if it raises, which is then printed and in errors.json."""
        try:
            return part()
        except Exception as error:  # the parts after it must not be lost
            self.fail(name, end_of_traceback(error))
            return None

    def fail(self, name: str, why: str) -> None:
        """Notes a failure, in errors.json too."""
        print(f"gpu: {name} failed: {why}", file=sys.stderr, flush=True)
        self.failed.append(name)
        path = self.options.out / "errors.json"
        save(path, {**(json.loads(path.read_text(encoding="utf-8")) if len(self.failed) > 1 else {}), name: why})

    def allows(self, name: str) -> bool:
        """Whether there is time for a model or the kernels' times; says so if not."""
        if enough := self.deadline.allows(LEAST):
            return enough
        print(f"gpu: {name}: not measured, {max(0, self.deadline.left):.0f} s are left", file=sys.stderr, flush=True)
        return False

    # -- models

    def codec(self, name: str, weights: Any) -> Codec:
        """A model, by weights or by name."""
        return Codec(name, weights=weights, device=self.device)

    def measured(self, name: str, codec: Codec, extra: dict[str, str]) -> dict[str, Any]:
        """The report of one model, its file written after each part of it; `extra` goes into `not_measured`."""
        rehearse, limited = self.options.rehearse, self.deadline.limited
        sizes, growth = SIZES[name] + (MORE if name == "sd21" and not limited else []), GROWTH
        if rehearse:
            sizes = growth = TINY
        if limited:
            growth, extra = [], {**extra, "growth": "left out under a time limit: a process for each size"}
        path = self.options.out / f"{name}.json"

        def keep(report: Report) -> None:
            save(path, {**report.as_json(), "not_measured": {**report.not_measured, **extra}})

        def say(line: str) -> None:
            print(f"gpu: {name}: {line}", file=sys.stderr, flush=True)

        budget = 0.0 if rehearse else SHORT if limited else BUDGET
        bench(codec, sizes, growth, budget=budget, say=say, compare=ratios, deadline=self.deadline, save=keep)
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        self.failed += [f"{name}: {part}" for part in report["errors"]]
        print(text([report]), flush=True)
        if report["sizes"] and not self.options.no_charts:
            self.guarded(f"chart of {name}", lambda: chart(report, path.with_suffix(".png")))
        return report

    # -- kernels: processes of their own, since Triton decides when it is imported whether it interprets

    def kernels(self, part: str, seconds: float) -> subprocess.Popen[bytes]:
        """Begins to check or to time them."""
        command = [sys.executable, str(Path(__file__).with_name("gpu_kernels.py")), "--part", part]
        command += ["--json", str(self.options.out / "kernels.json"), *["--rehearse"] * self.options.rehearse]
        if self.deadline.limited:
            command += ["--seconds", f"{seconds:.1f}"]
        return subprocess.Popen(command, start_new_session=True)

    def end(self, name: str, process: subprocess.Popen[bytes], seconds: float) -> None:
        """Waits for a process, and ends it with all that it started once it has had more than its time."""
        try:
            code = process.wait(None if not self.deadline.limited else max(0.1, seconds) + 5)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            self.fail(name, f"not done after {seconds:.0f} s, and ended")
            return
        if code:
            self.fail(name, f"exit code {code}; kernels.json says more")


def sd21(run: Run, folder: Path) -> tuple[Codec, dict[str, str]]:
    """The codec, of random weights unless there are some, and what they can't tell."""
    if run.options.sd21:
        return run.codec("sd21", run.options.sd21), {}
    config = SD21_TINY if run.options.rehearse else SD21
    if run.deadline.limited:  # no growth then, whose processes would need files
        codec = run.codec("sd21", drawn(config, resolve_device(run.device)))
    else:
        write_random_weights(folder, config)
        codec = run.codec("sd21", folder)
    return codec, {"entropy, and bytes": "the weights are random; networks take the same time with them"}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="folder for JSON and charts")
    parser.add_argument("--seconds", type=float, help="limit for all of it; what does not fit is named")
    parser.add_argument("--lite", type=Path, help="weights of lite instead of the bundled ones")
    parser.add_argument("--sd21", type=Path, help="weights of sd21")
    parser.add_argument("--no-kernels", action="store_true", help="leaves the kernels out")
    parser.add_argument("--no-charts", action="store_true", help="leaves the charts out")
    parser.add_argument("--rehearse", action="store_true", help="all of it on the CPU, at tiny sizes")
    run = Run(parser.parse_args())
    try:
        resolve_device(run.device)
        run.options.out.mkdir(parents=True, exist_ok=True)
    except (DeviceError, OSError) as error:
        print(f"gpu: {error}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="sodec-sd21-") as folder:
        everything(run, Path(folder))
    if run.failed:
        print(f"gpu: failed: {', '.join(run.failed)}", file=sys.stderr)
    return 1 if run.failed else 0


def everything(run: Run, folder: Path) -> None:
    """All parts, the ones of most worth first."""
    with_kernels, reports = not run.options.no_kernels, []
    given = min(CHECKED, run.deadline.left - AFTER)
    checking = run.kernels("check", given) if with_kernels else None
    made = run.guarded("sd21", lambda: sd21(run, folder))
    if checking:  # nothing is timed beside it
        run.end("kernels' errors", checking, min(CHECKED, run.deadline.left - AFTER))
    if made and run.allows("sd21"):
        reports.append(run.guarded("sd21", lambda: run.measured("sd21", *made)))
    if run.allows("lite"):
        reports.append(run.guarded("lite", lambda: run.measured("lite", run.codec("lite", run.options.lite), {})))
    if with_kernels and run.allows("kernels' times"):
        given = run.deadline.left - AFTER
        run.end("kernels' times", run.kernels("time", given), given)
    if reports := [report for report in reports if report]:
        print(summary(reports), flush=True)


def save(path: Path, report: dict[str, Any]) -> None:
    """JSON, replaced as a whole: a process may be ended at any moment."""
    beside = path.with_suffix(".partial")
    beside.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    beside.replace(path)


if __name__ == "__main__":
    sys.exit(main())
