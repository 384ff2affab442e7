"""The command line: one function per command, thin over the package. Heavy imports wait until a command needs them."""

from __future__ import annotations

import functools
import io
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from .. import __version__
from ..errors import OutputError, SodecError, UnsupportedPictureError, ViewError
from ..files import write_file
from . import folders
from .bench import bench_command
from .compare import compare_command
from .evaluate import eval_command
from .train import export_command, train_command
from .ui import ui_command

if TYPE_CHECKING:
    from ..codec import Codec

STREAMS = {".sodec"}

PIPE = Path("-")  # standard input or output

PathArgument = click.Path(path_type=Path)


class SodecCommand(click.Group):
    """A group whose errors are one line on stderr and exit code 2."""

    def invoke(self, context: click.Context) -> Any:
        """Runs the command; what it raises on purpose is shown without a traceback."""
        warnings.showwarning = _warning  # type: ignore[assignment]
        try:
            return super().invoke(context)
        except SodecError as error:
            _fail(str(error))
        except OSError as error:
            _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return None


@click.group(cls=SodecCommand, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="sodec")
def main() -> None:
    """Photographs in a few kilobytes.

    \b
      sodec compress photo.jpg -o photo.sodec --quality 50
      sodec decompress photo.sodec -o photo.png
      sodec info photo.sodec
      sodec demo

    Fine detail, text and faces in a decoded picture are synthesised: it looks like the photo, it is no evidence.
    """


def _model_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option(
            "--tile",
            type=int,
            default=1024,
            show_default=True,
            help="Pixels decoded at once, a side; smaller takes less memory.",
        ),
        click.option("--threads", type=click.IntRange(1), help="Threads of the networks (default: torch's choice)."),
        click.option("--dtype", default="auto", help="float32, bfloat16, float16, or auto.", show_default=True),
        click.option("--device", default="cpu", help="cpu, cuda, cuda:1, ...", show_default=True),
        click.option("--weights", type=PathArgument, help="A folder of weights instead of the bundled ones."),
        click.option("--model", default="lite", help="Name of a bundled model.", show_default=True),
    ):
        command = option(command)
    return command


def _limit_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--max-tile", type=click.IntRange(1), default=1024, show_default=True,
                     help="Refuses streams with tiles of more pixels a side."),
        click.option("--max-pixels", type=click.IntRange(1), default=1 << 28, show_default=True,
                     help="Refuses streams of more pixels."),
    ):  # fmt: skip
        command = option(command)
    return command


def _folder_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--overwrite", is_flag=True, help="Makes files of a folder again that are there already."),
        click.option("--workers", type=click.IntRange(1), default=1, show_default=True,
                     help="Processes for a folder, each with a model of its own."),
        click.option("-r", "--recursive", is_flag=True, help="Folders with the folders in them."),
    ):  # fmt: skip
        command = option(command)
    return command


@main.command()
@click.argument("inputs", type=PathArgument, nargs=-1, required=True)
@click.option("-o", "--output", type=PathArgument, required=True, help="A file, - , or a folder for several pictures.")
@click.option("-q", "--quality", type=float, help="1 (smallest) to 100; 50 unless a target is given.")
@click.option("--target-bpp", type=float, help="Instead: at most so many bits per pixel.")
@click.option("--max-bytes", type=int, help="Instead: at most so many bytes.")
@click.option("--first-frame", is_flag=True, help="Takes the first frame of an animation, else refused.")
@click.option("--metadata", is_flag=True, help="Keeps EXIF and XMP, and an sRGB profile.")
@_folder_options
@_model_options
def compress(
    inputs: tuple[Path, ...], output: Path, recursive: bool, workers: int, overwrite: bool, **options: Any
) -> None:
    """Compress pictures, or folders of them, to .sodec. A folder's files that are done are skipped.

    \b
      sodec compress photo.jpg -o photo.sodec              one file
      sodec compress photo.jpg -o photo.sodec --max-bytes 8000
      sodec compress holiday -o small -q 20 -r --workers 4 every picture of a folder
      cat photo.jpg | sodec compress - -o - > photo.sodec
    """
    from ..picture import suffixes

    _check_rate(options["quality"], options["target_bpp"], options["max_bytes"])
    prepare = functools.partial(_compressor, workers, _model_of(options), **options)
    _convert(inputs, output, set(suffixes()), ".sodec", prepare, recursive, workers, overwrite)


@main.command()
@click.argument("inputs", type=PathArgument, nargs=-1, required=True)
@click.option("-o", "--output", type=PathArgument, required=True,
              help="A file (its suffix says the format), - (PNG), or a folder (PNG).")  # fmt: skip
@click.option("--mode", type=click.Choice(["full", "fidelity"]), default="full", show_default=True,
              help="fidelity: no synthesised detail, about twice as fast.")  # fmt: skip
@click.option("--fidelity", type=float, help="0 to 1: a blend of the full and the fidelity picture.")
@click.option("--region", callback=lambda *given: _region(given[-1]), metavar="X,Y,W,H",
              help="Only these pixels, from the tiles that reach into them.")  # fmt: skip
@click.option("--scale", type=click.Choice(["1", "1/2", "1/4", "1/8"]), default="1", show_default=True,
              help="A smaller preview, of the fidelity picture.")  # fmt: skip
@click.option("--salvage", "on_error", flag_value="conceal", default="raise",
              help="Fills damaged tiles from their surroundings, and says which; else an error.")  # fmt: skip
@_limit_options
@_folder_options
@_model_options
def decompress(
    inputs: tuple[Path, ...], output: Path, recursive: bool, workers: int, overwrite: bool, scale: str, **options: Any
) -> None:
    """Decompress .sodec streams to PNG, JPEG or any format that Pillow writes. A folder's files done are skipped.

    \b
      sodec decompress photo.sodec -o photo.png
      sodec decompress photo.sodec -o face.png --region 400,120,256,256
      sodec decompress small -o restored -r                every stream of a folder, as PNG
    """
    from PIL import Image

    from ..pipeline.view import checked_view

    checked_view(options["mode"], options["fidelity"], options["region"])
    Image.init()
    suffix = ".png" if output == PIPE or not _is_single(inputs, output) else output.suffix.lower()
    if suffix not in Image.EXTENSION or Image.EXTENSION[suffix] not in Image.SAVE:
        raise OutputError(f"{output}: Pillow writes no format of suffix {suffix!r}")
    kind = Image.EXTENSION[suffix]
    prepare = functools.partial(
        _decompressor, workers, _model_of(options), kind, scale=float(Fraction(scale)), **options
    )
    _convert(inputs, output, STREAMS, suffix, prepare, recursive, workers, overwrite)


@main.command()
@click.argument("streams", type=PathArgument, nargs=-1, required=True)
@_limit_options
def info(streams: tuple[Path, ...], max_pixels: int, max_tile: int) -> None:
    """Show what the bytes of .sodec streams are spent on. Decodes no picture and needs no torch."""
    from ..api import inspect

    for path in streams:
        found = inspect(path.read_bytes(), max_pixels=max_pixels, max_tile=max_tile)
        columns, rows = found.tiles
        kind = " grey" * found.grey + " with alpha" * found.alpha
        size = f"{found.bytes['total']} bytes, {found.bpp:.4f} bit per pixel"
        model = f"model {found.model} {found.version}" if found.model else "model not installed"
        click.echo(f"{path}\n  {found.width}x{found.height}{kind}, quality {found.quality:g}, {size}")
        click.echo(f"  {model}, coding {found.fingerprint}, format {found.format_version}")
        lanes = ", ".join(map(str, sorted(set(found.lanes))))
        click.echo(f"  {columns}x{rows} tile{'s' * (columns * rows > 1)} of {found.tile_size}, {lanes} lanes")
        for name, count in found.bytes.items():
            if count:
                click.echo(f"  {name:<12} {count:>9} bytes  {100 * count / found.bytes['total']:5.1f} %")


@main.command()
@click.argument("picture", type=PathArgument, required=False)
@click.option("-o", "--output", type=PathArgument, default=Path("sodec-demo.png"), show_default=True,
              help="Original and decoded picture side by side.")  # fmt: skip
@click.option("-q", "--quality", type=float, default=25, show_default=True, help="1 (smallest) to 100.")
@_model_options
def demo(picture: Path | None, output: Path, quality: float, **model: Any) -> None:
    """Compress PICTURE (or a bundled photo), decompress it, and write both side by side."""
    from .demo import run_demo

    run_demo(_codec(**model), picture, output, quality, write_file, click.echo)


@main.command()
@click.argument("model", default="sd21")
@click.option("--unet", metavar="SOURCE", help="A folder in diffusers' layout, or a hub id, as owner/name@revision "
              "(default: a mirror of SD 2.1-base).")  # fmt: skip
@click.option("--vae", metavar="SOURCE", help="The same for the latent decoder (default: that of --unet).")
@click.option("--vit", metavar="SOURCE", help="A folder or id in transformers' layout (default: DINOv2 ViT-B/14).")
@click.option("-o", "--output", type=PathArgument, required=True, help="Folder of weights, for sodec train --start.")
@click.option("--prediction", type=click.Choice(["epsilon"]), help="What the UNet predicts, if no file says it.")
@click.option("--sha256", multiple=True, help="A sum that a weights file may have; else refused. Several times.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the parts that are drawn at random.")
def init(model: str, output: Path, **options: Any) -> None:
    """Assemble a starting MODEL from public checkpoints. It has to be trained before it codes well.

    \b
      sodec init sd21 --unet stable-diffusion-2-1-base --vit dinov2-base -o start
      sodec train compression --model sd21 --start start --data pictures --out run --steps 100000
    """
    from ..models.start import start

    bundle = start(output, **{name: value for name, value in options.items() if value is not None}, base=model)
    click.echo(f"{output}: model {bundle.name}, weights {bundle.fingerprint.hex()}, untrained")


main.add_command(eval_command)
main.add_command(bench_command)
main.add_command(compare_command)
main.add_command(ui_command)
main.add_command(train_command)
main.add_command(export_command)


def _codec(
    model: str, weights: Path | None, device: str, dtype: str, threads: int | None, tile: int, workers: int = 1
) -> Codec:
    import torch

    from ..codec import Codec

    if threads or workers > 1:
        torch.set_num_threads(threads or max(1, torch.get_num_threads() // workers))
    return Codec(model, weights=weights, device=device, dtype=dtype, tile=tile)


def _model_of(options: dict[str, Any]) -> dict[str, Any]:
    """Takes what `_model_options` added out of `options`."""
    return {name: options.pop(name) for name in ("model", "weights", "device", "dtype", "threads", "tile")}


def _compressor(workers: int, model: dict[str, Any], show: bool = False, **options: Any) -> folders.Convert:
    """A file to a stream; made in each worker. `show` its progress."""
    codec = _codec(**model, workers=workers)

    def one(source: Path) -> bytes:
        with _bar(show) as progress:
            data: bytes = codec.compress(_opened(source), progress=progress, **options)
            return data

    return one


def _decompressor(
    workers: int, model: dict[str, Any], kind: str, show: bool = False, **options: Any
) -> folders.Convert:
    """A stream to a file of the format `kind`; made in each worker. `show` its progress."""
    codec = _codec(**model, workers=workers)

    def one(source: Path) -> bytes:
        with _bar(show) as progress:
            image = codec.decompress(_opened(source), progress=progress, **options)
        if image.mode in ("RGBA", "LA") and kind == "JPEG":
            raise OutputError(f"{source} has transparency, which {kind} can't hold; write a PNG")
        buffer = io.BytesIO()
        carried = {name: image.info[name] for name in ("exif", "icc_profile", "xmp") if name in image.info}
        image.save(buffer, kind, **carried, **({"compress_level": 1} if kind == "PNG" else {}))
        return buffer.getvalue()

    return one


@contextmanager
def _bar(show: bool) -> Iterator[Callable[[float], None] | None]:
    """A bar of one picture's progress, on a terminal."""
    if not show:
        yield None
        return
    from tqdm import tqdm

    form = "{percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
    with tqdm(total=1.0, leave=False, disable=None, bar_format=form) as bar:
        yield lambda share: bar.update(share - bar.n)


def _opened(source: Path) -> Path | IO[bytes]:
    return sys.stdin.buffer if source == PIPE else source


def _is_single(inputs: Sequence[Path], output: Path) -> bool:
    return len(inputs) == 1 and not inputs[0].is_dir() and not output.is_dir()


def _convert(
    inputs: Sequence[Path], output: Path, suffixes: set[str], suffix: str,
    prepare: functools.partial[folders.Convert], recursive: bool, workers: int, overwrite: bool,
) -> None:  # fmt: skip
    """One file, or every file of folders; several go on past bad ones and report them at the end."""
    if _is_single(inputs, output):
        if output != PIPE and not output.parent.is_dir():
            raise OutputError(f"{output} can't be written: there is no folder {output.parent}")
        data = prepare(show=True)(inputs[0])
        if output == PIPE:
            sys.stdout.buffer.write(data)
        else:
            write_file(output, data)
        return
    if output == PIPE or PIPE in inputs:
        raise OutputError("standard input and output hold one picture; give a folder for several")
    from tqdm import tqdm

    jobs = list(folders.find_jobs(inputs, output, suffixes, suffix, recursive))
    if not jobs:
        raise UnsupportedPictureError(f"no files of {', '.join(sorted(suffixes))} in {', '.join(map(str, inputs))}")
    start = time.perf_counter()
    with tqdm(total=len(jobs), unit="picture", disable=None) as bar:

        def tell(outcome: folders.Outcome, report: folders.Report) -> None:
            bar.update(report.skipped + report.done + len(report.failures) - bar.n)
            bar.set_postfix_str(f"{_size(report.read)} to {_size(report.written)}")
            for message in outcome.warnings:
                bar.write(f"sodec: warning: {outcome.job.source}: {message}", file=sys.stderr)

        report = folders.run(jobs, prepare, workers=workers, overwrite=overwrite, tell=tell)
    _summarise(report, len(jobs), time.perf_counter() - start)


def _summarise(report: folders.Report, count: int, seconds: float) -> None:
    for failure in report.failures:
        click.echo(f"sodec: {failure}", err=True)
    skipped = f"; {report.skipped} were there already (--overwrite makes them again)" if report.skipped else ""
    sizes = f"{_size(report.read)} to {_size(report.written)}"
    click.echo(f"{report.done} pictures, {report.done / seconds:.2f} per second, {sizes}{skipped}")
    if report.interrupted:
        click.echo("sodec: stopped; the same command goes on from here", err=True)
        sys.exit(130)
    if report.failures:
        left = count - report.done - report.skipped - len(report.failures)
        _fail(f"{len(report.failures)} of {count} files failed" + (f", {left} were not tried" if left else ""))


def _size(count: float) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} KB"


def _check_rate(quality: float | None, target_bpp: float | None, max_bytes: int | None) -> None:
    """What is wrong with the command is said once, not of each file."""
    from ..pipeline.rate import resolve_target

    resolve_target(quality, target_bpp, max_bytes)


def _region(value: str | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    try:
        return tuple(int(part) for part in value.split(","))
    except ValueError:
        raise ViewError(f"region {value!r} is not four whole numbers X,Y,W,H") from None


def _warning(message: Warning | str, *_: Any) -> None:
    click.echo(f"sodec: warning: {message}", err=True)


def _fail(message: str) -> None:
    click.echo(f"sodec: {message}", err=True)
    sys.exit(2)
