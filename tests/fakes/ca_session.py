"""One account's conversation with a `fakes.ca.FakeCa`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from cryptography import x509

from certbaton.ca.accounts import not_bound
from certbaton.errors import AccountMissing
from certbaton.model import (
    AuthorizationInfo,
    ChallengeInfo,
    DirectoryInfo,
    ExternalAccountKey,
    OrderInfo,
    RenewalAnswer,
)
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

    def directory(self) -> DirectoryInfo:
        return self.ca.directory_info()

    def new_account(self, external: ExternalAccountKey | None = None) -> str:
        # as the Session: what can be used once is not used for an account that is there
        if external is not None or self.ca.external_accounts:
            try:
                return self.find_account()
            except AccountMissing:
                if external is None:
                    raise not_bound("an issuer", self.ca.directory) from None
        with self.ca.request("newAccount"):
            self.account_url = self.ca.new_account(self.key, external)
        return self.account_url

    def find_account(self) -> str:
        with self.ca.request("findAccount"):
            self.account_url = self.ca.find_account("findAccount", self.key)
        return self.account_url

    def new_order(
        self,
        names: Sequence[str],
        profile: str | None = None,
        *,
        replaces: str | None = None,
        not_after: datetime | None = None,
    ) -> OrderInfo:
        with self.ca.request("newOrder"):
            thumb = self.key.public_key_sha256
            account = self._account("newOrder")
            return self.ca.new_order(account, names, profile, thumb, replaces, not_after)

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
                problem=found.problem,
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

    def renewal_info(self, ari_id: str) -> RenewalAnswer:
        with self.ca.request("renewalInfo"):
            return self.ca.renewal_info(ari_id)

    def change_key(self, new_key: PrivateKey) -> None:
        with self.ca.request("keyChange"):
            self.ca.change_key(self._account("keyChange"), new_key)

    def deactivate_account(self) -> None:
        with self.ca.request("deactivateAccount"):
            self._account("deactivateAccount").active = False

    def revoke(
        self, certificate_pem: str, reason: str, certificate_key: PrivateKey | None = None
    ) -> None:
        with self.ca.request("revokeCert"):
            account = self._account("revokeCert") if certificate_key is None else None
            self.ca.revoke(account, certificate_pem, reason, certificate_key)

    def _account(self, request: str) -> Account:
        account = self.ca.account_of(request, self.account_url)
        if account.key_sha256 != self.key.public_key_sha256:
            raise self.ca.refuse(request, 400, "malformed", "JWS verification error")
        return account
