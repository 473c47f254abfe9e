"""Ports and addresses on the loopback that belong to one lab alone."""

from __future__ import annotations

import random
import socket
import threading
from typing import ClassVar

Address = tuple[str, int]

# Below the range that the kernel hands out for outgoing connections, so that no connection of
# anybody can take a port between two uses of ours.
_LOWEST, _HIGHEST = 20000, 32000


class PortMap:
    """
    Which real port stands for a Service port.

    The same on every load balancer of a lab: each has its own address, so a CA with one
    configured http port can validate against all of them. Never two Service ports on one real.
    """

    def __init__(self, fixed: dict[int, int] | None = None) -> None:
        self._ports = dict(fixed or {})
        self._lock = threading.Lock()

    def __call__(self, port: int) -> int:
        with self._lock:
            if port not in self._ports:
                self._ports[port] = free_port(set(self._ports.values()))
            return self._ports[port]


def free_port(taken: set[int] | None = None) -> int:
    """A port that nobody listens on, on any address."""
    for _ in range(200):
        port = random.randint(_LOWEST, _HIGHEST)
        if port in (taken or ()):
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
        return port
    raise RuntimeError(f"no free port between {_LOWEST} and {_HIGHEST}")


class Loopback:
    """Hands out addresses of 127.0.0.0/8, each once in a process and at random between them."""

    _lock = threading.Lock()
    _used: ClassVar[set[str]] = set()

    @classmethod
    def take(cls) -> str:
        """A fresh address."""
        with cls._lock:
            while True:
                parts = (random.randint(1, 254), random.randint(0, 255), random.randint(2, 254))
                address = "127." + ".".join(map(str, parts))
                if address not in cls._used:
                    cls._used.add(address)
                    return address
