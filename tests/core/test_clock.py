"""When the clocks are apart nothing is refused, deleted or ordered, unless it is late."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from certbaton.model import Proof, Snapshot
from core.build import (
    DAY,
    HOUR,
    MINUTE,
    NOW,
    SECOND,
    SHOP,
    a_service,
    a_snapshot,
    a_version,
    an_event,
    kinds,
    planned,
)

# due for an hour, and late
DUE = a_version("shop-1", begins=NOW - 62 * DAY, served={SHOP: "wire"})
LATE = a_version("shop-1", begins=NOW - 80 * DAY, served={SHOP: "wire"})


def apart(snapshot: Snapshot, by: timedelta) -> Snapshot:
    return replace(snapshot, clock_apart=by)


@pytest.mark.parametrize("by", [5 * MINUTE + SECOND, -(5 * MINUTE + SECOND), DAY])
def test_nothing_is_ordered_and_it_is_told(by: timedelta) -> None:
    """L/20 of ninety days is more than the ceiling of five minutes."""
    found = planned(apart(a_snapshot(DUE, services=[a_service(names=DUE)]), by))
    assert kinds(found.actions) == []
    assert any("the clock here is" in note for note in found.notes)


@pytest.mark.parametrize("by", [timedelta(0), 5 * MINUTE - SECOND, -4 * MINUTE])
def test_a_little_apart_is_well(by: timedelta) -> None:
    """Clocks are never the same."""
    found = planned(apart(a_snapshot(DUE, services=[a_service(names=DUE)]), by))
    assert kinds(found.actions) == ["StageOrder"]
    assert not any("clock" in note for note in found.notes)


def test_what_is_late_is_renewed_all_the_same() -> None:
    """An expired certificate is worse than one ordered by a wrong clock."""
    found = planned(apart(a_snapshot(LATE, services=[a_service(names=LATE)]), DAY))
    assert kinds(found.actions) == ["StageOrder"]


def test_nothing_is_deleted() -> None:
    """Neither marked nor swept."""
    proof = {SHOP: Proof(NOW - 2 * DAY, "wire")}
    new = a_version("shop-4", begins=NOW - 3 * DAY, served=proof)
    old = [a_version(f"shop-{n}", begins=NOW - (70 + n) * DAY) for n in (1, 2)]
    marked = replace(old[1], marked_at=NOW - HOUR)
    world = a_snapshot(new, old[0], marked, services=[a_service(names=new)])
    assert set(kinds(planned(world).actions)) & {"MarkForDeletion", "DeleteVersion"}
    assert kinds(planned(apart(world, HOUR)).actions) == []


def test_nothing_is_deleted_for_a_certificate_that_left_the_configuration() -> None:
    """By a clock that is an hour ahead it would have been marked long enough."""
    marked = a_version("shop-1", begins=NOW - 80 * DAY, marked_at=NOW - HOUR)
    assert kinds(planned(a_snapshot(marked), configured=False).actions) == ["DeleteVersion"]
    found = planned(apart(a_snapshot(marked), -HOUR), configured=False)
    assert found.actions == ()
    assert any("the clock here is" in note for note in found.notes)


def test_nothing_is_refused() -> None:
    """What an Event says of before and after rests on two clocks; it is judged afterwards."""
    words = "Http Status Code: 400. Error Code: InvalidParameter. Operation Name: CreateCertificate"
    event = an_event("SyncFailed", first_at=NOW - MINUTE, count=3, message=words)
    tried = a_version("shop-2", begins=NOW - HOUR)
    there = a_service(names=tried, changed_at=NOW - 40 * MINUTE, events=[event])
    old = a_version("shop-1", begins=NOW - 40 * DAY, served={SHOP: "wire"})
    world = a_snapshot(old, tried, services=[there])
    assert kinds(planned(world).actions) == ["Reject"]
    assert kinds(planned(apart(world, HOUR)).actions) == []
