"""
What a CA's refusal means: from its answer to one of our errors, by the table in ``refusals``.

RFC 8555 section 6.7 has a CA answer with a problem document (RFC 7807); nobody else looks at types
and statuses. Whatever comes is read, bounded, and made fit for a log.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

from certbaton.ca.refusals import (
    TABLE,
    AlreadyRevoked,
    CsrRefused,
    NameRefused,
    OrderNotReady,
    ReplacesRefused,
    ResourceGone,
    Row,
    ServerError,
    ValidationFailed,
    row_of,
)
from certbaton.errors import (
    AccountRefused,
    CaaForbids,
    CaUnavailable,
    CertbatonError,
    ProfileRefused,
    RateLimited,
    RetryableError,
)
from certbaton.model import FailureKind

__all__ = (
    "ERROR_PREFIX",
    "AlreadyRevoked",
    "CsrRefused",
    "NameRefused",
    "OrderNotReady",
    "Problem",
    "ReplacesRefused",
    "ResourceGone",
    "ServerError",
    "Subproblem",
    "ValidationFailed",
    "advised",
    "describe",
    "error_for",
    "kind_of",
    "kind_of_problem",
    "links",
    "one_line",
    "read_error",
    "read_json",
    "read_problem",
    "retry_after",
    "shortened",
    "web_page",
)

ERROR_PREFIX: Final = "urn:ietf:params:acme:error:"
_MAX_DETAIL: Final = 1000
# A hundred names with a few hundred characters each. It lies in a Journal, which takes no more
# than a Secret does: a failure that could not be written would be tried again far too soon.
_MAX_WORDS: Final = 50_000
_MAX_DELAY: Final = timedelta(days=3650)


# One link, with what is said of it up to the next comma that nobody quoted; and one such saying.
_LINK: Final = re.compile(r"""<([^<>]*)>((?:[^,"]|"[^"]*")*)""")
_PARAMETER: Final = re.compile(r""";\s*([\w*-]+)\s*=\s*("[^"]*"|[^\s;"]*)""")
# Let's Encrypt's words on the limit that counts new orders; all others name what they count.
_OF_ACCOUNT: Final = "from this account"

# One to be opened by somebody may hold a token with many names.
_TO_OPEN: Final = re.compile(r"https?://[!-~]{1,8000}")
_MAX_SCHEME: Final = len("https://")
# A page of the CA's: what else is written there is not for a message.
_PAGE: Final = re.compile(r"https?://[!-~]{1,2000}")


@dataclass(frozen=True, slots=True)
class Subproblem:
    """What a CA says of one *name* (section 6.7.1); each may be ``""``."""

    name: str
    type: str
    detail: str


@dataclass(frozen=True, slots=True)
class Problem:
    """
    One refusal as it came: HTTP *status* and the problem document.

    *type* is without its prefix, ``""`` where no problem document came (a proxy's page, or an
    empty body). *retry_after* is a delay from now. *terms* and *instance* are pages for people:
    the terms of service, and what is to be done (section 7.3.3).
    """

    status: int
    type: str
    detail: str
    subproblems: tuple[Subproblem, ...] = ()
    retry_after: timedelta | None = None
    terms: str | None = None
    instance: str | None = None

    @property
    def paused(self) -> bool:
        """Whether it ends only when somebody goes to a page: a limit without a time."""
        limited = self.type == "rateLimited" and self.retry_after is None
        return limited and _TO_OPEN.search(self.detail) is not None

    def __str__(self) -> str:
        """One line in the CA's own words, with the type and the status."""
        words = self.detail
        for sub in self.subproblems:
            told = f"{sub.detail} ({sub.type})" if sub.type else sub.detail
            words += f"; {sub.name}: {told}" if sub.name else f"; {told}"
        words = shortened(words)
        kind = self.type or "no problem document"
        tail = f"({kind}, HTTP {self.status})" if self.status else f"({kind})"
        return f"{words} {tail}" if words else tail


def error_for(request: str, problem: Problem, now: datetime) -> CertbatonError:
    """
    The error that answers "what now?" to *problem* in *request*.

    *now* (aware) turns a delay into the ``retry_at`` of a RetryableError (aware, UTC).
    """
    row = _row(request, problem)
    message = f"the CA refused {request}: {problem}"
    person = row.person
    if problem.type == "userActionRequired" and (page := problem.instance or problem.terms):
        person = f"open {page}, and agree there"
        if problem.terms not in (None, page):
            person += f"; the terms of service are at {problem.terms}"
    if person:
        message += f"; to do: {person}"
    if issubclass(row.error, RetryableError):
        retry_at = None
        if problem.retry_after is not None:
            retry_at = now.astimezone(UTC) + problem.retry_after
        error = row.error(message, retry_at=retry_at)
        if isinstance(error, RateLimited):
            error.of_account = request == "newAccount" or _OF_ACCOUNT in problem.detail.lower()
        return error
    return row.error(message)


def kind_of(error: BaseException | type[BaseException]) -> FailureKind:
    """What kind of failure *error* is for the Journal."""
    kind = error if isinstance(error, type) else type(error)
    return next((found for classes, found in _KINDS if issubclass(kind, classes)), _OTHER)


def kind_of_problem(request: str, type: str) -> FailureKind:
    """
    What kind of failure a problem inside of an answer is for the Journal.

    *request* is ``validation`` for what a challenge says, ``issuance`` for what an order says;
    *type* is ``AuthorizationInfo.problem`` or ``OrderInfo.problem``.
    """
    return kind_of(row_of(request, type or "unknown", 0).error)


def advised(message: str, request: str, *types: str) -> str:
    """*message*, and what a person should do about problems of these *types* in *request*."""
    todo = dict.fromkeys(row_of(request, each or "unknown", 0).person for each in types)
    words = "; ".join(each for each in todo if each)
    return f"{message}; to do: {words}" if words else message


def read_problem(status: int, headers: Mapping[str, str], body: bytes, now: datetime) -> Problem:
    """
    Read a refusal, whatever came: a problem document, a proxy's page, or nothing.

    A page is not repeated in any message. *now* (aware) is used where the answer has no Date.
    """
    document = read_json(body)
    delay = retry_after(headers, now)
    if not isinstance(document, Mapping):
        return Problem(status, "", "", retry_after=delay)
    return Problem(
        status,
        _type(document),
        _words(document),
        tuple(_subproblems(document)),
        delay,
        next(filter(None, map(web_page, links(headers, "terms-of-service"))), None),
        web_page(document.get("instance")),
    )


def read_json(body: bytes) -> object:
    """*body* as JSON; None where it is none, or nested without an end."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def read_error(document: object) -> Problem | None:
    """
    The ``error`` of an order or challenge; None if there is none.

    Of several types the one that counts is its *type*: that of the table's first row.
    """
    if not isinstance(document, Mapping):
        return None
    problem = Problem(0, _type(document), _words(document), tuple(_subproblems(document)))
    return replace(problem, type=_counts("", problem) or "unknown")


def describe(document: object) -> str | None:
    """The ``error`` of an order or challenge in the CA's own words; None if there is none."""
    problem = read_error(document)
    return None if problem is None else str(problem)


def links(headers: Mapping[str, str], relation: str) -> list[str]:
    """The targets of all ``Link`` headers of that *relation* (RFC 8288), in their order."""
    found = []
    for target, given in _LINK.findall(headers.get("Link") or ""):
        parameters = {name.lower(): value.strip('"') for name, value in _PARAMETER.findall(given)}
        if target and relation in parameters.get("rel", "").lower().split():
            found.append(target.strip())
    return found


def web_page(value: object) -> str | None:
    """*value* where it is the address of a page that may be shown to somebody; else None."""
    return value if isinstance(value, str) and _PAGE.fullmatch(value) else None


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


_OTHER: Final = FailureKind.OTHER
_KINDS: Final = (
    (AccountRefused, FailureKind.ACCOUNT),
    (ProfileRefused, FailureKind.PROFILE),
    (CaaForbids, FailureKind.CAA),
    (ValidationFailed, FailureKind.VALIDATION),
    (RateLimited, FailureKind.LIMIT),
    (CaUnavailable, FailureKind.OUTAGE),
)


def _row(request: str, problem: Problem) -> Row:
    kind = _counts(request, problem)
    return row_of(request, kind, problem.status, paused=problem.paused)


def _counts(request: str, problem: Problem) -> str:
    """The type that counts: where there are several, that of the table's first row."""
    types = {each.type for each in problem.subproblems if each.type}
    if problem.type not in ("", "compound") or not types:
        return problem.type
    return min(sorted(types), key=lambda each: TABLE.index(row_of(request, each, problem.status)))


def _http_date(value: str) -> datetime | None:
    try:
        at = parsedate_to_datetime(value)
        # The two obsolete forms, and "-0000", come out naive; all mean UTC.
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, TypeError, OverflowError):
        return None


def _type(document: Mapping[str, object]) -> str:
    kind = one_line(document.get("type")).removeprefix(ERROR_PREFIX)
    return "" if kind == "about:blank" else kind


def _subproblems(document: Mapping[str, object]) -> Iterator[Subproblem]:
    given = document.get("subproblems")
    for sub in given if isinstance(given, list) else ():
        if isinstance(sub, Mapping):
            identifier = sub.get("identifier")
            name = identifier.get("value") if isinstance(identifier, Mapping) else ""
            yield Subproblem(one_line(name), _type(sub), _words(sub))


def _words(document: Mapping[str, object]) -> str:
    """
    The CA's own words, cut; but a page that they name is whole.

    Let's Encrypt names all paused names, and then where the pause is lifted, with those in it.
    """
    text = document.get("detail") or document.get("title")
    words = one_line(text)
    page = _TO_OPEN.search(str(text or ""))
    if page is None or page.group() in words:
        return words
    begun = words.find(page.group()[:_MAX_SCHEME])
    return f"{words[:begun] if begun >= 0 else words} {page.group()}"


def shortened(words: str) -> str:
    """*words* of a CA on many names, and not for ever."""
    return words if len(words) <= _MAX_WORDS else words[:_MAX_WORDS] + " …"


def one_line(text: object) -> str:
    """*text* as one line that can be printed, and not for ever."""
    line = " ".join(str(text or "").split())
    printable = "".join(character if character.isprintable() else "?" for character in line)
    return printable if len(printable) <= _MAX_DETAIL else printable[:_MAX_DETAIL] + " …"
