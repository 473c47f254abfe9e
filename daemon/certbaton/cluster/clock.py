"""
How far our clock is from the API server's, by the ``Date`` of its answers.

Between two answers the machine's own uptime tells whether our clock was set
meanwhile; uptime goes on while a laptop sleeps, as the server's clock does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from certbaton.failpoints import clock_offset

# ``Date`` has whole seconds: on average the answer was given half a second later.
HALF = timedelta(seconds=0.5)


def _now() -> datetime:
    return datetime.now(UTC) + clock_offset()


def _uptime() -> float:
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


class ServerClock:
    """Remembers the last answer's time. Safe to share between threads."""

    def __init__(
        self, now: Callable[[], datetime] = _now, uptime: Callable[[], float] = _uptime
    ) -> None:
        """*now* is our clock (aware, UTC); *uptime* is in seconds and never set."""
        self._now = now
        self._uptime = uptime
        self._lock = threading.Lock()
        self._ahead: timedelta | None = None
        self._at: tuple[datetime, float] | None = None

    def heard(self, date: str | None) -> None:
        """Take in the ``Date`` header of an answer that has just come; nonsense is ignored."""
        if not date:
            return
        try:
            server = parsedate_to_datetime(date)
        except (TypeError, ValueError):
            return
        if server.tzinfo is None:
            return
        now = self._now()
        with self._lock:
            self._ahead, self._at = server + HALF - now, (now, self._uptime())

    def apart(self) -> timedelta | None:
        """How far the server's clock is ahead of ours (negative: behind); None if never heard."""
        with self._lock:
            if self._ahead is None or self._at is None:
                return None
            then, uptime = self._at
            passed = timedelta(seconds=self._uptime() - uptime)
            return self._ahead + passed - (self._now() - then)
