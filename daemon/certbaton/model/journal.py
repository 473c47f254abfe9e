"""What is remembered in the cluster of orders, failures and accounts: the Journal and its like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class PendingOrder:
    """
    An order that was begun: the intent, written before the CA is asked.

    *url* is None until newOrder was answered. *chain* is set when the
    certificate was downloaded but its Secret could not be written.
    *profile* is the one asked for, *profile_got* the one that newOrder carried
    (None: none, the CA's default). *replaces* is the ARI CertID of the predecessor
    (RFC 9773 section 5), *not_after* the end that was asked for. *finalizing* is
    written before finalize is sent: from then on a certificate may exist. *advised* says that
    renewal information alone asked for it: its record is to say so, too.
    """

    directory: str
    account_url: str
    names: tuple[str, ...]
    key_type: str
    public_key_sha256: str
    reason: str
    staged_at: datetime
    profile: str | None = None
    profile_got: str | None = None
    replaces: str | None = None
    not_after: datetime | None = None
    url: str | None = None
    expires: datetime | None = None
    finalizing: bool = False
    certificate_url: str | None = None
    chain: str | None = None
    advised: bool = False

    @property
    def committed(self) -> bool:
        """Whether a certificate may exist: then it is awaited, wherever it is."""
        return self.finalizing or self.certificate_url is not None or self.chain is not None


class FailureKind(StrEnum):
    """What kind of refusal it was: which decides what comes next (`certbaton.ca.problems`)."""

    OTHER = "other"
    VALIDATION = "validation"  # the CA could not see a challenge's answer
    CAA = "caa"
    LIMIT = "limit"  # rateLimited, with the time that the CA named or without
    ACCOUNT = "account"  # the account is refused: deactivated, new terms, an external one needed
    PROFILE = "profile"  # a required profile that the CA does not have
    OUTAGE = "outage"  # counted against the CA, not the certificate


@dataclass(frozen=True, slots=True)
class Failure:
    """
    What went wrong last at one CA, how many times in a row, and when it is tried again.

    *first_at* is that of the first of them. *named* says that the CA itself named *retry_at*.
    *wish* stands for what was ordered (`core.limits.wish`), "" where it was no order that failed.
    """

    message: str
    at: datetime
    count: int
    retry_at: datetime
    kind: FailureKind = FailureKind.OTHER
    first_at: datetime | None = None
    named: bool = False
    wish: str = ""


@dataclass(frozen=True, slots=True)
class OrderRecord:
    """
    One order that ended in a certificate, for the limits that outlive an order.

    *advised* says that it was renewal information in the past that asked for it.
    """

    at: datetime
    directory: str
    names: tuple[str, ...]
    advised: bool = False


@dataclass(frozen=True, slots=True)
class FailedValidation:
    """One name that a CA could not validate."""

    at: datetime
    directory: str
    name: str


@dataclass(frozen=True, slots=True)
class Drift:
    """How often we undid what somebody else changed, and when we last did, or first saw it."""

    rounds: int
    at: datetime


class Outcome(StrEnum):
    """How a rehearsal ended."""

    OPEN = "open"
    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"  # its CA could not tell: away, limited, or CAA that pins our account


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """
    The last trial order at *directory*, an issuer's rehearsal; never a certificate.

    *at* is when it was begun, or ended as *outcome*; *count* how often it failed in a row, and
    *retry_at* when it is tried again then. *asked* is the time of the request that it answers,
    where somebody asked for it by hand.
    """

    directory: str
    at: datetime
    names: tuple[str, ...] = ()
    account_url: str = ""
    url: str | None = None
    outcome: Outcome = Outcome.OPEN
    message: str = ""
    count: int = 0
    retry_at: datetime | None = None
    asked: datetime | None = None


@dataclass(frozen=True, slots=True)
class Journal:
    """
    A certificate's memory in the cluster. Long-lived.

    *failures* are by directory, those since the last certificate. *last_version* names the
    version that its last order ended in. *originals*
    are what Services (``namespace/name``) named before we first touched them (those
    that were made anew: them anew), as the annotation said it; *drift* is keyed likewise.
    *rehearsal_asked* is when somebody last asked for a rehearsal by hand.
    """

    resource_version: str = ""
    pending: PendingOrder | None = None
    failures: Mapping[str, Failure] = field(default_factory=dict)
    orders: tuple[OrderRecord, ...] = ()
    failed_validations: tuple[FailedValidation, ...] = ()
    last_version: str | None = None
    originals: Mapping[str, str] = field(default_factory=dict)
    drift: Mapping[str, Drift] = field(default_factory=dict)
    rehearsal: Rehearsal | None = None
    rehearsal_asked: datetime | None = None

    @property
    def failure(self) -> Failure | None:
        """The last one, at whatever CA."""
        return max(self.failures.values(), key=lambda failure: failure.at, default=None)


@dataclass(frozen=True, slots=True)
class Account:
    """
    An ACME account: *url* is None between storing the key and newAccount's answer.

    *rolling* says that the next key lies beside the present one (RFC 8555 section 7.3.5).
    *external_kid* is that of the external account that it was bound to (section 7.3.4).
    """

    directory: str
    url: str | None
    resource_version: str = ""
    rolling: bool = False
    external_kid: str | None = None
