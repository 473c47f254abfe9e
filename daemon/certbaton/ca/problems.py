"""
What a CA's refusal means: the one table from answers to errors.

RFC 8555 section 6.7 has a CA answer with a problem document (RFC 7807). The
same type means different things in different requests, so the table's key is
(request, type, status); elsewhere nobody compares any of these. Requests are
named as RFC 8555 names them: directory, newNonce, newAccount, findAccount
(newAccount with onlyReturnExisting), newOrder, order, authorization,
challenge, finalize, certificate, deactivateAuthorization.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

from certbaton.errors import (
    AccountMissing,
    AccountRefused,
    CaaForbids,
    CaUnavailable,
    CertbatonError,
    ConfigurationError,
    PermanentError,
    ProfileRefused,
    RateLimited,
    RetryableError,
)
from certbaton.model import FailureKind

ERROR_PREFIX: Final = "urn:ietf:params:acme:error:"
_MAX_DETAIL: Final = 1000
_MAX_DELAY: Final = timedelta(days=3650)


class ResourceGone(PermanentError):
    """The order, authorization or certificate isn't there (any more): HTTP 404 or 410."""


class CsrRefused(PermanentError):
    """The CA will never sign this request (badCSR): a new order with a new key is needed."""


class OrderNotReady(PermanentError):
    """The order is not (or no longer) ready to be finalized; what it is instead, it says itself."""


@dataclass(frozen=True, slots=True)
class Problem:
    """
    One refusal as it came: HTTP *status* and the problem document.

    *type* is without its prefix, ``""`` where no problem document came (a proxy's page, or an
    empty body). *subproblems* are (name, detail). *retry_after* is a delay from now.
    """

    status: int
    type: str
    detail: str
    subproblems: tuple[tuple[str, str], ...] = ()
    retry_after: timedelta | None = None

    def __str__(self) -> str:
        """One line in the CA's own words, with the type and the status."""
        words = self.detail
        for name, detail in self.subproblems:
            words += f"; {name}: {detail}" if name else f"; {detail}"
        kind = self.type or "no problem document"
        tail = f"({kind}, HTTP {self.status})" if self.status else f"({kind})"
        return f"{words} {tail}" if words else tail


# (request, type, status) -> class; "" and 0 stand for any. The first row that fits counts.
TABLE: Final[tuple[tuple[str, str, int, type[CertbatonError]], ...]] = (
    # Section 6.6. Let's Encrypt says "rateLimited" with 503 when it is merely busy; a paused
    # account is a rateLimited without Retry-After, whose detail says where to lift the pause.
    ("", "rateLimited", 503, CaUnavailable),
    ("", "rateLimited", 0, RateLimited),
    ("", "", 429, RateLimited),
    ("", "serverInternal", 0, CaUnavailable),
    # More stale nonces in a row than are tried.
    ("", "badNonce", 0, CaUnavailable),
    # Section 7.3.1. It may come in any request, once the CA has forgotten the account.
    ("", "accountDoesNotExist", 0, AccountMissing),
    # Section 7.3: what the operator wrote about the account.
    ("newAccount", "externalAccountRequired", 0, ConfigurationError),
    ("newAccount", "invalidContact", 0, ConfigurationError),
    ("newAccount", "unsupportedContact", 0, ConfigurationError),
    ("newAccount", "invalidEmail", 0, ConfigurationError),
    # Profiles extension: a name that the directory doesn't list.
    ("newOrder", "invalidProfile", 0, ProfileRefused),
    ("newOrder", "unsupportedProfile", 0, ProfileRefused),
    # A deactivated account, an order of another account, refused terms of service: a person.
    ("", "unauthorized", 0, PermanentError),
    ("", "userActionRequired", 0, PermanentError),
    # Section 7.4: the order stays ready, but this CSR never succeeds.
    ("finalize", "badCSR", 0, CsrRefused),
    ("finalize", "orderNotReady", 0, OrderNotReady),
    # Boulder answers 404 for an order past its expiry, Pebble with an empty body.
    ("order", "", 404, ResourceGone),
    ("order", "", 410, ResourceGone),
    ("authorization", "", 404, ResourceGone),
    ("authorization", "", 410, ResourceGone),
    ("deactivateAuthorization", "", 404, ResourceGone),
    ("deactivateAuthorization", "", 410, ResourceGone),
    ("challenge", "", 404, ResourceGone),
    ("finalize", "", 404, ResourceGone),
    ("certificate", "", 404, ResourceGone),
    ("certificate", "", 410, ResourceGone),
    ("directory", "", 404, ConfigurationError),
    ("directory", "", 410, ConfigurationError),
)


def error_for(request: str, problem: Problem, now: datetime) -> CertbatonError:
    """
    The error that answers "what now?" to *problem* in *request*.

    *now* (aware) turns a delay into the ``retry_at`` of a RetryableError (aware, UTC).
    """
    kind = _kind(request, problem)
    message = f"the CA refused {request}: {problem}"
    if issubclass(kind, RetryableError):
        retry_at = None
        if problem.retry_after is not None:
            retry_at = now.astimezone(UTC) + problem.retry_after
        return kind(message, retry_at=retry_at)
    return kind(message)


def kind_of(error: BaseException) -> FailureKind:
    """What kind of failure *error* is for the Journal."""
    for classes, kind in (
        (AccountRefused, FailureKind.ACCOUNT),
        (ProfileRefused, FailureKind.PROFILE),
        (CaaForbids, FailureKind.CAA),
        (RateLimited, FailureKind.LIMIT),
        (CaUnavailable, FailureKind.OUTAGE),
    ):
        if isinstance(error, classes):
            return kind
    return FailureKind.OTHER


def read_problem(status: int, headers: Mapping[str, str], body: bytes, now: datetime) -> Problem:
    """
    Read a refusal, whatever came: a problem document, a proxy's page, or nothing.

    A page is not repeated in any message. *now* (aware) is used where the answer has no Date.
    """
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    delay = retry_after(headers, now)
    if not isinstance(document, Mapping):
        return Problem(status, "", "", retry_after=delay)
    return Problem(
        status,
        _type(document),
        _words(document),
        tuple(_subproblems(document)),
        delay,
    )


def describe(document: object) -> str | None:
    """The ``error`` of an order or challenge in the CA's own words; None if there is none."""
    if not isinstance(document, Mapping):
        return None
    return str(
        Problem(0, _type(document) or "unknown", _words(document), tuple(_subproblems(document)))
    )


def retry_after(headers: Mapping[str, str], now: datetime) -> timedelta | None:
    """
    Read Retry-After (RFC 9110 section 10.2.3) as a delay, never negative; None without one.

    A date is taken against the answer's own Date, so that neither this machine's time zone nor
    its clock plays a part; *now* (aware) stands in where there is no Date.
    """
    value = (headers.get("Retry-After") or "").strip()
    try:
        delay = timedelta(seconds=int(value))
    except OverflowError:
        delay = _MAX_DELAY
    except ValueError:
        at = _http_date(value)
        if at is None:
            return None
        delay = at - (_http_date(headers.get("Date") or "") or now)
    return min(max(delay, timedelta(0)), _MAX_DELAY)


def _kind(request: str, problem: Problem) -> type[CertbatonError]:
    for a_request, a_type, a_status, kind in TABLE:
        if (
            a_request in ("", request)
            and a_type in ("", problem.type)
            and a_status in (0, problem.status)
        ):
            return kind
    # Neither 5xx, nor a page of some proxy, nor a redirect, is the CA's word on anything.
    if problem.status >= 500 or not problem.type or problem.status in (408, 425):
        return CaUnavailable
    return PermanentError


def _http_date(value: str) -> datetime | None:
    try:
        at = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    # The two obsolete forms, and "-0000", come out naive; all mean UTC.
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def _type(document: Mapping[str, object]) -> str:
    kind = _one_line(document.get("type")).removeprefix(ERROR_PREFIX)
    return "" if kind == "about:blank" else kind


def _subproblems(document: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    given = document.get("subproblems")
    for sub in given if isinstance(given, list) else ():
        if isinstance(sub, Mapping):
            identifier = sub.get("identifier")
            name = identifier.get("value") if isinstance(identifier, Mapping) else ""
            yield _one_line(name), _words(sub)


def _words(document: Mapping[str, object]) -> str:
    return _one_line(document.get("detail") or document.get("title"))


def _one_line(text: object) -> str:
    line = " ".join(str(text or "").split())
    printable = "".join(character if character.isprintable() else "?" for character in line)
    return printable if len(printable) <= _MAX_DETAIL else printable[:_MAX_DETAIL] + " …"
