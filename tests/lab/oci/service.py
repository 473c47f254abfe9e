"""What the controller reads on a Service, and when a change of it calls for a full sync."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from lab.oci.loadbalancer import Listener
from lab.oci.tls import DEFAULT_HTTP2_SUITE

Obj = dict[str, Any]

PREFIX = "service.beta.kubernetes.io/"
SSL_PORTS = PREFIX + "oci-load-balancer-ssl-ports"
TLS_SECRET = PREFIX + "oci-load-balancer-tls-secret"
TLS_BACKENDSET_SECRET = PREFIX + "oci-load-balancer-tls-backendset-secret"
BACKEND_PROTOCOL = PREFIX + "oci-load-balancer-backend-protocol"
LISTENER_SSL_CONFIG = "oci.oraclecloud.com/oci-load-balancer-listener-ssl-config"
LOAD_BALANCER_TYPE = "oci.oraclecloud.com/load-balancer-type"
INGRESS_IP_MODE = "oci.oraclecloud.com/ingress-ip-mode"

FINALIZER = "service.kubernetes.io/load-balancer-cleanup"

_PROTOCOLS = {"": "TCP", "tcp": "TCP", "http": "HTTP", "grpc": "GRPC"}


class SyncError(Exception):
    """A sync failed; the text is what stands in the Event."""


@dataclass(frozen=True)
class Reference:
    """The Secret that an annotation names."""

    namespace: str
    name: str


@dataclass(frozen=True)
class Wanted:
    """What one Service asks for."""

    listeners: dict[int, Listener]
    backend_sets: dict[int, str | None]
    listener_secret: Reference | None
    backend_secret: Reference | None
    requires_certificate: bool
    ip_mode: str | None


def key_of(service: Obj) -> tuple[str, str]:
    """Namespace and name."""
    return service["metadata"]["namespace"], service["metadata"]["name"]


def annotations_of(service: Obj) -> dict[str, str]:
    return service["metadata"].get("annotations") or {}


def wants_load_balancer(service: Obj) -> bool:
    """False for other types, and for a loadBalancerClass of somebody else."""
    spec = service["spec"]
    return spec.get("type") == "LoadBalancer" and spec.get("loadBalancerClass") is None


def needs_cleanup(service: Obj) -> bool:
    """Whether a load balancer that was ours is no longer wanted."""
    if FINALIZER not in (service["metadata"].get("finalizers") or []):
        return False
    if service["metadata"].get("deletionTimestamp"):
        return True
    return bool(service["spec"].get("type") != "LoadBalancer")


def reference(text: str | None, namespace: str) -> Reference | None:
    """Read as the controller does: split at "/", the first two parts."""
    if not text:
        return None
    parts = text.split("/")
    found = Reference(parts[0], parts[1]) if len(parts) > 1 else Reference(namespace, text)
    # "a/" names no Secret at all.
    return found if found.name else None


def read(service: Obj, *, refuse_udp: bool = True) -> Wanted:
    """What *service* asks for; SyncError if the controller would refuse to begin."""
    annotations = annotations_of(service)
    namespace = service["metadata"]["namespace"]
    network = annotations.get(LOAD_BALANCER_TYPE, "").lower() == "nlb"
    ports = service["spec"].get("ports") or []
    if not network and refuse_udp and any(port.get("protocol") == "UDP" for port in ports):
        raise SyncError("invalid service: OCI load balancers do not support UDP")

    requires = SSL_PORTS in annotations and not network
    ssl_ports = _ssl_ports(annotations[SSL_PORTS]) if requires else set()
    listener_secret = backend_secret = None
    if requires:
        listener_secret = reference(annotations.get(TLS_SECRET), namespace)
        backend_secret = reference(annotations.get(TLS_BACKENDSET_SECRET), namespace)
    ip_mode = _ip_mode(annotations)
    protocol = "TCP" if network else _protocol(annotations)
    suite, versions = _ssl_config(annotations)

    listeners: dict[int, Listener] = {}
    backend_sets: dict[int, str | None] = {}
    for port in ports:
        if port.get("protocol") == "UDP":
            continue
        number = int(port["port"])
        secure = number in ssl_ports
        certificate = listener_secret.name if secure and listener_secret else None
        if protocol == "GRPC" and certificate is None:
            raise SyncError("SSL configuration cannot be empty for GRPC protocol")
        own = suite or (DEFAULT_HTTP2_SUITE if protocol == "GRPC" else None)
        listeners[number] = Listener(
            number,
            protocol,
            certificate,
            own if certificate else None,
            versions if certificate else (),
        )
        backend_sets[number] = backend_secret.name if secure and backend_secret else None
    return Wanted(listeners, backend_sets, listener_secret, backend_secret, requires, ip_mode)


def listener_changed(actual: Listener, wanted: Listener) -> bool:
    """
    Whether UpdateListener is sent.

    A cipher suite without protocols never compares equal; one that is no longer asked for is
    not compared at all, so it stays until the listener changes for another reason.
    """
    if actual.protocol != wanted.protocol or actual.certificate != wanted.certificate:
        return True
    if wanted.certificate is None or wanted.suite is None:
        return False
    if wanted.protocol != "GRPC" and not wanted.protocols:
        return True
    return actual.suite != wanted.suite or set(actual.protocols) != set(wanted.protocols)


def needs_update(old: Obj, new: Obj) -> str | None:
    """
    Why the change from *old* to *new* calls for a full sync, None if it does not.

    Labels, status and the periodic resync (the same object again) do not.
    """
    before, after = old["spec"], new["spec"]
    if not wants_load_balancer(old) and not wants_load_balancer(new):
        return None
    if wants_load_balancer(old) != wants_load_balancer(new):
        return "type"
    if [_port(port) for port in before.get("ports") or []] != [
        _port(port) for port in after.get("ports") or []
    ]:
        return "ports"
    for name in (
        "loadBalancerSourceRanges",
        "sessionAffinity",
        "sessionAffinityConfig",
        "loadBalancerIP",
        "externalIPs",
        "externalTrafficPolicy",
        "healthCheckNodePort",
    ):
        if before.get(name) != after.get(name):
            return name
    if annotations_of(old) != annotations_of(new):
        return "annotations"
    if old["metadata"]["uid"] != new["metadata"]["uid"]:
        return "uid"
    if len(before.get("ipFamilies") or []) != len(after.get("ipFamilies") or []):
        return "ipFamilies"
    return None


def _port(port: Obj) -> tuple[object, ...]:
    names = ("name", "protocol", "port", "nodePort", "targetPort", "appProtocol")
    return tuple(port.get(name) for name in names)


def _ssl_ports(text: str) -> set[int]:
    if text == "":
        return set()
    found = set()
    for part in text.split(","):
        try:
            found.add(int(part.strip()))
        except ValueError:
            raise SyncError(
                f'parse SSL port: strconv.Atoi: parsing "{part.strip()}": invalid syntax'
            ) from None
    return found


def _ip_mode(annotations: dict[str, str]) -> str | None:
    text = annotations.get(INGRESS_IP_MODE)
    if text is None:
        return None
    modes = {"proxy": "Proxy", "vip": "VIP"}
    if text.lower() not in modes:
        raise SyncError("IpMode can only be set as Proxy or VIP")
    return modes[text.lower()]


def _protocol(annotations: dict[str, str]) -> str:
    text = annotations.get(BACKEND_PROTOCOL, "")
    if text.lower() not in _PROTOCOLS:
        raise SyncError(f"invalid backend protocol {text!r} requested for load balancer listener")
    return _PROTOCOLS[text.lower()]


def _ssl_config(annotations: dict[str, str]) -> tuple[str | None, tuple[str, ...]]:
    text = annotations.get(LISTENER_SSL_CONFIG)
    if not text:
        return None, ()
    try:
        config = json.loads(text)
        suite, versions = config.get("CipherSuiteName"), config.get("Protocols") or []
    except (ValueError, AttributeError) as error:
        raise SyncError(f"failed to parse SSL Configuration annotation: {error}") from None
    return suite or None, tuple(str(version) for version in versions)
