"""
Which version a Service is to have, and why not another: never worse than before.

A version that a listener refused doesn't count as existing there. What comes
back is what last worked on that very listener, whatever is asked for by now.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from certbaton.core.renewal import fits, late_time, newest_first, usable
from certbaton.core.rollover import UNPROVEN
from certbaton.model import (
    EVERYWHERE,
    CertificateSpec,
    Leaf,
    ObjectRef,
    Policy,
    Proof,
    SecretVersion,
    ServiceSpec,
    Snapshot,
)


@dataclass(frozen=True, slots=True)
class Choice:
    """
    What a Service is to name: *version*, or where that is None, *reference*.

    Neither: it is left as it is. *back* says that this is a return to what worked,
    *note* is a sentence where something better was passed over.
    """

    version: SecretVersion | None = None
    reference: ObjectRef | None = None
    back: bool = False
    note: str | None = None

    @property
    def ref(self) -> ObjectRef | None:
        """The Secret to be named."""
        return self.version.ref if self.version else self.reference


def rejected(version: SecretVersion, service: ObjectRef | None = None) -> bool:
    """Say whether *version* is refused at *service*; for None, by all."""
    return EVERYWHERE in version.rejected or (
        service is not None and str(service) in version.rejected
    )


def acceptable(spec: CertificateSpec, snapshot: Snapshot, now: datetime) -> list[SecretVersion]:
    """Versions that fit, are valid, and are not refused by all; newest first."""
    return newest_first(
        [
            version
            for version in snapshot.versions
            if fits(version, spec) and usable(version, now) and not rejected(version)
        ]
    )


def worked(version: SecretVersion, service: ObjectRef) -> Proof | None:
    """Give the proof that *version* once was on *service*'s listener, if there is one."""
    proof = version.served.get(str(service))
    return proof if proof is not None and proof.how != UNPROVEN else None


def suits(leaf: Leaf, snapshot: Snapshot, service: ObjectRef) -> bool:
    """Say whether the listener's cipher suite can serve this kind of key."""
    binding = snapshot.bindings.get(service)
    kinds = binding.key_kinds if binding else None
    return kinds is None or ("RSA" if leaf.key_type.startswith("RSA") else "EC") in kinds


def choose(
    spec: CertificateSpec, service: ServiceSpec, snapshot: Snapshot, now: datetime
) -> Choice:
    """
    Choose for one Service that is there.

    The newest acceptable version; where the listener refused that one, what last
    worked there, else what the Service named before we came. An expired one
    never beats a refused valid one.
    """
    ref = service.ref
    binding = snapshot.bindings[ref]
    by_ref = {version.ref: version for version in snapshot.versions}
    current = by_ref.get(binding.reference) if binding.reference else None
    candidates = acceptable(spec, snapshot, now)
    fitting = [item for item in candidates if item.leaf and suits(item.leaf, snapshot, ref)]
    note = None
    if candidates and not fitting:
        leaf = candidates[0].leaf
        note = (
            f"Service {ref}: the listener's cipher suite cannot serve a "
            f"{leaf.key_type if leaf else ''} key; set keyType: RSA-2048, or the annotation "
            "oci-load-balancer-listener-ssl-config with a suite that can"
        )
        return Choice(note=note)
    for version in fitting:
        if rejected(version, ref):
            continue
        if current is not None and current.ref != version.ref and _better(current, version, spec):
            if not rejected(current, ref) and usable(current, now):
                note = f"Service {ref}: {current.ref} is valid longer than {version.ref}, so it stays"
                return Choice(current, note=note)
        return Choice(version, back=version is not candidates[0], note=note)
    return _what_worked(spec, ref, snapshot, now)


def _better(current: SecretVersion, other: SecretVersion, spec: CertificateSpec) -> bool:
    return (
        current.leaf is not None
        and other.leaf is not None
        and fits(current, spec)
        and current.leaf.not_after > other.leaf.not_after
    )


def _what_worked(
    spec: CertificateSpec, ref: ObjectRef, snapshot: Snapshot, now: datetime
) -> Choice:
    """Nothing that fits is accepted here: come back to what was."""
    proofs = [
        (proof.at, version.ref.name, version)
        for version in snapshot.versions
        if (proof := worked(version, ref)) is not None and usable(version, now)
        if not rejected(version, ref)
    ]
    if proofs:
        return Choice(max(proofs, key=lambda found: found[:2])[2], back=True)
    binding = snapshot.bindings[ref]
    by_ref = {version.ref: version for version in snapshot.versions}
    current = by_ref.get(binding.reference) if binding.reference else None
    refused = current is not None and rejected(current, ref)
    original = snapshot.journal.originals.get(str(ref)) if snapshot.journal else None
    if refused and original:
        return Choice(reference=_read(original, ref), back=True)
    state = snapshot.services[ref]
    if binding.reference is not None and current is None and state.owned.tls_secret:
        # we wrote it, and it is gone: any valid version of ours is better than nothing
        valid = [item for item in newest_first(snapshot.versions) if usable(item, now)]
        preferred = [item for item in valid if not rejected(item, ref)] or valid
        return Choice(preferred[0]) if preferred else Choice()
    return Choice()


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
