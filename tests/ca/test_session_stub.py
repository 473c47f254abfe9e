"""The session on a server that does what Pebble doesn't: trickle, babble, and break the rules."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from ca.stub import Handler, Reply, Stub, json_reply, problem
from certbaton.ca import net, transport
from certbaton.ca import session as session_module
from certbaton.ca.order import CertificateAuthority
from certbaton.ca.session import Directories, Session
from certbaton.errors import CaUnavailable, CertbatonError, ConfigurationError, RateLimited
from certbaton.model import ChallengeInfo, IssuerSpec, KeyType, Policy
from certbaton.pki import PrivateKey
from lab.process import free_ports

KEY = PrivateKey.generate(KeyType.EC_P256)
TOKEN = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0"


def connect(stub: Stub, timeout: float = 10, url: str | None = None) -> Session:
    spec = IssuerSpec("stub", f"{stub.url}/directory", timeout=timedelta(seconds=timeout))
    return Session(spec, KEY, url or f"{stub.url}/account/1")


def test_the_session_is_a_certificate_authority(stub: Stub) -> None:
    """What `order.advance` drives; mypy is the judge."""
    ca: CertificateAuthority = connect(stub)
    assert ca.new_account() == f"{stub.url}/account/1"


def test_it_says_who_it_is(stub: Stub) -> None:
    """RFC 8555 section 6.1 wants a User-Agent; CAs write to whom they see misbehave."""
    connect(stub).new_account()
    assert {each.agent for each in stub.requests} == {net.USER_AGENT}
    assert net.USER_AGENT.startswith("certbaton/")


def test_a_read_has_no_body_and_an_answer_has_an_empty_object(stub: Stub) -> None:
    """Section 6.3 and 7.5.1: the library sends both as the first, and nothing is validated."""
    ca = connect(stub)
    ca.order(f"{stub.url}/order")
    ca.answer(ChallengeInfo("http-01", f"{stub.url}/challenge", "a", TOKEN, "", "pending"))
    assert [each.payload for each in stub.requests if each.method == "POST"] == ["", "{}"]


def test_only_new_account_sends_the_key(stub: Stub) -> None:
    """Section 6.2: everything else is signed with the account's URL as kid."""
    ca = connect(stub)
    ca.new_account()
    ca.order(f"{stub.url}/order")
    first, second = (each.header for each in stub.requests if each.method == "POST")
    assert ("jwk" in first, "kid" in first) == (True, False)
    assert ("jwk" in second, second.get("kid")) == (False, f"{stub.url}/account/1")
    assert first["alg"] == "ES256"
    assert "d" not in first["jwk"]


def _drip_body(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    _drip(handler)


def _drip_headers(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Endless: ")
    _drip(handler)


def _drip(handler: Handler) -> None:
    for _ in range(200):
        handler.wfile.write(b"x")
        handler.wfile.flush()
        time.sleep(0.1)


def _silence(handler: Handler) -> None:
    time.sleep(20)
    handler.close_connection = True


@pytest.mark.parametrize("trickle", [_drip_body, _drip_headers, _silence])
def test_a_request_ends_however_slowly_its_answer_trickles(stub: Stub, trickle: Reply) -> None:
    """A byte every 0.1 s would keep the library's timeout of two seconds away for ever."""
    stub.reply("/order", trickle)
    ca = connect(stub, timeout=2)
    begin = time.monotonic()
    with pytest.raises(CaUnavailable, match="no answer to order"):
        ca.order(f"{stub.url}/order")
    assert 1.9 < time.monotonic() - begin < 12
    # The next request is on a new connection, and none the worse for it.
    assert ca.order(f"{stub.url}/order").url == f"{stub.url}/order"


def test_an_answer_is_bounded(stub: Stub) -> None:
    """A megabyte is a hundred times what a CA ever sends."""
    stub.reply("/order", lambda handler: handler.answer(200, b" " * (transport.MAX_ANSWER + 1)))
    with pytest.raises(CaUnavailable, match="more than 1048576 bytes"):
        connect(stub).order(f"{stub.url}/order")


def test_nobody_there_is_told_in_the_system_s_words() -> None:
    """Without the layers' own words around them."""
    (port,) = free_ports(1)
    ca = Session(IssuerSpec("s", f"http://127.0.0.1:{port}/directory"), KEY)
    with pytest.raises(CaUnavailable) as caught:
        ca.new_account()
    assert str(caught.value) == (
        f"no answer to directory from 127.0.0.1:{port}: [Errno 111] Connection refused"
    )


@pytest.mark.parametrize("directory", ["ca.example/directory", "gopher://ca.example/", "https://"])
def test_a_directory_that_is_no_url_is_the_operator_s_to_correct(directory: str) -> None:
    """Rather than tried again for ever."""
    with pytest.raises(ConfigurationError, match="not a URL"):
        Session(IssuerSpec("s", directory), KEY).new_account()


def test_a_proxy_s_page_keeps_its_retry_after(stub: Stub) -> None:
    """The library loses status and headers of every refusal."""
    stub.reply("/order", lambda handler: handler.answer(503, b"<html>", Retry_After="90"))
    with pytest.raises(CaUnavailable, match="HTTP 503") as caught:
        connect(stub).order(f"{stub.url}/order")
    _is_about(caught.value.retry_at, 90)


def test_a_rate_limit_keeps_its_time(stub: Stub) -> None:
    """As a date too."""
    date = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    stub.reply("/newOrder", problem(stub, 429, "rateLimited", Retry_After=date))
    with pytest.raises(RateLimited, match="its words") as caught:
        connect(stub).new_order(["a.example.com"])
    _is_about(caught.value.retry_at, 3600)


def _is_about(at: datetime | None, seconds: float) -> None:
    assert at is not None
    assert abs((at - datetime.now(UTC)).total_seconds() - seconds) < 5


def test_the_nonce_of_a_bad_nonce_is_used(stub: Stub) -> None:
    """Section 6.5; and twenty in a row are the end, as a trouble of the CA's."""
    url = f"{stub.url}/order"
    fresh = stub.nonce()
    stub.reply("/order", problem(stub, 400, "badNonce", Replay_Nonce=fresh))
    ca = connect(stub)
    ca.order(url)
    assert [each.method for each in stub.requests] == ["GET", "HEAD", "POST", "POST"]
    assert stub.requests[-1].header["nonce"] == fresh
    stub.reply("/order", *(problem(stub, 400, "badNonce") for _ in range(net.NONCE_TRIES)))
    with pytest.raises(CaUnavailable, match="badNonce"):
        ca.order(url)
    assert len(stub.requests) == 4 + net.NONCE_TRIES


def test_an_answer_without_a_nonce_is_an_answer(stub: Stub) -> None:
    """The action happened; the next request fetches a nonce."""
    url = f"{stub.url}/order"
    stub.reply("/order", lambda handler: handler.answer(200, b"{}"))
    ca = connect(stub)
    ca.order(url)
    ca.order(url)
    assert [each.method for each in stub.requests] == ["GET", "HEAD", "POST", "HEAD", "POST"]


def test_old_nonces_are_dropped(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CA has forgotten them: the request would be lost."""
    ca = connect(stub)
    ca.order(f"{stub.url}/order")
    ca.order(f"{stub.url}/order")
    assert sum(each.method == "HEAD" for each in stub.requests) == 1
    monkeypatch.setattr(net, "NONCE_IDLE", -1.0)
    ca.order(f"{stub.url}/order")
    assert sum(each.method == "HEAD" for each in stub.requests) == 2


def test_the_directory_is_fetched_late_once_and_again_when_it_is_old(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Junk in it is passed over: Let's Encrypt puts some there on purpose."""
    junk = stub.directory(meta=7, keyChange=None, aJkz0="https://community.letsencrypt.org")
    stub.reply("/directory", *([json_reply(stub, 200, junk)] * 2))
    ca = connect(stub)
    assert stub.requests == []
    ca.order(f"{stub.url}/order")
    ca.order(f"{stub.url}/order")
    assert sum(each.path == "/directory" for each in stub.requests) == 1
    monkeypatch.setattr(session_module, "DIRECTORY_AGE", -1.0)
    ca.order(f"{stub.url}/order")
    assert sum(each.path == "/directory" for each in stub.requests) > 1


def test_who_looks_daily_for_a_profile_sees_the_directory_of_that_day() -> None:
    """The look may come a fifth of a day early, and is not to find what was kept."""
    assert timedelta(seconds=session_module.DIRECTORY_AGE) < Policy().back_off[-1] * 0.8


def test_sessions_of_one_process_share_a_directory(stub: Stub) -> None:
    """Each thread has sessions of its own, and the CA is asked twice a day all the same."""
    spec = IssuerSpec("stub", f"{stub.url}/directory")
    shared: Directories = {}
    for _ in range(3):
        Session(spec, KEY, f"{stub.url}/account/1", directories=shared).order(f"{stub.url}/order")
    assert sum(each.path == "/directory" for each in stub.requests) == 1
    connect(stub).order(f"{stub.url}/order")
    assert sum(each.path == "/directory" for each in stub.requests) == 2


@pytest.mark.parametrize(
    ("reply", "expected", "words"),
    [
        (lambda handler: handler.answer(200, b"{}"), CaUnavailable, "has no newNonce"),
        (lambda handler: handler.answer(200, b"<html>"), CaUnavailable, "no JSON object"),
        (lambda handler: handler.answer(200, b"[]"), CaUnavailable, "no JSON object"),
        (lambda handler: handler.answer(404, b"<html>"), ConfigurationError, "HTTP 404"),
        (lambda handler: handler.answer(500, b""), CaUnavailable, "HTTP 500"),
    ],
)
def test_a_directory_that_is_none(
    stub: Stub, reply: Reply, expected: type[CertbatonError], words: str
) -> None:
    """An error of ours, in words."""
    stub.reply("/directory", reply)
    with pytest.raises(expected, match=words):
        connect(stub).order(f"{stub.url}/order")


def test_an_order_is_read_as_it_comes(stub: Stub) -> None:
    """A status nobody knows, nanoseconds, a Retry-After, an error, and junk."""
    body = {
        "status": "pondering",
        "expires": "2026-11-30T12:00:00.123456789+01:00",
        "authorizations": ["https://ca/1", "https://ca/2"],
        "finalize": "https://ca/finalize",
        "error": {"type": "urn:ietf:params:acme:error:caa", "detail": "forbidden"},
        "identifiers": [{"type": "smoke", "value": 1}],
        "extra": [],
    }
    stub.reply("/order", json_reply(stub, 200, body, Retry_After="3"))
    order = connect(stub).order(f"{stub.url}/order")
    assert order.status == "pondering"
    assert order.expires == datetime(2026, 11, 30, 11, 0, 0, 123456, tzinfo=UTC)
    assert order.authorizations == ("https://ca/1", "https://ca/2")
    assert order.certificate is None
    assert order.error == "forbidden (caa)"
    assert order.retry_after == timedelta(seconds=3)
    stub.reply("/order", json_reply(stub, 200, {"expires": "soon", "authorizations": 7}))
    odd = connect(stub).order(f"{stub.url}/order")
    assert (odd.status, odd.expires, odd.authorizations) == ("", None, ())


def test_an_authorization_is_read_as_it_comes(stub: Stub) -> None:
    """Unknown types are kept without a value, tokens that steer a path have none, and junk goes."""
    error = {"type": "urn:ietf:params:acme:error:dns", "detail": "NXDOMAIN"}
    body = {
        "status": "invalid",
        "identifier": {"type": "dns", "value": "WILD.Example.com"},
        "wildcard": True,
        "challenges": [
            {"type": "http-01", "url": "u1", "token": TOKEN, "status": "valid"},
            {"type": "dns-01", "url": "u2", "token": TOKEN, "status": "invalid", "error": error},
            {"type": "dns-persist-01", "url": "u3", "issuer-domain-names": ["ca.example"]},
            {"type": "http-01", "url": "u4", "token": "../../etc/passwd"},
            "junk",
        ],
    }
    stub.reply("/authz", json_reply(stub, 200, body))
    read = connect(stub).authorization(f"{stub.url}/authz")
    assert (read.name, read.wildcard, read.status) == ("wild.example.com", True, "invalid")
    assert read.error == "NXDOMAIN (dns)"
    http01, dns01, persist, evil = read.challenges
    token, _, thumbprint = http01.value.partition(".")
    assert (token, len(thumbprint)) == (TOKEN, 43)
    assert len(dns01.value) == 43
    assert (persist.type, persist.value, persist.status) == ("dns-persist-01", "", "pending")
    assert evil.value == ""
    stub.reply("/authz", json_reply(stub, 200, {"challenges": None}))
    assert connect(stub).authorization(f"{stub.url}/authz").challenges == ()


def test_a_refused_answer_is_dropped_but_trouble_is_not(stub: Stub) -> None:
    """Pebble says malformed and Boulder 409 to a second answer; a busy CA is another thing."""
    ca = connect(stub)
    challenge = ChallengeInfo("http-01", f"{stub.url}/chall", "a", TOKEN, "", "pending")
    stub.reply("/chall", problem(stub, 400, "malformed"), problem(stub, 409, "conflict"))
    ca.answer(challenge)
    ca.answer(challenge)
    stub.reply("/chall", problem(stub, 503, "serverInternal"))
    with pytest.raises(CaUnavailable):
        ca.answer(challenge)


def test_a_post_is_not_redirected(stub: Stub) -> None:
    """It would become an unsigned GET."""
    stub.reply("/order", lambda handler: handler.answer(302, b"", Location="/elsewhere"))
    with pytest.raises(CaUnavailable, match="HTTP 302"):
        connect(stub).order(f"{stub.url}/order")
    assert all(each.path != "/elsewhere" for each in stub.requests)


def test_an_account_comes_first(stub: Stub) -> None:
    """A mistake of the caller's, found before the CA hears of it."""
    ca = Session(IssuerSpec("s", f"{stub.url}/directory"), KEY)
    with pytest.raises(ValueError, match="newOrder needs an account"):
        ca.new_order(["a.example.com"])


def test_nothing_of_a_key_or_a_signed_request_is_logged(
    stub: Stub, caplog: pytest.LogCaptureFixture
) -> None:
    """Even where everything logs at DEBUG."""
    caplog.set_level(logging.DEBUG)
    ca = connect(stub)
    ca.new_account()
    ca.order(f"{stub.url}/order")
    text = caplog.text
    assert "JWS" not in text
    assert "signature" not in text
    assert not any(line in text for line in KEY.pem.splitlines()[1:-1])
