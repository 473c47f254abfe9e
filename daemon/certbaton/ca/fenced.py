"""
A CA that is asked for nothing while a check fails: the other half of ``cluster.fence``.

Reading goes on. Between the check and the request lie a connect, a nonce that is fetched, and the
CA's refusals of nonces, each answered by sending anew. What is sent late, or although the process
was stopped right after the check, does no harm that lasts: newOrder hands an open order out again,
answers and finalize meet an order that has moved on, and what they lead to is written to the
cluster, or rather isn't.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from certbaton.ca.order import CertificateAuthority
from certbaton.model import (
    AuthorizationInfo,
    ChallengeInfo,
    DirectoryInfo,
    ExternalAccountKey,
    OrderInfo,
    RenewalAnswer,
)
from certbaton.pki import PrivateKey


class FencedAuthority:
    """`CertificateAuthority` on *ca*; *check* raises where nothing may be changed."""

    def __init__(self, ca: CertificateAuthority, check: Callable[[], None]) -> None:
        self._ca = ca
        self._check = check

    def directory(self) -> DirectoryInfo:
        return self._ca.directory()

    def new_account(self, external: ExternalAccountKey | None = None) -> str:
        self._check()
        return self._ca.new_account(external)

    def find_account(self) -> str:
        return self._ca.find_account()

    def new_order(
        self,
        names: Sequence[str],
        profile: str | None = None,
        *,
        replaces: str | None = None,
        not_after: datetime | None = None,
    ) -> OrderInfo:
        self._check()
        return self._ca.new_order(names, profile, replaces=replaces, not_after=not_after)

    def order(self, url: str) -> OrderInfo:
        return self._ca.order(url)

    def authorization(self, url: str) -> AuthorizationInfo:
        return self._ca.authorization(url)

    def answer(self, challenge: ChallengeInfo) -> None:
        self._check()
        self._ca.answer(challenge)

    def finalize(self, order: OrderInfo, csr_pem: str) -> OrderInfo:
        self._check()
        return self._ca.finalize(order, csr_pem)

    def download(self, certificate_url: str) -> str:
        return self._ca.download(certificate_url)

    def deactivate_authorization(self, url: str) -> None:
        self._check()
        self._ca.deactivate_authorization(url)

    def renewal_info(self, ari_id: str) -> RenewalAnswer:
        return self._ca.renewal_info(ari_id)

    def change_key(self, new_key: PrivateKey) -> None:
        self._check()
        self._ca.change_key(new_key)

    def deactivate_account(self) -> None:
        self._check()
        self._ca.deactivate_account()

    def revoke(
        self, certificate_pem: str, reason: str, certificate_key: PrivateKey | None = None
    ) -> None:
        self._check()
        self._ca.revoke(certificate_pem, reason, certificate_key)
