"""The inside route: what a pod meets at a load balancer's address when kube-proxy is in the way."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from lab.oci.faults import Faults
from lab.oci.loadbalancer import LoadBalancer
from lab.oci.ports import Address, Loopback, PortMap
from lab.oci.tls import Certificate, leaf_sha256, server_context
from lab.oci.wire import Wire

Key = tuple[str, str]


def self_signed(name: str) -> tuple[bytes, bytes]:
    """Chain and key of a certificate that nobody vouches for."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    leaf = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return leaf.public_bytes(Encoding.PEM), pem


class InsideRoutes:
    """For each Service an address of its own, where its pods answer without the load balancer."""

    def __init__(
        self,
        faults: Faults,
        *,
        ports: PortMap,
        backend: Callable[[str, str], Address | None],
        balancer: Callable[[str, str], LoadBalancer | None],
    ) -> None:
        self._faults = faults
        self._ports = ports
        self._backend = backend
        self._balancer = balancer
        self._lock = threading.RLock()
        self._addresses: dict[Key, str] = {}
        self._wires: dict[tuple[Key, int], Wire] = {}
        self._foreign: tuple[bytes, bytes] | None = None

    def endpoint(self, namespace: str, name: str, port: int) -> Address:
        """Address and real port of the inside route to that Service port; opened if need be."""
        key = (namespace, name)
        with self._lock:
            address = self._addresses.setdefault(key, Loopback.take())
            if (key, port) not in self._wires:
                wire = Wire(
                    address,
                    self._ports(port),
                    backend=lambda: self._backend(namespace, name),
                    tls=lambda: self._tls(namespace, name, port),
                )
                wire.open()
                self._wires[key, port] = wire
        return address, self._ports(port)

    def leaf(self, namespace: str, name: str, port: int = 443) -> str | None:
        """The SHA-256 of the leaf that is seen there now; None for plain HTTP."""
        certificate = self._certificate(namespace, name, port)
        return leaf_sha256(certificate.chain) if certificate else None

    def close(self) -> None:
        with self._lock:
            wires, self._wires = list(self._wires.values()), {}
        for wire in wires:
            wire.close()

    def _tls(self, namespace: str, name: str, port: int) -> ssl.SSLContext | None:
        certificate = self._certificate(namespace, name, port)
        # Pods speak what they like; an ECDSA leaf is no trouble for them.
        suite = "oci-tls-12-13-wider-ssl-cipher-suite-v1"
        return server_context(certificate, suite=suite) if certificate else None

    def _certificate(self, namespace: str, name: str, port: int) -> Certificate | None:
        balancer = self._balancer(namespace, name)
        current = balancer.certificate_of(port) if balancer else None
        if balancer is None or current is None or self._faults.inside == "plain":
            return None
        if self._faults.inside == "foreign":
            with self._lock:
                if self._foreign is None:
                    self._foreign = self_signed("somebody-else.example")
                chain, key = self._foreign
            return Certificate("foreign", chain, key)
        if self._faults.inside_pem is not None:
            chain, key = self._faults.inside_pem
            return Certificate("mounted", chain, key)
        older = balancer.certificates[: balancer.certificates.index(current)]
        return balancer.certificate(older[-1] if older else current)
