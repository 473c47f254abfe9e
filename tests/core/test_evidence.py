"""What speaks for the end of a handover: what was seen, and what the controller told."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from certbaton.core.rollover import (
    Handover,
    complaint,
    seen,
    sync_of,
)
from certbaton.model import (
    ProbeSpec,
    Route,
    SecretVersion,
    ServiceSpec,
    Sight,
    SyncEvent,
)
from core.build import (
    DAY,
    HOUR,
    MINUTE,
    NOW,
    SECOND,
    SHOP,
    There,
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


# --- seen -----------------------------------------------------------------------------------

TWO_PLACES = [a_sight(NEW, address="192.0.2.1"), a_sight(NEW, address="2001:db8::1")]
SIGHTS: dict[str, tuple[list[Sight], bool]] = {
    "nothing was looked at": ([], False),
    "the wanted leaf": ([a_sight(NEW)], True),
    "the old leaf": ([a_sight(OLD)], False),
    "trouble": ([a_sight(trouble="timeout")], False),
    "the wanted leaf at every address": (TWO_PLACES, True),
    "the old leaf at the second address": ([TWO_PLACES[0], a_sight(OLD)], False),
    "trouble at the second address": ([TWO_PLACES[0], a_sight(trouble="timeout")], False),
    "the old leaf at the second port": ([a_sight(NEW), a_sight(OLD, port=8443)], False),
    "the wanted leaf at every port": ([a_sight(NEW), a_sight(NEW, port=8443)], True),
}


@pytest.mark.parametrize(("sights", "answer"), SIGHTS.values(), ids=SIGHTS)
@pytest.mark.parametrize("route", Route)
def test_seen(route: Route, sights: list[Sight], answer: bool) -> None:
    """Only the wanted leaf counts, and only at every address and port; on either route."""
    assert seen(a_handover(a_service(names=NEW, sights=sights, route=route))) is answer


@pytest.mark.parametrize(
    ("route", "namespace", "answer"),
    [
        (Route.INSIDE, SHOP.namespace, False),
        (Route.INSIDE, "certbaton", True),
        (Route.OUTSIDE, SHOP.namespace, True),
    ],
    ids=["inside, where the pods may mount it", "inside, where they can't", "outside"],
)
def test_the_pods_may_be_what_was_seen(route: Route, namespace: str, answer: bool) -> None:
    """On an inside route, unless the Secret lies in another namespace than theirs."""
    version = a_version("shop-2", namespace=namespace)
    there = a_service(names=version, sights=[a_sight(version)], route=route)
    assert seen(a_handover(there, version)) is answer


def test_a_version_that_cannot_be_read_is_never_seen() -> None:
    """A sight without a leaf is no match for a version without one."""
    broken = a_version(readable=False)
    assert not seen(a_handover(a_service(names=broken, sights=[a_sight()]), broken))


# --- synced ---------------------------------------------------------------------------------


def began(at: datetime = CHANGED + 2 * SECOND, **more: Any) -> SyncEvent:
    return an_event("Ensuring", at, **more)


def ended(at: datetime = CHANGED + 9 * SECOND, **more: Any) -> SyncEvent:
    return an_event("Ensured", at, **more)


FOLDED: dict[str, Any] = {"count": 3, "version": "20", "first_at": NOW - DAY}
NO_VERSION: dict[str, Any] = {"version": ""}

SYNCS: dict[str, tuple[list[SyncEvent], bool]] = {
    "no Events at all": ([], False),
    "it began": ([began()], False),
    "it ended, and nobody heard it begin": ([ended()], False),
    "it began and ended, of our version": ([began(), ended()], True),
    "of a later version": ([began(version="57"), ended(version="57")], True),
    "of the version before": ([began(version="49"), ended(version="49")], False),
    "it began before our change and ended after it": ([began(version="49"), ended()], False),
    "the sync before ended after ours began": ([began(), ended(version="49")], False),
    "told in the wrong order": ([ended(), began()], True),
    "began and ended within one second": ([began(CHANGED), ended(CHANGED)], True),
    "ended before it began, by its times": (
        [began(CHANGED + 9 * SECOND), ended(CHANGED + 2 * SECOND)],
        False,
    ),
    "one of two syncs ended": (
        [began(version="51"), began(CHANGED + 20 * SECOND, version="55"), ended(version="51")],
        True,
    ),
    "it failed": ([began(), an_event("SyncFailed", CHANGED + 9 * SECOND)], False),
    "the load balancer was deleted": ([began(), an_event("Deleted", NOW)], False),
    # without a version the times decide
    "by times": ([began(**NO_VERSION), ended(**NO_VERSION)], True),
    "by times: began in the second of the change": (
        [began(CHANGED, **NO_VERSION), ended(**NO_VERSION)],
        False,
    ),
    "by times: began in a fraction of that second": (
        [began(CHANGED + timedelta(seconds=0.9), **NO_VERSION), ended(**NO_VERSION)],
        False,
    ),
    "by times: began in the next second": (
        [began(CHANGED + SECOND, **NO_VERSION), ended(**NO_VERSION)],
        True,
    ),
    "by times: began and ended in one second, which may be two syncs": (
        [began(**NO_VERSION), ended(CHANGED + 2 * SECOND, **NO_VERSION)],
        False,
    ),
    "by times: the sync before": (
        [began(CHANGED - 5 * SECOND, **NO_VERSION), ended(**NO_VERSION)],
        False,
    ),
    # an Event that happened again carries the first one's version, and its times grow
    "folded: began and ended again": ([began(**FOLDED), ended(**FOLDED)], True),
    "folded: its latest beginning was before our change": (
        [began(CHANGED - 5 * SECOND, **FOLDED), ended(**FOLDED)],
        False,
    ),
    "folded: its latest end was before its latest beginning": (
        [began(**FOLDED), ended(CHANGED + SECOND, **FOLDED)],
        False,
    ),
    "folded beginning, single end": ([began(**FOLDED), ended()], True),
    "single beginning, folded end": ([began(), ended(**FOLDED)], True),
    "folded: a count is no version": ([began(count=3), ended(CHANGED, count=3)], False),
    # an Event that is made anew after its hour keeps its old count
    "made anew: its version is of our change, whatever its count": (
        [began(CHANGED, count=3), ended(CHANGED + SECOND, count=3)],
        True,
    ),
    # anybody may write Events
    "forged: a version that is none": ([began(version="5²"), ended(version="5²")], True),
    "forged: a version of 5000 digits": (
        [began(CHANGED, version="9" * 5000), ended(version="9" * 5000)],
        False,
    ),
    "forged: a negative version": ([began(version="-1"), ended(version="-1")], True),
}


@pytest.mark.parametrize(("events", "answer"), SYNCS.values(), ids=SYNCS)
def test_synced(events: list[SyncEvent], answer: bool) -> None:
    """A sync that the controller began *and* ended after our change, as far as Events can tell."""
    there = a_service(names=NEW, changed_at=CHANGED, reference_version=PATCH_VERSION, events=events)
    assert (sync_of(a_handover(there)) is not None) is answer


def test_versions_are_compared_as_numbers() -> None:
    """Version 100 came after version 99."""
    events = [began(version="100"), ended(version="100")]
    there = a_service(names=NEW, reference_version="99", events=events)
    assert sync_of(a_handover(there)) is not None


def test_a_change_that_was_not_ours_has_no_time() -> None:
    """A Service that somebody else pointed at our version: times prove nothing, versions do."""
    by_time = a_service(names=NEW, changed_at=None, events=[began(version=""), ended(version="")])
    assert sync_of(a_handover(by_time)) is None
    by_version = a_service(names=NEW, changed_at=None, events=[began(), ended()])
    assert sync_of(a_handover(by_version)) is not None


def test_an_unknown_version_of_the_change_proves_nothing() -> None:
    """Nothing is compared with what is no number."""
    there = a_service(names=NEW, reference_version="", events=[began(), ended()])
    assert sync_of(a_handover(there)) is None


# --- what the controller complains of -------------------------------------------------------


def failed(at: datetime, message: str, version: str = "50") -> SyncEvent:
    return an_event("SyncFailed", at, message=message, version=version)


COMPLAINTS: dict[str, tuple[list[SyncEvent], str | None]] = {
    "no Events": ([], None),
    "only good news": ([began(), ended()], None),
    "one": ([failed(NOW, "LimitExceeded")], "LimitExceeded"),
    "the latest of two": (
        [failed(NOW, "later"), failed(NOW - 5 * SECOND, "earlier")],
        "later",
    ),
    "of the sync before": ([failed(NOW, "old", version="49")], None),
    "from before our change": ([failed(CHANGED, "old", version="")], None),
}


@pytest.mark.parametrize(("events", "message"), COMPLAINTS.values(), ids=COMPLAINTS)
def test_complaint(events: list[SyncEvent], message: str | None) -> None:
    """The latest that can be about this change."""
    there = a_service(names=NEW, changed_at=CHANGED, events=events)
    assert complaint(a_handover(there)) == message
