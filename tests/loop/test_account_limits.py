"""Limits that a CA puts on the account: told once, and held to by all certificates there."""

from __future__ import annotations

from datetime import timedelta

import pytest

from certbaton.model import RenewalAnswer
from fakes.ca import DIRECTORY
from loop.world import DAY, MINUTE, Process, World, a_spec, settle

NAMES = ("one", "two", "three")
THIS_ACCOUNT = "too many new orders (300) from this account in the last 3h0m0s, retry after later"
THESE_NAMES = "too many certificates (5) already issued for this exact set of identifiers"
AFTER = 20 * MINUTE


@pytest.fixture
def world() -> World:
    return World(*(a_spec(name, name) for name in NAMES))


def refuse(world: World, request: str, detail: str, after: timedelta | None = AFTER) -> None:
    """From now on each *request* is refused so."""

    def before(asked: str) -> None:
        if asked == request:
            raise world.ca.refuse(request, 429, "rateLimited", detail, after)

    world.ca.before = before


def turns(process: Process) -> list[str]:
    """One turn of each; what went wrong."""
    return [words for name in NAMES for words in process.turn(name).failed]


@pytest.mark.parametrize(
    ("detail", "after", "requests"),
    [(THIS_ACCOUNT, AFTER, 1), (THESE_NAMES, AFTER, 3), (THIS_ACCOUNT, None, 3)],
    ids=["the account's", "one certificate's", "the account's, without a time"],
)
def test_a_limit_of_the_account_is_met_once(
    world: World, detail: str, after: timedelta | None, requests: int
) -> None:
    """The others are told the same, until the same time, and the CA is not asked again."""
    refuse(world, "newOrder", detail, after)
    process = world.process()
    failed = turns(process)
    assert world.ca.calls.count("newOrder") == requests
    assert len(failed) == 3 and all(detail in words for words in failed)
    if requests == 1:
        ends = {process.journal(name).failures[DIRECTORY].retry_at for name in NAMES}
        assert ends == {world.now + AFTER}
        assert failed[2].endswith("(said of another certificate)")


def test_after_its_time_all_go_on(world: World) -> None:
    """Nothing is left of it."""
    refuse(world, "newOrder", THIS_ACCOUNT)
    process = world.process()
    turns(process)
    world.ca.before = lambda request: None
    world.now += AFTER
    for name in NAMES:
        settle(world, process, name)
    assert len(world.ca.issued) == 3


def test_a_renewal_that_names_its_predecessor_asks_for_itself(world: World) -> None:
    """Let's Encrypt does not count it."""
    world.ca.resources |= {"renewalInfo"}
    process = world.process()
    for name in NAMES:
        settle(world, process, name)
    world.ca.advise = lambda leaf: RenewalAnswer(
        leaf.not_before, leaf.not_before + timedelta(seconds=1), None, None
    )
    refuse(world, "newOrder", THIS_ACCOUNT)
    asked = world.ca.calls.count("newOrder")
    world.now += DAY
    turns(process)
    turns(process)
    assert world.ca.calls.count("newOrder") == asked + 3


def test_a_limit_on_new_accounts_is_no_certificate_s(world: World) -> None:
    """All of them would ask for the same account."""
    refuse(world, "newAccount", "too many registrations (10) from this IP address")
    process = world.process()
    assert len(turns(process)) == 3
    assert world.ca.calls.count("newAccount") == 1


def test_whoever_waits_for_a_limit_of_the_account_does_not_come_to_wait_for_days(
    world: World,
) -> None:
    """The CA lets one in each minute, which is the others' turn again and again."""
    process = world.process()
    refuse(world, "newOrder", THIS_ACCOUNT, MINUTE)
    for _ in range(12):
        turns(process)
        world.now += 12 * MINUTE
    for name in NAMES:
        failure = process.journal(name).failures[DIRECTORY]
        assert failure.retry_at <= world.now
        assert failure.count == 3
