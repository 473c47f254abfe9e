"""
So many requests a second and no more, however many threads ask.

Let's Encrypt refuses a client that sends more than 20 a second (10 at once for nonces), and a
fleet that starts would. Nothing here knows HTTP, and time is an argument.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Final

RATE: Final = 15
"""Requests a second to one CA."""


class Throttle:
    """
    Lets at most *rate* through in any second; shared by threads, first come, first served.

    Not a bucket that fills up: such a one lets twice its rate through in the first second, which
    is when a process starts and has most to ask. *monotonic* is a clock in seconds, *sleep* waits
    so many and is False if it was interrupted.
    """

    def __init__(
        self, rate: int, monotonic: Callable[[], float], sleep: Callable[[float], bool]
    ) -> None:
        self._monotonic, self._sleep = monotonic, sleep
        self._lock = threading.Lock()
        # The moments of the last ones, some of them still to come.
        self._moments: deque[float] = deque(maxlen=rate)

    def wait(self) -> bool:
        """Wait for this caller's moment; False if the wait was interrupted."""
        with self._lock:
            now = moment = self._monotonic()
            if len(self._moments) == self._moments.maxlen:
                moment = max(now, self._moments[0] + 1.0)
            self._moments.append(moment)
        return moment <= now or self._sleep(moment - now)
