"""A work queue as client-go has it: no key twice at once, delays, and back-off per key."""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable

Key = tuple[str, str]


class WorkQueue:
    """
    Keys to be worked on.

    A key that is added while a worker has it comes again when that worker is done with it; a
    key that waits twice comes once.
    """

    def __init__(
        self,
        *,
        base: float = 5.0,
        most: float = 300.0,
        paused: Callable[[], bool] = lambda: False,
    ) -> None:
        self._base = base
        self._most = most
        self._paused = paused
        self._changed = threading.Condition()
        self._ready: deque[Key] = deque()
        self._dirty: set[Key] = set()
        self._active: set[Key] = set()
        self._later: list[tuple[float, Key]] = []
        self._failures: dict[Key, int] = {}
        self._shut = False

    def add(self, key: Key) -> None:
        with self._changed:
            self._add(key)
            self._changed.notify_all()

    def add_after_failure(self, key: Key) -> float:
        """Again later: twice the delay of the last time, up to the most; returns the delay."""
        with self._changed:
            count = self._failures.get(key, 0)
            self._failures[key] = count + 1
            delay = min(self._most, self._base * 2.0 ** min(count, 30))
            heapq.heappush(self._later, (time.monotonic() + delay, key))
            self._changed.notify_all()
            return delay

    def forget(self, key: Key) -> None:
        """*key* succeeded: its next failure waits the least again."""
        with self._changed:
            self._failures.pop(key, None)

    def done(self, key: Key) -> None:
        with self._changed:
            self._active.discard(key)
            if key in self._dirty:
                self._ready.append(key)
            self._changed.notify_all()

    def get(self, *, poll: float = 0.05) -> Key | None:
        """The next key, None once the queue is shut down."""
        with self._changed:
            while not self._shut:
                now = time.monotonic()
                while self._later and self._later[0][0] <= now:
                    self._add(heapq.heappop(self._later)[1])
                paused = self._paused()
                if self._ready and not paused:
                    key = self._ready.popleft()
                    self._dirty.discard(key)
                    self._active.add(key)
                    return key
                if paused:
                    self._changed.wait(poll)
                else:
                    self._changed.wait(self._later[0][0] - now if self._later else None)
        return None

    def shut_down(self) -> None:
        with self._changed:
            self._shut = True
            self._changed.notify_all()

    def retries(self) -> dict[Key, float]:
        """The keys whose last try failed, and in how many seconds the next one is at the latest."""
        with self._changed:
            now = time.monotonic()
            return {
                key: max(at - now for at, one in self._later if one == key)
                for key in self._failures
                if any(one == key for _, one in self._later)
            }

    @property
    def idle(self) -> bool:
        """Nothing is being worked on or ready to be; a retry may still be waiting."""
        with self._changed:
            return not self._active and not self._dirty

    def _add(self, key: Key) -> None:
        if self._shut or key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._active:
            self._ready.append(key)
