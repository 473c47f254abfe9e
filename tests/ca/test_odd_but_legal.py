"""What CAs may write that is JSON, or even legal, and still odd: nothing of it breaks a turn."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ca.one_order import Ca
from ca.stub import Handler, Reply, Stub, json_reply
from certbaton.ca.order import Failed
from certbaton.ca.problems import read_problem, retry_after
from certbaton.ca.session import Session
from certbaton.errors import PermanentError
from certbaton.model import IssuerSpec, KeyType
from certbaton.pki import PrivateKey

NOW = datetime(2026, 11, 25, tzinfo=UTC)
KEY = PrivateKey.generate(KeyType.EC_P256)
NESTED = b"[" * 100_000
FIRST, LAST = "0001-01-01T00:00:00+10:00", "9999-12-31T23:59:59-10:00"
A_DAY = {"start": "2026-11-25T00:00:00Z", "end": "2026-11-26T00:00:00Z"}


def connect(stub: Stub) -> Session:
    body = stub.directory(renewalInfo=f"{stub.url}/renewal-info")
    stub.reply("/directory", json_reply(stub, 200, body))
    return Session(IssuerSpec("stub", f"{stub.url}/directory"), KEY, f"{stub.url}/account/1")


def raw(stub: Stub, body: bytes) -> Reply:
    def answer(handler: Handler) -> None:
        handler.answer(200, body, Replay_Nonce=stub.nonce())

    return answer


NO_WINDOW: dict[str, bytes] = {
    "before all time in UTC": json.dumps(
        {"suggestedWindow": {"start": FIRST, "end": A_DAY["end"]}}
    ).encode(),
    "after all time in UTC": json.dumps(
        {"suggestedWindow": {"start": A_DAY["start"], "end": LAST}}
    ).encode(),
    "numbers": b'{"suggestedWindow": {"start": 1, "end": 1e300}}',
    "lists": b'{"suggestedWindow": {"start": [], "end": {}}}',
    "another type": b'{"suggestedWindow": "tomorrow"}',
    "no end": b'{"suggestedWindow": {"start": "2026-11-25T00:00:00Z"}}',
    "without a zone": b'{"suggestedWindow": {"start": "2026-11-25", "end": "2026-11-26"}}',
    "nested without end": NESTED,
    "a number without end": b'{"suggestedWindow": ' + b"9" * 5000 + b"}",
    "bytes": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("body", NO_WINDOW.values(), ids=NO_WINDOW)
def test_renewal_information_that_makes_no_sense_is_a_refusal(stub: Stub, body: bytes) -> None:
    """An error of ours, in words: so it is noted, and the time rule counts."""
    ca = connect(stub)
    stub.reply("/renewal-info/aki.serial", raw(stub, body))
    with pytest.raises(PermanentError, match=r"no window that makes sense|no JSON object"):
        ca.renewal_info("aki.serial")


@pytest.mark.parametrize(
    "page",
    [
        ["https://ca.example/why"],
        "javascript:alert(1)",
        "https://ca.example/\n\x1b[31mred",
        "https://ca.example/" + "x" * 1_000_000,
    ],
    ids=["a list", "no page", "control characters", "a megabyte"],
)
def test_an_explanation_that_is_no_page_is_left_out(stub: Stub, page: object) -> None:
    """The window counts all the same; "t" and "z" may be small letters (RFC 3339)."""
    window = {edge: at.lower() for edge, at in A_DAY.items()}
    body: dict[str, Any] = {"suggestedWindow": window, "explanationURL": page}
    ca = connect(stub)
    stub.reply("/renewal-info/aki.serial", raw(stub, json.dumps(body).encode()[: 1 << 20]))
    found = ca.renewal_info("aki.serial")
    assert (found.start, found.end) == (NOW, NOW + timedelta(days=1))
    assert found.explanation_url is None


@pytest.mark.parametrize(
    "headers",
    [
        {"Retry-After": "Fri, 31 Dec 9999 23:59:59 -2359"},
        {"Retry-After": "9" * 5000},
        {"Retry-After": "Wed, 25 Nov 2026 00:10:00 +9999"},
    ],
    ids=["after all time in UTC", "no number", "no zone"],
)
def test_a_retry_after_that_names_no_time_is_none(headers: dict[str, str]) -> None:
    """Then the policy's back-off decides."""
    assert retry_after(headers, NOW) is None


def test_a_date_that_names_no_time_is_not_counted_from() -> None:
    """Our own clock stands in."""
    headers = {
        "Retry-After": "Wed, 25 Nov 2026 00:10:00 GMT",
        "Date": "Fri, 31 Dec 9999 23:59:59 -2359",
    }
    assert retry_after(headers, NOW) == timedelta(minutes=10)


def test_what_is_said_of_very_many_names_is_bounded(stub: Stub) -> None:
    """It is written into a Journal, and what that could not take would be tried at once again."""
    sub = {"type": "urn:ietf:params:acme:error:caa", "detail": "x" * 900}
    body = {"type": "urn:ietf:params:acme:error:compound", "subproblems": [sub] * 1000}
    told = str(read_problem(403, {}, json.dumps(body).encode(), NOW))
    assert len(told) < 51_000
    assert told.endswith(" … (compound, HTTP 403)")
    names = [f"{number}.example.com" for number in range(100)]
    ca = Ca(stub, names)
    for name in names:
        ca.authorizations[name] = ca.authorization("invalid", error=sub | {"subproblems": [sub]})
    ca.order("invalid")
    outcome = ca.advance()
    assert isinstance(outcome, Failed)
    assert len(outcome.message) < 51_000
    assert outcome.names == tuple(sorted(names))
    assert "; to do: let the CAA records" in outcome.message
