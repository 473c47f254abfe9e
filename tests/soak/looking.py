"""Eyes on listeners and on the load balancers' own work."""

from __future__ import annotations

import threading
import time
from typing import Self

from lab.chaos import ChaosWorld
from lab.oci.prober import handshake
from soak.judge import Run
from soak.site import CERTIFICATES, OF, SERVICES, Ref

LOOK_S = 0.3
SAMPLE_S = 0.02
CHANGES = ("CreateListener", "UpdateListener")


class Eyes:
    """Shakes hands with each listener, again and again, and keeps what it saw as runs."""

    def __init__(self, world: ChaosWorld) -> None:
        self.runs: dict[Ref, list[Run]] = {ref: [] for ref in SERVICES}
        self._world = world
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._look, args=(ref,), daemon=True) for ref in SERVICES
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(10)

    def now(self, ref: Ref) -> str | None:
        """The leaf of the last look."""
        runs = self.runs[ref]
        return runs[-1].leaf if runs else None

    def _look(self, ref: Ref) -> None:
        runs = self.runs[ref]
        # Not what the status says, which may lead inside.
        balancer = self._world.cloud.load_balancer(*ref, timeout=60)
        where = balancer.addresses[0], self._world.ports(443)
        while not self._stop.wait(LOOK_S):
            began = time.time()
            try:
                leaf = handshake(*where, f"{OF[ref]}.example.test", timeout=5.0)
            except (OSError, ValueError):
                leaf = None
            if runs and runs[-1].leaf == leaf:
                runs[-1].end = time.time()
            else:
                # What came before has lasted until it was last seen.
                runs.append(Run(leaf, began, time.time()))


class Sampler:
    """Looks for two listeners of one certificate in change at the same time."""

    def __init__(self, world: ChaosWorld) -> None:
        self.together: list[tuple[float, str]] = []
        self._api = world.cloud.api
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            changing: dict[str, int] = dict.fromkeys(CERTIFICATES, 0)
            for balancer in self._api.balancers():
                request = self._api.pending(balancer)
                if request is not None and request.operation in CHANGES:
                    changing[OF[balancer.namespace, balancer.service]] += 1
            for name, count in changing.items():
                if count > 1:
                    self.together.append((time.time(), name))
