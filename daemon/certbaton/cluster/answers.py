"""
One table: what an answer of the API server means to us.

Elsewhere nobody looks at status codes. The server's own words are shown, except
where they could quote the content of a Secret: there only the names of fields
and known, harmless sentences are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from certbaton.cluster.contract import AlreadyExists, Expired, Kind
from certbaton.errors import (
    CertbatonError,
    ClusterUnavailable,
    Conflict,
    ObjectGone,
    PermanentError,
)

NAMED = frozenset({"read", "replace", "merge", "apply", "delete"})
"""Verbs that speak of one existing object, so that their 404 is about it."""

RBAC_VERBS = {
    "read": "get",
    "replace": "update",
    "merge": "patch",
    "apply": "patch",
}

# The API server's own sentences that never quote an object's content.
_HARMLESS = re.compile(
    r"is forbidden: (User \"|exceeded quota|unable to create new content in namespace)"
)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as an error tells of it: *name* is empty for a collection."""

    verb: str
    kind: Kind
    namespace: str | None
    name: str = ""

    def __str__(self) -> str:
        place = f"{self.namespace}/{self.name}" if self.name else f"in {self.where}"
        return f"{self.verb} {self.kind} {place}"

    @property
    def where(self) -> str:
        """The namespace in words."""
        return f"namespace {self.namespace}" if self.namespace else "all namespaces"


@dataclass(frozen=True, slots=True)
class Answer:
    """A refusal: HTTP *status*, and what the Status object in its body says."""

    status: int
    reason: str = ""
    message: str = ""
    causes: Sequence[Mapping[str, Any]] = ()
    retry_after: str | None = None

    @classmethod
    def of(cls, status: int, body: object, retry_after: str | None = None) -> Answer:
        """Read a Status object; anything else in *body* is left out."""
        if not isinstance(body, Mapping):
            return cls(status, retry_after=retry_after)
        details = body.get("details")
        details = details if isinstance(details, Mapping) else {}
        causes = details.get("causes")
        if retry_after is None and details.get("retryAfterSeconds"):
            retry_after = str(details["retryAfterSeconds"])
        return cls(
            status,
            str(body.get("reason") or ""),
            str(body.get("message") or ""),
            tuple(cause for cause in causes if isinstance(cause, Mapping))
            if isinstance(causes, Sequence)
            else (),
            retry_after,
        )


def error_for(asked: Asked, answer: Answer, now: datetime) -> CertbatonError:
    """
    The error that *answer* is; *now* only turns a Retry-After in seconds into a time.

    Sources: the API conventions ("HTTP Status codes"), and a real API server.
    """
    words = _words(asked, answer)
    match answer.status:
        case 409 if answer.reason == "AlreadyExists":
            return AlreadyExists(f"{asked}: it already exists")
        case 409 if any(c.get("reason") == "FieldManagerConflict" for c in answer.causes):
            return PermanentError(f"{asked}: another field manager owns what we set{words}")
        case 422 if {c.get("field") for c in answer.causes} == {"metadata.uid"}:
            return Conflict(f"{asked}: it is another object by now")
        case 409:
            return Conflict(f"{asked}: somebody changed it first{words}")
        case 404 if asked.verb in NAMED:
            return ObjectGone(f"{asked}: it is not there")
        case 404:
            return PermanentError(
                f"{asked}: {asked.where} or the API of {asked.kind} does not exist{words}"
            )
        case 401:
            return ClusterUnavailable(
                f"{asked}: the API server does not accept our credentials (401); a renewed token"
                " file is read within a minute, a kubeconfig's token must be renewed by hand"
            )
        case 403:
            return PermanentError(_forbidden(asked, words))
        case 410:
            return Expired(f"{asked}: the resourceVersion is too old; listing anew")
        case 429:
            return ClusterUnavailable(
                f"{asked}: the API server asks us to slow down (429)",
                retry_at=_retry_at(answer, now),
            )
        case status if status >= 500:
            return ClusterUnavailable(
                f"{asked}: the API server is in trouble ({status} {answer.reason}){words}",
                retry_at=_retry_at(answer, now),
            )
        case status:
            return PermanentError(f"{asked}: the API server refuses it ({status}){words}")


def _forbidden(asked: Asked, words: str) -> str:
    verb = RBAC_VERBS.get(asked.verb, asked.verb)
    group = f".{asked.kind.group}" if asked.kind.group else ""
    return (
        f"certbaton is not allowed to {verb} {asked.kind.plural}{group} in {asked.where}; let the"
        f" chart make its Roles (rbac.create: true), or bind one with that verb to its"
        f" ServiceAccount{words}"
    )


def _words(asked: Asked, answer: Answer) -> str:
    """The server's words behind a colon, or as much of them as can hold no Secret."""
    message = " ".join(answer.message.split())
    if asked.kind is Kind.SECRET and not _HARMLESS.search(message):
        fields = [
            f"{cause.get('field', '?')} ({cause.get('reason', '?')})"
            for cause in answer.causes
            if len(str(cause.get("field", ""))) < 100  # names of fields are short
        ]
        message = ", ".join(fields)
    return f": {message}" if message else ""


def _retry_at(answer: Answer, now: datetime) -> datetime | None:
    """RFC 9110 section 10.2.3: seconds, or an HTTP date."""
    text = (answer.retry_after or "").strip()
    if not text:
        return None
    if text.isdecimal():
        return now + timedelta(seconds=min(int(text), 3600))
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    return date.astimezone(UTC) if date.tzinfo else date.replace(tzinfo=UTC)
