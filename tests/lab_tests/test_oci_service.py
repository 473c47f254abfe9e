"""What the simulated controller reads on a Service, and what becomes of a certificate."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from lab.kube import Kube
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
