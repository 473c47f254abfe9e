"""The daemon's CA client at the lab's Boulder, driven as the daemon drives it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from ca.pebble_world import Answers
from certbaton import pki
from certbaton.ca.order import Issued, Outcome, Unfinished, advance
from certbaton.ca.session import Session
from certbaton.errors import CaUnavailable, CertbatonError
from certbaton.model import ChallengeInfo, ExternalAccountKey, IssuerSpec, KeyType, OrderInfo
from certbaton.pki import PrivateKey
from lab.boulder import Boulder

T = TypeVar("T")
KEY = PrivateKey.generate(KeyType.EC_P256)
PROFILE = "long"
TRIES = 30
# Pebble is quicker than the client asks; how long that would have waited is in `slept`.
POLL = 0.05


class Client:
    """One account, made at once; *key* and *external* as Session has them."""

    def __init__(
        self,
        boulder: Boulder,
        answers: Answers,
        *,
        key: PrivateKey | None = None,
        external: ExternalAccountKey | None = None,
        timeout: timedelta = timedelta(seconds=30),
    ) -> None:
        self.boulder = boulder
        self.key = key or PrivateKey.generate(KeyType.EC_P256)
        spec = IssuerSpec("lab", boulder.directory, boulder.ca_bundle, timeout=timeout)
        self.session = Session(spec, self.key)
        self.slept: list[float] = []
        self.presented: list[ChallengeInfo] = []
        self._answers = answers
        self.account = self.session.new_account(external)

    def order(
        self,
        *names: str,
        replaces: str | None = None,
        not_after: datetime | None = None,
        profile: str = PROFILE,
    ) -> OrderInfo:
        return self.session.new_order(names, profile, replaces=replaces, not_after=not_after)

    def advance(
        self,
        order: OrderInfo,
        *names: str,
        patience: float = 60,
        key: PrivateKey = KEY,
        publish: bool = True,
    ) -> Outcome:
        """One call, from the order's URL."""

        def present(challenges: Sequence[ChallengeInfo]) -> None:
            self.presented += challenges
            for each in challenges if publish else ():
                self._answers.tokens[each.token] = each.value

        def wait(seconds: float) -> bool:
            self.slept.append(seconds)
            time.sleep(min(seconds, POLL))
            return True

        return advance(
            self.session,
            order.url,
            pki.make_csr(key, names),
            challenge_type="http-01",
            present=present,
            sleep=wait,
            patience=timedelta(seconds=patience),
            now=lambda: datetime.now(UTC),
        )

    def issue(self, *names: str, replaces: str | None = None) -> Issued:
        """An order, and its certificate, where all is well."""
        outcome = self.advance(self.order(*names, replaces=replaces), *names)
        assert isinstance(outcome, Issued), outcome
        return outcome

    def settle(self, *names: str, order: OrderInfo | None = None) -> Issued:
        """
        Issue however often the CA is away: what was asked is asked again.

        The order's URL is kept once it is known, as in the Journal; or it is *order*.
        """
        known = order or again(lambda: self.order(*names))

        def go_on() -> Outcome:
            outcome = self.advance(known, *names)
            while isinstance(outcome, Unfinished):
                outcome = self.advance(known, *names)
            return outcome

        outcome = again(go_on)
        assert isinstance(outcome, Issued), outcome
        pki.check_bundle(outcome.chain, KEY, names, KeyType.EC_P256, datetime.now(UTC))
        return outcome


def again(call: Callable[[], T]) -> T:
    """*call* until it isn't refused with CaUnavailable."""
    for _ in range(TRIES):
        try:
            return call()
        except CaUnavailable:
            continue
    return call()


def refused(call: Callable[[], object]) -> CertbatonError:
    """The error of *call*, which must have one."""
    try:
        found = call()
    except CertbatonError as error:
        return error
    raise AssertionError(f"not refused: {found}")


def cert_id(chain: str) -> str:
    """The CertID (RFC 9773 section 4.1) of a chain's leaf."""
    leaf = pki.leaf_of(chain)
    assert leaf.ari_id is not None
    return leaf.ari_id
