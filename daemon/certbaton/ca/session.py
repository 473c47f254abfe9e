"""
A conversation with one CA on one account: RFC 8555 as a handful of calls.

Each call is one request (and a directory or nonce where none is at hand), and
answers in the words of ``model`` (``answers`` reads them). It never waits and
never tries again: ``order`` drives it, and the next tick tries again.
"""

from __future__ import annotations

import ipaddress
import logging
import time
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeAlias

import requests
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certbaton.ca.accounts import bind, key_change, not_bound
from certbaton.ca.answers import (
    absolute,
    base64url,
    json_object,
    location,
    read_authorization,
    read_chain,
    read_directory,
    read_order,
    read_renewal,
    root_of,
    thumbprint,
)
from certbaton.ca.net import Net, Refused
from certbaton.ca.problems import AlreadyRevoked, CsrRefused, OrderNotReady, error_for, links
from certbaton.ca.traffic import TRAFFIC, Traffic
from certbaton.errors import AccountMissing, CaUnavailable, CertbatonError, PermanentError
from certbaton.model import (
    AuthorizationInfo,
    ChallengeInfo,
    DirectoryInfo,
    ExternalAccountKey,
    IssuerSpec,
    OrderInfo,
    RenewalAnswer,
)
from certbaton.pki import PrivateKey

_log = logging.getLogger(__name__)

# Who looks daily for a profile, give or take a fifth, is not to see what was there yesterday.
DIRECTORY_AGE: Final = 12 * 3600.0
# What a CA has in its chains is few; a list without end is not followed.
_MOST_ALTERNATES: Final = 10
_NEEDED: Final = ("newNonce", "newAccount", "newOrder")
# RFC 5280 section 5.3.1: those that CAs take (Let's Encrypt no others).
REVOCATION_REASONS: Final = {
    "unspecified": 0,
    "keyCompromise": 1,
    "superseded": 4,
    "cessationOfOperation": 5,
}
__all__ = ("REVOCATION_REASONS", "Session", "thumbprint")


@dataclass(frozen=True, slots=True)
class Directory:
    """What one CA's directory said *at* a moment (monotonic seconds)."""

    at: float
    resources: Mapping[str, str]
    info: DirectoryInfo


Directories: TypeAlias = MutableMapping[str, Directory]
"""By their URLs; sessions of any threads may share one, so that each CA is asked twice a day."""


class Session:
    """
    One account at one CA, for **one thread**: nonces and connections are not shared.

    *account_url* is None until ``new_account`` or ``find_account`` was called, or what they
    answered before. The directory is fetched at the first call, and again twice a day. Any call may
    raise CaUnavailable, RateLimited (``retry_at`` aware, UTC), AccountMissing, PermanentError or
    ConfigurationError, by the table in ``problems``. *traffic* is the process's, for all CAs;
    *directories* may be.
    """

    def __init__(
        self,
        issuer: IssuerSpec,
        account_key: PrivateKey,
        account_url: str | None = None,
        *,
        traffic: Traffic = TRAFFIC,
        directories: Directories | None = None,
    ) -> None:
        self._issuer = issuer
        self._net = Net(
            account_key,
            account_url,
            ca_bundle=issuer.ca_bundle,
            timeout=issuer.timeout,
            connect_timeout=issuer.connect_timeout,
            proxy=issuer.proxy,
            traffic=traffic,
            secure=issuer.directory.startswith("https://"),
        )
        self._thumbprint = thumbprint(account_key)
        self._public_key = account_key.unwrapped.public_key()
        self._directories: Directories = {} if directories is None else directories

    @property
    def account_url(self) -> str | None:
        """The account's URL, the ``kid`` of every request; None until it is known."""
        return self._net.account_url

    def directory(self) -> DirectoryInfo:
        """What the CA's directory says of itself, at most half a day old (section 7.1.1)."""
        return self._current().info

    def new_account(self, external: ExternalAccountKey | None = None) -> str:
        """
        Make the account of this key, or find it if there is one; its URL (section 7.3).

        Agrees to the terms of service; the issuer's e-mail address is sent if there is one.
        *external* binds it to an account that the CA knows otherwise (section 7.3.4), where this
        key has none yet; ExternalAccountRequired where the CA wants one and there is none.
        """
        new_account = self._resource("newAccount")
        payload: dict[str, object] = {"termsOfServiceAgreed": True}
        if self._issuer.email:
            payload["contact"] = [f"mailto:{self._issuer.email}"]
        if external is not None or self._current().info.external_account_required:
            # Some are good for one account: where that is there, the answer was lost.
            try:
                return self.find_account()
            except AccountMissing:
                if external is None:
                    raise not_bound(self._issuer.name, self._issuer.directory) from None
            payload["externalAccountBinding"] = bind(self._net.jwk, external, new_account)
        return self._account("newAccount", payload)

    def find_account(self) -> str:
        """The URL of this key's account; AccountMissing, and none is made (section 7.3.1)."""
        return self._account("findAccount", {"onlyReturnExisting": True})

    def new_order(
        self,
        names: Sequence[str],
        profile: str | None = None,
        *,
        replaces: str | None = None,
        not_after: datetime | None = None,
    ) -> OrderInfo:
        """
        Order a certificate for *names* (section 7.4), DNS names and IP addresses (RFC 8738).

        The CA may hand back an order that is open already, of this account and these names.
        *profile* must be one that the directory lists; None lets the CA choose. *replaces* is the
        CertID of the predecessor (RFC 9773 section 5), *not_after* (aware) the end to ask for.
        """
        payload: dict[str, object] = {"identifiers": [_identifier(name) for name in names]}
        if profile:
            payload["profile"] = profile
        if replaces:
            payload["replaces"] = replaces
        if not_after:
            payload["notAfter"] = f"{not_after.astimezone(UTC):%FT%TZ}"
        response = self._post("newOrder", self._resource("newOrder"), payload)
        return read_order(location(response, "newOrder"), response)

    def order(self, url: str) -> OrderInfo:
        """The order as it stands; ResourceGone once the CA has dropped it."""
        return read_order(url, self._post("order", url, None))

    def authorization(self, url: str) -> AuthorizationInfo:
        """One authorization with its challenges; ResourceGone once the CA has dropped it."""
        return read_authorization(url, self._post("authorization", url, None), self._thumbprint)

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
        request = x509.load_pem_x509_csr(csr_pem.encode())
        if request.public_key() == self._public_key:  # section 11.1
            raise CsrRefused("the request is for the account's own key, which is badCSR to any CA")
        csr = request.public_bytes(Encoding.DER)
        try:
            response = self._post("finalize", order.finalize, {"csr": base64url(csr)})
        except OrderNotReady:
            return self.order(order.url)
        except AccountMissing:
            raise
        except PermanentError:
            now = self.order(order.url)
            if now.status == "ready":
                raise
            return now
        return read_order(order.url, response)

    def download(self, certificate_url: str) -> str:
        """
        The chain as the CA serves it, PEM, leaf first (section 7.4.2); not looked at.

        Of several chains the one whose root is the issuer's ``preferred_chain``; where there is
        none, or it cannot be had, the CA's own choice, and the log says so. PermanentError for
        one that holds more than certificates.
        """
        response = self._post("certificate", certificate_url, None)
        chain = read_chain(response)
        wanted = self._issuer.preferred_chain
        if wanted is None or root_of(chain) == wanted:
            return chain
        roots = [root_of(chain)]
        for link in links(response.headers, "alternate")[:_MOST_ALTERNATES]:
            try:
                other = read_chain(
                    self._post("certificate", absolute(response, link, "certificate"), None)
                )
            except CertbatonError as error:
                roots.append(str(error))
                continue
            if root_of(other) == wanted:
                return other
            roots.append(root_of(other))
        _log.warning(
            "%s has no chain up to %r for %s, so its default one is taken; it has %s",
            self._issuer.name,
            wanted,
            certificate_url,
            ", ".join(roots),
        )
        return chain

    def deactivate_authorization(self, url: str) -> None:
        """Give an authorization up, so that the CA no longer counts it (section 7.5.2)."""
        self._post("deactivateAuthorization", url, {"status": "deactivated"})

    def renewal_info(self, ari_id: str) -> RenewalAnswer:
        """
        When the CA suggests to renew the certificate of that CertID (RFC 9773 section 4).

        PermanentError where the CA has no renewal information, and for an answer that makes no
        sense, such as a window that ends before it begins.
        """
        url = f"{self._resource('renewalInfo').rstrip('/')}/{ari_id}"
        try:
            response = self._net.fetch("renewalInfo", url)
        except Refused as refused:
            raise error_for("renewalInfo", refused.problem, datetime.now(UTC)) from refused
        return read_renewal(response)

    def change_key(self, new_key: PrivateKey) -> None:
        """
        Make *new_key* the account's key (section 7.3.5); this session is of no use afterwards.

        Where the answer is lost, ``find_account`` with the new key tells whether it was done.
        """
        url = self._resource("keyChange")
        self._post("keyChange", url, key_change(self._net, new_key, url))

    def deactivate_account(self) -> None:
        """Give the account up for good (section 7.3.6)."""
        if self._net.account_url is None:
            raise ValueError("no account is known: call new_account or find_account first")
        self._post("deactivateAccount", self._net.account_url, {"status": "deactivated"})

    def revoke(
        self, certificate_pem: str, reason: str, certificate_key: PrivateKey | None = None
    ) -> None:
        """
        Revoke the first certificate of *certificate_pem* (section 7.6); revoked before is fine.

        *reason* is RFC 5280's word, one of ``REVOCATION_REASONS``. Signed by the account, or by
        *certificate_key*, which needs none.
        """
        leaf = x509.load_pem_x509_certificate(certificate_pem.encode())
        payload = {
            "certificate": base64url(leaf.public_bytes(Encoding.DER)),
            "reason": REVOCATION_REASONS[reason],
        }
        url, new_nonce = self._resource("revokeCert"), self._resource("newNonce")
        net = self._net if certificate_key is None else self._net.with_key(certificate_key)
        try:
            net.signed("revokeCert", url, payload, new_nonce, with_key=certificate_key is not None)
        except Refused as refused:
            request = refused.request or "revokeCert"
            error = error_for(request, refused.problem, datetime.now(UTC))
            if not isinstance(error, AlreadyRevoked):
                raise error from refused

    def _account(self, what: str, payload: Mapping[str, object]) -> str:
        response = self._post(what, self._resource("newAccount"), payload, with_key=True)
        self._net.account_url = location(response, what)
        return self._net.account_url

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
            raise error_for(
                refused.request or what, refused.problem, datetime.now(UTC)
            ) from refused

    def _resource(self, name: str) -> str:
        resources = self._current().resources
        if name not in resources:
            raise PermanentError(f"the CA at {self._issuer.directory} has no {name}")
        return resources[name]

    def _current(self) -> Directory:
        url = self._issuer.directory
        known = self._directories.get(url)
        if known is None or time.monotonic() - known.at > DIRECTORY_AGE:
            known = self._directories[url] = self._fetch_directory(url)
        return known

    def _fetch_directory(self, url: str) -> Directory:
        try:
            document = json_object(self._net.fetch("directory", url), "directory")
        except Refused as refused:
            raise error_for("directory", refused.problem, datetime.now(UTC)) from refused
        # Let's Encrypt puts a random key into it, so that clients learn to pass over such.
        resources = {key: value for key, value in document.items() if isinstance(value, str)}
        for name in _NEEDED:
            if not resources.get(name):
                raise CaUnavailable(f"the directory {url} has no {name}")
        info = read_directory(resources, document.get("meta"))
        return Directory(time.monotonic(), resources, info)


def _identifier(name: str) -> dict[str, str]:
    try:
        return {"type": "ip", "value": str(ipaddress.ip_address(name))}
    except ValueError:
        return {"type": "dns", "value": name}
