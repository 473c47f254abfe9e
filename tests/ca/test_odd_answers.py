"""Answers on the edge of what is allowed, and beyond: an error of ours in words, or passed over."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ca.one_order import CHAIN, Ca
from ca.stub import Reply, Stub, json_reply, problem
from certbaton.ca.order import Issued, Unfinished
from certbaton.ca.problems import read_problem, retry_after
from certbaton.ca.session import Session
from certbaton.errors import CaUnavailable, PermanentError
from certbaton.model import IssuerSpec, KeyType
from certbaton.pki import PrivateKey

KEY = PrivateKey.generate(KeyType.EC_P256)
# Neither has a moment in UTC.
EDGES = ("9999-12-31T23:59:59-01:00", "0001-01-01T00:00:00+01:00")
NESTED = b"[" * 100_000


def connect(stub: Stub) -> Session:
    spec = IssuerSpec("stub", f"{stub.url}/directory")
    return Session(spec, KEY, f"{stub.url}/account/1")


@pytest.mark.parametrize("edge", EDGES)
def test_a_time_that_no_clock_shows_is_not_known(stub: Stub, edge: str) -> None:
    """In an order it is passed over, in renewal information it makes no sense."""
    stub.reply("/order", json_reply(stub, 200, {"status": "ready", "expires": edge}))
    assert connect(stub).order(f"{stub.url}/order").expires is None
    directory = stub.directory(renewalInfo=f"{stub.url}/renewal")
    stub.reply("/directory", json_reply(stub, 200, directory))
    window = {"start": edge, "end": "2026-12-01T00:00:00Z"}
    stub.reply("/renewal/a.b", json_reply(stub, 200, {"suggestedWindow": window}))
    with pytest.raises(PermanentError, match="no window that makes sense"):
        connect(stub).renewal_info("a.b")


def test_a_date_that_no_clock_shows_is_no_retry_after() -> None:
    """Then our own back-off decides."""
    headers = {"Retry-After": "Fri, 31 Dec 9999 23:59:59 -0100"}
    assert retry_after(headers, datetime(2026, 11, 24, tzinfo=UTC)) is None


def test_what_is_nested_without_end_is_no_json(stub: Stub) -> None:
    """Be it an answer or a refusal."""
    stub.reply("/order", lambda handler: handler.answer(200, NESTED, Replay_Nonce=stub.nonce()))
    with pytest.raises(CaUnavailable, match="no JSON object"):
        connect(stub).order(f"{stub.url}/order")
    assert read_problem(400, {}, NESTED, datetime(2026, 11, 24, tzinfo=UTC)).type == ""


def test_words_of_a_ca_are_one_bounded_line_wherever_they_stand(stub: Stub) -> None:
    """They get into messages, and these into Journals: half a character would not be written."""
    long = "\ud800\n" + "x" * 100_000
    challenge = {"type": long, "status": long, "token": "t"}
    name = {"type": "dns", "value": long}
    body = {"status": long, "identifier": name, "challenges": [challenge]}
    stub.reply("/odd", *([json_reply(stub, 200, body)] * 2))
    order = connect(stub).order(f"{stub.url}/odd")
    read = connect(stub).authorization(f"{stub.url}/odd")
    shown = (read.challenges[0].type, read.challenges[0].status, read.name, read.status)
    for words in (*shown, order.status):
        assert len(words) < 2000
        assert words.isprintable()


@pytest.mark.parametrize(
    "url",
    ["http://[::1/", "http://a b/", "http://127.0.0.1:99999/", "http://\ud800/", "http://.a/", "a"],
)
def test_a_url_of_the_ca_that_is_none_is_told(stub: Stub, url: str) -> None:
    """And no proxy is blamed for it, where none is configured."""
    with pytest.raises(CaUnavailable, match="URL that can be asked"):
        connect(stub).order(url)


@pytest.mark.parametrize("to", ["http://[::1", "ftp://ca.example/directory"])
def test_a_redirect_to_what_is_no_url_is_told(stub: Stub, to: str) -> None:
    """As what it is."""
    stub.reply("/directory", json_reply(stub, 301, {}, Location=to))
    with pytest.raises(CaUnavailable, match="nor one that leads to such, at 127"):
        connect(stub).directory()


def test_an_order_at_what_is_no_url_is_told(stub: Stub) -> None:
    """It is asked for again, as where there was no Location at all."""
    stub.reply("/newOrder", json_reply(stub, 201, {}, Location="http://[::1"))
    with pytest.raises(CaUnavailable, match="leads to no URL"):
        connect(stub).new_order(("a.example",))


@pytest.mark.parametrize("status", [404, 410])
def test_a_nonce_that_is_not_to_be_had_says_nothing_of_the_order(stub: Stub, status: int) -> None:
    """It is the CA that is in trouble: an order that may be signed by now is not gone."""
    stub.reply("/newNonce", problem(stub, status, "malformed"))
    with pytest.raises(CaUnavailable, match="refused newNonce"):
        connect(stub).order(f"{stub.url}/order")


def page(body: bytes) -> Reply:
    return lambda handler: handler.answer(200, body, Replay_Nonce="bm9uY2U")


BROKEN = {
    "a proxy's page": b"<html>be patient</html>",
    "nothing": b"",
    "the first half of one": CHAIN[: len(CHAIN) // 2],
    "one, and the first half of another": CHAIN + CHAIN[: len(CHAIN) // 2],
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=list(BROKEN))
def test_a_chain_that_did_not_arrive_is_asked_for_again(stub: Stub, body: bytes) -> None:
    """It was signed: what came instead is not taken for it, and no other one is ordered."""
    ca = Ca(stub)
    ca.order("valid")
    stub.reply("/certificate", *([page(body)] * 2))
    assert ca.advance() == Issued(CHAIN.decode(), f"{stub.url}/certificate")
    stub.reply("/certificate", *([page(body)] * 99))
    assert isinstance(ca.advance(), Unfinished)
