"""Several CAs for one certificate: the next one when the first cannot, and the first again."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from certbaton.errors import AccountRefused, PermanentError, RateLimited
from certbaton.model import IssuerSpec
from fakes.ca import DIRECTORY, FakeCa
from loop.world import DAY, MINUTE, Process, World, a_spec, settle

OTHER = "https://other.test/directory"
HOUR = 60 * MINUTE
ONE = replace(a_spec("one", "one"), fallbacks=(IssuerSpec("other", OTHER),))


def a_world() -> tuple[World, FakeCa, Process]:
    world = World(ONE)
    return world, world.add_ca(OTHER), world.process()


def issuer_of(world: World, process: Process) -> str:
    """The CA of the version that the Service names."""
    process.cluster.refresh()
    named = world.named("one")
    (version,) = [each for each in process.cluster.store.versions("one") if str(each.ref) == named]
    return version.directory


def test_with_nothing_valid_there_the_next_one_is_asked_at_once() -> None:
    """One failure is enough; it stays in the Journal until an order ends well, wherever."""
    world, other, process = a_world()
    world.ca.fail("newOrder", PermanentError("rejectedIdentifier"))
    process.turn("one")
    assert (len(world.ca.issued), len(other.issued)) == (0, 1)
    assert issuer_of(world, process) == OTHER
    assert process.journal("one").failures == {}


def test_with_time_left_it_takes_three_failures_over_an_hour() -> None:
    """The back-off of the first one counts meanwhile; another one is not troubled."""
    world, other, process = a_world()
    settle(world, process)
    world.now += 60 * DAY
    settled = [PermanentError("rejectedIdentifier")] * 9
    world.ca.fail("newOrder", *settled)
    failures: list[datetime] = []
    while not other.calls:
        process.turn("one")
        failure = process.journal("one").failures.get(DIRECTORY)
        failures += [failure.at] if failure else []
        last = world.now
        world.now += MINUTE
        assert world.now < world.ca.issued[0].at + 75 * DAY
    assert last - failures[0] >= HOUR and len(set(failures)) >= 3
    assert len(world.ca._faults["newOrder"]) <= 9 - 3


def test_a_refused_account_leads_to_the_next_one_at_once() -> None:
    """However much time is left."""
    world, other, process = a_world()
    settle(world, process)
    world.now += 61 * DAY
    world.ca.fail("newOrder", AccountRefused("the account is deactivated"))
    process.turn("one")
    assert issuer_of(world, process) == OTHER and len(other.issued) == 1


def test_a_limit_beyond_the_time_that_is_left_leads_to_the_next_one() -> None:
    """A Retry-After past *late* is no use."""
    world, other, process = a_world()
    settle(world, process)
    world.now += 61 * DAY
    world.ca.fail("newOrder", RateLimited("too many", retry_at=world.now + 20 * DAY))
    process.turn("one")
    assert issuer_of(world, process) == OTHER and len(other.issued) == 1


def test_each_renewal_begins_with_the_first_one_again() -> None:
    """And a version of the other one fits meanwhile: nothing is issued anew for that."""
    world, other, process = a_world()
    world.ca.fail("newOrder", PermanentError("rejectedIdentifier"))
    settle(world, process)
    world.now += 30 * DAY
    process.turn("one")
    assert (len(world.ca.issued), len(other.issued)) == (0, 1)
    world.now += 32 * DAY
    settle(world, process)
    assert (len(world.ca.issued), len(other.issued)) == (1, 1)
    assert issuer_of(world, process) == DIRECTORY


def test_an_order_that_is_left_is_taken_back() -> None:
    """It was never finalized: its authorizations are deactivated, its answers taken away."""
    world, other, process = a_world()
    world.ca.validation_time = timedelta(days=1)
    process.turn("one")
    assert [order.status for order in world.ca.orders()] == ["pending"]
    world.ca.fail("order", PermanentError("unauthorized"))
    for _ in range(6):
        world.now += 2 * MINUTE
        process.turn("one")
    assert len(other.issued) == 1 and issuer_of(world, process) == OTHER
    assert "deactivateAuthorization" in world.ca.calls
    assert world.answers == {}


def test_an_order_that_may_be_signed_is_awaited_where_it_is() -> None:
    """Whatever fails there meanwhile, the next CA is asked for nothing."""
    world, other, process = a_world()
    world.ca.issuance_time = timedelta(hours=3)
    process.turn("one")
    world.ca.fail("order", *[PermanentError("serverInternal")] * 2)
    for _ in range(60):
        world.now += 4 * MINUTE
        process.turn("one")
    assert other.calls == []
    assert len(world.ca.issued) == 1 and issuer_of(world, process) == DIRECTORY


def test_a_ca_that_is_away_is_passed_over_without_a_word_in_the_journal() -> None:
    """With nothing valid there one request that got no answer is enough."""
    world, other, process = a_world()
    world.away(DIRECTORY)
    settle(world, process)
    assert issuer_of(world, process) == OTHER and len(other.issued) == 1
    assert len(world.ca.calls) == 1


def test_an_order_at_a_ca_that_went_away_is_dropped_and_its_ca_not_asked() -> None:
    """What it does not answer to is left there to expire."""
    world, other, process = a_world()
    world.ca.validation_time = timedelta(days=1)
    process.turn("one")
    world.away(DIRECTORY)
    world.now += 2 * MINUTE
    settle(world, process)
    assert issuer_of(world, process) == OTHER and len(other.issued) == 1
    assert world.answers == {}
