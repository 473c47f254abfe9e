"""Three CAs in a row, and what went wrong at which."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from certbaton.model import (
    Account,
    CaTrouble,
    Failure,
    FailureKind,
    IssuerSpec,
    Journal,
    OrderRecord,
    PendingOrder,
    Plan,
    Rehearsal,
    SecretVersion,
    Snapshot,
    StageOrder,
)
from core.build import (
    DAY,
    HOUR,
    MINUTE,
    NOW,
    SECOND,
    SHOP,
    a_failure,
    a_pending,
    a_service,
    a_snapshot,
    a_spec,
    a_version,
)

STAGE = IssuerSpec("stage", "https://stage.example/d")
FIRST = IssuerSpec("first", "https://first.example/d", rehearsal=STAGE)
SECOND_CA = IssuerSpec("second", "https://second.example/d", profile="short")
THIRD = IssuerSpec("third", "https://third.example/d")
ROW = (FIRST, SECOND_CA, THIRD)
SPEC = a_spec(issuer=FIRST, fallbacks=ROW[1:])
ACCOUNTS = {issuer.name: Account(issuer.directory, f"{issuer.directory}/1") for issuer in ROW}

DUE = a_version("due", begins=NOW - 61 * DAY, directory=FIRST.directory, served={SHOP: "wire"})
LATE = a_version("late", begins=NOW - 76 * DAY, directory=FIRST.directory, served={SHOP: "wire"})
LATE_AT = NOW + 14 * DAY  # when DUE is late


def world(
    *versions: SecretVersion,
    failures: Mapping[str, Failure] | None = None,
    away: Mapping[str, CaTrouble] | None = None,
    pending: PendingOrder | None = None,
    rehearsal: Rehearsal | None = None,
    issued: tuple[OrderRecord, ...] = (),
) -> Snapshot:
    """Versions, and what went wrong at which CA, by its name."""
    directories = {issuer.name: issuer.directory for issuer in ROW}
    return a_snapshot(
        *versions,
        services=[a_service(names=version) for version in versions[:1]],
        account=None,
        accounts=tuple(ACCOUNTS.values()),
        journal=Journal(
            pending=pending,
            failures={directories[name]: found for name, found in (failures or {}).items()},
            rehearsal=rehearsal,
        ),
        ca_troubles={directories[name]: found for name, found in (away or {}).items()},
        issued=issued,
    )


def failed(
    count: int = 1,
    since: timedelta = MINUTE,
    *,
    kind: FailureKind = FailureKind.OTHER,
    waits: timedelta | None = None,
    named: bool = False,
) -> Failure:
    """So often since; it may be tried again now, unless it *waits*."""
    retry_at = NOW + waits if waits else NOW - SECOND
    return a_failure(count=count, since=NOW - since, retry_at=retry_at, kind=kind, named=named)


def outage(count: int, since: timedelta, retry_at: datetime | None = None) -> CaTrouble:
    """So often in a row; the pause is over unless *retry_at* is to come."""
    return CaTrouble(count, NOW - since, NOW - HOUR, "HTTP 502", retry_at)


def staged(found: Plan) -> StageOrder:
    (action,) = [action for action in found.actions if isinstance(action, StageOrder)]
    return action


def an_order(issuer: IssuerSpec, *, finalizing: bool = False) -> PendingOrder:
    return a_pending(
        directory=issuer.directory,
        account_url=f"{issuer.directory}/1",
        profile=issuer.profile,
        finalizing=finalizing,
    )
