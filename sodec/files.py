"""Reads streams from bytes, paths or files; writes files atomically."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from .errors import OutputError

PHOTO = Path(__file__).parent / "assets" / "budgie.png"  # of `sodec demo` and the tests

StreamLike = bytes | bytearray | memoryview | str | os.PathLike[str] | IO[bytes]


def read_stream(source: StreamLike) -> bytes:
    """The bytes of a stream that is given as such, by its path, or as a binary file, which is read from where it is.

    Raises `TypeError` for anything else, and what the operating system says of a path.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source)
    if isinstance(source, (str, os.PathLike)):
        return Path(source).read_bytes()
    data = source.read() if hasattr(source, "read") else None
    if not isinstance(data, bytes):
        raise TypeError(f"a stream must be bytes, a path or a binary file (got {type(source).__name__})")
    return data


def write_file(path: Path, data: bytes, *, overwrite: bool = True) -> None:
    """Writes a file so that its name never shows a part of it.

    The data go into a new file of a random name in the same folder, which is synchronised and renamed. Links are
    followed, and the mode and owner of a file that is replaced stay. A pipe, a device or a socket is written in place.

    Parameters
    ----------
    overwrite
        False refuses a regular file that is there, also one that another process makes meanwhile.

    Raises
    ------
    OutputError
        What the operating system says, or that the file exists.
    """
    try:
        old = _status(path)
        if old is not None and not stat.S_ISREG(old.st_mode):
            if stat.S_ISDIR(old.st_mode):
                raise OutputError(f"{path} can't be written: it is a folder")
            with open(path, "wb", buffering=0) as special:
                _write_all(special.fileno(), data)
            return
        if old is not None and not overwrite:
            raise exists_error(path)
        target = Path(os.path.realpath(path))
        with _temporary(target.parent) as (beside, descriptor):
            _write_all(descriptor, data)
            if old is not None:
                with contextlib.suppress(OSError):
                    os.fchown(descriptor, old.st_uid, old.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(old.st_mode))
            os.fsync(descriptor)
            if overwrite:
                beside.replace(target)
            else:
                _rename_new(beside, target, path)
    except OutputError:
        raise
    except OSError as error:
        failure = OutputError(f"{path} can't be written: {error.strerror}")
        failure.errno = error.errno
        raise failure from None


def check_not_input(source: Path, target: Path) -> None:
    """`OutputError` where both paths lead to one file that exists, by whatever links."""
    try:
        same = os.path.samefile(source, target)
    except OSError:
        return
    if same:
        raise OutputError(f"{target} is the input; the output needs another name")


def exists_error(path: Path) -> OutputError:
    """What a writer raises that may not replace a file."""
    return OutputError(f"{path} exists; --overwrite replaces it")


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _temporary(folder: Path) -> Iterator[tuple[Path, int]]:
    """A new file of a name that nobody can foresee, opened exclusively; removed unless it was renamed."""
    path = folder / f".sodec-{secrets.token_hex(8)}.part"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        yield path, descriptor
    finally:
        os.close(descriptor)
        path.unlink(missing_ok=True)


def _rename_new(beside: Path, target: Path, path: Path) -> None:
    """Renames to a name that must not exist yet. A hard link is refused where one does; not all systems have them."""
    try:
        os.link(beside, target)
    except FileExistsError:
        raise exists_error(path) from None
    except OSError:
        if target.exists():
            raise exists_error(path) from None
        beside.replace(target)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
