"""
The CAs that a process deals with: sessions on its accounts, who may ask now, and who is away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final

from certbaton.account_limits import AccountLimits
from certbaton.ca.order import CertificateAuthority
from certbaton.model import CertificateSpec, IssuerSpec, Policy
from certbaton.outages import Outages
from certbaton.pki import PrivateKey
from certbaton.slots import Slots

Connect = Callable[[IssuerSpec, PrivateKey, str | None], CertificateAuthority]

# With the policy's orders they are less than half of the default workers: two sick CAs leave room
# for a third.
CHECKS_AT_A_TIME: Final = 2
ACCOUNTS_AT_A_TIME: Final = 1


class Authorities:
    """
    All CAs by their directories, with what is known of them while this process lives.

    *orders*, *checks* and *accounts* are slots at a CA's directory.
    """

    def __init__(
        self,
        connect: Connect,
        issuers: Mapping[str, IssuerSpec],
        *,
        policy: Policy,
        clock: Callable[[], datetime],
    ) -> None:
        """*connect* gives this thread's session; *issuers* are by directory."""
        self._connect = connect
        self._issuers = issuers
        self.outages = Outages(policy, clock)
        self.limits = AccountLimits(clock)
        self.orders = Slots(policy.orders_at_a_time, clock)
        self.checks = Slots(CHECKS_AT_A_TIME, clock)
        self.accounts = Slots(ACCOUNTS_AT_A_TIME, clock)

    def issuer(self, directory: str) -> IssuerSpec:
        """The issuer there; a bare one where it left the configuration."""
        return self._issuers.get(directory) or IssuerSpec(name=directory, directory=directory)

    def session(
        self, issuer: IssuerSpec, key: PrivateKey, account_url: str | None
    ) -> CertificateAuthority:
        """This thread's session on that account; whether the CA answers is noted."""
        return self.outages.watch(self._connect(issuer, key, account_url), issuer.directory)

    def sleeper(
        self,
        directory: str,
        clock: Callable[[], datetime],
        sleep: Callable[[float], bool],
        keeps: timedelta,
    ) -> Callable[[float], bool]:
        """
        *sleep* for one who holds a slot for orders at *directory*.

        False, too, where others wait for it, and it was held for *keeps*.
        """
        until = clock() + keeps

        def slept(seconds: float) -> bool:
            if clock() >= until and self.orders.wanted(directory):
                return False
            return sleep(seconds)

        return slept


def issuers_of(
    specs: Iterable[CertificateSpec], others: Iterable[IssuerSpec] = ()
) -> dict[str, IssuerSpec]:
    """
    All issuers of *specs* by directory, those for rehearsals included, and *others*.

    A CA that no certificate names any more may have an order of ours, and is reached as it was.
    """
    found: dict[str, IssuerSpec] = {}
    stages: list[IssuerSpec] = []
    for spec in specs:
        for issuer in spec.issuers:
            found.setdefault(issuer.directory, issuer)
            if issuer.rehearsal is not None:
                stages.append(issuer.rehearsal)
    others = tuple(others)
    stages += others
    stages += [each.rehearsal for each in others if each.rehearsal is not None]
    for each in stages:  # one that issues elsewhere says more of itself there
        found.setdefault(each.directory, each)
    return found
