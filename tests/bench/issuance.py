"""Requests per issuance: certbaton's own ACME code against a real Pebble, and no cluster."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from certbaton import pki
from certbaton.ca.order import Issued, advance
from certbaton.ca.session import Session
from certbaton.ca.traffic import TRAFFIC, Traffic
from certbaton.model import ChallengeInfo, IssuerSpec, KeyType
from certbaton.solvers.http01 import Http01Solver
from lab.pebble import Pebble
from lab.process import LabError, free_ports

READY_AT_MOST = 5


def at_most(names: int) -> int:
    """How many requests an issuance of so many names may take."""
    return 2 * names + 6


@dataclass(frozen=True)
class Issuance:
    """
    What one certificate took; requests by RFC 8555's name of the resource.

    *how* is ``cold``: the session was new, so that a directory and a nonce had to be fetched;
    ``warm``: it had worked a moment before; or ``ready``: cold, and all names were validated
    already.
    """

    how: str
    names: int
    requests: dict[str, int]
    seconds: float

    @property
    def total(self) -> int:
        """
        All requests from newOrder to the download, a nonce and every look at the order included.

        The directory is not: a process fetches it once a day for all of its certificates.
        """
        return sum(self.requests.values()) - self.requests.get("directory", 0)


def measure(
    counts: Sequence[int], *, warm: bool = True, traffic: Traffic = TRAFFIC
) -> list[Issuance]:
    """The issuances for each number of names in *counts*; the account is there already."""
    (port,) = free_ports(1)
    with Pebble(http_port=port, authz_reuse=100) as pebble:
        issuer = IssuerSpec("bench", pebble.directory, ca_bundle=str(pebble.ca_file))
        key = pki.PrivateKey.generate(KeyType.EC_P256)
        account = Session(issuer, key).new_account()

        def session() -> Session:
            return Session(issuer, key, account, traffic=traffic)

        solver = Http01Solver(address="127.0.0.1", port=port)
        solver.start()
        try:
            return [
                issued
                for count in counts
                for issued in _all_ways(pebble, session(), session(), solver, count, warm)
            ]
        finally:
            solver.close()


def _all_ways(
    pebble: Pebble, first: Session, second: Session, solver: Http01Solver, count: int, warm: bool
) -> Iterator[Issuance]:
    names = [f"n{number}.of{count}.example.test" for number in range(count)]
    yield _issue(pebble, first, solver, "cold", names)
    if warm:
        yield _issue(pebble, first, solver, "warm", [f"warm.{name}" for name in names])
    yield _issue(pebble, second, solver, "ready", names)


def _issue(
    pebble: Pebble, session: Session, solver: Http01Solver, how: str, names: Sequence[str]
) -> Issuance:
    csr = pki.make_csr(pki.PrivateKey.generate(KeyType.RSA_2048), names)
    before, began = len(pebble.requests()), time.monotonic()

    def present(challenges: Sequence[ChallengeInfo]) -> None:
        for challenge in challenges:
            solver.present(challenge)

    def sleep(seconds: float) -> bool:
        time.sleep(seconds)
        return True

    order = session.new_order(names, "lab")
    outcome = advance(
        session,
        order.url,
        csr,
        challenge_type="http-01",
        present=present,
        sleep=sleep,
        patience=timedelta(minutes=2),
        now=lambda: datetime.now(UTC),
        order=order,
    )
    seconds = time.monotonic() - began
    if not isinstance(outcome, Issued):
        raise LabError(f"no certificate for {len(names)} names: {outcome}")
    seen = Counter(each.endpoint for each in pebble.requests()[before:])
    return Issuance(how, len(names), dict(sorted(seen.items())), round(seconds, 3))
