"""
SIGTERM, and the loss of the Lease: waits end at once, nothing begins, and nothing hangs for ever.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from certbaton import daemon as daemon_module
from certbaton import leaving
from certbaton.cluster import Cluster, FencedApi, Kind, Lease, NotLeading
from certbaton.config import parse
from certbaton.daemon import Turns
from certbaton.errors import CaUnavailable, Stopping
from certbaton.model import ExternalAccountSpec, IssuerSpec, KeyType
from certbaton.pki import PrivateKey
from certbaton.reconcile import Report
from certbaton.wiring import Daemon
from fakes.ca import DIRECTORY
from fakes.kube import FakeApi
from loop.world import INSTANCE

PATIENCE = 10.0


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Give the signals back."""
    kept = {number: signal.getsignal(number) for number in leaving.SIGNALS}
    yield
    signal.set_wakeup_fd(-1)
    for number, handler in kept.items():
        signal.signal(number, handler)


def a_lease(server: FakeApi) -> Lease:
    """One that is held."""
    lease = Lease(server, INSTANCE, identity="me")
    lease.campaign()
    lease.step()
    assert lease.valid()
    return lease


def a_daemon(lease: Lease, server: FakeApi) -> Daemon:
    """The parts of a process without any certificate."""
    cluster = Cluster(FencedApi(server, lease.ensure), INSTANCE, ())
    config = parse("{}", {"CERTBATON_RELEASE": "certbaton", "CERTBATON_NAMESPACE": "certbaton"})
    return Daemon(config, cluster, lease)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_after_the_signal_no_wait_goes_on_and_no_write_begins(number: int) -> None:
    """The Lease is held all the same, until what runs has ended."""
    server = FakeApi()
    lease = a_lease(server)
    daemon = a_daemon(lease, server)
    daemon.on_signals(0, leave=lambda code: None)
    waited: list[bool] = []
    waiting = threading.Thread(
        target=lambda: waited.append(daemon.sleeper(daemon.over)(PATIENCE)), daemon=True
    )
    waiting.start()
    before = server.all(Kind.SECRET)
    os.kill(os.getpid(), number)
    waiting.join(PATIENCE / 2)
    assert waited == [False], "the wait for the CA goes on"
    assert daemon.stop.is_set()
    with pytest.raises(NotLeading, match="ends"):
        daemon.cluster.api.create(Kind.SECRET, "certbaton", {"metadata": {"name": "a"}})
    assert server.all(Kind.SECRET) == before
    assert lease.valid()


def test_after_the_signal_no_request_to_a_ca_begins() -> None:
    """Not even one that only reads: the answer would be for nobody."""
    server = FakeApi()
    daemon = a_daemon(a_lease(server), server)
    daemon.on_signals(0, leave=lambda code: None)
    key = PrivateKey.generate(KeyType.EC_P256)
    nobody = IssuerSpec("ca", "http://127.0.0.1:1/directory")
    with pytest.raises(CaUnavailable, match="refused"):
        daemon.sessions.connect(nobody, key, None).directory()
    os.kill(os.getpid(), signal.SIGTERM)
    assert daemon.traffic.closed.wait(PATIENCE)
    with pytest.raises(Stopping, match="the process is ending"):
        daemon.sessions.connect(nobody, key, None).directory()


def test_after_the_signal_no_external_account_is_asked_for() -> None:
    """ZeroSSL's API is no ACME server, and its requests end as all others do."""
    server = FakeApi()
    daemon = a_daemon(a_lease(server), server)
    daemon.on_signals(0, leave=lambda code: None)
    api = ExternalAccountSpec(api="http://127.0.0.1:1/eab")
    zero = IssuerSpec("zerossl", DIRECTORY, email="ops@example.com", external_account=api)
    ask = daemon.reconciler._dealings.accounts._by_email
    with pytest.raises(CaUnavailable, match="refused"):
        ask(zero)
    os.kill(os.getpid(), signal.SIGTERM)
    assert daemon.traffic.closed.wait(PATIENCE)
    with pytest.raises(Stopping, match="the process is ending"):
        ask(zero)


class Held:
    """In the place of `Daemon`: one certificate whose turn waits for `over`, or for ever."""

    def __init__(self, *, hangs: bool = False) -> None:
        self.stop, self.over = threading.Event(), threading.Event()
        self.running, self.free = threading.Event(), threading.Event()
        self.hangs = hangs
        self.config = SimpleNamespace(workers=2)
        self.policy = SimpleNamespace(backstop=timedelta(hours=1))
        self.reconciler = self
        self.ended: list[bool] = []

    def begin(self) -> None: ...

    def pause(self, seconds: float | None) -> None:
        assert self.running.wait(PATIENCE)
        self.on_pause()

    def on_pause(self) -> None:
        """What happens while it leads."""

    def certificates(self) -> tuple[str, ...]:
        return ("shop",)

    def turn(self, name: str) -> Report:
        self.running.set()
        self.ended.append((self.free if self.hangs else self.over).wait(PATIENCE))
        return Report(name)


class HeldLease:
    """In the place of `Lease`."""

    identity, problem = "me", None
    held = True

    def valid(self) -> bool:
        return self.held

    def sentence(self) -> str:
        return "the other one holds it"


def lead(held: Held, lease: HeldLease) -> bool:
    return Turns(cast(Any, held)).lead(cast(Any, lease))


def test_when_the_lease_is_lost_a_turn_that_waits_ends_at_once() -> None:
    """And all has ended before it campaigns again."""
    held, lease = Held(), HeldLease()

    def lose() -> None:
        lease.held = False

    held.on_pause = lose  # type: ignore[method-assign]
    assert lead(held, lease)
    assert held.ended == [True]


def test_a_turn_that_hangs_is_left_after_the_grace_of_a_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """False: it has not ended, so the Lease is not given up."""
    monkeypatch.setattr(daemon_module, "REQUEST_GRACE", timedelta(milliseconds=50))
    held = Held(hangs=True)
    held.on_pause = held.stop.set  # type: ignore[method-assign]
    try:
        assert not lead(held, HeldLease())
        assert held.ended == []
    finally:
        held.free.set()


HANGING = """
import sys, threading, time
from datetime import timedelta
from certbaton.leaving import on_signals
on_signals(lambda: print("asked", flush=True), 6, timedelta(seconds=0.2))
threading.Thread(target=time.sleep, args=(60,)).start()
print("there", flush=True)
threading.Event().wait()
"""


@pytest.mark.parametrize("stopped", [False, True], ids=["that runs", "that was stopped"])
def test_a_process_that_cannot_end_leaves_all_the_same(stopped: bool) -> None:
    """The interpreter waits for its threads for ever, and its main thread for a lock."""
    with subprocess.Popen([sys.executable, "-c", HANGING], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"there\n"
        if stopped:
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        process.send_signal(signal.SIGTERM)
        if stopped:
            process.send_signal(signal.SIGCONT)
        try:
            assert process.wait(PATIENCE) == 6
            assert process.stdout.readline() == b"asked\n"
        finally:
            process.kill()


def test_other_signals_end_nothing() -> None:
    """They may wake it, and that is all."""
    left = threading.Event()
    leaving.on_signals(left.set, 0, go=lambda code: None)
    before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert not left.wait(0.1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert left.wait(PATIENCE)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_both_waits_together_are_far_below_what_a_pod_is_given() -> None:
    """The chart's default is held against it in `chart/test_chart_render.py`."""
    assert leaving.REQUEST_GRACE < leaving.LEAVE_AFTER <= timedelta(seconds=15)
