"""A CA that is slow, and many who want something of it: nobody waits for long, and none in vain."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from certbaton.errors import CaUnavailable
from certbaton.model import IssuerSpec
from certbaton.slots import LATE, Slots
from fakes.ca import DIRECTORY
from loop.world import MINUTE, SECOND, World, a_spec, settle

OTHER = "https://other.test/directory"
CA = "https://ca.test/directory"


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2027, 3, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def test_whoever_waits_longest_is_next() -> None:
    """In the order of coming, although nobody's thread stands in line."""
    clock = Clock()
    slots = Slots(1, clock)
    with slots.taken(CA, "first") as wait:
        assert wait is None and not slots.wanted(CA)
        for name in ("second", "third"):
            with slots.taken(CA, name) as wait:
                assert wait is not None
        assert slots.wanted(CA)
    with slots.taken(CA, "third") as wait:
        assert wait is not None, "the second was here before"
    with slots.taken(CA, "second") as wait:
        assert wait is None
    with slots.taken(CA, "third") as wait:
        assert wait is None


def test_who_has_begun_goes_before_all_who_have_not() -> None:
    """However long they have waited: a fleet that begins all its orders first ends none in time."""
    slots = Slots(1, Clock())
    with slots.taken(CA, "first"):
        for name in ("second", "third"):
            with slots.taken(CA, name) as wait:
                assert wait is not None
        for name in ("begun", "begun later"):
            with slots.taken(CA, name, begun=True) as wait:
                assert wait is not None
    for name, begun in (("second", False), ("begun later", True)):
        with slots.taken(CA, name, begun=begun) as wait:
            assert wait is not None, name
    for name, begun in (("begun", True), ("begun later", True), ("second", False)):
        with slots.taken(CA, name, begun=begun) as wait:
            assert wait is None, name


def test_an_order_that_is_open_is_ended_before_others_begin() -> None:
    """It comes back to its slot, although another certificate has waited for it meanwhile."""
    world = World(a_spec("one", "one"), a_spec("two"))
    world.policy = replace(world.policy, orders_at_a_time=1)
    process = world.process()
    world.ca.fail("finalize", CaUnavailable("no route"))
    process.turn("one")
    slots = process.dealings.authorities.orders
    world.now += MINUTE
    with slots.taken(DIRECTORY, "somebody"), slots.taken(DIRECTORY, "two") as wait:
        assert wait is not None
    process.turn("one")
    assert len(world.ca.issued) == 1


def test_nothing_is_made_for_an_order_before_there_is_room_for_it() -> None:
    """Of thousands each would make its key, look CAA up and write its Journal at once."""
    world = World(a_spec("one"), a_spec("two"))
    world.policy = replace(world.policy, orders_at_a_time=1)
    process = world.process()
    settle(world, process)
    slots = process.dealings.authorities.orders
    asked = len(world.caa_asked)
    with slots.taken(DIRECTORY, "somebody"):
        report = process.turn("two")
        assert any("at work with" in wait.what for wait in report.waits) and not report.failed
        assert process.cluster.store.journal("two") is None and len(world.caa_asked) == asked
    settle(world, process, "two")
    assert len(world.ca.issued) == 2


def test_who_does_not_come_back_loses_his_place() -> None:
    """A certificate that left the configuration holds up nobody."""
    clock = Clock()
    slots = Slots(1, clock)
    with slots.taken(CA, "first"), slots.taken(CA, "gone") as wait:
        assert wait is not None
    clock.now += wait + LATE + timedelta(seconds=1)
    with slots.taken(CA, "third") as wait:
        assert wait is None


def test_the_farther_back_the_later_one_asks_again() -> None:
    """Thousands that wait must not ask once a second each."""
    slots = Slots(4, Clock())
    waits = []
    held = [slots.taken(CA, f"h{number}") for number in range(4)]
    for each in held:
        each.__enter__()
    for number in range(400):
        with slots.taken(CA, f"w{number}") as wait:
            waits.append(wait)
    assert waits[0] == timedelta(seconds=1) and waits[-1] == timedelta(minutes=1)
    for each in held:
        each.__exit__(None, None, None)


def test_a_slot_is_given_back_whatever_happens() -> None:
    """An error of whoever held it is not his successors'."""
    slots = Slots(1, Clock())
    try:
        with slots.taken(CA, "one"):
            raise ValueError
    except ValueError:
        pass
    with slots.taken(CA, "two") as wait:
        assert wait is None


def test_an_order_that_only_waits_lets_others_go_on() -> None:
    """After ten seconds of it; it comes back to its order, and asks for no other one."""
    world = World(a_spec("one", "one"), a_spec("two"))
    world.policy = replace(world.policy, orders_at_a_time=1)
    world.ca.validation_time = 3 * MINUTE
    process = world.process()
    slots = process.dealings.authorities.orders
    began = world.now

    def wanted() -> None:
        with slots.taken(DIRECTORY, "two") as wait:
            assert wait is not None

    world.ca.before = lambda request: wanted() if request == "challenge" else None
    process.turn("one")
    assert 10 * SECOND <= world.now - began < 25 * SECOND
    world.ca.before = lambda request: None
    settle(world, process, turns=60)
    settle(world, process, "two", turns=60)
    assert world.ca.calls.count("newOrder") == 2 and len(world.ca.issued) == 2


def test_a_ca_that_hangs_holds_no_more_than_its_slots() -> None:
    """Other certificates' turns are over at once, and those at another CA are issued."""
    specs = [a_spec(f"c{number}") for number in range(6)]
    there = [replace(spec, issuer=IssuerSpec("other", OTHER)) for spec in specs[4:]]
    world = World(*specs[:4], *there)
    world.policy = replace(world.policy, orders_at_a_time=2)
    other = world.add_ca(OTHER)
    process = world.process()
    process.turn("c4")
    process.turn("c0")
    assert len(world.ca.issued) == len(other.issued) == 1
    hangs, both = threading.Event(), threading.Barrier(3, timeout=20)

    def before(request: str) -> None:
        if request == "newOrder":
            both.wait()
            hangs.wait(20)

    world.ca.before = before
    world.now += 62 * 24 * 60 * MINUTE
    process.cluster.refresh()
    with ThreadPoolExecutor(4) as pool:
        stuck = [pool.submit(process.reconciler.turn, name) for name in ("c0", "c1")]
        both.wait()
        for name in ("c2", "c3"):
            report = process.reconciler.turn(name)
            assert any("at work with" in wait.what for wait in report.waits), report
        assert process.reconciler.turn("c5").failed == []
        assert len(other.issued) == 2
        hangs.set()
        assert [each.result(20).failed for each in stuck] == [[], []]
    world.ca.before = lambda request: None
    assert len(world.ca.issued) == 3
