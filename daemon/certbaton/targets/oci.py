"""
Oracle's cloud controller manager: certificates by Secret name, never by content.

Source: oracle/oci-cloud-controller-manager, ``pkg/cloudprovider/providers/oci``;
what it was seen doing stands in the project's notes on its behaviour.
"""

from __future__ import annotations

import json
import re
from typing import Any

from certbaton.errors import ConfigurationError
from certbaton.model import Binding, ObjectRef, ServicePort, ServiceSpec, ServiceState

SSL_PORTS = "service.beta.kubernetes.io/oci-load-balancer-ssl-ports"
TLS_SECRET = "service.beta.kubernetes.io/oci-load-balancer-tls-secret"  # noqa: S105 - an annotation
LOAD_BALANCER_TYPE = "oci.oraclecloud.com/load-balancer-type"
LISTENER_SSL = "oci.oraclecloud.com/oci-load-balancer-listener-ssl-config"
BACKEND_PROTOCOL = "service.beta.kubernetes.io/oci-load-balancer-backend-protocol"

# Which keys the predefined cipher suites can serve (OCI, "Predefined Load Balancer Cipher
# Suites"); with another, an RSA or EC leaf fails every handshake although each API call succeeds.
BOTH = frozenset({"RSA", "EC"})
SUITES = {
    "oci-default-ssl-cipher-suite-v1": frozenset({"RSA"}),
    "oci-modern-ssl-cipher-suite-v1": BOTH,
    "oci-compatible-ssl-cipher-suite-v1": BOTH,
    "oci-wider-compatible-ssl-cipher-suite-v1": BOTH,
    "oci-default-http2-ssl-cipher-suite-v1": BOTH,
    "oci-default-http2-tls-13-ssl-cipher-suite-v1": BOTH,
    "oci-tls-13-recommended-ssl-cipher-suite-v1": BOTH,
    "oci-tls-12-13-wider-ssl-cipher-suite-v1": BOTH,
}

HTTPS_PORT = 443
_PORT = re.compile(r"[0-9]{1,5}")


class OciTarget:
    """The OCI load balancer behind a Service of type LoadBalancer."""

    def bind(self, state: ServiceState, service: ServiceSpec) -> Binding:
        """Read *state* as Oracle's controller does, against what *service* asks for."""
        ports = _tls_ports(state)
        problem = _problem(state, service)
        complete = SSL_PORTS in state.annotations or not service.set_ssl_ports
        if _writes_https(state, service):
            https, target = _port(state, HTTPS_PORT), _target_port(state, service)
            complete = complete and https is not None and str(https.target_port) == str(target)
        return Binding(
            reference=state.reference,
            complete=complete,
            problem=problem,
            tls_ports=ports,
            changed_at=state.owned.changed_at,
            key_kinds=_key_kinds(state),
            value=state.annotations.get(TLS_SECRET),
        )

    def body(self, state: ServiceState, service: ServiceSpec, secret: ObjectRef) -> dict[str, Any]:
        """Give the apply body that makes *state* name *secret*; see `Target.body`."""
        problem = _problem(state, service)
        if problem is not None:
            raise ConfigurationError(problem)
        same = secret.namespace == state.ref.namespace
        annotations = {TLS_SECRET: secret.name if same else str(secret)}
        if (service.set_ssl_ports or state.owned.ssl_ports) and not state.owned.others_ssl_ports:
            annotations[SSL_PORTS] = str(HTTPS_PORT)
        body: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": state.ref.name,
                "namespace": state.ref.namespace,
                # an apply on a Service that is gone would make one; these prevent it
                "uid": state.uid,
                "resourceVersion": state.resource_version,
                "annotations": annotations,
            },
        }
        if _writes_https(state, service):
            body["spec"] = {
                "ports": [
                    {
                        "name": _port_name(state, service),
                        "port": HTTPS_PORT,
                        "protocol": "TCP",
                        "targetPort": _target_port(state, service),
                    }
                ]
            }
        return body

    def without_secret(self, state: ServiceState) -> dict[str, Any]:
        """Give the merge patch after which *state* names no Secret, and 443 is plain."""
        return {
            "metadata": {
                "uid": state.uid,
                "resourceVersion": state.resource_version,
                "annotations": {TLS_SECRET: None},
            }
        }


def _port(state: ServiceState, number: int) -> ServicePort | None:
    return next(
        (item for item in state.ports if item.port == number and item.protocol == "TCP"), None
    )


def _named(state: ServiceState, name: str) -> ServicePort | None:
    return next((item for item in state.ports if item.name == name), None)


def _writes_https(state: ServiceState, service: ServiceSpec) -> bool:
    """
    Say whether port 443/TCP is ours to write: missing, or ours at least in part.

    What is ours is written even where the configuration has turned it off since,
    or somebody changed a part of it: left out, the API server would take away
    the whole port (tried), and the listener with it.
    """
    if state.owned.https_port:
        return True
    if state.owned.others_https:
        return False
    # what an instance set that gave the Service up has nobody else to look after it
    theirs = state.owned.instances_https
    return service.add_https_port and (theirs or _port(state, HTTPS_PORT) is None)


def _follows_http(state: ServiceState, service: ServiceSpec) -> bool:
    """
    Say whether port 443 is to go where `http` goes.

    Not once others have changed it, nor when `http` is gone: as it is then does
    more good than a certificate that runs out.
    """
    if not service.add_https_port or state.owned.others_https:
        return False
    return not (state.owned.https_port and _named(state, "http") is None)


def _target_port(state: ServiceState, service: ServiceSpec) -> int | str | None:
    """Say where port 443 goes: where `http` goes, or as it is (`_follows_http`)."""
    port = _named(state, "http") if _follows_http(state, service) else _port(state, HTTPS_PORT)
    if port is None:
        return None
    return port.target_port if port.target_port is not None else port.port


def _port_name(state: ServiceState, service: ServiceSpec) -> str:
    there = None if _follows_http(state, service) else _port(state, HTTPS_PORT)
    return (there.name if there is not None else None) or "https"


def _key_kinds(state: ServiceState) -> frozenset[str] | None:
    """Say which kinds of key the listener's cipher suite serves; None for one of the user's own."""
    suite: object = None
    try:
        config = json.loads(state.annotations.get(LISTENER_SSL) or "{}")
        suite = config.get("CipherSuiteName") if isinstance(config, dict) else None
    except (ValueError, RecursionError):
        return None  # the controller refuses it too; that is not the certificate's fault
    if not isinstance(suite, str) or not suite:
        grpc = state.annotations.get(BACKEND_PROTOCOL, "").strip().upper() == "GRPC"
        suite = f"oci-default-{'http2-' if grpc else ''}ssl-cipher-suite-v1"
    return SUITES.get(suite)


def _tls_ports(state: ServiceState) -> tuple[int, ...]:
    """Read ssl-ports: split at commas, trimmed, integers; a port the Service lacks is ignored."""
    there = {item.port for item in state.ports if item.protocol == "TCP"}
    found = set()
    for part in state.annotations.get(SSL_PORTS, "").split(","):
        if _PORT.fullmatch(part.strip()) and int(part) in there:
            found.add(int(part))
    return tuple(sorted(found))


def _problem(state: ServiceState, service: ServiceSpec) -> str | None:
    """Say in one sentence why *state* cannot be written as it is, and what to do."""
    where = f"Service {state.ref}"
    if state.type != "LoadBalancer":
        return f"{where} is of type {state.type}: only a LoadBalancer has TLS listeners"
    if state.load_balancer_class:
        return (
            f"{where} has loadBalancerClass {state.load_balancer_class!r:.80}: Oracle's controller "
            "leaves it alone, so its certificate cannot be handed over"
        )
    if state.annotations.get(LOAD_BALANCER_TYPE, "").lower() == "nlb":
        return (
            f"{where} asks for a network load balancer ({LOAD_BALANCER_TYPE}: nlb), which carries "
            "no certificates; take that annotation away"
        )
    if not _follows_http(state, service) or not _writes_https(state, service):
        return None
    if len(state.ports) == 1 and not state.ports[0].name:
        return (
            f"{where} has a single port without a name, so no second one can be added; name it "
            "http, or set services[].httpsPort: false"
        )
    if _named(state, "http") is None:
        return (
            f"{where} has no port named http whose targetPort the https port could take; name one "
            "http, or add port 443 yourself, or set services[].httpsPort: false"
        )
    taken = _named(state, "https")
    if taken is not None and not (taken.port == HTTPS_PORT and taken.protocol == "TCP"):
        return (
            f"{where}: the name https is taken by port {taken.port}/{taken.protocol}, so port "
            "443/TCP cannot be added under it; rename that port, or set services[].httpsPort: false"
        )
    return None
