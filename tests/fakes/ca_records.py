"""What a `fakes.ca.FakeCa` keeps."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from certbaton.model import ChallengeInfo


@dataclass(frozen=True)
class Issuance:
    """
    One certificate that was signed. *names* are sorted; *chain* is PEM, leaf first.

    *replaces* is the CertID that its order named, *profile* the profile.
    """

    at: datetime
    account_url: str
    order_url: str
    names: tuple[str, ...]
    chain: str
    profile: str | None = None
    replaces: str | None = None


@dataclass
class Account:
    """An account; *key_sha256* is of its public key, *kid* of what it was bound to."""

    url: str
    key_sha256: str
    active: bool = True
    kid: str | None = None


@dataclass
class Authorization:
    """One name of one account; *name* is as ordered, with ``*.``."""

    url: str
    account: Account
    name: str
    expires: datetime
    challenges: list[ChallengeInfo]
    status: str = "pending"
    error: str | None = None
    problem: str = ""
    answered_at: datetime | None = None


@dataclass
class Order:
    """An order; its status is computed from these when somebody asks."""

    url: str
    account: Account
    names: tuple[str, ...]
    profile: str | None
    expires: datetime
    authorizations: list[Authorization]
    csr: x509.CertificateSigningRequest | None = None
    finalized_at: datetime | None = None
    certificate: str | None = None
    replaces: str | None = None
    not_after: datetime | None = None
