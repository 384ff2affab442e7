"""Folders: many files through one function, in this process or in several. Existing outputs are skipped.

A file gets its name once it is whole (`files.write_file`), so an output that exists is complete, and a run that was
stopped goes on where it was.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import re
import signal
import time
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from ..errors import SodecError
from ..files import check_not_input, write_file
from .options import exit_on_sigterm

UNREADABLE = "/"  # counts folders that can't be listed, beside suffixes
MAX_NAME = 255  # bytes of a file's name
IGNORED = ("._", "__MACOSX")  # what macOS adds to archives


class Converted(NamedTuple):
    """What a file became, and what is said of it."""

    data: bytes
    note: str = ""


Convert = Callable[[Path], Converted]


Work = Callable[..., "Outcome"]


class Job(NamedTuple):
    """One file to make of another."""

    source: Path
    target: Path


class Outcome(NamedTuple):
    """How a job ended."""

    job: Job
    read: int = 0  # bytes
    written: int = 0
    note: str = ""
    seconds: float = 0.0
    warnings: tuple[str, ...] = ()
    error: str = ""
    disk_full: bool = False


@dataclass
class Report:
    """How many jobs ended how."""

    done: int = 0
    skipped: int = 0
    read: int = 0
    written: int = 0
    failures: list[str] = field(default_factory=list)
    interrupted: bool = False

    def add(self, outcome: Outcome) -> None:
        """Counts one job."""
        if outcome.error:
            self.failures.append(outcome.error)
        else:
            self.done += 1
            self.read += outcome.read
            self.written += outcome.written


def find_jobs(
    inputs: Sequence[Path], output: Path, suffixes: Collection[str], suffix: str, recursive: bool,
    left_out: Counter[str] | None = None, overwrite: bool = False,
) -> Iterator[Job]:  # fmt: skip
    """The files of `suffixes` in folders, and files themselves, each with its place below `output`.

    Two files of one folder that differ in their suffix alone keep it in the output's name, the first excepted. Unless
    `overwrite`, a file whose plain output exists counts as done: a folder that is compressed into itself and back
    does not grow without end.
    `left_out` counts the files of other suffixes, and folders that can't be read as `UNREADABLE`.
    """
    left_out = Counter() if left_out is None else left_out
    taken: set[Path] = set()
    for entry in inputs:
        if entry.is_dir():
            found = [(path, path.parent.relative_to(entry)) for path in _files(entry, recursive, left_out)]
        else:
            found = [(entry, Path())]
        for path, folder in found:
            if entry.is_dir() and path.suffix.lower() not in suffixes:
                left_out[path.suffix.lower()] += 1
                continue
            target = output / folder / _legal(path.stem, suffix)
            if target in taken and (overwrite or not target.exists()):
                target = output / folder / _legal(path.name, suffix)
            taken.add(target)
            yield Job(path, target)


def _files(folder: Path, recursive: bool, left_out: Counter[str]) -> Iterator[Path]:
    """The regular files of a folder in order, and those below it; archives' leftovers of macOS are passed over."""
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        left_out[UNREADABLE] += 1
        return
    for path in entries:
        if path.name.startswith(IGNORED):
            continue
        if path.is_dir():
            if recursive and not path.is_symlink():
                yield from _files(path, recursive, left_out)
        elif path.is_file():
            yield path


def _legal(stem: str, suffix: str) -> str:
    """A name of at most `MAX_NAME` bytes: a longer stem is cut, and told apart by its hash."""
    if len(os.fsencode(stem + suffix)) <= MAX_NAME:
        return stem + suffix
    mark = f"~{hashlib.sha256(os.fsencode(stem)).hexdigest()[:8]}"
    room = MAX_NAME - len(os.fsencode(mark + suffix))
    return os.fsencode(stem)[:room].decode(errors="ignore") + mark + suffix


def with_name(error: Exception, source: Path) -> str:
    """The error's text, with the file that it is about; of a kind that was not foreseen, its type too."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    text = str(error) if isinstance(error, (SodecError, OSError)) else f"{type(error).__name__}: {error}"
    named = re.search(rf"(?<!\w){re.escape(str(source))}(?!\w)", text)
    return text if named else f"{source}: {text}"


def keep_times(source: Path, target: Path) -> None:
    """Gives `target` the modification and access time of `source`."""
    status = source.stat()
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


def run(
    jobs: Iterable[Job],
    prepare: Callable[..., Convert],
    *,
    workers: int = 1,
    overwrite: bool = False,
    times: bool = False,
    tell: Callable[[Outcome, Report], None] = lambda outcome, report: None,
) -> Report:
    """Does the jobs whose target is not there yet, or all if `overwrite`.

    Parameters
    ----------
    prepare
        Makes the function that converts a file, once in each process; with several workers it is pickled.
    times
        Outputs keep the modification times of their sources.
    tell
        Called after each job, in this process.

    A full disk ends the run, since every other file would fail too. So does Ctrl-C: files already begun by workers
    are finished, others are not begun.
    """
    report, todo = Report(), []
    taken: dict[Path, Path] = {}
    for job in jobs:
        if job.target.exists() and not overwrite:
            report.skipped += 1
        elif job.target in taken:
            report.failures.append(f"{job.source}: {taken[job.target]} already goes to {job.target}")
        else:
            todo.append(job)
        taken.setdefault(job.target, job.source)
    if not todo:
        return report
    work = functools.partial(_do, overwrite=overwrite, times=times)
    outcomes = _here(todo, prepare, work) if workers == 1 else _in_workers(todo, prepare, workers, work)
    try:
        for outcome in outcomes:
            report.add(outcome)
            tell(outcome, report)
            if outcome.disk_full:
                break
    except KeyboardInterrupt:
        report.interrupted = True
    finally:
        outcomes.close()
    return report


def _do(job: Job, convert: Convert, *, overwrite: bool, times: bool) -> Outcome:
    """One job; whatever goes wrong with a file is reported, and the next one has its turn."""
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            check_not_input(job.source, job.target)
            converted = convert(job.source)
            job.target.parent.mkdir(parents=True, exist_ok=True)
            write_file(job.target, converted.data, overwrite=overwrite)
            if times:
                keep_times(job.source, job.target)
            sizes = job.source.stat().st_size, len(converted.data)
        except Exception as error:
            text = with_name(error, job.source)
            full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
            return Outcome(job, error=text, disk_full=full)
    messages = tuple(str(warning.message) for warning in caught)
    return Outcome(job, *sizes, converted.note, time.perf_counter() - start, messages)


def _here(jobs: list[Job], prepare: Callable[..., Convert], work: Work) -> Generator[Outcome, None, None]:
    convert = prepare()
    for job in jobs:
        yield work(job, convert)


_convert: Convert  # of a worker process


def _in_workers(
    jobs: list[Job], prepare: Callable[..., Convert], workers: int, work: Work
) -> Generator[Outcome, None, None]:
    prepare()  # what is wrong with the model is an error here, not a worker that dies of it
    left = iter(jobs)
    # "spawn": a forked child of a process whose torch has run threads can hang.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _begin, (prepare, workers))
    running: set[Future[Outcome]] = set()
    ended = 0

    def begin(count: int) -> None:
        for job in islice(left, count):
            running.add(pool.submit(_work, job, work))

    try:
        begin(workers)  # no more than can begin at once: what is submitted is finished, even after Ctrl-C
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                outcome = future.result()
                running.remove(future)
                ended += 1
                yield outcome
                begin(1)
    except BrokenProcessPool:  # of result() or of submit(), whichever comes first after a worker has died
        job = jobs[ended]
        yield Outcome(job, error=f"a worker died, perhaps for lack of memory; {len(jobs) - ended} files are left")
    except SystemExit:  # SIGTERM: nothing goes on, so workers must not either
        for process in list(pool._processes.values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(prepare: Callable[..., Convert], workers: int) -> None:
    global _convert
    # Ctrl-C reaches the whole group: a worker finishes its file, the parent gives it no other.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    exit_on_sigterm()
    _convert = prepare(workers=workers)


def _work(job: Job, work: Work) -> Outcome:
    return work(job, _convert)
