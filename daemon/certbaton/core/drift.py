"""
Drift: somebody else changed what we own on a Service. Who, and when it is undone.

With a growing pause, since a person or a GitOps controller stands behind it;
after some rounds rarely, but never not at all.

The pause runs from what the Journal says: when it was last undone, or first seen. Not from the
managed fields: their time moves with anything that manager changes on the object, a label or a
port (tried on a real API server, `contracts/test_apply_contract.py`), so that one who touches
the Service every half minute would be waited for for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from certbaton.core.choose import Choice
from certbaton.core.renewal import late_time, share
from certbaton.model import (
    ObjectRef,
    Policy,
    SecretVersion,
    ServiceSpec,
    ServiceState,
    Snapshot,
)


@dataclass(frozen=True, slots=True)
class Drifted:
    """
    *rounds* is how often it was undone so far; it is undone again at *repair_at*.

    *note* says so, *held* says it where something else keeps us from undoing it.
    *first_seen*: the Journal does not know of it yet, and is to, as the pause runs from there.
    """

    rounds: int
    repair_at: datetime
    note: str
    held: str
    first_seen: bool = False


def drifted(
    service: ServiceSpec, choice: Choice, snapshot: Snapshot, policy: Policy, now: datetime
) -> Drifted | None:
    """Say whether what is to be written at *service* undoes somebody else's change."""
    ref = service.ref
    state, binding = snapshot.services[ref], snapshot.bindings[ref]
    owned = state.owned
    if owned.changed_at is None and not _was_ours(ref, snapshot):
        return None
    manager = owned.tls_secret_manager
    taken = _taken_away(service, state) if not binding.complete else None
    if owned.tls_secret and taken is None:
        return None  # what stands there is what we wrote: an ordinary step of ours
    if binding.reference == choice.ref and binding.complete:
        return None
    lifetime = _lifetime(choice, snapshot)
    first = share(lifetime, policy.drift_share, policy.drift_ceiling)
    rarely = share(lifetime, policy.retention_share, policy.retention_ceiling)
    last = snapshot.journal.drift.get(str(ref)) if snapshot.journal else None
    since = owned.tls_secret_changed_at
    if last is not None and since is not None and since > last.at + 2 * rarely:
        last = None  # long ago, and quiet since
    rounds = last.rounds if last else 0
    pause = rarely if rounds >= policy.drift_rounds else min(first * 2**rounds, rarely)
    # a change that is older than the pause when we first look has stood for long enough
    at = last.at if last is not None else min(since or now, now)
    # what another instance wrote is there, whether we may look or not
    if ref not in snapshot.claims and _urgent(ref, binding.reference, snapshot, policy, now):
        # at once, yet never a race with somebody who changes it back every second
        often = last is not None and rounds >= policy.drift_rounds
        at, pause = (last.at, first) if last and often else (now, timedelta(0))
    who = f"field manager {manager!r}" if manager else "somebody"
    what = f"set it to {binding.value!r:.80}" if binding.value else "took tls-secret away"
    if owned.tls_secret:
        who, what = "somebody", f"took {taken} away"
    said = f"drift: Service {ref}: {who} {what}; it is"
    help_ = f"(so far {rounds} times); docs/gitops.md says how to make both agree"
    return Drifted(
        rounds,
        at + pause,
        f"{said} put back at {at + pause:%FT%TZ} {help_}",
        f"{said} not put back now {help_}",
        first_seen=last is None,
    )


def _was_ours(ref: ObjectRef, snapshot: Snapshot) -> bool:
    """Say whether we wrote there, where the Service itself tells nothing of it any more."""
    journal = snapshot.journal
    return (
        ref in snapshot.written
        or (journal is not None and str(ref) in journal.drift)
        or any(str(ref) in version.served for version in snapshot.versions)
    )


def _taken_away(service: ServiceSpec, state: ServiceState) -> str | None:
    """Say what we wrote beside tls-secret and have no more; nobody else has it either."""
    owned = state.owned
    if service.set_ssl_ports and not (owned.ssl_ports or owned.others_ssl_ports):
        return "ssl-ports"
    if service.add_https_port and not (owned.https_port or owned.others_https):
        return "port 443"
    return None


def _lifetime(choice: Choice, snapshot: Snapshot) -> timedelta:
    version: SecretVersion | None = choice.version
    if version is not None and version.leaf is not None:
        return version.leaf.lifetime
    return max((v.leaf.lifetime for v in snapshot.versions if v.leaf), default=timedelta(days=90))


def _urgent(
    service: ObjectRef,
    named: ObjectRef | None,
    snapshot: Snapshot,
    policy: Policy,
    now: datetime,
) -> bool:
    """
    Say whether what stands there now is nothing, gone, or late.

    What we may not look at is as late as the last that was proven at *service*.
    """
    if named is None:
        return True
    by_ref = {version.ref: version for version in snapshot.versions}
    version = by_ref.get(named)
    leaf = version.leaf if version else snapshot.foreign.get(named)
    if leaf is not None:
        return now >= late_time(leaf, policy)
    if named.namespace in {item.ref.namespace for item in snapshot.versions}:
        return version is None and named not in snapshot.foreign
    proven = [v.leaf for v in snapshot.versions if v.leaf and str(service) in v.served]
    return bool(proven) and all(now >= late_time(leaf, policy) for leaf in proven)
