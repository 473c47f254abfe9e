"""
Whether the handover of a version at a Service has ended: evidence, and its limits.

"Could not see" is never "is not so": everything but the wanted leaf, seen in a
handshake that left the cluster, is unknown. Facts of the OCI controller's
Events: they may be missing for good, late, folded or forged, so they may speak
for something; their absence speaks against nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from certbaton.core.renewal import late_time, share
from certbaton.model import (
    Binding,
    Leaf,
    ListenerState,
    ObjectRef,
    Policy,
    Proof,
    Route,
    SecretVersion,
    ServiceSpec,
    ServiceState,
    SyncEvent,
    Wait,
    WaitKind,
)

BETTER_VIEW = (
    "from inside the cluster the listener cannot be seen; annotate the Service with "
    "oci.oraclecloud.com/ingress-ip-mode: proxy, or set services[].probe.address"
)

WIRE, EVENTS, UNPROVEN = "wire", "events", "unproven"


@dataclass(frozen=True, slots=True)
class Handover:
    """One Service that names the wanted version: all that speaks for its end."""

    service: ServiceSpec
    state: ServiceState
    binding: Binding
    listener: ListenerState
    version: SecretVersion
    showed_before: bool = False


def standing_proof(
    version: SecretVersion, service: ObjectRef, binding: Binding | None
) -> Proof | None:
    """
    Give the proof of *version* at *service*, unless we have changed the Service since.

    A version that is put back on a listener has to be seen there again.
    """
    proof = version.served.get(str(service))
    changed = binding.changed_at if binding else None
    return None if proof is None or (changed is not None and proof.at < changed) else proof


def seen(handover: Handover) -> bool:
    """
    Say whether every address and port in ssl-ports showed the wanted leaf.

    On an inside route the pods might be what was seen; they can't mount the
    Secret if it lies in another namespace than theirs.
    """
    leaf, sights = handover.version.leaf, handover.listener.sights
    if leaf is None or not sights:
        return False
    if (
        handover.listener.route is Route.INSIDE
        and handover.version.ref.namespace == handover.state.ref.namespace
    ):
        return False
    return all(sight.leaf_sha256 == leaf.sha256 for sight in sights)


def version_number(resource_version: str) -> int | None:
    """Read a resourceVersion; None where it is none, since Events can be forged."""
    plain = resource_version.isascii() and resource_version.isdecimal()
    return int(resource_version) if plain and len(resource_version) <= 20 else None


def _of_this(event: SyncEvent, handover: Handover) -> bool:
    """
    Say whether *event* may tell of a sync that worked on this reference.

    Its resourceVersion says so. An Event that happened again carries that of the
    first time, so where that is too old the times count: of the latest.
    """
    synced_version = version_number(event.synced_version)
    reference = version_number(handover.state.reference_version)
    if synced_version is not None and reference is not None and synced_version >= reference:
        return True
    if event.count == 1 and synced_version is not None:
        return False
    changed = handover.binding.changed_at
    # whole seconds: what falls into the second of the patch proves nothing
    return changed is not None and event.last_at >= changed + timedelta(seconds=1)


def sync_of(handover: Handover, *, strict: bool = False) -> datetime | None:
    """
    Give the end of a sync that the controller began *and* ended after the last change.

    *strict*: only where both Events carry the resourceVersion of one sync, which
    had this reference.
    """
    ends: list[datetime] = []
    reference = version_number(handover.state.reference_version)
    for began in handover.listener.events:
        if began.reason != "EnsuringLoadBalancer" or not _of_this(began, handover):
            continue
        for ended in handover.listener.events:
            if ended.reason != "EnsuredLoadBalancer" or not _of_this(ended, handover):
                continue
            synced = version_number(began.synced_version)
            # an Event counted many times carries the version of the first time, which is this one
            same_sync = (
                synced is not None
                and reference is not None
                and synced >= reference
                and ended.synced_version == began.synced_version
                and ended.last_at >= began.first_at
            )
            if same_sync or (not strict and ended.last_at > began.last_at):
                ends.append(ended.last_at)
    return max(ends, default=None)


def complaint(handover: Handover) -> str | None:
    """Give the controller's latest complaint about this reference, if no sync has ended since."""
    ended = sync_of(handover)
    complaints = [
        event
        for event in handover.listener.events
        if event.reason == "SyncLoadBalancerFailed"
        and _of_this(event, handover)
        and (ended is None or event.last_at >= ended)
    ]
    return max(complaints, key=lambda event: event.last_at).message if complaints else None


def give_up_time(
    handover: Handover, in_use: Sequence[SecretVersion], to_go: int, policy: Policy
) -> datetime | None:
    """
    Say until when one Service is waited for, so that it never holds the rest for ever.

    Inside: the settle time. Outside: an hour at most, and at most half of what
    the oldest leaf in use has left, divided among the Services to go.
    """
    leaf = handover.version.leaf
    if leaf is None:
        return None
    began = handover.binding.changed_at or leaf.not_before
    if handover.listener.route is Route.INSIDE:
        return began + share(leaf.lifetime, policy.settle_share, policy.settle_ceiling)
    patience = policy.handover_ceiling
    ends = [item.leaf.not_after for item in in_use if item.leaf is not None]
    if ends:
        left = max(min(ends) - began, timedelta(0))
        patience = min(patience, left / 2 / max(to_go, 1))
    return began + patience


def judge(
    handover: Handover,
    proof: Proof | None,
    in_use: Sequence[SecretVersion],
    to_go: int,
    policy: Policy,
    now: datetime,
) -> str | Wait | None:
    """
    Judge one handover: how it ended (to be noted), a wait, or None if nothing is to do.

    An unproven end may still become a proven one, but holds nobody any more.
    """
    if proof is not None and proof.how != UNPROVEN:
        return None
    if seen(handover):
        return WIRE
    if handover.listener.route is Route.INSIDE and sync_of(handover) is not None:
        return EVENTS
    if proof is not None:
        return None
    until = give_up_time(handover, in_use, to_go, policy)
    if until is None or now >= until:
        return UNPROVEN
    what = (
        f"Service {handover.service.ref}: waiting until its listener serves {handover.version.ref}"
    )
    words = complaint(handover)
    if words:
        what += f"; the controller says: {words:.300}"
    elif not handover.binding.tls_ports and handover.service.probe.port is None:
        what += "; no port of it terminates TLS: oci-load-balancer-ssl-ports names none that it has"
    elif handover.listener.sights:
        sight = handover.listener.sights[0]
        shown = f"leaf {sight.leaf_sha256[:16]}" if sight.leaf_sha256 else sight.trouble
        what += f"; {sight.address} port {sight.port} shows {shown}"
    elif not handover.state.addresses and handover.service.probe.address is None:
        what += "; it has no address yet"
    if handover.listener.route is Route.INSIDE:
        what += f" ({BETTER_VIEW})"
    return Wait(what, min(until, now + policy.poll_listener), WaitKind.IN_FLIGHT)


def still_unproven(
    handover: Handover,
    proof: Proof | None,
    known: Mapping[str, tuple[ObjectRef, Leaf]],
    policy: Policy,
    now: datetime,
) -> str | None:
    """
    Say what speaks against a handover that ended unproven, for as long as it does.

    An older leaf or an alert seen from outside, or the controller's words: none of them
    refuses the version, and nobody else will notice. *known* are leaves by their hash:
    which one is seen, and whether that is late.
    """
    wanted, ref = handover.version.leaf, handover.service.ref
    if proof is None or proof.how != UNPROVEN or seen(handover) or wanted is None:
        return None
    outside = handover.listener.route is Route.OUTSIDE
    other = next(
        (
            sight
            for sight in handover.listener.sights
            if outside and sight.leaf_sha256 not in (None, wanted.sha256)
        ),
        None,
    )
    alert = next((sight for sight in handover.listener.sights if outside and sight.alert), None)
    words = complaint(handover)
    if other is None and alert is None and words is None:
        return None
    kind, what = "unproven", f"Service {ref} names {handover.version.ref}, and"
    if other is not None and other.leaf_sha256 is not None:
        secret, leaf = known.get(other.leaf_sha256, (None, None))
        what += f" {other.address} port {other.port} still shows "
        what += str(secret) if secret else f"leaf {other.leaf_sha256[:16]}"
        if leaf is not None and now >= late_time(leaf, policy):
            kind, end = ("late", "ends") if now < leaf.not_after else ("expired", "ended")
            what += f", which {end} at {leaf.not_after:%FT%TZ}"
    elif alert is not None:
        what += f" {alert.address} port {alert.port} answers with an alert ({alert.trouble})"
    else:
        what += " its listener was not seen to serve it"
    if words is not None:
        what += f"; the controller says: {words:.300}"
    return f"{kind}: {what}; see the Service's Events, and the cloud controller's log"
