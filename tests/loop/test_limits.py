"""Limits of our own, through the loop: no bug, no loop and no deletion burns the CA's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from certbaton.cluster import Kind
from certbaton.cluster.contract import Obj
from certbaton.errors import ClusterUnavailable
from certbaton.model import ObjectRef, Policy
from fakes.kube import FakeApi
from loop.world import DAY, INSTANCE, MINUTE, SECOND, Process, World, a_spec

HOUR = 60 * MINUTE
ONE = a_spec("one", "one")
JOURNAL = ObjectRef(INSTANCE.namespace, f"journal.one.{INSTANCE}")

Which = Callable[[ObjectRef, Obj], bool]


def journals(ref: ObjectRef, obj: Obj) -> bool:
    return ref.name.startswith("journal.")


def accounts(ref: ObjectRef, obj: Obj) -> bool:
    return ref.name.startswith("account.")


def versions(ref: ObjectRef, obj: Obj) -> bool:
    return obj.get("type") == "kubernetes.io/tls"


def both(ref: ObjectRef, obj: Obj) -> bool:
    return journals(ref, obj) or versions(ref, obj)


def delete(world: World, which: Which) -> int:
    """Somebody deletes Secrets."""
    found = [ref for ref, obj in world.api.all(Kind.SECRET).items() if which(ref, obj)]
    for ref in found:
        there = world.api.read(Kind.SECRET, ref)["metadata"]
        api = world.api.client("kubectl")
        api.delete(Kind.SECRET, ref, there["uid"], there["resourceVersion"])
    return len(found)


def impatient(world: World) -> Policy:
    """It tries again at once, so that nothing but the limit holds it."""
    return replace(world.policy, back_off=(SECOND,))


def spent(world: World) -> int:
    """Orders that the CA signs or has signed, wherever their certificates are."""
    return sum(order.status in ("processing", "valid") for order in world.ca.orders())


@pytest.mark.parametrize("deleting", [False, True], ids=["as it is", "its Journal deleted"])
def test_three_failed_validations_an_hour(deleting: bool) -> None:
    """The CA forgives five; the back-off alone would allow more."""
    world = World(ONE)
    world.policy = impatient(world)
    world.ca.failed_validation_limit = 0
    world.ca.validate = lambda challenge: "no such record"
    process, end = world.process(), world.now + HOUR
    while world.now < end - 5 * MINUTE:
        process.turn("one")
        world.now += 2 * MINUTE
        if deleting:
            delete(world, journals)
    assert len(world.ca.failed_validations) == 3
    report = process.turn("one")
    assert any("could not be validated 3 times" in wait.what for wait in report.waits)


@pytest.mark.parametrize("which", [journals, accounts], ids=["Journal", "account"])
def test_what_is_deleted_while_the_ca_signs_costs_no_more_than_four(which: Which) -> None:
    """A Journal comes back with its key; an order whose account is gone counts as issued."""
    world = World(ONE)
    world.ca.exact_set_limit, world.ca.reuse_orders = 0, False
    world.ca.issuance_time = 5 * MINUTE  # longer than the patience of one turn
    process, end, deleted = world.process(), world.now + DAY / 2, 0
    while world.now < end:
        process.turn("one")
        if any(order.status == "processing" for order in world.ca.orders()):
            deleted += delete(world, which)
        world.now += 4 * MINUTE
    assert deleted > 0
    assert spent(world) == (1 if which is journals else 4)


@pytest.mark.parametrize("which", [versions, both], ids=["versions", "and the Journal"])
@pytest.mark.parametrize("service", [(), ("one",)], ids=["no Service", "a Service"])
def test_what_is_deleted_every_hour_costs_no_more_than_four(
    which: Which, service: tuple[str, ...]
) -> None:
    """What was issued is remembered, with the versions and without."""
    world = World(a_spec("one", *service))
    world.ca.exact_set_limit = 0
    process = world.process()
    for _ in range(12):
        for _ in range(6):
            process.turn("one")
            world.now += 10 * SECOND
        delete(world, which)
        world.now += HOUR
    assert len(world.ca.issued) <= 4


def test_a_deleted_journal_is_back_before_anything_is_ordered() -> None:
    """While it cannot be written nothing is asked of the CA, and the rest goes on."""
    world = World(ONE)
    process = world.process()
    process.turn("one")
    journal = process.journal("one")
    assert len(journal.orders) == 1
    delete(world, journals)
    world.now += 61 * DAY
    world.fail("create Secret journal", *[ClusterUnavailable("quota")] * 2)
    asked = len(world.ca.calls)
    assert process.turn("one").failed == ["quota"]
    assert len(world.ca.calls) == asked
    world.now += 5 * SECOND
    assert process.turn("one").failed == ["quota"]
    world.now += 5 * SECOND
    report = process.turn("one")
    assert report.failed == [] and report.done[0] == "PutBackJournal"
    assert len(world.ca.issued) == 2
    assert process.journal("one").last_version != journal.last_version


def test_limits_are_counted_over_all_journals() -> None:
    """Two certificates with the same names share what the CA allows for those."""
    names = ("same.example",)
    world = World(a_spec("one", "one", names=names), a_spec("two", "two", names=names))
    world.ca.exact_set_limit = 0
    for name in ("one", "two", "one", "one"):
        process = world.process()  # one that can put nothing back
        process.turn(name)
        delete(world, versions)
        world.now += HOUR
    assert len(world.ca.issued) == 4
    for name in ("one", "two"):
        process = world.process()
        report = process.turn(name)
        assert any("our own limit" in wait.what for wait in report.waits), name
    assert len(world.ca.issued) == 4


def test_failed_validations_are_counted_over_all_journals() -> None:
    """Three of one name in an hour, whoever asked."""
    names = ("same.example",)
    world = World(a_spec("one", "one", names=names), a_spec("two", "two", names=names))
    world.policy = impatient(world)
    world.ca.failed_validation_limit = 0
    world.ca.validate = lambda challenge: "no such record"
    process = world.process()
    for name in ("one", "two") * 5:
        process.turn(name)
        world.now += 2 * MINUTE
    assert len(world.ca.failed_validations) == 3
    assert sorted(len(process.journal(name).failed_validations) for name in ("one", "two")) == [
        1,
        2,
    ]


# --- what is remembered ---------------------------------------------------------------------------


def recorded(world: World, process: Process) -> int:
    return len(process.journal("one").orders)


def another(world: World, process: Process) -> None:
    """The version is deleted where nobody knows it any more: one more is ordered."""
    delete(world, versions)
    process.turn("one")


@pytest.mark.parametrize("days", [7, 30])
def test_records_outlive_the_window_that_they_are_counted_in(days: int) -> None:
    """Whatever `policy.orderLimitWindow` is set to."""
    world = World(ONE)
    world.policy = replace(world.policy, order_limit_window=days * DAY)
    world.ca.exact_set_limit = 0
    for number in range(1, 5):
        process = world.process()
        another(world, process)
        assert recorded(world, process) == number
        world.now += (days * DAY - HOUR) / 4
    process = world.process()
    another(world, process)
    assert recorded(world, process) == 4
    world.now += 3 * DAY
    process.turn("one")
    assert len(world.ca.issued) == 5
    world.now += days * DAY
    another(world, world.process())
    assert recorded(world, process) < 5, "and not for ever"


def test_a_clock_that_runs_ahead_makes_nothing_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """The API server's decides what is old; without a certificate orders go on meanwhile."""
    world = World(ONE)
    world.ca.exact_set_limit = 0
    for _ in range(3):
        process = world.process()
        another(world, process)
    monkeypatch.setattr(FakeApi, "clock_apart", lambda api: -20 * DAY)
    world.now += 20 * DAY
    for _ in range(3):
        process = world.process()
        another(world, process)
    assert len(world.ca.issued) == recorded(world, process) == 4
    (wait,) = [wait for wait in process.turn("one").waits if "our own limit" in wait.what]
    assert 7 * DAY - MINUTE < wait.until - world.now < 7 * DAY, "by this clock"


def test_a_journal_that_is_deleted_counts_for_the_others_too() -> None:
    """Also while it is not back yet: its certificate's turn may come later."""
    names = ("same.example",)
    world = World(a_spec("one", "one", names=names), a_spec("two", "two", names=names))
    world.policy = replace(world.policy, order_limit=1)
    process = world.process()
    process.turn("one")
    delete(world, journals)
    report = process.turn("two")
    assert any("our own limit" in wait.what for wait in report.waits)
    assert len(world.ca.issued) == 1
