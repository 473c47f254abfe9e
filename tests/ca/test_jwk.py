"""Account keys as JSON Web Keys."""

from __future__ import annotations

import json

import pytest

from certbaton.ca.jwk import read_jwk, write_jwk
from certbaton.errors import ConfigurationError
from certbaton.model import KeyType
from certbaton.pki import PrivateKey

# The example key of RFC 7515, appendix A.3: as somebody else wrote it.
RFC7515_EC = {
    "kty": "EC",
    "crv": "P-256",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    "d": "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI",
}


@pytest.mark.parametrize("kind", [KeyType.RSA_2048, KeyType.EC_P256, KeyType.EC_P384])
def test_a_key_comes_back_as_it_was(kind: KeyType) -> None:
    """RSA with its primes, EC with its curve."""
    key = PrivateKey.generate(kind)
    document = json.loads(write_jwk(key))
    assert document["kty"] == ("RSA" if kind is KeyType.RSA_2048 else "EC")
    again = read_jwk(document)
    assert (again, again.pem) == (key, key.pem)


def test_a_key_of_the_specification_is_read() -> None:
    """With members that mean nothing to us, as some clients add them."""
    key = read_jwk({**RFC7515_EC, "kid": "x", "use": "sig"})
    assert key.type == "P-256"
    written = json.loads(write_jwk(key))
    assert {name: written[name] for name in RFC7515_EC} == RFC7515_EC


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"kty": "oct", "k": "c2VjcmV0"},
        {name: value for name, value in RFC7515_EC.items() if name != "d"},
        {**RFC7515_EC, "d": "S3CRET!!"},
        {**RFC7515_EC, "d": 7},
        {**RFC7515_EC, "crv": "P-1000"},
        {"kty": "RSA", "n": "AQAB", "e": "AQAB", "d": "S3CRET"},
        {"kty": "RSA", "d": "S3CRET"},
    ],
)
def test_what_is_no_private_key_is_refused_without_being_shown(document: dict[str, object]) -> None:
    """One sentence, and nothing behind it."""
    with pytest.raises(ConfigurationError) as caught:
        read_jwk(document)
    assert "S3CRET" not in str(caught.value)
    assert caught.value.__context__ is None
