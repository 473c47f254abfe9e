"""
Account keys as JSON Web Keys (RFC 7517, RFC 7518 section 6), as certbot and others keep them.

No message here shows any of what was read, or its cause: the text is a private key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from josepy.errors import Error
from josepy.jwk import JWK, JWKEC, JWKRSA

from certbaton.ca.net import jwk_and_algorithm
from certbaton.errors import ConfigurationError
from certbaton.pki import PrivateKey


def read_jwk(document: Mapping[str, object]) -> PrivateKey:
    """
    The private key that *document* is: RSA, or EC on P-256, P-384 or P-521.

    ConfigurationError where it is something else, or a public key only.
    """
    if document.get("kty") not in ("RSA", "EC"):
        raise ConfigurationError("the JWK is neither of type RSA nor EC")
    if not document.get("d"):
        raise ConfigurationError("the JWK is a public key; the private one is needed")
    pem: bytes | None = None
    try:
        jwk = JWK.from_json(document)
        if isinstance(jwk, JWKRSA | JWKEC):
            pem = jwk.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    except (Error, ValueError, TypeError, KeyError, AttributeError):
        pem = None  # whatever it says may quote the key
    if pem is None:
        raise ConfigurationError("the JWK cannot be read")
    return PrivateKey.load(pem)


def write_jwk(key: PrivateKey) -> str:
    """*key* as one JSON object, as certbot's ``private_key.json`` holds it. A secret."""
    jwk, _ = jwk_and_algorithm(key)
    return json.dumps(jwk.to_json(), sort_keys=True) + "\n"
