"""
Services that name what is nowhere: Oracle's controller makes no load balancer for them.

Without one there is no port 80, and a challenge of http-01 fails for ever. So the name is taken
off until there is something to be named.
"""

from __future__ import annotations

from certbaton.core.choose import Choice
from certbaton.model import CertificateSpec, GiveUp, ServiceSpec, Snapshot


def frees(spec: CertificateSpec, service: ServiceSpec, choice: Choice, snapshot: Snapshot) -> bool:
    """Say whether *service* names what is not there, has no load balancer, and nothing will do."""
    state, binding = snapshot.services[service.ref], snapshot.bindings[service.ref]
    paused = spec.paused or state.paused
    absent = binding.reference in snapshot.absent
    return absent and not state.addresses and not paused and choice.problem is None


def give_up(spec: CertificateSpec, service: ServiceSpec, snapshot: Snapshot) -> GiveUp:
    """Take the name off *service*, which `frees` said yes to."""
    reference = snapshot.bindings[service.ref].reference
    assert reference is not None  # noqa: S101 - it is absent
    why = (
        f"Service {service.ref} names Secret {reference}, which is not there, so Oracle's "
        "controller makes no load balancer for it; the name is taken off until there is a "
        "certificate"
    )
    return GiveUp(spec.name, why, service.ref, reference)
