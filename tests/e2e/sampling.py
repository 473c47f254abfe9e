"""Which load balancers are in change at the same time, looked at every few milliseconds."""

from __future__ import annotations

import threading
from typing import Self

from lab.oci import CloudController

LISTENER_CHANGES = ("CreateListener", "UpdateListener")
INTERVAL_S = 0.01


class ChangeSampler:
    """From `__enter__` to `__exit__`; a change of a listener takes much longer than one look."""

    def __init__(self, cloud: CloudController) -> None:
        self._api = cloud.api
        self.seen: set[str] = set()
        self.together: set[frozenset[str]] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL_S):
            pending = [self._api.pending(balancer) for balancer in self._api.balancers()]
            changing = frozenset(
                request.load_balancer.uid
                for request in pending
                if request is not None and request.operation in LISTENER_CHANGES
            )
            if changing:
                self.seen |= changing
                self.together.add(changing)
