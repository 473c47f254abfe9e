"""
Services that another instance of certbaton has: whoever holds one goes on with it.

A claim ends when its holder has been silent for a day, or where the operator says so. Its
silence counts only while we are there to hear it: a cluster that was switched off for a week
starts with Leases a week old, and with holders that are about to come back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from certbaton.model import (
    Action,
    CertificateSpec,
    Claim,
    ObjectRef,
    Policy,
    Repoint,
    Snapshot,
    Wait,
    WaitKind,
)

NEVER = datetime.max.replace(tzinfo=UTC)
LONG_AGO = datetime.min.replace(tzinfo=UTC)
# While the end of a claim is waited for, its holder is looked at so often at least.
LOOK_EVERY = timedelta(minutes=10)


def lapses_at(claim: Claim, policy: Policy) -> datetime:
    """
    Say when *claim* ends if its holder stays as silent as it is.

    A Lease that was given up in order is no sign of an end: restarts give it up. Where there
    is none, the holder's last write counts alone. *claim_watch*, or twice the Lease's own
    time, has to be looked on without a renewal: one clock that is wrong ends nothing.
    """
    if claim.asked:
        return LONG_AGO
    if claim.unchanged_since is None:
        return NEVER
    watched = claim.unchanged_since + max(policy.claim_watch, 2 * claim.lasts)
    return max(watched, _silent_until(claim, policy))


def _silent_until(claim: Claim, policy: Policy) -> datetime:
    if claim.unchanged_since is None:
        return NEVER
    sign = claim.renewed_at or claim.since
    return sign + policy.claim_lapse if sign else LONG_AGO


def in_force(snapshot: Snapshot, policy: Policy, now: datetime) -> Mapping[ObjectRef, Claim]:
    """Give the claims that hold now, by Service."""
    return {ref: claim for ref, claim in snapshot.claims.items() if now < lapses_at(claim, policy)}


def without(
    spec: CertificateSpec, snapshot: Snapshot, claimed: Mapping[ObjectRef, Claim]
) -> tuple[CertificateSpec, Snapshot]:
    """
    Take the *claimed* Services out of what is decided about.

    They are then not waited for, not late and not refused, and bring no order. What
    they name stays among ``references``, which nobody deletes.
    """
    return (
        replace(spec, services=tuple(item for item in spec.services if item.ref not in claimed)),
        replace(
            snapshot,
            services={k: v for k, v in snapshot.services.items() if k not in claimed},
            bindings={k: v for k, v in snapshot.bindings.items() if k not in claimed},
            listeners={k: v for k, v in snapshot.listeners.items() if k not in claimed},
        ),
    )


def sentence(ref: ObjectRef, claim: Claim, policy: Policy, now: datetime) -> str:
    """Say who has a Service, and what to do about it; the same words while nothing changes."""
    holder = f"{claim.holder.namespace}/{claim.holder.release}"
    told = f"claimed: Service {ref} is served by another certbaton, release {holder}"
    if claim.unchanged_since is None:
        told += f" (whether that one lives is not known: {claim.trouble:.200})"
    elif claim.renewed_at is None:
        told += ", which has no Lease"
    elif now - claim.renewed_at > policy.claim_lapse / 24:
        told += f", silent since {claim.renewed_at:%FT%TZ}"
    return (
        f"{told}; nothing is written there. Take the Service out of one configuration, or let "
        f"takeOverFrom name {holder}"
    )


def explained(action: Action, snapshot: Snapshot) -> Action:
    """Say of a repoint that takes a Service from somebody from whom, and why that is right."""
    claim = snapshot.claims.get(action.service.ref) if isinstance(action, Repoint) else None
    if claim is None:
        return action
    why = "takeOverFrom names it"
    if not claim.asked:
        when = f" since {claim.renewed_at:%FT%TZ}" if claim.renewed_at else ""
        why = f"it has been silent{when}"
    holder = f"{claim.holder.namespace}/{claim.holder.release}"
    return replace(action, why=f"{action.why}; it is taken over from release {holder}: {why}")


def wait_for(ref: ObjectRef, claim: Claim, policy: Policy, now: datetime) -> Wait:
    """Wait for the end of a claim, or until it is looked at again."""
    until = lapses_at(claim, policy)
    holder = f"{claim.holder.namespace}/{claim.holder.release}"
    if now >= _silent_until(claim, policy):
        what = f"Service {ref} is taken over unless {holder} shows up"
        return Wait(what, min(until, now + LOOK_EVERY), WaitKind.IN_FLIGHT)
    what = f"Service {ref} is left to {holder} while that one lives"
    return Wait(what, min(until, now + policy.backstop), WaitKind.BACK_OFF)
