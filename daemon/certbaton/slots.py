"""
Slots: how many certificates may work with one CA at a time.

Nobody blocks a thread: who gets no slot is told when to ask again, in the order of coming. So a
CA that is slow holds some threads, and never all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

STEP = timedelta(seconds=1)
LONGEST = timedelta(minutes=1)
# Who has not asked again so long after his time does not wait any more.
LATE = timedelta(seconds=30)


@dataclass(slots=True)
class _Queue:
    holders: set[str] = field(default_factory=set)
    waiting: dict[str, datetime] = field(default_factory=dict)  # by name: when it asks again
    begun: set[str] = field(default_factory=set)


class Slots:
    """*limit* slots at each of any number of places. Any thread may call it."""

    def __init__(self, limit: int, clock: Callable[[], datetime]) -> None:
        self._limit = limit
        self._clock = clock
        self._lock = threading.Lock()
        self._queues: dict[str, _Queue] = {}

    @contextmanager
    def taken(self, place: str, name: str, *, begun: bool = False) -> Iterator[timedelta | None]:
        """
        Hold a slot at *place* for *name*; gives None, or how long to wait before asking again.

        Who has waited longest is next, and before all who are new here whoever has *begun*: else
        all of a fleet would begin before the first of them ends.
        """
        wait = self._take(place, name, begun)
        try:
            yield wait
        finally:
            if wait is None:
                with self._lock:
                    self._queues[place].holders.discard(name)

    def wanted(self, place: str) -> bool:
        """Say whether somebody waits for a slot at *place*."""
        with self._lock:
            queue = self._queues.get(place)
            return queue is not None and bool(self._fresh(queue))

    def _take(self, place: str, name: str, begun: bool) -> timedelta | None:
        with self._lock:
            queue = self._queues.setdefault(place, _Queue())
            waiting = self._fresh(queue)
            if begun:
                queue.begun.add(name)
            else:
                queue.begun.discard(name)
            queue.begun &= waiting.keys() | {name}
            line = [*waiting, *(() if name in waiting else (name,))]
            line.sort(key=lambda each: each not in queue.begun)  # who came first stays so
            ahead = line.index(name)
            if ahead < self._limit - len(queue.holders):
                waiting.pop(name, None)
                queue.holders.add(name)
                return None
            wait = min(STEP * (1 + ahead // self._limit), LONGEST)
            waiting[name] = self._clock() + wait  # keeps its place
            return wait

    def _fresh(self, queue: _Queue) -> dict[str, datetime]:
        now = self._clock()
        for name in [name for name, at in queue.waiting.items() if now > at + LATE]:
            del queue.waiting[name]
        return queue.waiting
