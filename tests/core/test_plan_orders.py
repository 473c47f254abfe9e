"""What is planned of orders: the rows of the crash table, and what holds an order back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from certbaton.model import (
    Account,
    AdvanceOrder,
    CloseOrder,
    DropOrder,
    Journal,
    OrderRecord,
    PendingOrder,
    SecretVersion,
    StageOrder,
    WaitKind,
)
from core.build import (
    ACCOUNT_URL,
    DAY,
    DIRECTORY,
    HOUR,
    NAMES,
    NOW,
    SECOND,
    SHOP,
    There,
    a_failure,
    a_pending,
    a_service,
    a_snapshot,
    a_spec,
    a_version,
    kinds,
    planned,
)


def on(version: SecretVersion) -> There:
    """The Service, naming *version*."""
    return a_service(names=version)


# --- the order: the rows of the crash table ----------------------------------------------------

URL = "https://ca.example/order/1"
STAGED = a_pending(url=None)
OPEN = a_pending()
DUE = a_version("due", begins=NOW - 70 * DAY, served={SHOP: "wire"})
FRESH = a_version("fresh", begins=NOW - HOUR, served={SHOP: "wire"}, key="pending key")


@dataclass(frozen=True)
class Row:
    """A moment of an order, and what comes next."""

    do: list[str]
    versions: Sequence[SecretVersion] = ()
    journal: Journal = field(default_factory=Journal)
    account: Account | str | None = ACCOUNT_URL
    complete: bool = True


CRASHES = {
    "nothing yet": Row(["EnsureAccount"], account=None),
    "account key stored": Row(["EnsureAccount"], account=Account(DIRECTORY, None)),
    "account URL stored": Row(["StageOrder"]),
    "key in the Journal": Row(["AdvanceOrder"], journal=Journal(pending=STAGED)),
    "URL recorded": Row(["AdvanceOrder"], journal=Journal(pending=OPEN)),
    "certificate downloaded, Secret not written": Row(
        ["AdvanceOrder"], journal=Journal(pending=replace(OPEN, chain="PEM"))
    ),
    "TLS Secret created": Row(["CloseOrder"], [FRESH], Journal(pending=OPEN)),
    "order closed": Row([], [FRESH], Journal(last_version="fresh")),
    "due": Row(["StageOrder"], [DUE], Journal(last_version="due")),
    "due, and an order is open": Row(["AdvanceOrder"], [DUE], Journal(pending=OPEN)),
    "due, order ended": Row(["CloseOrder"], [DUE, FRESH], Journal(pending=OPEN)),
    "an order is open that nobody needs any more": Row(
        ["AdvanceOrder"], [replace(FRESH, leaf=a_version("new").leaf)], Journal(pending=OPEN)
    ),
    "the CA forgot the account": Row(
        ["EnsureAccount"], journal=Journal(pending=OPEN), account=Account(DIRECTORY, None)
    ),
    "the cluster was not read whole": Row([], complete=False),
    "an order is open, the cluster was not read whole": Row(
        [], journal=Journal(pending=OPEN), complete=False
    ),
    "it has ended, the cluster was not read whole": Row(
        ["CloseOrder"], [FRESH], Journal(pending=OPEN), complete=False
    ),
}


@pytest.mark.parametrize("row", CRASHES.values(), ids=CRASHES)
def test_crash_table(row: Row) -> None:
    """Whatever stands in the world, the next step follows from it alone."""
    there = [on(version) for version in row.versions[:1]]
    snapshot = a_snapshot(
        *row.versions,
        services=there,
        journal=row.journal,
        account=row.account,
        complete=row.complete,
    )
    found = planned(snapshot)
    orders = ("EnsureAccount", "StageOrder", "AdvanceOrder", "CloseOrder")
    assert [kind for kind in kinds(found.actions) if kind in orders] == row.do


def test_closing_names_the_version_that_the_order_ended_in() -> None:
    """The key tells which; it goes into the Journal as the last version."""
    found = planned(a_snapshot(DUE, FRESH, journal=Journal(pending=OPEN)))
    closing = [action for action in found.actions if isinstance(action, CloseOrder)]
    assert [action.version for action in closing] == ["fresh"]


# --- an order that is not what is asked for ---------------------------------------------------

CONTINUED = {
    "as asked for": (OPEN, False),
    "other names": (a_pending(names=NAMES[:1]), True),
    "another key type": (a_pending(key_type="P-256"), True),
    "another directory": (a_pending(directory="https://staging.example/d"), True),
    "another account": (a_pending(account_url="https://ca.example/account/2"), True),
}


@pytest.mark.parametrize(("pending", "other"), CONTINUED.values(), ids=CONTINUED)
def test_an_order_of_something_else_is_dropped(pending: PendingOrder, other: bool) -> None:
    """Never continued: it was not finalized, so no certificate is lost."""
    (action,) = planned(a_snapshot(journal=Journal(pending=pending))).actions
    if other:
        assert isinstance(action, DropOrder) and action.pending == pending
        assert "it is not what is asked for now" in action.why
    else:
        assert isinstance(action, AdvanceOrder) and not action.finish_only


def test_an_order_for_a_key_that_was_compromised_meanwhile_is_dropped() -> None:
    """A key that is reused lies in the open order too; no CA would sign for it any more."""
    revoked = a_version(revoked="keyCompromise")
    assert revoked.leaf is not None
    key = revoked.leaf.public_key_sha256
    pending = replace(OPEN, public_key_sha256=key, url="https://ca.example/order/2")
    kept = replace(revoked, order_url="https://ca.example/order/1")
    spec = replace(a_spec(), reuse_key=True)
    found = planned(a_snapshot(kept, journal=Journal(pending=pending)), spec)
    assert "DropOrder" in kinds(found.actions) and "AdvanceOrder" not in kinds(found.actions)


COMMITTED: dict[str, dict[str, Any]] = {
    "finalize may have been sent": {"finalizing": True},
    "its certificate was there": {"certificate_url": "https://ca.example/cert/1"},
    "it was downloaded": {"chain": "PEM"},
}


@pytest.mark.parametrize("how", COMMITTED.values(), ids=COMMITTED)
@pytest.mark.parametrize(("pending", "other"), CONTINUED.values(), ids=CONTINUED)
def test_one_that_may_have_been_signed_is_awaited(
    pending: PendingOrder, other: bool, how: dict[str, Any]
) -> None:
    """Whatever is asked for by now: a certificate that nobody fetches is wasted."""
    pending = replace(pending, **how)
    (action,) = planned(a_snapshot(journal=Journal(pending=pending))).actions
    assert isinstance(action, AdvanceOrder) and action.finish_only is other
    assert ("only awaited" in action.why) is other


def test_the_open_order_of_a_certificate_that_left_is_dropped_or_awaited() -> None:
    """And no account is made for it, whatever became of the old one."""
    for account in (ACCOUNT_URL, None):
        snapshot = a_snapshot(journal=Journal(pending=OPEN), account=account)
        (dropped,) = planned(snapshot, configured=False).actions
        assert isinstance(dropped, DropOrder)
        journal = Journal(pending=replace(OPEN, finalizing=True))
        snapshot = a_snapshot(journal=journal, account=account)
        (awaited,) = planned(snapshot, configured=False).actions
        assert isinstance(awaited, AdvanceOrder)
        assert awaited.finish_only and awaited.spec is None


# --- what holds an order back -----------------------------------------------------------------


def test_nothing_is_ordered_while_the_journals_failure_waits() -> None:
    """Neither an account nor an order, begun or not; the wait tells why, and how often."""
    failure = a_failure(retry_at=NOW + SECOND, count=3, message="no such record")
    for journal in (
        Journal(failures={DIRECTORY: failure}),
        Journal(failures={DIRECTORY: failure}, pending=OPEN),
    ):
        for account in (ACCOUNT_URL, None):
            found = planned(a_snapshot(journal=journal, account=account))
            assert found.actions == ()
            (wait,) = [wait for wait in found.waits if wait.kind is WaitKind.BACK_OFF]
            assert wait.until == NOW + SECOND
            assert wait.what == ("failed 3 time(s) in a row, tried again then: no such record")


def test_it_is_tried_again_when_the_wait_is_over() -> None:
    """At that very moment."""
    journal = Journal(failures={DIRECTORY: a_failure(retry_at=NOW)})
    assert kinds(planned(a_snapshot(journal=journal)).actions) == ["StageOrder"]


def test_a_failure_of_long_ago_is_no_wait_while_nothing_is_due() -> None:
    """A valid version, and a Journal that remembers."""
    journal = Journal(failures={DIRECTORY: a_failure(retry_at=NOW + DAY)}, last_version="fresh")
    found = planned(a_snapshot(FRESH, services=[on(FRESH)], journal=journal))
    assert found.actions == ()
    assert [wait.kind for wait in found.waits] == [WaitKind.LATER]


def test_a_failure_does_not_keep_what_is_stored_from_being_closed() -> None:
    """Closing asks no CA for a certificate."""
    journal = Journal(failures={DIRECTORY: a_failure(retry_at=NOW + DAY)}, pending=OPEN)
    found = planned(a_snapshot(FRESH, services=[on(FRESH)], journal=journal))
    assert kinds(found.actions) == ["CloseOrder"]


def test_our_own_limit_holds_a_new_order_back_but_not_one_that_is_open() -> None:
    """The open one was counted by the CA when it was placed."""
    issued = [OrderRecord(NOW - DAY, DIRECTORY, NAMES)] * 4
    found = planned(a_snapshot(issued=issued))
    assert found.actions == ()
    (wait,) = [wait for wait in found.waits if wait.kind is not WaitKind.IN_FLIGHT]
    assert (wait.kind, wait.until) == (WaitKind.BACK_OFF, NOW + 6 * DAY)
    found = planned(a_snapshot(issued=issued, journal=Journal(pending=OPEN)))
    assert kinds(found.actions) == ["AdvanceOrder"]


@pytest.mark.parametrize(
    ("journal", "list_first"),
    [
        (None, True),
        (Journal(), True),
        (Journal(last_version="due"), False),
        (Journal(last_version="another"), True),
    ],
    ids=["no Journal", "no record", "its version is there", "its version is not there"],
)
def test_versions_are_listed_live_first(journal: Journal | None, list_first: bool) -> None:
    """Where a predecessor may have stored what our watch has not delivered yet."""
    found = planned(a_snapshot(DUE, services=[on(DUE)], journal=journal))
    (action,) = found.actions
    assert isinstance(action, StageOrder) and action.list_first is list_first
