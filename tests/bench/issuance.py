"""Requests per issuance: certbaton's own ACME code against a real Pebble, and no cluster."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from certbaton import pki
from certbaton.ca.order import Issued, advance
from certbaton.ca.session import Session
from certbaton.model import ChallengeInfo, IssuerSpec, KeyType
from certbaton.solvers.http01 import Http01Solver
from lab.pebble import Pebble
from lab.process import LabError, free_ports


@dataclass(frozen=True)
class Issuance:
    """What one certificate took; requests by RFC 8555's name of the resource."""

    names: int
    requests: dict[str, int]
    seconds: float

    @property
    def total(self) -> int:
        """All requests, a nonce included."""
        return sum(self.requests.values())


def measure(counts: tuple[int, ...]) -> list[Issuance]:
    """One issuance for each number of names in *counts*; the account is there already."""
    (port,) = free_ports(1)
    with Pebble(http_port=port) as pebble:
        issuer = IssuerSpec("bench", pebble.directory, ca_bundle=str(pebble.ca_file))
        key = pki.PrivateKey.generate(KeyType.EC_P256)
        account = Session(issuer, key).new_account()
        solver = Http01Solver(address="127.0.0.1", port=port)
        solver.start()
        try:
            return [_issue(pebble, Session(issuer, key, account), solver, n) for n in counts]
        finally:
            solver.close()


def _issue(pebble: Pebble, session: Session, solver: Http01Solver, count: int) -> Issuance:
    names = [f"n{number}.of{count}.example.test" for number in range(count)]
    csr = pki.make_csr(pki.PrivateKey.generate(KeyType.RSA_2048), names)
    since, began = datetime.now(UTC), time.monotonic()

    def present(challenges: object) -> None:
        assert isinstance(challenges, list | tuple)
        for challenge in challenges:
            assert isinstance(challenge, ChallengeInfo)
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
        raise LabError(f"no certificate for {count} names: {outcome}")
    # A session of its own for each: its directory is not part of an issuance, its nonce is.
    seen = [each.endpoint for each in pebble.requests(since) if each.endpoint != "directory"]
    return Issuance(count, dict(sorted(Counter(seen).items())), round(seconds, 3))
