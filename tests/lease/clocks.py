"""Processes that want one Lease, each with clocks of its own, on an API server in memory."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from certbaton.cluster import Kind, Lease
from certbaton.cluster.answers import Asked
from certbaton.errors import ClusterUnavailable
from certbaton.model import Instance
from fakes.kube import FakeApi

INSTANCE = Instance("certbaton", "tls")
DURATION, RENEW_EVERY = timedelta(seconds=60), timedelta(seconds=20)
NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)


class Cut(ClusterUnavailable):
    """The network, between one process and the API server."""

    def __init__(self) -> None:
        super().__init__("no answer")


class World:
    """Time as it really passes, and the API server."""

    def __init__(self) -> None:
        self.time = 0.0
        self.server = FakeApi(now=self.now, manager="admin")

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.time)

    def record(self) -> dict[str, Any]:
        """The Lease's spec as it lies there."""
        (found,) = self.server.all(Kind.LEASE).values()
        spec: dict[str, Any] = found["spec"]
        return spec


class Contender:
    """
    A process: its clocks are *skew* seconds off and run at *rate*.

    *cut* loses its requests, *deaf* loses the answers to its writes.
    """

    def __init__(
        self,
        world: World,
        name: str,
        *,
        skew: float = 0.0,
        rate: float = 1.0,
        duration: timedelta = DURATION,
        renew_every: timedelta = RENEW_EVERY,
    ) -> None:
        self.world = world
        self.skew, self.rate = skew, rate
        self.cut = self.deaf = False
        self.on_write: Callable[[], None] = lambda: None
        self.after_write: Callable[[], None] = lambda: None
        self.changes = 0
        self.api = world.server.client(name)
        self.api.before, self.api.after = self._before, self._after
        self.lease = Lease(
            self.api,
            INSTANCE,
            identity=name,
            duration=duration,
            renew_every=renew_every,
            ticks=lambda: 1e6 * skew + world.time * self.rate,
            wall=lambda: world.now() + timedelta(seconds=self.skew),
        )
        self.lease._on_change = self._changed
        self.lease.campaign()
        self.due = 0.0

    def _changed(self) -> None:
        self.changes += 1

    def _before(self, asked: Asked) -> None:
        if asked.verb in ("create", "replace"):
            self.on_write()
        if self.cut:
            raise Cut

    def _after(self, asked: Asked) -> None:
        if asked.verb in ("create", "replace"):
            self.after_write()
            if self.deaf:
                raise Cut

    def step(self) -> float:
        """One step, and when the next is due by the real time."""
        pause = self.lease.step()
        self.due = self.world.time + pause / self.rate
        return pause

    def until(self, time: float) -> None:
        """Step whenever it is due, up to *time*."""
        for _ in range(10_000):
            if self.due > time:
                break
            self.world.time = max(self.world.time, self.due)
            self.step()
        else:
            raise AssertionError("it goes round in a hot loop")
        self.world.time = time

    def hears(self) -> None:
        """The watch delivers what is there."""
        for obj in self.world.server.all(Kind.LEASE).values():
            self.lease._heard(obj, None)
        self.due = self.world.time

    def hears_that_it_is_gone(self, version: int) -> None:
        """The watch delivers a deletion."""
        self.lease._deleted(version)
        self.due = self.world.time


def both_until(time: float, *contenders: Contender, hearing: bool = True) -> None:
    """Let all of them go on side by side, up to *time*; watches deliver at once if *hearing*."""
    for _ in range(100_000):
        first = min(contenders, key=lambda contender: contender.due)
        if first.due > time:
            first.world.time = time
            return
        world = first.world
        world.time = max(world.time, first.due)
        before = world.server.all(Kind.LEASE)
        first.step()
        if hearing and world.server.all(Kind.LEASE) != before:
            for contender in contenders:
                if not contender.cut:
                    contender.hears()
    raise AssertionError("they go round in a hot loop")
