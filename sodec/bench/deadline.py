"""How long a run may take, handed down to its parts."""

from __future__ import annotations

import math
import time


class Deadline:
    """So many seconds from now; None is no limit."""

    def __init__(self, seconds: float | None = None) -> None:
        self._end = math.inf if seconds is None else time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds, negative once it has passed; infinite without a limit."""
        return self._end - time.monotonic()

    @property
    def limited(self) -> bool:
        """Whether there is a limit."""
        return self._end < math.inf

    def allows(self, seconds: float) -> bool:
        """Whether so many seconds are left."""
        return self.left >= seconds
