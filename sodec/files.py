"""Bytes in and out: streams as people hold them, and files that are whole or not there."""

from __future__ import annotations

import contextlib
import os
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
        raise TypeError(f"a stream is bytes, a path or a binary file, not {type(source).__name__}")
    return data


def write_file(path: Path, data: bytes) -> None:
    """Beside it first, then renamed, so that no half-written file is ever left under its name, nor beside it."""
    beside = path.with_name(f".{path.name}.part")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        told = OutputError(f"{path} can't be written: {error.strerror}")
        told.errno = error.errno
        raise told from None
