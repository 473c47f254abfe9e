"""The table from a CA's refusals to errors."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from certbaton.ca.problems import (
    CsrRefused,
    OrderNotReady,
    ResourceGone,
    describe,
    error_for,
    read_problem,
    retry_after,
)
from certbaton.errors import (
    AccountMissing,
    CaUnavailable,
    CertbatonError,
    ConfigurationError,
    PermanentError,
    RateLimited,
    RetryableError,
)

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
SERVER_DATE = "Tue, 24 Nov 2026 15:00:00 GMT"
SEVERAL = {
    "type": "urn:ietf:params:acme:error:compound",
    "detail": "Some names were refused",
    "subproblems": [
        {
            "type": "urn:ietf:params:acme:error:caa",
            "detail": "CAA forbids it",
            "identifier": {"type": "dns", "value": "a.example.com"},
        },
        {"detail": "is\n not a  name", "identifier": {"type": "email", "value": "b"}},
        "junk",
    ],
}


def error(request: str, status: int, body: object = None, **headers: str) -> CertbatonError:
    content = body if isinstance(body, bytes) else json.dumps(body).encode() if body else b""
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return error_for(request, read_problem(status, named, content, NOW), NOW)


def problem(kind: str, detail: str = "the CA's words") -> dict[str, Any]:
    return {"type": f"urn:ietf:params:acme:error:{kind}", "detail": detail}


@pytest.mark.parametrize(
    ("sentence", "request_name", "status", "body", "expected"),
    [
        ("a rate limit", "newOrder", 429, problem("rateLimited"), RateLimited),
        ("a rate limit of a proxy", "order", 429, None, RateLimited),
        ("a CA that is merely busy", "newOrder", 503, problem("rateLimited"), CaUnavailable),
        ("a failure inside", "finalize", 500, problem("serverInternal"), CaUnavailable),
        ("a proxy's page", "newOrder", 502, b"<html>bad gateway</html>", CaUnavailable),
        ("a filter's page", "newOrder", 403, b"<html>forbidden</html>", CaUnavailable),
        ("a redirect of a POST", "newOrder", 302, b"", CaUnavailable),
        ("nothing but stale nonces", "order", 400, problem("badNonce"), CaUnavailable),
        ("a forgotten account", "newOrder", 400, problem("accountDoesNotExist"), AccountMissing),
        ("no such account", "findAccount", 400, problem("accountDoesNotExist"), AccountMissing),
        ("a deactivated account", "newOrder", 403, problem("unauthorized"), PermanentError),
        ("new terms of service", "newOrder", 403, problem("userActionRequired"), PermanentError),
        ("EAB needed", "newAccount", 403, problem("externalAccountRequired"), ConfigurationError),
        ("a bad e-mail address", "newAccount", 400, problem("invalidContact"), ConfigurationError),
        ("an unknown profile", "newOrder", 400, problem("invalidProfile"), ConfigurationError),
        ("a forbidden name", "newOrder", 400, problem("rejectedIdentifier"), PermanentError),
        ("CAA", "newOrder", 403, problem("caa"), PermanentError),
        ("several at once", "newOrder", 400, SEVERAL, PermanentError),
        ("a type of tomorrow", "newOrder", 400, problem("somethingNew"), PermanentError),
        ("a foreign CSR", "finalize", 403, problem("unauthorized"), PermanentError),
        ("a hopeless CSR", "finalize", 400, problem("badCSR"), CsrRefused),
        ("a second finalize", "finalize", 403, problem("orderNotReady"), OrderNotReady),
        ("a second answer, Pebble", "challenge", 400, problem("malformed"), PermanentError),
        ("a second answer, Boulder", "challenge", 409, problem("conflict"), PermanentError),
        ("an order that is gone, Boulder", "order", 404, problem("malformed"), ResourceGone),
        ("an order that is gone, Pebble", "order", 404, b"", ResourceGone),
        ("an authorization that is gone", "authorization", 404, None, ResourceGone),
        ("a wrong directory", "directory", 404, b"not found", ConfigurationError),
        ("an array where an object belongs", "order", 400, [1], CaUnavailable),
    ],
)  # fmt: skip
def test_a_refusal_is_an_answer_to_what_now(
    sentence: str, request_name: str, status: int, body: object, expected: type[CertbatonError]
) -> None:
    """Exactly this class, since a subclass would be another answer."""
    assert type(error(request_name, status, body)) is expected


def test_the_message_holds_the_ca_s_words_for_each_name() -> None:
    """On one line, junk passed over."""
    assert str(error("newOrder", 400, SEVERAL)) == (
        "the CA refused newOrder: Some names were refused; a.example.com: CAA forbids it; "
        "b: is not a name (compound, HTTP 400)"
    )


def test_a_page_is_not_repeated() -> None:
    """Who reads the message wants to know that a proxy spoke, not its HTML."""
    told = str(error("order", 502, b"<html>bad gateway</html>"))
    assert told == "the CA refused order: (no problem document, HTTP 502)"


def test_the_message_is_bounded_and_printable() -> None:
    """What a server writes goes into logs and Events."""
    told = str(error("order", 400, problem("malformed", "x" * 5000 + "\x1b[31m")))
    assert len(told) < 1200
    assert "\x1b" not in str(error("order", 400, problem("malformed", "\x1b[31mred")))


def test_an_order_s_own_error_is_told_alike() -> None:
    """As it stands in an order or a challenge, without a status."""
    assert describe(problem("connection", "refused")) == "refused (connection)"
    assert describe({}) == "(unknown)"
    assert describe(None) is None
    assert describe("junk") is None


@pytest.fixture(params=["UTC", "Asia/Tokyo", "America/New_York"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The process runs in this time zone."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.delenv("TZ")
    os.environ.pop("TZ", None)
    time.tzset()


@pytest.mark.parametrize(
    ("sentence", "value", "date", "expected"),
    [
        ("seconds", "120", None, 120),
        ("none", "0", None, 0),
        ("a date, against the answer's own", "Tue, 24 Nov 2026 15:02:00 GMT", SERVER_DATE, 120),
        ("a date, without one", "Tue, 24 Nov 2026 12:02:00 GMT", None, 120),
        ("a date in another zone", "Tue, 24 Nov 2026 21:02:00 +0900", None, 120),
        ("a date of RFC 850", "Tuesday, 24-Nov-26 12:02:00 GMT", None, 120),
        ("a date of asctime", "Tue Nov 24 12:02:00 2026", None, 120),
        ("a date that is past", "Tue, 24 Nov 2026 11:00:00 GMT", None, 0),
        ("a negative number", "-5", None, 0),
        ("more seconds than there are", "9" * 30, None, 3650 * 86400),
    ],
)  # fmt: skip
def test_retry_after_is_a_delay_in_every_time_zone(
    zone: str, sentence: str, value: str, date: str | None, expected: int
) -> None:
    """The library compares such dates with naive local time, and so busy-loops in Tokyo."""
    headers = {"Retry-After": value} | ({"Date": date} if date else {})
    assert retry_after(headers, NOW) == timedelta(seconds=expected)


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "soon"}, {"Retry-After": ""}])
def test_no_time_is_none(headers: dict[str, str]) -> None:
    """Then the policy's back-off decides."""
    assert retry_after(headers, NOW) is None


def test_the_time_the_ca_names_is_kept(zone: str) -> None:
    """Aware, in UTC, counted from now."""
    caught = error("newOrder", 429, problem("rateLimited"), Retry_After="3600")
    assert isinstance(caught, RetryableError)
    assert caught.retry_at == NOW + timedelta(hours=1)
    assert caught.retry_at.tzinfo is UTC
    unknown = error("newOrder", 429, problem("rateLimited"))
    assert isinstance(unknown, RetryableError)
    assert unknown.retry_at is None
