"""What is planned for one certificate: one listener at a time, and in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from certbaton.core.plan import plan
from certbaton.model import (
    MarkServed,
    ObjectRef,
    Proof,
    Repoint,
    Route,
    SecretVersion,
    Snapshot,
    Unmark,
    Wait,
    WaitKind,
)
from core.build import (
    API,
    DAY,
    HOME,
    HOUR,
    MINUTE,
    NOW,
    POLICY,
    SECOND,
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

WEB = ObjectRef("web", "web")
OLD = a_version("shop-1", begins=NOW - 60 * DAY, served={SHOP: "wire", API: "wire"})
NEW = a_version("shop-2", begins=NOW - HOUR)
GONE, BY_HAND = ObjectRef(HOME, "shop-0"), ObjectRef("shop", "by-hand")
TWO = a_spec(SHOP, API)


def sentences(snapshot: Snapshot) -> str:
    return "\n".join(wait.what for wait in planned(snapshot).waits)


# --- the rollout ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Roll:
    """Services in the world, and what is done: ``R`` repoint, ``S`` served, ``U`` un-mark."""

    there: Sequence[There]
    done: str
    waits: Sequence[str] = ()
    new: SecretVersion = NEW


def on(ref: ObjectRef, version: SecretVersion, *, seen: bool = False, **more: object) -> There:
    """A Service that names *version*, and shows it if *seen*."""
    sights = [a_sight(version)] if seen else []
    return a_service(ref, names=version, sights=sights, **more)  # type: ignore[arg-type]


SERVED = a_version("shop-2", begins=NOW - HOUR, served={SHOP: "wire"})
ONCE = a_version("shop-2", begins=NOW - HOUR, served={SHOP: Proof(NOW - MINUTE, "wire")})
UNPROVEN = a_version("shop-2", begins=NOW - HOUR, served={SHOP: "unproven"})
MARKED = replace(NEW, marked_at=NOW - HOUR)
NEITHER = a_service(SHOP), a_service(API)

ROLLS = {
    "neither Service names anything: the first, the second waits": Roll(
        NEITHER, "R shop/shop", ["Service api/api is next, after shop/shop"]
    ),
    "both name the old one: the first, the second waits": Roll(
        [on(SHOP, OLD), on(API, OLD)], "R shop/shop", ["Service api/api is next, after shop/shop"]
    ),
    "the first names it and is waited for: the second waits": Roll(
        [on(SHOP, NEW), on(API, OLD)],
        "",
        ["Service shop/shop: waiting until", "Service api/api is next, after shop/shop"],
    ),
    "the first shows it: noted, and the second follows": Roll(
        [on(SHOP, NEW, seen=True), on(API, OLD)], "S shop/shop R api/api"
    ),
    "the first has been served: the second": Roll(
        [on(SHOP, SERVED), on(API, OLD)], "R api/api", new=SERVED
    ),
    "the first had it, lost it and got it back: it has to be seen there again": Roll(
        [on(SHOP, ONCE, changed_at=NOW - SECOND), on(API, OLD)],
        "",
        ["Service shop/shop: waiting until", "Service api/api is next, after shop/shop"],
        ONCE,
    ),
    "the first had it, got it back and shows it: noted again": Roll(
        [on(SHOP, ONCE, changed_at=NOW - SECOND, seen=True)],
        "S shop/shop",
        ["Service api/api is not there"],
        ONCE,
    ),
    "the first is given up: noted, and the second follows": Roll(
        [on(SHOP, NEW, changed_at=NOW - HOUR), on(API, OLD)], "S shop/shop R api/api"
    ),
    "the first is unproven: the second": Roll(
        [on(SHOP, UNPROVEN), on(API, OLD)], "R api/api", new=UNPROVEN
    ),
    "the first is unproven and shows it now: noted again": Roll(
        [on(SHOP, UNPROVEN, seen=True), on(API, UNPROVEN)],
        "S shop/shop",
        ["Service api/api: waiting until"],
        UNPROVEN,
    ),
    "the first came when the second had begun: the second is waited for": Roll(
        [on(SHOP, OLD), on(API, NEW)],
        "",
        ["Service api/api: waiting until", "Service shop/shop is next, after api/api"],
    ),
    "the first is not there: it waits, the second goes on": Roll(
        [a_service(API)], "R api/api", ["Service shop/shop is not there"]
    ),
    "the first is being deleted: it waits, the second goes on": Roll(
        [a_service(SHOP, deleting=True), a_service(API)],
        "R api/api",
        ["Service shop/shop is not there"],
    ),
    "the first cannot be written: one sentence, the second goes on": Roll(
        [a_service(SHOP, problem="its port has no name"), a_service(API)],
        "R api/api",
        ["its port has no name"],
    ),
    "the first names it, lacks a port and cannot be written": Roll(
        [on(SHOP, NEW, complete=False, problem="https is taken"), a_service(API)],
        "R api/api",
        ["https is taken"],
    ),
    "the first names it and lacks a port: written again": Roll(
        [on(SHOP, NEW, complete=False), a_service(API)],
        "R shop/shop",
        ["Service api/api is next, after shop/shop"],
    ),
    "a problem of what is in place is none": Roll(
        [on(SHOP, SERVED, problem="odd"), on(API, SERVED, seen=True)], "S api/api", new=SERVED
    ),
    "a Service names a Secret by hand: it is replaced": Roll(
        [a_service(SHOP, names=BY_HAND, ours=False, anybody_changed_at=NOW - HOUR), on(API, OLD)],
        "R shop/shop",
        ["Service api/api is next, after shop/shop"],
    ),
    "the version is marked: the mark comes off first": Roll(
        NEITHER, "U U", ["Service api/api is next, after shop/shop"], MARKED
    ),
}


@pytest.mark.parametrize("case", ROLLS.values(), ids=ROLLS)
def test_roll_out(case: Roll) -> None:
    """One listener at a time; what waits for somebody else holds nobody up."""
    found = planned(a_snapshot(OLD, case.new, services=case.there), TWO)
    short = []
    for action in found.actions:
        match action:
            case Repoint(service=service, version=version):
                assert version == case.new
                short.append(f"R {service.ref}")
            case MarkServed(service=ref):
                short.append(f"S {ref}")
            case Unmark():
                short.append("U")
    assert " ".join(short) == case.done
    flying = [wait.what for wait in found.waits if wait.kind is not WaitKind.LATER]
    assert len(flying) == len(case.waits), flying
    for what, start in zip(sorted(flying), sorted(case.waits), strict=True):
        assert what.startswith(start)


def test_three_services_one_after_the_other() -> None:
    """The third waits for the first, too, not for the second that has not begun."""
    spec = a_spec(SHOP, API, WEB)
    found = planned(a_snapshot(NEW, services=[a_service(ref) for ref in (SHOP, API, WEB)]), spec)
    assert kinds(found.actions) == ["Repoint"]
    assert [wait.what for wait in found.waits if "next" in wait.what] == [
        "Service api/api is next, after shop/shop",
        "Service web/web is next, after shop/shop",
    ]


def test_patience_with_one_service_is_shared_with_those_that_still_have_to_come() -> None:
    """Half of what the oldest leaf in use has left, divided by two Services to go."""
    begins = NOW + 55 * MINUTE - 90 * DAY
    ends = a_version("shop-1", begins=begins, served={API: "wire"})
    for ago, done in ((15 * MINUTE, []), (25 * MINUTE, ["MarkServed", "Repoint"])):
        there = [on(SHOP, NEW, changed_at=NOW - ago), on(API, ends)]
        assert kinds(planned(a_snapshot(ends, NEW, services=there), TWO).actions) == done


def test_a_service_that_refused_to_be_written_holds_nobody_up() -> None:
    """It is still to be written, when its time comes; the next one does not wait for it."""
    snapshot = a_snapshot(NEW, services=NEITHER)
    refused = plan("shop", TWO, snapshot, POLICY, NOW, frozenset({SHOP})).actions
    assert [action.service.ref for action in refused if isinstance(action, Repoint)] == [SHOP, API]
    moving = a_snapshot(NEW, services=[a_service(SHOP), on(API, NEW)])
    assert plan("shop", TWO, moving, POLICY, NOW, frozenset({SHOP})).actions == ()


def test_rollout_and_collection_come_before_the_order() -> None:
    """What may take minutes must not hold up what takes one write."""
    due = a_version("due", begins=NOW - 70 * DAY, served={API: "wire"})
    junk = a_version("junk", begins=NOW - 80 * DAY, readable=False)
    there = [a_service(API, names=due), a_service(SHOP)]
    snapshot = a_snapshot(due, junk, services=there)
    assert kinds(planned(snapshot, TWO).actions) == ["Repoint", "StageOrder"]
    served = replace(due, served={**due.served, str(SHOP): due.served[str(API)]})
    snapshot = a_snapshot(served, junk, services=[on(API, served), on(SHOP, served)])
    assert kinds(planned(snapshot, TWO).actions) == ["MarkForDeletion", "StageOrder"]


def test_a_version_that_is_due_is_still_handed_over() -> None:
    """A renewal that cannot be had is no reason to serve something older."""
    due = a_version("due", begins=NOW - 70 * DAY)
    assert "Repoint" in kinds(planned(a_snapshot(due, services=[a_service()])).actions)


def test_an_expired_version_that_is_named_stays_named() -> None:
    """There is nothing better yet: an order, and nothing else."""
    expired = a_version(begins=NOW - 100 * DAY)
    found = planned(a_snapshot(expired, services=[on(SHOP, expired)]))
    assert kinds(found.actions) == ["StageOrder"]


def test_a_version_that_only_begins_later_is_waited_for() -> None:
    """With the CA's clock ahead of ours: no second order, no deletion, and a wait in flight."""
    new = a_version("new", begins=NOW + 4 * MINUTE)
    old = a_version("old", begins=NOW - 70 * DAY, served={SHOP: "wire"})
    found = planned(a_snapshot(old, new, services=[on(SHOP, old)]))
    assert found.actions == ()
    assert found.waits == (
        Wait("certbaton/new begins only then", NOW + 4 * MINUTE, WaitKind.IN_FLIGHT),
    )


# --- a Service that names what is gone ------------------------------------------------------

FITS_NO_MORE = a_version("shop-1", names=("shop.example",))


@pytest.mark.parametrize(
    ("there", "versions", "answer"),
    [
        (a_service(names=GONE), [FITS_NO_MORE], "Repoint"),
        (a_service(names=GONE, ours=False), [FITS_NO_MORE], None),
        (a_service(), [FITS_NO_MORE], None),
        (on(SHOP, FITS_NO_MORE), [FITS_NO_MORE], None),
        (a_service(names=GONE), [replace(FITS_NO_MORE, flaw="broken")], None),
        (a_service(names=GONE), [a_version(begins=NOW - 100 * DAY)], None),
    ],
    ids=[
        "we wrote it, and there is a valid one: better than nothing",
        "somebody else wrote it",
        "it names nothing",
        "it names one of ours",
        "there is only a broken one",
        "there is only an expired one",
    ],
)
def test_while_nothing_fits(
    there: There, versions: list[SecretVersion], answer: str | None
) -> None:
    """A Service that names a missing Secret of ours gets the newest valid one meanwhile."""
    found = planned(a_snapshot(*versions, services=[there]))
    rolled = [kind for kind in kinds(found.actions) if kind in ("Repoint", "MarkServed")]
    assert rolled == ([answer] if answer else [])
    assert "StageOrder" in kinds(found.actions)


def test_a_version_deleted_by_hand_while_it_was_named() -> None:
    """The Service goes back to the best that is there, and no order is placed for it."""
    found = planned(a_snapshot(OLD, services=[a_service(names=NEW)]), now=NOW - 5 * DAY)
    assert kinds(found.actions) == ["Repoint"]


# --- what is told ---------------------------------------------------------------------------


LATE = a_version("shop-1", begins=NOW - 80 * DAY, served={SHOP: "wire"})
EXPIRED = a_version("shop-1", begins=NOW - 91 * DAY, served={SHOP: "wire"})


@pytest.mark.parametrize(
    ("named", "names", "word"),
    [(LATE, None, "late"), (LATE, ("new.example",), "late"), (EXPIRED, None, "expired")],
    ids=["it fits", "other names are asked for by now", "its time is over"],
)
def test_a_late_certificate_is_told_of(
    named: SecretVersion, names: tuple[str, ...] | None, word: str
) -> None:
    """With a sixth of its life left, renewing has not worked so far."""
    spec = replace(a_spec(), names=names) if names else a_spec()
    notes = planned(a_snapshot(named, services=[on(SHOP, named)]), spec).notes
    assert [note.split(":")[0] for note in notes] == [word]


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize(("days", "word"), [(80, "late"), (91, "expired"), (60, None)])
def test_a_hand_made_secret_that_runs_out_is_told_of(
    days: int, word: str | None, paused: bool
) -> None:
    """It is still to be replaced, and a pause keeps it from that: louder."""
    there = a_service(names=BY_HAND, ours=False)
    leaf = a_leaf(begins=NOW - days * DAY)
    snapshot = a_snapshot(services=[there], foreign={BY_HAND: leaf})
    notes = planned(snapshot, a_spec(paused=paused)).notes
    told = [note for note in notes if "Service shop/shop" in note and str(BY_HAND) in note]
    assert [note.split(":")[0] for note in told] == (
        [f"paused and {word}" if paused else word] if word else []
    )


def test_a_service_that_is_being_deleted_holds_nobody_up() -> None:
    """Its load balancer may take minutes to go."""
    going = on(SHOP, NEW, deleting=True)
    found = planned(a_snapshot(OLD, NEW, services=[going, on(API, OLD)]), TWO)
    assert [a.service.ref for a in found.actions if isinstance(a, Repoint)] == [API]


def test_a_service_that_names_what_we_wrote_and_is_gone_is_told_of() -> None:
    """Somebody deleted a Secret that a Service still names."""
    notes = planned(a_snapshot(NEW, services=[a_service(SHOP, names=GONE)])).notes
    assert [note for note in notes if str(GONE) in note and "gone" in note]


def test_a_service_that_no_longer_can_have_a_certificate_is_told_of() -> None:
    """Also when nothing is to be written there."""
    there = on(SHOP, SERVED, problem="it is an nlb now")
    assert planned(a_snapshot(SERVED, services=[there])).notes == ("it is an nlb now",)


def test_who_cannot_see_is_told_how_to_see_better() -> None:
    """An inside route that ends unproven names the annotation that opens an outside one."""
    there = on(SHOP, NEW, changed_at=NOW - HOUR, route=Route.INSIDE)
    found = planned(a_snapshot(NEW, services=[there])).actions
    assert [type(item) for item in found] == [MarkServed]
    assert isinstance(found[0], MarkServed)
    assert "ingress-ip-mode: proxy" in str(found[0].hint)
    assert found[0].since == NOW - HOUR


def test_a_service_that_cannot_be_written_is_a_failure_and_no_wait() -> None:
    """Somebody has to change it: `once` ends at once, and says so."""
    found = planned(a_snapshot(NEW, services=[a_service(SHOP, problem="its port has no name")]))
    assert [wait.kind for wait in found.waits if wait.kind is not WaitKind.LATER] == [
        WaitKind.BACK_OFF
    ]


@pytest.mark.parametrize("backstop", [MINUTE, 6 * HOUR], ids=str)
def test_what_speaks_against_an_unproven_end_is_looked_at_while_events_tell_of_it(
    backstop: timedelta,
) -> None:
    """They are kept for an hour; `once` does not wait for that."""
    policy = replace(POLICY, backstop=backstop)
    there = a_service(SHOP, names=UNPROVEN, sights=[a_sight(OLD)])
    waits = planned(a_snapshot(UNPROVEN, services=[there]), policy=policy).waits
    (look,) = [wait for wait in waits if wait.what == "Service shop/shop is looked at again"]
    assert (look.kind, look.until) == (WaitKind.LATER, NOW + min(backstop, 15 * MINUTE))
