"""
What one certificate needs now: a pure function of (spec, snapshot, policy, now).

Nothing here is remembered between two calls. The stage of a rollover is read
off the Secrets, the Services, the Journal and what the listeners serve, so a
crash anywhere resumes from the cluster alone.
"""

from __future__ import annotations

from datetime import datetime

from certbaton.core import advice, claims, rehearsals
from certbaton.core.collect import collect
from certbaton.core.demand import late
from certbaton.core.handover import Draft, roll_out
from certbaton.core.orders import order
from certbaton.core.renewal import clock_trouble
from certbaton.model import (
    CertificateSpec,
    ObjectRef,
    Plan,
    Policy,
    PutBackJournal,
    Snapshot,
    Unmark,
)


def plan(
    certificate: str,
    spec: CertificateSpec | None,
    snapshot: Snapshot,
    policy: Policy,
    now: datetime,
    refused: frozenset[ObjectRef] = frozenset(),
) -> Plan:
    """
    Plan for one certificate; *spec* is None where it left the configuration.

    *refused* are Services whose last write failed and is tried again later: the
    others don't wait for them.

    Rollout and collection come before the order in the list of actions: what
    may take minutes must not hold up what takes one write. Rehearsals asked for by hand come
    after the order, and renewal information, which is only advice, comes last.
    """
    draft = Draft(certificate, notes=list(snapshot.problems))
    claimed = claims.in_force(snapshot, policy, now) if spec else {}
    told = {ref: claims.sentence(ref, claim, policy, now) for ref, claim in claimed.items()}
    draft.notes += told.values()
    draft.waits += [claims.wait_for(ref, claim, policy, now) for ref, claim in claimed.items()]
    if spec is not None and claimed:
        spec, snapshot = claims.without(spec, snapshot, claimed)
    # what would be issued then, no listener would be given
    unused = bool(claimed) and not snapshot.bindings
    trouble = clock_trouble(snapshot, policy, now)
    if trouble is not None:
        draft.notes.append(trouble)
    if spec is not None and snapshot.journal_lost:
        why = "somebody deleted it; it holds what our own limits are counted from"
        draft.actions.append(PutBackJournal(certificate, why))
    if spec is not None:
        roll_out(draft, spec, snapshot, policy, now, refused)
    else:
        for version in snapshot.versions:
            if version.ref in snapshot.references:
                draft.notes.append(
                    f"{version.ref} is of a certificate that is no longer configured, and a "
                    "Service still names it: it stays, and nobody renews it"
                )
    if spec is not None and spec.paused:
        draft.notes.append(f"paused: {certificate} is neither renewed, rolled out nor collected")
        if not unused:
            notes = late(spec, snapshot, policy, now)
            draft.notes += [f"paused and {sentence}" for sentence in notes]
        if rehearsals.is_asked(snapshot):
            # it would place an order and write challenges, as any other
            draft.notes.append(f"paused: {rehearsals.refused(spec)}; take the pause off first")
    else:
        actions, waits = collect(spec, snapshot, policy, now)
        if trouble is not None:
            actions = [action for action in actions if isinstance(action, Unmark)]
        draft.actions += actions
        draft.waits += waits
        if not unused or _is_at_the_ca(snapshot):
            order(draft, spec, snapshot, policy, now)
        if spec is not None and not unused:
            # last, since a CA that is slow to advise must not hold up what is due
            asked, later = advice.checks(spec, snapshot, policy, now)
            draft.actions += asked
            draft.waits += later
    return Plan(
        certificate,
        tuple(claims.explained(action, snapshot) for action in draft.actions),
        tuple(sorted(draft.waits, key=lambda wait: wait.until)),
        tuple(draft.notes),
        draft.due,
        told,
    )


def _is_at_the_ca(snapshot: Snapshot) -> bool:
    """Say whether an order was begun that is better ended than left open there."""
    pending = snapshot.journal.pending if snapshot.journal else None
    return pending is not None and pending.url is not None
