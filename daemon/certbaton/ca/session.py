"""
A conversation with one CA on one account: RFC 8555 as a handful of calls.

Each call is one request (and a directory or nonce where none is at hand), and
answers in the words of ``model``. It tolerates what CAs really send: status
strings and challenge types that nobody knows, junk in the directory, names in
upper case and in any order. It never waits and never tries again: ``order``
drives it, and the next tick tries again.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urljoin

import requests
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certbaton.ca.net import Net, Refused, jwk_of
from certbaton.ca.problems import OrderNotReady, describe, error_for, retry_after
from certbaton.errors import AccountMissing, CaUnavailable, PermanentError
from certbaton.model import AuthorizationInfo, ChallengeInfo, IssuerSpec, OrderInfo
from certbaton.pki import PrivateKey

DIRECTORY_AGE: Final = 24 * 3600.0
_NEEDED: Final = ("newNonce", "newAccount", "newOrder")
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]+")  # section 8.3: base64url, nothing that steers a path


class Session:
    """
    One account at one CA, for **one thread**: nonces and connections are not shared.

    *account_url* is None until ``new_account`` or ``find_account`` was called, or what they
    answered before. The directory is fetched at the first call, and again daily. Any call may
    raise CaUnavailable, RateLimited (``retry_at`` aware, UTC), AccountMissing, PermanentError or
    ConfigurationError, by the table in ``problems``.
    """

    def __init__(
        self, issuer: IssuerSpec, account_key: PrivateKey, account_url: str | None = None
    ) -> None:
        self._issuer = issuer
        self._net = Net(
            account_key, account_url, ca_bundle=issuer.ca_bundle, timeout=issuer.timeout
        )
        self._thumbprint = thumbprint(account_key)
        self._directory: Mapping[str, str] = {}
        self._directory_at = 0.0

    @property
    def account_url(self) -> str | None:
        """The account's URL, the ``kid`` of every request; None until it is known."""
        return self._net.account_url

    def new_account(self) -> str:
        """
        Make the account of this key, or find it if there is one; its URL (section 7.3).

        Agrees to the terms of service; the issuer's e-mail address is sent if there is one.
        """
        payload: dict[str, object] = {"termsOfServiceAgreed": True}
        if self._issuer.email:
            payload["contact"] = [f"mailto:{self._issuer.email}"]
        return self._account("newAccount", payload)

    def find_account(self) -> str:
        """The URL of this key's account; AccountMissing, and none is made (section 7.3.1)."""
        return self._account("findAccount", {"onlyReturnExisting": True})

    def new_order(self, names: Sequence[str], profile: str | None = None) -> OrderInfo:
        """
        Order a certificate for *names* (section 7.4).

        The CA may hand back an order that is open already, of this account and these names.
        *profile* must be one that the directory lists; None lets the CA choose.
        """
        payload: dict[str, object] = {
            "identifiers": [{"type": "dns", "value": name} for name in names]
        }
        if profile:
            payload["profile"] = profile
        response = self._post("newOrder", self._resource("newOrder"), payload)
        return _order(_location(response, "newOrder"), response)

    def order(self, url: str) -> OrderInfo:
        """The order as it stands; ResourceGone once the CA has dropped it."""
        return _order(url, self._post("order", url, None))

    def authorization(self, url: str) -> AuthorizationInfo:
        """One authorization with its challenges; ResourceGone once the CA has dropped it."""
        document = _object(self._post("authorization", url, None), "authorization")
        identifier = document.get("identifier")
        value = identifier.get("value") if isinstance(identifier, Mapping) else None
        name = str(value or "").lower()
        offered = document.get("challenges")
        challenges = [
            self._challenge(challenge, name.removeprefix("*."))
            for challenge in (offered if isinstance(offered, list) else ())
            if isinstance(challenge, Mapping)
        ]
        return AuthorizationInfo(
            url=url,
            name=name.removeprefix("*."),
            wildcard=document.get("wildcard") is True or name.startswith("*."),
            status=str(document.get("status", "")),
            challenges=tuple(challenges),
            error=_challenge_error(offered),
        )

    def answer(self, challenge: ChallengeInfo) -> None:
        """
        Tell the CA that *challenge* can be validated now (section 7.5.1).

        A refusal decides nothing and is dropped: Pebble answers malformed and Boulder 409 to a
        challenge that is answered already. Read the order to learn what came of it.
        """
        try:
            self._post("challenge", challenge.url, {})
        except AccountMissing:
            raise
        except PermanentError:
            return

    def finalize(self, order: OrderInfo, csr_pem: str) -> OrderInfo:
        """
        Ask for the certificate of a ready *order*; the order as it stands then (section 7.4).

        A refusal decides nothing as long as the order has moved on (another finalize was
        first) or the CA says that it isn't ready. On an order that is still ready the refusal
        is raised: CsrRefused if the CSR is at fault.
        """
        csr = x509.load_pem_x509_csr(csr_pem.encode()).public_bytes(Encoding.DER)
        try:
            response = self._post("finalize", order.finalize, {"csr": _base64url(csr)})
        except OrderNotReady:
            return self.order(order.url)
        except AccountMissing:
            raise
        except PermanentError:
            now = self.order(order.url)
            if now.status == "ready":
                raise
            return now
        return _order(order.url, response)

    def download(self, certificate_url: str) -> str:
        """The chain as the CA serves it, PEM, leaf first (section 7.4.2); not looked at."""
        return self._post("certificate", certificate_url, None).content.decode("utf-8", "replace")

    def deactivate_authorization(self, url: str) -> None:
        """Give an authorization up, so that the CA no longer counts it (section 7.5.2)."""
        self._post("deactivateAuthorization", url, {"status": "deactivated"})

    def _account(self, what: str, payload: Mapping[str, object]) -> str:
        response = self._post(what, self._resource("newAccount"), payload, with_key=True)
        self._net.account_url = _location(response, what)
        return self._net.account_url

    def _challenge(self, document: Mapping[str, object], name: str) -> ChallengeInfo:
        kind = str(document.get("type", ""))
        token = str(document.get("token") or "")
        return ChallengeInfo(
            type=kind,
            url=str(document.get("url", "")),
            name=name,
            token=token,
            value=self._value(kind, token),
            status=str(document.get("status", "pending")),
        )

    def _value(self, kind: str, token: str) -> str:
        if not _TOKEN.fullmatch(token):
            return ""
        key_authorization = f"{token}.{self._thumbprint}"
        if kind == "http-01":
            return key_authorization
        if kind == "dns-01":
            return _base64url(hashlib.sha256(key_authorization.encode()).digest())
        return ""

    def _post(
        self,
        what: str,
        url: str,
        payload: Mapping[str, object] | None,
        *,
        with_key: bool = False,
    ) -> requests.Response:
        if not with_key and self._net.account_url is None:
            raise ValueError(f"{what} needs an account: call new_account or find_account first")
        new_nonce_url = self._resource("newNonce")
        try:
            return self._net.signed(what, url, payload, new_nonce_url, with_key=with_key)
        except Refused as refused:
            raise error_for(what, refused.problem, datetime.now(UTC)) from refused

    def _resource(self, name: str) -> str:
        if not self._directory or time.monotonic() - self._directory_at > DIRECTORY_AGE:
            self._directory = self._fetch_directory()
            self._directory_at = time.monotonic()
        return self._directory[name]

    def _fetch_directory(self) -> dict[str, str]:
        url = self._issuer.directory
        try:
            document = _object(self._net.fetch("directory", url), "directory")
        except Refused as refused:
            raise error_for("directory", refused.problem, datetime.now(UTC)) from refused
        # Let's Encrypt puts a random key into it, so that clients learn to pass over such.
        resources = {key: value for key, value in document.items() if isinstance(value, str)}
        for name in _NEEDED:
            if not resources.get(name):
                raise CaUnavailable(f"the directory {url} has no {name}")
        return resources


def thumbprint(account_key: PrivateKey) -> str:
    """What stands behind the token in a key authorization (section 8.1); it is no secret."""
    return _base64url(jwk_of(account_key).thumbprint())


def _order(url: str, response: requests.Response) -> OrderInfo:
    document = _object(response, "order")
    authorizations = document.get("authorizations")
    certificate = document.get("certificate")
    return OrderInfo(
        url=url,
        status=str(document.get("status", "")),
        authorizations=tuple(
            str(each) for each in (authorizations if isinstance(authorizations, list) else ())
        ),
        finalize=str(document.get("finalize", "")),
        certificate=str(certificate) if certificate else None,
        expires=_time(document.get("expires")),
        error=describe(document.get("error")),
        retry_after=retry_after(response.headers, datetime.now(UTC)),
    )


def _challenge_error(challenges: object) -> str | None:
    for challenge in challenges if isinstance(challenges, list) else ():
        if isinstance(challenge, Mapping) and (words := describe(challenge.get("error"))):
            return words
    return None


def _object(response: requests.Response, what: str) -> Mapping[str, object]:
    try:
        document = json.loads(response.content)
    except ValueError:
        document = None
    if not isinstance(document, Mapping):
        raise CaUnavailable(f"the answer to {what} from {response.url} is no JSON object")
    return document


def _location(response: requests.Response, what: str) -> str:
    location = response.headers.get("Location")
    if not location:
        raise CaUnavailable(f"the answer to {what} from {response.url} has no Location")
    return urljoin(response.url, location)


def _time(value: object) -> datetime | None:
    """RFC 3339 as aware UTC; None for anything else, which then simply isn't known."""
    try:
        at = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return at.astimezone(UTC) if at.tzinfo else None


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
