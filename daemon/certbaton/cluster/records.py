"""
What is kept in memory of each Secret of ours, and how a Secret is laid out.

Keys of pending orders and accounts stay reachable, as PEM that no ``repr``
shows; the key of a version is only compared with its chain and then let go.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from certbaton import pki
from certbaton.cluster import codec
from certbaton.cluster.contract import Obj, ref_of, uid_of, version_of
from certbaton.errors import CertbatonError
from certbaton.model import Account, Instance, Journal, Leaf, ObjectRef, SecretVersion

CERTIFICATE: Final = "certbaton.io/certificate"
INSTANCE: Final = "certbaton.io/instance"
KIND: Final = "certbaton.io/kind"
VERSION: Final = "version"
JOURNAL: Final = "journal"
ACCOUNT: Final = "account"

DIRECTORY: Final = "certbaton.io/directory"
ACCOUNT_URL: Final = "certbaton.io/account"
CERTIFICATE_URL: Final = "certbaton.io/certificate-url"
ORDER_URL: Final = "certbaton.io/order-url"
PROFILE: Final = "certbaton.io/profile"
PROFILE_GOT: Final = "certbaton.io/profile-got"
SERVED: Final = "certbaton.io/served"
REJECTED: Final = "certbaton.io/rejected"
MARKED: Final = "certbaton.io/marked-for-deletion"
RENEWAL_INFO: Final = "certbaton.io/renewal-info"
RENEW_ASKED: Final = "certbaton.io/renew-asked"
REVOKED: Final = "certbaton.io/revoked"

TLS_CRT: Final = "tls.crt"
TLS_KEY: Final = "tls.key"
CSR: Final = "csr"
NEXT_KEY: Final = "next.key"

LABEL_LENGTH: Final = 63


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """
    A version; *content* is a hash of what *version*'s facts were read from.

    *body* is what would be created to put it back. *problem* is about its annotations: they are
    then taken for missing, and the version is as
    good as without (its retention begins anew).
    """

    version: SecretVersion
    content: str
    problem: str | None = None
    body: Obj = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class JournalRecord:
    """A Journal, or what is wrong with it; *key* and *csr* are those of its pending order."""

    ref: ObjectRef
    uid: str
    resource_version: str
    certificate: str
    journal: Journal | None
    problem: str | None
    key: bytes | None = field(repr=False)
    csr: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class AccountRecord:
    """An account, or what is wrong with it; *next_key* is the one of a roll-over."""

    ref: ObjectRef
    uid: str
    resource_version: str
    account: Account | None
    problem: str | None
    key: bytes | None = field(repr=False)
    next_key: bytes | None = field(default=None, repr=False)


Record: TypeAlias = VersionRecord | JournalRecord | AccountRecord


def label(value: str) -> str:
    """*value* as a label's value: itself, or its beginning and a hash where it is too long."""
    if len(value) <= LABEL_LENGTH:
        return value
    digest = hashlib.sha256(value.encode()).hexdigest()[:10]
    return f"{value[: LABEL_LENGTH - 11]}-{digest}"


def journal_name(certificate: str, instance: Instance) -> str:
    """Name of the Secret that holds a Journal."""
    return f"journal.{certificate}.{instance}"


def account_name(directory: str, instance: Instance) -> str:
    """Name of the Secret that holds the account at *directory*."""
    return f"account.{hashlib.sha256(directory.encode()).hexdigest()[:10]}.{instance}"


def labels(kind: str, instance: Instance, certificate: str | None = None) -> dict[str, str]:
    """What makes a Secret ours."""
    found = {INSTANCE: label(str(instance)), KIND: kind}
    if certificate is not None:
        found[CERTIFICATE] = label(certificate)
    return found


def secret(
    ref: ObjectRef,
    labels: Mapping[str, str],
    data: Mapping[str, str | bytes],
    *,
    type_: str = "Opaque",
    annotations: Mapping[str, str] | None = None,
    immutable: bool = False,
) -> Obj:
    """Lay out a Secret."""
    body: Obj = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": ref.name, "namespace": ref.namespace, "labels": dict(labels)},
        "type": type_,
        "data": {key: encode(value) for key, value in data.items()},
    }
    if annotations:
        body["metadata"]["annotations"] = dict(annotations)
    if immutable:
        body["immutable"] = True
    return body


def encode(value: str | bytes) -> str:
    """*value* as a Secret's ``data`` takes it."""
    return base64.b64encode(value.encode() if isinstance(value, str) else value).decode()


def decode(obj: Obj, key: str) -> bytes | None:
    """One value of a Secret's ``data``; None where it is missing or no base64."""
    value = (obj.get("data") or {}).get(key)
    if not isinstance(value, str):
        return None
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None


def project(obj: Obj, before: Record | None, instance: Instance) -> Record | None:
    """What is kept of *obj*; None where it is not of *instance*. Never raises."""
    found = (obj.get("metadata") or {}).get("labels") or {}
    if found.get(INSTANCE) != label(str(instance)):
        return None
    match found.get(KIND):
        case "version" if found.get(CERTIFICATE):
            return _version(obj, found[CERTIFICATE], before)
        case "journal" if found.get(CERTIFICATE):
            return _journal(obj, found[CERTIFICATE])
        case "account":
            return _account(obj)
        case _:
            return None


# The annotations that are more than a text, and what each becomes.
_READ: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = {
    SERVED: ("served", codec.read_served),
    REJECTED: ("rejected", codec.read_rejected),
    MARKED: ("marked_at", codec.read_time),
    RENEWAL_INFO: ("renewal_info", codec.read_renewal_info),
    REVOKED: ("revoked", codec.read_revocation),
}


def _asked(text: str, leaf: Leaf | None) -> datetime | None:
    """
    When renewal was asked for by ``certbaton.io/renew-asked``; None where it was not.

    People write it by hand: whatever is no time (``now``, ``true``) counts as asked since the
    version's beginning, so that the wish holds until there is a newer version.
    """
    if not text.strip():
        return None
    try:
        return codec.read_time(text.strip())
    except codec.Unreadable:
        return leaf.not_before if leaf is not None else datetime.fromtimestamp(0, UTC)


def _version(obj: Obj, certificate: str, before: Record | None) -> VersionRecord:
    data = obj.get("data") or {}
    content = hashlib.sha256(f"{data.get(TLS_CRT)}\n{data.get(TLS_KEY)}".encode()).hexdigest()
    if isinstance(before, VersionRecord) and before.content == content:
        leaf, flaw = before.version.leaf, before.version.flaw  # a chain is parsed once only
    else:
        leaf, flaw = _facts(decode(obj, TLS_CRT), decode(obj, TLS_KEY))
    annotations = obj["metadata"].get("annotations") or {}
    version = SecretVersion(
        ref=ref_of(obj),
        certificate=certificate,
        uid=uid_of(obj),
        resource_version=version_of(obj),
        leaf=leaf,
        flaw=flaw,
        directory=annotations.get(DIRECTORY, ""),
        account_url=annotations.get(ACCOUNT_URL, ""),
        profile=annotations.get(PROFILE),
        profile_got=annotations.get(PROFILE_GOT),
        certificate_url=annotations.get(CERTIFICATE_URL, ""),
        order_url=annotations.get(ORDER_URL, ""),
        renew_asked=_asked(annotations.get(RENEW_ASKED, ""), leaf),
    )
    problem: str | None = None
    for name, (attribute, read) in _READ.items():
        if name not in annotations:
            continue
        try:
            version = replace(version, **{attribute: read(annotations[name])})
        except codec.Unreadable as error:
            problem = problem or f"Secret {version.ref}: {name} cannot be read ({error})"
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": obj.get("type"),
        "immutable": True,
        "metadata": {
            "name": version.ref.name,
            "namespace": version.ref.namespace,
            "labels": dict(obj["metadata"].get("labels") or {}),
            "annotations": {k: v for k, v in annotations.items() if k != MARKED},
        },
        "data": dict(data),
    }
    return VersionRecord(version, content, problem, body)


def _facts(chain: bytes | None, key: bytes | None) -> tuple[Leaf | None, str | None]:
    if chain is None:
        return None, f"{TLS_CRT} is missing"
    try:
        leaf = pki.leaf_of(chain)
    except CertbatonError as error:
        return None, f"the chain is unreadable: {error}"
    return leaf, pki.flaw(chain, key.decode("ascii", "replace") if key is not None else None)


def _journal(obj: Obj, certificate: str) -> JournalRecord:
    ref, key, csr = ref_of(obj), decode(obj, TLS_KEY), decode(obj, CSR)
    journal: Journal | None = None
    problem: str | None = None
    try:
        journal = codec.read_journal(decode(obj, JOURNAL) or b"", version_of(obj))
    except codec.Unreadable as error:
        problem = f"Secret {ref}: the Journal cannot be read ({error})"
        if key is not None:
            problem += (
                "; it holds the private key of an order, so it is not overwritten: look at it,"
                " then delete it"
            )
    return JournalRecord(
        ref=ref,
        uid=uid_of(obj),
        resource_version=version_of(obj),
        certificate=certificate,
        journal=journal,
        problem=problem,
        key=key,
        csr=csr.decode("ascii", "replace") if csr is not None else None,
    )


def _account(obj: Obj) -> AccountRecord:
    ref, key, next_key = ref_of(obj), decode(obj, TLS_KEY), decode(obj, NEXT_KEY)
    account: Account | None = None
    problem: str | None = None
    try:
        found = codec.read_account(decode(obj, ACCOUNT) or b"")
        account = replace(found, resource_version=version_of(obj), rolling=next_key is not None)
    except codec.Unreadable as error:
        problem = f"Secret {ref}: the account cannot be read ({error})"
    if problem is None and key is None:
        problem = (
            f"Secret {ref}: the account's key is missing; bring it back with `certbaton account"
            " import`, or delete the Secret for a new account"
        )
    return AccountRecord(ref, uid_of(obj), version_of(obj), account, problem, key, next_key)
