"""What a plan tells people and the scheduler."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from certbaton.core.renewal import renewal_time
from certbaton.model import (
    Journal,
    Wait,
    WaitKind,
)
from core.build import (
    API,
    DAY,
    DIRECTORY,
    HOUR,
    NOW,
    POLICY,
    SHOP,
    a_failure,
    a_hash,
    a_pending,
    a_service,
    a_snapshot,
    a_spec,
    a_version,
    kinds,
    planned,
)

DUE = a_version("due", begins=NOW - 70 * DAY, served={SHOP: "wire"})
FRESH = a_version("fresh", begins=NOW - HOUR, served={SHOP: "wire"}, key="pending key")


# --- what is told -----------------------------------------------------------------------------


def test_since_when_it_is_due_is_told() -> None:
    """Whether or not it can be ordered now; nothing while nothing is due."""
    assert DUE.leaf is not None
    due = renewal_time("shop", DUE.leaf, POLICY)
    for journal in (
        None,
        Journal(pending=a_pending()),
        Journal(failures={DIRECTORY: a_failure(retry_at=NOW + DAY)}),
    ):
        assert planned(a_snapshot(DUE, journal=journal)).due == due
    assert planned(a_snapshot(FRESH)).due is None


def test_until_when_nothing_is_due_is_a_wait_for_later() -> None:
    """So that the scheduler wakes up for it."""
    assert FRESH.leaf is not None
    found = planned(a_snapshot(FRESH, services=[a_service(names=FRESH)]))
    due = renewal_time("shop", FRESH.leaf, POLICY)
    assert found.waits == (Wait("certbaton/fresh is due for renewal", due, WaitKind.LATER),)


def test_waits_are_sorted_by_time() -> None:
    """The first is when to look again."""
    snapshot = a_snapshot(FRESH, services=[a_service(API)])
    waits = planned(snapshot, a_spec(SHOP, API)).waits
    assert [wait.until for wait in waits] == sorted(wait.until for wait in waits)
    assert waits[0].until - NOW == timedelta(minutes=10)


def test_problems_of_the_reading_are_notes() -> None:
    """Somebody should see them."""
    assert planned(a_snapshot(FRESH, problems=["Secret x is odd"])).notes == ("Secret x is odd",)


def test_a_named_version_of_a_certificate_that_left_is_reported() -> None:
    """It stays, and nobody renews it."""
    found = planned(a_snapshot(DUE, services=[a_service(names=DUE)]), configured=False)
    assert found.actions == ()
    assert found.notes == (
        "certbaton/due is of a certificate that is no longer configured, and a Service still "
        "names it: it stays, and nobody renews it",
    )


def test_an_unreadable_reading_still_rolls_out() -> None:
    """What a Service needs is not held up by a list that failed; it is read live before."""
    found = planned(a_snapshot(FRESH, services=[a_service()], complete=False))
    assert kinds(found.actions) == ["NoteService", "Repoint"]


def test_the_key_of_another_order_closes_nothing() -> None:
    """A version that came from elsewhere is not the pending order's."""
    other = replace(a_pending(), public_key_sha256=a_hash("another"))
    found = planned(
        a_snapshot(DUE, services=[a_service(names=DUE)], journal=Journal(pending=other))
    )
    assert kinds(found.actions) == ["AdvanceOrder"]
