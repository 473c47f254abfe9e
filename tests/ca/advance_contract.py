"""
What `certbaton.ca.order` does with any CA: run on the fake one and on Pebble.

A subclass gives the fixture `world`. The tests look at what the CA has done (certificates
signed, requests got), not at how.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

import pytest

from certbaton import pki
from certbaton.ca.order import (
    CertificateAuthority,
    Failed,
    Issued,
    Outcome,
    Unfinished,
    Validated,
    abandon,
    advance,
    challenges_of,
)
from certbaton.errors import AccountMissing, PermanentError, SolverNotReady
from certbaton.model import ChallengeInfo, FailureKind, KeyType, OrderInfo
from certbaton.pki import PrivateKey

PATIENCE = timedelta(seconds=60)
KEY = PrivateKey.generate(KeyType.EC_P256)


class World(Protocol):
    """A CA, a place where it looks for answers, and time."""

    profile: str | None

    def session(self, key: PrivateKey, url: str | None = None) -> CertificateAuthority: ...
    def publish(self, challenges: Sequence[ChallengeInfo]) -> None: ...
    def now(self) -> datetime: ...
    def sleep(self, seconds: float) -> bool: ...
    def forget(self) -> None:
        """The CA loses its memory."""

    def requests(self) -> list[str]:
        """Names of the requests since the last call, nonces and directory left out."""

    def issued(self) -> int:
        """How many certificates were signed so far."""


@dataclass
class Issuance:
    """One certificate on its way."""

    world: World
    ca: CertificateAuthority
    names: tuple[str, ...]
    key: PrivateKey
    order: OrderInfo
    presented: list[ChallengeInfo] = field(default_factory=list)
    intents: int = 0

    def intend(self) -> None:
        self.intents += 1

    def present(self, challenges: Sequence[ChallengeInfo]) -> None:
        self.presented += challenges
        self.world.publish(challenges)

    def advance(
        self,
        *,
        challenge_type: str = "http-01",
        patience: timedelta = PATIENCE,
        stop: bool = False,
        publish: bool = True,
        order: OrderInfo | None = None,
        csr: str | None = None,
        answered: bool = False,
        rehearsal: bool = False,
    ) -> Outcome:
        return advance(
            self.ca,
            self.order.url,
            csr or pki.make_csr(self.key, self.names),
            challenge_type=challenge_type,
            present=self.present if publish else self.presented.extend,
            sleep=(lambda seconds: False) if stop else self.world.sleep,
            patience=patience,
            now=self.world.now,
            order=order,
            answered=answered,
            rehearsal=rehearsal,
            finalizing=self.intend,
        )

    def becomes(self, status: str) -> OrderInfo:
        """Wait until the order is in *status*, however long a CA takes on a busy machine."""
        for _ in range(120):
            self.world.sleep(0.5)
            info = self.ca.order(self.order.url)
            if info.status == status:
                return info
        raise AssertionError(f"the order is {info.status}, and not {status}")

    def finish(self) -> Issued:
        """Advance to the end, and look at what came."""
        outcome = self.advance()
        assert isinstance(outcome, Issued), outcome
        pki.check_bundle(outcome.chain, self.key, self.names, KeyType.EC_P256, self.world.now())
        return outcome


def begin(world: World, *names: str, ca: CertificateAuthority | None = None) -> Issuance:
    """An account (a new one unless *ca* has one), and an order for *names*."""
    if ca is None:
        ca = world.session(PrivateKey.generate(KeyType.EC_P256))
        ca.new_account()
    world.requests()
    return Issuance(world, ca, names, KEY, ca.new_order(names, world.profile))


class AdvanceContract:
    """Tests for a subclass with a fixture `world`."""

    def test_one_name_takes_at_most_eight_requests(self, world: World) -> None:
        """Seven where the CA signs while we wait a quarter of a second; the floor is six."""
        issuance = begin(world, "one.example.com")
        outcome = issuance.advance(order=issuance.order)
        assert isinstance(outcome, Issued)
        requests = world.requests()
        assert len(requests) <= 8, requests
        assert requests[:4] == ["newOrder", "authorization", "challenge", "order"]
        assert requests[-1] == "certificate"

    def test_three_names_take_one_authorization_and_one_challenge_each(self, world: World) -> None:
        """The order is polled, not its authorizations; names may be in upper case."""
        issuance = begin(world, "A.example.com", "b.example.com", "C.Example.Com")
        issuance.finish()
        requests = world.requests()
        assert requests.count("authorization") == requests.count("challenge") == 3
        names = ["a.example.com", "b.example.com", "c.example.com"]
        assert sorted(challenge.name for challenge in issuance.presented) == names

    def test_a_wildcard_is_proved_by_dns(self, world: World) -> None:
        """Its TXT record stands at the name without the asterisk."""
        issuance = begin(world, "*.wild.example.com", "wild.example.com")
        outcome = issuance.advance(challenge_type="dns-01")
        assert isinstance(outcome, Issued), outcome
        assert [challenge.name for challenge in issuance.presented] == ["wild.example.com"] * 2
        assert len({challenge.value for challenge in issuance.presented}) == 2

    def test_a_challenge_that_is_not_offered_is_a_failure(self, world: World) -> None:
        """No CA offers http-01 for a wildcard; nothing was presented, and no name failed."""
        issuance = begin(world, "*.wild.example.com")
        outcome = issuance.advance()
        assert isinstance(outcome, Failed)
        assert "offers no http-01 for *.wild.example.com" in outcome.message
        assert outcome.names == ()
        assert issuance.presented == []

    def test_patience_ends_and_the_next_call_goes_on(self, world: World) -> None:
        """Without patience the challenges are answered all the same; one certificate in the end."""
        before = world.issued()
        issuance = begin(world, "patience.example.com")
        outcome = issuance.advance(patience=timedelta(0))
        assert isinstance(outcome, Unfinished)
        assert "pending" in outcome.what
        issuance.finish()
        assert world.issued() == before + 1

    def test_a_stop_ends_it_between_two_requests(self, world: World) -> None:
        """And a new process finds its way from the order's URL."""
        before = world.issued()
        issuance = begin(world, "stop.example.com")
        assert isinstance(issuance.advance(stop=True), Unfinished)
        world.sleep(1)
        assert isinstance(issuance.advance(stop=True), Unfinished | Issued)
        world.sleep(1)
        issuance.finish()
        assert world.issued() == before + 1

    def test_an_issued_order_is_downloaded_again(self, world: World) -> None:
        """The same chain, in two requests, by somebody who only knows the URL."""
        before = world.issued()
        issuance = begin(world, "again.example.com")
        first = issuance.finish()
        world.requests()
        assert issuance.advance() == first
        assert world.requests() == ["order", "certificate"]
        assert world.issued() == before + 1

    def test_an_invalid_order_with_a_certificate_is_downloaded(self, world: World) -> None:
        """An authorization that is given up afterwards takes nothing back."""
        issuance = begin(world, "invalid.example.com")
        first = issuance.finish()
        issuance.ca.deactivate_authorization(issuance.order.authorizations[0])
        assert issuance.ca.order(issuance.order.url).status == "invalid"
        assert issuance.advance() == first

    def test_a_given_up_authorization_ends_the_order(self, world: World) -> None:
        """But no validation failed, so that no name is counted against us."""
        issuance = begin(world, "given-up.example.com", "other.example.com")
        issuance.ca.deactivate_authorization(issuance.order.authorizations[0])
        outcome = issuance.advance()
        assert isinstance(outcome, Failed)
        assert "its authorization is deactivated" in outcome.message
        assert outcome.names == ()
        assert outcome.kind is FailureKind.OTHER

    def test_an_abandoned_order_leaves_no_pending_authorization(self, world: World) -> None:
        """A CA counts those; what is decided, and what is gone, is passed over."""
        issuance = begin(world, "left.example.com", "behind.example.com")
        abandon(issuance.ca, issuance.order.url)
        read = [issuance.ca.authorization(url) for url in issuance.order.authorizations]
        assert {each.status for each in read} == {"deactivated"}
        abandon(issuance.ca, issuance.order.url)
        abandon(issuance.ca, issuance.order.url + "0")
        assert isinstance(issuance.advance(), Failed)

    def test_abandoning_an_issued_order_takes_nothing_back(self, world: World) -> None:
        """One request: it is past being validated."""
        issuance = begin(world, "kept.example.com")
        first = issuance.finish()
        world.requests()
        abandon(issuance.ca, issuance.order.url)
        assert world.requests() == ["order"]
        assert issuance.advance() == first

    def test_a_rehearsal_ends_before_the_certificate(self, world: World) -> None:
        """All names are validated; nothing was finalized, nor said that it would be."""
        before = world.issued()
        issuance = begin(world, "stage.example.com", "door.example.com")
        assert issuance.advance(rehearsal=True) == Validated()
        assert issuance.advance(rehearsal=True) == Validated()
        assert "finalize" not in world.requests()
        assert (world.issued(), issuance.intents) == (before, 0)
        issuance.finish()
        assert (world.issued(), issuance.intents) == (before + 1, 1)

    def test_a_failed_validation_names_the_name_in_the_ca_s_words(self, world: World) -> None:
        """At the first look, and at every later one, without presenting again."""
        issuance = begin(world, "failed.example.com")
        outcome = issuance.advance(publish=False)
        assert isinstance(outcome, Failed)
        assert outcome.names == ("failed.example.com",)
        assert "failed.example.com: " in outcome.message
        # The CA's own type of problem stands behind its words, and then what to do.
        assert "unauthorized)" in outcome.message
        assert "; to do: " in outcome.message
        assert outcome.kind is FailureKind.VALIDATION
        issuance.presented.clear()
        assert issuance.advance() == outcome
        assert issuance.presented == []

    def test_an_order_that_is_gone_is_a_failure(self, world: World) -> None:
        """HTTP 404, with or without a body; and there is nothing to clean up."""
        issuance = begin(world, "gone.example.com")
        issuance.order = OrderInfo(issuance.order.url + "0", "pending", (), "", None, None)
        outcome = issuance.advance()
        assert isinstance(outcome, Failed)
        assert "404" in outcome.message
        assert challenges_of(issuance.ca, issuance.order.url, "http-01") == []

    def test_a_solver_that_is_not_ready_stops_before_the_answer(self, world: World) -> None:
        """The CA is not told to look; the error passes through."""
        issuance = begin(world, "unready.example.com")

        def present(challenges: Sequence[ChallengeInfo]) -> None:
            raise SolverNotReady("not yet")

        issuance.present = present  # type: ignore[method-assign]
        world.requests()
        with pytest.raises(SolverNotReady):
            issuance.advance()
        assert world.requests() == ["order", "authorization"]

    def test_answering_and_finalizing_twice_decides_nothing(self, world: World) -> None:
        """Somebody else's answer or finalize came first: the order says where it stands."""
        before = world.issued()
        issuance = begin(world, "twice.example.com")
        (challenge,) = challenges_of(issuance.ca, issuance.order.url, "http-01")
        world.publish([challenge])
        issuance.ca.answer(challenge)
        issuance.ca.answer(challenge)
        csr = pki.make_csr(issuance.key, issuance.names)
        ready = issuance.becomes("ready")
        issuance.ca.finalize(ready, csr)
        issuance.becomes("valid")
        assert issuance.ca.finalize(ready, csr).status == "valid"
        issuance.finish()
        assert world.issued() == before + 1

    def test_a_finalize_before_its_time_decides_nothing(self, world: World) -> None:
        """orderNotReady: the order is read, and is still pending."""
        issuance = begin(world, "early.example.com")
        csr = pki.make_csr(issuance.key, issuance.names)
        assert issuance.ca.finalize(issuance.order, csr).status == "pending"

    def test_a_csr_for_other_names_is_raised(self, world: World) -> None:
        """The order stays ready, and its own CSR still succeeds."""
        issuance = begin(world, "csr.example.com")
        with pytest.raises(PermanentError, match="refused finalize"):
            issuance.advance(csr=pki.make_csr(issuance.key, ("other.example.com",)))
        issuance.finish()

    def test_a_csr_that_never_succeeds_ends_the_order(self, world: World) -> None:
        """badCSR, here for the account's own key (RFC 8555 section 11.1)."""
        key = PrivateKey.generate(KeyType.EC_P256)
        ca = world.session(key)
        ca.new_account()
        issuance = begin(world, "bad.example.com", ca=ca)
        outcome = issuance.advance(csr=pki.make_csr(key, issuance.names))
        assert isinstance(outcome, Failed)
        assert "badCSR" in outcome.message

    def test_the_challenges_are_derived_again(self, world: World) -> None:
        """By a new process with the same account key: what was presented, to be cleaned up."""
        key = PrivateKey.generate(KeyType.EC_P256)
        ca = world.session(key)
        url = ca.new_account()
        issuance = begin(world, "clean.example.com", "up.example.com", ca=ca)
        issuance.advance(stop=True)
        derived = challenges_of(world.session(key, url), issuance.order.url, "http-01")
        assert {each.value for each in derived} == {each.value for each in issuance.presented}
        assert {each.token for each in derived} == {each.token for each in issuance.presented}

    def test_a_key_has_one_account(self, world: World) -> None:
        """Asked again, the CA answers with the same; asked for none, it makes none."""
        key = PrivateKey.generate(KeyType.EC_P256)
        with pytest.raises(AccountMissing):
            world.session(key).find_account()
        url = world.session(key).new_account()
        assert world.session(key).new_account() == url
        assert world.session(key).find_account() == url

    def test_a_ca_that_forgot_the_account_says_so(self, world: World) -> None:
        """In any request; then the same key makes a new account, and goes on."""
        key = PrivateKey.generate(KeyType.EC_P256)
        ca = world.session(key)
        ca.new_account()
        issuance = begin(world, "forgot.example.com", ca=ca)
        world.forget()
        with pytest.raises(AccountMissing):
            ca.new_order(["forgot.example.com"], world.profile)
        with pytest.raises(AccountMissing):
            issuance.advance()
        ca.new_account()
        begin(world, "forgot.example.com", ca=ca).finish()

    def test_two_threads_share_an_account(self, world: World) -> None:
        """Each with its own session; one certificate each."""
        key = PrivateKey.generate(KeyType.EC_P256)
        url = world.session(key).new_account()
        before, errors = world.issued(), []

        def work(name: str) -> None:
            try:
                for number in range(3):
                    ca = world.session(key, url)
                    begin(world, f"{name}{number}.example.com", ca=ca).finish()
            except BaseException as error:  # noqa: BLE001 - shown by the assertion
                errors.append(error)

        threads = [threading.Thread(target=work, args=(name,)) for name in ("left", "right")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert errors == []
        assert world.issued() == before + 6
