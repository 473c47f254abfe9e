"""
Whose an order is that a CA hands out: Let's Encrypt gives an open one to all who ask for the same.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from certbaton.cluster import Cluster


class Handouts:
    """The orders of one instance, those included that are on their way into a Journal."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._lock = threading.Lock()
        self._written: set[str] = set()

    @contextmanager
    def noting(self, name: str, url: str) -> Iterator[bool]:
        """
        Say whether the order at *url* is *name*'s, and keep it so while that is noted.

        It is another's while its Journal has it, or is being written.
        """
        with self._lock:
            ours = url not in self._written and not any(
                other != name and journal.pending is not None and journal.pending.url == url
                for other, journal in self._cluster.store.journals().items()
            )
            if ours:
                self._written.add(url)
        try:
            yield ours
        finally:
            if ours:
                with self._lock:
                    self._written.discard(url)
