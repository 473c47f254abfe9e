"""What is collected where versions were refused: nothing that somebody may go back to."""

from __future__ import annotations

from datetime import timedelta

from certbaton.core.collect import collect, kept
from certbaton.model import (
    EVERYWHERE,
    Action,
    ObjectRef,
    Policy,
    Proof,
    SecretVersion,
)
from core.build import (
    API,
    DAY,
    HOUR,
    NOW,
    POLICY,
    SHOP,
    a_service,
    a_snapshot,
    a_spec,
    a_version,
)

KEEP_NONE = Policy(keep_previous=0)
TWO = a_spec(SHOP, API)


def version(
    number: int,
    *served: ObjectRef,
    rejected: ObjectRef | str | None = None,
    marked: timedelta | None = None,
    how: str = "wire",
) -> SecretVersion:
    """The fourth is the newest, two days old, each before it 20 days older."""
    begins = NOW - 2 * DAY - (4 - number) * 20 * DAY
    return a_version(
        f"shop-{number}",
        begins=begins,
        served={ref: Proof(begins + HOUR, how) for ref in served},
        rejected={rejected: begins + HOUR} if rejected else None,
        marked_at=NOW - marked if marked else None,
    )


def staying(*versions: SecretVersion, policy: Policy = KEEP_NONE) -> set[str]:
    snapshot = a_snapshot(*versions)
    return {ref.name for ref in kept(TWO, snapshot, policy, NOW)}


def test_the_newest_good_one_is_the_newest_that_was_not_refused() -> None:
    """A refused one is no reason to let the one before it go."""
    assert staying(version(3, SHOP, API), version(4, rejected=EVERYWHERE)) == {"shop-3", "shop-4"}


def test_for_each_service_the_newest_proven_one_stays() -> None:
    """Though a newer one is good: that Service refuses it."""
    found = staying(version(2, SHOP, API), version(3, SHOP), version(4, SHOP, rejected=API))
    assert found == {"shop-2", "shop-4"}


def test_unproven_is_not_proven() -> None:
    """By sight or by Ensured only."""
    assert staying(version(3, SHOP, API, how="unproven"), version(4)) == {"shop-4"}
    assert staying(version(3, SHOP, API, how="events"), version(4)) == {"shop-3", "shop-4"}


def test_refusals_that_make_the_next_order_wait_stay() -> None:
    """They tell how long; once one was taken they go."""
    refused = version(3, rejected=EVERYWHERE), version(4, rejected=EVERYWHERE)
    assert staying(version(2, SHOP, API), *refused) == {"shop-2", "shop-3", "shop-4"}
    taken = version(4, SHOP, API)
    assert staying(version(2), version(3, rejected=EVERYWHERE), taken) == {"shop-4"}


def test_one_for_rollback_is_none_that_was_refused() -> None:
    """N = 1 counts good ones."""
    found = staying(version(2), version(3, rejected=EVERYWHERE), version(4), policy=POLICY)
    assert found == {"shop-2", "shop-4"}


def test_without_a_good_one_all_stay() -> None:
    """There may be nothing else to come back to."""
    all_refused = [version(n, rejected=EVERYWHERE) for n in (3, 4)]
    assert staying(*all_refused) == {"shop-3", "shop-4"}


def test_a_service_that_refuses_the_newest_holds_up_no_collecting() -> None:
    """Its handover has ended, if badly; what works there is named, and so stays."""
    newest = version(4, SHOP, rejected=API)
    snapshot = a_snapshot(
        version(2),
        version(3, SHOP, API),
        newest,
        services=[a_service(names=newest), a_service(API, names=version(3))],
    )
    actions, _ = collect(TWO, snapshot, KEEP_NONE, NOW)
    assert [_name(action) for action in actions] == ["MarkForDeletion shop-2"]
    # one that has not been asked yet does
    waiting = a_snapshot(
        version(2),
        version(3, SHOP, API),
        version(4, SHOP),
        services=[a_service(names=newest), a_service(API, names=version(3))],
    )
    assert collect(TWO, waiting, KEEP_NONE, NOW)[0] == []


def test_a_marked_one_that_comes_back_loses_its_mark() -> None:
    """A refusal made it the newest good one again."""
    snapshot = a_snapshot(version(3, SHOP, API, marked=HOUR), version(4, rejected=EVERYWHERE))
    actions, _ = collect(TWO, snapshot, KEEP_NONE, NOW)
    assert [_name(action) for action in actions] == ["Unmark shop-3"]


def _name(action: Action) -> str:
    found = getattr(action, "version")  # noqa: B009
    return f"{type(action).__name__} {found.ref.name}"
