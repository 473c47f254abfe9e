"""What each Service needs: paused, windows, adoption, put back, one change at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import pytest

from certbaton.model import (
    EVERYWHERE,
    Journal,
    Leaf,
    NoteService,
    ObjectRef,
    Plan,
    Proof,
    PutBack,
    Repoint,
    SecretVersion,
    WaitKind,
)
from core.build import (
    API,
    DAY,
    HOME,
    HOUR,
    MINUTE,
    NAMES,
    NOW,
    POLICY,
    SHOP,
    There,
    a_leaf,
    a_service,
    a_sight,
    a_snapshot,
    a_spec,
    a_version,
    kinds,
    planned,
)

LEGACY, THEIRS = ObjectRef(HOME, "legacy"), ObjectRef(SHOP.namespace, "legacy")
LONG_AGO = Proof(NOW - 40 * DAY, "wire")
OLD = a_version("shop-1", begins=NOW - 40 * DAY, served={SHOP: LONG_AGO, API: LONG_AGO})
NEW = a_version("shop-2", begins=NOW - HOUR)
LATE = a_version("shop-1", begins=NOW - 76 * DAY, served={SHOP: Proof(NOW - 76 * DAY, "wire")})
GONE = ObjectRef(HOME, "shop-1")


def repoints(found: Plan) -> list[str]:
    return [str(a.reference) for a in found.actions if isinstance(a, Repoint)]


# --- paused -----------------------------------------------------------------------------------


def test_a_paused_service_is_not_written() -> None:
    """The others go on, and it is told what is left undone."""
    snapshot = a_snapshot(
        OLD, NEW, services=[a_service(names=OLD, paused=True), a_service(API, names=OLD)]
    )
    found = planned(snapshot, a_spec(SHOP, API))
    assert [a.service.ref for a in found.actions if isinstance(a, Repoint)] == [API]
    assert any("paused" in note and str(SHOP) in note for note in found.notes)


def test_drift_of_a_paused_service_is_left() -> None:
    """That is what a pause is for."""
    there = a_service(names=LEGACY, ours=False, paused=True)
    assert planned(a_snapshot(OLD, services=[there])).actions == ()


def test_a_paused_service_may_still_be_seen_to_serve() -> None:
    """Looking writes nothing there."""
    there = a_service(names=NEW, paused=True, sights=[a_sight(NEW)])
    assert kinds(planned(a_snapshot(OLD, NEW, services=[there])).actions) == ["MarkServed"]


def test_a_paused_certificate_is_left_alone() -> None:
    """No order, no repoint, no deletion, whatever is due."""
    old = a_version("shop-0", begins=NOW - 89 * DAY, marked_at=NOW - HOUR, served={SHOP: "wire"})
    snapshot = a_snapshot(old, LATE, services=[a_service(names=old)])
    found = planned(snapshot, a_spec(paused=True))
    assert found.actions == ()
    assert any(note.startswith("paused and late") for note in found.notes)


def test_a_paused_certificate_still_puts_back_what_was_deleted() -> None:
    """A Service that names what is gone gets no load balancer when it is made anew."""
    snapshot = a_snapshot(services=[a_service(names=GONE)], remembered=[GONE])
    assert kinds(planned(snapshot, a_spec(paused=True)).actions) == ["PutBack"]


# --- windows ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Window:
    """A repoint is due, and the window is closed: whether it waits."""

    waits: bool
    there: There
    versions: Sequence[SecretVersion] = (OLD, NEW)
    foreign: dict[ObjectRef, Leaf] = field(default_factory=dict)
    journal: Journal | None = None


REFUSED = a_version("shop-2", begins=NOW - HOUR, rejected={SHOP: NOW - MINUTE})
UNTRIED = a_version("shop-1", begins=NOW - 40 * DAY)
DATED = a_version("shop-1", begins=NOW - 91 * DAY)
WINDOWS: dict[str, Window] = {
    "renewed": Window(True, a_service(names=OLD)),
    "the very first": Window(False, a_service()),
    "back to what worked": Window(False, a_service(names=REFUSED), (OLD, REFUSED)),
    "what it names is gone": Window(False, a_service(names=GONE), (NEW,)),
    "what it names is late": Window(False, a_service(names=LATE), (LATE, NEW)),
    "what it names has expired": Window(False, a_service(names=DATED), (DATED, NEW)),
    "what it names was refused, and nothing worked there": Window(
        False, a_service(names=REFUSED), (UNTRIED, REFUSED)
    ),
    "what it names is flawed": Window(
        False,
        a_service(names=ObjectRef(HOME, "shop-0")),
        (a_version("shop-0", begins=NOW - 50 * DAY, flaw="key"), NEW),
    ),
    "a hand-made one": Window(
        True,
        a_service(names=LEGACY, ours=False),
        (NEW,),
        {LEGACY: a_leaf(begins=NOW - 60 * DAY)},
    ),
    "a hand-made one that is late": Window(
        False,
        a_service(names=LEGACY, ours=False),
        (NEW,),
        {LEGACY: a_leaf(begins=NOW - 76 * DAY)},
    ),
    "a hand-made one that is not there": Window(False, a_service(names=LEGACY, ours=False), (NEW,)),
    "a hand-made one that is signed by itself": Window(
        False, a_service(names=LEGACY, ours=False), (NEW,), {LEGACY: a_leaf(self_signed=True)}
    ),
    "a hand-made one for other names": Window(
        False, a_service(names=LEGACY, ours=False), (NEW,), {LEGACY: a_leaf(names=NAMES[:1])}
    ),
    "a hand-made one that cannot be read": Window(
        True, a_service(names=THEIRS, ours=False), (NEW,)
    ),
    "we went back to a hand-made one": Window(
        True,
        a_service(names=LEGACY),
        (NEW,),
        {LEGACY: a_leaf(begins=NOW - 60 * DAY)},
        Journal(originals={str(SHOP): str(LEGACY)}),
    ),
}


@pytest.mark.parametrize("case", WINDOWS.values(), ids=WINDOWS)
def test_what_waits_for_a_window(case: Window) -> None:
    """First issuance, going back, a missing Secret and late don't wait."""
    opens = NOW + 5 * HOUR
    snapshot = a_snapshot(
        *case.versions,
        services=[case.there],
        foreign=case.foreign,
        journal=case.journal,
        window_opens_at=opens,
    )
    found = planned(snapshot)
    assert len(repoints(found)) == (0 if case.waits else 1)
    if case.waits:
        wait = next(wait for wait in found.waits if "window" in wait.what)
        assert (wait.until, wait.kind) == (opens, WaitKind.LATER)
    assert len(repoints(planned(replace(snapshot, window_opens_at=None)))) == 1


def test_an_order_waits_for_no_window() -> None:
    """Certificates are obtained when due."""
    due = a_version("shop-1", begins=NOW - 62 * DAY, served={SHOP: "wire"})
    snapshot = a_snapshot(
        due, services=[a_service(names=due)], window_opens_at=NOW + DAY, journal=Journal()
    )
    assert kinds(planned(snapshot).actions) == ["StageOrder"]


def test_who_waits_for_a_window_holds_nobody() -> None:
    """A Service that names nothing yet goes first."""
    snapshot = a_snapshot(
        OLD,
        NEW,
        services=[a_service(names=OLD), a_service(API)],
        window_opens_at=NOW + DAY,
    )
    found = planned(snapshot, a_spec(SHOP, API))
    assert [a.service.ref for a in found.actions if isinstance(a, Repoint)] == [API]


# --- adoption ---------------------------------------------------------------------------------


def test_what_a_service_named_goes_into_the_journal_first() -> None:
    """As the annotation said it."""
    found = planned(a_snapshot(NEW, services=[a_service(names=THEIRS, ours=False)]))
    assert kinds(found.actions) == ["NoteService", "Repoint"]
    noted = found.actions[0]
    assert isinstance(noted, NoteService)
    assert (noted.service, noted.original) == (SHOP, str(THEIRS))


def noted(
    there: There, original: str | None = None, versions: Sequence[SecretVersion] = (NEW,)
) -> list[str]:
    """What a Service named, as it is written down; *original* is what the Journal has."""
    journal = Journal(originals={str(SHOP): original} if original else {})
    found = planned(a_snapshot(*versions, services=[there], journal=journal))
    assert repoints(found) == [str(NEW.ref)]
    return [a.original for a in found.actions if isinstance(a, NoteService) and a.original]


def test_it_is_noted_once() -> None:
    """Ours is no original, nor is what somebody else wrote over ours."""
    assert noted(a_service(names=THEIRS, ours=False), str(THEIRS)) == []
    assert noted(a_service(names=OLD), versions=(OLD, NEW)) == []
    assert noted(a_service(names=THEIRS, ours=False, changed_at=NOW - DAY)) == []


def test_a_service_that_was_made_anew_is_noted_anew() -> None:
    """We never wrote this one: what its namesake named years ago is no way back."""
    again = a_service(names=THEIRS, ours=False, anybody_changed_at=NOW - HOUR)
    assert noted(again, "years/ago") == [str(THEIRS)]
    assert noted(again, "years/ago", (OLD, NEW)) == [str(THEIRS)], "its namesake had ours"
    gone = a_service(names=LEGACY, ours=False)
    assert noted(gone, str(THEIRS)) == [], "what is not there is no way back either"
    assert noted(gone) == [str(LEGACY)]


def test_a_name_that_no_secret_can_have_is_not_kept() -> None:
    """An annotation may have 200 kB: neither the Journal nor the log is filled with it."""
    for length, kept in ((502, 1), (503, 0)):
        there = a_service(names=ObjectRef("shop", "x" * length), ours=False)
        assert len(noted(there)) == kept


@dataclass(frozen=True)
class Adopted:
    """Hand-made Secrets by Service; *until* nothing is ordered, None: an order is due."""

    until: datetime | None
    foreign: dict[ObjectRef, Leaf]
    there: Sequence[There] = (a_service(names=LEGACY, ours=False),)
    versions: Sequence[SecretVersion] = ()
    asked: Sequence[ObjectRef] = (SHOP,)


def due_of(leaf: Leaf) -> datetime:
    from certbaton.core.renewal import renewal_time

    return renewal_time("shop", leaf, POLICY)


GOOD, ALSO = a_leaf("good"), a_leaf("also", begins=NOW - 40 * DAY)
YEAR = a_leaf("year", begins=NOW - 300 * DAY, lasts=365 * DAY)
OLD_YEAR = a_leaf("year", begins=NOW - 306 * DAY, lasts=365 * DAY)
SHORT = a_version("shop-1", begins=NOW - 7 * DAY, lasts=6 * DAY)
ANOTHER = ObjectRef(HOME, "another")
ADOPTED: dict[str, Adopted] = {
    "it does": Adopted(due_of(GOOD), {LEGACY: GOOD}),
    "it is due": Adopted(None, {LEGACY: a_leaf(begins=NOW - 62 * DAY)}),
    "it has expired": Adopted(None, {LEGACY: a_leaf(begins=NOW - 92 * DAY)}),
    "it is not valid yet": Adopted(None, {LEGACY: a_leaf(begins=NOW + HOUR)}),
    "it cannot be read": Adopted(None, {}),
    "a name is missing": Adopted(None, {LEGACY: a_leaf(names=NAMES[:1])}),
    "it is signed by itself": Adopted(None, {LEGACY: a_leaf(self_signed=True)}),
    "its key does not suit": Adopted(
        None,
        {LEGACY: a_leaf(key_type="P-256")},
        [a_service(names=LEGACY, ours=False, key_kinds=frozenset({"RSA"}))],
    ),
    "two, and the first that is due counts": Adopted(
        due_of(ALSO),
        {LEGACY: GOOD, ANOTHER: ALSO},
        [a_service(names=LEGACY, ours=False), a_service(API, names=ANOTHER, ours=False)],
        asked=(SHOP, API),
    ),
    "two, and one names nothing": Adopted(
        None,
        {LEGACY: GOOD},
        [a_service(names=LEGACY, ours=False), a_service(API)],
        asked=(SHOP, API),
    ),
    "two, and one is not there yet": Adopted(
        due_of(GOOD), {LEGACY: GOOD}, [a_service(names=LEGACY, ours=False)], asked=(SHOP, API)
    ),
    # nothing is issued that would not be used: ours has to outlive it
    "one of a year, due for long": Adopted(YEAR.not_after - 60 * DAY, {LEGACY: YEAR}),
    "one of a year, nearer its end": Adopted(None, {LEGACY: OLD_YEAR}),
    "ours are of six days": Adopted(
        OLD_YEAR.not_after - 3 * DAY, {LEGACY: OLD_YEAR}, versions=[SHORT]
    ),
    "ours is there and due, and nobody names it": Adopted(
        YEAR.not_after - 60 * DAY,
        {LEGACY: YEAR},
        versions=[a_version("shop-1", begins=NOW - 70 * DAY)],
    ),
}


@pytest.mark.parametrize("case", ADOPTED.values(), ids=ADOPTED)
def test_nothing_is_ordered_while_hand_made_secrets_do(case: Adopted) -> None:
    """Unreadable counts as due; what does not fit, or would not be valid, is replaced at once."""
    snapshot = a_snapshot(
        *case.versions, services=case.there, foreign=case.foreign, journal=Journal()
    )
    found = planned(snapshot, a_spec(*case.asked))
    assert ("StageOrder" in kinds(found.actions)) is (case.until is None)
    assert "Repoint" not in kinds(found.actions)
    if case.until is not None:
        wait = next(wait for wait in found.waits if "hand-made" in wait.what)
        assert (wait.until, wait.kind) == (case.until, WaitKind.LATER)


# --- put back ---------------------------------------------------------------------------------


def test_a_version_deleted_while_named_is_put_back_and_nothing_else_happens() -> None:
    """No order, and no second change of the listener, though another version is there."""
    for versions in ([], [a_version("shop-0", begins=NOW - 50 * DAY)]):
        snapshot = a_snapshot(
            *versions, services=[a_service(names=GONE)], remembered=[GONE], journal=Journal()
        )
        found = planned(snapshot)
        assert found.actions == (PutBack("shop", found.actions[0].why, GONE),), (
            "the order and the repoint wait until it is looked at again"
        )


def test_named_twice_it_is_put_back_once() -> None:
    """One Secret, two Services."""
    there = [a_service(names=GONE), a_service(API, names=GONE)]
    found = planned(a_snapshot(services=there, remembered=[GONE]), a_spec(SHOP, API))
    assert kinds(found.actions) == ["PutBack"]


def test_what_is_not_remembered_is_replaced_by_the_best_there_is() -> None:
    """Failing that, an order."""
    there = a_service(names=GONE)
    assert repoints(planned(a_snapshot(NEW, services=[there]))) == [str(NEW.ref)]
    found = planned(a_snapshot(services=[there], journal=Journal()))
    assert kinds(found.actions) == ["StageOrder"]
    assert any("gone" in note for note in found.notes)


def test_what_was_there_before_us_is_not_missed() -> None:
    """We went back to it, and whether it is there is not ours to see to."""
    journal = Journal(originals={str(SHOP): str(THEIRS)})
    refused = a_version("shop-1", rejected={EVERYWHERE: NOW - MINUTE})
    found = planned(a_snapshot(refused, services=[a_service(names=THEIRS)], journal=journal))
    assert kinds(found.actions) == []
    assert not any("gone" in note for note in found.notes)


# --- one change at a time ---------------------------------------------------------------------


def test_a_change_under_way_ends_before_the_next() -> None:
    """Names changed while the last version was on its way: two interruptions would be one."""
    newest = a_version("shop-3", begins=NOW - MINUTE)
    there = a_service(names=NEW, changed_at=NOW - MINUTE)
    found = planned(a_snapshot(OLD, NEW, newest, services=[there]))
    assert repoints(found) == []
    shown = a_service(names=NEW, changed_at=NOW - MINUTE, sights=[a_sight(NEW)])
    assert "MarkServed" in kinds(planned(a_snapshot(OLD, NEW, newest, services=[shown])).actions)
    over = a_service(names=NEW, changed_at=NOW - 2 * HOUR)
    assert kinds(planned(a_snapshot(OLD, NEW, newest, services=[over])).actions) == ["MarkServed"]


def test_going_back_waits_for_nothing() -> None:
    """A refused version was never on the listener."""
    found = planned(a_snapshot(OLD, REFUSED, services=[a_service(names=REFUSED)]))
    assert repoints(found) == [str(OLD.ref)]


def test_an_unproven_end_is_told_in_every_plan() -> None:
    """An Event is gone after an hour; the listener may show the old leaf for weeks."""
    given_up = replace(NEW, served={str(SHOP): Proof(NOW - MINUTE, "unproven")})
    there = a_service(names=given_up, changed_at=NOW - HOUR, sights=[a_sight(LATE)])
    for paused in (False, True):
        notes = planned(a_snapshot(LATE, given_up, services=[there]), a_spec(paused=paused)).notes
        assert any(n.startswith("late: Service shop/shop names certbaton/shop-2") for n in notes)
