"""What is written on a Service of Oracle's cloud."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certbaton.errors import ConfigurationError
from certbaton.model import ObjectRef, OwnedFields, ServicePort, ServiceSpec, ServiceState
from certbaton.targets.oci import LOAD_BALANCER_TYPE, SSL_PORTS, TLS_SECRET
from targets.services import (
    HTTP,
    HTTPS,
    NEITHER,
    NO_HTTPS,
    NO_PORTS,
    OCI,
    OURS,
    PLAIN,
    SECRET,
    SHOP,
    a_service,
)

# --- what is written ------------------------------------------------------------------------


@dataclass(frozen=True)
class Write:
    """A Service, what is asked of it, and what is written: ssl-ports, and port 443's target."""

    state: ServiceState
    ssl_ports: str | None = "443"
    target: int | str | None = 8080
    service: ServiceSpec = PLAIN
    complete: bool = False
    name: str = "https"


THEIRS = OwnedFields(others_https=True)
WRITES = {
    "the Service that people have today": Write(a_service()),
    "target by name": Write(a_service(ServicePort("http", 80, "TCP", "web")), target="web"),
    "http without a targetPort": Write(a_service(ServicePort("http", 80, "TCP", None)), target=80),
    "ssl-ports of somebody else stays theirs": Write(
        a_service(annotations={SSL_PORTS: "8443"}, owned=OwnedFields(others_ssl_ports=True)),
        ssl_ports=None,
    ),
    "ssl-ports that is ours is written again": Write(
        a_service(HTTP, HTTPS, annotations={SSL_PORTS: "443"}, owned=OURS), complete=True
    ),
    "ssl-ports that is ours and somebody else's is left to them": Write(
        a_service(
            HTTP,
            HTTPS,
            annotations={SSL_PORTS: "443"},
            owned=OwnedFields(ssl_ports=True, https_port=True, others_ssl_ports=True),
        ),
        ssl_ports=None,
        complete=True,
    ),
    "443/TCP of somebody else is left out": Write(
        a_service(HTTP, ServicePort("tls", 443, "TCP", 9000), owned=THEIRS), target=None
    ),
    "443/TCP that is ours and was changed by somebody else is written as it is": Write(
        a_service(
            HTTP,
            ServicePort("https", 443, "TCP", 9443),
            annotations={SSL_PORTS: "443"},
            owned=OwnedFields(ssl_ports=True, https_port=True, others_https=True),
        ),
        target=9443,
        complete=True,
    ),
    "443/TCP that is ours and was renamed keeps its name": Write(
        a_service(
            HTTP,
            ServicePort("tls", 443, "TCP", 8080),
            annotations={SSL_PORTS: "443"},
            owned=OwnedFields(ssl_ports=True, https_port=True, others_https=True),
        ),
        complete=True,
        name="tls",
    ),
    "443/TCP that nobody owns by the managed fields is left out": Write(
        a_service(HTTP, HTTPS), target=None
    ),
    "443/UDP of somebody else is another port": Write(
        a_service(HTTP, ServicePort("quic", 443, "UDP", 443))
    ),
    "our 443/TCP follows http": Write(
        a_service(
            ServicePort("http", 80, "TCP", 9090), HTTPS, annotations={SSL_PORTS: "443"}, owned=OURS
        ),
        target=9090,
    ),
    "our 443/TCP was removed": Write(
        a_service(owned=OwnedFields(tls_secret=True, ssl_ports=True)),
    ),
    "our ssl-ports was removed": Write(
        a_service(HTTP, HTTPS, owned=OwnedFields(tls_secret=True, https_port=True))
    ),
    "ssl-ports is switched off": Write(a_service(), ssl_ports=None, service=NO_PORTS),
    "the port is switched off": Write(a_service(), target=None, service=NO_HTTPS),
    "both are switched off": Write(
        a_service(), ssl_ports=None, target=None, service=NEITHER, complete=True
    ),
    "both were switched off after we had written them: left out they would be removed": Write(
        a_service(
            ServicePort("http", 80, "TCP", 9090), HTTPS, annotations={SSL_PORTS: "443"}, owned=OURS
        ),
        service=NEITHER,
        complete=True,
    ),
    "the port was switched off after we had written it, and http is gone": Write(
        a_service(
            ServicePort("web", 80, "TCP", 9090), HTTPS, annotations={SSL_PORTS: "443"}, owned=OURS
        ),
        service=NO_HTTPS,
        complete=True,
    ),
    "http was renamed after we had written the port: the port stays as it is": Write(
        a_service(
            ServicePort("web", 80, "TCP", 9090), HTTPS, annotations={SSL_PORTS: "443"}, owned=OURS
        ),
        complete=True,
    ),
    "several ports, of which one is called http": Write(
        a_service(ServicePort("admin", 9000, "TCP", 9000), HTTP)
    ),
    "an unnamed port, while the port is switched off": Write(
        a_service(ServicePort(None, 80, "TCP", 8080)), target=None, service=NO_HTTPS
    ),
    "the name https is taken by their own 443/TCP": Write(
        a_service(HTTP, HTTPS, owned=THEIRS), target=None
    ),
}


@pytest.mark.parametrize("case", WRITES.values(), ids=WRITES)
def test_what_is_written(case: Write) -> None:
    """Always all that is ours and nothing else, of this very state of this very Service."""
    binding = OCI.bind(case.state, case.service)
    assert binding.problem is None
    assert binding.complete is case.complete
    body = OCI.body(case.state, case.service, SECRET)
    annotations = {TLS_SECRET: "certbaton/shop-20270301-0123456789"}
    if case.ssl_ports is not None:
        annotations[SSL_PORTS] = case.ssl_ports
    expected: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "shop",
            "namespace": "shop",
            "uid": "the uid",
            "resourceVersion": "42",
            "annotations": annotations,
        },
    }
    if case.target is not None:
        expected["spec"] = {
            "ports": [
                {"name": case.name, "port": 443, "protocol": "TCP", "targetPort": case.target}
            ]
        }
    assert body == expected


def test_a_secret_beside_the_service_is_named_without_its_namespace() -> None:
    """As a hand-made set-up would; elsewhere ``namespace/name``."""
    body = OCI.body(a_service(), PLAIN, ObjectRef("shop", "mine"))
    assert body["metadata"]["annotations"][TLS_SECRET] == "mine"


# --- what cannot be written -------------------------------------------------------------------

PROBLEMS: dict[str, tuple[ServiceState, str]] = {
    "not a LoadBalancer": (a_service(type="ClusterIP"), "is of type ClusterIP"),
    "of another class": (
        a_service(load_balancer_class="example.com/x"),
        "has loadBalancerClass 'example.com/x'",
    ),
    "a network load balancer": (
        a_service(annotations={LOAD_BALANCER_TYPE: "nlb"}),
        "network load balancer",
    ),
    "a network load balancer, in capitals": (
        a_service(annotations={LOAD_BALANCER_TYPE: "NLB"}),
        "network load balancer",
    ),
    "a single port without a name": (
        a_service(ServicePort(None, 80, "TCP", 8080)),
        "a single port without a name",
    ),
    "no port called http": (
        a_service(ServicePort("web", 80, "TCP", 8080), ServicePort("x", 81, "TCP", 81)),
        "has no port named http",
    ),
    "https is taken by another port": (
        a_service(HTTP, ServicePort("https", 8443, "TCP", 8443)),
        "the name https is taken by port 8443/TCP",
    ),
    "https is taken by 443/UDP": (
        a_service(HTTP, ServicePort("https", 443, "UDP", 443)),
        "the name https is taken by port 443/UDP",
    ),
}


@pytest.mark.parametrize(("state", "words"), PROBLEMS.values(), ids=PROBLEMS)
def test_what_cannot_be_written_is_one_sentence(state: ServiceState, words: str) -> None:
    """Told before, and refused if it is tried all the same."""
    problem = OCI.bind(state, PLAIN).problem
    assert problem is not None
    assert problem.startswith("Service shop/shop") and words in problem
    assert "\n" not in problem
    with pytest.raises(ConfigurationError, match="Service shop/shop"):
        OCI.body(state, PLAIN, SECRET)


def test_where_443_is_theirs_no_name_is_needed() -> None:
    """Neither http nor https matter then."""
    state = a_service(
        ServicePort("web", 80, "TCP", 1), ServicePort("https", 443, "TCP", 2), owned=THEIRS
    )
    assert OCI.bind(state, PLAIN).problem is None


# --- whatever somebody writes -----------------------------------------------------------------

HOSTILE = st.one_of(
    st.text(max_size=40),
    st.sampled_from(["443", "nlb", "a/b", "443,,٤٤٣", "9" * 5000, "\x00", "²"]),
)
PORTS = st.builds(
    ServicePort,
    st.none() | st.sampled_from(["http", "https", ""]) | st.text(max_size=5),
    st.sampled_from([0, 80, 443, 8443]),
    st.sampled_from(["TCP", "UDP", "SCTP"]),
    st.none() | st.integers(0, 70_000) | st.text(max_size=5),
)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.sampled_from([SSL_PORTS, TLS_SECRET, LOAD_BALANCER_TYPE]), HOSTILE),
    st.lists(PORTS, max_size=4),
    st.builds(OwnedFields, *[st.booleans()] * 5),
    st.sampled_from([PLAIN, NO_PORTS, NO_HTTPS, NEITHER]),
    st.none() | HOSTILE,
)
def test_whatever_stands_on_a_service(
    annotations: dict[str, str],
    ports: list[ServicePort],
    owned: OwnedFields,
    service: ServiceSpec,
    load_balancer_class: str | None,
) -> None:
    """It is read without an error; a body is made exactly where there is no problem."""
    state = ServiceState(
        ref=SHOP,
        uid="u",
        resource_version="1",
        type="LoadBalancer",
        annotations=annotations,
        ports=tuple(ports),
        addresses=(),
        owned=owned,
        load_balancer_class=load_balancer_class,
    )
    binding = OCI.bind(state, service)
    assert set(binding.tls_ports) <= {port.port for port in ports}
    if binding.problem is not None:
        assert "\n" not in binding.problem.replace(str(load_balancer_class), "")
        with pytest.raises(ConfigurationError):
            OCI.body(state, service, SECRET)
        return
    body = OCI.body(state, service, SECRET)
    written = body["metadata"]["annotations"]
    assert written[TLS_SECRET] == str(SECRET)
    assert set(written) <= {TLS_SECRET, SSL_PORTS}
    # what we own alone is never left out: that would remove it
    assert not owned.ssl_ports or owned.others_ssl_ports or SSL_PORTS in written
    assert not owned.https_port or "spec" in body
    for port in body.get("spec", {}).get("ports", []):
        assert (port["port"], port["protocol"]) == (443, "TCP")


def test_what_was_written_is_complete_afterwards() -> None:
    """Otherwise it would be written again and again."""
    for case in WRITES.values():
        body = OCI.body(case.state, case.service, SECRET)
        written, ports = body["metadata"]["annotations"], case.state.ports
        if "spec" in body:
            target = body["spec"]["ports"][0]["targetPort"]
            others = [port for port in ports if (port.port, port.protocol) != (443, "TCP")]
            ports = (*others, ServicePort("https", 443, "TCP", target))
        after = a_service(
            *ports,
            annotations={**case.state.annotations, **written},
            owned=replace(
                case.state.owned, ssl_ports=SSL_PORTS in written, https_port="spec" in body
            ),
        )
        assert OCI.bind(after, case.service).complete
