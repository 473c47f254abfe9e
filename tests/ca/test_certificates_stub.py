"""Chains to choose from, renewal information and revocation, on a server that says anything."""

from __future__ import annotations

import base64
import json
import logging
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from cryptography import x509

from ca.stub import Handler, Reply, Stub, json_reply, problem
from certbaton.ca import transport
from certbaton.ca.session import REVOCATION_REASONS, Session
from certbaton.errors import CaUnavailable, CertbatonError, PermanentError, RateLimited
from certbaton.model import IssuerSpec, KeyType
from certbaton.pki import PrivateKey, normalise_chain
from fakes.x509 import hierarchy

KEY = PrivateKey.generate(KeyType.EC_P256)
NOW = datetime.now(UTC)


def chain(name: str) -> str:
    """A chain whose top was issued by "<name> root"."""
    public_key = KEY.unwrapped.public_key()
    return hierarchy(name).sign(public_key, ["a.example.com"], NOW, NOW + timedelta(days=1))


DEFAULT, SHORT, LONG = chain("Default"), chain("Short"), chain("Long")


def connect(stub: Stub, preferred: str | None = None, **resources: object) -> Session:
    stub.reply("/directory", json_reply(stub, 200, stub.directory(**resources)))
    spec = IssuerSpec("stub", f"{stub.url}/directory", preferred_chain=preferred)
    return Session(spec, KEY, f"{stub.url}/account/1")


def served(stub: Stub, chain: str, *alternates: str) -> Reply:
    """A certificate's answer, with ``Link`` headers as Boulder sends them: one for each."""

    def reply(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Link", f'<{stub.url}/directory>;rel="index"')
        for alternate in alternates:
            handler.send_header("Link", f'<{alternate}>;rel="alternate"')
        handler.send_header("Replay-Nonce", stub.nonce())
        handler.send_header("Content-Length", str(len(chain)))
        handler.end_headers()
        handler.wfile.write(chain.encode())

    return reply


def asked(stub: Stub) -> list[str]:
    return [each.path for each in stub.requests if each.method == "POST"]


def test_without_a_wish_the_ca_s_own_chain_is_taken(stub: Stub) -> None:
    """In one request, whatever else there is."""
    stub.reply("/cert", served(stub, DEFAULT, f"{stub.url}/cert/1"))
    assert connect(stub).download(f"{stub.url}/cert") == DEFAULT
    assert asked(stub) == ["/cert"]


def test_a_default_chain_that_is_wanted_costs_no_request(stub: Stub) -> None:
    """Its top names the root already."""
    stub.reply("/cert", served(stub, DEFAULT, f"{stub.url}/cert/1"))
    assert connect(stub, "Default root").download(f"{stub.url}/cert") == DEFAULT
    assert asked(stub) == ["/cert"]


def test_the_chain_with_the_wanted_root_is_taken(stub: Stub) -> None:
    """Section 7.4.2: all alternates are links of one answer, full or relative; the rest stays."""
    stub.reply("/cert", served(stub, DEFAULT, f"{stub.url}/cert/1", "/cert/2", "/cert/3"))
    stub.reply("/cert/1", served(stub, SHORT))
    stub.reply("/cert/2", served(stub, LONG))
    assert connect(stub, "Long root").download(f"{stub.url}/cert") == LONG
    assert asked(stub) == ["/cert", "/cert/1", "/cert/2"]


def test_a_chain_that_is_not_there_is_told_and_the_default_one_taken(
    stub: Stub, caplog: pytest.LogCaptureFixture
) -> None:
    """A certificate is worth more than a chain: neither a 404, a 500 nor rubbish stops it."""
    links = [f"{stub.url}/cert/{number}" for number in range(1, 5)]
    stub.reply("/cert", served(stub, DEFAULT, *links))
    stub.reply("/cert/1", served(stub, SHORT))
    stub.reply("/cert/2", problem(stub, 404, "malformed"))
    stub.reply("/cert/3", problem(stub, 500, "serverInternal"))
    stub.reply("/cert/4", served(stub, "no certificate"))
    with caplog.at_level(logging.WARNING):
        assert connect(stub, "Long root").download(f"{stub.url}/cert") == DEFAULT
    (record,) = caplog.records
    told = record.getMessage()
    assert "stub has no chain up to 'Long root'" in told
    assert "Default root, Short root" in told
    assert "HTTP 404" in told
    assert "BEGIN" not in told


def test_alternates_without_end_are_not_followed(stub: Stub) -> None:
    """Ten are more than any CA has."""
    links = [f"{stub.url}/cert/{number}" for number in range(40)]
    stub.reply("/cert", served(stub, DEFAULT, *links))
    connect(stub, "Long root").download(f"{stub.url}/cert")
    assert len(asked(stub)) == 11


def test_a_first_chain_that_is_rubbish_is_handed_on(stub: Stub) -> None:
    """What came is looked at before it is stored, and there it is told."""
    rubbish = "-----BEGIN CERTIFICATE-----\nrubbish\n-----END CERTIFICATE-----\n"
    stub.reply("/cert", served(stub, rubbish))
    assert connect(stub, "Long root").download(f"{stub.url}/cert") == rubbish
    with pytest.raises(PermanentError):
        normalise_chain(rubbish)


# --- renewal information -----------------------------------------------------------------

WINDOW = {"start": "2026-12-01T00:00:00Z", "end": "2026-12-02T01:00:00+01:00"}


def with_renewal(stub: Stub) -> Session:
    return connect(stub, renewalInfo=f"{stub.url}/ari/")


def test_a_window_is_read_as_it_comes(stub: Stub) -> None:
    """Aware, in UTC; the request is a plain GET, without an account."""
    body = {"suggestedWindow": WINDOW, "explanationURL": "https://ca.example/why", "new": 1}
    stub.reply("/ari/aki.serial", json_reply(stub, 200, body, Retry_After="21600"))
    answer = with_renewal(stub).renewal_info("aki.serial")
    assert answer.start == datetime(2026, 12, 1, tzinfo=UTC)
    assert answer.end == datetime(2026, 12, 2, tzinfo=UTC)
    assert answer.explanation_url == "https://ca.example/why"
    assert answer.retry_after == timedelta(hours=6)
    assert [each.method for each in stub.requests] == ["GET", "GET"]


def test_when_to_ask_again_may_be_a_date(stub: Stub) -> None:
    """In any zone, against the answer's own Date."""
    at = datetime.now(UTC) + timedelta(hours=2)
    date = format_datetime(at.astimezone(UTC), usegmt=True)
    stub.reply("/ari/i", json_reply(stub, 200, {"suggestedWindow": WINDOW}, Retry_After=date))
    delay = with_renewal(stub).renewal_info("i").retry_after
    assert delay is not None
    assert abs(delay - timedelta(hours=2)) < timedelta(seconds=5)


@pytest.mark.parametrize(
    "url", [None, 7, "", "javascript:alert(1)", "https://ca/\nEvil: 1", "https://ca/" + "x" * 3000]
)
def test_only_a_page_is_shown_as_an_explanation(stub: Stub, url: object) -> None:
    """It stands in logs and Events."""
    body = {"suggestedWindow": WINDOW, "explanationURL": url}
    stub.reply("/ari/i", json_reply(stub, 200, body))
    assert with_renewal(stub).renewal_info("i").explanation_url is None


@pytest.mark.parametrize(
    ("sentence", "body"),
    [
        ("nothing of it", {}),
        ("no object", []),
        ("a window that is none", {"suggestedWindow": "soon"}),
        ("half a window", {"suggestedWindow": {"start": WINDOW["start"]}}),
        ("times that are none", {"suggestedWindow": {"start": "soon", "end": "later"}}),
        ("a time without a zone", {"suggestedWindow": WINDOW | {"start": "2026-12-01T00:00:00"}}),
        ("an end before its start",
            {"suggestedWindow": {"start": WINDOW["end"], "end": WINDOW["start"]}}),
        ("an end at its start",
            {"suggestedWindow": {"start": WINDOW["start"], "end": WINDOW["start"]}}),
    ],
)  # fmt: skip
def test_an_answer_without_sense_is_a_lasting_trouble(
    stub: Stub, sentence: str, body: object
) -> None:
    """RFC 9773 section 4.3: as though there were none. It is no outage of the CA's."""
    stub.reply("/ari/i", json_reply(stub, 200, body))
    with pytest.raises(PermanentError):
        with_renewal(stub).renewal_info("i")


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (lambda handler: handler.answer(200, b"<html>"), PermanentError),
        (lambda handler: handler.answer(404, b""), PermanentError),
        (lambda handler: handler.answer(400, b'{"type": "malformed"}'), PermanentError),
        (lambda handler: handler.answer(503, b"", Retry_After="90"), CaUnavailable),
        (lambda handler: handler.answer(429, b"", Retry_After="90"), RateLimited),
        (lambda handler: handler.answer(200, b" " * (transport.MAX_ANSWER + 1)), CaUnavailable),
    ],
)
def test_no_answer_is_lasting_or_passing(
    stub: Stub, reply: Reply, expected: type[CertbatonError]
) -> None:
    """Which decides when it is asked again."""
    stub.reply("/ari/i", reply)
    with pytest.raises(expected):
        with_renewal(stub).renewal_info("i")


# --- revocation --------------------------------------------------------------------------


@pytest.mark.parametrize("reason", list(REVOCATION_REASONS))
@pytest.mark.parametrize("by_itself", [False, True])
def test_a_revocation_is_signed_by_the_account_or_by_the_certificate_s_key(
    stub: Stub, reason: str, by_itself: bool
) -> None:
    """Section 7.6: the leaf as DER, RFC 5280's number, and kid or jwk."""
    key = PrivateKey.generate(KeyType.RSA_2048) if by_itself else None
    connect(stub, revokeCert=f"{stub.url}/revoke").revoke(DEFAULT, reason, key)
    (request,) = [each for each in stub.requests if each.path == "/revoke"]
    payload: dict[str, Any] = json.loads(request.payload)
    der = base64.urlsafe_b64decode(payload["certificate"] + "==")
    assert x509.load_der_x509_certificate(der) == x509.load_pem_x509_certificate(DEFAULT.encode())
    assert payload["reason"] == {
        "unspecified": 0,
        "keyCompromise": 1,
        "superseded": 4,
        "cessationOfOperation": 5,
    }[reason]  # fmt: skip
    assert ("jwk" in request.header, "kid" in request.header) == (by_itself, not by_itself)
    assert request.header["alg"] == ("RS256" if by_itself else "ES256")


def test_what_was_revoked_before_is_revoked(stub: Stub) -> None:
    """Any other refusal is told, with what to do."""
    ca = connect(stub, revokeCert=f"{stub.url}/revoke")
    stub.reply("/revoke", problem(stub, 400, "alreadyRevoked"))
    ca.revoke(DEFAULT, "superseded")
    stub.reply("/revoke", problem(stub, 403, "unauthorized"))
    with pytest.raises(PermanentError, match="with-certificate-key"):
        ca.revoke(DEFAULT, "superseded")
    stub.reply("/revoke", problem(stub, 400, "badRevocationReason"))
    with pytest.raises(PermanentError, match="another --reason"):
        ca.revoke(DEFAULT, "superseded")
