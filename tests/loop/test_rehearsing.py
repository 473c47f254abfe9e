"""Rehearsals: after validations that failed, at another directory, and never a certificate."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from certbaton import caa
from certbaton.cluster import Kind
from certbaton.errors import CaUnavailable, RateLimited
from certbaton.model import (
    CertificateSpec,
    ChallengeInfo,
    FailureKind,
    IssuerSpec,
    KeyType,
    Outcome,
    Rehearsal,
)
from certbaton.pki import PrivateKey
from fakes.ca import DIRECTORY, FakeCa
from loop.world import DAY, MINUTE, SECOND, Process, World, a_spec, settle

HOUR = 60 * MINUTE
STAGE = "https://stage.test/directory"
STAGING = IssuerSpec("stage", STAGE)
ISSUER = IssuerSpec("lab", DIRECTORY, rehearsal=STAGING)
ONE = replace(a_spec("one", "one"), issuer=ISSUER)


def refused(challenge: ChallengeInfo) -> str:
    return "no such record"


def after_a_failure(lasts: timedelta = 90 * DAY) -> tuple[World, FakeCa, Process]:
    """A renewal is due, its first try failed to validate, and its pause is over."""
    world = World(ONE)
    world.ca.validity = lasts
    stage = world.add_ca(STAGE)
    process = world.process()
    settle(world, process)
    assert stage.calls == []
    world.now += lasts * 61 / 90
    world.ca.validate = lambda challenge: "no such record"
    process.turn("one")
    failure = process.journal("one").failures[DIRECTORY]
    assert failure.kind is FailureKind.VALIDATION
    world.ca.validate = world.validate
    world.now = failure.retry_at
    return world, stage, process


def last(process: Process) -> Rehearsal:
    rehearsal = process.journal("one").rehearsal
    assert rehearsal is not None
    return rehearsal


def test_after_a_failed_validation_another_directory_is_tried_first() -> None:
    """It ends where it would be finalized; then production is asked, once."""
    world, stage, process = after_a_failure()
    settle(world, process)
    assert last(process).outcome is Outcome.PASSED
    assert "finalize" not in stage.calls and stage.issued == []
    assert len(world.ca.issued) == 2
    assert world.answers == {}
    tls = [obj for obj in world.api.all(Kind.SECRET).values() if "tls.crt" in obj["data"]]
    assert len(tls) == 2


def test_production_waits_while_the_rehearsal_fails() -> None:
    """With a back-off of its own; the CA's limit of failed validations is left alone."""
    world, stage, process = after_a_failure()
    stage.validate = lambda challenge: "no such record"
    asked = len(world.ca.calls)
    pauses = []
    for count in (1, 2, 3):
        report = process.turn("one")
        assert any("the rehearsal at stage failed" in sentence for sentence in report.failed)
        rehearsal = last(process)
        assert (rehearsal.outcome, rehearsal.count) == (Outcome.FAILED, count)
        assert rehearsal.retry_at is not None
        pauses.append((rehearsal.retry_at - world.now) / MINUTE)
        world.now = rehearsal.retry_at
    assert len(world.ca.calls) == asked
    assert [round(pause / meant) for pause, meant in zip(pauses, (1, 10, 100), strict=True)] == [
        1,
        1,
        1,
    ]
    stage.validate = world.validate
    settle(world, process)
    assert len(world.ca.issued) == 2


@pytest.mark.parametrize(
    "error",
    [CaUnavailable("no route"), RateLimited("too many", retry_at=None)],
    ids=["unreachable", "limited"],
)
@pytest.mark.parametrize("request_", ["newAccount", "newOrder", "authorization"])
def test_a_rehearsal_that_cannot_tell_holds_nothing_up(request_: str, error: Exception) -> None:
    """Production goes on in the same turn."""
    world, stage, process = after_a_failure()
    stage.fail(request_, error)
    process.turn("one")
    settle(world, process)
    assert len(world.ca.issued) == 2
    assert process.journal("one").failures.get(DIRECTORY) is None
    assert world.now < world.ca.issued[0].at + 62 * DAY


@pytest.mark.parametrize(
    ("advice", "outcome"),
    [
        (caa.Advice(pinned=True), Outcome.SKIPPED),
        (caa.Advice(complete=False), Outcome.SKIPPED),
        (caa.Advice(), Outcome.FAILED),
    ],
    ids=["pinned", "not known", "not pinned"],
)
def test_caa_of_an_account_says_nothing_of_the_real_one(
    advice: caa.Advice, outcome: Outcome
) -> None:
    """Records that pin an account forbid the rehearsal's, whatever they do to ours."""
    world, stage, process = after_a_failure()
    stage.caa_forbids = frozenset({"one.example"})
    world.caa = advice
    process.turn("one")
    assert last(process).outcome is outcome
    assert len(world.ca.issued) == (2 if outcome is Outcome.SKIPPED else 1)


def test_what_only_the_rehearsals_ca_lacks_holds_nothing_up() -> None:
    """It offers no challenge that our solver answers."""
    world, stage, process = after_a_failure()
    stage.challenge_types = ("tls-alpn-01",)
    process.turn("one")
    assert last(process).outcome is Outcome.SKIPPED and len(world.ca.issued) == 2


def test_a_rehearsal_that_is_given_up_leaves_nothing_pending_at_its_ca() -> None:
    """A CA counts pending authorizations, those of its staging too."""
    world, stage, process = after_a_failure()
    stage.fail("challenge", RateLimited("slow down", retry_at=world.now + DAY))
    settle(world, process)
    assert last(process).outcome is Outcome.SKIPPED
    assert stage.calls.count("deactivateAuthorization") == 1
    assert len(world.ca.issued) == 2


def test_a_rehearsal_goes_on_where_it_stood() -> None:
    """Its order is in the Journal: a new process places no other one."""
    world, stage, process = after_a_failure()
    stage.validation_time = 10 * MINUTE
    process.turn("one")
    open_ = last(process)
    assert open_.outcome is Outcome.OPEN and open_.url is not None
    settle(world, world.process(), turns=40)
    assert stage.calls.count("newOrder") == 1
    assert len(world.ca.issued) == 2 and world.answers == {}


def test_a_rehearsal_asked_for_by_hand() -> None:
    """At once, whatever is due; its answer is that very request's, and nothing is issued."""
    world = World(ONE)
    stage = world.add_ca(STAGE)
    process = world.process()
    settle(world, process)
    journal = process.journal("one")
    process.cluster.store.save_journal("one", replace(journal, rehearsal_asked=world.now))
    asked = world.now
    process.turn("one")
    assert (last(process).outcome, last(process).asked) == (Outcome.PASSED, asked)
    assert stage.issued == [] and len(world.ca.issued) == 1
    calls = len(stage.calls)
    world.now += MINUTE
    process.turn("one")
    assert len(stage.calls) == calls


def test_a_rehearsal_counts_on_from_those_that_failed_before_it() -> None:
    """Also in a new process."""
    world, stage, process = after_a_failure()
    stage.validate = lambda challenge: "no such record"
    process.turn("one")
    world.now += 2 * MINUTE
    process = world.process()
    process.turn("one")
    assert last(process).count == 2


def test_an_order_of_another_certificate_is_left_alone() -> None:
    """Its CA is the one that issues for that one, and hands its open order out again."""
    world = World(ONE)
    stage = world.add_ca(STAGE)
    stage.validation_time = timedelta(days=1)
    two = replace(a_spec("two"), names=ONE.names, issuer=STAGING)
    process = world.process(ONE, two)
    settle(world, process)
    process.turn("two")
    assert process.journal("two").pending is not None
    journal = process.journal("one")
    process.cluster.store.save_journal("one", replace(journal, rehearsal_asked=world.now))
    process.turn("one")
    assert last(process).outcome is Outcome.SKIPPED
    assert "is to end in a certificate" in last(process).message


def test_an_account_that_its_ca_forgot_is_made_anew() -> None:
    """The rehearsal is skipped for that once."""
    world, stage, process = after_a_failure()
    stage.validation_time = 10 * MINUTE
    process.turn("one")
    stage.forget()
    world.now += 2 * MINUTE
    settle(world, process)
    assert last(process).outcome is Outcome.SKIPPED
    account = process.cluster.store.account(STAGE)
    assert account is not None and account.url is None
    assert len(world.ca.issued) == 2 and world.answers == {}


@pytest.mark.parametrize("kept", [timedelta(0), 30 * DAY], ids=["order", "authorization"])
def test_a_rehearsal_that_passed_spares_the_next_one_nothing(kept: timedelta) -> None:
    """Its CA would hand the same order out again, or know the names: they are taken back."""
    world = World(ONE)
    stage = world.add_ca(STAGE)
    stage.authorization_reuse = kept
    process = world.process()
    settle(world, process)
    for validate, outcome in ((world.validate, Outcome.PASSED), (refused, Outcome.FAILED)):
        world.now += MINUTE
        journal = process.journal("one")
        process.cluster.store.save_journal("one", replace(journal, rehearsal_asked=world.now))
        stage.validate = validate
        process.turn("one")
        assert last(process).outcome is outcome
    assert not [order for order in stage.orders() if order.status in ("pending", "ready")]


def ask(world: World, process: Process, name: str) -> None:
    journal = process.journal(name)
    process.cluster.store.save_journal(name, replace(journal, rehearsal_asked=world.now))


@pytest.mark.parametrize("shared", [True, False], ids=["one name", "none"])
@pytest.mark.parametrize("by_hand", [False, True], ids=["order", "rehearsal"])
def test_what_another_order_there_rests_on_is_not_taken_back(by_hand: bool, shared: bool) -> None:
    """One that is to end in a certificate, or another certificate's rehearsal."""
    world = World(ONE)
    stage = world.add_ca(STAGE)
    names = ("one.example", "two.example") if shared else ("two.example",)
    two = replace(a_spec("two"), names=names, issuer=ISSUER if by_hand else STAGING)
    stage.authorization_reuse = 30 * DAY
    process = world.process(ONE, two)
    settle(world, process)
    if by_hand:
        settle(world, process, "two")
        ask(world, process, "two")
    stage.validation_time = 10 * MINUTE
    process.turn("two")
    ask(world, process, "one")
    stage.validation_time = timedelta(0)
    process.turn("one")
    assert last(process).outcome is Outcome.PASSED
    assert ("deactivateAuthorization" in stage.calls) is not shared
    world.now += 20 * MINUTE
    settle(world, process, "two")
    if by_hand:
        found = process.journal("two").rehearsal
        assert found is not None and found.outcome is Outcome.PASSED
    assert len(stage.issued) == (0 if by_hand else 1)


@pytest.mark.parametrize("lasts", [90 * DAY, 6 * DAY])
def test_production_waits_an_hour_at_most_for_a_rehearsal_that_does_not_end(
    lasts: timedelta,
) -> None:
    """Or a fiftieth of the lifetime, as for a CA that fails: staging may be stuck for days."""
    world, stage, process = after_a_failure(lasts)
    stage.validation_time = 5 * DAY
    began = world.now
    while len(world.ca.issued) == 1:
        report = process.turn("one")
        assert report.next_at is not None and world.now < began + 2 * HOUR
        world.now = max(world.now + SECOND, report.next_at)
    assert last(process).outcome is Outcome.SKIPPED
    assert world.answers == {}
    assert min(HOUR, lasts / 50) <= world.ca.issued[1].at - began < min(HOUR, lasts / 50) * 1.2


@pytest.mark.parametrize(
    "changed",
    [
        replace(ONE, names=("one.example", "uno.example")),
        replace(ONE, issuer=replace(ISSUER, rehearsal=None)),
    ],
    ids=["names", "switched off"],
)
def test_one_that_is_open_is_taken_back_where_the_configuration_changes(
    changed: CertificateSpec,
) -> None:
    """Its answers would stay up, and its authorizations pending at its CA."""
    world, stage, process = after_a_failure()
    stage.validation_time = 10 * MINUTE
    process.turn("one")
    url = last(process).url
    assert url is not None and world.answers
    stage.validation_time = timedelta(0)
    settle(world, world.process(changed))
    assert world.answers == {}
    assert [order.status for order in stage.orders() if order.url == url] == ["invalid"]
    assert last(process).outcome is not Outcome.OPEN
    assert len(world.ca.issued) == 2


def test_one_that_is_open_on_another_account_is_begun_anew() -> None:
    """Somebody imported one; that one cannot go on with the order of the one before."""
    world, stage, process = after_a_failure()
    stage.validation_time = 10 * MINUTE
    process.turn("one")
    first, store = last(process), process.cluster.store
    key = PrivateKey.generate(KeyType.EC_P256)
    url = stage.connect(STAGING, key, None).new_account()
    store.import_account(STAGE, key, url, replacing=True)
    stage.validation_time = timedelta(0)
    settle(world, process)
    assert (last(process).outcome, last(process).account_url) == (Outcome.PASSED, url)
    assert last(process).url != first.url and world.answers == {}
    assert len(world.ca.issued) == 2
