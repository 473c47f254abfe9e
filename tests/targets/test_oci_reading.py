"""How a Service of Oracle's cloud is read: its ports, its reference, its cipher suite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from certbaton.cluster.services import project_service
from certbaton.model import Instance, ObjectRef, ServicePort, ServiceState
from certbaton.targets.oci import (
    BACKEND_PROTOCOL,
    LISTENER_SSL,
    SSL_PORTS,
    SUITES,
    TLS_SECRET,
)
from targets.services import NEITHER, OCI, PLAIN, a_service

# --- what is read -----------------------------------------------------------------------------

MANY = tuple(ServicePort(f"p{number}", number, "TCP", 1) for number in (80, 443, 8443))
READ: dict[str, tuple[str | None, tuple[int, ...]]] = {
    "no annotation": (None, ()),
    "one": ("443", (443,)),
    "several, trimmed": (" 8443 ,443", (443, 8443)),
    "one twice": ("443,443", (443,)),
    "one that the Service lacks is ignored": ("443,9443", (443,)),
    "empty": ("", ()),
    "commas alone": (",,", ()),
    "words": ("https,443", (443,)),
    "negative": ("-443", ()),
    "a fraction": ("443.0", ()),
    "digits of another script": ("٤٤٣", ()),
    "a number without end": ("4" * 200_000, ()),
    "a long list": ("443," * 50_000, (443,)),
}


@pytest.mark.parametrize(("value", "ports"), READ.values(), ids=READ)
def test_tls_ports(value: str | None, ports: tuple[int, ...]) -> None:
    """As Oracle's controller reads ssl-ports; what it ignores or refuses is not probed."""
    annotations = {} if value is None else {SSL_PORTS: value}
    assert OCI.bind(a_service(*MANY, annotations=annotations), PLAIN).tls_ports == ports


def test_a_udp_port_terminates_no_tls() -> None:
    """443/UDP in ssl-ports is no listener."""
    state = a_service(ServicePort("quic", 443, "UDP", 443), annotations={SSL_PORTS: "443"})
    assert OCI.bind(state, NEITHER).tls_ports == ()


NAMED: dict[str, tuple[str | None, ObjectRef | None]] = {
    "no annotation": (None, None),
    "name": ("cert", ObjectRef("shop", "cert")),
    "namespace/name": ("certbaton/cert", ObjectRef("certbaton", "cert")),
    "a/b/c is b in a": ("a/b/c", ObjectRef("a", "b")),
    "empty": ("", None),
    "a slash alone": ("/", None),
    "no namespace": ("/cert", None),
    "no name": ("certbaton/", None),
    "nothing is trimmed": (" cert", ObjectRef("shop", " cert")),
}


def from_api(annotations: Mapping[str, str], **spec: Any) -> ServiceState:
    """A Service object, through the same reading as the daemon's."""
    obj = {
        "metadata": {"name": "shop", "namespace": "shop", "annotations": dict(annotations)},
        "spec": {
            "type": "LoadBalancer",
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}],
            **spec,
        },
    }
    return project_service(obj, Instance("certbaton", "certbaton").field_manager)


@pytest.mark.parametrize(("value", "named"), NAMED.values(), ids=NAMED)
def test_the_reference(value: str | None, named: ObjectRef | None) -> None:
    """Read as Oracle's controller reads it."""
    annotations = {} if value is None else {TLS_SECRET: value}
    assert OCI.bind(from_api(annotations), PLAIN).reference == named


# --- which keys the listener can serve --------------------------------------------------------

RSA, BOTH = frozenset({"RSA"}), frozenset({"RSA", "EC"})


def suite(name: str) -> str:
    return f'{{"CipherSuiteName": "{name}"}}'


KEYS: dict[str, tuple[dict[str, str], frozenset[str] | None]] = {
    "no annotation: OCI's default suite is for RSA alone": ({}, RSA),
    "an empty one likewise": ({LISTENER_SSL: ""}, RSA),
    "no suite in it likewise": ({LISTENER_SSL: '{"Protocols": ["TLSv1.2"]}'}, RSA),
    "a suite without a name likewise": ({LISTENER_SSL: suite("")}, RSA),
    "a name that is none likewise": ({LISTENER_SSL: '{"CipherSuiteName": 7}'}, RSA),
    "the default by its name": ({LISTENER_SSL: suite("oci-default-ssl-cipher-suite-v1")}, RSA),
    "a modern one": ({LISTENER_SSL: suite("oci-modern-ssl-cipher-suite-v1")}, BOTH),
    "gRPC has another default": ({BACKEND_PROTOCOL: "GRPC"}, BOTH),
    "gRPC in small letters, with blanks": ({BACKEND_PROTOCOL: " grpc "}, BOTH),
    "HTTP has the same default as none": ({BACKEND_PROTOCOL: "HTTP"}, RSA),
    "gRPC with a suite: the suite counts": (
        {BACKEND_PROTOCOL: "GRPC", LISTENER_SSL: suite("oci-default-ssl-cipher-suite-v1")},
        RSA,
    ),
    "one of the user's own: not known": ({LISTENER_SSL: suite("ours-v1")}, None),
    "no JSON: the controller refuses it": ({LISTENER_SSL: "{"}, None),
    "JSON that is no object: the default": ({LISTENER_SSL: "[]"}, RSA),
    "JSON without end": ({LISTENER_SSL: "[" * 200_000}, None),
}


@pytest.mark.parametrize(("annotations", "kinds"), KEYS.values(), ids=KEYS)
def test_which_keys_the_cipher_suite_serves(
    annotations: dict[str, str], kinds: frozenset[str] | None
) -> None:
    """With another kind every handshake fails, although each call of the API succeeds."""
    assert OCI.bind(a_service(annotations=annotations), PLAIN).key_kinds == kinds


def test_only_the_default_suite_is_for_rsa_alone() -> None:
    """Of those that OCI predefines."""
    assert [name for name, kinds in SUITES.items() if kinds != BOTH] == [
        "oci-default-ssl-cipher-suite-v1"
    ]
    assert SUITES["oci-default-ssl-cipher-suite-v1"] == RSA
