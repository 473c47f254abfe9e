"""When a version is refused, by what, and how far that reaches; and what refuses nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from certbaton.core.reject import refusal, rejection, showed_before, trials
from certbaton.core.rollover import Handover
from certbaton.model import (
    EVERYWHERE,
    ObjectRef,
    Proof,
    Route,
    SecretVersion,
    ServiceSpec,
    Sight,
    SyncEvent,
)
from core.build import (
    API,
    DAY,
    HOUR,
    MINUTE,
    NOW,
    POLICY,
    SECOND,
    SHOP,
    a_service,
    a_sight,
    a_snapshot,
    a_spec,
    a_version,
    an_event,
)

OTHER = ObjectRef("other", "other")
OLD = a_version("shop-1", begins=NOW - 60 * DAY, served={SHOP: Proof(NOW - 60 * DAY, "wire")})
NEW = a_version("shop-2", begins=NOW - HOUR)
# we made the Service name NEW ten minutes ago, which gave it resourceVersion 50
CHANGED = NOW - 10 * MINUTE
OURS = frozenset({OLD.ref, NEW.ref})

ALERT = a_sight(trouble="TLS alert handshake_failure", alert=True)
BEGAN = an_event("Ensuring", CHANGED + 2 * SECOND)
ENDED = an_event("Ensured", CHANGED + 10 * SECOND)
SYNC = [BEGAN, ENDED]

REFUSED = (
    "Error syncing load balancer: failed to ensure load balancer: ensuring ssl certificates: Error "
    "returned by LoadBalancer Service. Http Status Code: 400. Error Code: InvalidParameter. Opc "
    "request id: a. Message: no. Operation Name: CreateCertificate. Timestamp: 1"
)
FOLDED = "(combined from similar events): " + REFUSED


def failed(
    message: str = REFUSED,
    at: timedelta = timedelta(minutes=5),
    *,
    count: int = 1,
    first: timedelta | None = None,
    version: str = "50",
) -> SyncEvent:
    """A sync that failed, *at* after our change; it *first* happened before, if it did."""
    return an_event(
        "SyncFailed",
        CHANGED + at,
        first_at=CHANGED + first if first is not None else None,
        count=count,
        version=version,
        message=message,
    )


TWICE = [failed(), failed(at=6 * MINUTE)]


@dataclass(frozen=True)
class Case:
    """Out of the box: outside, an alert seen, a sync ended ten minutes ago."""

    refused: bool
    sights: Sequence[Sight] = (ALERT,)
    events: Sequence[SyncEvent] = field(default_factory=lambda: SYNC)
    version: SecretVersion = NEW
    route: Route = Route.OUTSIDE
    showed: bool = True
    backend: ObjectRef | None = None
    ago: timedelta = timedelta(0)
    anybody: timedelta | None = None
    ours: bool = True


def served(how: str) -> SecretVersion:
    return a_version("shop-2", begins=NOW - HOUR, served={SHOP: Proof(NOW - 9 * MINUTE, how)})


WIRE: dict[str, Case] = {
    "an alert after a sync of this": Case(True),
    # only an alert
    "an older leaf": Case(False, sights=[a_sight(OLD)]),
    "a refused connection": Case(False, sights=[a_sight(trouble="connection refused")]),
    "nothing was seen": Case(False, sights=[]),
    "an alert at the second address": Case(True, sights=[a_sight(OLD), ALERT]),
    "an alert at one address, the new leaf at the other": Case(False, sights=[ALERT, a_sight(NEW)]),
    # only where it speaks
    "inside": Case(False, route=Route.INSIDE),
    "a route that never showed a leaf": Case(False, showed=False),
    "it was served there": Case(False, version=served("wire")),
    "the controller had put it there, by its Events": Case(False, version=served("events")),
    "its handover ended unproven": Case(True, version=served("unproven")),
    # only after a sync
    "no Events": Case(False, events=[]),
    "Ensuring alone": Case(False, events=[BEGAN]),
    "Ensured alone": Case(False, events=[ENDED]),
    "a sync of the Service as it was before": Case(
        False,
        events=[
            an_event("Ensuring", CHANGED + SECOND, version="49"),
            an_event("Ensured", CHANGED + 10 * SECOND, version="49"),
        ],
    ),
    "a sync of a later version of the Service": Case(
        True,
        events=[
            an_event("Ensuring", CHANGED + SECOND, version="55"),
            an_event("Ensured", CHANGED + 10 * SECOND, version="55"),
        ],
    ),
    "two syncs, neither of which is there whole": Case(
        False,
        events=[BEGAN, an_event("Ensured", CHANGED + 10 * SECOND, version="55")],
    ),
    "an Event that counts, of this from the first time on": Case(
        True,
        events=[
            an_event("Ensuring", CHANGED + MINUTE, first_at=CHANGED + SECOND, count=2),
            an_event("Ensured", CHANGED + 2 * MINUTE, first_at=CHANGED + 10 * SECOND, count=2),
        ],
    ),
    "somebody changed tls-secret since": Case(False, anybody=timedelta(minutes=1)),
    "somebody changed tls-secret before that sync": Case(True, anybody=timedelta(seconds=1)),
    # min(5 min, L/20) after its end
    "five minutes ago": Case(True, ago=5 * MINUTE - 10 * SECOND),
    "not yet five minutes ago": Case(False, ago=5 * MINUTE - 9 * SECOND),
}

EVENTS: dict[str, Case] = {
    "twice": Case(True, events=TWICE),
    "once": Case(False, events=[failed()]),
    "inside as well": Case(True, events=TWICE, route=Route.INSIDE),
    "a route that never showed a leaf": Case(True, events=TWICE, showed=False),
    "the old leaf is still there": Case(True, events=TWICE, sights=[a_sight(OLD)]),
    "it was served there": Case(False, events=TWICE, version=served("wire")),
    # begun after the last change
    "one of them of the Service as it was before": Case(
        False, events=[failed(), failed(version="49")]
    ),
    "both of them": Case(False, events=[failed(version="49"), failed(version="48")]),
    "somebody changed it since": Case(False, events=TWICE, anybody=timedelta(minutes=7)),
    "a version that is none": Case(False, events=[failed(), failed(version="٣")]),
    "a version too long to be one": Case(False, events=[failed(), failed(version="9" * 5000)]),
    # the same words again: an Event that counts, whose version is that of the first time
    "counted twice, of this from the first time on": Case(True, events=[failed(count=2)]),
    "counted three times, of which the first may be of the sync before": Case(
        True, events=[failed(count=3, first=MINUTE, version="49")]
    ),
    "counted twice, of which the first may be": Case(
        False, events=[failed(count=2, first=MINUTE, version="49")]
    ),
    "counted since before our change": Case(
        False, events=[failed(count=9, first=-MINUTE, version="49")]
    ),
    "counted, and all before our change": Case(
        False, events=[failed(count=9, at=-MINUTE, first=-HOUR, version="40")]
    ),
    # folded: the count is of all kinds of failures, the words are the newest's
    "folded, counted nine times": Case(False, events=[failed(FOLDED, count=9, first=MINUTE)]),
    "folded, once": Case(False, events=[failed(FOLDED)]),
    "folded, and another": Case(True, events=[failed(FOLDED), failed()]),
    # the other certificate that the same sync puts there
    "the backends' Secret is somebody else's": Case(
        False, events=TWICE, backend=ObjectRef("shop", "backend-ca")
    ),
    "the backends' Secret is ours": Case(True, events=TWICE, backend=NEW.ref),
}

# what the place says of itself
PLACE = {
    "LimitExceeded": REFUSED.replace("InvalidParameter", "LimitExceeded"),
    "409": REFUSED.replace("400", "409").replace("InvalidParameter", "InvalidatedRetryToken"),
    "429": REFUSED.replace("400", "429").replace("InvalidParameter", "TooManyRequests"),
    "500": REFUSED.replace("400", "500").replace("InvalidParameter", "InternalServerError"),
    "InvalidParameter of a listener": REFUSED.replace("CreateCertificate", "UpdateListener"),
    "404": REFUSED.replace("400", "404").replace("InvalidParameter", "NotAuthorizedOrNotFound"),
    "a work request": "Error syncing load balancer: WorkRequest x failed: InvalidParameter",
    "in progress": "Error syncing load balancer: An operation for the service is already running",
    "missing": 'Error syncing load balancer: reading SSL Listener Secret: secrets "X" not found',
    "the words in another order of things": "InvalidParameter CreateCertificate 400",
}


def judged(case: Case) -> str | None:
    there = a_service(
        names=NEW,
        changed_at=CHANGED,
        route=case.route,
        sights=case.sights,
        events=case.events,
        backend=case.backend,
        anybody_changed_at=CHANGED + case.anybody if case.anybody is not None else None,
    )
    handover = Handover(
        ServiceSpec(SHOP),
        there.state,
        there.binding,
        there.listener,
        case.version,
        case.showed,
    )
    return refusal(handover, OURS, POLICY, NOW - case.ago)


@pytest.mark.parametrize("case", WIRE.values(), ids=WIRE)
def test_refused_by_the_wire(case: Case) -> None:
    """A TLS alert, outside, where a leaf was seen before, well after a sync of this."""
    found = judged(case)
    assert (found is not None) is case.refused
    assert found is None or "alert" in found


@pytest.mark.parametrize("case", EVENTS.values(), ids=EVENTS)
def test_refused_by_events(case: Case) -> None:
    """OCI's one unmistakable word, twice, in syncs begun after the last change by anybody."""
    found = judged(case)
    assert (found is not None) is case.refused
    assert found is None or "OCI refuses it" in found


@pytest.mark.parametrize("words", PLACE.values(), ids=PLACE)
@pytest.mark.parametrize("count", [1, 30])
def test_what_speaks_against_the_place_refuses_nothing(words: str, count: int) -> None:
    """However often: the same version again, later."""
    events = [
        failed(words, at=number * MINUTE, count=count, first=number * MINUTE) for number in (1, 2)
    ]
    assert judged(Case(False, sights=(), events=events)) is None


def test_the_times_shrink_with_the_lifetime() -> None:
    """Of ten minutes: half a minute after the sync."""
    short = a_version("shop-2", begins=NOW - 5 * MINUTE, lasts=10 * MINUTE)
    at = CHANGED + 10 * SECOND + 30 * SECOND
    assert judged(Case(True, version=short, ago=NOW - at)) is not None
    assert judged(Case(False, version=short, ago=NOW - at + SECOND)) is None


# --- how far it reaches ---------------------------------------------------------------------


@dataclass(frozen=True)
class Reach:
    """Refused at the Service shop: what is known of api and other, if they are there."""

    key: str
    served: tuple[ObjectRef, ...] = ()
    refused: tuple[ObjectRef, ...] = ()
    unproven: tuple[ObjectRef, ...] = ()
    there: tuple[ObjectRef, ...] = (API, OTHER)
    asked: tuple[ObjectRef, ...] = (API, OTHER)
    paused: bool = False
    problem: str | None = None
    deleting: bool = False
    kinds: frozenset[str] | None = None


REACHES = {
    "the first that refuses it": Reach(str(SHOP)),
    "the second": Reach(EVERYWHERE, refused=(API,)),
    "another one serves it": Reach(str(SHOP), served=(API,)),
    "one serves it, one refuses it": Reach(str(SHOP), served=(API,), refused=(OTHER,)),
    "another one may serve it: not proven": Reach(str(SHOP), unproven=(API,)),
    "there is no other asked for": Reach(EVERYWHERE, asked=()),
    "the other is not there": Reach(EVERYWHERE, there=(), asked=(API,)),
    "the other is being deleted": Reach(EVERYWHERE, deleting=True),
    "the others are paused": Reach(EVERYWHERE, paused=True),
    "the others cannot be written": Reach(EVERYWHERE, problem="no port named http"),
    "the others could not serve its kind of key": Reach(EVERYWHERE, kinds=frozenset({"EC"})),
}


@pytest.mark.parametrize("case", REACHES.values(), ids=REACHES)
def test_how_far_a_refusal_reaches(case: Reach) -> None:
    """First one Service, one further one is tried, then all."""
    version = a_version(
        "shop-2",
        begins=NOW - HOUR,
        served={
            **dict.fromkeys(case.served, "wire"),
            **dict.fromkeys(case.unproven, "unproven"),
        },
        rejected=dict.fromkeys(case.refused, NOW),
    )
    shop = a_service(names=version)
    others = [
        a_service(
            ref,
            names=OLD,
            paused=case.paused,
            problem=case.problem,
            deleting=case.deleting,
            key_kinds=case.kinds,
        )
        for ref in case.there
    ]
    snapshot = a_snapshot(OLD, version, services=[shop, *others])
    handover = Handover(ServiceSpec(SHOP), shop.state, shop.binding, shop.listener, version)
    found = rejection(a_spec(SHOP, *case.asked), handover, "no.", snapshot)
    assert (found.service, found.version) == (case.key, version)
    assert str(SHOP) in found.why


# --- what was there before -------------------------------------------------------------------

SHOWN = {
    "another version was seen there": ([OLD, NEW], True),
    "only this one": ([served("wire")], False),
    "another one by Events only": ([a_version("shop-1", served={SHOP: "events"}), NEW], False),
    "another one elsewhere": ([a_version("shop-1", served={API: "wire"}), NEW], False),
    "none": ([NEW], False),
}


@pytest.mark.parametrize(("versions", "answer"), SHOWN.values(), ids=SHOWN)
def test_whether_the_route_showed_a_leaf_before(
    versions: list[SecretVersion], answer: bool
) -> None:
    """Who never saw anything there knows nothing by an alert."""
    assert showed_before(versions, NEW, SHOP) is answer


# --- trials ---------------------------------------------------------------------------------


def trial(number: int, *, rejected: bool = True, how: str | None = None) -> SecretVersion:
    """The *number*-th day's version, refused by all an hour after it was made."""
    begins = NOW - 30 * DAY + number * DAY
    return a_version(
        f"shop-{number}",
        begins=begins,
        rejected={EVERYWHERE: begins + HOUR} if rejected else None,
        served={SHOP: how} if how else None,
    )


TRIALS: dict[str, tuple[list[SecretVersion], list[int]]] = {
    "none": ([trial(1, rejected=False, how="wire")], []),
    "one": ([trial(1, rejected=False, how="wire"), trial(2)], [2]),
    "three": ([trial(1, rejected=False, how="wire"), trial(2), trial(4), trial(3)], [2, 3, 4]),
    "before one was taken": ([trial(1), trial(2, rejected=False, how="events"), trial(3)], [3]),
    "the one since is unproven": ([trial(1), trial(2, rejected=False, how="unproven")], [1]),
    "the first ever": ([trial(1)], [1]),
    "one that was refused by one Service only": (
        [a_version("shop-2", rejected={SHOP: NOW})],
        [],
    ),
    "an unreadable one": ([a_version("x", readable=False, rejected={EVERYWHERE: NOW})], []),
}


@pytest.mark.parametrize(("versions", "days"), TRIALS.values(), ids=TRIALS)
def test_which_trials_count(versions: list[SecretVersion], days: list[int]) -> None:
    """Refusals by all, since a version was last taken."""
    assert trials(versions) == [NOW - 30 * DAY + day * DAY + HOUR for day in days]
