"""
What one certificate needs now: a pure function of (spec, snapshot, policy, now).

Nothing here is remembered between two calls. The stage of a rollover is read
off the Secrets, the Services, the Journal and what the listeners serve, so a
crash anywhere resumes from the cluster alone.
"""

from __future__ import annotations

from datetime import datetime

from certbaton.core import claims
from certbaton.core.choose import REMEDY, nobody_serves
from certbaton.core.collect import collect
from certbaton.core.demand import adopted_until, kept_until, sick_service, trial_over
from certbaton.core.handover import Draft, roll_out
from certbaton.core.renewal import (
    Need,
    clock_trouble,
    late_time,
    limit_reached,
    need,
    newest_first,
    renewal_time,
    upcoming_version,
    wanted_version,
)
from certbaton.model import (
    AdvanceOrder,
    CertificateSpec,
    CloseOrder,
    EnsureAccount,
    ObjectRef,
    PendingOrder,
    Plan,
    Policy,
    PutBack,
    PutBackJournal,
    Reason,
    Snapshot,
    StageOrder,
    Unmark,
    Wait,
    WaitKind,
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
    may take minutes must not hold up what takes one write.
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
            late = _late(spec, snapshot, policy, now)
            draft.notes += [f"paused and {sentence}" for sentence in late]
    else:
        actions, waits = collect(spec, snapshot, policy, now)
        if trouble is not None:
            actions = [action for action in actions if isinstance(action, Unmark)]
        draft.actions += actions
        draft.waits += waits
        if not unused or _is_at_the_ca(snapshot):
            _order(draft, spec, snapshot, policy, now)
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


# --- the order ------------------------------------------------------------------------


def _order(
    draft: Draft, spec: CertificateSpec | None, snapshot: Snapshot, policy: Policy, now: datetime
) -> None:
    wanted, held = _wanted(spec, snapshot, policy, now) if spec else (None, None)
    if held is not None:
        draft.waits.append(held)
    coming = upcoming_version(spec, snapshot.versions, now) if spec else None
    if wanted:
        draft.due = wanted.since
    elif coming and coming.leaf:
        begins = coming.leaf.not_before
        draft.waits.append(Wait(f"{coming.ref} begins only then", begins, WaitKind.IN_FLIGHT))
    elif spec and held is None:
        version = wanted_version(spec, snapshot.versions, now)
        if version and version.leaf:
            due = renewal_time(spec.name, version.leaf, policy)
            draft.waits.append(Wait(f"{version.ref} is due for renewal", due, WaitKind.LATER))
    if spec:
        draft.notes += _late(spec, snapshot, policy, now)
    if snapshot.journal_lost:
        return  # nobody orders without a Journal in the cluster: it is looked at again
    journal = snapshot.journal
    pending = journal.pending if journal else None
    if pending is not None:
        closing = _closing(draft.certificate, pending, snapshot)
        if closing is not None:
            draft.actions.append(closing)
            return
    elif wanted is None or spec is None:
        return
    directory = spec.issuer.directory if spec else (pending.directory if pending else "")
    failure = journal.failures.get(directory) if journal else None
    if failure is not None and now < failure.retry_at:
        draft.waits.append(
            Wait(
                f"failed {failure.count} time(s) in a row, tried again then: {failure.message}",
                failure.retry_at,
                WaitKind.BACK_OFF,
            )
        )
        return
    if not snapshot.complete:
        draft.waits.append(
            Wait("the cluster could not be read whole", now + policy.backstop, WaitKind.IN_FLIGHT)
        )
        return
    account = snapshot.accounts.get(directory)
    if spec is not None and (account is None or account.url is None):
        why = f"there is no account at {spec.issuer.directory} yet"
        draft.actions.append(EnsureAccount(draft.certificate, why, spec.issuer))
        return
    if pending is not None:
        finish_only = not _continues(pending, spec, account.url if account else None)
        why = f"order of {pending.staged_at:%FT%TZ} is open ({pending.reason})"
        if finish_only:
            why += "; it is not what is asked for now, so it is only awaited"
        draft.actions.append(AdvanceOrder(draft.certificate, why, spec, pending, finish_only))
        return
    if wanted is None or spec is None:
        return
    if any(isinstance(action, PutBack) for action in draft.actions):
        return  # it is looked at again with what was put back
    # records bear the API server's time
    limit = limit_reached(spec, snapshot, policy, now + snapshot.clock_apart)
    if limit is not None:
        over = limit[1] - snapshot.clock_apart
        draft.waits.append(Wait(limit[0], over, WaitKind.BACK_OFF))
        return
    trouble = clock_trouble(snapshot, policy, now)
    current = wanted_version(spec, snapshot.versions, now)
    leaf = current.leaf if current else None
    if trouble is not None and leaf is not None and now < late_time(leaf, policy):
        draft.waits.append(Wait(trouble, now + policy.backstop, WaitKind.BACK_OFF))
        return
    trial = trial_over(snapshot.versions, policy, spec, now)
    if trial is not None and now < trial:
        what = "the last certificate was refused by its listeners; another is ordered"
        draft.waits.append(Wait(what, trial, WaitKind.BACK_OFF))
        return
    known = {version.ref.name for version in snapshot.versions}
    # a predecessor may have stored what our watch has not delivered yet
    list_first = journal is None or journal.last_version not in known
    draft.actions.append(StageOrder(spec.name, wanted.why, spec, wanted.reason, list_first))


def _wanted(
    spec: CertificateSpec, snapshot: Snapshot, policy: Policy, now: datetime
) -> tuple[Need | None, Wait | None]:
    """Say what is to be ordered; or where it would not be used, what that waits for."""
    wanted = need(spec, snapshot.versions, policy, now)
    if wanted and wanted.reason is Reason.RENEWING:
        kept = kept_until(spec, snapshot, policy, now)
        if kept is not None:
            what = "what its Services name is valid longer than a new certificate would be"
            return None, Wait(f"{what}; it is due", kept, WaitKind.LATER)
    wanted = wanted or sick_service(spec, snapshot, policy, now)
    if wanted and (adopted := adopted_until(spec, snapshot, policy, now)):
        what = "the hand-made Secrets that its Services name are due"
        return None, Wait(what, adopted, WaitKind.LATER)
    if wanted and nobody_serves(spec.key_type, snapshot):
        what = (
            f"no certificate is ordered for {spec.name}: the cipher suite of no listener of its "
            f"Services can serve a {spec.key_type} key; {REMEDY}"
        )
        return None, Wait(what, now + policy.backstop, WaitKind.BACK_OFF)
    return wanted, None


def _late(spec: CertificateSpec, snapshot: Snapshot, policy: Policy, now: datetime) -> list[str]:
    """
    Say loudly that renewing has not worked so far: while there is time, and afterwards.

    Of hand-made Secrets too, where they may be read.
    """
    leaves = {**snapshot.foreign, **{version.ref: version.leaf for version in snapshot.versions}}
    notes = []
    for ref, binding in sorted(snapshot.bindings.items()):
        named = binding.reference
        leaf = leaves.get(named) if named else None
        if leaf is None or now < late_time(leaf, policy):
            continue
        end = leaf.not_after
        if now >= end:
            notes.append(f"expired: Service {ref} still names {named}, which ended at {end:%FT%TZ}")
        else:
            notes.append(f"late: Service {ref} names {named}, which ends at {end:%FT%TZ}")
    wanted = wanted_version(spec, snapshot.versions, now)
    if not snapshot.bindings and wanted and wanted.leaf and now >= late_time(wanted.leaf, policy):
        notes.append(f"late: {wanted.ref} ends at {wanted.leaf.not_after:%FT%TZ}")
    return notes


def _closing(certificate: str, pending: PendingOrder, snapshot: Snapshot) -> CloseOrder | None:
    """Close the pending order once its certificate is stored: the key tells."""
    for version in newest_first(snapshot.versions):
        if version.leaf and version.leaf.public_key_sha256 == pending.public_key_sha256:
            return CloseOrder(certificate, f"it ended in {version.ref}", pending, version.ref.name)
    return None


def _continues(
    pending: PendingOrder, spec: CertificateSpec | None, account_url: str | None
) -> bool:
    """Say whether *pending* would end in what is asked for now."""
    return (
        spec is not None
        and pending.directory == spec.issuer.directory
        and pending.account_url == account_url
        and pending.names == spec.names
        and pending.key_type == spec.key_type
        and pending.profile == spec.issuer.profile
    )
