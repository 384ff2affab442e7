"""Regular files are written completely or not at all; pipes, devices and links are written in place.

pytest tests/test_files.py
"""

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from sodec import files
from sodec.errors import OutputError
from sodec.files import write_file


def test_a_pipe_is_written_and_stays_one(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    data = os.urandom(300_000)
    write_file(pipe, data, overwrite=False)
    reader.join(10)
    assert received == [data]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="making a device node takes root")
def test_a_device_is_written_and_stays_one(tmp_path):
    node = tmp_path / "null"
    try:
        os.mknod(node, stat.S_IFCHR | 0o600, os.makedev(1, 3))
        node.write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes no device nodes")
    write_file(node, b"data")
    assert stat.S_ISCHR(node.stat().st_mode)


@pytest.mark.parametrize("exists", [True, False])
def test_links_are_followed(tmp_path, exists):
    (tmp_path / "there").mkdir()
    real, link, second = tmp_path / "there" / "real", tmp_path / "link", tmp_path / "second"
    if exists:
        real.write_bytes(b"old")
    link.symlink_to("there/real")
    second.symlink_to(link)
    write_file(second, b"new")
    assert second.is_symlink()
    assert link.is_symlink()
    assert real.read_bytes() == b"new"
    assert os.listdir(tmp_path / "there") == ["real"]


def test_mode_stays_and_a_new_file_has_that_of_the_umask(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(b"old")
    old.chmod(0o640)
    write_file(old, b"data")
    assert stat.S_IMODE(old.stat().st_mode) == 0o640
    write_file(new, b"data")
    (tmp_path / "plain").write_bytes(b"data")
    assert new.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_an_existing_file_is_refused_unless_asked(tmp_path):
    path = tmp_path / "a"
    write_file(path, b"one", overwrite=False)
    with pytest.raises(OutputError, match="a exists; --overwrite"):
        write_file(path, b"two", overwrite=False)
    assert path.read_bytes() == b"one"
    assert os.listdir(tmp_path) == ["a"]


def test_of_writers_that_must_not_overwrite_one_wins(tmp_path):
    path = tmp_path / "a"

    def write(number):
        try:
            write_file(path, bytes([number]) * 100_000, overwrite=False)
        except OutputError:
            return 0
        return 1

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(write, range(8))) == 1
    assert len(set(path.read_bytes())) == 1


def test_readers_see_one_file_or_the_other_while_many_write(tmp_path):
    path, size, done = tmp_path / "a", 200_000, threading.Event()
    write_file(path, b"\0" * size)
    seen = []

    def read():
        while not done.is_set():
            data = path.read_bytes()
            seen.append((len(data), len(set(data))))

    reader = threading.Thread(target=read)
    reader.start()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: write_file(path, bytes([number]) * size), range(40)))
    done.set()
    reader.join()
    assert set(seen) == {(size, 1)}
    assert os.listdir(tmp_path) == ["a"]


def test_a_planted_link_of_a_guessed_name_is_not_followed(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    monkeypatch.setattr(files.secrets, "token_hex", lambda size: "0" * 2 * size)
    (tmp_path / f".sodec-{'0' * 16}.part").symlink_to(victim)
    with pytest.raises(OutputError, match="exists"):
        write_file(tmp_path / "a", b"data")
    assert victim.read_bytes() == b"precious"


def test_a_folder_and_a_missing_folder_are_named(tmp_path):
    with pytest.raises(OutputError, match="is a folder"):
        write_file(tmp_path, b"data")
    with pytest.raises(OutputError, match="No such file") as caught:
        write_file(tmp_path / "none" / "a", b"data")
    assert caught.value.errno == errno.ENOENT


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(descriptor, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(files.os, "write", full)
    with pytest.raises(OutputError, match="No space left"):
        write_file(tmp_path / "a", b"data")
    assert os.listdir(tmp_path) == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_sigterm_removes_the_temporary_file(tmp_path):
    script = (
        "import os, sys, time, pathlib\n"
        "from sodec.cli.commands import exit_on_sigterm\n"
        "exit_on_sigterm()\n"
        "import sodec.files\n"
        "sodec.files.os.fsync = lambda d: (print('writing', flush=True), time.sleep(60))\n"
        "sodec.files.write_file(pathlib.Path(sys.argv[1]) / 'a', b'data')\n"
    )
    path = tmp_path / "out"
    path.mkdir()
    process = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, cwd=path)
    assert process.stdout.readline() == b"writing\n"
    assert len(os.listdir(path)) == 1
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143
    assert os.listdir(path) == []
