"""
Crashes around each write of what several CAs bring: nothing is lost, nothing is ordered twice.

A fallback, a rehearsal, a change of the account's key, renewal information, and a Secret that
cannot be created for hours. Each story is told once without a crash, which gives its writes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from certbaton import pki
from certbaton.cluster import Cluster, Kind
from certbaton.cluster.answers import Asked
from certbaton.errors import CaUnavailable, CertbatonError, ClusterUnavailable, PermanentError
from certbaton.model import ChallengeInfo, IssuerSpec, KeyType, RenewalAnswer
from crash.world import INSTANCE, LIFETIME, START, Moment, World
from fakes.ca import DIRECTORY, FakeCa
from fakes.ca_session import FakeSession

OTHER = "https://other.test/directory"
UNTIL = START + timedelta(days=63)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@dataclass
class Cas(World):
    """A crash world with a second CA."""

    leaves_answers: bool = False
    refuses: Callable[[Asked], CertbatonError | None] = field(default=lambda asked: None)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.other = FakeCa(
            now=lambda: self.now,
            validity=LIFETIME,
            validate=self._validate,
            before=lambda request: self._ca_hook("before", request),
            after=lambda request: self._ca_hook("after", request),
            directory=OTHER,
        )

    def connect(
        self, issuer: IssuerSpec, key: pki.PrivateKey, account_url: str | None
    ) -> FakeSession:
        ca = self.other if issuer.directory == OTHER else self.ca
        return ca.connect(issuer, key, account_url)

    def _api_hook(self, moment: str) -> Callable[[Asked], None]:
        hook = super()._api_hook(moment)

        def refusing(asked: Asked) -> None:
            error = self.refuses(asked) if moment == "before" else None
            if error is not None:
                raise error
            hook(asked)

        return refusing

    @property
    def issued(self) -> list[tuple[str, timedelta]]:
        """Where and when certificates were issued."""
        found = [(DIRECTORY, each.at - START) for each in self.ca.issued]
        found += [(OTHER, each.at - START) for each in self.other.issued]
        return sorted(found, key=lambda each: each[1])

    def assert_in_order(self) -> None:
        """What is true at the end of each story."""
        assert self.broken == []
        assert [at >= 58 * DAY for _, at in self.issued] == [False, True], self.issued
        assert len(self.versions()) == 1 and self.named() == set(self.versions())
        # what a CA gave to a process that died, and does not tell any more, nobody can know
        assert self.leaves_answers or self.answers == {}, "no challenge is left behind"
        cluster = self.looking()
        journal = cluster.store.journal(self.spec.name)
        assert journal is not None and journal.pending is None and journal.failures == {}

    def looking(self) -> Cluster:
        """The cluster, read anew, as somebody else."""
        cluster = Cluster(self.api.client("user"), INSTANCE, self.targets, now=lambda: self.now)
        cluster.refresh()
        return cluster


# --- the stories ------------------------------------------------------------------------------


def fallback(world: Cas) -> None:
    """The first CA refuses for a while; the renewal begins with it again."""
    world.spec = replace(world.spec, fallbacks=(IssuerSpec("other", OTHER, renewal_info=False),))
    world.ca.blocked = frozenset(world.spec.names)
    world.run(START + 10 * DAY)
    world.ca.blocked = frozenset()
    world.run(UNTIL)
    assert [where for where, _ in world.issued] == [OTHER, DIRECTORY]


def left_order(world: Cas) -> None:
    """The first CA does not validate and goes away: its order is dropped for another one's."""
    world.spec = replace(world.spec, fallbacks=(IssuerSpec("other", OTHER, renewal_info=False),))
    world.ca.validation_time = 30 * DAY
    world.leaves_answers = bool(world.crashes or world.loses)
    hook = world.ca.before

    def before(request: str) -> None:
        if START + timedelta(minutes=4) < world.now < START + 10 * DAY:
            raise CaUnavailable("no route")
        hook(request)

    world.ca.before = before
    world.run(START + 10 * DAY)
    world.ca.validation_time = timedelta(0)
    world.run(UNTIL)
    assert [where for where, _ in world.issued] == [OTHER, DIRECTORY]


def rehearsal(world: Cas) -> None:
    """The renewal fails to validate at first: it is tried at another directory before the next."""
    issuer = replace(world.spec.issuer, rehearsal=IssuerSpec("stage", OTHER, renewal_info=False))
    world.spec = replace(world.spec, issuer=issuer)
    seen: list[str] = []

    def validate(challenge: ChallengeInfo) -> str | None:
        if world.now > START + 50 * DAY and len(seen) < 2:
            seen.append(challenge.url)
            return "no such record"
        return world._validate(challenge)

    world.ca.validate = validate
    world.run(UNTIL)
    assert world.other.issued == [] and "finalize" not in world.other.calls
    assert world.loses or "newOrder" in world.other.calls, "one lost answer, and it is skipped"


def roll_over(world: Cas) -> None:
    """The account gets another key in between, and is the same account."""
    world.ca.resources |= {"keyChange"}
    world.run(START + DAY)
    before = world.looking().store.account(DIRECTORY)
    assert before is not None and before.url is not None
    key = pki.PrivateKey.generate(KeyType.EC_P256)
    world.looking().store.stage_next_key(before, key)
    world.run(UNTIL)
    cluster = world.looking()
    after, stored = cluster.store.account(DIRECTORY), cluster.store.account_key(DIRECTORY)
    assert after is not None and (after.url, after.rolling) == (before.url, False)
    assert stored == key and cluster.store.next_account_key(DIRECTORY) is None
    assert len(world.ca._accounts) == 1


def unstored(error: CertbatonError) -> Callable[[Cas], None]:
    def story(world: Cas) -> None:
        """The renewal's Secret cannot be created for a while; the CA forgets its order then."""
        world.ca.order_lifetime = timedelta(minutes=5)
        until: list[object] = []

        def refuses(asked: Asked) -> CertbatonError | None:
            new = (asked.verb, asked.kind) == ("create", Kind.SECRET)
            if not new or not asked.name.startswith("shop-") or world.now < START + 50 * DAY:
                return None
            until.append(world.now + HOUR / 4) if not until else None
            return error if world.now < until[0] else None  # type: ignore[operator]

        world.refuses = refuses
        world.run(UNTIL)

    return story


def advice(world: Cas) -> None:
    """Renewal information moves the renewal, and is noted on the version."""
    world.spec = replace(world.spec, issuer=replace(world.spec.issuer, renewal_info=True))
    world.ca.resources |= {"renewalInfo"}
    world.ca.advise = lambda leaf: RenewalAnswer(
        leaf.not_before + 58.5 * DAY, leaf.not_before + 58.6 * DAY, "https://ca.test/why", DAY
    )
    world.run(UNTIL)
    assert 58.5 * DAY <= world.issued[1][1] <= 58.7 * DAY, "within the window, or soon after"
    assert len(world.ca.all_orders()) in (2, 3)
    assert any(order.replaces for order in world.ca.all_orders())


# Each with the number of its writes without a crash.
STORIES: dict[str, tuple[Callable[[Cas], None], int]] = {
    "fallback": (fallback, 44),
    "left order": (left_order, 46),
    "rehearsal": (rehearsal, 51),
    "roll-over": (roll_over, 37),
    "quota": (unstored(PermanentError("exceeded quota: secrets=10")), 58),
    "admission": (unstored(PermanentError("admission webhook denied the request")), 58),
    "away": (unstored(ClusterUnavailable("etcdserver: request timed out")), 58),
    "advice": (advice, 41),
}
CASES = [
    pytest.param(story, Moment(when, number), id=f"{name}-{when}-{number}")
    for name, (story, writes) in STORIES.items()
    for number in range(1, writes + 1)
    for when in ("before", "after")
]


@pytest.mark.parametrize("name", STORIES)
def test_each_story_without_a_crash(name: str) -> None:
    """What all others are held against, and the number of its writes."""
    story, writes = STORIES[name]
    world = Cas()
    story(world)
    world.assert_in_order()
    assert len(world.writes) == writes, world.writes


@pytest.mark.parametrize(("story", "moment"), CASES)
def test_a_crash_around_any_write_loses_nothing_and_orders_nothing_twice(
    story: Callable[[Cas], None], moment: Moment
) -> None:
    """Before and after each write to the cluster, and each request that changes a CA."""
    world = Cas(crashes=frozenset({moment}))
    story(world)
    world.assert_in_order()


def lost(what: str) -> CertbatonError:
    """The answer to a write that happened, but that nobody heard."""
    kind = CaUnavailable if what.startswith("acme ") else ClusterUnavailable
    return kind(f"no answer to {what}")


@pytest.mark.parametrize("name", STORIES)
def test_a_lost_answer_to_any_write_loses_nothing_and_orders_nothing_twice(name: str) -> None:
    """The write happened, the process lives on and does not know."""
    story, writes = STORIES[name]
    for number in range(1, writes + 1):
        world = Cas(loses=frozenset({number}), loss=lost)
        try:
            story(world)
            world.assert_in_order()
        except AssertionError as error:
            raise AssertionError(f"the answer to write {number} lost: {error}") from error
