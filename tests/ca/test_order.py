"""Driving an order, on the CA in memory: the contract, and what a real CA can't be made to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ca.advance_contract import AdvanceContract, begin
from certbaton.ca.order import POLL_CEILING, CertificateAuthority, Failed, Issued, Unfinished
from certbaton.errors import CaUnavailable, PermanentError, RateLimited
from certbaton.model import ChallengeInfo, FailureKind, KeyType
from certbaton.pki import PrivateKey, leaf_of
from fakes.ca import FakeCa

BEGIN = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


class FakeWorld:
    """A clock that only sleeping moves, and a set of published answers."""

    profile: str | None = None

    def __init__(self) -> None:
        self.clock = BEGIN
        self.slept: list[float] = []
        self.published: set[tuple[str, str]] = set()
        # As Pebble does it: validated at once, signed a moment after finalize.
        self.fake = FakeCa(
            self.now, validate=self._validate, issuance_time=timedelta(milliseconds=100)
        )
        self._seen = 0

    def session(self, key: PrivateKey, url: str | None = None) -> CertificateAuthority:
        return self.fake.session(key, url)

    def publish(self, challenges: Sequence[ChallengeInfo]) -> None:
        self.published |= {(each.name, each.value) for each in challenges}

    def now(self) -> datetime:
        return self.clock

    def sleep(self, seconds: float) -> bool:
        self.slept.append(seconds)
        self.clock += timedelta(seconds=seconds)
        return True

    def forget(self) -> None:
        self.fake.forget()

    def requests(self) -> list[str]:
        seen, self._seen = self._seen, len(self.fake.calls)
        return self.fake.calls[seen:]

    def issued(self) -> int:
        return len(self.fake.issued)

    def _validate(self, challenge: ChallengeInfo) -> str | None:
        if (challenge.name, challenge.value) in self.published:
            return None
        return "not found (unauthorized)"


@pytest.fixture
def world() -> FakeWorld:
    return FakeWorld()


class TestOnTheFake(AdvanceContract):
    """The contract, in no time."""


class Crash(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(
    "request_name", ["order", "authorization", "challenge", "finalize", "certificate"]
)
def test_a_crash_around_any_request_costs_no_certificate(
    world: FakeWorld, request_name: str, moment: str
) -> None:
    """The next call goes on from the order's URL alone."""
    issuance = begin(world, "crash.example.com")

    def crash(request: str) -> None:
        if request == request_name:
            raise Crash

    setattr(world.fake, moment, crash)
    with pytest.raises(Crash):
        issuance.advance(order=issuance.order)
    setattr(world.fake, moment, lambda request: None)
    issuance.finish()
    assert world.issued() == 1


def test_a_ready_order_takes_four_requests(world: FakeWorld) -> None:
    """A reused authorization: no challenge is even looked at."""
    world.fake.authorization_reuse = timedelta(days=30)
    first = begin(world, "ready.example.com")
    first.finish()
    world.requests()
    second = begin(world, "ready.example.com", ca=first.ca)
    assert isinstance(second.advance(order=second.order), Issued)
    assert world.requests() == ["newOrder", "finalize", "order", "certificate"]
    assert second.presented == []


def test_an_order_signed_at_once_is_not_polled(world: FakeWorld) -> None:
    """The floor: six requests for one name."""
    world.fake.issuance_time = timedelta(0)
    issuance = begin(world, "fast.example.com")
    issuance.advance(order=issuance.order)
    assert len(world.requests()) == 6


def test_polls_begin_short_and_are_few(world: FakeWorld) -> None:
    """Each is a request; a CA that is done in two seconds is asked twice, and begun short again."""
    world.fake.validation_time = timedelta(seconds=12)
    issuance = begin(world, "slow.example.com")
    issuance.finish()
    assert world.slept == [0.25, 2.0, 5.0, 5.0, 0.25]


def test_a_ca_far_away_is_looked_at_later(world: FakeWorld) -> None:
    """An answer takes 150 ms, a validation from several places some seconds: one look does."""

    def over_the_sea(request: str) -> None:
        world.clock += timedelta(milliseconds=150)

    world.fake.before = over_the_sea
    world.fake.validation_time = world.fake.issuance_time = timedelta(seconds=2.5)
    issuance = begin(world, "far.example.com", "away.example.com")
    issuance.advance(order=issuance.order)
    assert world.slept == [3.0, 3.0]
    assert len(world.requests()) == 2 * 2 + 5


def test_a_ca_that_hardly_answers_is_looked_at_all_the_same(world: FakeWorld) -> None:
    """Five seconds at most: it is no less done for that."""

    def slowly(request: str) -> None:
        world.clock += timedelta(seconds=8)

    world.fake.before = slowly
    begin(world, "tired.example.com").finish()
    assert max(world.slept) == POLL_CEILING.total_seconds()


def test_retry_after_is_the_floor_of_a_wait(world: FakeWorld) -> None:
    """Let's Encrypt sends 3 for an order that is being signed."""
    world.fake.retry_after = timedelta(seconds=3)
    begin(world, "retry.example.com").finish()
    assert set(world.slept) == {3.0}


def test_a_retry_after_of_nothing_is_taken_at_its_word(world: FakeWorld) -> None:
    """Who sends it doesn't mind to be asked: often at first, and ever less."""
    world.fake.retry_after = timedelta(0)
    world.fake.validation_time = timedelta(seconds=30)
    begin(world, "quick.example.com").finish()
    assert world.slept[:3] == [0.25, 0.4, 0.64]
    assert max(world.slept) == POLL_CEILING.total_seconds()


def test_a_long_retry_after_is_not_slept_away(world: FakeWorld) -> None:
    """ZeroSSL sends a day: the caller is told to come back in ten minutes, at once."""
    world.fake.retry_after = timedelta(days=1)
    outcome = begin(world, "day.example.com").advance()
    assert isinstance(outcome, Unfinished)
    assert outcome.retry_after == timedelta(minutes=10)
    assert world.slept == []


def test_a_retry_after_within_ten_minutes_is_obeyed_in_full(world: FakeWorld) -> None:
    """The order rests, where patience is shorter."""
    world.fake.retry_after = timedelta(minutes=9)
    outcome = begin(world, "nine.example.com").advance()
    assert isinstance(outcome, Unfinished)
    assert outcome.retry_after == timedelta(minutes=9)


def test_an_order_that_outlasts_patience_rests_for_a_minute(world: FakeWorld) -> None:
    """Processing for minutes: who has waited for so long isn't asked every few seconds."""
    world.fake.issuance_time = timedelta(minutes=7)
    issuance = begin(world, "minutes.example.com")
    outcome = issuance.advance(patience=timedelta(minutes=2))
    assert outcome == Unfinished(
        "the order is processing at the CA", timedelta(minutes=1), answered=True
    )
    assert world.now() - BEGIN <= timedelta(minutes=2)
    looks = 0
    while isinstance(outcome, Unfinished):
        world.sleep(outcome.retry_after.total_seconds())
        outcome = issuance.advance(patience=timedelta(0))
        looks += 1
    assert isinstance(outcome, Issued)
    assert looks <= 6
    assert world.issued() == 1


def test_what_was_answered_is_not_read_again(world: FakeWorld) -> None:
    """By the same process: a hundred names would be a hundred requests for each look."""
    world.fake.validation_time = timedelta(minutes=3)
    issuance = begin(world, "answered.example.com", "twice.example.com")
    outcome = issuance.advance(patience=timedelta(minutes=2))
    assert isinstance(outcome, Unfinished)
    assert outcome.answered
    world.requests()
    assert isinstance(issuance.advance(answered=True), Unfinished)
    assert world.requests() == ["order"]
    world.sleep(120)
    again = issuance.advance(answered=outcome.answered)
    assert isinstance(again, Issued), again
    assert set(world.requests()) == {"order", "finalize", "certificate"}


def test_an_order_that_was_interrupted_says_when_it_would_have_looked(world: FakeWorld) -> None:
    """It gives up its place, or the process ends: whoever goes on needn't wait for a minute."""
    outcome = begin(world, "interrupted.example.com").advance(stop=True)
    assert isinstance(outcome, Unfinished)
    assert outcome.retry_after == timedelta(seconds=0.25)


def test_what_is_waited_for_is_told(world: FakeWorld) -> None:
    """Validating and signing are different waits for a person."""
    world.fake.issuance_time = timedelta(hours=1)
    outcome = begin(world, "told.example.com").advance()
    assert isinstance(outcome, Unfinished)
    assert outcome.what == "the order is processing at the CA"


def test_an_expired_order_is_a_failure(world: FakeWorld) -> None:
    """Boulder answers 404 after the expiry, whatever became of the order."""
    issuance = begin(world, "expired.example.com")
    world.clock += timedelta(days=8)
    outcome = issuance.advance()
    assert isinstance(outcome, Failed)
    assert outcome.names == ()


def test_only_the_failed_of_several_names_is_named(world: FakeWorld) -> None:
    """The others would pass at the next order."""
    issuance = begin(world, "bad.example.com", "good.example.com")
    publish = world.publish
    world.publish = lambda challenges: publish(  # type: ignore[method-assign]
        [each for each in challenges if each.name.startswith("good")]
    )
    outcome = issuance.advance()
    assert isinstance(outcome, Failed)
    assert outcome.names == ("bad.example.com",)
    assert outcome.kind is FailureKind.VALIDATION
    words, _, advice = outcome.message.partition("; to do: ")
    assert words == "the CA will not issue: bad.example.com: not found (unauthorized)"
    assert advice.startswith("see who answers there")


def test_a_status_nobody_knows_is_waited_out(world: FakeWorld) -> None:
    """A CA may invent one; patience ends it."""
    issuance = begin(world, "odd.example.com")
    strange = replace(issuance.order, status="pondering")
    outcome = issuance.advance(order=strange, patience=timedelta(0))
    assert outcome == Unfinished("the order is pondering at the CA", timedelta(minutes=1))
    assert isinstance(issuance.advance(order=strange), Issued | Unfinished)


def test_a_ca_in_trouble_is_raised(world: FakeWorld) -> None:
    """The back-off is the tick's; the order goes on where it was."""
    issuance = begin(world, "trouble.example.com")
    world.fake.fail("finalize", CaUnavailable("503"))
    with pytest.raises(CaUnavailable):
        issuance.advance()
    issuance.finish()
    assert world.issued() == 1


def test_the_fake_limits_as_lets_encrypt_does(world: FakeWorld) -> None:
    """Five certificates for one set of names in a week, then a time to come back."""
    first = begin(world, "limit.example.com")
    first.finish()
    for _ in range(4):
        begin(world, "limit.example.com", ca=first.ca).finish()
    with pytest.raises(RateLimited) as caught:
        begin(world, "limit.example.com", ca=first.ca)
    assert caught.value.retry_at == world.fake.issued[0].at + timedelta(days=7)


def test_the_fake_hands_an_open_order_out_again(world: FakeWorld) -> None:
    """Same account, names and profile: two certificates would get one order."""
    first = begin(world, "open.example.com")
    assert begin(world, "open.example.com", ca=first.ca).order.url == first.order.url
    assert begin(world, "open2.example.com", ca=first.ca).order.url != first.order.url
    world.fake.reuse_orders = False
    assert begin(world, "open.example.com", ca=first.ca).order.url != first.order.url


def test_the_fake_refuses_a_deactivated_account(world: FakeWorld) -> None:
    """A person must look; it isn't taken for a missing one."""
    key = PrivateKey.generate(KeyType.EC_P256)
    ca = world.session(key)
    world.fake.deactivate_account(ca.new_account())
    with pytest.raises(PermanentError, match="deactivated"):
        ca.new_order(["dead.example.com"])


def test_the_fake_signs_for_as_long_as_it_is_told(world: FakeWorld) -> None:
    """By profile, else by its validity."""
    world.fake.validity = timedelta(minutes=10)
    world.fake.profiles = {"short": timedelta(minutes=1)}
    outcome = begin(world, "validity.example.com").finish()
    assert leaf_of(outcome.chain).lifetime == timedelta(minutes=10)
    world.profile = "short"
    outcome = begin(world, "validity.example.com").finish()
    assert leaf_of(outcome.chain).lifetime == timedelta(minutes=1)
