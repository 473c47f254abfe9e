"""
What the commands do: ``run``, ``once`` and ``plan``.

Imported only by commands that need the cluster; ``config check`` does without.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from certbaton.cluster import Cluster, Lease
from certbaton.errors import ClusterUnavailable
from certbaton.leaving import REQUEST_GRACE, leave
from certbaton.model import Plan, Wait, WaitKind
from certbaton.reconcile import Report
from certbaton.schedule import Scheduler
from certbaton.settings import Config
from certbaton.telemetry import logger
from certbaton.web.health import Health, HealthServer
from certbaton.wiring import Daemon, utc_now

EXIT_OK, EXIT_FAILED, EXIT_WAITING = 0, 1, 6
USUAL_START = 2.0
SECOND = timedelta(seconds=1)


def wait_for_cluster(daemon: Daemon, until: Callable[[], bool]) -> bool:
    """Wait until the caches are filled; False if *until* or a signal came first."""
    told: tuple[str, ...] = ()
    began = time.monotonic()
    while not daemon.cluster.complete:
        problems = daemon.cluster.problems()
        # "not listed yet" is how every start looks for a moment
        if problems != told and time.monotonic() - began > USUAL_START:
            told = problems
            logger().warning("waiting_for_cluster", problems=list(problems))
        if until() or daemon.stop.wait(0.05):
            return False
    return True


def _health(trouble: str | None) -> Health:
    return Health(trouble is None, trouble or "well")


class Turns:
    """The scheduler of the time in which the lease is held; none in between."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._scheduler: Scheduler | None = None

    def wake(self) -> None:
        """Something changed in the cluster."""
        scheduler = self._scheduler
        if scheduler is not None:
            scheduler.wake()

    def health(self) -> Health:
        """Whether it moves, or stands by."""
        scheduler = self._scheduler
        return _health(scheduler.alive() if scheduler is not None else None)

    def lead(self, lease: Lease) -> bool:
        """Work until *lease* is lost or a signal comes; false if a turn has not ended then."""
        daemon = self._daemon
        daemon.begin()
        logger().info("leading", identity=lease.identity)
        self._scheduler = scheduler = Scheduler(
            daemon.reconciler,
            workers=daemon.config.workers,
            backstop=daemon.policy.backstop,
            clock=utc_now,
        )
        scheduler.start()
        while lease.valid() and not daemon.stop.is_set():
            daemon.pause(None)
        daemon.over.set()
        if not daemon.stop.is_set():
            logger().warning("lease_lost", why=lease.problem or lease.sentence())
        # Nothing begins anew before all has ended: what was planned then is not written now.
        ended = False
        while not ended and not daemon.stop.is_set():
            ended = scheduler.close(SECOND)
        ended = ended or scheduler.close(REQUEST_GRACE)
        if ended:
            self._scheduler = None
        return ended


def run(config: Config, cluster: Cluster, lease: Lease) -> int:
    """Run until a signal comes. Gives the exit code."""
    daemon = Daemon(config, cluster, lease)
    daemon.on_signals(EXIT_OK)
    turns = Turns(daemon)
    ready = threading.Event()
    with daemon.solving():
        health = HealthServer(
            config.health_port,
            live=turns.health,
            ready=lambda: _health(None if ready.is_set() else "the cluster is not read yet"),
        )
        if config.health_port:
            health.start()
        try:
            logger().info("started", instance=str(config.instance_id()))
            cluster.start(turns.wake)
            ended = True
            if wait_for_cluster(daemon, lambda: False):
                ready.set()
                lease.start(daemon.nudge)
                while ended and daemon.leads(lease, lambda: None):
                    ended = turns.lead(lease)
                    lease.campaign()
            logger().info("stopping")
            if not ended:
                # What was sent may still arrive. The Lease is not renewed any more, and a
                # successor waits until it is over; nor does the interpreter wait for the turn.
                logger().warning("stopped_midway", why="a request was not answered in time")
                leave(EXIT_OK)
            lease.stop()
            if ended and not lease.release():
                logger().warning("lease_not_released", why="it runs out by itself")
        finally:
            health.close()
            lease.stop()
            cluster.stop()
    logger().info("stopped")
    return EXIT_OK


def once(config: Config, cluster: Cluster, lease: Lease, timeout: timedelta) -> int:
    """
    Work until nothing is left to do or wait for, at most *timeout*.

    0: nothing left; 1: something failed; 6: still waiting, be it for another process of this
    release. What is due later, a retention or a back-off is no wait.
    """
    deadline = utc_now() + timeout
    daemon = Daemon(config, cluster, lease, deadline)
    daemon.on_signals(EXIT_WAITING)

    def left() -> float:
        return (deadline - utc_now()).total_seconds()

    with daemon.solving(), ThreadPoolExecutor(config.workers) as pool:
        cluster.start(daemon.nudge)
        try:
            if not wait_for_cluster(daemon, lambda: left() <= 0):
                for problem in daemon.cluster.problems():
                    logger().error("not_done", error=problem)
                return EXIT_FAILED
            lease.start(daemon.nudge)
            reports: dict[str, Report] = {}
            while True:
                if not lease.valid():
                    lease.campaign()
                    if not daemon.leads(lease, left):
                        return _not_leading(lease)
                    daemon.begin()
                names = [
                    name
                    for name in daemon.reconciler.certificates()
                    if name not in reports or _in_flight(reports[name])
                ]
                for report in pool.map(daemon.reconciler.turn, names):
                    reports[report.certificate] = report
                waits = [wait for report in reports.values() for wait in _in_flight(report)]
                if not waits or daemon.stop.is_set() or left() <= 0:
                    return _verdict(reports, waits)
                pause = (min(wait.until for wait in waits) - utc_now()).total_seconds()
                daemon.pause(max(0.05, min(pause, left())))
        finally:
            daemon.stop.set()
            daemon.over.set()
            lease.stop()
            lease.release()
            cluster.stop()


def _not_leading(lease: Lease) -> int:
    if lease.problem is not None:
        logger().error("not_done", error=lease.problem)
        return EXIT_FAILED
    logger().warning("still_waiting", what=f"another process works: {lease.sentence()}")
    return EXIT_WAITING


def _in_flight(report: Report) -> list[Wait]:
    return [wait for wait in report.waits if wait.kind is WaitKind.IN_FLIGHT]


def _verdict(reports: dict[str, Report], waits: list[Wait]) -> int:
    backing_off = [
        f"{name}: {wait.what}"
        for name, report in sorted(reports.items())
        for wait in report.waits
        if wait.kind is WaitKind.BACK_OFF
    ]
    for sentence in backing_off:
        logger().error("not_done", error=sentence)
    if backing_off:
        return EXIT_FAILED
    for wait in waits:
        logger().warning("still_waiting", what=wait.what)
    return EXIT_WAITING if waits else EXIT_OK


def plans(config: Config, cluster: Cluster) -> list[Plan]:
    """Give the plan of every certificate; nothing is touched, and the CA is not asked."""
    daemon = Daemon(config, cluster)
    cluster.refresh()
    if not cluster.complete:
        raise ClusterUnavailable("; ".join(cluster.problems()))
    return [daemon.reconciler.plan(name) for name in daemon.reconciler.certificates()]
