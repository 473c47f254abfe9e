"""
What the RFCs ask of a client, request by request, where no other test shows it.

docs/conformance.md is the table of all that is asked. The server believes every signature, so
that the test looks at what it got.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import ssl
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
from acme import jws as acme_jws
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ca.stub import Handler, Request, Stub, json_reply, problem
from certbaton import pki
from certbaton.ca.net import jwk_of
from certbaton.ca.problems import CsrRefused
from certbaton.ca.session import Session, thumbprint
from certbaton.config import parse
from certbaton.errors import CaUnavailable, ConfigurationError, PermanentError
from certbaton.model import ChallengeInfo, IssuerSpec, KeyType, OrderInfo
from certbaton.pki import PrivateKey
from fakes.x509 import hierarchy
from lab.certs import Authority

KEY = PrivateKey.generate(KeyType.EC_P256)
NAMES = ("shop.example", "www.shop.example")
CERTIFICATE_KEY = PrivateKey.generate(KeyType.RSA_2048)
# Its x begins with a zero octet.
ZERO = PrivateKey(ec.derive_private_key(379, ec.SECP256R1()))
BEGIN = datetime(2026, 11, 24, tzinfo=UTC)
CHAIN = hierarchy().sign(
    CERTIFICATE_KEY.unwrapped.public_key(),
    NAMES,
    BEGIN,
    BEGIN + timedelta(days=90),
    serial=0x87654321,
)
CHALLENGE = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0"

Call = Callable[[Session, str], object]


def _order(base: str) -> OrderInfo:
    return OrderInfo(f"{base}/order", "ready", (), f"{base}/finalize", None, None)


# Every request that is signed, by its path at the stub.
CALLS: dict[str, Call] = {
    "newAccount": lambda ca, base: ca.new_account(),
    "newOrder": lambda ca, base: ca.new_order(NAMES),
    "order": lambda ca, base: ca.order(f"{base}/order"),
    "authorization": lambda ca, base: ca.authorization(f"{base}/authorization"),
    "challenge": lambda ca, base: ca.answer(
        ChallengeInfo("http-01", f"{base}/challenge", NAMES[0], CHALLENGE, "", "pending")
    ),
    "finalize": lambda ca, base: ca.finalize(_order(base), pki.make_csr(CERTIFICATE_KEY, NAMES)),
    "certificate": lambda ca, base: ca.download(f"{base}/certificate"),
    "authz": lambda ca, base: ca.deactivate_authorization(f"{base}/authz"),
    "keyChange": lambda ca, base: ca.change_key(CERTIFICATE_KEY),
    "account/1": lambda ca, base: ca.deactivate_account(),
    "revokeCert": lambda ca, base: ca.revoke(CHAIN, "superseded"),
}
READS = ("order", "authorization", "certificate")


@pytest.fixture
def stub() -> Iterator[Stub]:
    server = Stub()
    more = {name: f"{server.url}/{name}" for name in ("keyChange", "revokeCert", "renewalInfo")}
    usual = server.directory

    server.directory = lambda **others: usual(**more, **others)  # type: ignore[method-assign]
    server.reply("/newOrder", json_reply(server, 201, {}, Location=f"{server.url}/order"))
    server.fallback = _chain
    yield server
    server.stop()


def _chain(handler: Handler) -> bool:
    if handler.path == "/certificate":
        handler.answer(200, CHAIN.encode(), Replay_Nonce=handler.stub.nonce())
    return handler.path == "/certificate"


def connect(stub: Stub) -> Session:
    spec = IssuerSpec("stub", f"{stub.url}/directory", email="ops@shop.example")
    return Session(spec, KEY, f"{stub.url}/account/1")


def signed(stub: Stub) -> Request:
    """The only signed request that came."""
    (request,) = (each for each in stub.requests if each.method == "POST")
    return request


def decoded(text: str) -> Any:
    assert "=" not in text
    return json.loads(_bytes(text))


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


@pytest.mark.parametrize("path", CALLS)
def test_every_post_is_a_flattened_jws_of_the_account(stub: Stub, path: str) -> None:
    """One signature, nothing outside of it, and in its header what sections 6.2 to 6.5 ask for."""
    CALLS[path](connect(stub), stub.url)
    request = signed(stub)
    assert request.path == f"/{path}"
    assert request.headers["content-type"] == "application/jose+json"
    assert set(request.jws) == {"protected", "payload", "signature"}
    assert not [value for value in request.jws.values() if not re.fullmatch(r"[\w-]*", value)]
    identity = "jwk" if path == "newAccount" else "kid"
    assert set(request.header) == {"alg", "nonce", "url", identity}
    assert request.header["alg"] == "ES256"
    assert request.header["url"] == f"{stub.url}/{path}"
    assert re.fullmatch(r"[\w-]+", request.header["nonce"])
    if identity == "kid":
        assert request.header["kid"] == f"{stub.url}/account/1"
    else:
        assert request.header["jwk"] == jwk_of(KEY).public_key().to_json()
    assert acme_jws.JWS.from_json(request.jws).verify(jwk_of(KEY).public_key())


@pytest.mark.parametrize("path", CALLS)
def test_what_is_read_is_asked_for_by_an_empty_payload(stub: Stub, path: str) -> None:
    """POST-as-GET of section 6.3: the empty text, where everything else sends an object."""
    CALLS[path](connect(stub), stub.url)
    if path in READS:
        assert signed(stub).jws["payload"] == ""
    else:
        assert isinstance(json.loads(signed(stub).payload), dict)


def test_every_request_says_who_asks_and_in_what_language(stub: Stub) -> None:
    """Section 6.1: our name, the HTTP library's, a language; and no nonce as a header (6.5.1)."""
    ca = connect(stub)
    ca.order(f"{stub.url}/order")
    assert [each.method for each in stub.requests] == ["GET", "HEAD", "POST"]
    for request in stub.requests:
        agent = rf"certbaton/\S+ requests/{re.escape(requests.__version__)}"
        assert re.fullmatch(agent, request.agent)
        assert request.headers["accept-language"].startswith("en")
        assert "replay-nonce" not in request.headers


def test_a_ca_under_tls_does_not_lead_out_of_it(stub: Stub, tmp_path: Path) -> None:
    """Section 6.1: neither by a URL of its directory or of an order, nor by a redirect."""
    authority = Authority(tmp_path, "ca")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("stub", hosts=("127.0.0.1",)))
    secure = Stub(context)
    try:
        spec = IssuerSpec("stub", f"{secure.url}/directory", str(authority.file))
        ca = Session(spec, KEY, f"{secure.url}/account/1")
        ca.order(f"{secure.url}/order")
        with pytest.raises(CaUnavailable, match=f"leads to {stub.url}/order, which is without"):
            ca.order(f"{stub.url}/order")
        secure.reply("/directory", json_reply(secure, 200, stub.directory()))
        with pytest.raises(CaUnavailable, match="without TLS"):
            Session(spec, KEY).new_account()
        elsewhere = partial(Handler.answer, status=302, body=b"", Location=f"{stub.url}/directory")
        secure.reply("/directory", elsewhere)
        with pytest.raises(CaUnavailable, match="without TLS"):
            Session(spec, KEY).new_account()
        assert stub.requests == []
    finally:
        secure.stop()


def test_a_url_is_signed_as_the_ca_wrote_it(stub: Stub) -> None:
    """Section 6.4: not what an HTTP library would make of it."""
    for url in (f"{stub.url}/a/../order/%7eA?x=%41&y", f"{stub.url}/order//1;v=2"):
        stub.requests.clear()
        connect(stub).order(url)
        assert signed(stub).header["url"] == url


@pytest.mark.parametrize("invalid", ["abc=", "a$bc", "a b", "a+b/", ""])
def test_a_nonce_that_is_no_base64url_is_ignored(stub: Stub, invalid: str) -> None:
    """Section 6.5.1: another one is fetched; the answer that it came with counts."""
    url = f"{stub.url}/order"
    stub.reply("/order", json_reply(stub, 200, {"status": "ready"}, Replay_Nonce=invalid))
    ca = connect(stub)
    assert ca.order(url).status == "ready"
    ca.order(url)
    assert [each.method for each in stub.requests] == ["GET", "HEAD", "POST", "HEAD", "POST"]


def test_a_certificate_s_own_key_goes_into_the_header(stub: Stub) -> None:
    """Sections 6.2 and 7.6: its jwk, which is the one that signed, and no kid."""
    connect(stub).revoke(CHAIN, "keyCompromise", CERTIFICATE_KEY)
    request = signed(stub)
    assert set(request.header) == {"alg", "nonce", "url", "jwk"}
    assert request.header["jwk"] == jwk_of(CERTIFICATE_KEY).public_key().to_json()
    assert acme_jws.JWS.from_json(request.jws).verify(jwk_of(CERTIFICATE_KEY).public_key())


@pytest.mark.parametrize(
    "address", ["a@shop.example?subject=hi", "a@shop.example,b@shop.example", "a@b@c", "mailto:a@b"]
)
def test_a_contact_is_one_address_and_nothing_more(address: str) -> None:
    """Section 7.3: neither header fields nor a second address."""
    issuers = {"le": {"directory": "https://ca.example/directory", "email": address}}
    with pytest.raises(ConfigurationError, match=r"issuers\.le\.email: .* is not one e-mail"):
        parse(json.dumps({"issuers": issuers}))


@pytest.mark.parametrize("token", ["abcd=", "a/b", "a.b", "a b", "ä", "", "a\n"])
def test_a_token_outside_the_alphabet_is_no_token(stub: Stub, token: str) -> None:
    """Sections 6.1 and 8.3: base64url without padding; anything else has no answer."""
    challenges = [{"type": kind, "url": "u", "token": token} for kind in ("http-01", "dns-01")]
    stub.reply("/authorization", json_reply(stub, 200, {"challenges": challenges}))
    read = connect(stub).authorization(f"{stub.url}/authorization")
    assert [each.value for each in read.challenges] == ["", ""]


@pytest.mark.parametrize("key", [ZERO, CERTIFICATE_KEY])
def test_a_thumbprint_is_made_of_the_public_numbers_alone(key: PrivateKey) -> None:
    """
    Section 8.1 with RFC 7638: SHA-256 of the required members, sorted and without a space.

    An RSA number has no leading zero octet, a coordinate keeps its own (RFC 7518 section 6.2.1.2).
    """
    public = key.unwrapped.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        number = public.public_numbers()
        text = f'{{"e":"AQAB","kty":"RSA","n":"{_encoded(number.n, 256)}"}}'
    else:
        point = public.public_numbers()
        assert point.x < 2**248
        x, y = _encoded(point.x, 32), _encoded(point.y, 32)
        text = f'{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}'
    assert _bytes(thumbprint(key)) == hashlib.sha256(text.encode()).digest()


def _encoded(number: int, size: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(size, "big")).decode().rstrip("=")


def test_the_request_goes_as_der_for_the_names_of_the_order(stub: Stub) -> None:
    """Section 7.4; IP addresses as such (RFC 8738)."""
    names = ("192.0.2.7", "2001:db8::1", "shop.example")
    csr = pki.make_csr(CERTIFICATE_KEY, names)
    ca = connect(stub)
    ca.new_order(names)
    asked = json.loads(signed(stub).payload)["identifiers"]
    assert asked == [
        {"type": "ip", "value": "192.0.2.7"},
        {"type": "ip", "value": "2001:db8::1"},
        {"type": "dns", "value": "shop.example"},
    ]
    stub.requests.clear()
    ca.finalize(_order(stub.url), csr)
    sent = x509.load_der_x509_csr(_bytes(json.loads(signed(stub).payload)["csr"]))
    san = sent.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = {str(each) for each in san.get_values_for_type(x509.IPAddress)}
    assert {*addresses, *san.get_values_for_type(x509.DNSName)} == set(names)


def test_the_account_s_key_is_in_no_request_for_a_certificate(stub: Stub) -> None:
    """Section 11.1: the CA hears nothing of it; a CSR that it refuses ends alike."""
    ca = connect(stub)
    with pytest.raises(CsrRefused, match="the account's own key"):
        ca.finalize(_order(stub.url), pki.make_csr(KEY, NAMES))
    assert stub.requests == []
    stub.reply("/finalize", problem(stub, 400, "badCSR"))
    stub.reply("/order", json_reply(stub, 200, {"status": "ready"}))
    with pytest.raises(CsrRefused, match="its words"):
        ca.finalize(_order(stub.url), pki.make_csr(CERTIFICATE_KEY, NAMES))


@pytest.mark.parametrize("what", ["PRIVATE KEY", "EC PARAMETERS", "TRUSTED CERTIFICATE"])
def test_a_chain_that_holds_anything_else_is_refused(stub: Stub, what: str) -> None:
    """Section 11.4: a server that reads key and chain from one file would take that key."""
    other = f"-----BEGIN {what}-----\nMIIB\n-----END {what}-----\n"
    for text in (CHAIN + other, other + CHAIN, CHAIN.rstrip("\n") + other):
        stub.reply("/certificate", partial(Handler.answer, status=200, body=text.encode()))
        with pytest.raises(PermanentError, match="more than certificates"):
            connect(stub).download(f"{stub.url}/certificate")
    stub.reply("/certificate", lambda handler: handler.answer(200, CHAIN.encode()))
    assert connect(stub).download(f"{stub.url}/certificate") == CHAIN


def test_a_certid_is_the_one_of_the_specification(stub: Stub) -> None:
    """RFC 9773 section 4.1 and its appendix; asked for by a GET that nobody signed (section 6)."""
    certid = pki.leaf_of(EXAMPLE).ari_id
    assert certid == "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"
    path = f"/renewalInfo/{certid}"
    window = {"start": "2026-12-01T00:00:00Z", "end": "2026-12-02T00:00:00Z"}
    stub.reply(path, json_reply(stub, 200, {"suggestedWindow": window}))
    connect(stub).renewal_info(certid)
    assert [(each.method, each.jws) for each in stub.requests if each.path == path] == [("GET", {})]


def test_what_is_replaced_is_named_in_the_order(stub: Stub) -> None:
    """RFC 9773 section 5; the end that is asked for, where one is, as RFC 3339 has it."""
    ca = connect(stub)
    at = datetime(2026, 12, 1, 12, tzinfo=UTC)
    ca.new_order(NAMES, replaces="aki.serial", not_after=at)
    payload = json.loads(signed(stub).payload)
    assert (payload["replaces"], payload["notAfter"]) == ("aki.serial", "2026-12-01T12:00:00Z")
    stub.requests.clear()
    stub.reply("/newOrder", json_reply(stub, 201, {}, Location=f"{stub.url}/order"))
    ca.new_order(NAMES)
    assert set(json.loads(signed(stub).payload)) == {"identifiers"}


# RFC 9773, appendix A.
EXAMPLE = """\
-----BEGIN CERTIFICATE-----
MIIBQzCB66ADAgECAgUAh2VDITAKBggqhkjOPQQDAjAVMRMwEQYDVQQDEwpFeGFt
cGxlIENBMCIYDzAwMDEwMTAxMDAwMDAwWhgPMDAwMTAxMDEwMDAwMDBaMBYxFDAS
BgNVBAMTC2V4YW1wbGUuY29tMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEeBZu
7cbpAYNXZLbbh8rNIzuOoqOOtmxA1v7cRm//AwyMwWxyHz4zfwmBhcSrf47NUAFf
qzLQ2PPQxdTXREYEnKMjMCEwHwYDVR0jBBgwFoAUaYhba4dGQEHhs3uEe6CuLN4B
yNQwCgYIKoZIzj0EAwIDRwAwRAIge09+S5TZAlw5tgtiVvuERV6cT4mfutXIlwTb
+FYN/8oCIClDsqBklhB9KAelFiYt9+6FDj3z4KGVelYM5MdsO3pK
-----END CERTIFICATE-----
"""
