"""Rehearsals: after failed validations, and by hand; and what never waits for one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from certbaton.model import (
    Account,
    CaTrouble,
    CertificateSpec,
    EnsureAccount,
    Failure,
    FailureKind,
    IssuerSpec,
    Journal,
    Outcome,
    PendingOrder,
    Plan,
    Rehearsal,
    Rehearse,
    SecretVersion,
    Snapshot,
    WaitKind,
)
from core.build import (
    DAY,
    DIRECTORY,
    HOUR,
    MINUTE,
    NAMES,
    NOW,
    SECOND,
    SHOP,
    a_failure,
    a_pending,
    a_service,
    a_snapshot,
    a_spec,
    a_version,
    kinds,
    planned,
)

STAGE = IssuerSpec("stage", "https://stage.example/d")
CA = IssuerSpec("ca", DIRECTORY, rehearsal=STAGE)
SPEC = a_spec(issuer=CA)
THERE = Account(STAGE.directory, "https://stage.example/1")
DUE = a_version("due", begins=NOW - 61 * DAY, served={SHOP: "wire"})
FRESH = a_version("fresh", begins=NOW - DAY, served={SHOP: "wire"})
DYING = a_version("dying", begins=NOW - 86 * DAY, served={SHOP: "wire"})
NO_SUCH_RECORD = a_failure(
    retry_at=NOW - SECOND, at=NOW - HOUR, kind=FailureKind.VALIDATION, message="no such record"
)


def world(
    version: SecretVersion = DUE,
    failure: Failure | None = NO_SUCH_RECORD,
    rehearsal: Rehearsal | None = None,
    *,
    asked: timedelta | None = None,
    accounts: Sequence[Account] = (THERE,),
    away: Mapping[str, CaTrouble] | None = None,
    elsewhere: Failure | None = None,
    pending: PendingOrder | None = None,
) -> Snapshot:
    """A due version whose last order failed in validation; *asked* so long ago by hand."""
    failures = {DIRECTORY: failure} if failure else {}
    if elsewhere:
        failures[STAGE.directory] = elsewhere
    return a_snapshot(
        version,
        services=[a_service(names=version)],
        accounts=accounts,
        journal=Journal(
            failures=failures,
            rehearsal=rehearsal,
            rehearsal_asked=NOW - asked if asked is not None else None,
            pending=pending,
        ),
        ca_troubles=away,
    )


def ended(
    outcome: Outcome, ago: timedelta = MINUTE, *, waits: timedelta | None = None
) -> Rehearsal:
    """A rehearsal for the names of today."""
    return Rehearsal(
        STAGE.directory,
        NOW - ago,
        NAMES,
        outcome=outcome,
        message="still no record",
        count=1 if outcome is Outcome.FAILED else 0,
        retry_at=NOW + waits if waits is not None else None,
    )


def rehearse(found: Plan) -> Rehearse:
    (action,) = found.actions
    assert isinstance(action, Rehearse)
    return action


# --- before an order ------------------------------------------------------------------------------


def test_after_a_failed_validation_the_rehearsal_comes_first() -> None:
    """At the issuer's rehearsal directory; no order is begun meanwhile."""
    action = rehearse(planned(world(), SPEC))
    assert (action.issuer, action.spec, action.asked) == (STAGE, SPEC, None)


def test_its_account_is_made_first() -> None:
    """As any other account."""
    for accounts in ((), (replace(THERE, url=None),)):
        (action,) = planned(world(accounts=accounts), SPEC).actions
        assert isinstance(action, EnsureAccount) and action.issuer == STAGE


AWAY = {STAGE.directory: CaTrouble(1, NOW, NOW, "connection refused")}
OUR_KEY = replace(THERE, rolling=True)
NO_ACCOUNT = a_failure(retry_at=NOW + HOUR, kind=FailureKind.ACCOUNT)
STRAIGHT: dict[str, tuple[Snapshot, CertificateSpec]] = {
    "nothing failed": (world(failure=None), SPEC),
    "something else failed": (
        world(failure=replace(NO_SUCH_RECORD, kind=FailureKind.LIMIT)),
        SPEC,
    ),
    "CAA forbids it": (world(failure=replace(NO_SUCH_RECORD, kind=FailureKind.CAA)), SPEC),
    "the issuer has no rehearsal": (world(), a_spec()),
    "it passed since": (world(rehearsal=ended(Outcome.PASSED)), SPEC),
    "it could not tell": (world(rehearsal=ended(Outcome.SKIPPED)), SPEC),
    "it passed at that very moment": (world(rehearsal=ended(Outcome.PASSED, HOUR)), SPEC),
    "what is there is dangerously late": (world(DYING), SPEC),
    "what is there has expired": (world(a_version(begins=NOW - 91 * DAY)), SPEC),
    "dangerously late, and one is open": (world(DYING, rehearsal=ended(Outcome.OPEN)), SPEC),
    "dangerously late, and it failed": (
        world(DYING, rehearsal=ended(Outcome.FAILED, waits=HOUR)),
        SPEC,
    ),
    "its CA does not answer": (world(away=AWAY), SPEC),
    "its CA refuses us an account": (world(elsewhere=NO_ACCOUNT, accounts=()), SPEC),
    "its account's key is being changed": (world(accounts=(OUR_KEY,)), SPEC),
}


@pytest.mark.parametrize(("snapshot", "spec"), STRAIGHT.values(), ids=STRAIGHT)
def test_production_goes_straight_on_where(snapshot: Snapshot, spec: CertificateSpec) -> None:
    """A rehearsal is for failed validations, and holds nothing up that it cannot tell about."""
    found = kinds(planned(snapshot, spec).actions)
    assert found[0] == "StageOrder"
    assert set(found[1:]) <= {"Rehearse", "RollAccountKey"}


AGAIN: dict[str, Rehearsal] = {
    "it passed before that": ended(Outcome.PASSED, 2 * HOUR),
    "it is open": ended(Outcome.OPEN),
    "it failed, and its back-off is over": ended(Outcome.FAILED, waits=timedelta(0)),
    "one elsewhere passed": replace(ended(Outcome.PASSED), directory="https://other.example/d"),
    "one of other names passed": replace(ended(Outcome.PASSED), names=NAMES[:1]),
}


@pytest.mark.parametrize("rehearsal", AGAIN.values(), ids=AGAIN)
def test_it_is_made_again_or_gone_on_with(rehearsal: Rehearsal) -> None:
    """Until one has passed since the failure, for these names, there."""
    rehearse(planned(world(rehearsal=rehearsal), SPEC))


def test_production_waits_while_a_rehearsal_fails() -> None:
    """By the rehearsal's own back-off, and its own words."""
    found = planned(world(rehearsal=ended(Outcome.FAILED, waits=10 * MINUTE)), SPEC)
    assert found.actions == ()
    (wait,) = [wait for wait in found.waits if wait.kind is WaitKind.BACK_OFF]
    assert wait.until == NOW + 10 * MINUTE and "still no record" in wait.what


def test_production_waits_for_no_rehearsal_past_the_dangerous_moment() -> None:
    """It wakes up at that very moment, and orders."""
    dying = a_version("dying", begins=NOW - 85 * DAY, served={SHOP: "wire"})
    snapshot = world(dying, rehearsal=ended(Outcome.FAILED, waits=DAY))
    found = planned(snapshot, SPEC)
    dangerous = NOW + 5 * DAY - 90 * DAY / 20
    assert found.actions == () and found.waits[0].until == dangerous
    assert kinds(planned(snapshot, SPEC, now=dangerous).actions)[0] == "StageOrder"


def test_it_waits_for_the_back_off_of_the_order_that_failed() -> None:
    """It stands for the next one; the CA of production may have named that time."""
    waiting = replace(NO_SUCH_RECORD, retry_at=NOW + MINUTE)
    assert planned(world(failure=waiting), SPEC).actions == ()
    rehearse(planned(world(failure=waiting), SPEC, now=NOW + MINUTE))


def test_a_certificate_that_never_was_is_rehearsed_too() -> None:
    """Nothing of it runs out: there is no danger in it."""
    snapshot = replace(world(), versions=())
    rehearse(planned(snapshot, SPEC))


# --- by hand --------------------------------------------------------------------------------------


def test_by_hand_it_goes_though_nothing_is_due() -> None:
    """Nor has anything failed; the answer bears the time of the question."""
    action = rehearse(planned(world(FRESH, None, asked=MINUTE), SPEC))
    assert (action.issuer, action.asked) == (STAGE, NOW - MINUTE)


def test_an_answer_ends_it() -> None:
    """That of the same question, or of a later one; an earlier answer does not."""
    for answered, goes in ((MINUTE, False), (SECOND, False), (HOUR, True)):
        rehearsal = replace(ended(Outcome.PASSED), asked=NOW - answered)
        found = planned(world(FRESH, None, rehearsal, asked=MINUTE), SPEC)
        assert kinds(found.actions) == (["Rehearse"] if goes else [])


def test_one_that_was_begun_goes_on() -> None:
    """With the question that it answers, asked or not."""
    for ago in (None, MINUTE):
        asked = NOW - ago if ago else None
        rehearsal = replace(ended(Outcome.OPEN), asked=asked)
        assert rehearse(planned(world(FRESH, None, rehearsal, asked=ago), SPEC)).asked == asked


def test_one_of_names_that_are_not_asked_for_any_more_does_not() -> None:
    """Nobody waits for it: it is taken back."""
    rehearsal = replace(ended(Outcome.OPEN), names=NAMES[:1])
    action = rehearse(planned(world(FRESH, None, rehearsal), SPEC))
    assert action.ends and action.issuer.directory == STAGE.directory


def test_one_where_nobody_rehearses_any_more_is_taken_back() -> None:
    """Whoever switches rehearsals off may do so as one does not end."""
    off = replace(SPEC, issuer=replace(SPEC.issuer, rehearsal=None))
    assert rehearse(planned(world(FRESH, None, ended(Outcome.OPEN)), off)).ends


def test_by_hand_no_back_off_holds_it() -> None:
    """Somebody mended something, and waits."""
    rehearsal = ended(Outcome.FAILED, waits=DAY)
    assert rehearse(planned(world(rehearsal=rehearsal, asked=SECOND), SPEC)).asked is not None
    waiting = replace(NO_SUCH_RECORD, retry_at=NOW + DAY)
    assert rehearse(planned(world(failure=waiting, asked=SECOND), SPEC)).asked is not None


def test_one_rehearsal_answers_both() -> None:
    """The one before an order, and the question."""
    assert rehearse(planned(world(asked=MINUTE), SPEC)).asked == NOW - MINUTE


def test_the_order_comes_first() -> None:
    """What is due is not held up by a question."""
    found = planned(world(failure=None, asked=MINUTE), SPEC)
    assert kinds(found.actions) == ["StageOrder", "Rehearse"]
    found = planned(world(failure=None, asked=MINUTE, pending=a_pending()), SPEC)
    assert kinds(found.actions) == ["AdvanceOrder", "Rehearse"]


def test_its_account_is_made_for_the_question_too() -> None:
    """And nothing else."""
    (action,) = planned(world(FRESH, None, asked=MINUTE, accounts=()), SPEC).actions
    assert isinstance(action, EnsureAccount) and action.issuer == STAGE


def test_by_hand_it_waits_for_its_ca() -> None:
    """Until that answers again, or takes an account."""
    for snapshot, until in (
        (world(FRESH, None, asked=MINUTE, away=AWAY), NOW + MINUTE),
        (world(FRESH, None, asked=MINUTE, elsewhere=NO_ACCOUNT), NOW + HOUR),
    ):
        found = planned(snapshot, SPEC)
        assert found.actions == () and until in {wait.until for wait in found.waits}


def test_while_paused_it_is_not_made_and_it_is_told() -> None:
    """It would write challenges as any other order does."""
    found = planned(world(FRESH, None, asked=MINUTE), replace(SPEC, paused=True))
    assert found.actions == ()
    assert any("paused: the rehearsal that was asked for shop" in note for note in found.notes)


def test_without_a_rehearsal_directory_it_is_told() -> None:
    """The command refuses it already; the configuration may have changed since."""
    found = planned(world(FRESH, None, asked=MINUTE), a_spec())
    assert found.actions == ()
    assert any("no issuer of it has a rehearsal directory" in note for note in found.notes)


def test_another_issuers_rehearsal_will_do() -> None:
    """Where the one that is asked for orders has none."""
    spec = a_spec(issuer=replace(CA, rehearsal=None), fallbacks=[replace(CA, directory="d2")])
    assert rehearse(planned(world(FRESH, None, asked=MINUTE), spec)).issuer == STAGE
