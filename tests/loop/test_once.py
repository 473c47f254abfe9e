"""``certbaton once``: until when it works, and what its exit code says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import cast

import pytest

from certbaton import daemon, telemetry, wiring
from certbaton.cluster import Cluster, Lease
from certbaton.config import parse
from certbaton.daemon import EXIT_FAILED, EXIT_OK, EXIT_WAITING
from certbaton.model import Instance, Wait, WaitKind
from certbaton.reconcile import Report
from certbaton.settings import Config
from fakes.kube import FakeApi

SOON = timedelta(milliseconds=10)
PATIENCE = timedelta(seconds=20)
IN_FLIGHT, LATER, BACK_OFF = WaitKind.IN_FLIGHT, WaitKind.LATER, WaitKind.BACK_OFF


def a_report(name: str, *kinds: WaitKind, within: timedelta = SOON) -> Report:
    """What a turn came to: it waits for these."""
    until = datetime.now(UTC) + within
    return Report(name, waits=tuple(Wait(f"{kind} of {name}", until, kind) for kind in kinds))


class Scripted:
    """In the place of `Daemon`: each certificate has a list of what its turns come to."""

    def __init__(self, **turns: list[list[WaitKind]]) -> None:
        self.turns = turns
        self.counted: dict[str, int] = dict.fromkeys(turns, 0)
        self.stop = threading.Event()
        self.over = threading.Event()
        self.changed = threading.Event()
        self.reconciler = self
        self.cluster = SimpleNamespace(
            complete=True,
            problems=lambda: ("Secrets: 403",),
            start=lambda changed: None,
            stop=lambda: None,
        )

    def certificates(self) -> tuple[str, ...]:
        return tuple(self.turns)

    def turn(self, name: str) -> Report:
        number = self.counted[name]
        self.counted[name] += 1
        script = self.turns[name]
        return a_report(name, *script[min(number, len(script) - 1)])

    @contextmanager
    def solving(self) -> Iterator[None]:
        yield

    def on_signals(self, code: int) -> None: ...

    def begin(self) -> None: ...

    def nudge(self) -> None:
        self.changed.set()

    def pause(self, seconds: float) -> None:
        self.changed.wait(seconds)
        self.changed.clear()

    def leads(self, lease: ScriptedLease, left: Callable[[], float]) -> bool:
        lease.held = lease.answers.pop(0) if lease.answers else True
        return lease.held


class ScriptedLease:
    """In the place of `Lease`: *answers* are what the attempts to get it come to, then it is."""

    def __init__(self, *answers: bool, problem: str | None = None) -> None:
        self.answers = list(answers)
        self.problem = problem
        self.held = False
        self.released = False

    def valid(self) -> bool:
        return self.held

    def sentence(self) -> str:
        return "the other one holds it"

    def start(self, nudge: Callable[[], None]) -> None: ...

    def campaign(self) -> None: ...

    def stop(self) -> None: ...

    def release(self) -> bool:
        self.held, self.released = False, True
        return True


def once(
    monkeypatch: pytest.MonkeyPatch,
    scripted: Scripted,
    timeout: timedelta = PATIENCE,
    lease: ScriptedLease | None = None,
) -> int:
    monkeypatch.setattr(daemon, "Daemon", lambda config, cluster, lease, deadline: scripted)
    config = cast(Config, SimpleNamespace(workers=2))
    lease = lease or ScriptedLease()
    code = daemon.once(config, cast(Cluster, scripted.cluster), cast(Lease, lease), timeout)
    assert lease.released or not scripted.cluster.complete
    return code


VERDICTS: dict[str, tuple[dict[str, list[list[WaitKind]]], int, dict[str, int]]] = {
    "nothing is configured": ({}, EXIT_OK, {}),
    "nothing is left": ({"one": [[]]}, EXIT_OK, {"one": 1}),
    "what is due later is no wait": ({"one": [[LATER]]}, EXIT_OK, {"one": 1}),
    "a wait in flight is followed to its end": (
        {"one": [[IN_FLIGHT], [IN_FLIGHT, LATER], [LATER]]},
        EXIT_OK,
        {"one": 3},
    ),
    "only whoever waits gets another turn": (
        {"one": [[LATER]], "two": [[IN_FLIGHT], []]},
        EXIT_OK,
        {"one": 1, "two": 2},
    ),
    "a back-off is a failure, and not waited for": (
        {"one": [[BACK_OFF]]},
        EXIT_FAILED,
        {"one": 1},
    ),
    "a failure of one does not end the other's work": (
        {"one": [[BACK_OFF]], "two": [[IN_FLIGHT], [IN_FLIGHT], []]},
        EXIT_FAILED,
        {"one": 1, "two": 3},
    ),
    "a back-off beside a wait in flight is followed, and may end": (
        {"one": [[BACK_OFF, IN_FLIGHT], []]},
        EXIT_OK,
        {"one": 2},
    ),
}


@pytest.mark.parametrize(("turns", "code", "counted"), VERDICTS.values(), ids=VERDICTS)
def test_verdict(
    monkeypatch: pytest.MonkeyPatch,
    turns: dict[str, list[list[WaitKind]]],
    code: int,
    counted: dict[str, int],
) -> None:
    """0: nothing left; 1: something failed; only waits in flight are followed."""
    scripted = Scripted(**turns)
    assert once(monkeypatch, scripted) == code
    assert scripted.counted == counted
    assert scripted.stop.is_set(), "and nothing goes on behind it"


def test_still_waiting_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """6, and after the timeout, not before."""
    began = datetime.now(UTC)
    timeout = timedelta(milliseconds=200)
    assert once(monkeypatch, Scripted(one=[[IN_FLIGHT]]), timeout) == EXIT_WAITING
    assert datetime.now(UTC) - began >= timeout


def test_a_failure_outweighs_a_wait_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """1 before 6."""
    scripted = Scripted(one=[[BACK_OFF]], two=[[IN_FLIGHT]])
    assert once(monkeypatch, scripted, timedelta(milliseconds=100)) == EXIT_FAILED


def test_a_stop_ends_it_with_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal: what was not ended does not pass for done."""

    class Stopped(Scripted):
        def turn(self, name: str) -> Report:
            self.stop.set()
            return super().turn(name)

    stopped = Stopped(one=[[IN_FLIGHT]])
    assert once(monkeypatch, stopped) == EXIT_WAITING
    assert stopped.counted == {"one": 1}


def test_a_change_in_the_cluster_ends_a_wait_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait of hours is over when a watch tells something."""

    class Changing(Scripted):
        def turn(self, name: str) -> Report:
            self.counted[name] += 1
            if self.counted[name] == 2:
                return a_report(name)
            threading.Timer(0.05, self.changed.set).start()
            return a_report(name, IN_FLIGHT, within=timedelta(hours=1))

    changing = Changing(one=[])
    assert once(monkeypatch, changing) == EXIT_OK
    assert changing.counted == {"one": 2}


def test_a_cluster_that_cannot_be_read_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was looked at, so nothing is known to be well."""
    scripted = Scripted(one=[[]])
    scripted.cluster.complete = False
    assert once(monkeypatch, scripted, timedelta(milliseconds=100)) == EXIT_FAILED
    assert scripted.counted == {"one": 0}


def test_another_process_that_works_is_waited_for_and_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """6, and nothing was touched."""
    telemetry.configure("warning", "json")
    scripted = Scripted(one=[[]])
    try:
        assert once(monkeypatch, scripted, lease=ScriptedLease(False)) == EXIT_WAITING
    finally:
        telemetry.configure("critical", "json")
    assert scripted.counted == {"one": 0}
    assert "another process works: the other one holds it" in capsys.readouterr().out


def test_a_lease_that_may_not_be_taken_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """1: a person has to give it the right."""
    lease = ScriptedLease(False, problem="certbaton is not allowed to update leases")
    assert once(monkeypatch, Scripted(one=[[]]), lease=lease) == EXIT_FAILED


def test_a_lease_that_is_lost_midway_is_taken_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """And only whoever had not ended goes on."""
    lease = ScriptedLease()

    class Losing(Scripted):
        def turn(self, name: str) -> Report:
            if name == "two":
                lease.held = False
            return super().turn(name)

    losing = Losing(one=[[]], two=[[IN_FLIGHT], []])
    assert once(monkeypatch, losing, lease=lease) == EXIT_OK
    assert losing.counted == {"one": 1, "two": 2}


def test_an_order_is_followed_to_the_deadline_and_no_longer() -> None:
    """What takes the CA longer is left to the Journal: the turn ends, the exit code is 6."""
    cluster = Cluster(FakeApi(), Instance("certbaton", "certbaton"), [])
    soon = datetime.now(UTC) + timedelta(seconds=30)
    over = threading.Event()
    sleep = wiring.Daemon(parse("", {}), cluster, None, soon).sleeper(over)
    assert sleep(0)
    assert not sleep(60), "and it did not sleep"
    over.set()
    assert not sleep(0)
    endless = wiring.Daemon(parse("", {}), cluster).sleeper(threading.Event())
    assert endless(0), "run has no deadline"


UNUSED = """
issuers:
  left:
    directory: https://left.test/directory
    caBundle: /etc/certbaton/ca/left.pem
    proxy: http://proxy.test:3128
    rehearsal: https://stage.test/directory
"""


@pytest.mark.parametrize(
    "directory", ["https://left.test/directory", "https://stage.test/directory"]
)
def test_a_ca_that_no_certificate_names_any_more_is_reached_as_it_was(directory: str) -> None:
    """An order may be open there, and be awaited or dropped; without its roots it never could."""
    cluster = Cluster(FakeApi(), Instance("certbaton", "certbaton"), [])
    made = wiring.Daemon(parse(UNUSED, {}), cluster)
    issuer = made.reconciler._dealings.authorities.issuer(directory)
    assert (issuer.ca_bundle, issuer.proxy) == (
        "/etc/certbaton/ca/left.pem", "http://proxy.test:3128"
    )  # fmt: skip
