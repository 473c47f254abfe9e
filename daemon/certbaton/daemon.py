"""
Puts the parts together: from a configuration to something that runs.

Imported only by commands that need the cluster; ``config check`` does without.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import FrameType

from certbaton.apply import Applier
from certbaton.ca.order import CertificateAuthority
from certbaton.ca.session import Session
from certbaton.cluster import Cluster
from certbaton.errors import ClusterUnavailable
from certbaton.model import IssuerSpec, Plan, Wait, WaitKind
from certbaton.observe import Observer
from certbaton.ordering import Orders
from certbaton.pki import PrivateKey
from certbaton.reconcile import Reconciler, Report
from certbaton.schedule import Scheduler
from certbaton.settings import Config, Dns01Config, SolverConfig
from certbaton.solvers import Solver, load
from certbaton.targets import load as load_target
from certbaton.telemetry import logger
from certbaton.web.health import Health, HealthServer

EXIT_OK, EXIT_FAILED, EXIT_WAITING = 0, 1, 6
GRACE = timedelta(seconds=20)
USUAL_START = 2.0


def utc_now() -> datetime:
    """Read the clock: aware, UTC. The one place where the daemon does."""
    return datetime.now(UTC)


class Sessions:
    """One ACME session per thread and account: they are not safe to share."""

    def __init__(self) -> None:
        self._local = threading.local()

    def connect(
        self, issuer: IssuerSpec, key: PrivateKey, account_url: str | None
    ) -> CertificateAuthority:
        """Give this thread's session of that account."""
        known: dict[tuple[str, str, str | None], Session]
        known = self._local.__dict__.setdefault("sessions", {})
        which = (issuer.directory, key.public_key_sha256, account_url)
        if which not in known:
            known[which] = Session(issuer, key, account_url)
        return known[which]


def build_solver(config: SolverConfig) -> Solver:
    """Build, not start, the solver that *config* describes."""
    settings = config.model_dump(by_alias=True, exclude={"type"}, exclude_none=True)
    if isinstance(config, Dns01Config):
        settings = {"provider": config.provider, "settings": settings[config.provider]}
    return load(config.type, settings)


class Daemon:
    """All parts of one process, wired."""

    def __init__(self, config: Config, cluster: Cluster, deadline: datetime | None = None) -> None:
        """*deadline* (aware, UTC) is when orders are no longer followed but left to the Journal."""
        self.config = config
        self.cluster = cluster
        self.stop = threading.Event()
        self._deadline = deadline
        self.policy = config.policy.policy()
        specs = {spec.name: spec for spec in config.specs()}
        self.solvers = {
            name: build_solver(config.solvers[name])
            for name in sorted({spec.solver for spec in specs.values()})
        }
        target = load_target("oci")
        issuers = {spec.issuer.directory: spec.issuer for spec in specs.values()}
        orders = Orders(
            cluster,
            Sessions().connect,
            self.solvers,
            issuers,
            {spec.name: spec.solver for spec in specs.values()},
            policy=self.policy,
            clock=utc_now,
            sleep=self._sleep,
            patience=config.validation_patience,
        )
        applier = Applier(
            cluster,
            target,
            orders,
            policy=self.policy,
            field_manager=config.instance_id().field_manager,
            clock=utc_now,
        )
        observer = Observer(cluster, target, route=config.route, timeout=config.probe_timeout)
        self.reconciler = Reconciler(
            cluster, observer, applier, orders, specs, self.policy, utc_now, self.stop
        )

    def _sleep(self, seconds: float) -> bool:
        """Wait; False, at once, where that would be past the deadline or we are to stop."""
        if self._deadline and utc_now() + timedelta(seconds=seconds) > self._deadline:
            return False
        return not self.stop.wait(seconds)

    @contextmanager
    def solving(self) -> Iterator[None]:
        """Keep the solvers up."""
        started: list[Solver] = []
        try:
            for solver in self.solvers.values():
                solver.start()
                started.append(solver)
            yield
        finally:
            for solver in started:
                solver.close()

    def on_signals(self) -> None:
        """SIGTERM and SIGINT end the current write, not the whole order."""

        def handle(number: int, frame: FrameType | None) -> None:
            self.stop.set()

        signal.signal(signal.SIGTERM, handle)
        signal.signal(signal.SIGINT, handle)


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


def run(config: Config, cluster: Cluster) -> int:
    """Run until a signal comes. Gives the exit code."""
    daemon = Daemon(config, cluster)
    daemon.on_signals()
    scheduler = Scheduler(
        daemon.reconciler,
        workers=config.workers,
        backstop=daemon.policy.backstop,
        clock=utc_now,
    )
    ready = threading.Event()
    with daemon.solving():
        health = HealthServer(
            config.health_port,
            live=lambda: _health(scheduler.alive()),
            ready=lambda: _health(None if ready.is_set() else "the cluster is not read yet"),
        )
        if config.health_port:
            health.start()
        try:
            logger().info("started", instance=str(config.instance_id()))
            cluster.start(scheduler.wake)
            if wait_for_cluster(daemon, lambda: False):
                ready.set()
                scheduler.start()
                daemon.stop.wait()
            logger().info("stopping")
            if not scheduler.close(GRACE):
                logger().warning("stopped_midway", why="a turn did not end in time")
        finally:
            health.close()
            cluster.stop()
    logger().info("stopped")
    return EXIT_OK


def once(config: Config, cluster: Cluster, timeout: timedelta) -> int:
    """
    Work until nothing is left to do or wait for, at most *timeout*.

    0: nothing left; 1: something failed; 6: still waiting. What is due later, a
    retention or a back-off is no wait.
    """
    deadline = utc_now() + timeout
    daemon = Daemon(config, cluster, deadline)
    daemon.on_signals()
    with daemon.solving(), ThreadPoolExecutor(config.workers) as pool:
        changed = threading.Event()
        cluster.start(changed.set)
        try:
            if not wait_for_cluster(daemon, lambda: utc_now() >= deadline):
                for problem in daemon.cluster.problems():
                    logger().error("not_done", error=problem)
                return EXIT_FAILED
            reports: dict[str, Report] = {}
            while True:
                changed.clear()
                names = [
                    name
                    for name in daemon.reconciler.certificates()
                    if name not in reports or _in_flight(reports[name])
                ]
                for report in pool.map(daemon.reconciler.turn, names):
                    reports[report.certificate] = report
                waits = [wait for report in reports.values() for wait in _in_flight(report)]
                if not waits or daemon.stop.is_set() or utc_now() >= deadline:
                    return _verdict(reports, waits)
                pause = min(wait.until for wait in waits) - utc_now()
                left = deadline - utc_now()
                changed.wait(max(0.05, min(pause, left).total_seconds()))
        finally:
            daemon.stop.set()
            cluster.stop()


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
