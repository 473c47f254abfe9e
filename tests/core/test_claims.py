"""Services that another instance has: when a claim ends, and what it means until then."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pytest

from certbaton.core.claims import NEVER, lapses_at
from certbaton.core.plan import plan
from certbaton.model import (
    Claim,
    Instance,
    Journal,
    ObjectRef,
    Plan,
    Snapshot,
    WaitKind,
)
from core.build import (
    API,
    DAY,
    HOUR,
    MINUTE,
    NOW,
    POLICY,
    SHOP,
    There,
    a_leaf,
    a_pending,
    a_service,
    a_snapshot,
    a_spec,
    a_version,
    kinds,
    planned,
)

OTHER = Instance("second", "elsewhere")
THEIRS = ObjectRef("elsewhere", "their-secret")
ALIVE = Claim(OTHER, NOW - 40 * DAY, NOW - MINUTE, MINUTE, NOW)
DEAD = Claim(OTHER, NOW - 40 * DAY, NOW - 30 * DAY, MINUTE, NOW - HOUR)
DUE = a_version("due", begins=NOW - 70 * DAY, served={SHOP: "wire"})
FRESH = a_version("fresh", begins=NOW - HOUR, served={SHOP: "wire"})


@dataclass(frozen=True)
class Row:
    """A claim, and when it lapses."""

    claim: Claim
    at: datetime


LAPSES: dict[str, Row] = {
    "a day after the last renewal": Row(
        Claim(OTHER, NOW - 40 * DAY, NOW - MINUTE, MINUTE, NOW - HOUR), NOW - MINUTE + DAY
    ),
    "whatever it wrote since: who writes has renewed": Row(
        Claim(OTHER, NOW, NOW - MINUTE, MINUTE, NOW - HOUR), NOW - MINUTE + DAY
    ),
    "without a Lease, a day after the last write": Row(
        Claim(OTHER, NOW - HOUR, None, unchanged_since=NOW - HOUR), NOW - HOUR + DAY
    ),
    "an old Lease has to be looked at for twice its own time": Row(
        Claim(OTHER, NOW - 40 * DAY, NOW - 30 * DAY, 45 * MINUTE, NOW), NOW + 90 * MINUTE
    ),
    "and for the time of watching at least: a released one lasts for a second": Row(
        Claim(OTHER, NOW - 40 * DAY, NOW - 30 * DAY, timedelta(seconds=1), NOW),
        NOW + POLICY.claim_watch,
    ),
    "an absence has to be looked at as well": Row(
        Claim(OTHER, NOW - 40 * DAY, None, unchanged_since=NOW), NOW + POLICY.claim_watch
    ),
    "never while the Lease cannot be read": Row(
        Claim(OTHER, NOW - 40 * DAY, trouble="no answer"), NEVER
    ),
    "at once where nothing at all is known of the holder's times": Row(
        Claim(OTHER, None, None, unchanged_since=NOW - HOUR), NOW - HOUR + POLICY.claim_watch
    ),
}


@pytest.mark.parametrize("row", LAPSES.values(), ids=LAPSES)
def test_when_a_claim_lapses(row: Row) -> None:
    """By its holder's silence, and only under our eyes."""
    assert lapses_at(row.claim, POLICY) == row.at


def test_an_operator_ends_a_claim_at_once() -> None:
    """Whatever the holder's Lease says."""
    assert lapses_at(replace(ALIVE, asked=True), POLICY) < NOW


def theirs(ref: ObjectRef = SHOP) -> There:
    """A Service that names another instance's Secret."""
    return a_service(ref, names=THEIRS, ours=False)


def claimed(*versions: object, claim: Claim = ALIVE, **more: object) -> Snapshot:
    """A world in which the only Service is another instance's."""
    return a_snapshot(*versions, services=[theirs()], claims={SHOP: claim}, **more)  # type: ignore[arg-type]


def writes(found: Plan) -> list[str]:
    return kinds(found.actions)


@pytest.mark.parametrize("versions", [(), (DUE,), (FRESH,)], ids=["none", "due", "fresh"])
def test_nothing_is_ordered_or_written_for_a_claimed_service(versions: tuple[object, ...]) -> None:
    """Nothing is issued that would not be used; and it is not due, nor late."""
    found = planned(claimed(*versions))
    assert writes(found) == []
    assert found.due is None
    assert len(found.notes) == 1
    assert "elsewhere/second" in found.notes[0]
    assert "takeOverFrom" in found.notes[0]
    assert found.claimed == {SHOP: found.notes[0]}
    assert [wait.kind for wait in found.waits] == [WaitKind.BACK_OFF]
    assert found.waits[0].until == NOW + POLICY.backstop


def test_what_is_told_stays_the_same_while_the_holder_lives() -> None:
    """Its renewals are no news; a silence is, once."""
    soon = replace(ALIVE, renewed_at=NOW)
    assert planned(claimed()).notes == planned(claimed(claim=soon)).notes
    silent = replace(ALIVE, renewed_at=NOW - 2 * HOUR, unchanged_since=NOW - HOUR)
    assert "silent since 2027-03-01T10:00:00Z" in planned(claimed(claim=silent)).notes[0]
    unknown = Claim(OTHER, NOW - DAY, trouble="certbaton is not allowed to get leases")
    assert "not allowed to get leases" in planned(claimed(claim=unknown)).notes[0]


def test_an_order_that_the_ca_has_is_brought_to_its_end() -> None:
    """One that the CA was not asked for yet is not."""
    asked = Journal(pending=a_pending())
    staged = Journal(pending=a_pending(url=None))
    assert writes(planned(claimed(journal=asked))) == ["AdvanceOrder"]
    assert writes(planned(claimed(journal=staged))) == []


def test_the_other_services_go_on() -> None:
    """A claimed Service holds up nobody, and what it lacks keeps no old version."""
    spec = a_spec(SHOP, API)
    due = replace(DUE, served={str(API): DUE.served[str(SHOP)]})
    mine = a_service(API, names=due)
    snapshot = a_snapshot(due, FRESH, services=[theirs(), mine], claims={SHOP: ALIVE})
    found = planned(snapshot, spec)
    assert writes(found) == ["Repoint"]
    served = replace(FRESH, served={str(API): DUE.served[str(SHOP)]})
    done = a_service(API, names=served, changed_at=NOW - 3 * DAY)
    policy = replace(POLICY, keep_previous=0)
    old = replace(DUE, served={})
    begins = a_leaf("fresh", begins=NOW - 3 * DAY)
    served = replace(served, leaf=begins)
    snapshot = a_snapshot(old, served, services=[theirs(), done], claims={SHOP: ALIVE})
    assert writes(planned(snapshot, spec, policy=policy)) == ["MarkForDeletion"]


def test_what_a_claimed_service_names_is_never_deleted() -> None:
    """It may be ours: the other instance may have put it there."""
    snapshot = a_snapshot(
        DUE, FRESH, services=[a_service(names=DUE, ours=False)], claims={SHOP: ALIVE}
    )
    policy = replace(POLICY, keep_previous=0)
    assert writes(planned(snapshot, policy=policy)) == []


def test_a_dead_holder_s_service_is_taken_over() -> None:
    """First ours, then the name: what stood there goes into the Journal."""
    assert writes(planned(claimed(claim=DEAD))) == ["StageOrder"]
    found = planned(claimed(replace(FRESH, served={}), claim=DEAD))
    assert writes(found) == ["NoteService", "Repoint"]
    assert found.claimed == {}
    assert found.notes == ()
    assert found.actions[-1].why == (
        "Service shop/shop is to name certbaton/fresh; it is taken over from release "
        "elsewhere/second: it has been silent since 2027-01-30T12:00:00Z"
    )


def test_a_dead_holder_s_secret_is_used_up_where_it_can_be_read() -> None:
    """As a hand-made one: nothing is issued that would not be used."""
    snapshot = replace(claimed(claim=DEAD), foreign={THEIRS: a_leaf("theirs")})
    found = planned(snapshot)
    assert writes(found) == []
    assert found.waits[-1].kind is WaitKind.LATER


@pytest.mark.parametrize(
    ("left", "pause"),
    [(HOUR, 10 * MINUTE), (10 * MINUTE, 10 * MINUTE), (MINUTE, MINUTE)],
    ids=["an hour", "ten minutes", "a minute"],
)
def test_a_silent_holder_is_looked_at_again_while_its_end_is_waited_for(
    left: timedelta, pause: timedelta
) -> None:
    """Every ten minutes, or with the next turn's interval it might never count as looked at."""
    since = NOW + left - POLICY.claim_watch
    found = planned(claimed(claim=replace(DEAD, unchanged_since=since)))
    assert [(wait.kind, wait.until) for wait in found.waits] == [(WaitKind.IN_FLIGHT, NOW + pause)]


def test_two_that_take_over_from_each_other_do_so_ever_more_rarely() -> None:
    """An operator's mistake: the pauses are those of drift."""
    lost = a_service(names=THEIRS, ours=False)
    state = replace(
        lost.state,
        owned=replace(lost.state.owned, tls_secret_manager=OTHER.field_manager),
    )
    service = There(state, lost.binding, lost.listener)
    snapshot = a_snapshot(FRESH, services=[service], claims={SHOP: replace(ALIVE, asked=True)})
    assert writes(planned(snapshot)) == ["NoteService"]
    later = plan("shop", a_spec(), snapshot, POLICY, NOW + DAY)
    assert any("drift" in note for note in later.notes)
