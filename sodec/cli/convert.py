"""`compress` and `decompress`: which files become which, and what is said of each."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import click

from ..errors import CorruptStreamError, OutputError, SodecError, UnsupportedPictureError
from ..files import check_not_input, exists_error, write_file
from . import folders
from .folders import Converted
from .options import INTERRUPTED, PIPE, make_codec

PROGRESS_SECONDS = 3.0  # between lines of progress where there is no terminal
OTHER_SUFFIXES = 5  # listed in the summary


class Target(NamedTuple):
    """Where the output goes: a file, standard output, or a folder."""

    path: Path
    is_file: bool

    @property
    def suffix(self) -> str:
        """Of a file, as it is written."""
        return self.path.suffix


def resolve(inputs: Sequence[Path], output: str | None, own: frozenset[str] | None) -> tuple[list[Path], Target]:
    """Inputs and output of a command line.

    Without -o, the second of two arguments is the output where it can't be an input: for `compress` a .sodec (`own`),
    for `decompress` anything else after a .sodec.

    Raises `OutputError` where no output is given, the input is the output, or several inputs go to one file.
    """
    sources = list(inputs)
    if output is None:
        if len(sources) == 2 and _may_be_output(sources[0], sources[1], own):
            output = str(sources.pop())
        else:
            raise OutputError(f"no output is given: -o FILE, or -o FOLDER for several (as in {sources[0]} -o OUTPUT)")
    path = Path(output)
    if path == PIPE:
        target = Target(path, False)
    else:
        folder = path.is_dir() or output.endswith(("/", os.sep)) or len(sources) > 1 or sources[0].is_dir()
        target = Target(path, not folder)
    missing = [source for source in sources if source != PIPE and not source.exists()]
    if missing:
        raise OutputError(f"{missing[0]}: No such file or directory")
    if (path == PIPE or PIPE in sources) and (len(sources) > 1 or sources[0].is_dir()):
        raise OutputError("standard input and output hold one picture; give a folder for several")
    if target.is_file:
        check_not_input(sources[0], path)
        if not path.parent.is_dir():
            raise OutputError(f"{path} can't be written: there is no folder {path.parent}")
    elif path != PIPE and path.exists() and not path.is_dir():
        raise OutputError(f"{path} is a file; several pictures need a folder")
    return sources, target


def _may_be_output(source: Path, second: Path, own: frozenset[str] | None) -> bool:
    first, last = source.suffix.lower(), second.suffix.lower()
    if own is not None:
        return last in own and first not in own
    return first == ".sodec" and last not in ("", ".sodec") and not second.is_dir()


def task_options(options: dict[str, Any]) -> dict[str, Any]:
    """Takes the values of `FOLDER_OPTIONS` out of `options`."""
    return {name: options.pop(name) for name in ("recursive", "workers", "overwrite", "times", "quiet")}


@dataclass
class Task:
    """What is converted, and how the run goes on."""

    suffixes: frozenset[str]  # of a folder's files that are converted
    suffix: str  # of what they become
    recursive: bool
    workers: int
    overwrite: bool
    times: bool
    quiet: bool

    def run(self, sources: list[Path], target: Target, prepare: Callable[..., folders.Convert]) -> None:
        """One file, or every file of folders; several go on past bad ones and report them at the end."""
        if len(sources) == 1 and not sources[0].is_dir() and (target.is_file or target.path == PIPE):
            self._one(sources[0], target.path, prepare)
        else:
            self._many(sources, target.path, prepare)

    def _one(self, source: Path, target: Path, prepare: Callable[..., folders.Convert]) -> None:
        if not self.overwrite and target != PIPE and target.is_file():
            raise exists_error(target)
        start = time.perf_counter()
        try:
            converted = prepare(show=not self.quiet)(source)
        except (SodecError, OSError) as error:
            raise _named(error, source) from None
        if target == PIPE:
            sys.stdout.buffer.write(converted.data)
            sys.stdout.buffer.flush()
        else:
            write_file(target, converted.data, overwrite=self.overwrite)
            if self.times and source != PIPE:
                folders.keep_times(source, target)
        if not self.quiet:
            line = f"{source} -> {target}: {converted.note}, {time.perf_counter() - start:.2f} s"
            click.echo(line, err=target == PIPE)

    def _many(self, sources: list[Path], output: Path, prepare: Callable[..., folders.Convert]) -> None:
        from tqdm import tqdm

        left_out: Counter[str] = Counter()
        jobs = list(
            folders.find_jobs(sources, output, self.suffixes, self.suffix, self.recursive, left_out, self.overwrite)
        )
        unreadable = left_out.pop(folders.UNREADABLE, 0)
        if not jobs:
            others = f"; there are {_listed(left_out)}" if left_out else ""
            raise UnsupportedPictureError(
                f"no files of {', '.join(sorted(self.suffixes))} in {', '.join(map(str, sources))}{others}"
            )
        start, said = time.perf_counter(), time.perf_counter()
        with tqdm(total=len(jobs), unit="picture", disable=True if self.quiet else None) as bar:

            def tell(outcome: folders.Outcome, report: folders.Report) -> None:
                nonlocal said
                done = report.skipped + report.done + len(report.failures)
                bar.update(done - bar.n)
                bar.set_postfix_str(f"{_size(report.read)} to {_size(report.written)}")
                for message in outcome.warnings:
                    bar.write(f"sodec: warning: {outcome.job.source}: {message}", file=sys.stderr)
                if not self.quiet and not outcome.error:
                    job = outcome.job
                    bar.write(f"{job.source} -> {job.target}: {outcome.note}, {outcome.seconds:.2f} s", file=sys.stdout)
                if bar.disable and not self.quiet and time.perf_counter() - said > PROGRESS_SECONDS:
                    said = time.perf_counter()
                    click.echo(f"sodec: {done} of {len(jobs)}", err=True)

            report = folders.run(
                jobs, prepare, workers=self.workers, overwrite=self.overwrite, times=self.times, tell=tell
            )
        self._summarise(report, len(jobs), time.perf_counter() - start, left_out, unreadable)

    def _summarise(
        self, report: folders.Report, count: int, seconds: float, left_out: Counter[str], unreadable: int
    ) -> None:
        for failure in report.failures:
            click.echo(f"sodec: {failure}", err=True)
        if not self.quiet:
            sizes = f"{_size(report.read)} to {_size(report.written)}"
            click.echo(f"{_counted(report.done, 'picture')}, {report.done / seconds:.2f} per second, {sizes}")
            if report.skipped:
                click.echo(
                    f"{report.skipped} skipped: their outputs exist, whatever the options they were made with "
                    "(--overwrite makes them again)"
                )
            if left_out:
                click.echo(f"left out, since they are of other kinds: {_listed(left_out)}")
        if report.interrupted:
            click.echo("sodec: stopped; the same command goes on from here", err=True)
            sys.exit(INTERRUPTED)
        if unreadable:
            click.echo(f"sodec: {_counted(unreadable, 'folder')} can't be read", err=True)
        if report.failures or unreadable:
            rest = count - report.done - report.skipped - len(report.failures)
            if report.failures:
                click.echo(
                    f"sodec: {len(report.failures)} of {count} files failed"
                    + (f", {rest} were not tried" if rest else ""), err=True,
                )  # fmt: skip
            sys.exit(2)


class Compressor:
    """A file to a stream; made in each worker, which holds a codec. `show` its progress."""

    def __init__(self, model: dict[str, Any], options: dict[str, Any], *, workers: int = 1, show: bool = False) -> None:
        self.codec, self.options, self.show = make_codec(**model, workers=workers), options, show

    def __call__(self, source: Path) -> Converted:
        from ..stream import container

        with _progress(self.show, source) as progress:
            data = self.codec.compress(opened(source), progress=progress, **self.options)
        header = container.peek(data[: container.PEEK_BYTES])
        pixels = header.width * header.height
        ratio = 3 * pixels / len(data)
        note = (
            f"{header.width}x{header.height}, {len(data)} bytes, {8 * len(data) / pixels:.3f} bit per pixel, "
            f"1:{ratio:.0f}, quality {header.quality:g}"
        )
        return Converted(data, note)


class Decompressor:
    """A stream to a file of the format `kind`; made in each worker, which holds a codec. `show` its progress."""

    def __init__(
        self, model: dict[str, Any], kind: str, scale: float, options: dict[str, Any], *,
        workers: int = 1, show: bool = False,
    ) -> None:  # fmt: skip
        self.codec, self.kind, self.show = make_codec(**model, workers=workers), kind, show
        options = {**options, "scale": scale}
        self.quality, self.flatten = options.pop("output_quality"), options.pop("flatten")
        self.options = options

    def __call__(self, source: Path) -> Converted:
        from ..picture.writing import encoded

        try:
            with _progress(self.show, source) as progress:
                image = self.codec.decompress(opened(source), progress=progress, **self.options)
        except CorruptStreamError as error:
            raise _with_salvage(error, source, self.options["on_error"] == "conceal") from None
        data = encoded(image, self.kind, quality=self.quality, flatten=self.flatten)
        return Converted(data, f"{image.width}x{image.height} {self.kind}, {len(data)} bytes")


def _with_salvage(error: CorruptStreamError, source: Path, tried: bool) -> CorruptStreamError:
    """The same error, with what --salvage can do about it."""
    from ..stream import container
    from ..weights import bundled_fingerprints

    try:
        data = source.read_bytes() if source != PIPE else b""
        payloads = container.read(data, salvage=True, known=tuple(bundled_fingerprints())).payloads
    except (SodecError, OSError):
        payloads = ()
    if tried:
        reason = ", as the picture is one tile" if len(payloads) == 1 else ""
        return CorruptStreamError(f"{error}; nothing can be salvaged{reason}")
    return CorruptStreamError(f"{error}; --salvage decodes what is left") if any(payloads) else error


def opened(source: Path) -> Path | IO[bytes]:
    """The source, or standard input for `PIPE`. `OutputError` where that is closed."""
    if source != PIPE:
        return source
    if sys.stdin is None or sys.stdin.closed:
        raise OutputError("standard input is closed; - needs a picture or a stream there")
    return sys.stdin.buffer


def _named(error: SodecError | OSError, source: Path) -> Exception:
    if isinstance(error, SodecError):
        return type(error)(folders.with_name(error, source))
    return OutputError(folders.with_name(error, source))


@contextmanager
def _progress(show: bool, source: Path) -> Iterator[Callable[[float], None] | None]:
    """A bar of one picture's progress on a terminal, or else a line every few seconds."""
    if not show:
        yield None
        return
    if not sys.stderr.isatty():
        said = time.perf_counter()

        def say(share: float) -> None:
            nonlocal said
            if share < 1 and time.perf_counter() - said > PROGRESS_SECONDS:
                said = time.perf_counter()
                click.echo(f"sodec: {source}: {100 * share:.0f} %", err=True)

        yield say
        return
    from tqdm import tqdm

    form = "{percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
    with tqdm(total=1.0, leave=False, bar_format=form) as bar:
        yield lambda share: bar.update(share - bar.n)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _listed(suffixes: Counter[str]) -> str:
    """The most frequent suffixes with their numbers."""
    named = [f"{count} {suffix or 'without a suffix'}" for suffix, count in suffixes.most_common(OTHER_SUFFIXES)]
    rest = sum(suffixes.values()) - sum(count for _, count in suffixes.most_common(OTHER_SUFFIXES))
    return ", ".join(named) + (f", {rest} others" if rest else "")


def _size(count: float) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} KB"
