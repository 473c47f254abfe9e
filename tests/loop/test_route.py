"""Whether a probe sees the load balancer from outside, by what stands on the Service."""

from __future__ import annotations

from dataclasses import replace

import pytest

from certbaton.model import Address, ObjectRef, ProbeSpec, Route, ServiceSpec
from certbaton.observe import Observer
from certbaton.targets.oci import OciTarget
from loop.world import World, a_spec

REF = ObjectRef("shop", "one")
PROXY, VIP, NONE = (Address("192.0.2.1", mode) for mode in ("Proxy", "VIP", None))

MODES: dict[str, tuple[tuple[Address, ...], Route]] = {
    "all by way of the load balancer": ((PROXY, PROXY), Route.OUTSIDE),
    "one address of two ends in the cluster": ((PROXY, VIP), Route.INSIDE),
    "the first of two does": ((VIP, PROXY), Route.INSIDE),
    "one of two says nothing of it": ((PROXY, NONE), Route.INSIDE),
    "both end in the cluster": ((VIP, VIP), Route.INSIDE),
    "an older cluster, which says nothing": ((NONE,), Route.INSIDE),
    "no address yet": ((), Route.INSIDE),
}


PLAIN = ServiceSpec(REF)


def route(*addresses: Address, service: ServiceSpec = PLAIN, setting: str = "auto") -> Route:
    """How a probe reaches a Service with these addresses."""
    process = World(a_spec("one", "one")).process()
    process.cluster.refresh()
    state = process.cluster.services.service(REF)
    assert state is not None
    observer = Observer(process.cluster, OciTarget(), route=setting)
    return observer._route_to(service, replace(state, addresses=addresses))


@pytest.mark.parametrize(("addresses", "expected"), MODES.values(), ids=MODES)
def test_in_a_pod_every_address_has_to_be_seen_from_outside(
    addresses: tuple[Address, ...], expected: Route, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that kube-proxy answers would testify for a load balancer that nobody asked."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert route(*addresses) is expected


def test_out_of_the_cluster_every_view_is_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert route(VIP) is Route.OUTSIDE


def test_an_address_that_was_set_is_one_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the setting goes before everything."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    probe = ServiceSpec(REF, probe=ProbeSpec(address="198.51.100.7"))
    assert route(VIP, service=probe) is Route.OUTSIDE
    assert route(VIP, service=probe, setting="inside") is Route.INSIDE
    assert route(VIP, setting="outside") is Route.OUTSIDE
