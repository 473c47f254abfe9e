"""
A CA in memory that behaves as Boulder and Pebble do, one level above HTTP.

`FakeCa.session` gives what `certbaton.ca.session.Session` gives, so that the same code drives
both; `tests/ca/advance_contract.py` is run on both to keep this one honest. Refusals go through
the real table, certificates are real ones. Time is the clock that it is given: what takes time
at a CA is done when somebody looks after that time has passed. It never sleeps.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from certbaton import pki
from certbaton.ca.problems import Problem, error_for
from certbaton.model import ChallengeInfo, DirectoryInfo, IssuerSpec, OrderInfo, RenewalAnswer
from certbaton.pki import PrivateKey
from fakes.ca_records import Account, Authorization, Issuance, Order
from fakes.ca_session import FakeSession
from fakes.x509 import hierarchy

DIRECTORY = "https://ca.test/directory"


@dataclass
class FakeCa:
    """
    The CA and its knobs; all may be turned at any time.

    *validate* is where the CA looks: it gets the challenge, and returns None if it found what it
    wanted, else its words. *before* and *after* get the name of each request (RFC 8555's, as in
    `problems`): what they raise is a crash before the CA heard of it, or before its answer came
    back (a refusal has no *after*). *profiles* are names with a validity; an order without one
    lasts *validity*. A limit of 0 is none. *reuse_orders* hands an open order of the same
    account, names and profile out again, as Let's Encrypt does; *authorization_reuse* is for how
    long a valid authorization spares validation.
    """

    now: Callable[[], datetime]
    validity: timedelta = timedelta(days=90)
    backdate: timedelta = timedelta(0)
    profiles: Mapping[str, timedelta] = field(default_factory=dict)
    challenge_types: tuple[str, ...] = ("http-01", "dns-01", "tls-alpn-01")
    validate: Callable[[ChallengeInfo], str | None] = lambda challenge: None
    before: Callable[[str], None] = lambda request: None
    after: Callable[[str], None] = lambda request: None
    order_lifetime: timedelta = timedelta(days=7)
    authorization_reuse: timedelta = timedelta(0)
    reuse_orders: bool = True
    validation_time: timedelta = timedelta(0)
    issuance_time: timedelta = timedelta(0)
    retry_after: timedelta | None = None
    exact_set_limit: int = 5
    exact_set_window: timedelta = timedelta(days=7)
    failed_validation_limit: int = 5
    failed_validation_window: timedelta = timedelta(hours=1)
    blocked: frozenset[str] = frozenset()
    directory: str = DIRECTORY
    resources: frozenset[str] = frozenset({"newNonce", "newAccount", "newOrder"})

    def __post_init__(self) -> None:
        self.calls: list[str] = []
        self.issued: list[Issuance] = []
        self.advice: dict[str, RenewalAnswer] = {}
        self.revoked: list[tuple[str, str]] = []
        self.failed_validations: list[tuple[datetime, str]] = []
        self._faults: dict[str, list[Exception]] = defaultdict(list)
        self._lock = threading.RLock()
        self._serial = 0
        self.forget()

    def forget(self) -> None:
        """Lose accounts, orders and certificates, as Pebble does in a restart."""
        self._accounts: dict[str, Account] = {}
        self._orders: dict[str, Order] = {}
        self._authorizations: dict[str, Authorization] = {}
        self._chains: dict[str, tuple[Account, str]] = {}

    def fail(self, request: str, *errors: Exception) -> None:
        """Let the next requests of that name fail, one for each of *errors*, undone."""
        self._faults[request] += errors

    def deactivate_account(self, url: str) -> None:
        """As somebody with the account key could."""
        self._accounts[url].active = False

    def orders(self) -> list[OrderInfo]:
        """All orders that it knows, oldest first, as they stand."""
        with self._lock:
            return [self._order_info(order) for order in self._orders.values()]

    def session(self, key: PrivateKey, account_url: str | None = None) -> FakeSession:
        """A conversation on the account of *key*."""
        return FakeSession(self, key, account_url)

    def connect(
        self, issuer: IssuerSpec, key: PrivateKey, account_url: str | None = None
    ) -> FakeSession:
        """`session`, in the shape of ``Session``'s constructor; another directory is an error."""
        if issuer.directory != self.directory:
            raise AssertionError(f"{issuer.directory} is not this CA")
        return self.session(key, account_url)

    # --- what the sessions do ----------------------------------------------------------

    @contextmanager
    def request(self, name: str) -> Iterator[None]:
        """One request: counted, with its hooks and injected faults."""
        self.calls.append(name)
        self.before(name)
        if self._faults[name]:
            raise self._faults[name].pop(0)
        with self._lock:
            yield
        self.after(name)

    def refuse(
        self, request: str, status: int, kind: str, detail: str, after: timedelta | None = None
    ) -> Exception:
        """The error that the real client would have made of this refusal."""
        return error_for(request, Problem(status, kind, detail, retry_after=after), self.now())

    def account_of(self, request: str, url: str | None) -> Account:
        account = self._accounts.get(url or "")
        if account is None:
            raise self.refuse(request, 400, "accountDoesNotExist", f"no account {url}")
        if not account.active:
            raise self.refuse(request, 403, "unauthorized", "the account is deactivated")
        return account

    def find_account(self, request: str, key: PrivateKey, create: bool) -> str:
        for account in self._accounts.values():
            if account.key_sha256 == key.public_key_sha256:
                return self.account_of(request, account.url).url
        if not create:
            raise self.refuse(request, 400, "accountDoesNotExist", "no account has this key")
        account = Account(self._url("account"), key.public_key_sha256)
        self._accounts[account.url] = account
        return account.url

    def directory_info(self) -> DirectoryInfo:
        return DirectoryInfo(resources=self.resources, profiles=dict.fromkeys(self.profiles, ""))

    def renewal_info(self, ari_id: str) -> RenewalAnswer:
        found = self.advice.get(ari_id)
        if found is None:
            raise self.refuse("renewalInfo", 404, "malformed", f"no certificate {ari_id}")
        return found

    def change_key(self, account: Account, new_key: PrivateKey) -> None:
        for other in self._accounts.values():
            if other.key_sha256 == new_key.public_key_sha256:
                raise self.refuse("keyChange", 409, "malformed", "the key is in use")
        account.key_sha256 = new_key.public_key_sha256

    def revoke(self, certificate_pem: str, reason: str) -> None:
        self.revoked.append((pki.leaf_of(certificate_pem).sha256, reason))

    def new_order(
        self,
        account: Account,
        names: Sequence[str],
        profile: str | None,
        thumb: str,
        replaces: str | None = None,
        not_after: datetime | None = None,
    ) -> OrderInfo:
        wanted = tuple(sorted({name.lower() for name in names}))
        if profile and profile not in self.profiles:
            raise self.refuse("newOrder", 400, "invalidProfile", f"no profile {profile!r}")
        for name in wanted:
            if name in self.blocked:
                detail = f"policy forbids issuing for {name}"
                raise self.refuse("newOrder", 400, "rejectedIdentifier", detail)
        if self.reuse_orders:
            for order in self._orders.values():
                same = (order.account, order.names, order.profile) == (account, wanted, profile)
                if same and order.expires > self.now() and self._status(order) in _OPEN:
                    return self._order_info(order)
        self._check_limits(wanted)
        order = Order(
            self._url("order"),
            account,
            wanted,
            profile,
            self.now() + self.order_lifetime,
            [self._authorize(account, name, thumb) for name in wanted],
        )
        self._orders[order.url] = order
        return self._order_info(order)

    def order(self, account: Account, url: str, request: str = "order") -> Order:
        order = self._orders.get(url)
        # Boulder no longer shows an order after its expiry, issued or not.
        if order is None or order.expires <= self.now():
            raise self.refuse(request, 404, "malformed", f"no order {url}")
        if order.account is not account:
            raise self.refuse(request, 403, "unauthorized", "another account's order")
        return order

    def order_info(self, account: Account, url: str) -> OrderInfo:
        return self._order_info(self.order(account, url))

    def authorization(self, account: Account, url: str) -> Authorization:
        found = self._authorizations.get(url)
        if found is None or found.account is not account:
            raise self.refuse("authorization", 404, "malformed", f"no authorization {url}")
        self._settle(found)
        return found

    def answer(self, account: Account, challenge_url: str) -> None:
        for found in self._authorizations.values():
            for at, challenge in enumerate(found.challenges):
                if challenge.url != challenge_url or found.account is not account:
                    continue
                # A second answer is refused with "malformed", which a Session drops.
                if challenge.status == "pending" and found.status == "pending":
                    found.challenges[at] = replace(challenge, status="processing")
                    found.answered_at = self.now()
                    self._settle(found)

    def finalize(
        self, account: Account, url: str, csr: x509.CertificateSigningRequest
    ) -> OrderInfo:
        order = self.order(account, url, "finalize")
        if self._status(order) != "ready":
            return self._order_info(order)  # orderNotReady: a Session reads the order again
        key_sha256 = _spki_sha256(csr)
        try:
            proven = csr.is_signature_valid
        except InvalidSignature:
            proven = False
        if not proven or any(key_sha256 == each.key_sha256 for each in self._accounts.values()):
            raise self.refuse("finalize", 400, "badCSR", "bad signature, or an account's key")
        san = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = tuple(sorted({name.lower() for name in san.get_values_for_type(x509.DNSName)}))
        if names != order.names:
            raise self.refuse("finalize", 403, "unauthorized", f"CSR names {names}")
        order.csr, order.finalized_at = csr, self.now()
        return self._order_info(order)

    def download(self, account: Account, url: str) -> str:
        owner, chain = self._chains.get(url, (None, ""))
        if owner is not account:
            raise self.refuse("certificate", 404, "malformed", f"no certificate {url}")
        return chain

    # --- its inside ----------------------------------------------------------------------

    def _url(self, kind: str) -> str:
        self._serial += 1
        return f"https://ca.test/{kind}/{self._serial}"

    def _authorize(self, account: Account, name: str, thumb: str) -> Authorization:
        for found in self._authorizations.values():
            fresh = found.expires > self.now()
            if fresh and found.status == "valid" and (found.account, found.name) == (account, name):
                return found
        found = Authorization(
            self._url("authorization"), account, name, self.now() + self.order_lifetime, []
        )
        for kind in self.challenge_types:
            if kind.startswith("dns-") or not name.startswith("*."):
                url = self._url("challenge")
                token = f"{self._serial:022d}"
                found.challenges.append(
                    ChallengeInfo(
                        kind,
                        url,
                        name.removeprefix("*."),
                        token,
                        _value(kind, token, thumb),
                        "pending",
                    )
                )
        self._authorizations[found.url] = found
        return found

    def _settle(self, found: Authorization) -> None:
        """Finish a validation whose time has come."""
        if found.answered_at is None or found.status != "pending":
            return
        if self.now() < found.answered_at + self.validation_time:
            return
        for at, challenge in enumerate(found.challenges):
            if challenge.status == "processing":
                found.error = self.validate(challenge)
                found.status = "invalid" if found.error else "valid"
                found.challenges[at] = replace(challenge, status=found.status)
        if found.status == "valid":
            found.expires = self.now() + self.authorization_reuse
        else:
            self.failed_validations.append((self.now(), found.name))

    def _status(self, order: Order) -> str:
        for found in order.authorizations:
            self._settle(found)
        if order.finalized_at is not None and order.csr is not None and order.certificate is None:
            if self.now() < order.finalized_at + self.issuance_time:
                return "processing"
            self._issue(order, order.csr)
        statuses = {found.status for found in order.authorizations}
        if not statuses <= {"valid", "pending"}:
            return "invalid"  # also after it was issued, and the certificate stays
        if order.certificate is not None:
            return "valid"
        return "ready" if statuses == {"valid"} else "pending"

    def _issue(self, order: Order, csr: x509.CertificateSigningRequest) -> None:
        begin = (self.now() - self.backdate).replace(microsecond=0)
        end = begin + self.profiles.get(order.profile or "", self.validity)
        order.certificate = self._url("certificate")
        public_key = csr.public_key()
        chain = hierarchy().sign(public_key, order.names, begin, end)  # type: ignore[arg-type]
        self._chains[order.certificate] = (order.account, chain)
        self.issued.append(Issuance(self.now(), order.account.url, order.url, order.names, chain))

    def _order_info(self, order: Order) -> OrderInfo:
        status = self._status(order)
        return OrderInfo(
            url=order.url,
            status=status,
            authorizations=tuple(found.url for found in order.authorizations),
            finalize=f"{order.url}/finalize",
            certificate=order.certificate,
            expires=order.expires,
            retry_after=self.retry_after if status in ("pending", "processing") else None,
        )

    def _check_limits(self, names: tuple[str, ...]) -> None:
        same = [each.at for each in self.issued if each.names == names]
        self._limit(same, self.exact_set_limit, self.exact_set_window, "certificates", names)
        for name in names:
            failed = [at for at, which in self.failed_validations if which == name]
            self._limit(
                failed,
                self.failed_validation_limit,
                self.failed_validation_window,
                "failed validations",
                (name,),
            )

    def _limit(
        self,
        times: list[datetime],
        limit: int,
        window: timedelta,
        what: str,
        names: tuple[str, ...],
    ) -> None:
        recent = [at for at in times if at > self.now() - window]
        if limit and len(recent) >= limit:
            detail = f"too many {what} ({limit}) for {', '.join(names)} in the last {window}"
            after = recent[-limit] + window - self.now()
            raise self.refuse("newOrder", 429, "rateLimited", detail, after)


_OPEN = ("pending", "ready")


def _value(kind: str, token: str, thumb: str) -> str:
    key_authorization = f"{token}.{thumb}"
    if kind == "http-01":
        return key_authorization
    if kind == "dns-01":
        digest = hashlib.sha256(key_authorization.encode()).digest()
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")
    return ""


def _spki_sha256(csr: x509.CertificateSigningRequest) -> str:
    der = csr.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()
