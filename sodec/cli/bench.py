"""`sodec bench`. Heavy imports wait until the command runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import DEVICE, DTYPE, MODEL, THREADS, WEIGHTS

if TYPE_CHECKING:
    from ..bench.run import Compare, Report

Sizes = list[tuple[int, int]]


def _sizes(context: click.Context, option: click.Parameter, value: str) -> Sizes:
    """WIDTHxHEIGHT, several with commas between them."""
    try:
        sizes = [tuple(int(side) for side in size.split("x")) for size in value.split(",") if size.strip()]
    except ValueError:
        sizes = [()]
    if any(len(size) != 2 or min(size) < 1 for size in sizes):
        raise click.BadParameter(f"{value!r} is not a list of sizes as 512x512,768x512")
    return [(size[0], size[1]) for size in sizes]


def _writable(context: click.Context, option: click.Parameter, value: Path | None) -> Path | None:
    """Refuses a file in a folder that does not exist, before minutes are spent."""
    if value is not None and not value.parent.is_dir():
        raise click.BadParameter(f"there is no folder {value.parent}")
    return value


FilePath = click.Path(path_type=Path, dir_okay=False)


@click.command("bench")
@MODEL
@WEIGHTS
@DEVICE
@DTYPE
@THREADS
@click.option("--sizes", default="512x512,768x512,1920x1080", show_default=True, callback=_sizes,
              help="Sizes at which stages are timed.")  # fmt: skip
@click.option("--growth", "growth_sizes", default="256x256,512x512,768x512,1024x1024,2048x2048,4096x4096",
              show_default=True, callback=_sizes,
              help='Sizes at which the growth of time and memory is measured; "" leaves it out.')  # fmt: skip
@click.option("--budget", type=click.FloatRange(0), default=2.0, show_default=True,
              help="Seconds for which each measurement is repeated, at least three times.")  # fmt: skip
@click.option(
    "--json",
    "json_file",
    type=FilePath,
    callback=_writable,
    help="Write the report as JSON; docs/latency.md explains it.",
)
@click.option("--chart", "chart_file", type=FilePath, callback=_writable, help="Draw bars per stage (extra: bench).")
@click.option("--from", "earlier", type=click.Path(path_type=Path, dir_okay=False, exists=True), multiple=True,
              help="Measure nothing: show an earlier --json again, or several side by side.")  # fmt: skip
def bench_command(
    sizes: Sizes,
    growth_sizes: Sizes,
    budget: float,
    json_file: Path | None,
    chart_file: Path | None,
    earlier: tuple[Path, ...],
    compare: Compare | None = None,
    **model: Any,
) -> None:
    """Measure coding: each stage of decoding beside the least time that this machine allows, and growth by size.

    \b
      sodec bench --json lite.json --chart lite.png         on the CPU; some minutes on two cores
      sodec bench --device cuda --json gpu.json
      sodec bench --from lite.json --from gpu.json          side by side
    """
    from ..bench.report import chart, text
    from ..extras import require

    if chart_file is not None:
        require("matplotlib", "the chart")
    reports = [_read(path) for path in earlier] or [_measured(sizes, growth_sizes, budget, compare, **model).as_json()]
    if json_file is not None:
        json_file.write_text(json.dumps(reports[0], indent=1) + "\n", encoding="utf-8")
    click.echo(text(reports), nl=False)
    if chart_file is not None:
        chart(reports[0], chart_file)
    if reports[0].get("errors") and not earlier:
        raise SystemExit(1)


def _measured(
    sizes: Sizes, growth_sizes: Sizes, budget: float, compare: Compare | None,
    model: str, weights: Path | None, device: str, dtype: str, threads: int | None,
) -> Report:  # fmt: skip
    from ..bench.run import bench
    from ..codec import Codec

    codec = Codec(model, weights=weights, engine="torch", device=device, dtype=dtype, threads=threads)

    def say(line: str) -> None:
        click.echo(f"bench: {line}", err=True)

    return bench(codec, sizes, growth_sizes, budget=budget, compare=compare, say=say)


def _read(path: Path) -> dict[str, Any]:
    from ..bench.run import SCHEMA
    from ..errors import SodecError

    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        schema = report["schema"]
    except (ValueError, KeyError, TypeError):
        raise SodecError(f"{path} is not a report of sodec bench") from None
    if schema != SCHEMA:
        raise SodecError(f"{path} is a report of schema {schema}, not {SCHEMA}")
    return dict(report)
