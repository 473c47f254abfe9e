"""
All that a process does at CAs, put together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from certbaton import caa
from certbaton.accounts import Accounts, ByEmail
from certbaton.advising import CaaAdvice, LookUpCaa, RenewalAdvice
from certbaton.authorities import Authorities, Connect, issuers_of
from certbaton.ca import zerossl
from certbaton.challenges import Challenges
from certbaton.cluster import Cluster
from certbaton.following import Following
from certbaton.journals import Journals
from certbaton.model import CertificateSpec, IssuerSpec, Policy
from certbaton.ordering import Orders
from certbaton.rehearsing import Rehearsals
from certbaton.solvers import Solver


def nothing_known(
    names: Sequence[str], identities: Sequence[str], account: str | None, kind: str | None
) -> caa.Advice:
    """Give the advice of who does not look."""
    return caa.Advice(complete=False)


class Dealings:
    """
    Accounts, orders, rehearsals and advice, over the same CAs and Journals.

    They remember what this process did, and so end with the time in which it leads.
    """

    def __init__(
        self,
        cluster: Cluster,
        connect: Connect,
        solvers: Mapping[str, Solver],
        specs: Mapping[str, CertificateSpec],
        *,
        policy: Policy,
        clock: Callable[[], datetime],
        sleep: Callable[[float], bool],
        patience: timedelta = timedelta(minutes=2),
        look_up_caa: LookUpCaa = nothing_known,
        by_email: ByEmail = zerossl.external_account,
        issuers: Iterable[IssuerSpec] = (),
    ) -> None:
        """
        *connect* gives this thread's session at a CA; *solvers* are by name, *specs* likewise.

        *sleep* and *patience* are `Following`'s; *issuers* are all that are configured, in use or
        not.
        """
        following = Following(clock, sleep, patience)
        self.specs = specs
        self.authorities = Authorities(
            connect, issuers_of(specs.values(), issuers), policy=policy, clock=clock
        )
        self.journals = Journals(cluster, policy, clock)
        self.accounts = Accounts(cluster, self.authorities, by_email=by_email)
        challenges = Challenges(solvers, {spec.name: spec.solver for spec in specs.values()})
        self.orders = Orders(
            cluster,
            self.authorities,
            self.accounts,
            challenges,
            self.journals,
            policy=policy,
            following=following,
        )
        self.advice = RenewalAdvice(
            cluster, self.authorities, self.accounts, policy=policy, clock=clock
        )
        self.caa = CaaAdvice(cluster, self.accounts, challenges, look_up_caa)
        self.rehearsals = Rehearsals(
            cluster,
            self.authorities,
            self.accounts,
            challenges,
            self.journals,
            policy=policy,
            following=following,
            pins=self.caa.pins,
        )
