"""
A cloud that says no: what is refused goes back to what worked, and nothing else moves.

Three Services share a certificate; the first version is taken everywhere.
"""

from __future__ import annotations

from datetime import timedelta

import pytest

from certbaton.model import EVERYWHERE, ObjectRef
from crash.place import BAD_CERTIFICATE, FULL, Place
from crash.world import START, Moment

DAY = timedelta(days=1)
# Due at 60 days sharp.
RENEWED = START + 60 * DAY + timedelta(hours=12)
FIRST, SECOND, THIRD = (ObjectRef(f"team-{number}", "shop") for number in (1, 2, 3))


def named(world: Place) -> list[int]:
    """Which version each Service names, by its number."""
    from certbaton.cluster import Kind
    from crash.world import _named

    found = [_named(obj, ref) for ref, obj in sorted(world._there(Kind.SERVICE).items())]
    return [world.number(ref.name) for ref in found if ref is not None]


def rejections(world: Place) -> dict[int, list[str]]:
    """By version, who refuses it."""
    cluster, _ = world.process()
    cluster.refresh()
    return {
        world.number(version.ref.name): sorted(version.rejected)
        for version in cluster.store.versions()
        if version.rejected
    }


def test_a_version_that_all_refuse_is_tried_at_two_and_goes_back() -> None:
    """The third is never touched; the first version stays on all three."""
    world = Place(services=3, refuses=lambda ref, n: BAD_CERTIFICATE if n == 2 else None)
    world.run(RENEWED)
    assert world.broken == []
    assert rejections(world) == {2: sorted([EVERYWHERE, str(FIRST)])}
    assert named(world) == [1, 1, 1]
    assert [len(leaves) for leaves in world.history.values()] == [1, 1, 1]
    assert len(world.ca.issued) == 2


def test_after_a_refusal_by_all_the_next_order_waits_a_day_then_two() -> None:
    """D, 2D, 4D: L/10 is nine days, the ceiling is one."""
    world = Place(services=3, refuses=lambda ref, n: BAD_CERTIFICATE if n in (2, 3) else None)
    world.run(RENEWED + 5 * DAY)
    times = [issue.at for issue in world.ca.issued]
    assert len(times) == 4
    assert DAY <= times[2] - times[1] < DAY + timedelta(hours=1)
    assert 2 * DAY <= times[3] - times[2] < 2 * DAY + timedelta(hours=1)
    assert named(world) == [4, 4, 4]


def test_a_version_that_one_refuses_stays_with_the_others() -> None:
    """Only the first is sick: it goes back to what worked there, and brings no order."""
    world = Place(
        services=3, refuses=lambda ref, n: BAD_CERTIFICATE if n == 2 and ref == FIRST else None
    )
    world.run(RENEWED)
    assert world.broken == []
    assert rejections(world) == {2: [str(FIRST)]}
    assert named(world) == [1, 2, 2]
    assert len(world.ca.issued) == 2


def test_a_listener_that_answers_with_alerts_refuses_as_well() -> None:
    """The API calls succeed, and every handshake fails: the wire outranks them."""
    world = Place(services=1, alerts=lambda ref, n: n == 2)
    world.run(RENEWED)
    assert rejections(world) == {2: [EVERYWHERE]}
    assert named(world) == [1]
    assert set(world.history[FIRST]) == {world.history[FIRST][0]}, "no other leaf was ever seen"


@pytest.mark.parametrize("tells", [True, False])
def test_a_full_load_balancer_refuses_no_version(tells: bool) -> None:
    """The place is unwell: the same version again, later, and no order for it."""
    until = RENEWED + 2 * DAY
    full = {"until": until}
    world = Place(
        services=2,
        tells=tells,
        refuses=lambda ref, n: FULL if n == 2 and world.now < full["until"] else None,
    )
    world.run(until + timedelta(hours=1))
    world._control()  # the controller needs nobody who looks
    assert rejections(world) == {}
    assert len(world.ca.issued) == 2
    assert named(world) == [2, 2]
    assert [len(leaves) for leaves in world.history.values()] == [2, 2]


def test_a_silent_controller_is_no_refusal() -> None:
    """An older leaf means "not arrived", however long."""
    world = Place(services=2, tells=False, refuses=lambda ref, n: "" if n == 2 else None)
    world.run(RENEWED + 10 * DAY, turns=9000)  # it is looked at four times an hour
    assert rejections(world) == {}
    assert len(world.ca.issued) == 2


@pytest.mark.parametrize("number", range(18, 48))
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_around_any_write_of_a_refusal_changes_nothing(number: int, when: str) -> None:
    """Rejecting, going back and waiting: no second rejection, no order too many."""
    world = Place(
        crashes=frozenset({Moment(when, number)}),
        services=3,
        refuses=lambda ref, n: BAD_CERTIFICATE if n == 2 else None,
    )
    world.run(RENEWED)
    assert world.broken == []
    assert rejections(world) == {2: sorted([EVERYWHERE, str(FIRST)])}
    assert named(world) == [1, 1, 1]
    assert len(world.ca.issued) == 2
