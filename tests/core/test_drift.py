"""Drift: somebody else changed what we own; who it was, and when it is undone."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import pytest

from certbaton.model import (
    PAUSED,
    CertificateSpec,
    Claim,
    Drift,
    Instance,
    Journal,
    Leaf,
    NoteService,
    ObjectRef,
    OwnedFields,
    Proof,
    SecretVersion,
    Snapshot,
    WaitKind,
)
from core.build import (
    DAY,
    HOME,
    HOUR,
    MINUTE,
    NOW,
    SECOND,
    SHOP,
    a_leaf,
    a_service,
    a_snapshot,
    a_spec,
    a_version,
    kinds,
    planned,
)

PINNED, ELSEWHERE = ObjectRef(HOME, "pinned"), ObjectRef("shop", "pinned")
OLD = a_version("shop-1", begins=NOW - 40 * DAY, served={SHOP: Proof(NOW - 40 * DAY, "wire")})
NEW = a_version("shop-2", begins=NOW - 10 * DAY, served={SHOP: Proof(NOW - 9 * DAY, "wire")})
LATE = a_version("shop-1", begins=NOW - 76 * DAY, served={SHOP: Proof(NOW - 76 * DAY, "wire")})


def world(
    named: SecretVersion | ObjectRef | None = OLD,
    *,
    ago: timedelta = timedelta(0),
    rounds: int | None = None,
    last: timedelta = timedelta(0),
    manager: str | None = "argocd-controller",
    foreign: dict[ObjectRef, Leaf] | None = None,
    lasts: timedelta | None = None,
) -> Snapshot:
    """Somebody made the Service name *named*, *ago*; it was undone *rounds* times, *last* ago."""
    there = a_service(names=named, ours=False, manager=manager, anybody_changed_at=NOW - ago)
    journal = Journal(drift={str(SHOP): Drift(rounds, NOW - last)}) if rounds is not None else None
    new = NEW if lasts is None else a_version("shop-2", begins=NOW, lasts=lasts, served=NEW_SERVED)
    versions = [LATE if named is LATE else OLD, new]
    return a_snapshot(*versions, services=[there], journal=journal, foreign=foreign)


NEW_SERVED = {SHOP: Proof(NOW, "wire")}


@dataclass(frozen=True)
class Case:
    """What was found, and when it is put back; None: at once."""

    world: Snapshot
    at: datetime | None


CASES: dict[str, Case] = {
    "the first time: a minute after it": Case(world(ago=10 * SECOND), NOW + 50 * SECOND),
    "the first time, a minute ago": Case(world(ago=MINUTE), None),
    "noted, and not undone yet: a minute after that": Case(
        world(rounds=0, last=10 * SECOND), NOW + 50 * SECOND
    ),
    "the second time: two minutes after we last undid it": Case(
        world(rounds=1, last=MINUTE), NOW + MINUTE
    ),
    "the second time, an hour after the first": Case(world(rounds=1, last=HOUR), None),
    "the fifth time: sixteen": Case(world(rounds=4, last=MINUTE), NOW + 15 * MINUTE),
    "after five rounds: once a day": Case(world(rounds=5, last=HOUR), NOW + 23 * HOUR),
    "after fifty rounds: still once a day": Case(world(ago=DAY, rounds=50, last=DAY), None),
    "quiet for two days: from the start": Case(
        world(ago=0 * SECOND, rounds=5, last=2 * DAY + SECOND), NOW + MINUTE
    ),
    "not quite two days": Case(world(rounds=5, last=2 * DAY), None),
    "of ten minutes: ten seconds": Case(world(ELSEWHERE, lasts=10 * MINUTE), NOW + 10 * SECOND),
    "of ten minutes: at most a minute": Case(
        world(ELSEWHERE, lasts=10 * MINUTE, rounds=9, last=SECOND), NOW + 59 * SECOND
    ),
    # what cannot wait
    "taken away": Case(world(None), None),
    "one that is late": Case(world(LATE), None),
    "a hand-made one that is late": Case(
        world(PINNED, foreign={PINNED: a_leaf(begins=NOW - 76 * DAY)}), None
    ),
    "a hand-made one that has expired": Case(
        world(PINNED, foreign={PINNED: a_leaf(begins=NOW - 91 * DAY)}), None
    ),
    "one that is not there": Case(world(PINNED), None),
    "one that we may not look at": Case(world(ELSEWHERE), NOW + MINUTE),
    "one that we may not look at, when all that were proven there are late": Case(
        replace(world(ELSEWHERE), versions=(LATE, replace(NEW, served={}))), None
    ),
    "a hand-made one that is good": Case(
        world(PINNED, foreign={PINNED: a_leaf(begins=NOW - 40 * DAY)}), NOW + MINUTE
    ),
    "taken away, the fourth time": Case(world(None, rounds=4, last=SECOND), None),
    "taken away again and again: a minute each": Case(
        world(None, rounds=5, last=10 * SECOND), NOW + 50 * SECOND
    ),
    "the same, and the last time was long ago": Case(world(None, rounds=5, last=HOUR), None),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_when_drift_is_undone(case: Case) -> None:
    """With a growing pause, then rarely, never not at all; at once where it is urgent."""
    found = planned(case.world)
    rounds = case.world.journal.drift[str(SHOP)].rounds if case.world.journal else 0
    assert any("drift" in note for note in found.notes)
    if case.at is None:
        assert kinds(found.actions)[:2] == ["NoteService", "Repoint"]
        noted = found.actions[0]
        assert isinstance(noted, NoteService)
        quiet = "two days" in found.notes[0]
        assert noted.drift_rounds == (1 if quiet else rounds + 1)
    else:
        assert "Repoint" not in kinds(found.actions)
        wait = next(wait for wait in found.waits if "put back" in wait.what)
        assert (wait.until, wait.kind) == (case.at, WaitKind.BACK_OFF)


@dataclass
class Busy:
    """
    A field manager that touches the Service *every* so often, and so moves the managed fields'.

    That it does on a real API server, too: `contracts/test_apply_contract.py`.
    """

    every: timedelta
    journal: Journal = field(default_factory=Journal)

    def undone_after(self, named: SecretVersion | ObjectRef, within: timedelta) -> timedelta | None:
        """When drift that begins now is undone."""
        for seconds in range(0, int(within.total_seconds()), max(10, int(within / SECOND) // 2000)):
            now = NOW + seconds * SECOND
            touched = NOW + (now - NOW) // self.every * self.every
            there = a_service(names=named, ours=False, manager="flux", anybody_changed_at=touched)
            found = planned(a_snapshot(OLD, NEW, services=[there], journal=self.journal), now=now)
            for action in found.actions:
                if isinstance(action, NoteService) and action.drift_rounds is not None:
                    noted = Drift(action.drift_rounds, now)
                    self.journal = Journal(drift={str(SHOP): noted})
            if "Repoint" in kinds(found.actions):
                return now - NOW
        return None


def test_one_who_touches_the_service_all_the_time_does_not_put_it_off() -> None:
    """The first time is a minute after it was seen, and that it was seen is noted once."""
    assert Busy(30 * SECOND).undone_after(OLD, HOUR) == MINUTE


@pytest.mark.parametrize("named", [OLD, ELSEWHERE], ids=["ours", "one that we may not look at"])
def test_after_five_rounds_it_does_not_put_it_off_either(
    named: SecretVersion | ObjectRef,
) -> None:
    """D is less than what *late* leaves, so what cannot be read is not served until it ends."""
    undone = Busy(12 * HOUR, Journal(drift={str(SHOP): Drift(5, NOW)})).undone_after(named, 3 * DAY)
    assert undone is not None
    assert DAY <= undone <= DAY + 5 * MINUTE


def test_that_it_was_seen_is_no_round() -> None:
    """It goes into the Journal at once, and only once."""
    found = planned(world(ago=10 * SECOND))
    assert [(type(action), getattr(action, "drift_rounds", None)) for action in found.actions] == [
        (NoteService, 0)
    ]
    assert planned(world(rounds=0, last=10 * SECOND)).actions == ()


def test_it_is_told_who_it_was() -> None:
    """With the other's field manager, what it wrote, and how often it was undone."""
    note = next(note for note in planned(world(rounds=3, last=HOUR)).notes if "drift" in note)
    assert "'argocd-controller'" in note
    assert "'certbaton/shop-1'" in note
    assert "3 times" in note
    assert "gitops" in note


def test_one_without_a_name_is_told_as_well() -> None:
    """Whoever took the annotation away owns nothing."""
    note = next(n for n in planned(world(None, manager=None)).notes if "drift" in n)
    assert "somebody took tls-secret away" in note


def test_what_we_never_had_is_no_drift() -> None:
    """A Service that named something before we came is taken over without ado."""
    fresh = a_version("shop-2", begins=NOW - 10 * DAY)
    there = a_service(names=PINNED, ours=False)
    found = planned(a_snapshot(fresh, services=[there]))
    assert kinds(found.actions) == ["NoteService", "Repoint"]
    assert not any("drift" in note for note in found.notes)


@pytest.mark.parametrize("how", ["written by this process", "undone before"])
def test_what_we_wrote_before_it_was_proven_drifts_too(how: str) -> None:
    """Somebody replaces the whole Service a second after each write: no proof, no entry of ours."""
    fresh = a_version("shop-2", begins=NOW - 10 * DAY)
    snapshot = a_snapshot(fresh, services=[a_service(names=ELSEWHERE, ours=False)])
    if how == "undone before":
        snapshot = replace(snapshot, journal=Journal(drift={str(SHOP): Drift(1, NOW - SECOND)}))
    else:
        snapshot = replace(snapshot, written=frozenset({SHOP}))
    found = planned(snapshot)
    assert any("drift" in note for note in found.notes)
    assert "Repoint" not in kinds(found.actions)


def test_what_another_instance_wrote_is_there_whether_we_may_look_or_not() -> None:
    """Two that take over from each other do so with the pauses of drift."""
    claim = Claim(Instance("second", "elsewhere"), NOW, asked=True)
    snapshot = replace(world(PINNED), claims={SHOP: claim})
    assert kinds(planned(snapshot).actions) == ["NoteService"]


def test_an_ordinary_step_of_ours_is_no_drift() -> None:
    """What stands there is what we wrote."""
    found = planned(a_snapshot(OLD, NEW, services=[a_service(names=OLD)]))
    assert kinds(found.actions) == ["Repoint"]
    assert not any("drift" in note for note in found.notes)


def test_nothing_is_noted_where_the_same_stands_there() -> None:
    """Somebody else wrote the very same: there is nothing to undo."""
    found = planned(world(NEW))
    assert found.actions == ()
    assert found.notes == ()


def incomplete(owned: OwnedFields, journal: Journal | None = None) -> Snapshot:
    """The Service names what we wrote, and lacks what goes with it."""
    there = a_service(names=NEW, complete=False)
    there = replace(there, state=replace(there.state, owned=owned))
    return a_snapshot(OLD, NEW, services=[there], journal=journal)


WROTE = OwnedFields(
    tls_secret=True,
    ssl_ports=True,
    https_port=True,
    changed_at=NOW - DAY,
    tls_secret_changed_at=NOW - DAY,
)


@pytest.mark.parametrize(
    "owned",
    [replace(WROTE, ssl_ports=False), replace(WROTE, https_port=False)],
    ids=["ssl-ports", "port 443"],
)
def test_what_goes_with_it_drifts_as_well(owned: OwnedFields) -> None:
    """Somebody takes ssl-ports or port 443 away, again and again: with the same pauses."""
    first = planned(incomplete(owned))
    assert kinds(first.actions) == ["NoteService", "Repoint"]
    assert any("drift" in note for note in first.notes)
    again = planned(incomplete(owned, Journal(drift={str(SHOP): Drift(2, NOW - MINUTE)})))
    assert again.actions == ()
    assert NOW + 3 * MINUTE in {wait.until for wait in again.waits}


def test_port_443_follows_http_at_once() -> None:
    """Whoever changes where http goes took nothing of ours away."""
    found = planned(incomplete(WROTE, Journal(drift={str(SHOP): Drift(5, NOW)})))
    assert kinds(found.actions) == ["Repoint"]


def paused(snapshot: Snapshot) -> Snapshot:
    state = replace(snapshot.services[SHOP], annotations={PAUSED: "true"})
    return replace(snapshot, services={SHOP: state})


HELD: dict[str, tuple[Snapshot, CertificateSpec]] = {
    "the window is closed": (replace(world(), window_opens_at=NOW + 5 * DAY), a_spec()),
    "the Service is paused": (paused(world()), a_spec()),
    "the certificate is paused": (world(), a_spec(paused=True)),
}


@pytest.mark.parametrize(("snapshot", "spec"), HELD.values(), ids=HELD)
def test_drift_is_told_while_it_may_not_be_undone(
    snapshot: Snapshot, spec: CertificateSpec
) -> None:
    """Who did it can be talked to meanwhile; no time is promised."""
    found = planned(snapshot, spec)
    assert found.actions == ()
    assert (
        "drift: Service shop/shop: field manager 'argocd-controller' set it to "
        "'certbaton/shop-1'; it is not put back now (so far 0 times); docs/gitops.md says how to "
        "make both agree"
    ) in found.notes
