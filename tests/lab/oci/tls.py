"""Certificates as OCI's load balancer takes them, and the TLS that a listener then speaks."""

from __future__ import annotations

import hashlib
import re
import ssl
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")

DEFAULT_SUITE = "oci-default-ssl-cipher-suite-v1"
DEFAULT_HTTP2_SUITE = "oci-default-http2-ssl-cipher-suite-v1"

_RSA = (
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-SHA384:"
    "ECDHE-RSA-AES128-SHA256:DHE-RSA-AES256-GCM-SHA384:DHE-RSA-AES128-GCM-SHA256:"
    "DHE-RSA-AES256-SHA256:DHE-RSA-AES128-SHA256"
)
_ECDSA = (
    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256:"
    "ECDHE-ECDSA-AES256-SHA384:ECDHE-ECDSA-AES128-SHA256"
)
_STATIC = "AES256-GCM-SHA384:AES128-GCM-SHA256:AES256-SHA256:AES128-SHA256"
_HTTP2 = (
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256:"
    "ECDHE-ECDSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384:DHE-RSA-AES128-GCM-SHA256"
)
# The ciphers of TLS 1.3 are OpenSSL's own; a suite without older ones names none here.
SUITES: dict[str, str] = {
    DEFAULT_SUITE: _RSA,
    "oci-modern-ssl-cipher-suite-v1": f"{_ECDSA}:{_RSA}:{_STATIC}",
    "oci-compatible-ssl-cipher-suite-v1": f"{_ECDSA}:{_RSA}:{_STATIC}",
    "oci-wider-compatible-ssl-cipher-suite-v1": f"{_ECDSA}:{_RSA}:{_STATIC}",
    DEFAULT_HTTP2_SUITE: _HTTP2,
    "oci-default-http2-tls-12-13-ssl-cipher-suite-v1": _HTTP2,
    "oci-default-http2-tls-13-ssl-cipher-suite-v1": "",
    "oci-tls-12-13-wider-ssl-cipher-suite-v1": f"{_ECDSA}:{_RSA}:{_STATIC}",
    "oci-tls-13-recommended-ssl-cipher-suite-v1": "",
}
_VERSIONS = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}


class Refused(Exception):
    """The load balancer would not take something; becomes an error of OCI's API."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


@dataclass(frozen=True)
class Certificate:
    """What stands on a load balancer under a name: the PEM texts as they were sent."""

    name: str
    chain: bytes
    key: bytes = field(repr=False)
    passphrase: bytes | None = field(default=None, repr=False)
    ca: bytes = b""

    @property
    def leaf_sha256(self) -> str:
        """SHA-256 of the leaf's DER, as `Prober` and a handshake see it."""
        return leaf_sha256(self.chain)

    def check(self) -> None:
        """Raise Refused(InvalidParameter) as OCI does for what it cannot use."""
        if NAME.fullmatch(self.name) is None:
            raise Refused(
                "InvalidParameter",
                f"Invalid certificate name '{self.name}': only letters, digits, '-' and '_' are "
                "allowed, 1 to 255 of them",
            )
        try:
            leaf = x509.load_pem_x509_certificates(self.chain)[0].public_key()
        except (ValueError, UnsupportedAlgorithm):
            raise Refused(
                "InvalidParameter", "The public certificate is not a valid PEM certificate"
            ) from None
        try:
            key = load_pem_private_key(self.key, self.passphrase or None).public_key()
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise Refused(
                "InvalidParameter",
                "The private key is not a valid PEM key, or its passphrase is missing or wrong",
            ) from None
        form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if leaf.public_bytes(*form) != key.public_bytes(*form):
            raise Refused(
                "InvalidParameter", "The private key does not match the public certificate"
            )


def leaf_sha256(chain: bytes) -> str:
    """SHA-256 of the first certificate's DER in a PEM chain, in hex."""
    leaf = x509.load_pem_x509_certificates(chain)[0]
    return hashlib.sha256(leaf.public_bytes(Encoding.DER)).hexdigest()


def check_suite(suite: str, protocols: tuple[str, ...]) -> None:
    """Raise Refused(InvalidParameter) for a suite or protocol that OCI does not know."""
    if suite not in SUITES:
        raise Refused("InvalidParameter", f"Cipher suite '{suite}' does not exist")
    for protocol in protocols:
        if protocol not in _VERSIONS:
            raise Refused("InvalidParameter", f"Protocol '{protocol}' is not supported")


def server_context(
    certificate: Certificate,
    *,
    suite: str = DEFAULT_SUITE,
    protocols: tuple[str, ...] = (),
    alert: Callable[[], bool] = lambda: False,
) -> ssl.SSLContext:
    """
    A context that presents exactly the chain of *certificate*.

    While *alert* is true, each ClientHello is answered by a handshake_failure alert.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    versions = [_VERSIONS[name] for name in protocols] or [
        ssl.TLSVersion.TLSv1_3 if not SUITES[suite] else ssl.TLSVersion.TLSv1_2
    ]
    context.minimum_version, context.maximum_version = min(versions), max(versions)
    if SUITES[suite]:
        context.set_ciphers(SUITES[suite])

    # ssl reads from files only; an empty passphrase keeps it from asking at the terminal.
    with tempfile.TemporaryDirectory(prefix="lab-oci-") as folder:
        chain, key = Path(folder, "chain.pem"), Path(folder, "key.pem")
        chain.write_bytes(certificate.chain)
        key.write_bytes(certificate.key)
        context.load_cert_chain(chain, key, password=certificate.passphrase or b"")

    def greet(_: ssl.SSLObject | ssl.SSLSocket, __: str | None, ___: ssl.SSLContext) -> int | None:
        return ssl.ALERT_DESCRIPTION_HANDSHAKE_FAILURE if alert() else None

    context.sni_callback = greet
    return context
