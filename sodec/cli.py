"""The command line: one function per command, thin over the package. Heavy imports wait until a command needs them."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import __version__
from .errors import OutputError, SodecError, UnsupportedPictureError
from .evaluate.cli import eval_command

if TYPE_CHECKING:
    from .codec import Codec

PICTURES = {".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".jxl", ".png", ".ppm", ".tif", ".tiff", ".webp"}
STREAMS = {".sodec"}

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
        click.option("--threads", type=click.IntRange(1), help="Threads of the networks (default: torch's choice)."),
        click.option("--dtype", default="auto", help="float32, bfloat16, float16, or auto.", show_default=True),
        click.option("--device", default="cpu", help="cpu, cuda, cuda:1, ...", show_default=True),
        click.option("--weights", type=PathArgument, help="A folder of weights instead of the bundled ones."),
        click.option("--model", default="lite", help="Name of a bundled model.", show_default=True),
    ):
        command = option(command)
    return command


@main.command()
@click.argument("inputs", type=PathArgument, nargs=-1, required=True)
@click.option("-o", "--output", type=PathArgument, required=True, help="A file, or a folder for several pictures.")
@click.option("-q", "--quality", type=float, default=50, show_default=True, help="1 (smallest) to 100.")
@click.option("-r", "--recursive", is_flag=True, help="Folders with the folders in them.")
@click.option("--first-frame", is_flag=True, help="Takes the first frame of an animation, else refused.")
@_model_options
def compress(
    inputs: tuple[Path, ...], output: Path, quality: float, recursive: bool, first_frame: bool, **model: Any
) -> None:
    """Compress pictures, or folders of them, to .sodec.

    \b
      sodec compress photo.jpg -o photo.sodec              one file
      sodec compress holiday -o small --quality 20         every picture of a folder
    """
    from .codec import checked_quality

    checked_quality(quality)
    codec = _codec(**model)

    def one(source: Path) -> bytes:
        return codec.compress(source, quality, first_frame=first_frame)

    _convert(inputs, output, PICTURES, ".sodec", recursive, one)


@main.command()
@click.argument("inputs", type=PathArgument, nargs=-1, required=True)
@click.option(
    "-o", "--output", type=PathArgument, required=True, help="A file (its suffix says the format), or a folder (PNG)."
)
@click.option("-r", "--recursive", is_flag=True, help="Folders with the folders in them.")
@click.option("--mode", type=click.Choice(["full", "fidelity"]), default="full", show_default=True,
              help="fidelity: no synthesised detail, about twice as fast.")  # fmt: skip
@_model_options
def decompress(inputs: tuple[Path, ...], output: Path, recursive: bool, mode: str, **model: Any) -> None:
    """Decompress .sodec streams to PNG, JPEG or any format that Pillow writes.

    \b
      sodec decompress photo.sodec -o photo.png
      sodec decompress small -o restored                   every stream of a folder, as PNG
    """
    import io

    from PIL import Image

    Image.init()
    single = len(inputs) == 1 and not inputs[0].is_dir() and not output.is_dir()
    suffix = output.suffix.lower() if single else ".png"
    if suffix not in Image.EXTENSION or Image.EXTENSION[suffix] not in Image.SAVE:
        raise OutputError(f"{output}: Pillow writes no format of suffix {suffix!r}")
    kind = Image.EXTENSION[suffix]
    codec = _codec(**model)

    def one(source: Path) -> bytes:
        image = codec.decompress(source.read_bytes(), mode=mode)
        if image.mode in ("RGBA", "LA") and kind == "JPEG":
            raise OutputError(f"{source} has transparency, which {kind} can't hold; write a PNG")
        buffer = io.BytesIO()
        image.save(buffer, kind, **({"compress_level": 1} if kind == "PNG" else {}))
        return buffer.getvalue()

    _convert(inputs, output, STREAMS, suffix, recursive, one)


@main.command()
@click.argument("streams", type=PathArgument, nargs=-1, required=True)
def info(streams: tuple[Path, ...]) -> None:
    """Show what the bytes of .sodec streams are spent on. Decodes no picture and needs no torch."""
    from .api import inspect

    for path in streams:
        found = inspect(path.read_bytes())
        columns, rows = found.tiles
        kind = " grey" * found.grey + " with alpha" * found.alpha
        size = f"{found.bytes['total']} bytes, {found.bpp:.4f} bit per pixel"
        model = f"model {found.model or 'not installed'}, weights {found.fingerprint}"
        click.echo(f"{path}\n  {found.width}x{found.height}{kind}, quality {found.quality:g}, {size}")
        click.echo(f"  {model}, format {found.format_version}")
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

    run_demo(_codec(**model), picture, output, quality, _write, click.echo)


@main.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def train(arguments: tuple[str, ...]) -> None:
    """Train a model, stage by stage (extra: train). `sodec train --help` lists the stages."""
    _need("train", "compressai")
    from .train.__main__ import main as run

    run(list(arguments))


main.add_command(eval_command)


def _codec(model: str, weights: Path | None, device: str, dtype: str, threads: int | None) -> Codec:
    from .codec import Codec

    if threads:
        import torch

        torch.set_num_threads(threads)
    return Codec(model, weights=weights, device=device, dtype=dtype)


def _convert(
    inputs: Sequence[Path], output: Path, suffixes: set[str], suffix: str, recursive: bool, one: Callable[[Path], bytes]
) -> None:
    """Runs `one` on a file, or on every file of folders; several go on past bad ones and report them at the end."""
    if len(inputs) == 1 and not inputs[0].is_dir() and not output.is_dir():
        if not output.parent.is_dir():
            raise OutputError(f"{output} can't be written: there is no folder {output.parent}")
        _write(output, one(inputs[0]))
        return
    from tqdm import tqdm

    jobs = list(_jobs(inputs, output, suffixes, suffix, recursive))
    if not jobs:
        raise UnsupportedPictureError(f"no files of {', '.join(sorted(suffixes))} in {', '.join(map(str, inputs))}")
    failures = []
    for source, target in tqdm(jobs, unit="picture", disable=None):
        try:
            data = one(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            _write(target, data)
        except (SodecError, OSError) as error:
            failures.append(f"{source}: {error}" if str(source) not in str(error) else str(error))
    for failure in failures:
        click.echo(f"sodec: {failure}", err=True)
    if failures:
        _fail(f"{len(failures)} of {len(jobs)} files failed")


def _jobs(
    inputs: Sequence[Path], output: Path, suffixes: set[str], suffix: str, recursive: bool
) -> Iterator[tuple[Path, Path]]:
    for entry in inputs:
        if not entry.is_dir():
            yield entry, output / (entry.stem + suffix)
            continue
        for path in sorted(entry.rglob("*") if recursive else entry.iterdir()):
            if path.is_file() and path.suffix.lower() in suffixes:
                yield path, output / path.relative_to(entry).with_suffix(suffix)


def _write(path: Path, data: bytes) -> None:
    """Beside it first, then renamed, so that no half-written file is ever left under its name."""
    beside = path.with_name(f".{path.name}.part")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    except OSError as error:
        with _ignored():
            beside.unlink(missing_ok=True)
        raise OutputError(f"{path} can't be written: {error.strerror}") from None


@contextmanager
def _ignored() -> Iterator[None]:
    try:
        yield
    except OSError:
        return


def _need(extra: str, module: str) -> None:
    import importlib.util

    if importlib.util.find_spec(module) is None:
        _fail(f"this command needs {module}: pip install 'sodec[{extra}]'")


def _warning(message: Warning | str, *_: Any) -> None:
    click.echo(f"sodec: warning: {message}", err=True)


def _fail(message: str) -> None:
    click.echo(f"sodec: {message}", err=True)
    sys.exit(2)
