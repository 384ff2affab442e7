"""Folders: finished files are skipped, failures are reported, and no run leaves partial files, however it ends.

pytest tests/test_folders.py
"""

import errno
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
from PIL import Image
from reversing import reverse
from tiny import folder, photo

from sodec import files
from sodec.cli import folders
from sodec.cli.folders import Job, Outcome
from sodec.errors import OutputError, UnsupportedPictureError


@pytest.fixture
def jobs(tmp_path):
    def make(*names):
        (tmp_path / "in").mkdir(exist_ok=True)
        for name in names:
            (tmp_path / "in" / name).write_text(name)
        return list(folders.find_jobs([tmp_path / "in"], tmp_path / "out", {".txt", ".md"}, ".rev", True))

    return make


def names(path):
    return sorted(p.name for p in path.rglob("*")) if path.exists() else []


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_files_are_told_and_the_others_made(jobs, tmp_path, workers):
    report = folders.run(jobs("a.txt", "bad.txt", "bug.txt", "z.txt"), reverse, workers=workers)
    assert names(tmp_path / "out") == ["a.rev", "z.rev"]
    assert (tmp_path / "out" / "a.rev").read_text() == "txt.a"
    assert (report.done, report.read, report.written) == (2, 10, 10)
    assert sorted(report.failures) == [
        f"{tmp_path}/in/bad.txt: not a picture", f"{tmp_path}/in/bug.txt: ZeroDivisionError: oh",
    ]  # fmt: skip


def test_what_is_done_is_skipped(jobs, tmp_path):
    folders.run(jobs("a.txt"), reverse)
    (tmp_path / "out" / "a.rev").write_text("mine")
    report = folders.run(jobs("a.txt", "b.txt"), reverse)
    assert (report.done, report.skipped) == (1, 1)
    assert (tmp_path / "out" / "a.rev").read_text() == "mine"
    assert folders.run(jobs(), reverse, overwrite=True).done == 2
    assert (tmp_path / "out" / "a.rev").read_text() == "txt.a"


def test_two_files_never_become_one(jobs, tmp_path):
    assert folders.run(jobs("a.md", "a.txt"), reverse).done == 2
    assert names(tmp_path / "out") == ["a.rev", "a.txt.rev"]
    assert folders.run(jobs(), reverse).skipped == 2


def test_a_legal_name_stays_legal(jobs, tmp_path):
    long = "ä" * 124 + "a.txt"  # 253 bytes
    assert folders.run(jobs(long, long.replace("a.", "b.")), reverse).done == 2
    for name in names(tmp_path / "out"):
        assert len(os.fsencode(name)) <= 255
        assert name.endswith(".rev")


def test_leftovers_of_macos_and_other_kinds_are_left_out(tmp_path):
    for name in ("a.txt", "._a.txt", "b.heic", "c.heic", "__MACOSX/a.txt", "deep/d.txt", "README"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text("x")
    left_out = Counter()
    found = folders.find_jobs([tmp_path / "in"], tmp_path / "out", {".txt"}, ".rev", True, left_out)
    assert [job.source.name for job in found] == ["a.txt", "d.txt"]
    assert left_out == {".heic": 2, "": 1}


def test_times_can_be_kept(jobs, tmp_path):
    found = jobs("a.txt")
    os.utime(found[0].source, ns=(10**18, 10**18))
    folders.run(found, reverse, times=True)
    assert found[0].target.stat().st_mtime_ns == 10**18


def test_a_worker_that_dies_is_told(jobs):
    report = folders.run(jobs("a.txt", "dies.txt", *(f"x{n}.txt" for n in range(9))), reverse, workers=2)
    assert len(report.failures) == 1
    assert "worker died" in report.failures[0]


def test_a_worker_that_dies_between_two_files_is_told(jobs, monkeypatch):
    class Pool(folders.ProcessPoolExecutor):
        def submit(self, function, job, work):
            if job.source.name == "c.txt":
                raise BrokenProcessPool
            return super().submit(function, job, work)

    monkeypatch.setattr(folders, "ProcessPoolExecutor", Pool)
    report = folders.run(jobs("a.txt", "b.txt", "c.txt"), reverse, workers=2)
    assert report.done == 1
    assert report.failures == ["a worker died, perhaps for lack of memory; 2 files are left"]


def test_a_full_disk_ends_the_run_and_leaves_no_part(jobs, tmp_path, monkeypatch):
    def full(descriptor, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "write", full)
    report = folders.run(jobs("a.txt", "b.txt", "c.txt"), reverse)
    assert len(report.failures) == 1
    assert "No space left" in report.failures[0]
    assert names(tmp_path / "out") == []


def test_ctrl_c_while_a_file_is_written_leaves_no_part(tmp_path, monkeypatch):
    def stopped(descriptor, data):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "write", stopped)
    with pytest.raises(KeyboardInterrupt):
        files.write_file(tmp_path / "a", b"data")
    assert names(tmp_path) == []


def test_write_file_says_what_the_system_said(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(OutputError, match="a can't be written: it is a folder"):
        files.write_file(tmp_path / "a", b"data")
    assert names(tmp_path) == ["a"]


def test_outcomes_are_told_one_by_one(jobs):
    told = []
    folders.run(jobs("a.txt", "bad.txt"), reverse, tell=lambda outcome, report: told.append((outcome, report.done)))
    assert [(type(outcome), done) for outcome, done in told] == [(Outcome, 1), (Outcome, 1)]
    assert isinstance(told[0][0].job, Job)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_keeps_what_is_finished_and_the_next_run_goes_on(tmp_path, workers):
    (tmp_path / "in").mkdir()
    for number in range(40):
        Image.fromarray(photo(700, 700, number)).save(tmp_path / "in" / f"{number:02}.bmp")
    command = [
        sys.executable, "-m", "sodec", "compress", "in", "-o", "out", "--workers", workers, "--threads", "1",
        "--weights", str(folder()),
    ]  # fmt: skip
    running = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               start_new_session=True)  # fmt: skip
    while not list((tmp_path / "out").glob("*.sodec")):
        assert running.poll() is None, running.communicate()
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does
    out, errors = running.communicate(timeout=120)
    assert running.returncode == 130, (out, errors)
    assert "goes on from here" in errors
    assert "Traceback" not in errors
    finished = names(tmp_path / "out")
    assert 0 < len(finished) < 40
    assert all(name.endswith(".sodec") and not name.startswith(".") for name in finished)
    times = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in finished}
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert f"{len(finished)} skipped" in again.stdout
    assert len(names(tmp_path / "out")) == 40
    assert times == {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in finished}


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (FileNotFoundError(2, "No such file or directory", "b/a.png"), "b/a.png: No such file or directory"),
        (UnsupportedPictureError("a.png: is no picture"), "a.png: is no picture"),
        (UnsupportedPictureError("aa.png is no picture"), "a.png: aa.png is no picture"),
        (OSError("out of room"), "a.png: out of room"),
        (KeyError("x"), "a.png: KeyError: 'x'"),
    ],
)
def test_errors_name_the_file_once(error, text):
    assert folders.with_name(error, Path("a.png")) == text
