"""Options and types of values that several commands share."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import click

if TYPE_CHECKING:
    from ..codec import Codec

INTERRUPTED, TERMINATED = 130, 143  # exit codes, 128 + the signal's number
PIPE = Path("-")  # standard input or output
Command = Callable[..., Any]

MODEL = click.option("--model", default="lite", show_default=True, help="Name of a bundled model.")
WEIGHTS = click.option("--weights", type=click.Path(path_type=Path),
                       help="A folder of weights, or hf:OWNER/NAME@COMMIT, instead of the bundled ones.")  # fmt: skip
DEVICE = click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ...")
ENGINE = click.option("--engine", default="auto", show_default=True,
                      help="What runs the networks: torch, onnx, or auto.")  # fmt: skip
DTYPE = click.option("--dtype", default="auto", show_default=True, help="float32, bfloat16, float16, or auto.")
THREADS = click.option(
    "--threads", type=click.IntRange(1), help="Threads of the networks (default: the engine's choice)."
)
TILE = click.option("--tile", type=int,
                    help="Pixels a side that are decoded at once (default: up to 2.3 million pixels of a large "
                    "picture); smaller takes less memory.")  # fmt: skip
OVERWRITE = click.option("--overwrite", is_flag=True, help="Replaces files that exist.")
QUIET = click.option("--quiet", is_flag=True, help="Prints nothing but warnings and errors.")


def exit_on_sigterm() -> None:
    """SIGTERM ends the process as an exception does, so that temporary files are removed."""
    try:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    except ValueError:  # only the main thread may set handlers
        return


def with_options(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """A decorator that adds these options, in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


MODEL_OPTIONS = with_options(MODEL, WEIGHTS, ENGINE, DEVICE, DTYPE, THREADS, TILE)
LIMIT_OPTIONS = with_options(
    click.option("--max-pixels", type=click.IntRange(1), default=1 << 28, show_default=True,
                 help="Refuses pictures of more pixels."),
    click.option("--max-tile", type=click.IntRange(1), default=1024, show_default=True,
                 help="Refuses streams with tiles of more pixels a side."),
)  # fmt: skip
FOLDER_OPTIONS = with_options(
    click.option("-r", "--recursive", is_flag=True, help="Includes subfolders."),
    click.option("--workers", type=click.IntRange(1), default=1, show_default=True,
                 help="Processes for a folder, each with a model of its own."),
    OVERWRITE,
    click.option("--times", is_flag=True, help="Keeps the modification times of the inputs."),
    QUIET,
)  # fmt: skip


class ByteCount(click.ParamType):
    """A number of bytes, with a unit or without: 8000, 8k, 8 KB, 1.5MB, 8KiB."""

    name = "bytes"
    units: ClassVar = {"": 1, "k": 1000, "m": 1000**2, "ki": 1024, "mi": 1024**2}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The bytes."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"\s*(-?\d+(?:\.\d+)?)\s*(k|m|ki|mi)?b?\s*", str(value).lower())
        if match is None:
            self.fail(f"{value!r} is not a number of bytes, as 8000, 8k or 8KiB", param, ctx)
        return int(float(match[1]) * self.units[match[2] or ""])


def model_of(options: dict[str, Any]) -> dict[str, Any]:
    """Takes the values of `MODEL_OPTIONS` out of `options`."""
    return {name: options.pop(name) for name in ("model", "weights", "engine", "device", "dtype", "threads", "tile")}


def make_codec(
    model: str, weights: Path | None, engine: str, device: str, dtype: str, threads: int | None, tile: int | None,
    workers: int = 1,
) -> Codec:  # fmt: skip
    """The codec that these options describe; each of several workers takes its share of the processors."""
    from ..codec import Codec
    from ..pipeline.onnx_engine import processors

    if threads is None and workers > 1:
        threads = max(1, processors() // workers)
    return Codec(model, weights=weights, engine=engine, device=device, dtype=dtype, tile=tile, threads=threads)
