"""The simulated controller syncs as the notes on Oracle's controller say, read in order."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from lab.kube import Kube
from lab.oci import LabApp, Prober
from lab_tests.oci_world import World, api_server, page, port, served, sha, until


@pytest.fixture(scope="module", params=["memory", pytest.param("real", marks=pytest.mark.servers)])
def kube(request: pytest.FixtureRequest) -> Iterator[Kube]:
    with api_server(request.param) as found:
        yield found


@pytest.fixture
def world(kube: Kube) -> Iterator[World]:
    with World(kube) as found:
        yield found


# A change of tls-secret, step by step


def test_a_change_is_create_certificate_then_update_listener(world: World) -> None:
    world.secret("a-1")
    world.secret("a-2")
    world.tls_service("a-1")
    balancer = world.serving("a-1")
    world.settled()
    before = len(world.operations())
    patched = world.annotate(tls_secret="a-2")
    world.serving("a-2")
    until(lambda: world.count("EnsuredLoadBalancer") == 2)
    assert world.operations()[before:] == ["CreateCertificate", "UpdateListener"]
    assert balancer.listeners[443].name == "TCP-443"
    ensuring = world.events("EnsuringLoadBalancer")[0]
    assert ensuring["count"] == 2
    # While the count is 1, the version that was synced can be read; afterwards it is the first.
    assert ensuring["involvedObject"]["resourceVersion"] != patched["metadata"]["resourceVersion"]


def test_the_first_sync_s_event_names_the_version_synced(world: World) -> None:
    created = world.service()
    until(lambda: world.events("EnsuredLoadBalancer"))
    event = world.events("EnsuringLoadBalancer")[0]
    assert event["involvedObject"]["uid"] == created["metadata"]["uid"]
    assert event["involvedObject"]["kind"] == "Service"
    assert event["involvedObject"]["resourceVersion"] == created["metadata"]["resourceVersion"]
    assert event["source"]["component"] == "service-controller"
    assert (event["type"], event["message"]) == ("Normal", "Ensuring load balancer")
    assert datetime.fromisoformat(event["lastTimestamp"]).microsecond == 0


def test_only_the_listener_is_interrupted_and_port_80_never(world: World) -> None:
    world.secret("a-1")
    world.secret("a-2")
    world.tls_service("a-1")
    balancer = world.serving("a-1")
    balancer.interruption = 0.4
    with Prober(*balancer.endpoint(443), "shop.example", interval=0.05) as prober:
        prober.wait_for(sha("a-1"), 10)
        world.annotate(tls_secret="a-2")
        failures = 0
        while prober.first_seen(sha("a-2")) is None:
            failures += page(balancer.endpoint(80)) != 200
    assert failures == 0
    assert 400 <= prober.interruption_ms(sha("a-1"), sha("a-2")) < 3000
    (outage,) = prober.outages()
    assert any("ConnectionRefused" in error for error in outage.errors)


def test_a_missing_secret_touches_nothing_and_a_later_retry_succeeds_by_itself(
    world: World,
) -> None:
    world.secret("a-1")
    world.tls_service("a-1")
    balancer = world.serving("a-1")
    world.annotate(tls_secret="a-2")
    said = (
        "Error syncing load balancer: failed to ensure load balancer: ensuring ssl certificates: "
        'reading SSL Listener Secret: secrets "a-2" not found'
    )
    until(lambda: said in world.messages("SyncLoadBalancerFailed"))
    assert served(balancer) == sha("a-1")
    assert balancer.certificates == ["a-1"]
    world.secret("a-2")
    world.serving("a-2")


# Creation


def test_creation_carries_everything_at_once_and_the_address_follows(world: World) -> None:
    world.secret("a-1")
    world.tls_service("a-1")
    balancer = world.serving("a-1")
    assert world.operations() == ["CreateLoadBalancer"]
    until(lambda: [one["ip"] for one in world.ingress()] == balancer.addresses)


def test_a_service_that_names_a_missing_secret_gets_no_load_balancer_at_all(
    world: World,
) -> None:
    world.tls_service("a-1")
    until(lambda: world.count("SyncLoadBalancerFailed") >= 2, "it tries again")
    assert 'secrets "a-1" not found' in world.messages("SyncLoadBalancerFailed")
    assert world.controller.find_load_balancer(world.namespace, "shop") is None
    assert world.ingress() == []
    world.secret("a-1")
    world.serving("a-1")


def test_adding_443_in_one_patch(world: World) -> None:
    world.secret("a-1")
    world.service()
    balancer = world.balancer()
    until(lambda: world.ingress())
    world.settled()
    world.kube.patch(
        world.path("services", "shop"),
        {
            "metadata": {
                "annotations": {
                    "service.beta.kubernetes.io/oci-load-balancer-ssl-ports": "443",
                    "service.beta.kubernetes.io/oci-load-balancer-tls-secret": "a-1",
                }
            },
            "spec": {"ports": [port(80), port(443)]},
        },
    )
    world.serving("a-1")
    assert world.operations()[1:] == ["CreateCertificate", "CreateBackendSet", "CreateListener"]
    assert page(balancer.endpoint(80)) == 200


def test_in_several_patches_443_serves_plain_http_in_between(world: World) -> None:
    world.service()
    balancer = world.balancer()
    world.kube.patch(world.path("services", "shop"), {"spec": {"ports": [port(80), port(443)]}})
    until(lambda: 443 in balancer.listeners)
    assert page(balancer.endpoint(443)) == 200


# A change during a change


def test_a_sync_under_way_is_not_called_off(world: World) -> None:
    for name in ("a-1", "a-2"):
        world.secret(name)
    world.tls_service("a-1")
    balancer = world.serving("a-1")
    with Prober(*balancer.endpoint(443), "shop.example", interval=0.01) as prober:
        prober.wait_for(sha("a-1"), 10)
        world.annotate(tls_secret="a-2")
        until(lambda: "CreateCertificate" in world.operations(), "the change has begun")
        world.annotate(tls_secret="a-1")
        prober.wait_for(sha("a-2"), 10)
        until(lambda: prober.changes()[-1].leaf == sha("a-1"), "put back afterwards")
    assert [one.leaf for one in prober.changes()] == [sha("a-1"), sha("a-2"), sha("a-1")]
    # Two interruptions.
    assert world.operations().count("UpdateListener") == 2


# Full syncs, and what is none


def test_a_change_of_any_annotation_starts_a_full_sync(world: World) -> None:
    world.secret("a-1")
    world.tls_service("a-1")
    world.serving("a-1")
    world.settled()
    world.kube.delete(world.path("secrets", "a-1"))
    world.annotate(other="1")
    until(lambda: 'secrets "a-1" not found' in world.messages("SyncLoadBalancerFailed"))


def test_labels_are_no_reason_for_a_sync(world: World) -> None:
    world.service()
    until(lambda: world.ingress())
    world.settled()
    world.kube.patch(world.path("services", "shop"), {"metadata": {"labels": {"a": "b"}}})
    world.annotate(other="1")
    until(lambda: world.count("EnsuredLoadBalancer") == 2)
    world.settled()
    assert world.count("EnsuringLoadBalancer") == 2


def test_changes_of_nodes_read_no_secret(world: World) -> None:
    world.secret("a-1")
    world.tls_service("a-1")
    world.serving("a-1")
    until(lambda: world.ingress())
    world.settled()
    world.kube.delete(world.path("secrets", "a-1"))
    assert world.controller.node_changed() == 1
    until(lambda: world.events("UpdatedLoadBalancer"))
    assert world.messages("UpdatedLoadBalancer") == "Updated load balancer with new hosts"
    assert world.events("SyncLoadBalancerFailed") == []


def test_a_restart_makes_a_full_sync_of_everything(world: World) -> None:
    world.secret("a-1")
    world.tls_service("a-1")
    balancer = world.serving("a-1")
    world.controller.stop()
    assert served(balancer) == sha("a-1")
    world.kube.delete(world.path("secrets", "a-1"))
    world.controller.start()
    until(lambda: 'secrets "a-1" not found' in world.messages("SyncLoadBalancerFailed"))
    assert served(balancer) == sha("a-1")


def test_a_load_balancer_class_of_somebody_else_is_never_synced(world: World) -> None:
    world.service("foreign", loadBalancerClass="example.com/other")
    world.service()
    until(lambda: world.ingress())
    assert world.events(name="foreign") == []


# Seeing it from inside the cluster


@pytest.mark.parametrize(("text", "mode"), [("proxy", "Proxy"), ("PROXY", "Proxy"), ("vip", "VIP")])
def test_ingress_ip_mode_sets_the_status(world: World, text: str, mode: str) -> None:
    world.service(annotations={"oci.oraclecloud.com/ingress-ip-mode": text})
    until(lambda: [one.get("ipMode") for one in world.ingress()] == [mode])


def test_any_other_ip_mode_is_an_error(world: World) -> None:
    world.service(annotations={"oci.oraclecloud.com/ingress-ip-mode": "direct"})
    until(lambda: "only be set as Proxy or VIP" in world.messages("SyncLoadBalancerFailed"))


def test_several_addresses_and_several_ports(kube: Kube) -> None:
    with World(kube, addresses=2) as world:
        world.secret("a-1")
        world.tls_service("a-1", ports=(80, 443, 8443), annotations=_both_ports())
        balancer = world.serving("a-1")
        until(lambda: len(world.ingress()) == 2)
        seen = {served(balancer, port, address) for port in (443, 8443) for address in (0, 1)}
        assert seen == {sha("a-1")}


def _both_ports() -> dict[str, Any]:
    return {"service.beta.kubernetes.io/oci-load-balancer-ssl-ports": "443,8443"}


def test_the_challenge_path_reaches_the_solver_and_pages_the_pod(world: World) -> None:
    world.service()
    balancer = world.balancer()
    path = "/.well-known/acme-challenge/token"
    assert page(balancer.endpoint(80), path) == 404
    world.app.challenge_upstream = ("127.0.0.1", 1)
    assert page(balancer.endpoint(80), path) == 502
    with LabApp("solver") as solver:
        world.app.challenge_upstream = solver.address
        page(balancer.endpoint(80), path)
        assert page(balancer.endpoint(80)) == 200
        assert solver.paths == [path]
