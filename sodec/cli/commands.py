"""The command line: one function per command, thin over the package. Heavy imports wait until a command needs them."""

from __future__ import annotations

import functools
import sys
import warnings
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from .. import __version__
from ..errors import OutputError, SodecError, ViewError
from ..files import write_file
from .bench import bench_command
from .compare import compare_command
from .evaluate import eval_command
from .onnx import export_onnx_command
from .options import (
    FOLDER_OPTIONS,
    INTERRUPTED,
    LIMIT_OPTIONS,
    MODEL_OPTIONS,
    OVERWRITE,
    ByteCount,
    exit_on_sigterm,
    make_codec,
    model_of,
)
from .train import export_command, train_command
from .ui import ui_command
from .viewer import viewer_command

if TYPE_CHECKING:
    from ..stream.info import Info

STREAMS = frozenset({".sodec"})

PathArgument = click.Path(path_type=Path)


class SodecCommand(click.Group):
    """A group whose errors are one line on stderr and exit code 2."""

    def invoke(self, context: click.Context) -> Any:
        """Runs the command; what it raises on purpose is shown without a traceback."""
        warnings.showwarning = _show_warning  # type: ignore[assignment]
        exit_on_sigterm()
        try:
            return super().invoke(context)
        except SodecError as error:
            fail(str(error))
        except OSError as error:
            fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            fail("this command needs PyTorch: pip install 'sodec[torch]'")
        except MemoryError:
            fail("there is not enough memory; a smaller --tile takes less")
        except KeyboardInterrupt:
            click.echo("sodec: stopped", err=True)
            sys.exit(INTERRUPTED)


@click.group(cls=SodecCommand, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="sodec")
def main() -> None:
    """Photographs in a few kilobytes.

    \b
      sodec compress photo.jpg -o photo.sodec --quality 50
      sodec decompress photo.sodec -o photo.png
      sodec info photo.sodec
      sodec demo

    Fine detail, text and faces in a decoded picture are synthesised: it looks like the photo, but is no evidence.
    """


@main.command()
@click.argument("inputs", type=PathArgument, nargs=-1, required=True)
@click.option("-o", "--output", help="A file, - for standard output, or a folder for several pictures.")
@click.option("-q", "--quality", type=float, help="1 (smallest) to 100; 50 unless a target is given.")
@click.option("--target-bpp", type=float, help="The highest quality within so many bits per pixel.")
@click.option("--max-bytes", type=ByteCount(), help="The highest quality within so many bytes, 8000 or 8k.")
@click.option("--first-frame", is_flag=True, help="Takes an animation's first frame; else it is refused.")
@click.option("--metadata", is_flag=True, help="Keeps EXIF and XMP, and an sRGB profile.")
@click.option("--alpha", type=click.Choice(["lossy", "lossless"]), default="lossy", show_default=True,
              help="lossy: off by at most 4 of 255 where that saves bytes.")  # fmt: skip
@click.option("--flatten", metavar="COLOUR", help="Replaces transparency by a colour, such as white or #ffffff.")
@click.option("--max-pixels", type=click.IntRange(1), default=1 << 28, show_default=True,
              help="Refuses pictures of more pixels.")  # fmt: skip
@click.option("--recompress", is_flag=True, help="Compresses .sodec files too, whose pictures lose quality once more.")
@FOLDER_OPTIONS
@MODEL_OPTIONS
def compress(inputs: tuple[Path, ...], output: str | None, recompress: bool, **options: Any) -> None:
    """Compress pictures, or folders of them, to .sodec. Files that exist are kept; in folders they are skipped.

    \b
      sodec compress photo.jpg -o photo.sodec              one file
      sodec compress photo.jpg -o photo.sodec --max-bytes 8k
      sodec compress holiday -o small -q 20 -r --workers 4 every picture of a folder
      cat photo.jpg | sodec compress - -o - > photo.sodec
    """
    from ..picture.opening import suffixes
    from ..pipeline.rate import resolve_target
    from . import convert

    resolve_target(options["quality"], options["target_bpp"], options["max_bytes"])
    task = convert.Task(suffixes() | (STREAMS if recompress else set()), ".sodec", **convert.task_options(options))
    sources, target = convert.resolve(inputs, output, STREAMS)
    if not recompress and (streams := [path for path in sources if path.suffix.lower() in STREAMS]):
        raise OutputError(f"{streams[0]} is a .sodec stream already; --recompress compresses its picture again")
    task.run(sources, target, functools.partial(convert.Compressor, model_of(options), options))


@main.command()
@click.argument("inputs", type=PathArgument, nargs=-1, required=True)
@click.option("-o", "--output", help="A file (its suffix is the format), - for standard output (PNG), or a folder.")
@click.option("--mode", type=click.Choice(["full", "fidelity"]), default="full", show_default=True,
              help="fidelity: no synthesised detail, about twice as fast.")  # fmt: skip
@click.option("--fidelity", type=float, help="0 to 1: a blend of the full and the fidelity picture.")
@click.option("--region", callback=lambda *given: _region(given[-1]), metavar="X,Y,W,H",
              help="Only these pixels, from the tiles that reach into them.")  # fmt: skip
@click.option("--scale", type=click.Choice(["1", "1/2", "1/4", "1/8"]), default="1", show_default=True,
              help="A smaller preview, of the fidelity picture.")  # fmt: skip
@click.option("--salvage", "on_error", flag_value="conceal", default="raise",
              help="Fills damaged tiles from their surroundings and says which; else damage is an error.")  # fmt: skip
@click.option("--format", "suffix", default="png", show_default=True,
              help="Format of a folder's files and of standard output: png, jpg, webp, ...")  # fmt: skip
@click.option("--output-quality", type=click.IntRange(1, 100), default=95, show_default=True,
              help="Quality of JPEG, WebP and AVIF files that are written.")  # fmt: skip
@click.option("--flatten", metavar="COLOUR", help="Replaces transparency by a colour, such as white or #ffffff.")
@LIMIT_OPTIONS
@FOLDER_OPTIONS
@MODEL_OPTIONS
def decompress(inputs: tuple[Path, ...], output: str | None, suffix: str, scale: str, **options: Any) -> None:
    """Decompress .sodec streams to PNG, JPEG or any format that Pillow writes. Files that exist are kept.

    \b
      sodec decompress photo.sodec -o photo.png
      sodec decompress photo.sodec -o face.png --region 400,120,256,256
      sodec decompress small -o restored -r --format jpg   every stream of a folder
    """
    from ..picture.writing import format_of
    from ..pipeline.view import checked_view
    from . import convert

    shrunk = float(Fraction(scale))
    checked_view(options["mode"], options["fidelity"], options["region"], shrunk)
    if shrunk < 1 and options["fidelity"] is not None:
        raise ViewError(f"--scale {scale} shows the fidelity picture, so it does not go with --fidelity")
    sources, target = convert.resolve(inputs, output, None)
    suffix = target.suffix if target.is_file else f".{suffix.lstrip('.')}"
    if suffix.lower() in STREAMS:
        raise OutputError(f"{target.path}: decompressing to .sodec would compress it again; copy the file instead")
    try:
        kind = format_of(suffix)
    except OutputError as error:
        raise OutputError(f"{target.path}: {error}") from None
    task = convert.Task(STREAMS, suffix, **convert.task_options(options))
    task.run(sources, target, functools.partial(convert.Decompressor, model_of(options), kind, shrunk, options))


@main.command()
@click.argument("streams", type=PathArgument, nargs=-1, required=True)
@LIMIT_OPTIONS
def info(streams: tuple[Path, ...], **limits: int) -> None:
    """Show what the bytes of .sodec streams are spent on; - is standard input. Decodes no picture, needs no PyTorch."""
    from ..api import inspect
    from .convert import opened
    from .folders import with_name

    failures = 0
    for path in streams:
        try:
            _print_info(path, inspect(opened(path), **limits))
        except (SodecError, OSError) as error:
            click.echo(f"sodec: {with_name(error, path)}", err=True)
            failures += 1
    if failures:
        sys.exit(2)


def _print_info(path: Path, found: Info) -> None:
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
@click.option("-o", "--output", type=PathArgument, help="Original and decoded picture side by side, a PNG "
              "(default: sodec-demo.png, which is replaced).")  # fmt: skip
@click.option("-q", "--quality", type=float, default=25, show_default=True, help="1 (smallest) to 100.")
@OVERWRITE
@MODEL_OPTIONS
def demo(picture: Path | None, output: Path | None, quality: float, overwrite: bool, **model: Any) -> None:
    """Compress PICTURE (or a bundled photo), decompress it, and write both side by side."""
    from .demo import run_demo

    write = functools.partial(write_file, overwrite=overwrite or output is None)
    run_demo(make_codec(**model), picture, output or Path("sodec-demo.png"), quality, write, click.echo)


@main.command()
@click.argument("model", default="sd21")
@click.option("--unet", metavar="SOURCE",
              help="SD 2.1-base: a folder in diffusers' layout, or hf:OWNER/NAME@COMMIT.")  # fmt: skip
@click.option("--vae", metavar="SOURCE", help="The same for the latent decoder (default: that of --unet).")
@click.option("--vit", metavar="SOURCE",
              help="DINOv2 ViT-B/14: a folder in transformers' layout, or hf:OWNER/NAME@COMMIT.")  # fmt: skip
@click.option("-o", "--output", type=PathArgument, required=True, help="Folder of weights, for sodec train --start.")
@click.option("--prediction", type=click.Choice(["epsilon"]), help="What the UNet predicts, if no file says it.")
@click.option("--sha256", multiple=True, help="Accepts only files with this SHA-256. Can be repeated.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of parts that start from random weights.")
def init(model: str, output: Path, **options: Any) -> None:
    """Assemble a starting MODEL from public checkpoints. It has to be trained before it codes well.

    \b
      sodec init sd21 --unet stable-diffusion-2-1-base --vit dinov2-base -o start
      sodec train compression --model sd21 --start start --data pictures --out run --steps 100000
    """
    from ..models.sd21.start import start

    bundle = start(output, **{name: value for name, value in options.items() if value is not None}, base=model)
    click.echo(f"{output}: model {bundle.name}, weights {bundle.fingerprint.hex()}, untrained")


for command in (
    eval_command,
    bench_command,
    compare_command,
    ui_command,
    viewer_command,
    train_command,
    export_command,
    export_onnx_command,
):
    main.add_command(command)


def _region(value: str | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    try:
        return tuple(int(part) for part in value.split(","))
    except ValueError:
        raise ViewError(f"region must be four whole numbers X,Y,W,H (got {value!r})") from None


def _show_warning(message: Warning | str, *_: Any) -> None:
    click.echo(f"sodec: warning: {message}", err=True)


def fail(message: str) -> NoReturn:
    """Ends the command with one line and exit code 2."""
    click.echo(f"sodec: {message}", err=True)
    sys.exit(2)
