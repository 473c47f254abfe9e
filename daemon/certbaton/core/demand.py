"""
What brings an order, or holds one back, beside a certificate's own age.

Hand-made Secrets that still do, Services that refuse what there is, and the
pauses after refusals.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from certbaton.core import reject
from certbaton.core.advice import due, told_to_go
from certbaton.core.choose import REMEDY, answers_for, nobody_serves, served_well
from certbaton.core.need import Need, need
from certbaton.core.renewal import (
    fits,
    is_late,
    known_lifetime,
    late_time,
    newest_first,
    rejected,
    renewal_time,
    usable,
    wanted_version,
    withdrawn,
)
from certbaton.model import (
    CertificateSpec,
    Leaf,
    Policy,
    Reason,
    SecretVersion,
    Snapshot,
    Wait,
    WaitKind,
)

# What the first certificate will live for, as far as anybody can tell.
USUAL_LIFETIME = timedelta(days=90)


def adopted_until(
    spec: CertificateSpec, snapshot: Snapshot, policy: Policy, now: datetime
) -> datetime | None:
    """
    Say until when nothing has to be ordered, since hand-made Secrets do.

    Only where every Service that is there names one that we may read, that
    answers for the names, and that is not due: nothing is issued that would not
    be used. So ours have to outlive it, by the part of their life that they have
    left when due.
    """
    if not snapshot.bindings:
        return None
    lifetime = known_lifetime(snapshot.versions) or USUAL_LIFETIME
    dues: list[datetime] = []
    for ref, binding in snapshot.bindings.items():
        leaf = snapshot.foreign.get(binding.reference) if binding.reference else None
        if leaf is None or not answers_for(leaf, spec, snapshot, ref, now):
            return None
        dues.append(max(renewal_time(spec.name, leaf, policy), _outlived(leaf, lifetime, policy)))
    return min(dues) if min(dues) > now else None


def kept_until(
    spec: CertificateSpec, snapshot: Snapshot, policy: Policy, now: datetime
) -> datetime | None:
    """
    Say until when a renewal would not be used, since what is named is not due.

    That is where every Service names one that fits and lives longer than new ones do
    by now: it is kept, and the newest may be due, over and over, for nothing.
    """
    fitting = [version for version in snapshot.versions if fits(version, spec)]
    lifetime = known_lifetime(fitting)
    by_ref = {version.ref: version for version in fitting}
    dues: list[datetime] = []
    for ref, binding in snapshot.bindings.items():
        version = by_ref.get(binding.reference) if binding.reference else None
        if version is None or version.leaf is None or lifetime is None:
            return None
        leaf = version.leaf
        if leaf.lifetime <= lifetime or not usable(version, now) or rejected(version, ref):
            return None
        if told_to_go(spec, version, now) or withdrawn(version, snapshot.versions):
            return None
        at = due(spec, version, snapshot, policy, now).at
        dues.append(max(at, _outlived(leaf, lifetime, policy)))
    return min(dues) if dues and min(dues) > now else None


def _outlived(leaf: Leaf, lifetime: timedelta, policy: Policy) -> datetime:
    """Say when one that lives for *lifetime* outlives *leaf* by what it has left when due."""
    left = policy.renew_left_short if lifetime < policy.short_lifetime else policy.renew_left
    return leaf.not_after - lifetime * (1 - left)


def sick_service(
    spec: CertificateSpec, snapshot: Snapshot, policy: Policy, now: datetime
) -> Need | None:
    """
    Say that a Service needs a new version although one is there: it refuses that one.

    At most every D; what listeners do leads to no order while one that they take
    is not late.
    """
    for ref, state in snapshot.services.items():
        binding = snapshot.bindings[ref]
        refused = [version for version in snapshot.versions if str(ref) in version.rejected]
        if not refused or state.paused or binding.problem is not None:
            continue
        if served_well(spec, ref, snapshot, policy, now):
            continue
        newest = newest_first(snapshot.versions)[0]
        at = max(version.rejected[str(ref)].at for version in refused)
        if newest.leaf is not None:
            at = max(at, newest.leaf.not_before)
            at += min(newest.leaf.lifetime * policy.retention_share, policy.retention_ceiling)
        if now >= at:
            why = f"Service {ref} refuses every version that is not late"
            return Need(Reason.RENEWING, why, at)
    return None


def trial_over(
    versions: Sequence[SecretVersion], policy: Policy, spec: CertificateSpec, now: datetime
) -> datetime | None:
    """Say when the next order may be made after refusals: D, 2D, 4D; D each time once late."""
    refused = reject.trials(versions)
    if not refused:
        return None
    lifetimes = [version.leaf.lifetime for version in versions if version.leaf]
    pause = min(max(lifetimes) * policy.retention_share, policy.retention_ceiling)
    late = is_late(spec, versions, policy, now)
    doubled = pause if late else pause * 2 ** min(len(refused) - 1, 20)
    return refused[-1] + doubled


def to_order(
    spec: CertificateSpec, snapshot: Snapshot, policy: Policy, now: datetime
) -> tuple[Need | None, Wait | None]:
    """Say what is to be ordered; or where it would not be used, what that waits for."""
    wanted = need(spec, snapshot, policy, now)
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


def late(spec: CertificateSpec, snapshot: Snapshot, policy: Policy, now: datetime) -> list[str]:
    """
    Say loudly that renewing has not worked so far: while there is time, and afterwards.

    Of hand-made Secrets too, where they may be read.
    """
    leaves = {**snapshot.foreign, **{version.ref: version.leaf for version in snapshot.versions}}
    revocations = {version.ref: version.revoked for version in snapshot.versions}
    notes = []
    for ref, binding in sorted(snapshot.bindings.items()):
        named = binding.reference
        leaf = leaves.get(named) if named else None
        revoked = revocations.get(named) if named else None
        if revoked is not None:
            reason = f"at {revoked.at:%FT%TZ} ({revoked.reason})"
            notes.append(f"revoked: Service {ref} names {named}, which was revoked {reason}")
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
