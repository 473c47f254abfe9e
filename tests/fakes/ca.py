"""
A CA in memory that behaves as Boulder and Pebble do, one level above HTTP.

`FakeCa.session` gives what `certbaton.ca.session.Session` gives, so that the same code drives
both; `tests/ca/advance_contract.py` is run on both to keep this one honest. Refusals go through
the real table, certificates are real ones. Time is the clock that it is given: what takes time
at a CA is done when somebody looks after that time has passed. It never sleeps.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from cryptography import x509

from certbaton import pki
from certbaton.ca.problems import Problem, error_for
from certbaton.model import (
    ChallengeInfo,
    DirectoryInfo,
    ExternalAccountKey,
    IssuerSpec,
    Leaf,
    OrderInfo,
    RenewalAnswer,
)
from certbaton.pki import PrivateKey
from fakes import ca_rules
from fakes.ca_records import Account, Authorization, Issuance, Order
from fakes.ca_session import FakeSession
from fakes.x509 import hierarchy

DIRECTORY = "https://ca.test/directory"


@dataclass
class FakeCa:
    """
    The CA and its knobs; all may be turned at any time.

    *validate* is where the CA looks: it gets the challenge, and returns None if it found what it
    wanted, else its words. Names in *caa_forbids* fail with ``caa``, whatever is found. *before*
    and *after* get the name of each request (RFC 8555's, as in `problems`): what they raise is a
    crash before the CA heard of it, or before its answer came back (a refusal has no *after*).
    *profiles* are names with a validity; an order without one lasts *validity*. A limit of 0 is
    none. *reuse_orders* hands an open order of the same account, names and profile out again, as
    Let's Encrypt does; *authorization_reuse* is for how long a valid authorization spares
    validation.

    *external_accounts* (kid to HMAC key) are the ones that a new account must be bound to, if
    there are any; each for one account if *external_once*. *terms_changed* is a URL: orders are
    refused until somebody has agreed there. *refused_profiles* are listed, and refused all the
    same. *advise* says what renewal information answers for a certificate that it signed: an
    error is raised, None is a 404; *advice* by CertID comes before it. *renewalInfo* and
    *keyChange* are in *resources* only if a test puts them there.
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
    caa_forbids: frozenset[str] = frozenset()
    external_accounts: Mapping[str, str] = field(default_factory=dict)
    external_once: bool = False
    terms_changed: str | None = None
    takes_not_after: bool = False
    refused_profiles: frozenset[str] = frozenset()
    advise: Callable[[Leaf], RenewalAnswer | Exception | None] = lambda leaf: None
    directory: str = DIRECTORY
    resources: frozenset[str] = frozenset({"newNonce", "newAccount", "newOrder"})

    def __post_init__(self) -> None:
        self.calls: list[str] = []
        self.issued: list[Issuance] = []
        self.advice: dict[str, RenewalAnswer | Exception] = {}
        self.external_used: set[str] = set()
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

    def all_orders(self) -> list[Order]:
        """All orders that it knows, as it keeps them."""
        return list(self._orders.values())

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
        self,
        request: str,
        status: int,
        kind: str,
        detail: str,
        after: timedelta | None = None,
        terms: str | None = None,
    ) -> Exception:
        """The error that the real client would have made of this refusal."""
        problem = Problem(status, kind, detail, retry_after=after, terms=terms)
        return error_for(request, problem, self.now())

    def account_of(self, request: str, url: str | None) -> Account:
        account = self._accounts.get(url or "")
        if account is None:
            raise self.refuse(request, 400, "accountDoesNotExist", f"no account {url}")
        if not account.active:
            raise self.refuse(request, 403, "unauthorized", "the account is deactivated")
        return account

    def find_account(self, request: str, key: PrivateKey) -> str:
        for account in self._accounts.values():
            if account.key_sha256 == key.public_key_sha256:
                return self.account_of(request, account.url).url
        raise self.refuse(request, 400, "accountDoesNotExist", "no account has this key")

    def new_account(self, key: PrivateKey, external: ExternalAccountKey | None) -> str:
        if self.is_account_key(key.public_key_sha256):
            return self.find_account("newAccount", key)
        if self.external_accounts:
            ca_rules.check_binding(self, external)
        kid = external.kid if external else None
        if kid is not None:
            self.external_used.add(kid)
        account = Account(self._url("account"), key.public_key_sha256, kid=kid)
        self._accounts[account.url] = account
        return account.url

    def is_account_key(self, key_sha256: str) -> bool:
        return any(each.key_sha256 == key_sha256 for each in self._accounts.values())

    def directory_info(self) -> DirectoryInfo:
        return DirectoryInfo(
            resources=self.resources,
            profiles=dict.fromkeys(self.profiles, ""),
            external_account_required=bool(self.external_accounts),
        )

    def renewal_info(self, ari_id: str) -> RenewalAnswer:
        found = self.advice.get(ari_id)
        for each in self.issued:
            leaf = pki.leaf_of(each.chain)
            if found is None and leaf.ari_id == ari_id:
                found = self.advise(leaf)
        if isinstance(found, Exception):
            raise found
        if found is None:
            raise self.refuse("renewalInfo", 404, "malformed", f"no certificate {ari_id}")
        return found

    def change_key(self, account: Account, new_key: PrivateKey) -> None:
        if self.is_account_key(new_key.public_key_sha256):
            raise self.refuse("keyChange", 409, "malformed", "the key is in use")
        account.key_sha256 = new_key.public_key_sha256

    def revoke(
        self, account: Account | None, certificate_pem: str, reason: str, key: PrivateKey | None
    ) -> None:
        leaf = pki.leaf_of(certificate_pem)
        owners = {each.account_url for each in self.issued if leaf == pki.leaf_of(each.chain)}
        by_key = key is not None and key.public_key_sha256 == leaf.public_key_sha256
        if owners and not by_key and (account is None or account.url not in owners):
            detail = "neither the account nor the key of this certificate"
            raise self.refuse("revokeCert", 403, "unauthorized", detail)
        self.revoked.append((leaf.sha256, reason))

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
        ca_rules.check_order(self, wanted, profile, not_after)
        if self.reuse_orders:
            for order in self._orders.values():
                same = (order.account, order.names, order.profile) == (account, wanted, profile)
                if same and order.expires > self.now() and self.status_of(order) in _OPEN:
                    return self._order_info(order)
        if replaces is not None:
            ca_rules.check_replaces(self, account, wanted, replaces)
        ca_rules.check_limits(self, wanted)
        order = Order(
            self._url("order"),
            account,
            wanted,
            profile,
            self.now() + self.order_lifetime,
            [self._authorize(account, name, thumb) for name in wanted],
            replaces=replaces,
            not_after=not_after,
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
        if self.status_of(order) != "ready":
            return self._order_info(order)  # orderNotReady: a Session reads the order again
        ca_rules.check_csr(self, order.names, csr)
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
        return f"{self.directory.rpartition('/')[0]}/{kind}/{self._serial}"

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
                        ca_rules.challenge_value(kind, token, thumb),
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
                found.problem = "unauthorized" if found.error else ""
                if found.name in self.caa_forbids:
                    found.error = f"CAA record for {found.name} prevents issuance (caa)"
                    found.problem = "caa"
                found.status = "invalid" if found.error else "valid"
                found.challenges[at] = replace(challenge, status=found.status)
        if found.status == "valid":
            found.expires = self.now() + self.authorization_reuse
        else:
            self.failed_validations.append((self.now(), found.name))

    def status_of(self, order: Order) -> str:
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
        end = min(end, order.not_after or end)
        order.certificate = self._url("certificate")
        public_key = csr.public_key()
        chain = hierarchy().sign(public_key, order.names, begin, end)  # type: ignore[arg-type]
        self._chains[order.certificate] = (order.account, chain)
        self.issued.append(
            Issuance(
                self.now(),
                order.account.url,
                order.url,
                order.names,
                chain,
                order.profile,
                order.replaces,
            )
        )

    def _order_info(self, order: Order) -> OrderInfo:
        status = self.status_of(order)
        return OrderInfo(
            url=order.url,
            status=status,
            authorizations=tuple(found.url for found in order.authorizations),
            finalize=f"{order.url}/finalize",
            certificate=order.certificate,
            expires=order.expires,
            retry_after=self.retry_after if status in ("pending", "processing") else None,
        )


_OPEN = ("pending", "ready")
