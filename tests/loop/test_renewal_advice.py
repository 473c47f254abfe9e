"""Renewal information: asked for, followed, noted on the version, and never in the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from certbaton import telemetry
from certbaton.errors import CaUnavailable, ClusterUnavailable, PermanentError, RateLimited
from certbaton.model import Leaf, RenewalAnswer, RenewalInfo
from loop.world import DAY, MINUTE, NOW, SECOND, Process, World, a_spec, settle

ONE = a_spec("one", "one")
HOUR = 60 * MINUTE
PAGE = "https://ca.test/why"
Answer = Callable[[Leaf], RenewalAnswer | Exception | None]


def a_world(answer: Answer) -> tuple[World, Process]:
    world = World(ONE)
    world.ca.resources |= {"renewalInfo"}
    world.ca.advise = answer
    process = world.process()
    settle(world, process)
    return world, process


def in_the_future(leaf: Leaf) -> RenewalAnswer:
    start = leaf.not_before + 50 * DAY
    return RenewalAnswer(start, start + DAY, None, 6 * HOUR)


def info_of(process: Process) -> RenewalInfo | None:
    process.cluster.refresh()
    return process.cluster.store.versions("one")[-1].renewal_info


def asked(world: World) -> int:
    return world.ca.calls.count("renewalInfo")


def test_a_window_is_noted_on_the_version_and_followed() -> None:
    """The renewal falls into it, at a moment that does not change."""
    world, process = a_world(in_the_future)
    begin = world.ca.issued[0].at
    info = info_of(process)
    assert info is not None and info.end - info.start == DAY
    while len(world.ca.issued) == 1:
        report = process.turn("one")
        assert report.next_at is not None
        world.now = max(world.now + SECOND, report.next_at)
    assert 50 * DAY <= world.ca.issued[1].at - begin <= 51 * DAY
    assert world.ca.issued[1].at.microsecond != 0 or world.ca.issued[1].at > begin + 50 * DAY


def test_it_is_asked_for_as_the_ca_says_and_written_only_when_it_changes() -> None:
    """Six hours here; the same answer costs the cluster nothing and nobody a line."""
    world, process = a_world(in_the_future)
    count = asked(world)
    writes: list[str] = []
    world.watch = lambda what: writes.append(what) if what.startswith("merge") else None
    world.now += 5 * HOUR
    assert process.turn("one").done == []
    assert asked(world) == count
    world.now += HOUR
    assert process.turn("one").done == []
    assert asked(world) == count + 1 and writes == []
    world.ca.advise = lambda leaf: replace(in_the_future(leaf), end=leaf.not_before + 53 * DAY)
    world.now += 6 * HOUR
    assert process.turn("one").done == ["CheckRenewalInfo"]
    assert len(writes) == 1


def test_a_new_process_asks_at_once() -> None:
    """When to ask next is in memory only."""
    world, _ = a_world(in_the_future)
    count = asked(world)
    world.process().turn("one")
    assert asked(world) == count + 1


def test_a_window_in_the_past_acts_within_minutes_and_twice_a_day_at_most() -> None:
    """A CA that asks for every new certificate to be renewed at once."""
    world, process = a_world(
        lambda leaf: RenewalAnswer(
            leaf.not_before - 2 * DAY, leaf.not_before - DAY, PAGE, timedelta(minutes=1)
        )
    )
    began = world.ca.issued[0].at
    while world.now < began + 3 * DAY:
        report = process.turn("one")
        assert report.next_at is not None
        world.now = max(world.now + SECOND, min(report.next_at, world.now + HOUR))
    times = [(each.at - began) / DAY for each in world.ca.issued]
    assert times[1] < 1 / 24
    for day in range(3):
        assert sum(day <= at < day + 1 for at in times[1:]) <= 2, times


def test_an_explanation_is_told_once() -> None:
    """In the log, and as an Event on the Services; again when its address changes."""
    telemetry.configure("info", "json")
    try:
        with capture_logs() as log:
            world, process = a_world(
                lambda leaf: replace(in_the_future(leaf), explanation_url=PAGE)
            )
    finally:
        telemetry.configure("critical", "json")
    (line,) = [line for line in log if line["event"] == "renewal_info"]
    assert line["explanation"] == PAGE and "2027-04-20T" in line["window"]
    told = [each for each in world.events() if each == "CertificateRenewalAdvised"]
    assert len(told) == 1
    assert any(PAGE in note for note in process.turn("one").notes)
    world.ca.advise = lambda leaf: replace(
        in_the_future(leaf), explanation_url=PAGE, end=leaf.not_before + 52 * DAY
    )
    world.now += 6 * HOUR
    process.turn("one")
    assert world.events().count("CertificateRenewalAdvised") == 1
    world.ca.advise = lambda leaf: replace(in_the_future(leaf), explanation_url=PAGE + "2")
    world.now += 6 * HOUR
    process.turn("one")
    assert world.events().count("CertificateRenewalAdvised") == 2


NO_USE: dict[str, Answer] = {
    "absent": lambda leaf: None,
    "away": lambda leaf: CaUnavailable("no route"),
    "refused": lambda leaf: PermanentError("malformed"),
    "ends before it starts": lambda leaf: RenewalAnswer(
        leaf.not_before + 9 * DAY, leaf.not_before + 8 * DAY, None, None
    ),
}


@pytest.mark.parametrize("answer", NO_USE.values(), ids=NO_USE)
def test_what_is_of_no_use_never_blocks_the_time_rule(answer: Answer) -> None:
    """Two thirds of the lifetime, no failure, and no word against the CA."""
    world, process = a_world(answer)
    assert info_of(process) is None
    while len(world.ca.issued) == 1:
        report = process.turn("one")
        assert report.failed == []
        assert process.dealings.authorities.outages.troubles() == {}
        assert report.next_at is not None
        world.now = max(world.now + SECOND, report.next_at)
    assert 59 * DAY <= world.ca.issued[1].at - world.ca.issued[0].at <= 61 * DAY


def test_trouble_that_may_pass_is_looked_at_again_sooner_and_sooner_less() -> None:
    """A minute, doubled up to six hours; an hour of it costs six looks and not sixty."""
    world, process = a_world(lambda leaf: CaUnavailable("no route"))
    count, began = asked(world), world.now
    while world.now < began + HOUR:
        process.turn("one")
        world.now += MINUTE
    assert 4 <= asked(world) - count <= 6


def test_a_time_that_the_ca_names_with_a_refusal_is_obeyed_in_full() -> None:
    """Longer than any pause of ours; only the renewal itself does not wait for it."""
    until = NOW + 20 * DAY
    world, process = a_world(lambda leaf: RateLimited("slow down", retry_at=until))
    assert asked(world) == 1
    while world.now < until + DAY:
        report = process.turn("one")
        assert not report.failed and report.next_at is not None
        assert asked(world) == 1 or world.now >= until
        world.now = max(world.now + SECOND, report.next_at)
    assert asked(world) > 1 and len(world.ca.issued) == 1
    world.now += 45 * DAY
    settle(world, process)
    assert len(world.ca.issued) == 2


def test_a_window_that_cannot_be_written_is_asked_for_again() -> None:
    """It is followed only when it lies in the cluster."""
    world = World(ONE)
    world.ca.resources |= {"renewalInfo"}
    world.ca.advise = in_the_future
    process = world.process()
    settle(world, process)
    world.ca.advise = lambda leaf: replace(in_the_future(leaf), end=leaf.not_before + 52 * DAY)
    world.fail("merge Secret one-", ClusterUnavailable("503"))
    world.now += 6 * HOUR
    assert process.turn("one").failed == ["503"]
    world.now += MINUTE
    process.turn("one")
    info = info_of(process)
    assert info is not None and info.end - info.start == 2 * DAY


def test_a_ca_without_it_is_asked_for_nothing() -> None:
    """Its directory tells."""
    world = World(ONE)
    process = world.process()
    settle(world, process)
    world.now += DAY
    process.turn("one")
    assert asked(world) == 0
