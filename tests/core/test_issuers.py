"""CAs in a row: which one is asked, and when the next one is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from certbaton.core.issuers import choose_issuer
from certbaton.core.limits import wish
from certbaton.core.need import need
from certbaton.core.renewal import fits, late_time
from certbaton.model import (
    CaTrouble,
    EnsureAccount,
    Failure,
    FailureKind,
    OrderRecord,
    Outcome,
    Reason,
    Rehearsal,
    SecretVersion,
    WaitKind,
)
from core.build import (
    DAY,
    HOUR,
    MINUTE,
    NAMES,
    NOW,
    POLICY,
    SHOP,
    a_pending,
    a_snapshot,
    a_version,
    kinds,
    planned,
)
from core.row import (
    DUE,
    FIRST,
    LATE,
    LATE_AT,
    ROW,
    SECOND_CA,
    SPEC,
    STAGE,
    THIRD,
    failed,
    outage,
    staged,
    world,
)

# --- the choice ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """What is there, and who is asked next."""

    asked: str
    versions: tuple[SecretVersion, ...] = (DUE,)
    failures: Mapping[str, Failure] = field(default_factory=dict)
    away: Mapping[str, CaTrouble] = field(default_factory=dict)
    rehearsal: Rehearsal | None = None


FOR_GOOD = failed(kind=FailureKind.ACCOUNT, waits=DAY)
PAST_LATE = failed(waits=15 * DAY, named=True)
CHOICES: dict[str, Case] = {
    "all is well: the first": Case("first"),
    "nothing is there yet: the first": Case("first", ()),
    # failures
    "one failure, and time enough": Case("first", failures={"first": failed(1, HOUR)}),
    "two over a day": Case("first", failures={"first": failed(2, DAY)}),
    "three within the hour": Case("first", failures={"first": failed(3, 59 * MINUTE)}),
    "three over an hour": Case("second", failures={"first": failed(3, HOUR)}),
    "forty over an hour": Case("second", failures={"first": failed(40, HOUR)}),
    "one, and what is there is late": Case("second", (LATE,), {"first": failed()}),
    "one, and nothing is there": Case("second", (), {"first": failed()}),
    "one, and what is there is not what is asked for": Case(
        "second",
        (a_version(names=NAMES[:1], directory=FIRST.directory),),
        {"first": failed()},
    ),
    "one, and what is there is revoked": Case(
        "second", (replace(DUE, revoked=a_version(revoked="x").revoked),), {"first": failed()}
    ),
    "the account is refused": Case("second", failures={"first": FOR_GOOD}),
    "the CA names a time past late": Case("second", failures={"first": PAST_LATE}),
    "the CA names a time before late": Case(
        "first", failures={"first": failed(waits=13 * DAY, named=True)}
    ),
    "our own back-off goes past late": Case("first", failures={"first": failed(waits=15 * DAY)}),
    "an old Journal does not say since when": Case(
        "first", failures={"first": replace(failed(3, HOUR), first_at=None)}
    ),
    # rehearsals stand for orders that were spared
    "one failure and two failed rehearsals": Case(
        "second",
        failures={"first": failed(1, HOUR, kind=FailureKind.VALIDATION)},
        rehearsal=Rehearsal(STAGE.directory, NOW, NAMES, outcome=Outcome.FAILED, count=2),
    ),
    "one failure and a rehearsal of before": Case(
        "first",
        failures={"first": failed(1, HOUR, kind=FailureKind.VALIDATION)},
        rehearsal=Rehearsal(STAGE.directory, NOW - DAY, NAMES, outcome=Outcome.FAILED, count=9),
    ),
    # the CA itself
    "three outages over an hour": Case("second", away={"first": outage(3, HOUR)}),
    "three within the hour, though": Case("first", away={"first": outage(3, 59 * MINUTE)}),
    "one outage": Case("first", away={"first": outage(1, DAY)}),
    "one outage, and it is late": Case("second", (LATE,), away={"first": outage(1, MINUTE)}),
    "one outage, and nothing is there": Case("second", (), away={"first": outage(1, MINUTE)}),
    "it is away until past late, it says": Case(
        "second", away={"first": outage(1, MINUTE, NOW + 15 * DAY)}
    ),
    # the next one
    "the second refuses, too": Case("third", failures={"first": FOR_GOOD, "second": FOR_GOOD}),
    "the second had bad luck once": Case(
        "second", failures={"first": FOR_GOOD, "second": failed()}
    ),
    "the second is away": Case(
        "third", failures={"first": FOR_GOOD}, away={"second": outage(3, HOUR)}
    ),
    # all of them
    "all are out: the soonest": Case(
        "second",
        (LATE,),
        {"first": failed(waits=HOUR), "second": failed(waits=MINUTE), "third": failed(waits=DAY)},
    ),
    "all are out, and all may be tried: the first": Case(
        "first", (LATE,), {"first": failed(), "second": failed(), "third": failed()}
    ),
}


@pytest.mark.parametrize("case", CHOICES.values(), ids=CHOICES)
def test_who_is_asked(case: Case) -> None:
    """For each renewal the first one, unless it is out of the running."""
    snapshot = world(
        *case.versions, failures=case.failures, away=case.away, rehearsal=case.rehearsal
    )
    chosen = choose_issuer(SPEC, snapshot, POLICY, NOW)
    assert chosen.issuer.name == case.asked
    assert (chosen.instead is not None) is (case.asked != "first")


@pytest.mark.parametrize("lasts", [MINUTE, 160 * HOUR, 45 * DAY, 90 * DAY], ids=str)
def test_three_failures_over_a_share_of_the_life(lasts: timedelta) -> None:
    """An hour, or a fiftieth of a short life: nothing is a number of days."""
    version = a_version(
        begins=NOW - lasts * 0.7, lasts=lasts, directory=FIRST.directory, served={SHOP: "wire"}
    )
    span = min(HOUR, lasts / 50)
    for since, asked in ((span * 0.99, "first"), (span, "second")):
        snapshot = world(version, failures={"first": failed(3, since)})
        assert choose_issuer(SPEC, snapshot, POLICY, NOW).issuer.name == asked


def test_one_ca_alone_is_asked_whatever_it_did() -> None:
    """When it may be asked again; and nobody speaks of another one."""
    spec = replace(SPEC, fallbacks=())
    found = planned(world(LATE, failures={"first": replace(FOR_GOOD, count=9)}), spec)
    assert kinds(found.actions) == []
    assert [wait.until for wait in found.waits if wait.kind is WaitKind.BACK_OFF] == [NOW + DAY]
    assert not [note for note in found.notes if "fallback" in note]


NOW_ASKED = wish(SPEC.names, SPEC.key_type, None)
EARLIER = wish(("typo.example",), SPEC.key_type, None)
ABOUT: dict[str, tuple[Failure, bool]] = {
    "these names": (replace(failed(4, waits=DAY), wish=NOW_ASKED), True),
    "nobody knows what": (failed(4, waits=DAY), True),
    "other names": (replace(failed(4, waits=DAY), wish=EARLIER), False),
    "other names, of which the CA named a time": (
        replace(failed(4, waits=DAY, named=True), wish=EARLIER), True
    ),
    "other names, by a limit": (
        replace(failed(4, waits=DAY, kind=FailureKind.LIMIT), wish=EARLIER), True
    ),
    "other names, of a refused account": (
        replace(failed(4, waits=DAY, kind=FailureKind.ACCOUNT), wish=EARLIER), True
    ),
    "a profile that is not required any more": (
        replace(failed(4, waits=DAY, kind=FailureKind.PROFILE), wish=NOW_ASKED), False
    ),
}  # fmt: skip


@pytest.mark.parametrize(("failure", "holds"), ABOUT.values(), ids=ABOUT)
def test_a_failure_holds_what_it_is_about(failure: Failure, holds: bool) -> None:
    """Who corrects the configuration is not made to wait for a mistake that is no more."""
    found = planned(world(DUE, failures={"first": failure}), replace(SPEC, fallbacks=()))
    assert kinds(found.actions) == ([] if holds else ["StageOrder"])
    elsewhere = choose_issuer(SPEC, world(LATE, failures={"first": failure}), POLICY, NOW)
    assert elsewhere.issuer.name == ("second" if holds else "first")


# --- what is planned -----------------------------------------------------------------------------


def test_the_next_one_is_asked_at_once_and_it_is_told_why() -> None:
    """The back-off of one CA is none of another's."""
    failures = {"first": replace(PAST_LATE, message="paused: see https://ca.example/unpause")}
    found = planned(world(DUE, failures=failures), SPEC)
    action = staged(found)
    assert action.issuer == SECOND_CA and action.spec == SPEC
    (note,) = [note for note in found.notes if note.startswith("fallback: ")]
    assert "second is asked in place of first" in note
    assert "https://ca.example/unpause" in note and note in action.why


def test_an_account_is_made_where_it_is_asked() -> None:
    """Not before, and not elsewhere."""
    there = world(DUE, failures={"first": FOR_GOOD})
    without = {k: v for k, v in there.accounts.items() if k != SECOND_CA.directory}
    found = planned(replace(there, accounts=without), SPEC)
    (action,) = [a for a in found.actions if isinstance(a, EnsureAccount)]
    assert action.issuer == SECOND_CA
    none_elsewhere = {FIRST.directory: there.accounts[FIRST.directory]}
    assert staged(planned(replace(world(DUE), accounts=none_elsewhere), SPEC)).issuer == FIRST


def test_both_waits_are_told() -> None:
    """When it is tried again, and when the next CA takes its place; each its exact moment."""
    failures = {"first": failed(3, 20 * MINUTE, waits=100 * MINUTE)}
    found = planned(world(DUE, failures=failures), SPEC)
    waits = {wait.until: wait for wait in found.waits if wait.kind is WaitKind.BACK_OFF}
    assert set(waits) == {NOW + 100 * MINUTE, NOW + 40 * MINUTE}
    assert waits[NOW + 40 * MINUTE].what == "another CA is asked in place of first"
    later = planned(world(DUE, failures=failures), SPEC, now=NOW + 40 * MINUTE)
    assert staged(later).issuer == SECOND_CA


def test_late_comes_as_a_wake_up() -> None:
    """From then on one failure is enough."""
    found = planned(world(DUE, failures={"first": failed(waits=20 * DAY)}), SPEC)
    assert NOW + 14 * DAY in {wait.until for wait in found.waits}
    assert DUE.leaf is not None and late_time(DUE.leaf, POLICY) == LATE_AT
    later = planned(world(DUE, failures={"first": failed(waits=20 * DAY)}), SPEC, now=LATE_AT)
    assert staged(later).issuer == SECOND_CA


FOUR = tuple(OrderRecord(NOW - n * DAY, FIRST.directory, NAMES) for n in (1, 2, 3, 4))


def test_our_own_limit_is_per_ca_and_leads_to_no_other() -> None:
    """It stops what goes round in circles; at the next CA that would go on."""
    found = planned(world(LATE, issued=FOUR), SPEC)
    assert kinds(found.actions) == []
    assert any("our own limit" in wait.what for wait in found.waits)
    found = planned(world(LATE, issued=FOUR, failures={"first": failed()}), SPEC)
    assert staged(found).issuer == SECOND_CA


def test_a_fallback_whose_limit_is_reached_is_passed_over() -> None:
    """The third is asked; and where that is out as well, whoever may be asked soonest."""
    four = tuple(replace(record, directory=SECOND_CA.directory) for record in FOUR)
    found = planned(world(LATE, issued=four, failures={"first": failed()}), SPEC)
    assert staged(found).issuer == THIRD
    out = {"first": failed(waits=HOUR), "third": failed(waits=DAY)}
    assert choose_issuer(SPEC, world(LATE, issued=four, failures=out), POLICY, NOW).issuer == FIRST


def test_after_a_success_the_first_is_asked_again() -> None:
    """An order that ended well clears the failures: nothing else is remembered."""
    came = a_version(
        "came",
        begins=NOW - 61 * DAY,
        directory=SECOND_CA.directory,
        profile="short",
        served={SHOP: "wire"},
    )
    assert staged(planned(world(came), SPEC)).issuer == FIRST


# --- what fits -----------------------------------------------------------------------------------

FITTING: dict[str, tuple[SecretVersion, Reason | None]] = {
    "of the first": (a_version(directory=FIRST.directory), None),
    "of a fallback, with its profile": (
        a_version(directory=SECOND_CA.directory, profile="short"),
        None,
    ),
    "of a fallback, by a preferred profile's fallback": (
        replace(a_version(directory=SECOND_CA.directory, profile="short"), profile_got=None),
        None,
    ),
    "of a fallback, with the first one's profile": (
        a_version(directory=SECOND_CA.directory),
        Reason.REQUEST_CHANGED,
    ),
    "of none of them": (a_version(), Reason.INCORRECT_ISSUER),
}


@pytest.mark.parametrize(("version", "reason"), FITTING.values(), ids=FITTING)
def test_a_version_of_any_listed_issuer_fits(version: SecretVersion, reason: Reason | None) -> None:
    """Which of them issued it is no reason for another."""
    assert fits(version, SPEC) is (reason is None)
    found = need(SPEC, a_snapshot(version), POLICY, NOW)
    assert (found.reason if found else None) is reason


def test_what_came_without_a_profile_fits_until_that_is_required() -> None:
    """The order that was placed without it then is no use either; one without a URL is."""
    preferred = replace(SECOND_CA, profile_required=False)
    required = replace(SECOND_CA, profile_required=True)
    without = a_version(directory=SECOND_CA.directory, profile="short", served={SHOP: "wire"})
    got = replace(without, profile_got="short")
    for issuer, version, fitting in (
        (preferred, without, True),
        (required, without, False),
        (required, got, True),
    ):
        assert fits(version, replace(SPEC, issuer=issuer, fallbacks=())) is fitting
    spec = replace(SPEC, issuer=required, fallbacks=())
    found = need(spec, a_snapshot(without), POLICY, NOW)
    assert found is not None and found.reason is Reason.REQUEST_CHANGED
    assert "profile short is required" in found.why and "the CA's default" in found.why
    pending = a_pending(
        directory=SECOND_CA.directory, account_url=f"{SECOND_CA.directory}/1", profile="short"
    )
    for order, kind in (
        (pending, "DropOrder"),
        (replace(pending, profile_got="short"), "AdvanceOrder"),
        (replace(pending, url=None), "AdvanceOrder"),
    ):
        assert kinds(planned(world(without, pending=order), spec).actions) == [kind]


def test_the_words_of_a_wrong_issuer_name_all_that_are_asked_for() -> None:
    """And the one that it came from."""
    found = need(SPEC, a_snapshot(a_version()), POLICY, NOW)
    assert found is not None
    for issuer in ROW:
        assert issuer.directory in found.why
