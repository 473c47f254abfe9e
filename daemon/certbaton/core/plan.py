"""
What one certificate needs now: a pure function of (spec, snapshot, policy, now).

Nothing here is remembered between two calls. The stage of a rollover is read
off the Secrets, the Services, the Journal and what the listeners serve, so a
crash anywhere resumes from the cluster alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from certbaton.core import rollover
from certbaton.core.collect import collect
from certbaton.core.renewal import (
    late_time,
    limit_reached,
    need,
    newest_first,
    renewal_time,
    upcoming_version,
    usable,
    wanted_version,
)
from certbaton.model import (
    Action,
    AdvanceOrder,
    CertificateSpec,
    CloseOrder,
    EnsureAccount,
    MarkServed,
    ObjectRef,
    PendingOrder,
    Plan,
    Policy,
    Repoint,
    Route,
    SecretVersion,
    ServiceSpec,
    Snapshot,
    StageOrder,
    Unmark,
    Wait,
    WaitKind,
)


@dataclass(slots=True)
class _Draft:
    certificate: str
    actions: list[Action] = field(default_factory=list)
    waits: list[Wait] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    due: datetime | None = None


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
    draft = _Draft(certificate, notes=list(snapshot.problems))
    if spec is not None:
        _roll_out(draft, spec, snapshot, policy, now, refused)
    else:
        for version in snapshot.versions:
            if version.ref in snapshot.references:
                draft.notes.append(
                    f"{version.ref} is of a certificate that is no longer configured, and a "
                    "Service still names it: it stays, and nobody renews it"
                )
    actions, waits = collect(spec, snapshot, policy, now)
    draft.actions += actions
    draft.waits += waits
    _order(draft, spec, snapshot, policy, now)
    return Plan(
        certificate,
        tuple(draft.actions),
        tuple(sorted(draft.waits, key=lambda wait: wait.until)),
        tuple(draft.notes),
        draft.due,
    )


# --- the order ------------------------------------------------------------------------


def _order(
    draft: _Draft, spec: CertificateSpec | None, snapshot: Snapshot, policy: Policy, now: datetime
) -> None:
    wanted = need(spec, snapshot.versions, policy, now) if spec else None
    coming = upcoming_version(spec, snapshot.versions, now) if spec else None
    if wanted:
        draft.due = wanted.since
    elif coming and coming.leaf:
        begins = coming.leaf.not_before
        draft.waits.append(Wait(f"{coming.ref} begins only then", begins, WaitKind.IN_FLIGHT))
    elif spec:
        version = wanted_version(spec, snapshot.versions, now)
        if version and version.leaf:
            due = renewal_time(spec.name, version.leaf, policy)
            draft.waits.append(Wait(f"{version.ref} is due for renewal", due, WaitKind.LATER))
    if spec:
        draft.notes += _late(spec, snapshot, policy, now)
    journal = snapshot.journal
    pending = journal.pending if journal else None
    if pending is not None:
        closing = _closing(draft.certificate, pending, snapshot)
        if closing is not None:
            draft.actions.append(closing)
            return
    elif wanted is None or spec is None:
        return
    failure = journal.failure if journal else None
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
    account = snapshot.account
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
    limit = limit_reached(spec, snapshot, policy, now)
    if limit is not None:
        draft.waits.append(Wait(limit[0], limit[1], WaitKind.BACK_OFF))
        return
    known = {version.ref.name for version in snapshot.versions}
    # a predecessor may have stored what our watch has not delivered yet
    list_first = journal is None or journal.last_version not in known
    draft.actions.append(StageOrder(spec.name, wanted.why, spec, wanted.reason, list_first))


def _late(spec: CertificateSpec, snapshot: Snapshot, policy: Policy, now: datetime) -> list[str]:
    """Say loudly that renewing has not worked so far: while there is time, and afterwards."""
    by_ref = {version.ref: version for version in snapshot.versions}
    notes = []
    for ref, binding in sorted(snapshot.bindings.items()):
        version = by_ref.get(binding.reference) if binding.reference else None
        if version is None or version.leaf is None or now < late_time(version.leaf, policy):
            continue
        end = version.leaf.not_after
        if now >= end:
            notes.append(
                f"expired: Service {ref} still names {version.ref}, which ended at {end:%FT%TZ}"
            )
        else:
            notes.append(f"late: Service {ref} names {version.ref}, which ends at {end:%FT%TZ}")
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
    )


# --- the rollout ----------------------------------------------------------------------


def _roll_out(
    draft: _Draft,
    spec: CertificateSpec,
    snapshot: Snapshot,
    policy: Policy,
    now: datetime,
    refused: frozenset[ObjectRef],
) -> None:
    """One listener at a time: the next Service is touched when the last has ended."""
    by_ref = {version.ref: version for version in snapshot.versions}
    in_use = [
        by_ref[binding.reference]
        for binding in snapshot.bindings.values()
        if binding.reference in by_ref
    ]
    wanted = wanted_version(spec, snapshot.versions, now)
    to_go = sum(
        1
        for service in spec.services
        if wanted is None
        or rollover.standing_proof(wanted, service.ref, snapshot.bindings.get(service.ref)) is None
    )
    given = {
        service.ref: wanted or _stopgap(service, snapshot, now)
        for service in spec.services
        if service.ref in snapshot.bindings
    }
    verdicts = {
        service.ref: verdict
        for service in spec.services
        if (
            verdict := _verdict(
                service, given.get(service.ref), in_use, to_go, snapshot, policy, now
            )
        )
    }
    # whichever comes first in the configuration: what has begun ends before the next begins
    moving = next((str(ref) for ref, found in verdicts.items() if isinstance(found, Wait)), None)
    for service in spec.services:
        state, binding = snapshot.services.get(service.ref), snapshot.bindings.get(service.ref)
        if state is None or binding is None or state.deleting:
            draft.waits.append(
                Wait(
                    f"Service {service.ref} is not there",
                    now + policy.backstop,
                    WaitKind.IN_FLIGHT,
                )
            )
            continue
        version = given[service.ref]
        if binding.problem is not None:
            draft.notes.append(binding.problem)
        if state.owned.tls_secret and binding.reference not in by_ref:
            draft.notes.append(
                f"Service {service.ref} names Secret {binding.reference}, which we wrote there and "
                "which is gone"
            )
        if version is None:
            continue
        if binding.reference == version.ref and binding.complete:
            verdict = verdicts.get(service.ref)
            if isinstance(verdict, Wait):
                draft.waits.append(verdict)
            elif verdict is not None:
                why = f"handover to {version.ref} at Service {service.ref} ended: {verdict}"
                hint = None
                if verdict == rollover.UNPROVEN and _listens_inside(snapshot, service):
                    hint = rollover.BETTER_VIEW
                draft.actions.append(
                    MarkServed(
                        spec.name, why, service.ref, version, verdict, binding.changed_at, hint
                    )
                )
            continue
        if binding.problem is not None:
            # a person has to change something: nothing is in flight
            draft.waits.append(Wait(binding.problem, now + policy.backstop, WaitKind.BACK_OFF))
        elif moving is not None:
            draft.waits.append(
                Wait(
                    f"Service {service.ref} is next, after {moving}",
                    now + policy.poll_listener,
                    WaitKind.IN_FLIGHT,
                )
            )
        else:
            moving = None if service.ref in refused else str(service.ref)
            draft.actions += _repoint(spec, service, version, binding.reference == version.ref)


def _listens_inside(snapshot: Snapshot, service: ServiceSpec) -> bool:
    """Say whether a probe of *service* stays in the cluster, and so cannot testify."""
    listener = snapshot.listeners.get(service.ref)
    return listener is not None and listener.route is Route.INSIDE


def _verdict(
    service: ServiceSpec,
    version: SecretVersion | None,
    in_use: Sequence[SecretVersion],
    to_go: int,
    snapshot: Snapshot,
    policy: Policy,
    now: datetime,
) -> str | Wait | None:
    """Judge the handover of *version* at *service*, if that has begun and is open."""
    state, binding = snapshot.services.get(service.ref), snapshot.bindings.get(service.ref)
    listener = snapshot.listeners.get(service.ref)
    if version is None or state is None or binding is None or listener is None or state.deleting:
        return None
    if binding.reference != version.ref or not binding.complete:
        return None
    handover = rollover.Handover(service, state, binding, listener, version)
    proof = rollover.standing_proof(version, service.ref, binding)
    return rollover.judge(handover, proof, in_use, to_go, policy, now)


def _repoint(
    spec: CertificateSpec, service: ServiceSpec, version: SecretVersion, same: bool
) -> list[Action]:
    if version.marked_at is not None:
        # the mark comes off first, so that a sweep begun elsewhere fails
        return [Unmark(spec.name, f"{version.ref} is to be named again", version)]
    why = (
        f"Service {service.ref} lacks what goes with {version.ref}"
        if same
        else f"Service {service.ref} is to name {version.ref}"
    )
    return [Repoint(spec.name, why, service, version)]


def _stopgap(service: ServiceSpec, snapshot: Snapshot, now: datetime) -> SecretVersion | None:
    """
    Choose what a Service is given while nothing fits: only if it names what is gone.

    A Service that names a missing Secret gets no load balancer at all when it
    is made anew; any valid version of ours is better than that.
    """
    named = snapshot.bindings[service.ref].reference
    ours = {version.ref for version in snapshot.versions}
    if named is None or named in ours or not snapshot.services[service.ref].owned.tls_secret:
        return None
    valid = [version for version in newest_first(snapshot.versions) if usable(version, now)]
    return valid[0] if valid else None
