"""
When the key of an account is changed: while no order is open that was begun with the old one.
"""

from __future__ import annotations

from datetime import datetime

from certbaton.core.handover import Draft
from certbaton.core.issuers import away_until
from certbaton.model import (
    CertificateSpec,
    IssuerSpec,
    Outcome,
    Policy,
    RollAccountKey,
    Snapshot,
    Wait,
    WaitKind,
)


def roll_accounts(
    draft: Draft, spec: CertificateSpec, snapshot: Snapshot, policy: Policy, now: datetime
) -> None:
    """Bring changes of account keys to their end, where no order is open; new ones wait."""
    issuers: dict[str, IssuerSpec] = {}
    for issuer in spec.issuers:
        for each in (issuer, *((issuer.rehearsal,) if issuer.rehearsal else ())):
            issuers.setdefault(each.directory, each)
    for directory, issuer in issuers.items():
        account = snapshot.accounts.get(directory)
        if account is None or not account.rolling or account.url is None:
            continue
        open_ = _open_at(spec, directory, snapshot)
        away = away_until(directory, spec.name, snapshot, policy, now)
        if away is not None:
            draft.waits.append(away)
        elif open_:
            what = f"the account key at {issuer.name} is changed when orders have ended there: "
            until = now + policy.backstop
            draft.waits.append(Wait(what + ", ".join(open_), until, WaitKind.IN_FLIGHT))
        else:
            why = f"the account key at {issuer.name} is being changed"
            draft.actions.append(RollAccountKey(spec.name, why, issuer))


def _open_at(spec: CertificateSpec, directory: str, snapshot: Snapshot) -> list[str]:
    """Name the certificates that have an order, or a rehearsal, open at *directory*."""
    found = set(snapshot.open_orders.get(directory, ()))
    journal = snapshot.journal
    if journal is not None:
        rehearsal = journal.rehearsal
        ours = journal.pending is not None and journal.pending.directory == directory
        if rehearsal is not None and rehearsal.outcome is Outcome.OPEN and rehearsal.url:
            ours = ours or rehearsal.directory == directory
        found |= {spec.name} if ours else set()
    return sorted(found)
