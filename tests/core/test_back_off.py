"""After a failure: of an order, of a rehearsal, of a CA itself."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from certbaton.core.limits import ca_pause, failed_rehearsal, next_failure, wish
from certbaton.model import CaTrouble, Failure, FailureKind, Outcome, Rehearsal
from core.build import DAY, DIRECTORY, HOUR, MINUTE, NAMES, NOW, POLICY, SECOND

KEY = "RSA-2048"
LIFETIMES = [MINUTE, 160 * HOUR, 45 * DAY, 90 * DAY]


def failure(last: Failure | None = None, *, lasts: timedelta | None = None) -> Failure:
    """One more, a minute after the last one."""
    at = last.at + MINUTE if last else NOW
    return next_failure("no luck", last, "shop", lasts, POLICY, at)


# --- orders -------------------------------------------------------------------------------------


def test_failures_in_a_row_know_when_they_began() -> None:
    """Which is what sends a certificate to the next CA; an old Journal tells its last only."""
    first = failure()
    second = failure(first)
    third = failure(second)
    assert [each.first_at for each in (first, second, third)] == [NOW] * 3
    assert [each.count for each in (first, second, third)] == [1, 2, 3]
    old = replace(second, first_at=None)
    assert failure(old).first_at == old.at


def test_failures_of_another_order_are_not_in_a_row() -> None:
    """Who corrects a name begins anew; what failed without an order counts on."""

    def again(last: Failure, wished: str) -> Failure:
        return next_failure("x", last, "shop", None, POLICY, last.at + MINUTE, wished=wished)

    last = again(failure(), wish(NAMES, KEY, None))
    assert last.count == 2
    assert again(last, last.wish).count == again(last, "").count == 3
    for other in (wish(NAMES[:1], KEY, None), wish(NAMES, "P-384", None), wish(NAMES, KEY, "p")):
        found = again(last, other)
        assert (found.count, found.first_at, found.wish) == (1, found.at, other)
    assert wish(NAMES[::-1], KEY, None) == last.wish


def test_the_kind_is_kept() -> None:
    """It decides what comes next."""
    for kind in FailureKind:
        assert next_failure("x", None, "shop", None, POLICY, NOW, kind=kind).kind is kind


def test_a_limit_of_the_account_is_asked_about_every_ten_minutes() -> None:
    """However often it was others' turn; it sends on to the next CA, and what follows it counts."""
    last, at = None, NOW
    for _ in range(20):
        last = next_failure(
            "full", last, "shop", None, POLICY, at, at + SECOND, FailureKind.LIMIT, of_account=True
        )
        assert last.retry_at - at <= 12 * MINUTE
        at = last.retry_at
    assert last is not None
    assert last.count == 3
    assert next_failure("no luck", last, "shop", None, POLICY, at).count == 4
    six = replace(last, count=6)
    assert next_failure("full", six, "shop", None, POLICY, at, of_account=True).count == 6


def test_a_limit_of_the_account_that_names_a_later_time_is_obeyed() -> None:
    """In full, as any."""
    found = next_failure("full", None, "shop", None, POLICY, NOW, NOW + DAY, of_account=True)
    assert (found.retry_at, found.named) == (NOW + DAY, True)


@pytest.mark.parametrize("lasts", LIFETIMES, ids=str)
def test_a_required_profile_is_looked_for_daily(lasts: timedelta) -> None:
    """From the first time on: it does not come back within a minute; a short life waits less."""
    found = next_failure("x", None, "shop", lasts, POLICY, NOW, kind=FailureKind.PROFILE)
    pause = min(DAY, lasts / 50)
    assert 0.8 * pause <= found.retry_at - NOW <= 1.2 * pause


def test_whose_time_it_is() -> None:
    """Only a time that the CA named, and that is obeyed, is the CA's."""
    named = next_failure("x", None, "shop", None, POLICY, NOW, NOW + DAY)
    assert (named.named, named.retry_at) == (True, NOW + DAY)
    sooner = next_failure("x", None, "shop", None, POLICY, NOW, NOW + SECOND)
    assert not sooner.named and sooner.retry_at > NOW + SECOND
    assert not failure().named


@pytest.mark.parametrize("lasts", LIFETIMES, ids=str)
def test_every_pause_is_a_fiftieth_of_the_life_at_most(lasts: timedelta) -> None:
    """Give or take a fifth."""
    last: Failure | None = None
    for _ in range(6):
        last = failure(last, lasts=lasts)
        assert timedelta(0) < last.retry_at - last.at <= 1.2 * lasts / 50


# --- rehearsals -----------------------------------------------------------------------------------


def test_a_rehearsal_backs_off_as_an_order_does() -> None:
    """1, 10, 100 min, a day; it keeps what it is about, and the question that it answers."""
    rehearsal = Rehearsal(DIRECTORY, NOW, NAMES, url="u", asked=NOW - MINUTE)
    for meant in POLICY.back_off:
        again = replace(rehearsal, outcome=Outcome.OPEN)
        rehearsal = failed_rehearsal(again, "no record", "shop", None, POLICY, NOW)
        assert rehearsal.retry_at is not None
        assert 0.8 * meant <= rehearsal.retry_at - NOW <= 1.2 * meant
    assert (rehearsal.count, rehearsal.outcome) == (4, Outcome.FAILED)
    assert (rehearsal.message, rehearsal.names, rehearsal.asked) == (
        "no record",
        NAMES,
        NOW - MINUTE,
    )


# --- the CA ---------------------------------------------------------------------------------------


def away(count: int, retry_at: timedelta | None = None) -> CaTrouble:
    named = NOW + retry_at if retry_at is not None else None
    return CaTrouble(count, NOW - DAY, NOW, "HTTP 502", named)


def test_a_ca_is_left_alone_for_a_minute_then_twice_as_long_up_to_half_an_hour() -> None:
    """However often it failed."""
    found = [ca_pause(away(count), None, POLICY) - NOW for count in (1, 2, 3, 4, 5, 6, 7, 10**9)]
    assert found == [MINUTE * n for n in (1, 2, 4, 8, 16, 30, 30, 30)]


@pytest.mark.parametrize("lasts", LIFETIMES, ids=str)
def test_at_most_a_fiftieth_of_the_life_of_who_asks(lasts: timedelta) -> None:
    """Others may wait longer for the same CA."""
    assert ca_pause(away(9), lasts, POLICY) - NOW == min(30 * MINUTE, lasts / 50)


def test_a_time_that_it_named_is_obeyed_in_full() -> None:
    """Whatever the life; it never makes it sooner than our own pause."""
    for named, until in ((DAY, DAY), (SECOND, MINUTE), (-HOUR, MINUTE)):
        assert ca_pause(away(1, named), 90 * DAY, POLICY) - NOW == until
    assert ca_pause(away(1, DAY), MINUTE, POLICY) - NOW == DAY
