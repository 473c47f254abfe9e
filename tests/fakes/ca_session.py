"""One account's conversation with a `fakes.ca.FakeCa`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509

from certbaton.model import AuthorizationInfo, ChallengeInfo, OrderInfo
from certbaton.pki import PrivateKey

if TYPE_CHECKING:
    from fakes.ca import FakeCa
    from fakes.ca_records import Account


@dataclass
class FakeSession:
    """`certbaton.ca.order.CertificateAuthority` over a FakeCa, for one account key."""

    ca: FakeCa
    key: PrivateKey
    account_url: str | None = None

    def new_account(self) -> str:
        with self.ca.request("newAccount"):
            self.account_url = self.ca.find_account("newAccount", self.key, create=True)
        return self.account_url

    def find_account(self) -> str:
        with self.ca.request("findAccount"):
            self.account_url = self.ca.find_account("findAccount", self.key, create=False)
        return self.account_url

    def new_order(self, names: Sequence[str], profile: str | None = None) -> OrderInfo:
        with self.ca.request("newOrder"):
            thumb = self.key.public_key_sha256
            return self.ca.new_order(self._account("newOrder"), names, profile, thumb)

    def order(self, url: str) -> OrderInfo:
        with self.ca.request("order"):
            return self.ca.order_info(self._account("order"), url)

    def authorization(self, url: str) -> AuthorizationInfo:
        with self.ca.request("authorization"):
            found = self.ca.authorization(self._account("authorization"), url)
            return AuthorizationInfo(
                url=found.url,
                name=found.name.removeprefix("*."),
                wildcard=found.name.startswith("*."),
                status=found.status,
                challenges=tuple(found.challenges),
                error=found.error,
            )

    def answer(self, challenge: ChallengeInfo) -> None:
        with self.ca.request("challenge"):
            self.ca.answer(self._account("challenge"), challenge.url)

    def finalize(self, order: OrderInfo, csr_pem: str) -> OrderInfo:
        csr = x509.load_pem_x509_csr(csr_pem.encode())
        with self.ca.request("finalize"):
            return self.ca.finalize(self._account("finalize"), order.url, csr)

    def download(self, certificate_url: str) -> str:
        with self.ca.request("certificate"):
            return self.ca.download(self._account("certificate"), certificate_url)

    def deactivate_authorization(self, url: str) -> None:
        with self.ca.request("deactivateAuthorization"):
            account = self._account("deactivateAuthorization")
            self.ca.authorization(account, url).status = "deactivated"

    def _account(self, request: str) -> Account:
        account = self.ca.account_of(request, self.account_url)
        if account.key_sha256 != self.key.public_key_sha256:
            raise self.ca.refuse(request, 400, "malformed", "JWS verification error")
        return account
