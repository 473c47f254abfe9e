"""
Keys, certificate requests and chains: what certbaton knows of X.509 (RFC 5280).

It makes keys and CSRs, reads and normalises PEM (RFC 7468), and says in one
sentence what is wrong with a bundle. It stores nothing and asks nobody. The
private key stays inside ``PrivateKey``: its PEM is the only way out, and no
message or ``repr`` here carries any of it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import re
import textwrap
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from certbaton.errors import ConfigurationError, PermanentError
from certbaton.model import KeyType, Leaf

SupportedKey: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

# A CA's clock is not ours: a leaf that begins this much later is taken all the same.
CLOCK_TOLERANCE: Final = timedelta(minutes=5)

_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)
_RSA_BITS: Final = {KeyType.RSA_2048: 2048, KeyType.RSA_3072: 3072, KeyType.RSA_4096: 4096}
_CURVES: Final = {KeyType.EC_P256: ec.SECP256R1(), KeyType.EC_P384: ec.SECP384R1()}
_CURVE_NAMES: Final = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}


class UnreadableCertificate(PermanentError, ValueError):
    """Text or bytes that hold no certificate which can be read; says what is wrong with them."""


class PrivateKey:
    """
    A private key, RSA or ECDSA.

    ``repr`` and ``str`` show its type only. Two are equal when their public keys are.
    """

    __slots__ = ("_key",)

    def __init__(self, key: SupportedKey) -> None:
        self._key = key

    @classmethod
    def generate(cls, key_type: KeyType) -> PrivateKey:
        """Make a new one from the system's randomness (RSA-2048 about 45 ms, P-256 under 1 ms)."""
        if key_type in _CURVES:
            return cls(ec.generate_private_key(_CURVES[key_type]))
        return cls(rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS[key_type]))

    @classmethod
    def load(cls, pem: str | bytes, passphrase: bytes | None = None) -> PrivateKey:
        """
        Read a PEM key: PKCS#8, PKCS#1 or SEC 1; an encrypted one with *passphrase*.

        ConfigurationError, without any of the content and without a cause, when that is not
        what *pem* holds.
        """
        data = pem.encode() if isinstance(pem, str) else pem
        encrypted = b"ENCRYPTED" in data  # of both forms; a passphrase too many is an error
        try:
            key = serialization.load_pem_private_key(data, passphrase if encrypted else None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None  # OpenSSL's words may quote the input; they are dropped
        if key is None:
            raise ConfigurationError("not an unencrypted private key in PEM form")
        if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
            raise ConfigurationError("the private key is neither RSA nor ECDSA")
        return cls(key)

    @property
    def pem(self) -> str:
        """The key itself: PKCS#8 PEM, unencrypted (RFC 5958). For a Secret, never for a log."""
        return self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode()

    @property
    def unwrapped(self) -> SupportedKey:
        """The key object of ``cryptography``, for signing."""
        return self._key

    @property
    def type(self) -> str:
        """Its type in the words of ``KeyType``; another size or curve likewise (``RSA-1024``)."""
        return _type_of(self._key.public_key())

    @property
    def public_key_sha256(self) -> str:
        """SHA-256 of its SubjectPublicKeyInfo (DER), in hex."""
        return _spki_sha256(self._key.public_key())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PrivateKey):
            return NotImplemented
        return self.public_key_sha256 == other.public_key_sha256

    def __hash__(self) -> int:
        return hash(self.public_key_sha256)

    def __repr__(self) -> str:
        return f"<PrivateKey {self.type}>"


def make_csr(key: PrivateKey, names: Sequence[str]) -> str:
    """
    Make a PEM certificate request for *names*: A-labels (``*.`` allowed) and IP addresses.

    The subject is empty and the names stand in the SAN only (RFC 8555 section 7.4): a common
    name is limited to 64 characters and nobody reads it. ConfigurationError for a name that is
    not ASCII, or no name at all.
    """
    if not names:
        raise ConfigurationError("a certificate needs at least one name")
    try:
        san = x509.SubjectAlternativeName([_general_name(name) for name in names])
    except ValueError as error:
        raise ConfigurationError(f"not a DNS name that a certificate can hold: {error}") from error
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    csr = builder.add_extension(san, critical=True).sign(key.unwrapped, hashes.SHA256())
    return csr.public_bytes(serialization.Encoding.PEM).decode()


def read_chain(pem: str | bytes) -> list[x509.Certificate]:
    """
    Read all CERTIFICATE blocks of *pem*, in their order; other text is passed over.

    UnreadableCertificate when there is none, or one of them is broken.
    """
    certificates = []
    for number, der in enumerate(_blocks(pem), start=1):
        try:
            certificates.append(x509.load_der_x509_certificate(der))
        except ValueError as error:
            raise UnreadableCertificate(f"certificate {number} cannot be parsed") from error
    return certificates


def top_issuer(pem: str | bytes) -> str | None:
    """
    The common name of who issued the last certificate of *pem*: the chain's root, as it says.

    None where it has none; UnreadableCertificate where the chain cannot be read.
    """
    try:
        names = read_chain(pem)[-1].issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
    except ValueError as error:
        raise UnreadableCertificate("the issuer's name cannot be parsed") from error
    return str(names[0].value) if names else None


def normalise_chain(pem: str | bytes) -> str:
    """
    Rewrite *pem* so that equal chains are equal texts: version names hash it.

    CERTIFICATE blocks only, in their order, LF, 64 columns, each ending with a newline.
    UnreadableCertificate when there is no block, or one of them is not base64.
    """
    lines: list[str] = []
    for der in _blocks(pem):
        body = textwrap.wrap(base64.b64encode(der).decode(), 64)
        lines += ["-----BEGIN CERTIFICATE-----", *body, "-----END CERTIFICATE-----"]
    return "\n".join(lines) + "\n"


def leaf_of(pem: str | bytes) -> Leaf:
    """Facts of the first certificate in *pem*; UnreadableCertificate if it cannot be read."""
    return _leaf(read_chain(pem)[0])


def leaf_from_der(der: bytes) -> Leaf:
    """Facts of one DER certificate, as a handshake shows it; UnreadableCertificate if broken."""
    try:
        certificate = x509.load_der_x509_certificate(der)
    except ValueError as error:
        raise UnreadableCertificate("the certificate cannot be parsed") from error
    return _leaf(certificate)


def flaw(chain_pem: str | bytes, key_pem: str | PrivateKey | None) -> str | None:
    """
    What is wrong with a stored bundle, as one sentence; None if nothing is.

    Looked at: that the chain can be read, is in order, and that *key_pem* fits its first
    certificate. Dates and names are not: they depend on who asks and when.
    """
    try:
        chain = read_chain(chain_pem)
        _leaf(chain[0])
    except UnreadableCertificate as error:
        return f"the chain is unreadable: {error}"
    if key_pem is None:
        return "the private key is missing"
    try:
        key = key_pem if isinstance(key_pem, PrivateKey) else PrivateKey.load(key_pem)
    except ConfigurationError as error:
        return str(error)
    if key.public_key_sha256 != _spki_sha256(chain[0].public_key()):
        return "the private key does not fit the certificate"
    return _disorder(chain)


def check_bundle(
    chain_pem: str | bytes,
    key: PrivateKey,
    names: Sequence[str],
    key_type: KeyType,
    now: datetime,
) -> None:
    """
    Refuse what a CA sent unless it is what was asked for, before anything is stored.

    *names* must be the SAN exactly (letter case aside), the key must fit and be of *key_type*,
    every certificate must be valid at *now* (aware; the leaf may begin ``CLOCK_TOLERANCE``
    later), and each be issued by the next, in name and signature. PermanentError otherwise.
    """
    problem = flaw(chain_pem, key) or _difference(read_chain(chain_pem), names, key_type, now)
    if problem:
        raise PermanentError(f"the CA's certificate cannot be used: {problem}")


def version_name(certificate: str, chain_pem: str) -> str:
    """
    Name of the Secret that holds *chain_pem* (normalised, as ``tls.crt`` will hold it).

    ``<certificate>-<yyyymmdd of notBefore, UTC>-<10 hex of the SHA-256 of tls.crt>``: it comes
    from the content, so that no two contents ever share a name. UnreadableCertificate if broken.
    """
    digest = hashlib.sha256(chain_pem.encode()).hexdigest()
    return f"{certificate}-{leaf_of(chain_pem).not_before:%Y%m%d}-{digest[:10]}"


def _blocks(pem: str | bytes) -> list[bytes]:
    text = pem.decode("ascii", "replace") if isinstance(pem, bytes) else pem
    found = []
    for number, match in enumerate(_BLOCK.finditer(text), start=1):
        try:
            found.append(base64.b64decode("".join(match[1].split()), validate=True))
        except (binascii.Error, ValueError) as error:
            raise UnreadableCertificate(f"certificate {number} is not base64") from error
    if not found:
        raise UnreadableCertificate("there is no certificate in it")
    return found


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _ari_id(certificate: x509.Certificate) -> str | None:
    """The CertID of RFC 9773 section 4.1: key identifier and serial number, each base64url."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    except x509.ExtensionNotFound:
        return None
    identifier = extension.value.key_identifier
    if identifier is None:
        return None
    number = certificate.serial_number
    serial = number.to_bytes(number.bit_length() // 8 + 1, "big")  # DER: a sign bit comes first
    both = (base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (identifier, serial))
    return ".".join(both)


def _spki_sha256(public_key: object) -> str:
    der = public_key.public_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(der).hexdigest()


def _type_of(public_key: object) -> str:
    if isinstance(public_key, rsa.RSAPublicKey):
        return f"RSA-{public_key.key_size}"
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        return _CURVE_NAMES.get(public_key.curve.name, public_key.curve.name)
    return type(public_key).__name__.removesuffix("PublicKey").lstrip("_")


def _san(certificate: x509.Certificate) -> tuple[x509.GeneralName, ...]:
    try:
        return tuple(
            certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        )
    except x509.ExtensionNotFound:
        return ()


def _leaf(certificate: x509.Certificate) -> Leaf:
    # cryptography parses lazily: a broken extension or key shows only here.
    try:
        names = {
            str(name.value).lower()
            for name in _san(certificate)
            if isinstance(name, x509.DNSName | x509.IPAddress)
        }
        public_key = certificate.public_key()
        return Leaf(
            sha256=certificate.fingerprint(hashes.SHA256()).hex(),
            names=tuple(sorted(names)),
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
            public_key_sha256=_spki_sha256(public_key),
            key_type=_type_of(public_key),
            self_signed=_issued_by(certificate, certificate),
            ari_id=_ari_id(certificate),
        )
    except (ValueError, x509.DuplicateExtension, UnsupportedAlgorithm) as error:
        raise UnreadableCertificate("the certificate holds something malformed") from error


def _issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _disorder(chain: Sequence[x509.Certificate]) -> str | None:
    for number, (certificate, issuer) in enumerate(pairwise(chain), start=1):
        if not _issued_by(certificate, issuer):
            return f"the chain is out of order: {number + 1} did not issue {number}"
    return None


def _difference(
    chain: Sequence[x509.Certificate], names: Sequence[str], key_type: KeyType, now: datetime
) -> str | None:
    leaf = _leaf(chain[0])
    wanted = tuple(sorted({name.lower() for name in names}))
    if leaf.names != wanted:
        return f"it is for {', '.join(leaf.names) or 'no name'}, not for {', '.join(wanted)}"
    if any(not isinstance(name, x509.DNSName | x509.IPAddress) for name in _san(chain[0])):
        return "it names more than the DNS names and IP addresses that were asked for"
    if leaf.key_type != key_type:
        return f"its key is {leaf.key_type}, not {key_type.value}"
    if leaf.not_before > now + CLOCK_TOLERANCE:
        return f"it begins at {leaf.not_before:%Y-%m-%d %H:%M:%S} UTC, which is in the future"
    for number, certificate in enumerate(chain, start=1):
        end = certificate.not_valid_after_utc
        if end <= now:
            which = "it" if number == 1 else f"certificate {number} of its chain"
            return f"{which} expired at {end:%Y-%m-%d %H:%M:%S} UTC"
    return None
