"""Files with an account's key in them: what is taken, and what is said of the rest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from certbaton.commands import keyfile
from certbaton.errors import ConfigurationError
from commands.place import Place, key
from fakes.ca import DIRECTORY

DER, PEM = serialization.Encoding.DER, serialization.Encoding.PEM
ENCRYPTED = serialization.BestAvailableEncryption(b"passphrase")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "S3CRET",
        "{S3CRET",
        '{"S3CRET": 1}',
        '{"kty": "RSA", "n": "AQAB", "e": "AQAB", "d": "S3CRET"}',
        json.dumps({"kind": keyfile.KIND, "key": "S3CRET"}),
        json.dumps({"kind": keyfile.KIND, "key": None}),
        "-----BEGIN PRIVATE KEY-----\nS3CRET\n-----END PRIVATE KEY-----",
    ],
)
def test_a_file_that_is_no_key_is_told_by_its_name_and_not_quoted(
    tmp_path: Path, text: str
) -> None:
    """Nor is there a cause that would."""
    file = tmp_path / "key"
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=str(file)) as caught:
        keyfile.load(file)
    assert "S3CRET" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    "form", [serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL]
)
def test_an_encrypted_key_is_told_with_how_to_decrypt_it(
    tmp_path: Path, form: serialization.PrivateFormat
) -> None:
    """There is nowhere to give a passphrase."""
    file = tmp_path / "key"
    file.write_bytes(key().unwrapped.private_bytes(PEM, form, ENCRYPTED))
    with pytest.raises(ConfigurationError, match=r"key: the key is encrypted.*openssl pkey -in"):
        keyfile.load(file)


def test_what_is_none_of_the_forms_is_told_which_there_are(tmp_path: Path) -> None:
    """An empty file, DER, a certificate, a public key."""
    public = key().unwrapped.public_key()
    info = serialization.PublicFormat.SubjectPublicKeyInfo
    file = tmp_path / "key"
    for content in (b"", b"[]", *(public.public_bytes(e, info) for e in (DER, PEM))):
        file.write_bytes(content)
        with pytest.raises(ConfigurationError, match=r"none of: .*account export.*PEM.*certbot"):
            keyfile.load(file)


def test_what_editors_make_of_a_file_does_not_matter(place: Place, tmp_path: Path) -> None:
    """A mark at its beginning, and ends of lines as on Windows."""
    account, mine = place.account(), place.store.account_key(DIRECTORY)
    assert mine is not None
    file = tmp_path / "key"
    for form in keyfile.FORMATS:
        text = keyfile.write(form, account, mine).replace("\n", "\r\n")
        file.write_bytes(b"\xef\xbb\xbf" + text.encode())
        assert keyfile.load(file).key == mine
