"""What is held for each open page: in memory alone, and dropped with it."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from .trial import Trial, Upload

PAGES = 16
TOTAL_BYTES = 500_000_000  # four photos of the largest size with all that is made of them
IDLE_SECONDS = 3600
DROPPED = (
    f"The server no longer holds this page's photo: it drops one after {IDLE_SECONDS // 60} minutes without use, or "
    "sooner where many pages are open. Drop the photo again"
)


@dataclass
class Session:
    """One page's upload and what was made of it last."""

    upload: Upload | None
    trial: Trial | None = None
    problem: str = ""  # why there is no upload, or the last one was refused, until the page has shown it
    used: float = 0.0  # when, in seconds of the clock

    @property
    def nbytes(self) -> int:
        """Of memory, about."""
        return (self.upload.nbytes if self.upload else 0) + (self.trial.nbytes if self.trial else 0)


class Sessions:
    """Sessions by the key of their page, which no other page knows.

    The one that has been idle longest is dropped where there are more than `limit`, or where they hold more than
    `total_bytes`; and each after `IDLE_SECONDS` without an event.
    """

    def __init__(
        self,
        first: Trial,
        limit: int = PAGES,
        total_bytes: int = TOTAL_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._first, self._limit, self._total_bytes, self._clock = first, limit, total_bytes, clock
        self._held: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, key: str) -> Session:
        """The session of a page that has just been loaded: it begins with the first trial."""
        with self._lock:
            self._held[key] = Session(self._first.upload, self._first)
            return self._touched(key)

    def of(self, key: str, *, hold: bool = False) -> Session:
        """The session of a page; one without an upload, and `DROPPED` as its problem, where it is held no longer.

        Such a one is held only with `hold`, so that events that end after their page was closed leave nothing behind.
        """
        with self._lock:
            if key not in self._held:
                empty = Session(None, problem=DROPPED)
                if not hold:
                    return empty
                self._held[key] = empty
            return self._touched(key)

    def drop(self, key: str) -> None:
        """The page is closed."""
        with self._lock:
            self._held.pop(key, None)

    def expire(self) -> None:
        """Drops the sessions that have been idle too long."""
        with self._lock:
            oldest = self._clock() - IDLE_SECONDS
            for key in [key for key, session in self._held.items() if session.used <= oldest]:
                del self._held[key]

    def __len__(self) -> int:
        return len(self._held)

    def _touched(self, key: str) -> Session:
        session = self._held[key]
        session.used = self._clock()
        self._held.move_to_end(key)
        while len(self._held) > 1 and (len(self._held) > self._limit or self._nbytes() > self._total_bytes):
            self._held.popitem(last=False)
        return session

    def _nbytes(self) -> int:
        return sum(session.nbytes for session in self._held.values())
