"""Files that were dropped on a page, until its event takes them: in memory alone, for a minute, and not without end."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

SECONDS = 60  # a page's event follows its upload within a second
FILES = 4  # of the largest size may wait at the same time
ENTRY_BYTES = 4096  # what the smallest file counts as, so that empty ones can't be without number either


class UploadsFullError(Exception):
    """As many bytes wait as may wait."""


class Uploaded(NamedTuple):
    """A file as the browser sent it."""

    name: str
    data: bytes


class Uploads:
    """Uploads by a token that nobody can guess.

    Parameters
    ----------
    file_bytes
        Bytes of one file at most; `FILES` times as many may wait in all.
    clock
        Seconds from some moment on.
    """

    def __init__(self, file_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.file_bytes = file_bytes
        self.most = FILES * (file_bytes + ENTRY_BYTES)
        self._clock = clock
        self._waiting: dict[str, tuple[float, Uploaded]] = {}
        self._announced = 0  # bytes of uploads on their way
        self._lock = threading.Lock()

    @contextmanager
    def room_for(self, count: int) -> Iterator[None]:
        """Keeps room for `count` bytes that are on their way; `UploadsFullError` where there is none."""
        cost = count + ENTRY_BYTES
        self.expire()
        with self._lock:
            if self._held() + cost > self.most:
                raise UploadsFullError
            self._announced += cost
        try:
            yield
        finally:
            with self._lock:
                self._announced -= cost

    def add(self, upload: Uploaded) -> str:
        """Holds a file for `SECONDS`; returns the token by which it is taken."""
        token = secrets.token_urlsafe(16)
        with self._lock:
            self._waiting[token] = (self._clock(), upload)
        return token

    def take(self, token: str) -> Uploaded | None:
        """The file, which is not held any longer; None where it was taken, or waited too long."""
        self.expire()
        with self._lock:
            return self._waiting.pop(token, (0.0, None))[1]

    def expire(self) -> None:
        """Drops what has waited too long."""
        with self._lock:
            oldest = self._clock() - SECONDS
            self._waiting = {token: entry for token, entry in self._waiting.items() if entry[0] > oldest}

    @property
    def held(self) -> int:
        """Bytes that wait or are on their way, each file with what it costs beside its own."""
        with self._lock:
            return self._held()

    def _held(self) -> int:
        return self._announced + sum(len(upload.data) + ENTRY_BYTES for _, upload in self._waiting.values())
