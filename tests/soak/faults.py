"""The faults of daemon, API server, CA and clock that the soak draws from; `place` has the rest."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from lab.chaos import ChaosWorld, Proxy, WireFault
from lab.chaos.faults import Kind
from soak.judge import Effect, Version, Window
from soak.keeper import Keeper


class NotMade(Exception):
    """A fault waited for its moment, which did not come."""


WRITES = ("POST", "PUT", "PATCH", "DELETE")


@dataclass
class Scene:
    """What faults act on. *forgot* is when the CA lost its memory; *to_refuse* what OCI will."""

    world: ChaosWorld
    keeper: Keeper
    stop: threading.Event
    forgot: list[float] = field(default_factory=list)
    to_refuse: set[str] = field(default_factory=set)
    refused: list[Version] = field(default_factory=list)

    def hold(self, seconds: float) -> None:
        """Let a fault last; shorter when all is to end."""
        self.stop.wait(seconds)

    def until(self, over: Callable[[], bool], seconds: float) -> None:
        """Let a fault last until it is *over*, so long at most."""
        end = time.monotonic() + seconds
        while not over() and time.monotonic() < end and not self.stop.wait(0.05):
            pass


Act = Callable[[Scene, Random, Window], None]


@dataclass(frozen=True)
class Fault:
    """
    One kind: *act* makes it, and undoes it before it returns.

    *effect* is what it can do to listeners; *act* may narrow its window down to what it touched.
    """

    kind: str
    act: Act
    weight: float = 1.0
    effect: Effect = Effect.NONE


def api(
    lasts: tuple[float, float],
    kind: Kind,
    methods: tuple[str, ...] = (),
    wait: float | None = None,
) -> Act:
    """A share of the requests to the API server meets that, for so long (from, to)."""
    return _wire(lambda scene: scene.world.api, 1.0, lasts, kind, methods, wait)


def ca(
    lasts: tuple[float, float],
    kind: Kind,
    methods: tuple[str, ...] = (),
    wait: float | None = None,
) -> Act:
    """The same for the CA."""
    return _wire(lambda scene: scene.world.ca, 0.9, lasts, kind, methods, wait)


def _wire(
    proxy: Callable[[Scene], Proxy],
    most: float,
    lasts: tuple[float, float],
    kind: Kind,
    methods: tuple[str, ...],
    wait: float | None,
) -> Act:
    def act(scene: Scene, dice: Random, window: Window) -> None:
        share = round(dice.uniform(0.2, most), 2)
        fault = WireFault(kind, share=share, methods=methods, seconds=wait)
        with proxy(scene).misbehaving(fault):
            scene.hold(dice.uniform(*lasts))

    return act


# --- the daemon ---------------------------------------------------------------------------


def kill(scene: Scene, dice: Random, window: Window) -> None:
    scene.keeper.kill()
    scene.hold(2)


def kill_at_write(scene: Scene, dice: Random, window: Window) -> None:
    moment = f"{dice.choice(('before', 'after'))}:{dice.randint(1, 14)}"
    window.kind = f"kill-at-write {moment}"
    scene.keeper.kill(moment)
    scene.hold(5)


def terminate(scene: Scene, dice: Random, window: Window) -> None:
    scene.keeper.terminate()
    scene.hold(2)


def suspend(scene: Scene, dice: Random, window: Window) -> None:
    scene.keeper.suspend()
    try:
        scene.hold(dice.uniform(2, 12))
    finally:
        scene.keeper.resume()


def step(low: float, high: float) -> Act:
    """The daemon's clock steps, and comes back."""

    def act(scene: Scene, dice: Random, window: Window) -> None:
        window.offset = round(dice.uniform(low, high), 1)
        scene.world.clock.set(window.offset)
        try:
            scene.hold(dice.uniform(2, 8))
        finally:
            scene.world.clock.set(0)

    return act


# --- the API server ---------------------------------------------------------------------------


def apiserver_restart(scene: Scene, dice: Random, window: Window) -> None:
    scene.world.plane.restart_apiserver(kill=dice.random() < 0.5)


def apiserver_away(scene: Scene, dice: Random, window: Window) -> None:
    scene.world.plane.stop_apiserver(kill=True)
    try:
        scene.hold(dice.uniform(2, 8))
    finally:
        scene.world.plane.start_apiserver()


def etcd_restart(scene: Scene, dice: Random, window: Window) -> None:
    scene.world.plane.restart_etcd(kill=True)


def partition(scene: Scene, dice: Random, window: Window) -> None:
    faults = WireFault("cut-before"), WireFault("cut-before", watches=True)
    with scene.world.api.misbehaving(*faults):
        scene.world.api.drop_watches()
        scene.hold(dice.uniform(2, 10))


def watch_drop(scene: Scene, dice: Random, window: Window) -> None:
    for _ in range(dice.randint(1, 4)):
        scene.world.api.drop_watches()
        scene.hold(dice.uniform(0.2, 2))


def watch_stale(scene: Scene, dice: Random, window: Window) -> None:
    seconds = dice.uniform(2, 10)
    scene.world.api.hold_watches(seconds)
    scene.hold(seconds)


def watch_gone(scene: Scene, dice: Random, window: Window) -> None:
    with scene.world.api.misbehaving(WireFault("gone", watches=True, times=dice.randint(1, 6))):
        scene.world.api.drop_watches()
        scene.hold(dice.uniform(2, 5))


# --- the CA -----------------------------------------------------------------------------------


def ca_forgets(scene: Scene, dice: Random, window: Window) -> None:
    scene.forgot.append(window.begin)
    scene.world.pebble.restart()


SHORT, LONG = (3.0, 8.0), (4.0, 12.0)

DAEMON: tuple[Fault, ...] = (
    Fault("kill", kill, 2),
    Fault("kill-at-write", kill_at_write, 8),
    Fault("terminate", terminate),
    Fault("suspend", suspend),
    Fault("clock-ahead", step(1, 40)),
    Fault("clock-back", step(-40, -1)),
    Fault("apiserver-restart", apiserver_restart),
    Fault("apiserver-away", apiserver_away),
    Fault("etcd-restart", etcd_restart),
    Fault("api-partition", partition),
    Fault("api-delay", api(LONG, "delay-before", wait=1.0)),
    Fault("api-delay-answer", api(LONG, "delay-after", wait=1.0)),
    Fault("api-cut", api(SHORT, "cut-before")),
    Fault("api-lost-answer", api(SHORT, "cut-after", WRITES), 2),
    Fault("api-409", api(SHORT, "conflict", ("PUT", "PATCH", "DELETE"))),
    Fault("api-410", api(SHORT, "gone", ("GET",))),
    Fault("api-429", api(SHORT, "too-many")),
    Fault("api-429-retry-after", api(SHORT, "too-many", wait=2)),
    Fault("api-500", api(SHORT, "error")),
    Fault("api-500-carried-out", api(SHORT, "error-after", WRITES), 2),
    Fault("api-503", api(SHORT, "unavailable")),
    Fault("api-503-retry-after", api(SHORT, "unavailable", wait=2)),
    Fault("watch-dropped", watch_drop),
    Fault("watch-stale", watch_stale, 2),
    Fault("watch-410", watch_gone),
    Fault("ca-forgets", ca_forgets),
    Fault("ca-bad-nonce", ca(LONG, "bad-nonce", ("POST",)), 2),
    Fault("ca-delay", ca(LONG, "delay-after", wait=1.0)),
    Fault("ca-cut", ca(LONG, "cut-before")),
    Fault("ca-lost-answer", ca(LONG, "cut-after"), 2),
    Fault("ca-429", ca(LONG, "too-many")),
    Fault("ca-429-retry-after", ca(LONG, "too-many", wait=3)),
    Fault("ca-500", ca(LONG, "error")),
    Fault("ca-503", ca(LONG, "unavailable")),
    Fault("ca-503-retry-after", ca(LONG, "unavailable", wait=3)),
)
