"""
Account keys in files: PEM, a JWK as certbot keeps it, and the backup from which to restore.

Files are written with mode 0600 and never over another one. No message shows any of a key.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from certbaton.ca.jwk import read_jwk, write_jwk
from certbaton.errors import ConfigurationError
from certbaton.model import Account, KeyType
from certbaton.pki import PrivateKey

FORMATS: Final = ("backup", "pem", "jwk")
KIND: Final = "certbaton account backup"
_LARGEST: Final = 1024 * 1024


@dataclass(frozen=True)
class Kept:
    """
    An account as it was kept outside the cluster: its key, and what else was known of it.

    *directory* is None where it was a key and nothing more; *next_key* is there where it was
    kept while that key was about to become the account's.
    """

    key: PrivateKey
    directory: str | None = None
    url: str | None = None
    external_kid: str | None = None
    next_key: PrivateKey | None = None


def write(form: str, account: Account, key: PrivateKey, next_key: PrivateKey | None = None) -> str:
    """The text of a file of *form*, one of ``FORMATS``; only the backup holds all of it."""
    if form == "pem":
        return key.pem
    if form == "jwk":
        return write_jwk(key)
    record = {
        "kind": KIND,
        "directory": account.directory,
        "url": account.url,
        "externalKid": account.external_kid,
        "key": key.pem,
        "nextKey": next_key.pem if next_key is not None else None,
    }
    return json.dumps({name: value for name, value in record.items() if value}, indent=1) + "\n"


def read(text: str) -> Kept:
    """
    Read any of the three, whichever *text* is. ConfigurationError otherwise.

    The key must be one that can sign ACME requests: RSA, or EC on P-256, P-384 or P-521.
    """
    text = text.removeprefix("\ufeff").strip()  # what some editors begin a file with
    if "-----BEGIN ENCRYPTED PRIVATE KEY" in text or "Proc-Type: 4,ENCRYPTED" in text:
        raise ConfigurationError(
            "the key is encrypted; decrypt it first: openssl pkey -in THIS_FILE -out ANOTHER"
        )
    if not text.startswith("{"):
        if "PRIVATE KEY-----" not in text:
            raise ConfigurationError(
                "it is none of: a backup by `certbaton account export`, an unencrypted private "
                "key in PEM form, a private_key.json of certbot's"
            )
        return Kept(_usable(PrivateKey.load(text)))
    record = _json(text)
    if record.get("kind") == KIND:
        next_key = record.get("nextKey")
        return Kept(
            _usable(PrivateKey.load(str(record.get("key")))),
            directory=_text(record, "directory"),
            url=_text(record, "url"),
            external_kid=_text(record, "externalKid"),
            next_key=_usable(PrivateKey.load(str(next_key))) if next_key else None,
        )
    if "kty" in record:
        return Kept(_usable(read_jwk(record)))
    raise ConfigurationError("it is JSON, but neither a JWK nor a backup of certbaton's")


def save(path: Path, text: str) -> None:
    """Write a new file that only its owner can read; ConfigurationError where it cannot be."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        handle = os.open(path, flags, stat.S_IRUSR | stat.S_IWUSR)
    except FileExistsError:
        raise ConfigurationError(
            "there is such a file already; it is not overwritten", where=str(path)
        ) from None
    except OSError as error:
        raise ConfigurationError(f"cannot be written: {error.strerror}", where=str(path)) from None
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink()  # half a key is none
        raise ConfigurationError(f"cannot be written: {error.strerror}", where=str(path)) from None


def load(path: Path) -> Kept:
    """Read a file; ConfigurationError with its name where it is none of the three."""
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise ConfigurationError(f"cannot be read: {error.strerror}", where=str(path)) from None
    if len(data) > _LARGEST:
        raise ConfigurationError("it is too large for a key", where=str(path))
    return read_named(data, str(path))


def read_named(data: bytes, where: str) -> Kept:
    """As `read`, of what lies at *where*."""
    problem: str
    try:
        return read(data.decode("utf-8", "replace"))
    except ConfigurationError as error:
        problem = str(error)
    raise ConfigurationError(problem, where=where)


def _usable(key: PrivateKey) -> PrivateKey:
    if not key.type.startswith("RSA-") and key.type not in (*KeyType, "P-521"):
        raise ConfigurationError(f"no CA takes an account key of type {key.type}")
    return key


def _json(text: str) -> Mapping[str, object]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None  # a decoder's error carries the text
    if not isinstance(found, dict):
        raise ConfigurationError("it is no JSON object")
    return found


def _text(record: Mapping[str, object], key: str) -> str | None:
    value = record.get(key)
    if value is not None and not isinstance(value, str):
        raise ConfigurationError(f"the backup's {key} is not a text")
    return value
