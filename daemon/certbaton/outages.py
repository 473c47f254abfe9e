"""
CAs that do not answer: noted against the CA, in memory, and not in any certificate's Journal.

Network errors and 5xx say nothing of a certificate. Losing the notes costs one request that
fails. Whoever comes first after the pause tries again for all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TypeVar

from certbaton.ca.order import CertificateAuthority
from certbaton.core.limits import ca_pause
from certbaton.errors import CaUnavailable, CertbatonError, Conflict
from certbaton.model import (
    AuthorizationInfo,
    CaTrouble,
    ChallengeInfo,
    DirectoryInfo,
    ExternalAccountKey,
    OrderInfo,
    Policy,
    RenewalAnswer,
)
from certbaton.pki import PrivateKey
from certbaton.telemetry import logger

T = TypeVar("T")


@dataclass(slots=True)
class _Noted:
    trouble: CaTrouble
    requests: set[str] = field(default_factory=set)  # those that failed, and have not worked since


class Outages:
    """What is known of CAs that do not answer, by directory. Any thread may call it."""

    def __init__(self, policy: Policy, clock: Callable[[], datetime]) -> None:
        self._policy = policy
        self._clock = clock
        self._lock = threading.Lock()
        self._noted: dict[str, _Noted] = {}

    def troubles(self) -> dict[str, CaTrouble]:
        """All that do not answer, as far as anybody asked lately."""
        with self._lock:
            for directory in [each for each in self._noted if self._is_stale(each)]:
                del self._noted[directory]
            return {directory: noted.trouble for directory, noted in self._noted.items()}

    def is_away(self, directory: str) -> bool:
        """Say whether the CA did not answer when it was asked last."""
        return directory in self.troubles()

    def failed(self, directory: str, request: str, error: CaUnavailable, began: datetime) -> None:
        """
        Note that *request*, begun at *began*, got no answer.

        Requests that were under way together when it went away count once.
        """
        now = self._clock()
        with self._lock:
            noted = self._noted.get(directory)
            if noted is None:
                trouble = CaTrouble(1, now, now, str(error), error.retry_at)
                noted = self._noted[directory] = _Noted(trouble)
                logger().warning("ca_away", directory=directory, error=str(error))
            elif began > noted.trouble.at:
                count = noted.trouble.count + 1
                noted.trouble = replace(
                    noted.trouble,
                    count=count,
                    at=now,
                    message=str(error),
                    retry_at=error.retry_at,
                )
            elif error.retry_at is not None:
                latest = max(error.retry_at, noted.trouble.retry_at or error.retry_at)
                noted.trouble = replace(noted.trouble, retry_at=latest)
            noted.requests.add(request)

    def answered(self, directory: str, request: str) -> None:
        """
        Note that *request* was answered, by whatever.

        That ends an outage once each request that had failed has worked: a CA may show its orders
        and sign none.
        """
        with self._lock:
            noted = self._noted.get(directory)
            if noted is None:
                return
            noted.requests.discard(request)
            if not noted.requests:
                del self._noted[directory]
                logger().info("ca_back", directory=directory, since=f"{noted.trouble.since:%FT%TZ}")

    @contextmanager
    def trying(
        self, directory: str, certificate: str, lifetime: timedelta | None
    ) -> Iterator[None]:
        """
        Ask the CA for *certificate*; after an outage, as the one that tries it for all.

        Conflict where it is too early for that, or another certificate tries already: look again,
        and wait. *lifetime* is what *certificate*'s usually is.
        """
        with self._lock:
            noted = self._noted.get(directory)
            if noted is not None:
                self._claim(noted, directory, certificate, lifetime)
        try:
            yield
        finally:
            with self._lock:
                noted = self._noted.get(directory)
                if noted is not None and noted.trouble.probing == certificate:
                    noted.trouble = replace(noted.trouble, probing=None)

    def watch(self, ca: CertificateAuthority, directory: str) -> CertificateAuthority:
        """*ca*, and whether it answers is noted."""
        return _Watched(ca, directory, self)

    def ask(self, directory: str, request: str, call: Callable[[], T]) -> T:
        """Give what *call* gives, and note whether the CA answered."""
        began = self._clock()
        try:
            result = call()
        except CaUnavailable as error:
            self.failed(directory, request, error, began)
            raise
        except Conflict:
            raise  # nothing was asked: it is not for this process to do
        except CertbatonError:
            self.answered(directory, request)
            raise
        self.answered(directory, request)
        return result

    def _claim(
        self, noted: _Noted, directory: str, certificate: str, lifetime: timedelta | None
    ) -> None:
        trouble = noted.trouble
        if trouble.probing not in (None, certificate):
            raise Conflict(f"{trouble.probing} tries {directory} for all")
        if self._clock() < ca_pause(trouble, lifetime, self._policy):
            raise Conflict(f"{directory} does not answer: {trouble.message}")
        noted.trouble = replace(trouble, probing=certificate)

    def _is_stale(self, directory: str) -> bool:
        """
        Say that nobody has asked since long after the pause: nothing is known any more.

        Else who goes to another CA would never come back to this one.
        """
        noted = self._noted[directory]
        ceiling = self._policy.ca_back_off_ceiling
        end = max(noted.trouble.at + ceiling, noted.trouble.retry_at or noted.trouble.at)
        return noted.trouble.probing is None and self._clock() > end + 2 * ceiling


class _Watched:
    """
    `CertificateAuthority` on *ca*, which tells *outages* of each request that orders need.

    What comes of the others counts against nobody: a CA whose renewalInfo is broken still issues.
    """

    def __init__(self, ca: CertificateAuthority, directory: str, outages: Outages) -> None:
        self._ca = ca
        self._directory = directory
        self._outages = outages

    def _ask(self, request: str, call: Callable[[], T]) -> T:
        return self._outages.ask(self._directory, request, call)

    def directory(self) -> DirectoryInfo:
        return self._ask("directory", self._ca.directory)

    def new_account(self, external: ExternalAccountKey | None = None) -> str:
        return self._ask("newAccount", lambda: self._ca.new_account(external))

    def find_account(self) -> str:
        return self._ask("findAccount", self._ca.find_account)

    def new_order(
        self,
        names: Sequence[str],
        profile: str | None = None,
        *,
        replaces: str | None = None,
        not_after: datetime | None = None,
    ) -> OrderInfo:
        return self._ask(
            "newOrder",
            lambda: self._ca.new_order(names, profile, replaces=replaces, not_after=not_after),
        )

    def order(self, url: str) -> OrderInfo:
        return self._ask("order", lambda: self._ca.order(url))

    def authorization(self, url: str) -> AuthorizationInfo:
        return self._ask("authorization", lambda: self._ca.authorization(url))

    def answer(self, challenge: ChallengeInfo) -> None:
        self._ask("challenge", lambda: self._ca.answer(challenge))

    def finalize(self, order: OrderInfo, csr_pem: str) -> OrderInfo:
        return self._ask("finalize", lambda: self._ca.finalize(order, csr_pem))

    def download(self, certificate_url: str) -> str:
        return self._ask("certificate", lambda: self._ca.download(certificate_url))

    def deactivate_authorization(self, url: str) -> None:
        self._ca.deactivate_authorization(url)

    def renewal_info(self, ari_id: str) -> RenewalAnswer:
        return self._ca.renewal_info(ari_id)

    def change_key(self, new_key: PrivateKey) -> None:
        self._ca.change_key(new_key)

    def deactivate_account(self) -> None:
        self._ca.deactivate_account()

    def revoke(
        self, certificate_pem: str, reason: str, certificate_key: PrivateKey | None = None
    ) -> None:
        self._ca.revoke(certificate_pem, reason, certificate_key)
