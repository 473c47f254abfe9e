"""Resources of the CA (RFC 8555 section 7.1), as `certbaton.ca` hands them out."""

from __future__ import annotations

from dataclasses import dataclass
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
    """One authorization: *name* without ``*.``; *error* is the CA's own words."""

    url: str
    name: str
    wildcard: bool
    status: str
    challenges: tuple[ChallengeInfo, ...]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class OrderInfo:
    """One order as the CA describes it; *retry_after* is a delay where one was sent."""

    url: str
    status: str
    authorizations: tuple[str, ...]
    finalize: str
    certificate: str | None
    expires: datetime | None
    error: str | None = None
    retry_after: timedelta | None = None
