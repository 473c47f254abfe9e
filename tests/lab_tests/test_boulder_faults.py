"""Faults on demand: what the client gets of them, and that it issues once in the end."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Literal

import pytest
import requests

from ca.pebble_world import Answers
from certbaton.ca.order import Failed, Issued, Unfinished
from certbaton.errors import (
    AccountMissing,
    AccountRefused,
    CaaForbids,
    CaUnavailable,
    CertbatonError,
    PermanentError,
    RateLimited,
    RetryableError,
)
from certbaton.model import FailureKind
from lab.boulder import TERMS, UNPAUSE, After, Boulder
from lab_tests.boulder_world import Client, cert_id, refused

pytestmark = pytest.mark.servers

# Everything that an issuance asks for.
ASKED = ("newOrder", "authorization", "challenge", "order", "finalize", "certificate")


@pytest.fixture
def client(boulder: Boulder, answers: Answers) -> Client:
    return Client(boulder, answers)


@pytest.fixture(params=["Asia/Tokyo", "America/New_York"])
def zone(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = request.param
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


def due_in(error: CertbatonError) -> float:
    """Seconds until the moment that the CA named."""
    assert isinstance(error, RetryableError)
    assert error.retry_at is not None
    return (error.retry_at - datetime.now(UTC)).total_seconds()


@pytest.mark.parametrize(
    ("kind", "status"), [(kind, 503) for kind in ASKED] + [("finalize", 500), ("newOrder", 502)]
)
def test_a_server_error_in_any_request(
    boulder: Boulder, client: Client, kind: str, status: int
) -> None:
    """Three in a row, with a front end's page: the CA is away, and one certificate comes of it."""
    rule = boulder.answer(kind, status, page=b"<html>Bad</html>", times=3)
    name = f"{kind}{status}.example.com".lower()
    client.settle(name)
    assert rule.hits == 3
    assert len(boulder.finalized) == len(boulder.orders()) == 1


@pytest.mark.parametrize("kind", ASKED)
def test_a_rate_limit_in_any_request_is_obeyed_in_full(
    boulder: Boulder, client: Client, kind: str
) -> None:
    """A day, in seconds: RateLimited with that moment, and Pebble never asked."""
    boulder.answer(kind, 429, "rateLimited", "slow down", retry_after=86400)
    name = f"limited-{kind}.example.com".lower()
    order = None if kind == "newOrder" else client.order(name)
    error = refused(lambda: client.advance(order, name) if order else client.order(name))
    assert isinstance(error, RateLimited)
    assert "slow down (rateLimited, HTTP 429)" in str(error)
    assert 86390 < due_in(error) <= 86400
    (seen,) = [each for each in boulder.seen(kind) if each.status == 429]
    assert not seen.reached_pebble
    client.settle(name, order=order)
    assert len(boulder.finalized) == 1


@pytest.mark.parametrize("hours", [0, 9, -5])
def test_a_date_to_wait_for_in_every_zone(
    zone: None, boulder: Boulder, client: Client, hours: int
) -> None:
    """Its own zone and this machine's play no part; nor does a CA's clock that is off."""
    wait = After(86400, timezone(timedelta(hours=hours)) if hours else UTC)
    for off in (0, 7, -7):
        boulder.date_off = timedelta(hours=off)
        boulder.answer("newOrder", 503, retry_after=wait)
        error = refused(lambda: client.order("zone.example.com"))
        assert isinstance(error, CaUnavailable)
        assert 86380 < due_in(error) < 86420


def test_a_clock_that_is_off_by_hours_hurts_nobody(boulder: Boulder, client: Client) -> None:
    """In every answer of an issuance, ahead and behind."""
    for off in (-30, 30):
        boulder.date_off = timedelta(hours=off)
        asked = requests.get(boulder.directory, verify=boulder.ca_bundle, timeout=10)
        told = parsedate_to_datetime(asked.headers["Date"])
        assert abs(told - datetime.now(UTC) - boulder.date_off) < timedelta(seconds=10)
        client.issue(f"off{abs(off)}-{off < 0}.example.com".lower())


@pytest.mark.parametrize("kind", ASKED)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_connection_is_cut(
    boulder: Boulder, client: Client, kind: str, when: Literal["before", "after"]
) -> None:
    """Before and after Pebble has done it: in the end one certificate, and no order but one."""
    rule = boulder.cut(kind, when, times=2)
    name = f"{when}-{kind}.example.com".lower()
    client.settle(name)
    assert rule.hits in (1, 2)
    lost = [each for each in boulder.seen(kind) if each.status == 0]
    assert [each.reached_pebble for each in lost] == [when == "after"] * rule.hits
    assert len(boulder.finalized) == len(boulder.orders()) == 1


def test_a_lost_answer_to_finalize_is_no_second_certificate(
    boulder: Boulder, client: Client
) -> None:
    """The order is asked for where it stands."""
    before = boulder.certificates_issued()
    boulder.cut("finalize", "after")
    name = "lost-finalize.example.com"
    order = client.order(name)
    assert isinstance(refused(lambda: client.advance(order, name)), CaUnavailable)
    assert isinstance(client.advance(order, name), Issued)
    assert boulder.counts()["finalize"] == 1
    assert boulder.certificates_issued() == before + 1


@pytest.mark.parametrize("kind", ["newAccount", *ASKED])
def test_bad_nonces_in_a_row_are_of_no_account(
    boulder: Boulder, answers: Answers, kind: str
) -> None:
    """Ten: tried again at once with the nonce that came, and no HEAD for another."""
    rule = boulder.bad_nonce(kind, times=10)
    client = Client(boulder, answers)
    client.issue(f"nonce-{kind}.example.com".lower())
    assert rule.hits == 10
    assert boulder.counts()["newNonce"] == 1


def test_bad_nonces_for_ever_are_an_outage(boulder: Boulder, client: Client) -> None:
    """The request gives up, and says so."""
    rule = boulder.bad_nonce("newOrder", times=None)
    error = refused(lambda: client.order("forever.example.com"))
    assert isinstance(error, CaUnavailable)
    assert "badNonce" in str(error)
    rule.stop()
    client.issue("forever.example.com")


@pytest.mark.parametrize("kind", ["order", "certificate", "newOrder"])
def test_an_answer_of_more_than_a_mebibyte_is_not_read(
    boulder: Boulder, client: Client, kind: str
) -> None:
    """The CA is broken, as far as one can tell; afterwards all is well."""
    name = f"large-{kind}.example.com".lower()
    boulder.rewrite(kind, pad=1024 * 1024)
    order = None if kind == "newOrder" else client.order(name)
    error = refused(lambda: client.advance(order, name) if order else client.order(name))
    assert isinstance(error, CaUnavailable)
    assert "more than 1048576 bytes" in str(error)
    client.settle(name, order=order)
    assert len(boulder.finalized) == 1


def test_a_slow_answer_ends_at_the_deadline(boulder: Boulder, answers: Answers) -> None:
    """However steadily it trickles."""
    client = Client(boulder, answers, timeout=timedelta(seconds=3))
    rule = boulder.rewrite("newOrder", trickle=0.1)
    begun = time.monotonic()
    assert isinstance(refused(lambda: client.order("slow.example.com")), CaUnavailable)
    assert time.monotonic() - begun < 20
    assert rule.hits == 1
    client.settle("slow.example.com")
    assert len(boulder.orders()) == 1


def test_new_terms_are_a_persons_to_agree_to(boulder: Boulder, client: Client) -> None:
    """In any request; refused with the CA's words and the terms' address, and nothing lost."""
    name = "terms.example.com"
    order = client.order(name)
    rule = boulder.change_terms()
    error = refused(lambda: client.advance(order, name))
    assert isinstance(error, AccountRefused)
    assert "userActionRequired" in str(error)
    assert TERMS in str(error)
    rule.stop()
    assert isinstance(client.advance(order, name), Issued)


def test_a_paused_name_has_no_time_but_an_address(boulder: Boulder, client: Client) -> None:
    """Limited without a moment; other names go on."""
    rule = boulder.pause("paused.example.com")
    error = refused(lambda: client.order("paused.example.com", "www.example.com"))
    assert isinstance(error, RateLimited)
    assert error.retry_at is None
    assert UNPAUSE in str(error)
    client.issue("www.example.com")
    assert not boulder.limits_hit
    rule.stop()
    client.issue("paused.example.com")


@pytest.mark.parametrize("kind", ["caa", "dns", "connection", "unauthorized"])
def test_a_refused_name_fails_its_order(boulder: Boulder, client: Client, kind: str) -> None:
    """Named with the CA's words; the other name of the order is not, and the next order works."""
    bad, good = f"{kind}.example.com", f"good-{kind}.example.com"
    boulder.refuse(bad, kind, "its words", times=1)
    order = client.order(bad, good)
    outcome = client.advance(order, bad, good)
    assert isinstance(outcome, Failed)
    assert outcome.names == (bad,)
    assert (outcome.kind is FailureKind.CAA) == (kind == "caa")
    assert f"{bad}: its words ({kind})" in outcome.message
    assert client.session.order(order.url).status == "invalid"
    client.issue(bad, good)
    assert len(boulder.finalized) == 1


def test_caa_found_only_when_finalizing(boulder: Boulder, client: Client) -> None:
    """Looked up again for an old authorization: an error per name, while the order stays ready."""
    name = "caa-late.example.com"
    sub = {
        "type": "urn:ietf:params:acme:error:caa",
        "detail": "CAA forbids it",
        "identifier": {"type": "dns", "value": name},
    }
    boulder.answer("finalize", 403, "caa", "Error finalizing order", subproblems=[sub])
    order = client.order(name)
    error = refused(lambda: client.advance(order, name))
    assert f"Error finalizing order; {name}: CAA forbids it" in str(error)
    assert isinstance(error, CaaForbids)
    assert isinstance(client.advance(order, name), Issued)


def test_a_conflict_without_a_type_of_its_own(boulder: Boulder, client: Client) -> None:
    """409 to a newOrder: not the CA's outage; the same call works afterwards."""
    boulder.answer("newOrder", 409, "conflict", "try again")
    error = refused(lambda: client.order("conflict.example.com"))
    assert isinstance(error, PermanentError)
    assert "try again (conflict, HTTP 409)" in str(error)
    client.issue("conflict.example.com")


def test_an_account_that_is_forgotten(boulder: Boulder, client: Client, answers: Answers) -> None:
    """accountDoesNotExist in one account's requests only."""
    boulder.answer("*", 400, "accountDoesNotExist", "unknown", times=None, account=client.account)
    assert isinstance(refused(lambda: client.order("forgotten.example.com")), AccountMissing)
    Client(boulder, answers).issue("another-account.example.com")
    boulder.calm()
    client.issue("forgotten.example.com")


@pytest.mark.parametrize("window", ["past", "future"])
def test_renewal_information_is_what_the_lab_says(
    boulder: Boulder, client: Client, window: str
) -> None:
    """With its explanation and Retry-After, in seconds or as a date."""
    ari_id = cert_id(client.issue(f"{window}.example.com").chain)
    own = client.session.renewal_info(ari_id)
    assert own.retry_after == timedelta(seconds=21600)
    boulder.advise(window, retry_after=After(600), explanation="https://ca.test/why")
    answer = client.session.renewal_info(ari_id)
    now = datetime.now(UTC)
    assert answer.end < now if window == "past" else answer.start > now + timedelta(days=29)
    assert answer.explanation_url == "https://ca.test/why"
    assert answer.retry_after == timedelta(seconds=600)
    boulder.advise(retry_after=86400)
    changed = client.session.renewal_info(ari_id)
    assert changed.retry_after == timedelta(days=1)
    assert (changed.start, changed.end) == (own.start, own.end)


@pytest.mark.parametrize("window", ["reversed", "malformed", "empty", "absent"])
def test_renewal_information_that_makes_no_sense(
    boulder: Boulder, client: Client, window: str
) -> None:
    """An error, and the renewal itself is none the worse for it, `replaces` or not."""
    name = f"{window}.example.com"
    ari_id = cert_id(client.issue(name).chain)
    boulder.advise(window)
    assert isinstance(
        refused(lambda: client.session.renewal_info(ari_id)), PermanentError | CaUnavailable
    )
    client.issue(name, replaces=ari_id)
    assert len(boulder.finalized) == 2


def test_renewal_information_of_an_exact_window(boulder: Boulder, client: Client) -> None:
    """Start and end as they were given; a CertID that Pebble doesn't know is 404 all the same."""
    ari_id = cert_id(client.issue("exact.example.com").chain)
    start = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=3)
    boulder.advise((start, start + timedelta(hours=1)))
    answer = client.session.renewal_info(ari_id)
    assert (answer.start, answer.end) == (start, start + timedelta(hours=1))
    unknown = ari_id.partition(".")[0] + ".AAAA"
    assert isinstance(refused(lambda: client.session.renewal_info(unknown)), PermanentError)
    boulder.answer("renewalInfo", 503, retry_after=After(60))
    assert 58 < due_in(refused(lambda: client.session.renewal_info(ari_id))) <= 61


def test_a_day_asked_for_on_a_poll_rests_in_the_journal(boulder: Boulder, client: Client) -> None:
    """ZeroSSL's 86400 on a processing order: ten minutes, and the next look finds it issued."""
    boulder.ways.processing = timedelta(seconds=1)
    name = "day.example.com"
    order = client.order(name)
    boulder.rewrite("finalize", retry_after=86400)
    outcome = client.advance(order, name)
    assert isinstance(outcome, Unfinished)
    assert "processing" in outcome.what
    assert outcome.retry_after == timedelta(minutes=10)
    assert isinstance(client.advance(order, name), Issued)


def test_one_request_in_a_row_and_one_name(boulder: Boulder, client: Client) -> None:
    """*skip* lets requests by, *name* restricts a fault; `calm` ends all of them."""
    third = boulder.answer("newOrder", 503, skip=2)
    client.order("s1.example.com")
    client.order("s2.example.com")
    assert isinstance(refused(lambda: client.order("s3.example.com")), CaUnavailable)
    assert third.hits == 1
    boulder.answer("*", 503, name="sick.example.com", times=None)
    client.issue("well.example.com")
    assert isinstance(refused(lambda: client.order("sick.example.com")), CaUnavailable)
    boulder.calm()
    client.issue("sick.example.com")


def test_a_header_more_and_one_less(boulder: Boulder, client: Client) -> None:
    """An answer without a nonce is an answer: the next request fetches one."""
    boulder.rewrite("newOrder", headers={"Replay-Nonce": None})
    before = boulder.counts()["newNonce"]
    client.issue("nononce.example.com")
    assert boulder.counts()["newNonce"] == before + 1


def test_an_answer_with_other_content(boulder: Boulder, client: Client) -> None:
    """A status that nobody knows is waited out; a page in place of JSON is an outage."""
    name = "edited.example.com"
    boulder.rewrite("order", lambda document: document.update(status="thinking"), times=2)
    client.issue(name)
    boulder.rewrite("newOrder", body=b"<html>ok</html>")
    assert isinstance(refused(lambda: client.order(f"b.{name}")), CaUnavailable)
