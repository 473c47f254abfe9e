"""Resources of the CA (RFC 8555 section 7.1), as `certbaton.ca` hands them out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class ChallengeInfo:
    """
    One challenge of an authorization (RFC 8555 section 8).

    *value* is what the solver must show: the key authorization for http-01,
    its base64url SHA-256 digest for dns-01.
    """

    type: str
    url: str
    name: str
    token: str
    value: str
    status: str

    def __repr__(self) -> str:
        # token and value are answers to a challenge, not for a log
        return f"ChallengeInfo(type={self.type!r}, name={self.name!r}, status={self.status!r})"


@dataclass(frozen=True, slots=True)
class AuthorizationInfo:
    """
    One authorization: *name* without ``*.``.

    *error* is the CA's own words, and *problem* the type of problem that it gave with them
    (RFC 8555 section 6.7, without its prefix); "" where it gave none.
    """

    url: str
    name: str
    wildcard: bool
    status: str
    challenges: tuple[ChallengeInfo, ...]
    error: str | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class OrderInfo:
    """
    One order as the CA describes it; *retry_after* is a delay where one was sent.

    *error* is the CA's own words, and *problem* the type that it gave with them, or "".
    """

    url: str
    status: str
    authorizations: tuple[str, ...]
    finalize: str
    certificate: str | None
    expires: datetime | None
    error: str | None = None
    retry_after: timedelta | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class DirectoryInfo:
    """
    What a CA's directory says of itself (section 7.1.1).

    *resources* are the names of what it offers (``renewalInfo``, ``keyChange``), *profiles* names
    with a description, *caa_identities* the domains that CAA records may name.
    """

    resources: frozenset[str] = frozenset()
    profiles: Mapping[str, str] = field(default_factory=dict)
    caa_identities: tuple[str, ...] = ()
    external_account_required: bool = False
    terms_of_service: str | None = None


@dataclass(frozen=True, slots=True)
class RenewalAnswer:
    """What renewalInfo answers (RFC 9773 section 4.2); *retry_after* is a delay or None."""

    start: datetime
    end: datetime
    explanation_url: str | None
    retry_after: timedelta | None


@dataclass(frozen=True, slots=True)
class ExternalAccountKey:
    """What binds an account (RFC 8555 section 7.3.4); *hmac_key* is base64url, and a secret."""

    kid: str
    hmac_key: str = field(repr=False)
