"""
The parts of one process, put together from a configuration.

What outlives a loss of the Lease (cluster, solvers, the Lease itself) is made once; what
remembers what it did is made anew each time.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from certbaton import caa, failpoints, leaving
from certbaton.apply import Applier
from certbaton.ca import zerossl
from certbaton.ca.fenced import FencedAuthority
from certbaton.ca.order import CertificateAuthority
from certbaton.ca.session import Directories, Session
from certbaton.ca.traffic import Traffic
from certbaton.cluster import Cluster, Lease
from certbaton.dealings import Dealings
from certbaton.errors import CertbatonError
from certbaton.model import ExternalAccountKey, IssuerSpec
from certbaton.observe import Observer
from certbaton.others import OthersChallenges
from certbaton.pki import PrivateKey
from certbaton.reconcile import Reconciler
from certbaton.settings import Config, Dns01Config, SolverConfig
from certbaton.solvers import AnswersOthers, Solver, load
from certbaton.solvers.fenced import FencedSolver
from certbaton.targets import load as load_target
from certbaton.telemetry import logger


def utc_now() -> datetime:
    """Read the clock: aware, UTC. The one place where the daemon does."""
    return datetime.now(UTC) + failpoints.clock_offset()


class Sessions:
    """One ACME session per thread and account: they are not safe to share, their CA's facts are."""

    def __init__(self, traffic: Traffic) -> None:
        self._traffic = traffic
        self._directories: Directories = {}
        self._local = threading.local()

    def connect(
        self, issuer: IssuerSpec, key: PrivateKey, account_url: str | None
    ) -> CertificateAuthority:
        """Give this thread's session of that account."""
        known: dict[tuple[IssuerSpec, str, str | None], Session]
        known = self._local.__dict__.setdefault("sessions", {})
        which = (issuer, key.public_key_sha256, account_url)
        if which not in known:
            known[which] = Session(
                issuer, key, account_url, traffic=self._traffic, directories=self._directories
            )
        return known[which]


def build_solver(config: SolverConfig) -> Solver:
    """Build, not start, the solver that *config* describes."""
    settings = config.model_dump(by_alias=True, exclude={"type"}, exclude_none=True)
    if isinstance(config, Dns01Config):
        settings = {"provider": config.provider, "settings": settings[config.provider]}
    return load(config.type, settings)


class Daemon:
    """
    All parts of one process, wired.

    `begin` is for each time that *lease* is held. Without *lease* it is only good for looking.
    """

    def __init__(
        self,
        config: Config,
        cluster: Cluster,
        lease: Lease | None = None,
        deadline: datetime | None = None,
    ) -> None:
        """*deadline* (aware, UTC) is when orders are no longer followed but left to the Journal."""
        self.config = config
        self.cluster = cluster
        self.lease = lease
        self._deadline = deadline
        self.stop = threading.Event()
        self._news: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.policy = config.policy.policy()
        self._specs = {spec.name: spec for spec in config.specs()}
        self.solvers = {
            name: build_solver(config.solvers[name])
            for name in sorted({spec.solver for spec in self._specs.values()})
        }
        others = OthersChallenges(cluster)
        for solver in self.solvers.values():
            if isinstance(solver, AnswersOthers):
                solver.answer_others(others.value_of)
        self.traffic = Traffic(self.policy.requests_per_second)
        self.sessions = Sessions(self.traffic)
        self.over = threading.Event()
        self.reconciler = self._reconciler()

    def begin(self) -> None:
        """Forget what was done before: by now another process may have worked."""
        self.over = threading.Event()
        if self.stop.is_set():
            self.over.set()
        self.reconciler = self._reconciler()

    def _reconciler(self) -> Reconciler:
        check = self.lease.ensure if self.lease is not None else (lambda: None)
        over = self.over
        target = load_target("oci")

        def connect(
            issuer: IssuerSpec, key: PrivateKey, account_url: str | None
        ) -> CertificateAuthority:
            return FencedAuthority(self.sessions.connect(issuer, key, account_url), check)

        dealings = Dealings(
            self.cluster,
            connect,
            {name: FencedSolver(solver, check) for name, solver in self.solvers.items()},
            self._specs,
            policy=self.policy,
            clock=utc_now,
            sleep=self.sleeper(over),
            patience=self.config.validation_patience,
            look_up_caa=self._look_up_caa,
            by_email=self.external_account,
            issuers=self.config.issuer_specs(),
        )
        applier = Applier(
            self.cluster,
            target,
            dealings,
            policy=self.policy,
            field_manager=self.config.instance_id().field_manager,
            clock=utc_now,
        )
        observer = Observer(
            self.cluster,
            target,
            route=self.config.route,
            timeout=self.config.probe_timeout,
            policy=self.policy,
            take_over_from=self.config.take_over_instances(),
            renewal_checks=dealings.advice.checks,
            ca_troubles=dealings.authorities.outages.troubles,
        )
        return Reconciler(
            self.cluster,
            observer,
            applier,
            dealings,
            self._specs,
            self.policy,
            utc_now,
            over,
            leading=self.lease.valid if self.lease is not None else (lambda: True),
        )

    def external_account(self, issuer: IssuerSpec) -> ExternalAccountKey:
        """Ask for one by e-mail address; raises what `zerossl.external_account` does."""
        return zerossl.external_account(issuer, self.traffic)

    def _look_up_caa(
        self,
        names: Sequence[str],
        identities: Sequence[str],
        account_url: str | None,
        challenge_type: str | None,
    ) -> caa.Advice:
        return caa.advise(names, identities, account_url, challenge_type, self.config.resolvers)

    # --- the lease --------------------------------------------------------------------

    def nudge(self) -> None:
        """Something happened that `leads` or `pause` may wait for."""
        self._news.put(None)

    def pause(self, seconds: float | None) -> None:
        """Wait for a `nudge`, at most *seconds*."""
        try:
            self._news.get(timeout=None if seconds is None else max(0.0, seconds))
            while True:
                self._news.get_nowait()
        except queue.Empty:
            return

    def leads(self, lease: Lease, until: Callable[[], float | None]) -> bool:
        """
        Wait until *lease* is held, and Secrets and Services have been listed since.

        The predecessor may have written what the watches have not delivered yet: nothing that
        exists is to be ordered again, and its repoint is nobody's drift. False if a signal came,
        or *until* has no seconds left.
        """
        told: tuple[str | None, str] = (None, "")
        while not self.stop.is_set():
            left = until()
            if left is not None and left <= 0:
                return False
            if lease.valid():
                try:
                    self.cluster.store.cache.relist()
                    self.cluster.services.cache.relist()
                except CertbatonError as exc:
                    logger().warning("not_listed", error=str(exc))
                    self.pause(min(1.0, left or 1.0))
                    continue
                if lease.valid():
                    return True
            news = (lease.problem, lease.holder)
            if news != told:
                told = news
                if lease.problem is not None:
                    logger().warning("lease_trouble", error=lease.problem)
                elif lease.holder not in ("", lease.identity):
                    logger().info("standing_by", holder=lease.holder)
            self.pause(left)
        return False

    def sleeper(self, over: threading.Event) -> Callable[[float], bool]:
        """Give a sleep that is False, at once, past the deadline, and when *over* is set."""

        def sleep(seconds: float) -> bool:
            if self._deadline and utc_now() + timedelta(seconds=seconds) > self._deadline:
                return False
            return not over.wait(seconds)

        return sleep

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

    def on_signals(self, code: int, leave: Callable[[int], None] = leaving.leave) -> None:
        """
        SIGTERM and SIGINT end the current write, not the whole order: none begins after it.

        Nor does a request to a CA, and one that runs is abandoned after `leaving.REQUEST_GRACE`.
        A process that still runs after `leaving.LEAVE_AFTER` leaves with exit *code*.
        """

        def end() -> None:
            if self.lease is not None:
                self.lease.finish()
            self.stop.set()
            self.over.set()
            self.traffic.close(leaving.REQUEST_GRACE.total_seconds())
            self.nudge()

        leaving.on_signals(end, code, go=leave)
