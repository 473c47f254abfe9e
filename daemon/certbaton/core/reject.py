"""
When a version is refused, and by whom: the wire, or OCI's one unmistakable word.

An older leaf never rejects: it means "not arrived", however long. What speaks
against the place (limits, conflicts, 5xx, silence) speaks against no version.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from certbaton.core.choose import suits, worked
from certbaton.core.renewal import rejected, share
from certbaton.core.rollover import UNPROVEN, WIRE, Handover, sync_of, version_number
from certbaton.model import (
    EVERYWHERE,
    CertificateSpec,
    ObjectRef,
    Policy,
    Reject,
    Route,
    SecretVersion,
    Snapshot,
    SyncEvent,
)

# All of these in one message: OCI's answer to a certificate that it will not have.
REFUSED = (
    "Http Status Code: 400",
    "Error Code: InvalidParameter",
    "Operation Name: CreateCertificate",
)
# What client-go puts before the newest message where it counts similar ones in one Event.
FOLDED = "(combined from similar events)"


def refusal(
    handover: Handover, ours: frozenset[ObjectRef], policy: Policy, now: datetime
) -> str | None:
    """Say in a sentence why the version of *handover* is refused at its Service, or None."""
    version, service = handover.version, handover.service.ref
    if worked(version, service) is not None:
        return None  # it was on this very listener
    return _by_wire(handover, policy, now) or _by_events(handover, ours)


def _by_wire(handover: Handover, policy: Policy, now: datetime) -> str | None:
    leaf, listener = handover.version.leaf, handover.listener
    if leaf is None or listener.route is not Route.OUTSIDE or not handover.showed_before:
        return None
    alerts = [sight for sight in listener.sights if sight.alert]
    if not alerts or any(sight.leaf_sha256 == leaf.sha256 for sight in listener.sights):
        return None
    since = _last_change_by_others(handover)
    events = tuple(event for event in listener.events if since is None or event.first_at > since)
    ended = sync_of(replace(handover, listener=replace(listener, events=events)), strict=True)
    if ended is None or now < ended + share(
        leaf.lifetime, policy.alert_share, policy.alert_ceiling
    ):
        return None
    sight = alerts[0]
    return (
        f"its listener answers handshakes with an alert since the controller put it there "
        f"({sight.address} port {sight.port}: {sight.trouble})"
    )


def _by_events(handover: Handover, ours: frozenset[ObjectRef]) -> str | None:
    backend = handover.state.backend_reference
    if backend is not None and backend not in ours:
        return None  # the refusal may be that one's: both are created in one loop
    times = 0
    words = ""
    for event in handover.listener.events:
        if event.reason != "SyncLoadBalancerFailed" or not _all_in(event):
            continue
        times += _syncs_of_this(event, handover)
        words = event.message
    return f"OCI refuses it: {words:.300}" if times >= 2 else None


def _all_in(event: SyncEvent) -> bool:
    return all(part in event.message for part in REFUSED)


def _last_change_by_others(handover: Handover) -> datetime | None:
    """Say when somebody else changed tls-secret after us, if so: what was before says nothing."""
    at, ours = handover.state.owned.tls_secret_changed_at, handover.binding.changed_at
    return at if at is not None and (ours is None or at > ours) else None


def _syncs_of_this(event: SyncEvent, handover: Handover) -> int:
    """
    Count the syncs in *event* that certainly began after the last change by anybody.

    Its version is that of the first time. Without it the times count, and the
    first time after the change may be of a sync begun before. A folded Event
    counts all kinds of failures, and its words are the newest's.
    """
    since = _last_change_by_others(handover)
    if since is not None and event.first_at <= since:
        return 0
    synced = version_number(event.synced_version)
    reference = version_number(handover.state.reference_version)
    folded = event.message.startswith(FOLDED)
    if synced is not None and reference is not None and synced >= reference:
        return 1 if folded else event.count
    changed = since or handover.binding.changed_at
    if folded or changed is None or event.first_at <= changed:
        return 0
    return event.count - 1


def rejection(
    spec: CertificateSpec,
    handover: Handover,
    why: str,
    snapshot: Snapshot,
) -> Reject:
    """
    Decide how far a refusal at one Service reaches.

    For that Service alone while another may still serve it; for all once a second
    one refuses it too, or where there is no other to ask.
    """
    version, here = handover.version, handover.service.ref
    key = str(here)
    others = [
        service.ref
        for service in spec.services
        if service.ref != here and _could_serve(version, service.ref, snapshot)
    ]
    serves = [ref for ref in others if _serves(version, ref)]
    refuses = [ref for ref in others if rejected(version, ref)]
    if not serves and (refuses or not others):
        key = EVERYWHERE
    return Reject(spec.name, f"Service {here}: {why}", key, version)


def _could_serve(version: SecretVersion, ref: ObjectRef, snapshot: Snapshot) -> bool:
    state, binding = snapshot.services.get(ref), snapshot.bindings.get(ref)
    return (
        state is not None
        and binding is not None
        and not (state.deleting or state.paused or binding.problem)
        and version.leaf is not None
        and suits(version.leaf, snapshot, ref)
    )


def _serves(version: SecretVersion, ref: ObjectRef) -> bool:
    return worked(version, ref) is not None


def showed_before(
    versions: Sequence[SecretVersion], handover_of: SecretVersion, ref: ObjectRef
) -> bool:
    """Say whether this route showed a leaf before: another version was seen there on the wire."""
    return any(
        version.ref != handover_of.ref
        and (proof := version.served.get(str(ref))) is not None
        and proof.how == WIRE
        for version in versions
    )


def trials(versions: Sequence[SecretVersion]) -> list[datetime]:
    """List when versions were refused by all, since one was last taken."""
    taken = [
        version.leaf.not_before
        for version in versions
        if version.leaf is not None
        and not rejected(version)
        and any(proof.how != UNPROVEN for proof in version.served.values())
    ]
    since = max(taken, default=None)
    return sorted(
        version.rejected[EVERYWHERE].at
        for version in versions
        if EVERYWHERE in version.rejected
        and version.leaf is not None
        and (since is None or version.leaf.not_before > since)
    )
