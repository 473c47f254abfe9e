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
    AlreadyRevoked,
    CsrRefused,
    NameRefused,
    OrderNotReady,
    ReplacesRefused,
    ResourceGone,
    ServerError,
    advised,
    describe,
    error_for,
    kind_of,
    kind_of_problem,
    links,
    read_error,
    read_problem,
    retry_after,
)
from certbaton.errors import (
    AccountMissing,
    AccountRefused,
    CaaForbids,
    CaUnavailable,
    CertbatonError,
    ConfigurationError,
    ExternalAccountRequired,
    PermanentError,
    ProfileRefused,
    RateLimited,
    RetryableError,
)
from certbaton.model import FailureKind

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
SERVER_DATE = "Tue, 24 Nov 2026 15:00:00 GMT"
PAUSED = (
    "Your account is temporarily prevented from requesting certificates for a.example.com. "
    "Please visit: https://portal.example/sfe/v1/unpause?jwt=a.b.c"
)
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
        ("a paused account", "newOrder", 429, problem("rateLimited", PAUSED), RateLimited),
        ("a failure inside", "finalize", 500, problem("serverInternal"), ServerError),
        ("a failure of tomorrow", "finalize", 500, problem("somethingNew"), ServerError),
        ("a proxy's page", "newOrder", 502, b"<html>bad gateway</html>", ServerError),
        ("a filter's page", "newOrder", 403, b"<html>forbidden</html>", CaUnavailable),
        ("a redirect of a POST", "newOrder", 302, b"", CaUnavailable),
        ("a request that came too slowly", "order", 408, problem("malformed"), PermanentError),
        ("the same of a proxy", "order", 408, None, CaUnavailable),
        ("nothing but stale nonces", "order", 400, problem("badNonce"), CaUnavailable),
        ("a forgotten account", "newOrder", 400, problem("accountDoesNotExist"), AccountMissing),
        ("no such account", "findAccount", 400, problem("accountDoesNotExist"), AccountMissing),
        ("a deactivated account", "newOrder", 403, problem("unauthorized"), AccountRefused),
        ("the same, looked for", "findAccount", 403, problem("unauthorized"), AccountRefused),
        ("a used external account", "newAccount", 403, problem("unauthorized"), AccountRefused),
        ("new terms", "newOrder", 403, problem("userActionRequired"), AccountRefused),
        ("EAB needed", "newAccount", 403, problem("externalAccountRequired"),
            ExternalAccountRequired),
        ("a bad e-mail address", "newAccount", 400, problem("invalidContact"), ConfigurationError),
        ("an odd one", "newAccount", 400, problem("unsupportedContact"), ConfigurationError),
        ("a weak account key", "newAccount", 400, problem("badPublicKey"), ConfigurationError),
        ("another curve", "newAccount", 400, problem("badSignatureAlgorithm"), ConfigurationError),
        ("a key that is in use", "keyChange", 409, problem("malformed"), PermanentError),
        ("an unknown profile", "newOrder", 400, problem("invalidProfile"), ProfileRefused),
        ("a replaced predecessor", "newOrder", 409, problem("alreadyReplaced"), ReplacesRefused),
        ("the same, otherwise", "newOrder", 409, problem("conflict"), ReplacesRefused),
        ("a forbidden name", "newOrder", 400, problem("rejectedIdentifier"), NameRefused),
        ("an odd kind of name", "newOrder", 400, problem("unsupportedIdentifier"), NameRefused),
        ("CAA", "newOrder", 403, problem("caa"), CaaForbids),
        ("several at once", "newOrder", 400, SEVERAL, CaaForbids),
        ("several of nothing", "newOrder", 400, problem("compound"), PermanentError),
        ("a type of tomorrow", "newOrder", 400, problem("somethingNew"), PermanentError),
        ("a foreign CSR", "finalize", 403, problem("unauthorized"), PermanentError),
        ("a hopeless CSR", "finalize", 400, problem("badCSR"), CsrRefused),
        ("a hopeless key", "finalize", 400, problem("badPublicKey"), CsrRefused),
        ("a second finalize", "finalize", 403, problem("orderNotReady"), OrderNotReady),
        ("a second answer, Pebble", "challenge", 400, problem("malformed"), PermanentError),
        ("a second answer, Boulder", "challenge", 409, problem("conflict"), PermanentError),
        ("revoked before", "revokeCert", 400, problem("alreadyRevoked"), AlreadyRevoked),
        ("an odd reason", "revokeCert", 400, problem("badRevocationReason"), PermanentError),
        ("a foreign certificate", "revokeCert", 403, problem("unauthorized"), PermanentError),
        ("an order that is gone, Boulder", "order", 404, problem("malformed"), ResourceGone),
        ("an order that is gone, Pebble", "order", 404, b"", ResourceGone),
        ("an authorization that is gone", "authorization", 404, None, ResourceGone),
        ("a certificate that is gone", "certificate", 410, None, ResourceGone),
        ("a wrong directory", "directory", 404, b"not found", ConfigurationError),
        ("an unknown certificate", "renewalInfo", 404, problem("malformed"), PermanentError),
        ("an array where an object belongs", "order", 400, [1], CaUnavailable),
    ],
)  # fmt: skip
def test_a_refusal_is_an_answer_to_what_now(
    sentence: str, request_name: str, status: int, body: object, expected: type[CertbatonError]
) -> None:
    """Exactly this class, since a subclass would be another answer."""
    assert type(error(request_name, status, body)) is expected


def test_the_message_holds_the_ca_s_words_for_each_name() -> None:
    """On one line, junk passed over; and then what a person should do."""
    told, todo = str(error("newOrder", 400, SEVERAL)).split("; to do: ")
    assert told == (
        "the CA refused newOrder: Some names were refused; a.example.com: CAA forbids it (caa); "
        "b: is not a name (compound, HTTP 400)"
    )
    assert todo.startswith("let the CAA records of the name allow this CA")


def test_where_nobody_need_do_anything_nothing_is_asked() -> None:
    """A rate limit passes by itself."""
    told = str(error("newOrder", 429, problem("rateLimited")))
    assert told == "the CA refused newOrder: the CA's words (rateLimited, HTTP 429)"


def test_a_paused_account_is_told_from_a_limit() -> None:
    """It has no time, and a page: somebody must go there. A limit names a page, and a time."""
    told = str(error("newOrder", 429, problem("rateLimited", PAUSED)))
    assert "lift the pause" in told
    assert "https://portal.example/sfe/v1/unpause?jwt=a.b.c" in told
    assert "lift the" not in str(error("newOrder", 429, problem("rateLimited", PAUSED),
                                       Retry_After="60"))  # fmt: skip


@pytest.mark.parametrize("names", [1, 20, 40], ids=["one name", "its page cut", "names cut"])
def test_the_page_where_a_pause_is_lifted_is_whole(names: int) -> None:
    """Let's Encrypt names all paused names, and puts them into its token as well."""
    paused = ", ".join(f"{number:02}.some.customer.example.com" for number in range(names))
    page = f"https://portal.example/unpause?jwt={'x' * 40 * names}"
    detail = f"prevented from requesting certificates for {paused}. Please visit: {page}"
    told = str(error("newOrder", 429, problem("rateLimited", detail)))
    assert f" {page} (rateLimited, HTTP 429); to do: open the page" in told
    assert told.count("https://") == 1
    assert len(told) < 1300 + len(page)


def test_new_terms_name_their_page() -> None:
    """Section 7.3.3: the instance is where to go, the Link where the terms are."""
    links = (
        '<https://ca.example/dir>;rel="index", <https://ca.example/terms-9>;rel="terms-of-service"'
    )
    told = str(error("newOrder", 403, problem("userActionRequired"), Link=links))
    assert told.endswith("to do: open https://ca.example/terms-9, and agree there")
    body = problem("userActionRequired") | {"instance": "https://ca.example/agree/7"}
    told = str(error("newOrder", 403, body, Link=links))
    assert told.endswith(
        "open https://ca.example/agree/7, and agree there; the terms of service are at "
        "https://ca.example/terms-9"
    )
    evil = problem("userActionRequired") | {"instance": "javascript:alert(1)"}
    assert "javascript" not in str(error("newOrder", 403, evil))


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        (AccountRefused, FailureKind.ACCOUNT),
        (ExternalAccountRequired, FailureKind.ACCOUNT),
        (ProfileRefused, FailureKind.PROFILE),
        (CaaForbids, FailureKind.CAA),
        (RateLimited, FailureKind.LIMIT),
        (ServerError, FailureKind.OUTAGE),
        (AccountMissing, FailureKind.OTHER),
        (NameRefused, FailureKind.OTHER),
        (PermanentError, FailureKind.OTHER),
        (ConfigurationError, FailureKind.OTHER),
    ],
)
def test_the_journal_s_kind_of_failure(what: type[CertbatonError], kind: FailureKind) -> None:
    """It decides whether another CA is asked at once, or a rehearsal comes first."""
    assert kind_of(what("words")) is kind


@pytest.mark.parametrize(
    ("request_name", "type_", "kind"),
    [
        ("validation", "connection", FailureKind.VALIDATION),
        ("validation", "dns", FailureKind.VALIDATION),
        ("validation", "incorrectResponse", FailureKind.VALIDATION),
        ("validation", "unauthorized", FailureKind.VALIDATION),
        ("validation", "tls", FailureKind.VALIDATION),
        ("validation", "malformed", FailureKind.VALIDATION),
        ("validation", "", FailureKind.VALIDATION),
        ("validation", "caa", FailureKind.CAA),
        ("validation", "serverInternal", FailureKind.OTHER),
        ("validation", "rejectedIdentifier", FailureKind.OTHER),
        ("issuance", "caa", FailureKind.CAA),
        ("issuance", "unauthorized", FailureKind.OTHER),
        ("issuance", "serverInternal", FailureKind.OTHER),
        ("issuance", "badCSR", FailureKind.OTHER),
        ("issuance", "", FailureKind.OTHER),
    ],
)
def test_a_problem_inside_of_an_answer_has_a_kind_too(
    request_name: str, type_: str, kind: FailureKind
) -> None:
    """What a challenge says is rehearsed; what an order says isn't, and CAA is somebody's."""
    assert kind_of_problem(request_name, type_) is kind


def test_advice_is_given_once_for_each_kind() -> None:
    """Ten names that don't resolve are one thing to do."""
    told = advised("the CA's words", "validation", "dns", "dns", "serverInternal", "connection")
    assert told.count("; to do: ") == 1
    assert told.count("see that the name resolves") == 1
    assert "see that the CA gets through" in told
    assert advised("the CA's words", "validation", "serverInternal") == "the CA's words"


def test_a_page_is_not_repeated() -> None:
    """Who reads the message wants to know that a proxy spoke, not its HTML."""
    told = str(error("order", 502, b"<html>bad gateway</html>"))
    assert told == "the CA refused order: (no problem document, HTTP 502)"
    told = str(error("order", 403, b"<html>forbidden</html>"))
    assert "html" not in told
    assert told.endswith("see which proxy or filter answers in the CA's place")


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


def test_of_several_types_one_counts() -> None:
    """An order's compound error is of the kind that a person must look at."""
    found = read_error(SEVERAL)
    assert found is not None
    assert found.type == "caa"
    assert read_error({"detail": "words"}).type == "unknown"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", []),
        ('<https://ca/1>;rel="alternate"', ["https://ca/1"]),
        ('</1>; rel=alternate, <https://ca/up>;rel="up", </2>;rel="alternate"', ["/1", "/2"]),
        ("junk;;;, <", []),
        ('<https://ca/1>;title="alternate"', []),
        ('<https://ca/1>; title=";rel=alternate"', []),
        ('<https://ca/1;v=2>;REL="Alternate"', ["https://ca/1;v=2"]),
        ('<https://ca/1>; title="a=b, c"; rel="alternate"', ["https://ca/1"]),
        ('<>;rel="alternate"', []),
    ],
)
def test_links_are_found_by_their_relation(header: str, expected: list[str]) -> None:
    """All of one relation: a dictionary of them would keep the last."""
    assert links({"Link": header}, "alternate") == expected


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
