"""Everything that a GPU has to say, by one command: `lite` and `sd21` by `sodec bench`, and every Triton kernel.

    python benchmarks/gpu.py [--sd21 FOLDER] [--out FOLDER]

Writes a JSON file per part and a chart per model, and prints the tables; the models' last one is the README's column.
Weights of sd21 are drawn at random where none are given: its networks take the same time. Without a GPU it says so and
ends with 2. `--rehearse` runs all of it on the CPU at tiny sizes, where times mean nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from sodec import Codec
from sodec.bench.chart import chart
from sodec.bench.random_weights import write_random_weights
from sodec.bench.report import text
from sodec.bench.run import bench
from sodec.errors import SodecError
from sodec.models import SD21, SD21_TINY

SIZES = [(512, 512), (768, 512), (1920, 1080)]
GROWTH = [(256, 256), (512, 512), (1024, 1024), (2048, 2048), (4096, 4096)]
TINY = [(64, 48)]


def measured(name: str, weights: Path | None, options: argparse.Namespace) -> dict[str, Any]:
    """The report of one model."""
    device = "cpu" if options.rehearse else "cuda"
    codec = Codec(name, weights=weights, device=device)
    sizes, growth, budget = (TINY, TINY, 0.0) if options.rehearse else (SIZES, GROWTH, 2.0)

    def say(line: str) -> None:
        print(f"gpu: {name}: {line}", file=sys.stderr)

    return bench(codec, sizes, growth, budget=budget, say=say).as_json()


def measured_sd21(options: argparse.Namespace) -> dict[str, Any]:
    """The report of sd21, of random weights unless there are some."""
    if options.sd21:
        return measured("sd21", options.sd21, options)
    with tempfile.TemporaryDirectory(prefix="sodec-sd21-") as folder:
        write_random_weights(Path(folder), SD21_TINY if options.rehearse else SD21)
        report = measured("sd21", Path(folder), options)
    report["not_measured"]["entropy, and bytes"] = "the weights are random; networks take the same time with them"
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="folder for JSON and charts")
    parser.add_argument("--lite", type=Path, help="weights of lite instead of the bundled ones")
    parser.add_argument("--sd21", type=Path, help="weights of sd21")
    parser.add_argument("--no-kernels", action="store_true", help="leaves the kernels out")
    parser.add_argument("--rehearse", action="store_true", help="all of it on the CPU, at tiny sizes")
    options = parser.parse_args()
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        reports = [measured("lite", options.lite, options), measured_sd21(options)]
    except (SodecError, OSError) as error:
        print(f"gpu: {error}", file=sys.stderr)
        return 2
    for report in reports:
        save(options.out / f"{report['model']}.json", report)
        chart(report, options.out / f"{report['model']}.png")
    print(text(reports), flush=True)
    if options.no_kernels:
        return 0
    # A process of its own, since Triton decides when it is imported whether it interprets.
    script = str(Path(__file__).with_name("gpu_kernels.py"))
    command = [sys.executable, script, "--json", str(options.out / "kernels.json"), *["--rehearse"] * options.rehearse]
    return subprocess.run(command, check=False).returncode


def save(path: Path, report: dict[str, Any]) -> None:
    """JSON, beside the others."""
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
