"""Orders whose world changed under them: each ends in the right state by itself."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from certbaton.cluster import Kind
from certbaton.errors import CaUnavailable, ClusterUnavailable, Conflict, SolverNotReady
from certbaton.model import (
    AdvanceOrder,
    ChallengeInfo,
    CloseOrder,
    IssuerSpec,
    ObjectRef,
    OrderRecord,
    Reason,
    StageOrder,
    WaitKind,
)
from certbaton.reconcile import Report
from fakes.ca import DIRECTORY
from loop.world import DAY, INSTANCE, MINUTE, SECOND, Process, World, a_spec, settle

ONE = a_spec("one", "one")
OTHER = "https://other.test/directory"


def interrupted(world: World, at: str, process: Process | None = None) -> Process:
    """A process whose order of ``one`` came as far as the request *at*, which failed."""
    process = process or world.process()
    world.ca.fail(at, CaUnavailable("no route"))
    process.turn("one")
    assert process.journal("one").pending is not None
    return process


# --- what the CA forgets ----------------------------------------------------------------------


@pytest.mark.parametrize("at", ["newOrder", "finalize"])
@pytest.mark.parametrize("restarted", [False, True])
def test_an_account_that_the_ca_forgot(at: str, restarted: bool) -> None:
    """With all its orders: it is made again, with the same key, and the order anew."""
    world = World(ONE)
    process = interrupted(world, at)
    account = process.cluster.store.account(DIRECTORY)
    key = process.cluster.store.account_key(DIRECTORY)
    world.ca.forget()
    if restarted:
        process = world.process()
    began = world.now
    settle(world, process)
    assert world.named("one") is not None
    assert len(world.ca.issued) == 1
    # the failure of before, one that the CA said so, and that's all
    assert world.now - began < 15 * MINUTE
    after = process.cluster.store.account(DIRECTORY)
    assert account and after and account.url != after.url
    same = process.cluster.store.account_key(DIRECTORY)
    assert key and same and key.public_key_sha256 == same.public_key_sha256
    assert restarted or world.answers == {}


def test_an_order_that_the_ca_forgot() -> None:
    """It is closed, counted as a failure, and another one is placed."""
    world = World(ONE)
    process = interrupted(world, "finalize")
    world.ca._orders.clear()
    report = process.turn("one")
    assert report.failed == []  # the failure of before waits
    world.now += 2 * MINUTE
    process.turn("one")
    assert process.journal("one").pending is None
    settle(world, process)
    assert world.named("one") is not None and len(world.ca.issued) == 1


# --- what the configuration forgets -------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "issued"), [("newOrder", 0), ("challenge", 0), ("finalize", 0), ("certificate", 1)]
)
def test_a_certificate_that_left_while_its_order_was_open(at: str, issued: int) -> None:
    """What the CA has signed is fetched, and collected; the rest is dropped, without a failure."""
    world = World(ONE, a_spec("two", "two"))
    interrupted(world, at)
    world.now += 2 * MINUTE
    process = world.process(world.specs[1])
    for _ in range(3):
        report = process.turn("one")
        assert report.failed == []
    assert process.journal("one").pending is None
    assert len(world.ca.issued) == issued
    world.now += 20 * MINUTE
    process.turn("one")
    assert world.versions() == []


@pytest.mark.parametrize(("at", "issued"), [("newOrder", 1), ("challenge", 1), ("certificate", 2)])
def test_names_that_changed_while_an_order_was_open(at: str, issued: int) -> None:
    """The old order is never continued; what it has come to is awaited, and does not fit."""
    world = World(ONE)
    interrupted(world, at)
    world.now += 2 * MINUTE
    process = world.process(a_spec("one", "one", names=("new.example", "one.example")))
    settle(world, process)
    assert [each.names for each in world.ca.issued][-1] == ("new.example", "one.example")
    assert len(world.ca.issued) == issued
    assert world.answers == {}


def test_a_certificate_whose_configuration_comes_back() -> None:
    """Taken out and put back while the CA was signing: the same order, no other certificate."""
    world = World(ONE, a_spec("two", "two"))
    world.ca.issuance_time = timedelta(minutes=10)
    world.process().turn("one")
    left = world.process(world.specs[1])
    assert left.turn("one").failed == []
    assert left.journal("one").pending is not None
    world.now += 20 * MINUTE
    settle(world, world.process())
    assert len(world.ca.issued) == 1


# --- two certificates for the same names --------------------------------------------------------


def test_an_order_that_another_certificate_works_on_is_waited_for() -> None:
    """Let's Encrypt hands the open order out again; its certificate would fit the other's key."""
    names = ("same.example",)
    world = World(a_spec("one", "one", names=names), a_spec("two", "two", names=names))
    process = interrupted(world, "challenge")
    world.now += 2 * MINUTE
    report = process.turn("two")
    assert report.failed == []
    (wait,) = [wait for wait in report.waits if wait.kind is WaitKind.IN_FLIGHT]
    assert wait.what == "the CA hands out an order that another certificate works on"
    assert wait.until == world.now + MINUTE
    world.now += 2 * MINUTE
    settle(world, process, "one")
    settle(world, process, "two")
    assert len(world.ca.issued) == 2
    assert world.named("one") != world.named("two")
    for name in ("one", "two"):
        assert process.journal(name).failure is None


def test_an_order_that_two_are_given_in_one_moment_is_the_first_ones() -> None:
    """Two key types for one name, at the start: the second comes before the first has noted it."""
    names = ("same.example",)
    world = World(a_spec("one", "one", names=names), a_spec("two", "two", names=names))
    process = world.process()
    reports: list[Report] = []

    def meanwhile(what: str) -> None:
        if "journal.one" in what and world.ca.orders() and not reports:
            reports.append(Report("two"))
            reports.append(process.reconciler.turn("two"))

    world.watch = meanwhile
    process.turn("one")
    assert [wait.what for wait in reports[1].waits if wait.kind is WaitKind.IN_FLIGHT] == [
        "the CA hands out an order that another certificate works on"
    ]
    world.now += 2 * MINUTE
    settle(world, process, "one")
    settle(world, process, "two")
    assert len(world.ca.issued) == 2
    for name in ("one", "two"):
        assert process.journal(name).failure is None


# --- other names --------------------------------------------------------------------------------


def test_ip_addresses_come_to_a_service_as_any_names_do() -> None:
    """From the specification through the request and the order to the Secret that is named."""
    names = ("192.0.2.7", "2001:db8::7")
    world = World(a_spec("one", "one", names=names))
    process = world.process()
    settle(world, process)
    (version,) = process.cluster.store.versions("one")
    assert version.leaf is not None and version.leaf.names == names
    assert world.named("one") == str(version.ref)
    assert "CertificateServed" in world.events()


# --- what the CA signs that is of no use --------------------------------------------------------


def test_a_certificate_for_another_key_closes_the_order_and_counts() -> None:
    """It is spent at the CA, so our own limit has to know."""
    world = World(ONE)
    world.ca.backdate = timedelta(days=200)
    report = world.process().turn("one")
    assert len(report.failed) == 1 and "expired" in report.failed[0]
    journal = world.process().journal("one")
    assert journal.pending is None and journal.failure is not None
    assert [record.names for record in journal.orders] == [("one.example",)]
    assert world.versions() == [] and world.answers == {}


def test_a_certificate_that_begins_in_four_minutes_is_waited_for() -> None:
    """The CA's clock is a little ahead of ours: one order, and no deletion of anything."""
    world = World(ONE)
    world.ca.backdate = -4 * MINUTE
    process = world.process()
    for _ in range(3):
        report = process.turn("one")
        assert report.failed == []
    assert len(world.ca.issued) == 1 and world.named("one") is None
    world.now += 4 * MINUTE
    settle(world, process)
    assert len(world.ca.issued) == 1 and world.named("one") is not None


# --- what the cluster refuses or loses ----------------------------------------------------------


def test_a_secret_that_cannot_be_written_costs_no_other_certificate() -> None:
    """The chain lies in the Journal until it can, even where the CA has forgotten the order."""
    world = World(ONE)
    world.fail("create Secret one-", ClusterUnavailable("quota"), ClusterUnavailable("quota"))
    process = world.process()
    assert process.turn("one").failed == ["quota"]
    pending = process.journal("one").pending
    assert pending is not None and pending.chain is not None and pending.certificate_url
    world.ca._orders.clear()
    world.ca._chains.clear()
    settle(world, world.process())
    assert len(world.ca.issued) == 1 and len(world.versions()) == 1


def test_a_pending_key_that_is_gone_closes_the_order() -> None:
    """What the CA would sign could not be used."""
    world = World(ONE)
    process = interrupted(world, "newOrder")
    ref = ObjectRef(INSTANCE.namespace, f"journal.one.{INSTANCE}")
    world.api.merge(Kind.SECRET, ref, {"data": {"tls.key": None}})
    world.now += 2 * MINUTE
    report = process.turn("one")
    assert report.failed == ["its key, or the account's, is gone from the cluster"]
    settle(world, process)
    assert len(world.ca.issued) == 1


def test_a_version_that_the_watch_has_not_delivered_is_found_before_an_order() -> None:
    """A predecessor stored it a moment ago, and its Journal is gone."""
    world = World(ONE)
    late = world.process()
    late.cluster.refresh()
    world.process().turn("one")
    action = StageOrder("one", "", ONE, Reason.DOES_NOT_EXIST, list_first=True)
    before = len(world.ca.issued)
    with pytest.raises(Conflict, match="has not delivered yet"):
        late.dealings.orders.stage(action)
    assert [version.certificate for version in late.cluster.store.versions("one")] == ["one"]
    assert len(world.ca.issued) == before


def test_two_processes_never_stage_two_orders() -> None:
    """The Journal's resourceVersion decides, where one hasn't heard of the other's order."""
    world = World(ONE)
    first, second = world.process(), world.process()
    world.fail("create Secret journal", ClusterUnavailable("503"))
    first.turn("one")
    second.cluster.refresh()
    world.now += 2 * MINUTE
    interrupted(world, "newOrder", first)
    pending = first.journal("one").pending
    action = StageOrder("one", "", ONE, Reason.DOES_NOT_EXIST, list_first=False)
    for _ in range(2):  # also once the cache has learned of it
        with pytest.raises(Conflict):
            second.dealings.orders.stage(action)
    assert first.journal("one").pending == pending


def test_what_was_planned_for_another_order_is_not_done() -> None:
    """The Journal moved on between plan and action: neither the CA nor the Journal is touched."""
    world = World(ONE)
    process = interrupted(world, "newOrder")
    staged = process.journal("one").pending
    assert staged is not None
    world.now += 2 * MINUTE
    interrupted(world, "finalize", process)
    journal = process.journal("one")
    asked = len(world.ca.calls)
    with pytest.raises(Conflict, match="not as it was"):
        process.dealings.orders.advance(AdvanceOrder("one", "", ONE, staged))
    with pytest.raises(Conflict, match="not as it was"):
        process.dealings.orders.close(CloseOrder("one", "", staged, "one-1"))
    assert process.journal("one") == journal
    assert len(world.ca.calls) == asked


def test_what_is_remembered_of_an_order_that_ended() -> None:
    """The version that it ended in, and one record for our own limits; not for ever."""
    world = World(ONE)
    process = world.process()
    process.turn("one")
    journal = process.journal("one")
    assert [f"{INSTANCE.namespace}/{journal.last_version}"] == world.versions()
    assert journal.orders == (OrderRecord(world.now, DIRECTORY, ("one.example",)),)
    assert (journal.pending, journal.failure) == (None, None)
    world.now += 61 * DAY
    process.turn("one")
    journal = process.journal("one")
    assert [record.at for record in journal.orders] == [world.now]
    assert f"{INSTANCE.namespace}/{journal.last_version}" == world.versions()[-1]


# --- answers to challenges ------------------------------------------------------------------------


def test_answers_that_are_not_in_place_yet_are_a_wait() -> None:
    """No failure: when the solver says so, it is looked at again."""
    world = World(ONE)
    process = world.process()
    solver = process.dealings.orders._challenges._solvers["names"]
    tries: list[str] = []

    def ready(challenge: ChallengeInfo) -> None:
        tries.append(challenge.name)
        if len(tries) == 1:
            raise SolverNotReady("not on all name servers", retry_at=world.now + 7 * SECOND)

    solver.ready = ready  # type: ignore[method-assign]
    report = process.turn("one")
    assert report.failed == []
    (wait,) = [item for item in report.waits if item.what == "not on all name servers"]
    assert (wait.kind, wait.until) == (WaitKind.IN_FLIGHT, world.now + 7 * SECOND)
    settle(world, process)
    assert world.named("one") is not None and process.journal("one").failure is None


def test_answers_that_cannot_be_taken_away_close_the_order_in_the_end() -> None:
    """Three tries: a name server that is gone for good must not keep an order open for ever."""
    world = World(ONE)
    process = world.process()
    solver = process.dealings.orders._challenges._solvers["names"]
    tries: list[str] = []

    def clean_up(challenge: ChallengeInfo) -> None:
        tries.append(challenge.name)
        raise SolverNotReady("the name server is gone")

    solver.clean_up = clean_up  # type: ignore[method-assign]
    settle(world, process)
    assert len(tries) == 3
    assert process.journal("one").pending is None and len(world.ca.issued) == 1


def test_an_issuer_that_hangs_holds_up_no_account_of_another() -> None:
    """One at a time works on an account, and who has to wait asks again, and blocks no thread."""
    world = World(ONE)
    two = replace(a_spec("two"), issuer=IssuerSpec("other", OTHER))
    world.add_ca(OTHER)
    process = world.process(ONE, two)
    at_work = process.dealings.authorities.accounts.taken(OTHER, "somebody")
    with at_work as wait:
        assert wait is None
        report = process.turn("two")
        assert [item.what for item in report.waits if item.kind is WaitKind.IN_FLIGHT] == [
            "another certificate works on the account at other"
        ]
        assert "EnsureAccount" in process.turn("one").done
    world.now += 5 * SECOND
    assert "EnsureAccount" in process.turn("two").done
