"""What is held for each open page: in memory alone, and dropped with it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from .trial import Trial, Upload


@dataclass
class Session:
    """One page's upload and what was made of it last."""

    upload: Upload
    trial: Trial | None = None
    problem: str = ""  # why the last upload was refused, until it has been said


class Sessions:
    """Sessions by the key of their page, of which nobody else knows; beyond `limit` the longest idle one is dropped."""

    def __init__(self, first: Trial, limit: int = 16) -> None:
        self._first, self._limit = first, limit
        self._held: OrderedDict[str, Session] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, key: str) -> Session:
        """The session of a page; a new one holds what every page starts with."""
        with self._lock:
            session = self._held.setdefault(key, Session(self._first.upload, self._first))
            self._held.move_to_end(key)
            while len(self._held) > self._limit:
                self._held.popitem(last=False)
            return session

    def drop(self, key: str) -> None:
        """The page is closed."""
        with self._lock:
            self._held.pop(key, None)

    def __len__(self) -> int:
        return len(self._held)
