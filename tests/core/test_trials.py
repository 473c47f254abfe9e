"""Services that refuse what there is: what is tried there, and when another one is ordered."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import pytest

from certbaton.core.demand import trial_over
from certbaton.model import (
    EVERYWHERE,
    Journal,
    ObjectRef,
    Proof,
    SecretVersion,
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
    a_service,
    a_snapshot,
    a_spec,
    a_version,
    an_event,
    kinds,
    planned,
)

LATE = a_version("shop-1", begins=NOW - 76 * DAY, served={SHOP: Proof(NOW - 76 * DAY, "wire")})
REFUSED = a_version("shop-2", begins=NOW - HOUR, rejected={SHOP: NOW - HOUR})
OCI_REFUSES = an_event(
    "SyncFailed",
    NOW - MINUTE,
    first_at=NOW - 30 * MINUTE,
    count=5,
    message="Http Status Code: 400. Error Code: InvalidParameter. "
    "Operation Name: CreateCertificate.",
)


TRIALS: dict[str, tuple[SecretVersion, list[str]]] = {
    "one that never was there": (a_version("shop-1"), ["Reject"]),
    "one that we came back to unproven": (
        a_version("shop-1", served={SHOP: Proof(NOW - 20 * DAY, "unproven")}),
        ["Reject"],
    ),
    "one that worked there": (
        a_version("shop-1", served={SHOP: Proof(NOW - 20 * DAY, "wire")}),
        [],
    ),
    "one that was refused there already": (
        a_version("shop-1", rejected={SHOP: NOW - MINUTE}),
        [],
    ),
}


@pytest.mark.parametrize(("older", "done"), TRIALS.values(), ids=TRIALS)
def test_an_older_version_in_place_of_a_refused_one_is_judged_like_any_other(
    older: SecretVersion, done: list[str]
) -> None:
    """Unless it was seen on this very listener; a refusal is written down once."""
    there = a_service(names=older, changed_at=NOW - 40 * MINUTE, events=[OCI_REFUSES])
    snapshot = a_snapshot(
        older, REFUSED, services=[there], journal=Journal(last_version=REFUSED.ref.name)
    )
    rolled = [kind for kind in kinds(planned(snapshot).actions) if kind != "StageOrder"]
    assert rolled == done


# --- sick Services, and trials ------------------------------------------------------------------


@dataclass(frozen=True)
class Sick:
    """A Service refused the newest version *ago*, made *made* ago; what it has is late."""

    orders: bool
    ago: timedelta
    made: timedelta
    old: SecretVersion = LATE
    paused: bool = False
    problem: str | None = None
    by: ObjectRef = API


SICK = {
    "a day ago": Sick(True, DAY, DAY + HOUR),
    "not yet a day ago": Sick(False, DAY - MINUTE, DAY + HOUR),
    "a day ago, and the version is younger than that": Sick(False, DAY, DAY - HOUR),
    "a day ago, and what it has is not late": Sick(
        False, DAY, DAY + HOUR, a_version("shop-1", begins=NOW - 74 * DAY)
    ),
    "it is paused": Sick(False, DAY, DAY + HOUR, paused=True),
    "it cannot be written": Sick(False, DAY, DAY + HOUR, problem="type"),
    "nobody refused it": Sick(False, DAY, DAY + HOUR, by=ObjectRef("else", "where")),
}


@pytest.mark.parametrize("case", SICK.values(), ids=SICK)
def test_a_sick_service_may_bring_an_order_every_day(case: Sick) -> None:
    """One that has only refused or late versions; the others are well."""
    newest = a_version(
        "shop-2",
        begins=NOW - case.made,
        served={SHOP: "wire"},
        rejected={case.by: NOW - case.ago},
    )
    api = a_service(API, names=case.old, paused=case.paused, problem=case.problem)
    snapshot = a_snapshot(
        case.old,
        newest,
        services=[a_service(names=newest), api],
        journal=Journal(last_version="shop-2"),
    )
    found = planned(snapshot, a_spec(SHOP, API))
    assert ("StageOrder" in kinds(found.actions)) is case.orders


def refused(days: int, at: timedelta) -> SecretVersion:
    return a_version(f"shop-{days}", begins=NOW - at - HOUR, rejected={EVERYWHERE: NOW - at})


NOT_LATE, GETS_LATE = a_version("ok", begins=NOW - 61 * DAY), a_version("ok", begins=NOW - 76 * DAY)
PAUSES: dict[str, tuple[list[SecretVersion], timedelta | None]] = {
    "none": ([NOT_LATE], None),
    "one: a day": ([NOT_LATE, refused(2, HOUR)], DAY),
    "two: two days": ([NOT_LATE, refused(2, DAY), refused(3, HOUR)], 2 * DAY),
    "three: four days": (
        [NOT_LATE, refused(2, 3 * DAY), refused(3, DAY), refused(4, HOUR)],
        4 * DAY,
    ),
    "three, and late: a day": (
        [GETS_LATE, refused(2, 3 * DAY), refused(3, DAY), refused(4, HOUR)],
        DAY,
    ),
    "three, and nothing else: a day": ([refused(2, 3 * DAY), refused(4, HOUR)], DAY),
}


@pytest.mark.parametrize(("versions", "pause"), PAUSES.values(), ids=PAUSES)
def test_after_a_refusal_the_next_order_waits(
    versions: list[SecretVersion], pause: timedelta | None
) -> None:
    """D, 2D, 4D; D each time once late."""
    over = trial_over(versions, POLICY, a_spec(), NOW)
    assert over == (None if pause is None else NOW - HOUR + pause)
    snapshot = a_snapshot(*versions, services=[a_service(names=versions[0])], journal=Journal())
    found = planned(snapshot)
    assert ("StageOrder" in kinds(found.actions)) is (pause is None)
    if over is not None:
        wait = next(wait for wait in found.waits if "refused" in wait.what)
        assert (wait.until, wait.kind) == (over, WaitKind.BACK_OFF)
        assert "StageOrder" in kinds(planned(snapshot, now=over).actions)


def test_a_version_refused_by_all_does_not_count_as_existing() -> None:
    """Something has to be served, and there is nothing else."""
    only = a_version("shop-1", rejected={EVERYWHERE: NOW - 2 * DAY})
    snapshot: Snapshot = a_snapshot(only, services=[a_service(names=only)], journal=Journal())
    found = planned(snapshot)
    assert kinds(found.actions) == ["StageOrder"]
