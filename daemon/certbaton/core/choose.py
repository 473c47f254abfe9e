"""
Which version a Service is to have, and why not another: never worse than before.

A version that a listener refused doesn't count as existing there. What comes
back is what last worked on that very listener, whatever is asked for by now.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from certbaton.core.advice import told_to_go
from certbaton.core.renewal import (
    fits,
    late_time,
    newest_first,
    rejected,
    usable,
    withdrawn,
)
from certbaton.core.rollover import UNPROVEN
from certbaton.model import (
    Binding,
    CertificateSpec,
    Leaf,
    ObjectRef,
    Policy,
    Proof,
    SecretVersion,
    ServiceSpec,
    Snapshot,
)

REMEDY = (
    "set keyType: RSA-2048, or the annotation oci-load-balancer-listener-ssl-config with a suite "
    "that can"
)


@dataclass(frozen=True, slots=True)
class Choice:
    """
    What a Service is to name: *version*, or where that is None, *reference*.

    Neither: it is left as it is. *back* says that this is a return to what worked,
    *note* is a sentence where something newer was passed over, *problem* one where nothing will do.
    """

    version: SecretVersion | None = None
    reference: ObjectRef | None = None
    back: bool = False
    note: str | None = None
    problem: str | None = None

    @property
    def ref(self) -> ObjectRef | None:
        """The Secret to be named."""
        return self.version.ref if self.version else self.reference


def acceptable(spec: CertificateSpec, snapshot: Snapshot, now: datetime) -> list[SecretVersion]:
    """Versions that fit, are valid, and neither refused by all nor revoked; newest first."""
    return newest_first(
        version
        for version in snapshot.versions
        if fits(version, spec)
        and usable(version, now)
        and not rejected(version)
        and not withdrawn(version, snapshot.versions)
    )


def best_first(versions: Iterable[SecretVersion], snapshot: Snapshot) -> list[SecretVersion]:
    """Sort by notBefore, newest first, and those that are revoked after all others."""
    return sorted(newest_first(versions), key=lambda version: withdrawn(version, snapshot.versions))


def worked(version: SecretVersion, service: ObjectRef) -> Proof | None:
    """Give the proof that *version* once was on *service*'s listener, if there is one."""
    proof = version.served.get(str(service))
    return proof if proof is not None and proof.how != UNPROVEN else None


def suits(leaf: Leaf, snapshot: Snapshot, service: ObjectRef) -> bool:
    """Say whether the listener's cipher suite can serve this kind of key."""
    return _serves(leaf.key_type, snapshot, service)


def nobody_serves(key_type: str, snapshot: Snapshot) -> bool:
    """Say whether there are Services, and the listener of none could serve such a key."""
    found = [_serves(key_type, snapshot, ref) for ref in snapshot.bindings]
    return bool(found) and not any(found)


def _serves(key_type: str, snapshot: Snapshot, service: ObjectRef) -> bool:
    binding = snapshot.bindings.get(service)
    kinds = binding.key_kinds if binding else None
    return kinds is None or ("RSA" if key_type.startswith("RSA") else "EC") in kinds


def choose(
    spec: CertificateSpec, service: ServiceSpec, snapshot: Snapshot, now: datetime
) -> Choice:
    """
    Choose for one Service that is there.

    The newest acceptable version; where the listener refused that one, what last
    worked there, else what the Service named before we came, else a trial of an
    older one. An expired one never beats a refused valid one. One that is revoked stays while
    there is no other.
    """
    ref = service.ref
    binding = snapshot.bindings[ref]
    whole = [item for item in snapshot.versions if fits(item, spec) and usable(item, now)]
    suiting = best_first([v for v in whole if v.leaf and suits(v.leaf, snapshot, ref)], snapshot)
    if whole and not suiting:
        unable = f"the listener's cipher suite cannot serve a {spec.key_type} key"
        problem = f"Service {ref}: {unable}; {REMEDY}"
        return replace(_instead(ref, snapshot, now), problem=problem)
    taken = [version for version in suiting if not rejected(version, ref)]
    if suiting and suiting[0] not in taken:
        back = _back(ref, snapshot, now)
        on_trial = binding.reference in {version.ref for version in taken}
        if back is not None and not (on_trial and back.version is None):
            return back
    if not taken:
        return _instead(ref, snapshot, now)
    if withdrawn(taken[0], snapshot.versions) and binding.reference != taken[0].ref:
        return _instead(ref, snapshot, now)  # a revoked one goes nowhere where it is not yet
    return _better(spec, ref, binding, taken[0], snapshot, now) or Choice(taken[0])


def _better(
    spec: CertificateSpec,
    ref: ObjectRef,
    binding: Binding,
    version: SecretVersion,
    snapshot: Snapshot,
    now: datetime,
) -> Choice | None:
    """Keep what the Service names already, if that fits and is valid longer."""
    assert version.leaf is not None  # noqa: S101 - it fits
    named = binding.reference
    by_ref = {item.ref: item for item in snapshot.versions}
    current = by_ref.get(named) if named else None
    if current is not None:
        leaf = current.leaf if fits(current, spec) and usable(current, now) else None
        if rejected(current, ref) or withdrawn(current, snapshot.versions):
            return None
        if told_to_go(spec, current, now):
            return None
    else:
        leaf = snapshot.foreign.get(named) if named else None
        if leaf is not None and not answers_for(leaf, spec, snapshot, ref, now):
            leaf = None
    if leaf is None or leaf.not_after <= version.leaf.not_after:
        return None
    note = f"Service {ref}: {named} is valid longer than {version.ref}, so it stays"
    return Choice(current, None if current else named, note=note)


def answers_for(
    leaf: Leaf, spec: CertificateSpec, snapshot: Snapshot, ref: ObjectRef, now: datetime
) -> bool:
    """Say whether a hand-made *leaf* may stay for now; its issuer is not judged."""
    claim = snapshot.claims.get(ref)
    if claim is not None and claim.asked:
        return False  # a Service that an operator wants taken away is not left for its leaf's sake
    return will_do(leaf, spec, snapshot, ref, now)


def will_do(
    leaf: Leaf, spec: CertificateSpec, snapshot: Snapshot, ref: ObjectRef, now: datetime
) -> bool:
    """Say whether *leaf* is valid, for the names asked for, and served by the listener's suite."""
    valid = leaf.not_before <= now < leaf.not_after
    names = set(leaf.names)
    covered = all(name in names or f"*.{name.partition('.')[2]}" in names for name in spec.names)
    return valid and covered and not leaf.self_signed and suits(leaf, snapshot, ref)


def _back(ref: ObjectRef, snapshot: Snapshot, now: datetime) -> Choice | None:
    """
    Come back to the version that was last on this listener; one seen there goes first.

    One that is revoked goes last.

    Where there is none, to what the Service named before us.
    """
    proofs = [
        (
            not withdrawn(version, snapshot.versions),
            worked(version, ref) is not None,
            version.served[str(ref)].at,
            version.ref.name,
            version,
        )
        for version in _valid(ref, snapshot, now)
        if str(ref) in version.served and not rejected(version, ref)
    ]
    if proofs:
        return Choice(max(proofs, key=lambda found: found[:4])[4], back=True)
    original, named = _original(ref, snapshot, now), snapshot.bindings[ref].reference
    if original is None:
        return None
    if named == original:
        return Choice()
    ours = any(version.ref == named for version in snapshot.versions)
    if not ours and snapshot.services[ref].owned.changed_at is None:
        return None  # a Service that was made anew: what its namesake named is not its own
    return Choice(reference=original, back=True)


def _valid(ref: ObjectRef, snapshot: Snapshot, now: datetime) -> list[SecretVersion]:
    """List what the listener could serve, whatever is asked for by now; the best first."""
    valid = (
        version
        for version in snapshot.versions
        if usable(version, now) and version.leaf and suits(version.leaf, snapshot, ref)
    )
    return best_first(valid, snapshot)


def _instead(ref: ObjectRef, snapshot: Snapshot, now: datetime) -> Choice:
    """
    Nothing that fits is taken here: what was there before, if what is there is refused or useless.

    A Service that names what is gone gets no load balancer when it is made anew, and
    one that names what has expired serves nobody: any valid version of ours is better
    than that, a refused one if there is no other.
    """
    named = snapshot.bindings[ref].reference
    current = next((item for item in snapshot.versions if item.ref == named), None)
    refused = current is not None and rejected(current, ref)
    known = current is not None or named in snapshot.foreign
    gone = not known and snapshot.services[ref].owned.tls_secret
    useless = named is not None and (gone or (known and is_useless(named, snapshot, now)))
    back = _back(ref, snapshot, now)
    came_back = named is not None and named == _original(ref, snapshot, now)
    if back is not None and (refused or useless or came_back):
        return back
    if not useless:
        return Choice()
    valid = _valid(ref, snapshot, now)
    preferred = [item for item in valid if not rejected(item, ref)] or valid
    return Choice(preferred[0]) if preferred else Choice()


def is_useless(named: ObjectRef, snapshot: Snapshot, now: datetime) -> bool:
    """Say whether Secret *named* is known to be gone, flawed or expired."""
    version = next((item for item in snapshot.versions if item.ref == named), None)
    if version is not None:
        return not usable(version, now)
    leaf = snapshot.foreign.get(named)
    if leaf is not None:
        return now >= leaf.not_after
    # in our own namespace it would have been read
    return named.namespace in {version.ref.namespace for version in snapshot.versions}


def _original(ref: ObjectRef, snapshot: Snapshot, now: datetime) -> ObjectRef | None:
    """Give what the Service named before us, unless that is known to be of no use."""
    value = snapshot.journal.originals.get(str(ref)) if snapshot.journal else None
    if not value:
        return None
    named = _read(value, ref)
    leaf = snapshot.foreign.get(named)
    unsuited = leaf is not None and not suits(leaf, snapshot, ref)
    return None if unsuited or is_useless(named, snapshot, now) else named


def _read(value: str, service: ObjectRef) -> ObjectRef:
    """Read a reference as the controller does: a/b/c is b in a."""
    parts = value.split("/")
    return ObjectRef(parts[0], parts[1]) if len(parts) > 1 else ObjectRef(service.namespace, value)


def served_well(
    spec: CertificateSpec, service: ObjectRef, snapshot: Snapshot, policy: Policy, now: datetime
) -> bool:
    """Say whether *service* has a version to go on with: not refused there, and not late."""
    return any(
        version.leaf is not None
        and not rejected(version, service)
        and now < late_time(version.leaf, policy)
        for version in acceptable(spec, snapshot, now)
    )
