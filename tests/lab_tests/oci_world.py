"""A small world for the tests of the simulated controller: an API server, a pod, a hurry."""

from __future__ import annotations

import base64
import functools
import http.client
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Literal, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from lab.kube import Kube, KubeError
from lab.oci import CloudController, Faults, LabApp, LoadBalancer
from lab.oci.memory import MemoryKube
from lab.oci.prober import handshake
from lab.oci.service import SSL_PORTS, TLS_SECRET
from lab.oci.tls import leaf_sha256

Obj = dict[str, Any]
Plane = Literal["memory", "real"]

DEADLINE = 30.0


def certificate(name: str, kind: str = "rsa") -> tuple[bytes, bytes]:
    """Chain (leaf, then its issuer) and key; the same again for the same name."""
    return _certificate(name, kind)


@functools.cache
def _certificate(name: str, kind: str) -> tuple[bytes, bytes]:
    issuer_key = ec.generate_private_key(ec.SECP256R1())
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
    if kind == "rsa":
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    else:
        key = ec.generate_private_key(ec.SECP256R1())
    issuer = _sign("issuer", issuer_key.public_key(), "issuer", issuer_key)
    leaf = _sign(name, key.public_key(), "issuer", issuer_key)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return leaf + issuer, pem


def _sign(
    subject: str,
    public: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
    issuer: str,
    key: ec.EllipticCurvePrivateKey,
) -> bytes:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=2))
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def sha(name: str, kind: str = "rsa") -> str:
    """The leaf of `certificate` as a handshake shows it."""
    return leaf_sha256(certificate(name, kind)[0])


def until(condition: Callable[[], object], what: str = "", timeout: float = DEADLINE) -> None:
    """Wait for *condition*."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what or condition}")
        time.sleep(0.01)


def served(balancer: LoadBalancer, port: int = 443, address: int = 0) -> str:
    """The leaf seen, or the name of the error."""
    try:
        return handshake(*balancer.endpoint(port, address), "shop.example")
    except OSError as error:
        return type(error).__name__


@contextmanager
def api_server(plane: Plane) -> Iterator[Kube]:
    """An API server of that kind, for as long as the block lasts."""
    if plane == "memory":
        yield MemoryKube()
        return
    from lab.controlplane import ControlPlane

    with ControlPlane() as control_plane:
        yield control_plane.admin


class World:
    """A namespace, a pod's app and a controller in a hurry; a Service is called "shop"."""

    def __init__(self, kube: Kube, **settings: Any) -> None:
        self.kube = kube
        self.faults = Faults()
        self.namespace = f"ns-{secrets.token_hex(4)}"
        self._services: list[tuple[str, str]] = []
        hurry = {"poll_interval": 0.05, "interruption": 0.05, "work_seconds": 0.01}
        self.app = LabApp()
        self.controller = CloudController(
            kube,
            backends=lambda namespace, name: self.app.address,
            faults=self.faults,
            **hurry | {"backoff_scale": 0.02} | settings,
        )

    def __enter__(self) -> Self:
        self.create_namespace(self.namespace)
        self.controller.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.controller.close()
        self.app.close()
        for namespace, name in self._services:
            path = self.path("services", name, namespace)
            with suppress(KubeError):
                self.kube.patch(path, {"metadata": {"finalizers": None}})
                self.kube.delete(path)

    def create_namespace(self, name: str) -> None:
        self.kube.create("/api/v1/namespaces", {"metadata": {"name": name}})

    def path(self, kind: str, name: str = "", namespace: str | None = None) -> str:
        path = f"/api/v1/namespaces/{namespace or self.namespace}/{kind}"
        return f"{path}/{name}" if name else path

    def service(
        self,
        name: str = "shop",
        *,
        ports: tuple[int, ...] = (80,),
        annotations: dict[str, str] | None = None,
        namespace: str | None = None,
        **spec: Any,
    ) -> Obj:
        """Create a Service of type LoadBalancer."""
        body = {
            "metadata": {"name": name, "annotations": annotations or {}},
            "spec": {
                "type": "LoadBalancer",
                "selector": {"app": name},
                "ports": [port(number) for number in ports],
            }
            | spec,
        }
        self._services.append((namespace or self.namespace, name))
        return self.kube.create(self.path("services", namespace=namespace), body)

    def tls_service(self, secret: str, name: str = "shop", **more: Any) -> Obj:
        """A Service whose port 443 is to serve *secret*."""
        annotations = {SSL_PORTS: "443", TLS_SECRET: secret} | more.pop("annotations", {})
        more.setdefault("ports", (80, 443))
        return self.service(name, annotations=annotations, **more)

    def secret(
        self,
        name: str,
        pem: tuple[bytes, bytes] | None = None,
        *,
        namespace: str | None = None,
        leave_out: str = "",
    ) -> Obj:
        """Create a Secret; by default with the certificate of the same name."""
        chain, key = pem or certificate(name)
        data = {"tls.crt": chain, "tls.key": key}
        data.pop(leave_out, None)
        body = {
            "metadata": {"name": name},
            "data": {name: base64.b64encode(value).decode() for name, value in data.items()},
        }
        return self.kube.create(self.path("secrets", namespace=namespace), body)

    def annotate(self, name: str = "shop", **change: str | None) -> Obj:
        """Set (or, with None, remove) annotations, given by the names in `NAMES`."""
        annotations = {NAMES[key]: value for key, value in change.items()}
        return self.kube.patch(
            self.path("services", name), {"metadata": {"annotations": annotations}}
        )

    def get(self, name: str = "shop") -> Obj:
        return self.kube.get(self.path("services", name))

    def ingress(self, name: str = "shop") -> list[Obj]:
        """What stands in the Service's status."""
        found = self.get(name).get("status", {}).get("loadBalancer", {}).get("ingress")
        return list(found or [])

    def events(self, reason: str | None = None, name: str = "shop") -> list[Obj]:
        """Events of that Service, in the order in which they were made."""
        items = self.kube.list(self.path("events"))["items"]
        found = [
            one
            for one in items
            if one["involvedObject"]["name"] == name and reason in (None, one["reason"])
        ]
        return sorted(found, key=lambda one: one["metadata"]["name"])

    def messages(self, reason: str, name: str = "shop") -> str:
        """Their texts."""
        return "\n".join(str(one["message"]) for one in self.events(reason, name))

    def count(self, reason: str, name: str = "shop") -> int:
        """How often that was said."""
        return sum(int(one["count"]) for one in self.events(reason, name))

    def balancer(self, name: str = "shop") -> LoadBalancer:
        """The Service's load balancer, waited for."""
        return self.controller.load_balancer(self.namespace, name, timeout=DEADLINE)

    def serving(self, secret: str, name: str = "shop") -> LoadBalancer:
        """The load balancer, once port 443 shows the certificate of that name."""
        balancer = self.balancer(name)
        until(lambda: served(balancer) == sha(secret), f"{secret} served by {name}")
        return balancer

    def settled(self) -> None:
        """Wait until no sync is under way or due."""
        until(lambda: self.controller.idle, "the controller is idle")

    def operations(self) -> list[str]:
        """The API's operations so far."""
        return [operation for operation, _ in self.controller.api.calls]


NAMES = {
    "ssl_ports": SSL_PORTS,
    "tls_secret": TLS_SECRET,
    "tls_backendset_secret": "service.beta.kubernetes.io/oci-load-balancer-tls-backendset-secret",
    "ssl_config": "oci.oraclecloud.com/oci-load-balancer-listener-ssl-config",
    "ip_mode": "oci.oraclecloud.com/ingress-ip-mode",
    "other": "example.com/unrelated",
}


def port(number: int) -> Obj:
    """A Service port."""
    return {
        "name": {80: "http", 443: "https"}.get(number, f"p{number}"),
        "port": number,
        "targetPort": 8080,
        "protocol": "TCP",
    }


def page(endpoint: tuple[str, int], path: str = "/") -> int:
    """The status of one GET."""
    connection = http.client.HTTPConnection(*endpoint, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()
