"""
``kill -9`` twice in one story: at a write of the first start, and at one of the second.

Twenty pairs, drawn with a seed, the second moment from the writes that the first death has left;
all pairs are for the crash world over `core` and the soak.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from random import Random

import pytest

from chaos.cases import PROFILES, SHORT_S, Cases
from e2e.harness import KILLED, Ended, until
from e2e.writes import FIRST, RENEWAL
from lab.chaos import ChaosWorld

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

SEED = 7
FIRSTS, RENEWALS = 12, 8


def left(writes: list[str], moment: str) -> list[str]:
    """
    What a start after a death at *moment* has to write at least.

    The Event goes with the process that noted what it tells of.
    """
    when, number = moment.split(":")
    rest = writes[int(number) - (when == "before") :]
    event = writes.index("cluster create Event")
    return rest if len(writes) - len(rest) < event else [w for w in rest if w != writes[event]]


def moments(writes: list[str]) -> list[str]:
    """Before and after each of *writes*."""
    return [f"{when}:{n}" for n in range(1, len(writes) + 1) for when in ("before", "after")]


def pairs() -> dict[str, tuple[str, str]]:
    """The same each time: two moments, with a name that is a release's."""
    dice = Random(SEED)
    found = {}
    for number in range(FIRSTS + RENEWALS):
        kind, writes = ("first", FIRST) if number < FIRSTS else ("renewal", RENEWAL)
        one = dice.choice([moment for moment in moments(writes) if left(writes, moment)])
        two = dice.choice(moments(left(writes, one)))
        found[f"{kind}-{number}-{one}-{two}".replace(":", "-")] = one, two
    return found


class Stories:
    """Every pair's story, under way."""

    def __init__(self, cases: Cases) -> None:
        self.cases = cases
        self.issued = 0
        them = pairs()
        first = [name for name in them if name.startswith("first")]
        renewed = [name for name in them if name.startswith("renewal")]
        self.made = dict(zip(renewed, cases.each(cases.issued, renewed), strict=True))
        self.made |= dict(zip(first, cases.each(cases.make, first), strict=True))
        self.running: dict[str, Future[None]] = {
            name: cases.later(self.live, name, *them[name]) for name in [*first, *renewed]
        }

    def live(self, name: str, one: str, two: str) -> None:
        """Die at *one*, die at *two*, and come to rest."""
        case = self.made[name]
        if name.startswith("renewal"):
            self.cases.due(case)
        for moment in (one, two):
            died = case.certbaton.once(CERTBATON_CRASH_AT=moment)
            assert died.code == KILLED, f"did not die at {moment}: {died}"
        last: list[Ended] = []

        def rests() -> bool:
            last.append(case.certbaton.once())
            return last[-1].code == 0

        until(rests, f"{name} never came to rest: {last}", 60)
        lacks = self.cases.lacks(case)
        assert lacks is None, f"{lacks}\n{last[-1]}"


@pytest.fixture(scope="module")
def stories() -> Iterator[Stories]:
    with ExitStack() as stack:
        world = stack.enter_context(
            ChaosWorld(
                lifetime=SHORT_S,
                poll_interval=0.2,
                interruption=0.1,
                dns=True,
                workers=3,
                pebble={"profiles": PROFILES},
            )
        )
        yield Stories(Cases(world, stack))


@pytest.mark.parametrize("pair", pairs())
def test_two_deaths_change_nothing(stories: Stories, pair: str) -> None:
    """One version more than before, served and noted; what was before is collected."""
    stories.running[pair].result()
    assert stories.cases.issued_of(stories.made[pair]) == 1 + pair.startswith("renewal")
    assert stories.cases.history.dangling(only=pair) == []


def test_no_certificate_was_wasted(stories: Stories) -> None:
    """By the CA's own count."""
    for future in stories.running.values():
        future.exception()
    assert stories.cases.world.pebble.certificates_issued() == FIRSTS + 2 * RENEWALS
