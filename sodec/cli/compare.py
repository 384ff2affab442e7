"""`sodec compare`. Heavy imports wait until the command runs."""

from __future__ import annotations

from pathlib import Path

import click

from .evaluate import METRIC_NAMES, listed
from .options import DEVICE, MODEL, WEIGHTS


@click.command("compare")
@click.argument("pictures", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The page, HTML.")
@click.option("--against", default="avif,webp", show_default=True, callback=listed(str),
              help="avif, webp, jpeg, jxl, heic, or a .py file that defines settings, encode and decode.")  # fmt: skip
@click.option("-q", "--quality", "qualities", default="10,50", show_default=True, callback=listed(float),
              help="Qualities of sodec, 1 to 100, with commas between several.")  # fmt: skip
@click.option("--metrics", default="psnr,ms_ssim", show_default=True, callback=listed(str, METRIC_NAMES),
              help=f"Some of {', '.join(METRIC_NAMES)}.")  # fmt: skip
@click.option("--show", "side", default=1280, show_default=True, type=click.IntRange(16),
              help="Side in pixels of what the page shows at most: the middle of a larger picture.")  # fmt: skip
@MODEL
@WEIGHTS
@DEVICE
def compare_command(
    pictures: tuple[Path, ...],
    output: Path,
    against: list[str],
    qualities: list[float],
    metrics: list[str],
    side: int,
    model: str,
    weights: Path | None,
    device: str,
) -> None:
    """Write a page that compares sodec with other codecs at equal bytes, on PICTURES (files or folders).

    \b
      sodec compare photo.jpg -o report.html
      sodec compare holiday -o report.html --against avif,webp,jpeg -q 5,25,75
    """
    from ..errors import OutputError
    from ..evaluate import codecs, report, run
    from ..evaluate.compare import compare_files
    from ..evaluate.metrics import available
    from ..files import write_file

    if not output.parent.is_dir():
        raise OutputError(f"{output} can't be written: there is no folder {output.parent}")
    paths = run.find_pictures(pictures)
    chosen, left_out = available(metrics)
    rivals, missing = codecs.rivals(against)
    ours = codecs.SodecCodec(sorted(set(qualities)), model=model, weights=weights, device=device)
    comparisons, skipped = compare_files(paths, ours, ours.settings, rivals, chosen, side)
    left_out |= missing | report.missing(["plots"]) | skipped
    page = report.comparison_page(comparisons, chosen, left_out).encode()
    write_file(output, page)
    for name, reason in left_out.items():
        click.echo(f"left out: {name}: {reason}", err=True)
    click.echo(f"{output}: {len(page) / 1e6:.1f} MB, {len(comparisons)} picture{'s' * (len(comparisons) != 1)}")
