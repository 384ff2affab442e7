"""Everything that a GPU has to say, by one command: `lite` and `sd21` by `sodec bench`, and every Triton kernel.

    python benchmarks/gpu.py [--sd21 FOLDER] [--out FOLDER]

Writes a JSON file per part and a chart per model, and prints the tables; the last one is the README's column. Without a
GPU it says so and ends with 2. `--rehearse` runs all of it on the CPU at tiny sizes, where times mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import gpu_kernels

from sodec import Codec
from sodec.bench.chart import chart
from sodec.bench.report import text
from sodec.bench.run import bench
from sodec.errors import SodecError

SIZES = [(512, 512), (768, 512), (1920, 1080)]
GROWTH = [(256, 256), (512, 512), (1024, 1024), (2048, 2048), (4096, 4096)]
TINY = [(64, 48)]


def models(options: argparse.Namespace) -> tuple[dict[str, Path | None], dict[str, str]]:
    """Folders of weights by model, None for the bundled ones; and what is left out, with the reason."""
    if options.sd21:
        return {"lite": options.lite, "sd21": options.sd21}, {}
    return {"lite": options.lite}, {"sd21": "no weights given; --sd21 FOLDER"}


def measured(name: str, weights: Path | None, options: argparse.Namespace) -> dict[str, Any]:
    """The report of one model."""
    device = "cpu" if options.rehearse else "cuda"
    codec = Codec(name, weights=weights, device=device)
    sizes, growth, budget = (TINY, TINY, 0.0) if options.rehearse else (SIZES, GROWTH, 2.0)

    def say(line: str) -> None:
        print(f"gpu: {name}: {line}", file=sys.stderr)

    return bench(codec, sizes, growth, budget=budget, say=say).as_json()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="folder for JSON and charts")
    parser.add_argument("--lite", type=Path, help="weights of lite instead of the bundled ones")
    parser.add_argument("--sd21", type=Path, help="weights of sd21")
    parser.add_argument("--no-kernels", action="store_true", help="leaves the kernels out")
    parser.add_argument("--rehearse", action="store_true", help="all of it on the CPU, at tiny sizes")
    options = parser.parse_args()
    if options.rehearse:
        os.environ["TRITON_INTERPRET"] = "1"  # before anything imports triton
    chosen, left_out = models(options)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        reports = [measured(name, weights, options) for name, weights in chosen.items()]
    except (SodecError, OSError) as error:
        print(f"gpu: {error}", file=sys.stderr)
        return 2
    for report in reports:
        save(options.out / f"{report['model']}.json", report)
        chart(report, options.out / f"{report['model']}.png")
    print(text(reports))
    for name, why in left_out.items():
        print(f"not measured: {name}: {why}")
    if options.no_kernels:
        return 0
    kernels = gpu_kernels.run(options.rehearse)
    save(options.out / "kernels.json", kernels)
    print(f"\n{gpu_kernels.text(kernels)}")
    return 1 if kernels["wrong"] else 0


def save(path: Path, report: dict[str, Any]) -> None:
    """JSON, beside the others."""
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
