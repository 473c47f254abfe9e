"""
What may be deleted: mark, wait, look, sweep. Never by name, never when in doubt.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from certbaton.core.renewal import (
    compromised_keys,
    newest_first,
    rejected,
    share,
    usable,
    wanted_version,
    withdrawn,
)
from certbaton.core.rollover import UNPROVEN, standing_proof
from certbaton.model import (
    Action,
    CertificateSpec,
    DeleteVersion,
    MarkForDeletion,
    ObjectRef,
    Policy,
    SecretVersion,
    Snapshot,
    Unmark,
    Wait,
    WaitKind,
)


def kept(
    spec: CertificateSpec | None, snapshot: Snapshot, policy: Policy, now: datetime
) -> frozenset[ObjectRef]:
    """
    Name the versions that stay: the newest good one, those kept for a rollback,
    for each Service the newest valid one proven there, what only begins later,
    and all that are named. A revoked one is nothing to come back to, but while a key that was
    compromised is kept, so is what tells of it.
    """
    versions = newest_first(snapshot.versions)
    keep = {version.ref for version in versions if version.ref in snapshot.references}
    if spec is None:
        return frozenset(keep)
    valid = [version for version in versions if usable(version, now) and not rejected(version)]
    wanted = wanted_version(spec, versions, now)
    # while nothing fits, the newest valid one is all that there is to come back to
    sound = [version for version in valid if not withdrawn(version, versions)]
    newest = wanted or next(iter(sound or valid), None)
    if newest is None:
        return frozenset(version.ref for version in versions)
    keep.add(newest.ref)
    others = [version for version in sound or valid if version.ref != newest.ref]
    keep.update(version.ref for version in others[: policy.keep_previous])
    for service in spec.services:
        proofs = ((item, item.served.get(str(service.ref))) for item in sound or valid)
        proven = [item for item, proof in proofs if proof is not None and proof.how != UNPROVEN]
        keep.update(version.ref for version in proven[:1])
    # refusals newer than what is wanted tell how long the next order waits
    keep.update(
        version.ref
        for version in versions
        if rejected(version)
        and version.leaf is not None
        and (newest.leaf is None or version.leaf.not_before > newest.leaf.not_before)
    )
    keep.update(
        version.ref
        for version in versions
        if version.flaw is None and version.leaf is not None and now < version.leaf.not_before
    )
    keys = {v.leaf.public_key_sha256 for v in versions if v.ref in keep and v.leaf}
    keys &= compromised_keys(versions)
    keep.update(
        version.ref
        for version in versions
        if version.revoked and version.leaf and version.leaf.public_key_sha256 in keys
    )
    return frozenset(keep)


def handed_over_at(
    spec: CertificateSpec, snapshot: Snapshot, version: SecretVersion
) -> datetime | None:
    """Say when the handover to *version* had ended at every Service that can have it."""
    times = [version.leaf.not_before] if version.leaf else []
    for service in spec.services:
        binding = snapshot.bindings.get(service.ref)
        if binding is None or binding.problem is not None or rejected(version, service.ref):
            continue  # what it names, if anything, is kept for being named
        proof = standing_proof(version, service.ref, binding)
        if proof is None:
            return None
        times.append(proof.at)
    return max(times) if times else None


def collect(
    spec: CertificateSpec | None, snapshot: Snapshot, policy: Policy, now: datetime
) -> tuple[list[Action], list[Wait]]:
    """Plan what is marked, un-marked and deleted now; waits are for what comes later."""
    actions: list[Action] = []
    waits: list[Wait] = []
    keep = kept(spec, snapshot, policy, now)
    pending = snapshot.journal.pending if snapshot.journal else None
    clock: datetime | None = now
    lifetime = timedelta(0)
    wanted = wanted_version(spec, snapshot.versions, now) if spec is not None else None
    if spec is not None:
        if wanted is None or wanted.leaf is None:
            clock = None
        else:
            lifetime = wanted.leaf.lifetime
            ended = handed_over_at(spec, snapshot, wanted)
            retention = share(lifetime, policy.retention_share, policy.retention_ceiling)
            clock = ended + retention if ended else None
    in_use = snapshot.references | ({wanted.ref} if wanted is not None else set())
    for version in snapshot.versions:
        name = version.certificate
        if version.ref in keep:
            if version.marked_at is not None:
                actions.append(Unmark(name, f"{version.ref} is in use again", version))
            elif version.ref not in in_use and version.leaf is not None and usable(version, now):
                what = f"{version.ref} is kept until it expires"
                waits.append(Wait(what, version.leaf.not_after, WaitKind.LATER))
            continue
        if pending and version.leaf and version.leaf.public_key_sha256 == pending.public_key_sha256:
            continue  # the order that it ends is still open
        if not snapshot.complete or clock is None:
            continue
        if version.marked_at is None:
            if now < clock:
                waits.append(Wait(f"{version.ref} is retained", clock, WaitKind.LATER))
            else:
                why = f"{version.ref} is out of use and its retention is over"
                actions.append(MarkForDeletion(name, why, version))
            continue
        span = lifetime or (version.leaf.lifetime if version.leaf else timedelta.max)
        until = version.marked_at + share(span, policy.sweep_share, policy.sweep_ceiling)
        if now < until:
            waits.append(Wait(f"{version.ref} is marked for deletion", until, WaitKind.LATER))
        else:
            why = f"{version.ref} has been marked since {version.marked_at:%FT%TZ}"
            actions.append(DeleteVersion(name, why, version))
    return actions, waits
