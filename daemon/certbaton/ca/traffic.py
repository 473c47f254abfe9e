"""
What all lines of one process to its CAs have in common: their pace, and their end.

A request that hangs must not keep a process that was asked to end. Threads cannot be interrupted
from outside, but sockets can: whoever reads from one that is shut down wakes up.
"""

from __future__ import annotations

import contextlib
import contextvars
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from certbaton.ca.throttle import RATE, Throttle
from certbaton.errors import Stopping


class Running:
    """
    One request on its way, of the thread that began it.

    It must be over by *deadline* (monotonic seconds). *connected* says that it is on a connection
    of its own, *heard* how many bytes of an answer have come.
    """

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.connected = False
        self.heard = 0
        self.abandoned = False
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._copies: list[socket.socket] = []

    def left(self) -> float:
        """Seconds until the deadline; TimeoutError after it."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer took too long")
        return left

    def connecting(self, sock: socket.socket) -> None:
        """*sock* is about to connect. A copy is kept, since TLS takes the descriptor from it."""
        self.connected = True
        copy = sock.dup()
        self._copies.append(copy)
        self.reading(copy)

    def reading(self, sock: socket.socket) -> None:
        """*sock* is what the answer will come from."""
        with self._lock:
            self._socket = sock
            if self.abandoned:
                _shut(sock)

    def abandon(self) -> None:
        """End it from another thread: what it waits for fails at once."""
        with self._lock:
            self.abandoned = True
            if self._socket is not None:
                _shut(self._socket)

    def close(self) -> None:
        """It is over."""
        with self._lock:
            self._socket = None
            while self._copies:
                self._copies.pop().close()


def _shut(sock: socket.socket) -> None:
    # An SSLSocket's own would drop the TLS state that another thread is reading with.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


_running: contextvars.ContextVar[Running] = contextvars.ContextVar("running")


def running() -> Running:
    """Give the request that this thread is at."""
    return _running.get()


class Traffic:
    """
    The requests of one process to all CAs.

    *rate* is a host's, in requests a second. *monotonic* is a clock in seconds. *closed* is set
    once nothing begins any more.
    """

    def __init__(self, rate: int = RATE, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._monotonic = rate, monotonic
        self._lock = threading.Lock()
        self._throttles: dict[str, Throttle] = {}
        self._requests: set[Running] = set()
        self.closed = threading.Event()
        self._over = False

    def close(self, after: float) -> None:
        """
        Let nothing begin from now on, and end in *after* seconds what runs then.

        Returns at once. Stopping is what the requests end with.
        """
        self.closed.set()
        timer = threading.Timer(after, self._abandon)
        timer.daemon = True
        timer.start()

    @property
    def busy(self) -> bool:
        """Whether a request is on its way."""
        with self._lock:
            return bool(self._requests)

    @contextmanager
    def request(self, what: str, host: str, seconds: float) -> Iterator[Running]:
        """
        One request to *host*, begun when it is its turn, with *seconds* from then.

        Stopping where nothing begins any more.
        """
        if not self._throttle(host).wait() or self.closed.is_set():
            raise Stopping(f"{what} was not sent to {host}: the process is ending")
        request = Running(time.monotonic() + seconds)
        with self._lock:
            self._requests.add(request)
            if self._over:
                request.abandon()
        token = _running.set(request)
        try:
            yield request
        finally:
            _running.reset(token)
            with self._lock:
                self._requests.discard(request)
            request.close()

    def _throttle(self, host: str) -> Throttle:
        with self._lock:
            return self._throttles.setdefault(
                host, Throttle(self._rate, self._monotonic, self._sleep)
            )

    def _sleep(self, seconds: float) -> bool:
        return not self.closed.wait(seconds)

    def _abandon(self) -> None:
        with self._lock:
            self._over = True
            requests = list(self._requests)
        for request in requests:
            request.abandon()


TRAFFIC: Final = Traffic()
"""This process's: a CA counts what a process sends, however many threads and accounts it has."""
