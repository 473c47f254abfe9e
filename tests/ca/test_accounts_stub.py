"""Accounts, as they are signed for: external ones, key changes, and what a CA says against them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from josepy.jwk import JWK

from ca.stub import Stub, json_reply, problem
from certbaton.ca import net, zerossl
from certbaton.ca.net import jwk_of
from certbaton.ca.session import Session
from certbaton.errors import (
    AccountMissing,
    AccountRefused,
    CaUnavailable,
    CertbatonError,
    ConfigurationError,
    ExternalAccountRequired,
    PermanentError,
    RateLimited,
)
from certbaton.model import ExternalAccountKey, ExternalAccountSpec, IssuerSpec, KeyType
from certbaton.pki import PrivateKey

KEY = PrivateKey.generate(KeyType.EC_P256)
MAC = b"a secret of thirty-two bytes ..."
HMAC_KEY = base64.urlsafe_b64encode(MAC).decode().rstrip("=")


def connect(stub: Stub, key: PrivateKey = KEY, url: str | None = None) -> Session:
    return Session(IssuerSpec("stub", f"{stub.url}/directory"), key, url)


def wants_external(stub: Stub, times: int = 1) -> None:
    body = stub.directory(meta={"externalAccountRequired": True})
    stub.reply("/directory", *(json_reply(stub, 200, body) for _ in range(times)))


def payloads(stub: Stub, path: str) -> list[dict[str, Any]]:
    return [json.loads(each.payload) for each in stub.requests if each.path == path]


def decoded(text: str) -> Any:
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


@pytest.mark.parametrize("written", [HMAC_KEY, HMAC_KEY + "=", f" {HMAC_KEY}\n"])
@pytest.mark.parametrize("key_type", [KeyType.EC_P256, KeyType.EC_P384, KeyType.RSA_2048])
def test_the_binding_is_signed_with_the_hmac_key(
    stub: Stub, key_type: KeyType, written: str
) -> None:
    """Section 7.3.4: HS256 over the account's public key, for newAccount's URL, without a nonce."""
    wants_external(stub)
    key = PrivateKey.generate(key_type)
    stub.reply("/newAccount", problem(stub, 400, "accountDoesNotExist"))
    connect(stub, key).new_account(ExternalAccountKey("kid-7", written))
    binding = payloads(stub, "/newAccount")[-1]["externalAccountBinding"]
    assert decoded(binding["protected"]) == {
        "alg": "HS256",
        "kid": "kid-7",
        "url": f"{stub.url}/newAccount",
    }
    public = decoded(binding["payload"])
    assert JWK.from_json(public) == jwk_of(key).public_key()
    assert "d" not in public
    signed = f"{binding['protected']}.{binding['payload']}".encode()
    signature = base64.urlsafe_b64encode(hmac.digest(MAC, signed, hashlib.sha256)).decode()
    assert binding["signature"] == signature.rstrip("=")


@pytest.mark.parametrize(("kid", "hmac_key"), [("k", "not base64url!"), ("k", ""), (" ", HMAC_KEY)])
def test_an_external_account_that_is_none_is_told_without_it(
    stub: Stub, kid: str, hmac_key: str
) -> None:
    """The library would pass over the bad characters; the CA would speak of a signature."""
    stub.reply("/newAccount", problem(stub, 400, "accountDoesNotExist"))
    with pytest.raises(ConfigurationError, match=r"kid.*hmacKey") as caught:
        connect(stub).new_account(ExternalAccountKey(kid, hmac_key))
    assert hmac_key not in str(caught.value) or not hmac_key
    assert "a secret" not in repr(ExternalAccountKey("kid", "a secret"))


def test_an_account_that_is_there_uses_no_external_account_up(stub: Stub) -> None:
    """Google's are good for one account: where newAccount's answer was lost, it is looked for."""
    wants_external(stub)
    assert connect(stub).new_account(ExternalAccountKey("kid-7", HMAC_KEY)) == (
        f"{stub.url}/account/1"
    )
    assert payloads(stub, "/newAccount") == [{"onlyReturnExisting": True}]


def test_a_ca_that_wants_an_external_account_is_told_in_one_sentence(stub: Stub) -> None:
    """By its directory, before it is asked for an account; an account that is there needs none."""
    wants_external(stub, 2)
    stub.reply("/newAccount", problem(stub, 400, "accountDoesNotExist"))
    with pytest.raises(ConfigurationError, match="name the Secret that holds them in stub's") as it:
        connect(stub).new_account()
    assert type(it.value) is ExternalAccountRequired
    assert isinstance(it.value, AccountRefused)
    assert payloads(stub, "/newAccount") == [{"onlyReturnExisting": True}]
    assert connect(stub).new_account() == f"{stub.url}/account/1"


def test_an_account_is_asked_for_with_consent_and_an_address(stub: Stub) -> None:
    """Section 7.3; nothing is looked for where no external account plays a part."""
    spec = IssuerSpec("stub", f"{stub.url}/directory", email="ops@example.com")
    Session(spec, KEY).new_account()
    assert payloads(stub, "/newAccount") == [
        {"termsOfServiceAgreed": True, "contact": ["mailto:ops@example.com"]}
    ]


@pytest.mark.parametrize("old_type", [KeyType.EC_P256, KeyType.RSA_2048])
def test_a_key_change_is_signed_by_both_keys(stub: Stub, old_type: KeyType) -> None:
    """Section 7.3.5: the new key signs the account and the old key, the old one all of it."""
    body = stub.directory(keyChange=f"{stub.url}/keyChange")
    stub.reply("/directory", json_reply(stub, 200, body))
    old, new = PrivateKey.generate(old_type), PrivateKey.generate(KeyType.EC_P384)
    account = f"{stub.url}/account/1"
    connect(stub, old, account).change_key(new)
    (request,) = [each for each in stub.requests if each.path == "/keyChange"]
    assert request.header["kid"] == account
    inner = json.loads(request.payload)
    header = decoded(inner["protected"])
    assert (header["alg"], header["url"]) == ("ES384", f"{stub.url}/keyChange")
    assert JWK.from_json(header["jwk"]) == jwk_of(new).public_key()
    assert set(header) == {"alg", "url", "jwk"}
    payload = decoded(inner["payload"])
    assert payload["account"] == account
    assert JWK.from_json(payload["oldKey"]) == jwk_of(old).public_key()
    assert "d" not in payload["oldKey"]
    assert "d" not in header["jwk"]


@pytest.mark.parametrize("what", ["change_key", "renewal_info"])
def test_what_a_ca_does_not_offer_is_told(stub: Stub, what: str) -> None:
    """ZeroSSL changes no keys; others have no renewal information."""
    ca = connect(stub, url=f"{stub.url}/account/1")
    with pytest.raises(PermanentError, match=r"has no (keyChange|renewalInfo)"):
        getattr(ca, what)(KEY if what == "change_key" else "aki.serial")


def test_new_terms_say_where_to_agree(stub: Stub) -> None:
    """Section 7.3.3, with the Link that comes with it."""
    link = f'<{stub.url}/directory>;rel="index", <https://ca.example/terms>;rel="terms-of-service"'
    stub.reply("/newOrder", problem(stub, 403, "userActionRequired", Link=link))
    ca = connect(stub, url=f"{stub.url}/account/1")
    with pytest.raises(AccountRefused, match=r"open https://ca\.example/terms, and agree"):
        ca.new_order(["a.example.com"])


def test_a_deactivated_account_is_reported(stub: Stub) -> None:
    """In any request, and never taken for a missing one."""
    ca = connect(stub, url=f"{stub.url}/account/1")
    stub.reply("/order", problem(stub, 403, "unauthorized"))
    with pytest.raises(AccountRefused, match="account show") as caught:
        ca.order(f"{stub.url}/order")
    assert not isinstance(caught.value, AccountMissing)
    stub.reply("/newAccount", problem(stub, 403, "unauthorized"))
    with pytest.raises(AccountRefused):
        ca.find_account()


# --- ZeroSSL's external accounts ---------------------------------------------------------


def zero(stub: Stub, email: str | None = "ops@example.com") -> IssuerSpec:
    external = ExternalAccountSpec(api=f"{stub.url}/eab")
    return IssuerSpec(
        "zerossl",
        f"{stub.url}/directory",
        email=email,
        external_account=external,
        timeout=timedelta(seconds=5),
    )


GIVEN = {"success": True, "eab_kid": "kid-9", "eab_hmac_key": HMAC_KEY}


def test_an_e_mail_address_gives_an_external_account(stub: Stub) -> None:
    """One form, to the API that the issuer names, as a browser would send it."""
    stub.reply("/eab", json_reply(stub, 200, GIVEN))
    found = zerossl.external_account(zero(stub))
    assert (found.kid, found.hmac_key) == ("kid-9", HMAC_KEY)
    (request,) = stub.requests
    assert (request.method, request.payload) == ("POST", "email=ops%40example.com")
    assert request.agent == net.USER_AGENT


def test_without_an_e_mail_address_the_operator_is_asked_for_one(stub: Stub) -> None:
    """Before anybody else is."""
    with pytest.raises(ConfigurationError, match="set email"):
        zerossl.external_account(zero(stub, email=None))
    assert stub.requests == []


@pytest.mark.parametrize(
    ("status", "body", "expected", "words"),
    [
        (200, {"success": False, "error": {"code": 2800, "type": "invalid_email"}},
         AccountRefused, "invalid_email 2800"),
        (200, {"success": False}, AccountRefused, "does not say why"),
        (200, GIVEN | {"eab_kid": None}, AccountRefused, "does not say why"),
        (200, GIVEN | {"success": "no"}, AccountRefused, "does not say why"),
        (200, [HMAC_KEY], CaUnavailable, "no JSON object"),
        (500, GIVEN, CaUnavailable, "HTTP 500"),
        (403, GIVEN, CaUnavailable, "HTTP 403"),
        (429, {}, RateLimited, "HTTP 429"),
    ],
)  # fmt: skip
def test_an_api_that_gives_none(
    stub: Stub, status: int, body: object, expected: type[CertbatonError], words: str
) -> None:
    """Its words where it has some, and never a key that may stand beside them."""
    stub.reply("/eab", json_reply(stub, status, body, Retry_After="60"))
    with pytest.raises(expected, match=words) as caught:
        zerossl.external_account(zero(stub))
    assert HMAC_KEY not in str(caught.value)
    if isinstance(caught.value, RateLimited):
        assert caught.value.retry_at is not None
        assert caught.value.retry_at > datetime.now(UTC)


def test_the_api_s_answer_is_bounded(stub: Stub) -> None:
    """As every other is."""
    stub.reply("/eab", lambda handler: handler.answer(200, b" " * (1024 * 1024 + 1)))
    with pytest.raises(CaUnavailable, match="more than 1048576 bytes"):
        zerossl.external_account(zero(stub))
