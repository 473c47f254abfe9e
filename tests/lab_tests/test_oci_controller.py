"""The simulated controller does what the notes on Oracle's controller say, read in order."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from lab.kube import Kube
from lab.oci import LabApp, Prober
from lab_tests.oci_world import World, api_server, certificate, port, served, sha, until


@pytest.fixture(scope="module", params=["memory", pytest.param("real", marks=pytest.mark.servers)])
def kube(request: pytest.FixtureRequest) -> Iterator[Kube]:
    with api_server(request.param) as found:
        yield found


@pytest.fixture
def world(kube: Kube) -> Iterator[World]:
    with World(kube) as found:
        yield found


# What it reads on a Service


def test_a_secret_is_named_alone_or_with_its_namespace(world: World) -> None:
    world.secret("a-1")
    world.create_namespace(f"{world.namespace}-x")
    world.secret("b-1", namespace=f"{world.namespace}-x")
    world.tls_service("a-1")
    world.tls_service(f"{world.namespace}-x/b-1", name="other")
    world.serving("a-1")
    world.serving("b-1", "other")
    # Its name on the load balancer is the Secret's, without the namespace.
    assert world.balancer("other").certificates == ["b-1"]


def test_a_reference_is_split_at_the_slash_and_the_first_two_parts_are_used(world: World) -> None:
    world.secret("a-1")
    world.tls_service(f"{world.namespace}/a-1/c")
    world.serving("a-1")


def test_ssl_ports_without_tls_secret_is_a_plain_listener(world: World) -> None:
    world.service(ports=(80, 443), annotations={"oci-x": "y"})
    world.annotate(ssl_ports="443")
    balancer = world.balancer()
    world.settled()
    assert balancer.certificate_of(443) is None
    assert served(balancer) == "SSLError"


def test_tls_secret_without_ssl_ports_does_nothing(world: World) -> None:
    world.service(ports=(80, 443))
    world.annotate(tls_secret="missing")
    balancer = world.balancer()
    until(lambda: world.ingress(), "an address")
    assert balancer.certificates == []
    assert world.events("SyncLoadBalancerFailed") == []


def test_a_port_in_ssl_ports_that_the_service_lacks_is_ignored(world: World) -> None:
    world.secret("a-1")
    world.tls_service("a-1", annotations={})
    world.annotate(ssl_ports=" 443 , 8443")
    world.serving("a-1")
    assert set(world.balancer().listeners) == {80, 443}


def test_ssl_ports_must_be_integers(world: World) -> None:
    world.service(annotations={})
    world.balancer()
    world.annotate(ssl_ports="https")
    until(lambda: "parse SSL port" in world.messages("SyncLoadBalancerFailed"))


def test_a_network_load_balancer_reads_no_certificates(world: World) -> None:
    world.tls_service("missing", annotations={"oci.oraclecloud.com/load-balancer-type": "nlb"})
    until(lambda: world.ingress(), "an address")
    assert world.balancer().certificate_of(443) is None


@pytest.mark.parametrize("lacking", ["tls.crt", "tls.key"])
def test_both_keys_are_required(world: World, lacking: str) -> None:
    world.secret("a-1", leave_out=lacking)
    world.service(ports=(80, 443))
    world.balancer()
    world.annotate(ssl_ports="443", tls_secret="a-1")
    said = (
        "Error syncing load balancer: failed to ensure load balancer: ensuring ssl certificates: "
        f"reading SSL Listener Secret: {lacking} not found in secret {world.namespace}/a-1"
    )
    until(lambda: said in world.messages("SyncLoadBalancerFailed"))


def test_the_whole_chain_is_presented(world: World) -> None:
    world.secret("a-1")
    world.tls_service("a-1")
    balancer = world.serving("a-1")
    assert balancer.certificate("a-1").chain == certificate("a-1")[0]


def test_without_ssl_config_an_ecdsa_certificate_fails_every_handshake(world: World) -> None:
    world.secret("ec-1", certificate("ec-1", "ecdsa"))
    world.tls_service("ec-1")
    until(lambda: world.count("EnsuredLoadBalancer") >= 1, "each API call succeeds")
    balancer = world.balancer()
    assert served(balancer) == "SSLError"
    suite = {"CipherSuiteName": "oci-modern-ssl-cipher-suite-v1", "Protocols": ["TLSv1.2"]}
    world.annotate(ssl_config=json.dumps(suite))
    until(lambda: served(balancer) == sha("ec-1", "ecdsa"), "with another suite it works")
    # Taking it away only acts at the next change of the listener.
    world.annotate(ssl_config=None)
    world.settled()
    assert served(balancer) == sha("ec-1", "ecdsa")


def test_a_suite_without_protocols_updates_the_listener_at_each_sync(world: World) -> None:
    world.secret("a-1")
    world.tls_service("a-1")
    world.serving("a-1")
    world.annotate(ssl_config='{"CipherSuiteName": "oci-modern-ssl-cipher-suite-v1"}')
    until(lambda: world.operations().count("UpdateListener") == 1)
    world.annotate(other="1")
    until(lambda: world.operations().count("UpdateListener") == 2)


def test_grpc_refuses_plain_ports(world: World) -> None:
    world.service(
        annotations={"service.beta.kubernetes.io/oci-load-balancer-backend-protocol": "GRPC"}
    )
    until(lambda: "cannot be empty for GRPC" in world.messages("SyncLoadBalancerFailed"))


def test_the_backend_set_s_secret_is_put_on_the_load_balancer_the_same_way(world: World) -> None:
    for name in ("a-1", "b-1", "b-2"):
        world.secret(name)
    backend = "service.beta.kubernetes.io/oci-load-balancer-tls-backendset-secret"
    world.tls_service("a-1", annotations={backend: "b-1"})
    balancer = world.serving("a-1")
    assert balancer.certificates == ["a-1", "b-1"]
    world.annotate(tls_backendset_secret=f"{world.namespace}/b-2")
    until(lambda: balancer.backend_sets == {80: None, 443: "b-2"})
    world.annotate(tls_backendset_secret="b-3")
    said = 'reading SSL Backend Secret: secrets "b-3" not found'
    until(lambda: said in world.messages("SyncLoadBalancerFailed"))


def test_udp_is_refused_as_in_oracle_s_source(world: World) -> None:
    world.service(ports=(80,))
    world.balancer()
    udp = {"name": "quic", "port": 443, "targetPort": 8080, "protocol": "UDP"}
    world.kube.patch(world.path("services", "shop"), {"spec": {"ports": [port(80), udp]}})
    until(lambda: "do not support UDP" in world.messages("SyncLoadBalancerFailed"))


# A certificate on the load balancer


def test_a_secret_changed_in_place_is_never_pushed(world: World) -> None:
    world.secret("a-1")
    world.tls_service("a-1")
    balancer = world.serving("a-1")
    world.kube.delete(world.path("secrets", "a-1"))
    world.secret("a-1", certificate("other"))
    world.annotate(other="1")
    until(lambda: world.count("EnsuredLoadBalancer") >= 2)
    assert served(balancer) == sha("a-1")
    assert world.operations().count("CreateCertificate") == 0


def test_certificates_are_never_deleted_and_a_known_name_is_not_created_again(
    world: World,
) -> None:
    world.secret("a-1")
    world.secret("a-2")
    world.tls_service("a-1")
    world.serving("a-1")
    world.annotate(tls_secret="a-2")
    world.serving("a-2")
    world.annotate(tls_secret="a-1")
    balancer = world.serving("a-1")
    assert balancer.certificates == ["a-1", "a-2"]
    assert world.controller.certificates() == ["a-1", "a-2"]
    assert world.operations().count("CreateCertificate") == 1


def test_a_full_load_balancer_fails_create_certificate(world: World) -> None:
    world.secret("a-1")
    world.secret("a-2")
    world.tls_service("a-1")
    balancer = world.serving("a-1")
    world.faults.certificate_limit = 1
    world.annotate(tls_secret="a-2")
    until(lambda: "Error Code: LimitExceeded" in world.messages("SyncLoadBalancerFailed"))
    assert "Http Status Code: 400" in world.messages("SyncLoadBalancerFailed")
    assert served(balancer) == sha("a-1")


def test_a_load_balancer_made_again_starts_empty(world: World) -> None:
    world.secret("a-1")
    world.tls_service("a-1")
    first = world.serving("a-1")
    world.annotate(tls_secret=None)
    world.kube.delete(world.path("services", "shop"))
    until(lambda: world.controller.find_load_balancer(world.namespace, "shop") is None)
    until(lambda: world.events("DeletedLoadBalancer"))
    assert served(first) == "ConnectionRefusedError"
    until(lambda: not [one for one in _services(world) if one == "shop"], "the Service is gone")
    world.service()
    assert world.balancer().uid != first.uid
    assert world.balancer().certificates == []


def _services(world: World) -> list[str]:
    return [one["metadata"]["name"] for one in world.kube.list(world.path("services"))["items"]]


def test_a_dot_in_a_name_is_refused_by_oci(world: World) -> None:
    world.secret("a.1")
    world.service(ports=(80, 443))
    world.balancer()
    world.annotate(ssl_ports="443", tls_secret="a.1")
    until(lambda: "Operation Name: CreateCertificate" in world.messages("SyncLoadBalancerFailed"))
    assert "Error Code: InvalidParameter" in world.messages("SyncLoadBalancerFailed")


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
            failures += _page(balancer.endpoint(80)) != 200
    assert failures == 0
    assert 400 <= prober.interruption_ms(sha("a-1"), sha("a-2")) < 3000
    (outage,) = prober.outages()
    assert any("ConnectionRefused" in error for error in outage.errors)


def _page(endpoint: tuple[str, int], path: str = "/") -> int:
    connection = http.client.HTTPConnection(*endpoint, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


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
    assert _page(balancer.endpoint(80)) == 200


def test_in_several_patches_443_serves_plain_http_in_between(world: World) -> None:
    world.service()
    balancer = world.balancer()
    world.kube.patch(world.path("services", "shop"), {"spec": {"ports": [port(80), port(443)]}})
    until(lambda: 443 in balancer.listeners)
    assert _page(balancer.endpoint(443)) == 200


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
    assert _page(balancer.endpoint(80), path) == 404
    world.app.challenge_upstream = ("127.0.0.1", 1)
    assert _page(balancer.endpoint(80), path) == 502
    with LabApp("solver") as solver:
        world.app.challenge_upstream = solver.address
        _page(balancer.endpoint(80), path)
        assert _page(balancer.endpoint(80)) == 200
        assert solver.paths == [path]
