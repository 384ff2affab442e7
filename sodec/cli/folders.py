"""Folders: many files through one function, in this process or in several. What is done is skipped, what fails is told.

A file is written beside its name and then renamed, so one that has its name is whole: that is what "done" means, and
why a run that was stopped goes on where it was.
"""

from __future__ import annotations

import errno
import signal
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from ..errors import SodecError
from ..files import write_file

Convert = Callable[[Path], bytes]


class Job(NamedTuple):
    """One file to make of another."""

    source: Path
    target: Path


class Outcome(NamedTuple):
    """What became of a job."""

    job: Job
    read: int = 0  # bytes
    written: int = 0
    warnings: tuple[str, ...] = ()
    error: str = ""
    disk_full: bool = False


@dataclass
class Report:
    """What became of all of them."""

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


def find_jobs(inputs: Sequence[Path], output: Path, suffixes: set[str], suffix: str, recursive: bool) -> Iterator[Job]:
    """The files of `suffixes` in folders, and files themselves, each with its place below `output`."""
    for entry in inputs:
        if not entry.is_dir():
            yield Job(entry, output / (entry.stem + suffix))
            continue
        for path in sorted(entry.rglob("*") if recursive else entry.iterdir()):
            if path.is_file() and path.suffix.lower() in suffixes:
                yield Job(path, output / path.relative_to(entry).with_suffix(suffix))


def run(
    jobs: Iterable[Job],
    prepare: Callable[[], Convert],
    *,
    workers: int = 1,
    overwrite: bool = False,
    tell: Callable[[Outcome, Report], None] = lambda outcome, report: None,
) -> Report:
    """Does the jobs whose target is not there yet, or all if `overwrite`.

    Parameters
    ----------
    prepare
        Makes the function that turns a file into bytes, once in each process; with several workers it is pickled.
    tell
        Called after each job, in this process.

    A full disk ends the run, since every other file would fail too. So does Ctrl-C: files already begun by workers
    are finished, others are not begun.
    """
    report, todo = Report(), []
    taken: dict[Path, Path] = {}
    for job in jobs:
        if job.target in taken:
            report.failures.append(f"{job.source}: {taken[job.target]} already goes to {job.target}")
        elif job.target.exists() and not overwrite:
            report.skipped += 1
        else:
            todo.append(job)
        taken.setdefault(job.target, job.source)
    if not todo:
        return report
    outcomes = _here(todo, prepare) if workers == 1 else _in_workers(todo, prepare, workers)
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


def _do(job: Job, convert: Convert) -> Outcome:
    """One job; whatever goes wrong with a file is told, and the next one has its turn."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            data = convert(job.source)
            job.target.parent.mkdir(parents=True, exist_ok=True)
            write_file(job.target, data)
            sizes = job.source.stat().st_size, len(data)
        except Exception as error:
            words = str(error) if isinstance(error, (SodecError, OSError)) else f"{type(error).__name__}: {error}"
            words = words if str(job.source) in words else f"{job.source}: {words}"
            full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
            return Outcome(job, error=words, disk_full=full)
    return Outcome(job, *sizes, tuple(str(one.message) for one in caught))


def _here(jobs: list[Job], prepare: Callable[[], Convert]) -> Generator[Outcome, None, None]:
    convert = prepare()
    for job in jobs:
        yield _do(job, convert)


_convert: Convert  # of a worker process


def _in_workers(jobs: list[Job], prepare: Callable[[], Convert], workers: int) -> Generator[Outcome, None, None]:
    prepare()  # what is wrong with the model is said here, not by a worker that dies of it
    left = iter(jobs)
    # "spawn": a forked child of a process whose torch has run threads can hang.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _begin, (prepare,))
    running: set[Future[Outcome]] = set()
    told = 0

    def begin(count: int) -> None:
        for job in islice(left, count):
            running.add(pool.submit(_work, job))

    try:
        begin(workers)  # no more than can begin at once: what is submitted is finished, even after Ctrl-C
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                outcome = future.result()
                running.remove(future)
                told += 1
                yield outcome
                begin(1)
    except BrokenProcessPool:  # of result() or of submit(), whichever comes first after a worker has died
        job = jobs[told]
        yield Outcome(job, error=f"a worker died, perhaps for lack of memory; {len(jobs) - told} files are left")
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(prepare: Callable[[], Convert]) -> None:
    global _convert
    # Ctrl-C reaches the whole group: a worker finishes its file, the parent gives it no other.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _convert = prepare()


def _work(job: Job) -> Outcome:
    return _do(job, _convert)
