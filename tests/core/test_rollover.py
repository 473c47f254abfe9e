"""How long a handover is waited for, and how it ends."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from certbaton.core.rollover import (
    EVENTS,
    UNPROVEN,
    WIRE,
    Handover,
    give_up_time,
    judge,
    still_unproven,
)
from certbaton.model import (
    ObjectRef,
    ProbeSpec,
    Proof,
    Route,
    SecretVersion,
    ServiceSpec,
    Wait,
    WaitKind,
)
from core.build import (
    DAY,
    HOUR,
    MINUTE,
    NOW,
    POLICY,
    SECOND,
    SHOP,
    There,
    a_hash,
    a_service,
    a_sight,
    a_version,
    an_event,
)

OLD = a_version("shop-1", begins=NOW - 60 * DAY)
NEW = a_version("shop-2", begins=NOW - HOUR)
# the change of the Service: in the middle of a second, which the API server cuts off
CHANGED = NOW - MINUTE
PATCH_VERSION = "50"


def a_handover(
    there: There | None = None, version: SecretVersion = NEW, probe: ProbeSpec | None = None
) -> Handover:
    there = there or a_service(names=version, changed_at=CHANGED)
    return Handover(
        ServiceSpec(SHOP, probe=probe or ProbeSpec()),
        there.state,
        there.binding,
        there.listener,
        version,
    )


# --- how long one Service is waited for -----------------------------------------------------


def version_of(lasts: timedelta, left: timedelta) -> SecretVersion:
    """A version with *left* of its life left at the change."""
    return a_version(begins=CHANGED + left - lasts, lasts=lasts)


PATIENCE: dict[str, tuple[Route, timedelta, list[SecretVersion], int, timedelta]] = {
    "inside: a quarter of an hour": (Route.INSIDE, 90 * DAY, [], 1, 15 * MINUTE),
    "inside, short-lived: a tenth of its life": (Route.INSIDE, HOUR, [], 1, 6 * MINUTE),
    "inside: whatever the old one has left": (
        Route.INSIDE,
        90 * DAY,
        [version_of(90 * DAY, MINUTE)],
        3,
        15 * MINUTE,
    ),
    "outside: an hour": (Route.OUTSIDE, 90 * DAY, [], 1, HOUR),
    "outside: an hour, where the old one has a month left": (
        Route.OUTSIDE,
        90 * DAY,
        [version_of(90 * DAY, 30 * DAY)],
        10,
        HOUR,
    ),
    "outside: half of what the old one has left": (
        Route.OUTSIDE,
        90 * DAY,
        [version_of(90 * DAY, HOUR)],
        1,
        30 * MINUTE,
    ),
    "outside: divided among the Services to go": (
        Route.OUTSIDE,
        90 * DAY,
        [version_of(90 * DAY, HOUR)],
        3,
        10 * MINUTE,
    ),
    "outside: the one that ends first counts": (
        Route.OUTSIDE,
        90 * DAY,
        [version_of(90 * DAY, DAY), version_of(90 * DAY, HOUR)],
        1,
        30 * MINUTE,
    ),
    "outside: none to go counts as one": (
        Route.OUTSIDE,
        90 * DAY,
        [version_of(90 * DAY, HOUR)],
        0,
        30 * MINUTE,
    ),
    "outside: no time at all once the old one has expired": (
        Route.OUTSIDE,
        90 * DAY,
        [version_of(90 * DAY, -DAY)],
        1,
        timedelta(0),
    ),
    "outside: what cannot be read has no end": (
        Route.OUTSIDE,
        90 * DAY,
        [a_version(readable=False)],
        1,
        HOUR,
    ),
}


@pytest.mark.parametrize(
    ("route", "lasts", "in_use", "to_go", "patience"), PATIENCE.values(), ids=PATIENCE
)
def test_patience(
    route: Route, lasts: timedelta, in_use: list[SecretVersion], to_go: int, patience: timedelta
) -> None:
    """Bounded from the change on, so that one sick Service never holds the rest until they end."""
    version = a_version("shop-2", begins=NOW - HOUR, lasts=lasts)
    there = a_service(names=version, changed_at=CHANGED, route=route)
    until = give_up_time(a_handover(there, version), in_use, to_go, POLICY)
    assert until is not None and until - CHANGED == patience


def test_a_change_that_was_not_ours_is_waited_for_from_notbefore() -> None:
    """Some beginning there must be, and it did not name it before that."""
    there = a_service(names=NEW, changed_at=None)
    assert give_up_time(a_handover(there), [], 1, POLICY) == NOW - HOUR + HOUR


# --- the verdict ----------------------------------------------------------------------------

UNDER_WAY = a_service(names=NEW, changed_at=CHANGED)
GIVEN_UP = a_service(names=NEW, changed_at=NOW - HOUR)
SYNCED = (
    an_event("Ensuring", CHANGED + 2 * SECOND),
    an_event("Ensured", CHANGED + 9 * SECOND),
)

VERDICTS: dict[str, tuple[There, str | None, str | None]] = {
    "seen": (a_service(names=NEW, sights=[a_sight(NEW)]), None, WIRE),
    "outside, the controller says it ended, unseen": (
        a_service(names=NEW, events=SYNCED),
        None,
        "wait",
    ),
    "inside, the controller says it ended": (
        a_service(names=NEW, events=SYNCED, route=Route.INSIDE),
        None,
        EVENTS,
    ),
    "inside, seen too": (
        a_service(names=NEW, sights=[a_sight(NEW)], events=SYNCED, route=Route.INSIDE),
        None,
        WIRE,
    ),
    "nothing yet": (UNDER_WAY, None, "wait"),
    "the old leaf, still": (a_service(names=NEW, sights=[a_sight(OLD)]), None, "wait"),
    "nothing, and the time is over": (GIVEN_UP, None, UNPROVEN),
    "nothing, a second before it is over": (
        a_service(names=NEW, changed_at=NOW - HOUR + SECOND),
        None,
        "wait",
    ),
    "the old leaf after an hour is no refusal": (
        a_service(names=NEW, changed_at=NOW - HOUR, sights=[a_sight(OLD)]),
        None,
        UNPROVEN,
    ),
    "unproven, nothing new": (GIVEN_UP, UNPROVEN, None),
    "unproven, nothing new, changed since": (UNDER_WAY, UNPROVEN, None),
    "unproven, now seen": (
        a_service(names=NEW, changed_at=NOW - HOUR, sights=[a_sight(NEW)]),
        UNPROVEN,
        WIRE,
    ),
    "unproven, inside, now synced": (
        a_service(names=NEW, changed_at=CHANGED, events=SYNCED, route=Route.INSIDE),
        UNPROVEN,
        EVENTS,
    ),
    "proven by the wire stays": (
        a_service(names=NEW, changed_at=NOW - HOUR, sights=[a_sight(OLD)]),
        WIRE,
        None,
    ),
    "proven by Events stays, though seen now": (
        a_service(names=NEW, sights=[a_sight(NEW)]),
        EVENTS,
        None,
    ),
}


@pytest.mark.parametrize(("there", "proof", "answer"), VERDICTS.values(), ids=VERDICTS)
def test_verdict(there: There, proof: str | None, answer: str | None) -> None:
    """How it ended, to be noted; a wait; or None where nothing is to do."""
    noted = Proof(NOW - DAY, proof) if proof else None
    found = judge(a_handover(there), noted, [], 1, POLICY, NOW)
    assert ("wait" if isinstance(found, Wait) else found) == answer


SENTENCES: dict[str, tuple[There, ProbeSpec, str]] = {
    "what is shown": (
        a_service(names=NEW, sights=[a_sight(OLD)]),
        ProbeSpec(),
        f"192.0.2.1 port 443 shows leaf {OLD.leaf.sha256[:16] if OLD.leaf else ''}",
    ),
    "why nothing is shown": (
        a_service(names=NEW, sights=[a_sight(trouble="connection refused")]),
        ProbeSpec(),
        "shows connection refused",
    ),
    "what the controller says, before what is shown": (
        a_service(
            names=NEW,
            sights=[a_sight(OLD)],
            events=[an_event("SyncFailed", message="LimitExceeded")],
        ),
        ProbeSpec(),
        "; the controller says: LimitExceeded",
    ),
    "that there is no address": (a_service(names=NEW, addresses=()), ProbeSpec(), "no address yet"),
    "nothing of addresses where one is configured": (
        a_service(names=NEW, addresses=()),
        ProbeSpec(address="198.51.100.7"),
        "serves certbaton/shop-2",
    ),
    "how to get a better view": (
        a_service(names=NEW, route=Route.INSIDE),
        ProbeSpec(),
        "(from inside the cluster the listener cannot be seen; annotate the Service with "
        "oci.oraclecloud.com/ingress-ip-mode: proxy, or set services[].probe.address)",
    ),
}


@pytest.mark.parametrize(("there", "probe", "end"), SENTENCES.values(), ids=SENTENCES)
def test_the_sentence_of_a_wait_ends_with(there: There, probe: ProbeSpec, end: str) -> None:
    """It names Service and Secret, and the best that is known of why."""
    found = judge(a_handover(there, probe=probe), None, [], 1, POLICY, NOW)
    assert isinstance(found, Wait)
    assert found.what.startswith(
        "Service shop/shop: waiting until its listener serves certbaton/shop-2"
    )
    assert found.what.endswith(end)


def test_a_long_complaint_is_cut() -> None:
    """Whoever can write Events cannot fill our log."""
    there = a_service(names=NEW, events=[an_event("SyncFailed", message="x" * 100_000)])
    found = judge(a_handover(there), None, [], 1, POLICY, NOW)
    assert isinstance(found, Wait) and len(found.what) < 600


def test_it_is_looked_at_again_soon_but_not_after_the_time_is_over() -> None:
    """A wait in flight: the next look is a second away, or when patience ends."""
    found = judge(a_handover(UNDER_WAY), None, [], 1, POLICY, NOW)
    assert isinstance(found, Wait)
    assert (found.until, found.kind) == (NOW + SECOND, WaitKind.IN_FLIGHT)
    slow = replace(POLICY, poll_listener=2 * HOUR)
    found = judge(a_handover(UNDER_WAY), None, [], 1, slow, NOW)
    assert isinstance(found, Wait) and found.until == CHANGED + HOUR


def test_a_version_in_the_services_own_namespace_can_be_proven_by_events() -> None:
    """Inside, where no sight counts, a sync still does."""
    version = a_version(namespace=SHOP.namespace)
    there = a_service(
        names=ObjectRef(SHOP.namespace, version.ref.name),
        sights=[a_sight(version)],
        events=SYNCED,
        route=Route.INSIDE,
    )
    assert judge(a_handover(there, version), None, [], 1, POLICY, NOW) == EVENTS


# --- given up, and still not there ----------------------------------------------------------

LIMIT = an_event("SyncFailed", message="LimitExceeded")
ELSEWHERE = "; see the Service's Events, and the cloud controller's log"
NAMES_IT = "Service shop/shop names certbaton/shop-2, and"
SHOWS = "192.0.2.1 port 443 still shows"
ENDS = a_version("shop-late", begins=NOW - 76 * DAY)
ENDED = a_version("shop-dead", begins=NOW - 91 * DAY)

TOLD: dict[str, tuple[There, str | None]] = {
    "nothing is seen": (GIVEN_UP, None),
    "it is seen": (a_service(names=NEW, sights=[a_sight(NEW)], events=[LIMIT]), None),
    "another leaf": (
        a_service(names=NEW, sights=[a_sight(OLD)]),
        f"unproven: {NAMES_IT} {SHOWS} certbaton/shop-1",
    ),
    "another leaf, that nobody knows": (
        a_service(names=NEW, sights=[a_sight(a_version("unknown"))]),
        f"unproven: {NAMES_IT} {SHOWS} leaf {a_hash('unknown')[:16]}",
    ),
    "another leaf, that is late": (
        a_service(names=NEW, sights=[a_sight(ENDS)]),
        f"late: {NAMES_IT} {SHOWS} certbaton/shop-late, which ends at 2027-03-15T12:00:00Z",
    ),
    "another leaf, that has expired": (
        a_service(names=NEW, sights=[a_sight(ENDED)]),
        f"expired: {NAMES_IT} {SHOWS} certbaton/shop-dead, which ended at 2027-02-28T12:00:00Z",
    ),
    "an alert": (
        a_service(names=NEW, sights=[a_sight(trouble="TLS alert no luck", alert=True)]),
        f"unproven: {NAMES_IT} 192.0.2.1 port 443 answers with an alert (TLS alert no luck)",
    ),
    "silence": (a_service(names=NEW, sights=[a_sight(trouble="no answer")]), None),
    "another leaf, and the controller complains": (
        a_service(names=NEW, sights=[a_sight(OLD)], events=[LIMIT]),
        f"unproven: {NAMES_IT} {SHOWS} certbaton/shop-1; the controller says: LimitExceeded",
    ),
    "the controller complains": (
        a_service(names=NEW, events=[LIMIT], route=Route.INSIDE),
        f"unproven: {NAMES_IT} its listener was not seen to serve it; the controller says: "
        "LimitExceeded",
    ),
    "the controller complained before it succeeded": (
        a_service(
            names=NEW,
            changed_at=CHANGED,
            events=[*SYNCED, an_event("SyncFailed", CHANGED + 4 * SECOND, message="409")],
        ),
        None,
    ),
    "another leaf, by a route that proves nothing": (
        a_service(names=NEW, sights=[a_sight(OLD)], route=Route.INSIDE),
        None,
    ),
}


@pytest.mark.parametrize(("there", "note"), TOLD.values(), ids=TOLD)
def test_what_speaks_against_an_unproven_end_is_told_as_long_as_it_does(
    there: There, note: str | None
) -> None:
    """With what is seen, what the controller says, and where to look; louder if that is late."""
    known = {v.leaf.sha256: (v.ref, v.leaf) for v in (OLD, ENDS, ENDED) if v.leaf}
    found = still_unproven(a_handover(there), Proof(NOW - MINUTE, UNPROVEN), known, POLICY, NOW)
    assert found == (note + ELSEWHERE if note else None)
    for proof in (None, Proof(NOW - MINUTE, WIRE)):
        assert still_unproven(a_handover(there), proof, known, POLICY, NOW) is None
