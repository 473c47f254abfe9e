"""Limits of our own, before the CA's: four orders of one set a week, three failed validations."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from certbaton.core.limits import limit_reached
from certbaton.core.need import need
from certbaton.core.plan import plan
from certbaton.model import FailedValidation, IssuerSpec, OrderRecord, Policy, SecretVersion
from core.build import (
    DAY,
    DIRECTORY,
    HOUR,
    MINUTE,
    NAMES,
    NOW,
    POLICY,
    SECOND,
    a_snapshot,
    a_spec,
    a_version,
)

WEEK = 7 * DAY
STAGING = "https://staging.example/directory"
# Let's Encrypt begins certificates an hour before it signs them.
BACKDATED = HOUR


def made(*ago: timedelta, names: tuple[str, ...] = NAMES, at: str = DIRECTORY) -> list[OrderRecord]:
    """Records in Journals."""
    return [OrderRecord(NOW - moment, at, names) for moment in ago]


def there(
    *ago: timedelta,
    names: tuple[str, ...] = NAMES,
    at: str = DIRECTORY,
    lasts: timedelta = 90 * DAY,
) -> list[SecretVersion]:
    """Versions that begin so long ago."""
    return [
        a_version(f"shop-{n}", begins=NOW - moment, lasts=lasts, names=names, directory=at)
        for n, moment in enumerate(ago)
    ]


def failures(
    *ages: timedelta, name: str = NAMES[0], directory: str = DIRECTORY
) -> list[FailedValidation]:
    return [FailedValidation(NOW - age, directory, name) for age in ages]


# --- identical certificates --------------------------------------------------------------------

FOUR = (DAY, 2 * DAY, 3 * DAY, 4 * DAY)
ORDERS: dict[str, tuple[list[OrderRecord], list[SecretVersion], timedelta | None]] = {
    "nothing happened": ([], [], None),
    "four by the Journals: until the oldest is a week old": (made(*FOUR), [], WEEK - 4 * DAY),
    "three by the Journals": (made(*FOUR[:3]), [], None),
    "five: until the second is": (made(*FOUR, 5 * DAY), [], WEEK - 4 * DAY),
    "in whatever order they are told": (made(*FOUR[::-1]), [], WEEK - 4 * DAY),
    "four, one of them a week ago": (made(*FOUR[:3], WEEK), [], None),
    "four, one of them almost a week ago": (made(*FOUR[:3], WEEK - SECOND), [], SECOND),
    "four at another CA": (made(*FOUR, at=STAGING), [], None),
    "four for other names": (made(*FOUR, names=NAMES[:1]), [], None),
    # a lost Journal: the versions tell
    "four by the versions' dates": ([], there(*FOUR), WEEK - 4 * DAY),
    "three by the versions' dates": ([], there(*FOUR[:3]), None),
    "four versions of another CA": ([], there(*FOUR, at=STAGING), None),
    "four versions for other names": ([], there(*FOUR, names=NAMES[:1]), None),
    # both: the Journal was lost in between, and versions are collected
    "each counts once": (made(*FOUR[:2]), there(*FOUR[:2]), None),
    "each counts once, though the certificate is backdated": (
        made(*FOUR[:3]),
        there(*(moment + BACKDATED for moment in FOUR[:3])),
        None,
    ),
    "some by both": (made(*FOUR[:1]), there(*FOUR), WEEK - 4 * DAY),
    "two by the Journals, two others by the versions": (
        made(*FOUR[:2]),
        there(*FOUR[2:]),
        WEEK - 4 * DAY,
    ),
    "two by the versions, two later ones by the Journals": (
        made(*FOUR[2:]),
        there(*FOUR[:2]),
        WEEK - 4 * DAY,
    ),
    "two within an hour, of which one has no record": (
        made(*FOUR[:3]),
        there(DAY, DAY + 30 * MINUTE),
        WEEK - 3 * DAY,
    ),
}


@pytest.mark.parametrize(("records", "versions", "over"), ORDERS.values(), ids=ORDERS)
def test_four_orders_a_week(
    records: list[OrderRecord], versions: list[SecretVersion], over: timedelta | None
) -> None:
    """For the very same names at one CA: by the records of all Journals, and what is there."""
    snapshot = a_snapshot(*versions, issued=records)
    found = limit_reached(a_spec(), snapshot, POLICY, NOW)
    assert (found[1] if found else None) == (NOW + over if over is not None else None)


def most_in_a_week(at: list[datetime]) -> int:
    return max(sum(first <= each < first + WEEK for each in at) for first in at)


def ordered(lasts: timedelta, days: int, *, always: bool) -> list[datetime]:
    """When a certificate is ordered; *always*: by a mistake of ours, whenever the limit allows."""
    records: list[OrderRecord] = []
    now = NOW
    while now < NOW + days * DAY:
        began = records[-1].at if records else now - lasts
        newest = a_version(f"shop-{len(records)}", begins=began, lasts=lasts)
        wanted = always or need(a_spec(), a_snapshot(newest), POLICY, now) is not None
        snapshot = a_snapshot(newest, issued=records)
        if wanted and limit_reached(a_spec(), snapshot, POLICY, now) is None:
            records.append(OrderRecord(now, DIRECTORY, NAMES))
        now += 30 * MINUTE
    return [record.at for record in records]


@pytest.mark.parametrize("lasts", [90 * DAY, 6 * DAY, HOUR], ids=str)
def test_the_week_is_the_cas_however_long_a_certificate_lives(lasts: timedelta) -> None:
    """The CA counts five of one set in seven days; a week of our own would not help."""
    assert most_in_a_week(ordered(lasts, 30, always=True)) == 4


def test_six_day_certificates_are_renewed_within_the_limit() -> None:
    """Half their life is three days: two or three orders a week, and none waits."""
    at = ordered(6 * DAY, 60, always=False)
    assert most_in_a_week(at) <= 3
    gaps = [after - before for before, after in pairwise(at)]
    assert max(gaps) <= 3 * DAY + 2 * HOUR


@pytest.mark.parametrize("lasts", [HOUR, DAY, 2 * DAY, 4 * DAY, 6 * DAY, 45 * DAY], ids=str)
def test_a_life_too_short_for_our_limit_is_told_with_the_first_certificate(
    lasts: timedelta,
) -> None:
    """A CA of one's own signs for a day: four orders a week would let that run out, untold."""
    at = ordered(lasts, 60, always=False)
    late = max(after - before for before, after in pairwise(at)) > lasts * (1 - POLICY.late)
    first = a_version(begins=NOW, lasts=lasts)
    found = plan("shop", a_spec(), a_snapshot(first), POLICY, NOW)
    told = [note for note in found.notes if note.startswith("limit: ")]
    assert bool(told) == late == (lasts < 3 * DAY)
    if lasts == DAY:
        assert "our own limit of 4 in 7 days" in told[0]
        assert "set policy.orderLimit to 28, " in told[0]
        enough = Policy(order_limit=28)
        assert plan("shop", a_spec(), a_snapshot(first), enough, NOW).notes == ()


def test_a_shorter_week_is_a_setting() -> None:
    """For a CA of one's own, and for the lab, whose certificates live minutes."""
    policy = Policy(order_limit_window=HOUR)
    recent = made(*(number * MINUTE for number in (59, 58, 57, 56)))
    found = limit_reached(a_spec(), a_snapshot(issued=recent), policy, NOW)
    assert found is not None and found[1] == NOW + MINUTE
    assert limit_reached(a_spec(), a_snapshot(issued=made(*FOUR)), policy, NOW) is None


# --- failed validations -------------------------------------------------------------------------

MINUTES = [number * MINUTE for number in (50, 40, 30)]
FAILED: dict[str, tuple[list[FailedValidation], timedelta | None]] = {
    "two": (failures(*MINUTES[:2]), None),
    "three within the hour": (failures(*MINUTES), 10 * MINUTE),
    "three, the first an hour ago": (failures(HOUR, *MINUTES[1:]), None),
    "three of the second name": (failures(*MINUTES, name=NAMES[1]), 10 * MINUTE),
    "three of a name that isn't asked for": (failures(*MINUTES, name="x.example"), None),
    "three at another CA": (failures(*MINUTES, directory=STAGING), None),
    "three over two names": (
        failures(*MINUTES[:2]) + failures(MINUTES[2], name=NAMES[1]),
        None,
    ),
}


@pytest.mark.parametrize(("failed", "waits"), FAILED.values(), ids=FAILED)
def test_three_failed_validations_an_hour(
    failed: list[FailedValidation], waits: timedelta | None
) -> None:
    """Of one name at one CA, over all Journals."""
    found = limit_reached(a_spec(), a_snapshot(a_version(), failed=failed), POLICY, NOW)
    assert (found[1] - NOW if found else None) == waits


def test_the_failed_validations_of_a_wildcard_count() -> None:
    """The CA counts them for its name."""
    spec = a_spec(names=("*.shop.example",))
    failed = failures(*MINUTES, name="*.shop.example")
    assert limit_reached(spec, a_snapshot(failed=failed), POLICY, NOW) is not None


def test_validations_of_a_short_life_are_counted_for_a_tenth_of_it() -> None:
    """Of an hour's certificate six minutes count; it would be over before an hour has passed."""
    short = a_version(begins=NOW - MINUTE, lasts=HOUR)
    failed = failures(5 * MINUTE, 4 * MINUTE, 6 * MINUTE)
    assert limit_reached(a_spec(), a_snapshot(short, failed=failed), POLICY, NOW) is None
    policy = Policy(validation_limit=2)
    found = limit_reached(a_spec(), a_snapshot(short, failed=failed), policy, NOW)
    assert found is not None and found[1] == NOW + MINUTE


def test_each_ca_has_its_own_limits() -> None:
    """What was issued, and what failed, elsewhere counts there."""
    other = IssuerSpec("other", STAGING)
    spec = a_spec(fallbacks=[other])
    for world in (
        a_snapshot(issued=made(*FOUR)),
        a_snapshot(*there(*FOUR)),
        a_snapshot(failed=failures(*MINUTES)),
    ):
        assert limit_reached(spec, world, POLICY, NOW) is not None
        assert limit_reached(spec, world, POLICY, NOW, other) is None
    elsewhere = a_snapshot(issued=made(*FOUR, at=STAGING))
    assert limit_reached(spec, elsewhere, POLICY, NOW) is None
    assert limit_reached(spec, elsewhere, POLICY, NOW, other) is not None
