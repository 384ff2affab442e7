"""`sodec eval`. Heavy imports wait until the command runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import DEVICE, WEIGHTS

if TYPE_CHECKING:
    from ..evaluate.compare import Comparison
    from ..evaluate.metrics import Metric
    from ..evaluate.parts import Part
    from ..evaluate.run import Evaluation

# The keys of metrics.METRICS: importing those here would make every command wait for NumPy.
METRIC_NAMES = (
    "psnr",
    "ms_ssim",
    "ssimulacra2",
    "st_lpips",
    "lpips_alex",
    "lpips_vgg",
    "dists",
    "cvvdp",
    "texture",
    "hatching",
    "grid",
)


def listed(of: type[float] | type[str], choices: Sequence[str] = ()) -> Callable[..., list[Any]]:
    """A click callback that splits an option's value at commas."""

    def parse(context: click.Context, option: click.Parameter, value: str) -> list[Any]:
        try:
            values = [of(part.strip()) for part in value.split(",") if part.strip()]
        except ValueError:
            raise click.BadParameter(f"{value!r} is not a list of numbers") from None
        for each in values:
            if choices and each not in choices:
                raise click.BadParameter(f"must be one of {', '.join(choices)} (got {each!r})")
        return values

    return parse


@click.command("eval")
@click.argument("pictures", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--model", default="lite", show_default=True, help='Name of a bundled model, or "none": only the other codecs.'
)
@WEIGHTS
@DEVICE
@click.option("--fidelity", is_flag=True, help="Also measure sodec's fidelity picture, as a codec of its own.")
@click.option("--against", default="avif,webp,jpeg", show_default=True, callback=listed(str),
              help="avif, webp, jpeg, jxl, heic, a model of CompressAI's (mbt2018-mean, or mbt2018-mean=FOLDER of "
                   "weights), or a .py file that defines settings, encode and decode.")  # fmt: skip
@click.option("--reuse", type=click.Path(path_type=Path, dir_okay=False, exists=True),
              help="rows.json of an earlier run: the codecs in it are not run again.")  # fmt: skip
@click.option("--qualities", default="1,10,25,40,50,60,80,100", show_default=True, callback=listed(float),
              help="Qualities of sodec, 1 to 100.")  # fmt: skip
@click.option("--metrics", default="psnr,ms_ssim,st_lpips,hatching", show_default=True,
              callback=listed(str, METRIC_NAMES),
              help=f"Some of {', '.join(METRIC_NAMES)}.")  # fmt: skip
@click.option("--features", "features_file", type=click.Path(path_type=Path, dir_okay=False, exists=True),
              help="Also measure the Frechet distance of patches, by the weights of torchvision's Inception v3 or "
                   "VGG16 in this safetensors file. Pictures are coded once more for it.")  # fmt: skip
@click.option("--parts", is_flag=True, help="Also measure what each part of sodec's decoder is worth.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False),
              help="Folder for rows.json, report.md, curves and the contact sheet.")  # fmt: skip
@click.option("--html", "page", type=click.Path(path_type=Path, dir_okay=False),
              help="Also write one HTML page with curves, tables, and pictures that a line divides.")  # fmt: skip
@click.option("--sheet", "sheet_pictures", default=4, show_default=True, type=click.IntRange(0),
              help="Number of pictures, from the first, on the contact sheet and the page.")  # fmt: skip
@click.option(
    "--threads",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="Threads of each codec, where they can be set.",
)
def eval_command(
    pictures: tuple[Path, ...],
    model: str,
    weights: Path | None,
    device: str,
    fidelity: bool,
    against: list[str],
    reuse: Path | None,
    qualities: list[float],
    metrics: list[str],
    features_file: Path | None,
    parts: bool,
    out: Path | None,
    page: Path | None,
    sheet_pictures: int,
    threads: int,
) -> None:
    """Measure sodec and other codecs on PICTURES (files or folders): bytes, bpp, metrics, times, BD-rate.

    \b
      sodec eval kodak --against avif,webp,jxl --out report
      sodec eval kodak --weights run/export --reuse report/rows.json --parts --out new
    """
    import torch

    from ..errors import UnknownModelError, UnsupportedPictureError
    from ..evaluate import codecs, report, run
    from ..evaluate.frechet import load_features
    from ..evaluate.metrics import available

    torch.set_num_threads(threads)
    if out is not None:
        report.prepare(out)
    paths = run.find_pictures(pictures)
    chosen, left_out = available(metrics)
    rivals, missing = codecs.rivals(against, threads)
    ours: list[codecs.ImageCodec] = []
    if model != "none":
        for mode in ("full", "fidelity")[: 1 + fidelity]:
            ours.append(codecs.SodecCodec(qualities, model=model, weights=weights, device=device, mode=mode))
    features = None if features_file is None else load_features(features_file)
    known = _codecs(reuse)
    tested = [*ours, *(rival for rival in rivals if rival.name not in known)]
    left_out |= missing | report.missing()
    if not tested:
        raise UnknownModelError(f"no codec to evaluate{''.join(f'; {name}: {why}' for name, why in left_out.items())}")
    result = run.evaluate(tested, paths, chosen)
    result.left_out = left_out
    if reuse is not None:
        _add(result, reuse)
    skipped = set(result.skipped)
    usable = [path for path in paths if str(path) not in skipped]
    table: list[Part] = []
    if parts and ours:
        try:
            table = _parts(ours[0], usable, chosen, qualities)
        except UnsupportedPictureError as error:
            result.left_out["parts"] = str(error)
    text = report.text(result, table)
    if features is not None:
        text += "\n" + _frechet(tested, usable, features, out)
    click.echo(text, nl=False)
    files: list[Path] = []
    shown = usable[:sheet_pictures] if ours else []
    if out is not None:
        files += report.write(out, result, text)
        if shown:
            files.append(report.write_sheet(out, shown, ours[0], rivals, (0.05, 0.1, 0.2)))
    if page is not None:
        _write_page(page, result, text, shown, ours, rivals, chosen)
        files.append(page)
    if files:
        click.echo(f"\nwritten: {', '.join(map(str, files))}")


def _write_page(
    file: Path, result: Evaluation, text: str, shown: Sequence[Path], ours: Sequence[Any], rivals: Sequence[Any],
    metrics: Sequence[Metric],
) -> None:  # fmt: skip
    """Writes the page; the pictures `shown` are compared at the lowest and the middle of sodec's qualities."""
    from ..evaluate.compare import compare_files
    from ..evaluate.report import evaluation_page
    from ..files import write_file

    comparisons: list[Comparison] = []
    if shown:
        qualities = sorted(ours[0].settings)
        two = sorted({qualities[0], qualities[len(qualities) // 2]})
        comparisons, _ = compare_files(shown, ours[0], two, rivals, metrics)
    write_file(file, evaluation_page(result, text, comparisons).encode())


def _codecs(reuse: Path | None) -> set[str]:
    """Names of the codecs in an earlier run's rows, but for sodec itself."""
    if reuse is None:
        return set()
    from ..evaluate.run import read_json

    return {row.codec for row in read_json(reuse).rows if not row.codec.startswith("sodec")}


def _add(result: Evaluation, reuse: Path) -> None:
    """Adds the rows of an earlier run for the pictures of this one; pictures that it lacks are listed as missing."""
    from ..evaluate.run import read_json

    names = {row.picture for row in result.rows}
    earlier = [row for row in read_json(reuse).rows if row.picture in names and not row.codec.startswith("sodec")]
    lacking = names - {row.picture for row in earlier}
    if lacking:
        result.left_out[str(reuse)] = f"{len(lacking)} pictures are not in it: {', '.join(sorted(lacking))}"
    result.rows += earlier


def _frechet(tested: Sequence[Any], paths: Sequence[Path], features: tuple[str, Any], out: Path | None) -> str:
    """The table of Frechet distances, which are also written to frechet.json in `out`."""
    from ..evaluate import frechet
    from ..evaluate.run import read_picture

    network, function = features
    results = frechet.distances(tested, map(read_picture, paths), function, network)
    if out is not None:
        frechet.write(out / "frechet.json", results)
    return frechet.table(results) + "\n"


def _parts(codec: Any, paths: Sequence[Path], metrics: Sequence[Any], qualities: Sequence[float]) -> list[Part]:
    """The table at the lowest, the middle and the highest of the qualities."""
    from ..evaluate.parts import evaluate_parts
    from ..evaluate.run import read_picture

    three = sorted({min(qualities), sorted(qualities)[len(qualities) // 2], max(qualities)})
    return evaluate_parts(codec.codec, {str(path): read_picture(path) for path in paths}, metrics, three)
