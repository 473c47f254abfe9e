"""One certificate's turn: what goes wrong, what becomes of it, and when it is tried again."""

from __future__ import annotations

from datetime import timedelta

import pytest

from certbaton.cluster import Kind
from certbaton.cluster.services import TLS_SECRET
from certbaton.errors import (
    CaUnavailable,
    CertbatonError,
    ClusterUnavailable,
    ConfigurationError,
    Conflict,
    PermanentError,
    RateLimited,
)
from certbaton.model import Binding, ObjectRef, ServiceSpec, ServiceState, Wait, WaitKind
from certbaton.reconcile import Report
from certbaton.targets.oci import OciTarget
from fakes.ca import DIRECTORY
from loop.world import DAY, MINUTE, SECOND, World, a_spec

ONE = a_spec("one", "one")
BOTH = ONE, a_spec("two", "two")
PAIR = a_spec("pair", "first", "second")


def waits(report: Report, kind: WaitKind) -> list[Wait]:
    return [wait for wait in report.waits if wait.kind is kind]


def down(count: int = 1) -> list[Exception]:
    return [ClusterUnavailable("the API server says 503")] * count


def test_a_turn_goes_on_until_nothing_is_left_to_do() -> None:
    """From nothing to a served certificate in one turn; then only the renewal is waited for."""
    world = World(ONE)
    report = world.process().turn("one")
    assert report.failed == []
    assert report.done == [
        "EnsureAccount",
        "StageOrder",
        "AdvanceOrder",
        "Repoint",
        "CloseOrder",
        "MarkServed",
    ]
    assert [world.named("one")] == world.versions()
    (wait,) = [each for each in report.waits if "renewal information" not in each.what]
    assert wait.kind is WaitKind.LATER and "due for renewal" in wait.what
    assert report.due is None


# --- trouble --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ClusterUnavailable("the API server says 503"), "the API server says 503"),
        (PermanentError("forbidden"), "forbidden"),
        (ConfigurationError("odd", where="Service shop/one"), "Service shop/one: odd"),
        (ValueError("a secret that nobody should read"), "unexpected ValueError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_trouble_of_one_certificate_is_in_its_report(error: Exception, sentence: str) -> None:
    """Nothing is raised, the wait says when it is tried again, and the other one goes on."""
    world = World(*BOTH)
    process = world.process()
    world.fail("apply Service one", error)
    report = process.turn("one")
    assert report.failed == [sentence]
    (wait,) = waits(report, WaitKind.BACK_OFF)
    assert sentence in wait.what and wait.until == world.now + SECOND
    assert process.turn("two").failed == []
    assert world.named("two") is not None
    world.now += SECOND
    assert process.turn("one").failed == []
    assert world.named("one") is not None


def test_a_refused_service_keeps_neither_the_other_nor_the_order_waiting() -> None:
    """A webhook may refuse one for months: the others must not expire meanwhile."""
    world = World(PAIR)
    world.fail("apply Service first", *[PermanentError("denied the request")] * 2)
    process = world.process()
    report = process.turn("pair")
    assert report.failed == ["denied the request"]
    assert (world.named("first"), world.named("second") is None) == (None, False)
    assert process.journal("pair").pending is None
    # when it is tried again the others wait for it again, and see that it failed again
    world.now += SECOND
    assert process.turn("pair").failed == ["denied the request"]
    world.now += 2 * SECOND
    assert process.turn("pair").failed == []
    assert world.named("first") == world.named("second")


def test_pauses_double_up_to_five_minutes_and_end_with_success() -> None:
    """Of this action only; after a success the first is short again."""
    world = World(ONE)
    process = world.process()
    world.fail("apply Service one", *down(11))
    pauses = []
    for _ in range(11):
        (wait,) = waits(process.turn("one"), WaitKind.BACK_OFF)
        pauses.append((wait.until - world.now).total_seconds())
        assert f"(tried {len(pauses)} times)" in wait.what
        # before its time it is not tried
        assert process.turn("one").failed == []
        world.now = wait.until
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    assert waits(process.turn("one"), WaitKind.BACK_OFF) == []
    gone = {"metadata": {"annotations": {TLS_SECRET: None}}}
    world.api.merge(Kind.SERVICE, ObjectRef("shop", "one"), gone)
    world.fail("apply Service one", *down())
    (wait,) = waits(process.turn("one"), WaitKind.BACK_OFF)
    assert wait.until == world.now + SECOND


def test_no_service_is_changed_before_what_it_named_is_written_down() -> None:
    """A Journal that cannot be written for a moment must not lose what there is to go back to."""
    world = World(ONE)
    before = {"metadata": {"annotations": {TLS_SECRET: "legacy-tls"}}}
    world.api.merge(Kind.SERVICE, ObjectRef("shop", "one"), before)
    process = world.process()
    faults = down()

    def refuse(what: str) -> None:
        if what.startswith(("merge Secret journal", "create Secret journal")) and (
            world.versions() and faults
        ):
            raise faults.pop()

    world.watch = refuse
    assert process.turn("one").failed == ["the API server says 503"]
    assert world.named("one") == "legacy-tls"
    world.now += SECOND
    assert process.turn("one").failed == []
    assert [world.named("one")] == world.versions()
    assert process.journal("one").originals == {"shop/one": "legacy-tls"}


def test_an_event_that_nobody_can_write_stops_nothing() -> None:
    """Hints, ours too."""
    world = World(ONE)
    world.fail("create Event", *[PermanentError("forbidden")] * 9)
    assert world.process().turn("one").failed == []


# --- somebody else writes ---------------------------------------------------------------------


def test_a_conflict_is_looked_at_again_at_once() -> None:
    """No pause, no failure: the same turn ends well."""
    world = World(ONE)
    world.fail("apply Service one", *[Conflict("changed meanwhile")] * 5)
    report = world.process().turn("one")
    assert report.failed == []
    assert world.named("one") is not None


def test_too_many_conflicts_in_a_row_are_a_failure() -> None:
    """Two who write against each other must not keep a thread busy for ever."""
    world = World(ONE)
    world.fail("apply Service one", *[Conflict("changed meanwhile")] * 50)
    report = world.process().turn("one")
    assert report.failed == ["somebody else keeps writing: changed meanwhile"]
    (wait,) = waits(report, WaitKind.BACK_OFF)
    assert wait.until == world.now + SECOND


def test_conflicts_without_end_at_one_service_hold_no_other() -> None:
    """An admission webhook may answer 409 for months: the others must not expire meanwhile."""
    world = World(PAIR)
    world.fail("apply Service first", *[Conflict("says a webhook")] * 500)
    process = world.process()
    for _ in range(3):
        assert process.turn("pair").failed == ["somebody else keeps writing: says a webhook"]
        assert (world.named("first"), [world.named("second")]) == (None, world.versions())
        assert process.journal("pair").pending is None
        world.now += 5 * MINUTE


def test_conflicts_here_and_there_are_none_in_a_row() -> None:
    """What gets on is not given up."""
    world = World(ONE)
    for request in ("create Secret journal", "apply Service one"):
        world.fail(request, *[Conflict("changed meanwhile")] * 4)
    assert world.process().turn("one").failed == []
    assert world.named("one") is not None


def test_after_a_conflict_nothing_is_done_that_was_planned_with_it() -> None:
    """It rests on the same look: the next write is of a new plan."""
    world = World(PAIR, services=["first"])
    world.process().turn("pair")
    world.now += 61 * DAY
    world.add_service("second")
    world.fail("apply Service second", Conflict("changed meanwhile"))
    writes: list[str] = []
    world.watch = lambda what: None if what.startswith(("read", "list")) else writes.append(what)
    assert world.process().turn("pair").failed == []
    assert writes[:2] == ["apply Service second"] * 2


def test_a_service_that_changed_since_it_was_read_is_written_as_it_is_now() -> None:
    """The cache was behind: the port that the user moved is followed."""
    world = World(ONE)
    process = world.process()
    ref = ObjectRef("shop", "one")
    moved = [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 9090}]

    def move(what: str) -> None:
        if what == "apply Service one":
            world.watch = lambda what: None
            world.api.merge(Kind.SERVICE, ref, {"spec": {"ports": moved}})

    world.watch = move
    assert process.turn("one").failed == []
    ports = world.api.read(Kind.SERVICE, ref)["spec"]["ports"]
    assert {port["targetPort"] for port in ports} == {9090}


def test_going_round_in_circles_ends_in_a_sentence() -> None:
    """A Service that is never as it was written: a mistake of ours, and it is said so."""

    class Never(OciTarget):
        def bind(self, state: ServiceState, service: ServiceSpec) -> Binding:
            return Binding(super().bind(state, service).reference, complete=False)

    world = World(ONE)
    world.target = Never()
    report = world.process().turn("one")
    assert report.failed == ["going round in circles; please report it, with the log"]
    assert waits(report, WaitKind.BACK_OFF)


# --- failures of orders -----------------------------------------------------------------------

REFUSALS: dict[str, tuple[str, CertbatonError]] = {
    "the CA refuses the account": ("newAccount", ConfigurationError("invalid contact")),
    "the CA refuses the name": ("newOrder", PermanentError("rejectedIdentifier")),
    "the CA has no room for it": ("finalize", RateLimited("too many")),
    "the certificate cannot be downloaded": ("certificate", PermanentError("unauthorized")),
}


@pytest.mark.parametrize(("request_", "error"), REFUSALS.values(), ids=REFUSALS)
def test_failures_of_orders_stand_in_the_journal(request_: str, error: CertbatonError) -> None:
    """With the time of the next try: a new process knows it, too, and doesn't ask before."""
    world = World(ONE)
    world.ca.fail(request_, error)
    report = world.process().turn("one")
    assert report.failed == [str(error)]
    assert "CertificateFailed" in world.events()
    process = world.process()
    failure = process.journal("one").failures[DIRECTORY]
    assert (failure.count, failure.message) == (1, str(error))
    assert 48 * SECOND <= failure.retry_at - failure.at <= 72 * SECOND
    (wait,) = waits(report, WaitKind.BACK_OFF)
    assert wait.until == failure.retry_at
    asked = len(world.ca.calls)
    assert process.turn("one").failed == []
    assert len(world.ca.calls) == asked
    world.now = failure.retry_at
    assert process.turn("one").failed == []
    assert world.named("one") is not None
    assert process.journal("one").failures == {}
    assert len(world.ca.issued) == 1


def test_failures_in_a_row_are_counted() -> None:
    """And wait longer."""
    world = World(ONE)
    process = world.process()
    for count, meant in enumerate([MINUTE, 10 * MINUTE, 100 * MINUTE, DAY, DAY], start=1):
        world.ca.fail("newOrder", PermanentError("rejectedIdentifier"))
        process.turn("one")
        failure = process.journal("one").failures[DIRECTORY]
        assert failure.count == count
        assert 0.8 * meant <= failure.retry_at - world.now <= 1.2 * meant
        world.now = failure.retry_at


def test_a_time_that_the_ca_named_is_obeyed() -> None:
    """To the second."""
    world = World(ONE)
    until = world.now + timedelta(hours=37)
    world.ca.fail("newOrder", RateLimited("too many", retry_at=until))
    assert world.process().turn("one").next_at == until


def test_a_failed_validation_is_recorded_with_its_name() -> None:
    """The order is closed, and our own limit counts it."""
    world = World(ONE)
    world.ca.validate = lambda challenge: "no such record"
    process = world.process()
    report = process.turn("one")
    assert len(report.failed) == 1 and "one.example: no such record" in report.failed[0]
    journal = process.journal("one")
    assert journal.pending is None and journal.failure is not None
    assert [item.name for item in journal.failed_validations] == ["one.example"]
    assert world.answers == {}


def test_a_failure_that_cannot_be_recorded_pauses_all_the_same() -> None:
    """A Journal that may not be written must not mean that the CA is asked again and again."""
    world = World(ONE)
    process = world.process()
    world.ca.fail("newOrder", CaUnavailable("no route"))
    # key and CSR are written, then nothing more
    writes: list[str] = []

    def refuse(what: str) -> None:
        if what.startswith("merge Secret journal") or (
            what.startswith("create Secret journal") and writes
        ):
            raise PermanentError("forbidden")
        if what.startswith("create Secret journal"):
            writes.append(what)

    world.watch = refuse
    report = process.turn("one")
    assert report.failed == ["no route"]
    (wait,) = waits(report, WaitKind.BACK_OFF)
    assert wait.until > world.now
    asked = len(world.ca.calls)
    process.turn("one")
    assert len(world.ca.calls) == asked


# --- stopping ---------------------------------------------------------------------------------


def test_a_stop_ends_between_two_actions() -> None:
    """The current write is finished, nothing else is begun, and it does not pass for an end."""
    world = World(ONE)
    process = world.process()

    def stop(what: str) -> None:
        if what.startswith("apply Service"):
            process.stop.set()

    world.watch = stop
    report = process.turn("one")
    assert world.named("one") is not None
    assert report.done[-1] == "Repoint"
    assert [wait.what for wait in waits(report, WaitKind.IN_FLIGHT)] == ["stopped midway"]
    assert process.journal("one").pending is not None


def test_a_turn_after_a_stop_does_nothing() -> None:
    """It doesn't say that there is nothing left to do, either."""
    world = World(ONE)
    process = world.process()
    process.stop.set()
    report = process.turn("one")
    assert report.done == [] and world.versions() == []
    assert waits(report, WaitKind.IN_FLIGHT)


# --- what a turn is about ---------------------------------------------------------------------


def test_what_the_cluster_holds_of_former_certificates_gets_turns_too() -> None:
    """Versions and Journals of what left the configuration."""
    world = World(*BOTH)
    process = world.process()
    process.turn("one")
    later = world.process(BOTH[1])
    later.cluster.refresh()
    assert later.reconciler.certificates() == ("one", "two")
    assert later.turn("one").failed == []


def test_planning_touches_nothing() -> None:
    """``certbaton plan``: neither the cluster nor the CA."""
    world = World(ONE)
    process = world.process()
    process.cluster.refresh()
    before = (world.api.all(Kind.SECRET), world.api.all(Kind.SERVICE), list(world.ca.calls))
    assert process.reconciler.plan("one").actions
    assert (world.api.all(Kind.SECRET), world.api.all(Kind.SERVICE), world.ca.calls) == before


def test_a_service_that_is_not_there_is_a_wait() -> None:
    """The certificate is issued all the same, and another one goes on."""
    world = World(*BOTH, services=["two"])
    process = world.process()
    report = process.turn("one")
    assert report.failed == []
    assert [wait.what for wait in waits(report, WaitKind.IN_FLIGHT)] == [
        "Service shop/one is not there"
    ]
    assert process.turn("two").failed == []
    world.add_service("one")
    assert process.turn("one").failed == []
    assert world.named("one") is not None
