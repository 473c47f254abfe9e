"""``certbaton rehearse``: a request in the Journal, and the daemon's answer there."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from certbaton.cluster.store import Store
from certbaton.commands.certificates import rehearse
from certbaton.errors import ConfigurationError
from certbaton.model import Failure, FailureKind, Journal, Outcome, Rehearsal
from commands.place import LAB, NOW, SPEC, STAGING, Place

MINUTE = timedelta(minutes=1)


def journal(place: Place) -> Journal:
    found = place.store.journal("shop")
    assert found is not None
    return found


def answers(place: Place, outcome: Outcome, message: str = "") -> None:
    """Let the daemon answer whatever is asked, at its third look."""

    def daemon(store: Store) -> None:
        there = store.journal("shop")
        assert there is not None
        if place.now >= NOW + timedelta(seconds=3):
            result = Rehearsal(
                STAGING,
                place.now,
                outcome=outcome,
                message=message,
                asked=there.rehearsal_asked,
            )
            store.save_journal("shop", replace(there, rehearsal=result), keep_key=True)

    place.daemon = daemon


@pytest.mark.parametrize(
    ("outcome", "code", "words"),
    [
        (Outcome.PASSED, 0, "passed"),
        (Outcome.FAILED, 1, "failed: 403 from port 80"),
        (Outcome.SKIPPED, 1, "could not be rehearsed: 403 from port 80"),
    ],
)
def test_the_daemons_answer_is_printed(
    place: Place, outcome: Outcome, code: int, words: str
) -> None:
    """And is the exit code."""
    answers(place, outcome, "" if outcome is Outcome.PASSED else "403 from port 80")
    assert rehearse(place.desk, "shop", MINUTE) == code
    assert words in place.said[-1]
    assert STAGING in place.output


def test_without_an_answer_it_ends_with_6_and_the_request_stands(place: Place) -> None:
    """One that is under way is no answer."""
    answers(place, Outcome.OPEN)
    assert rehearse(place.desk, "shop", MINUTE) == 6
    assert place.now == NOW + MINUTE
    assert journal(place).rehearsal_asked == NOW


def test_given_again_it_waits_for_the_same_answer(place: Place) -> None:
    """The daemon tries once."""
    rehearse(place.desk, "shop", MINUTE)
    answers(place, Outcome.PASSED)
    assert rehearse(place.desk, "shop", MINUTE) == 0
    assert journal(place).rehearsal_asked == NOW


def test_an_answer_to_an_earlier_request_is_none(place: Place) -> None:
    """What passed yesterday says nothing of today: it is asked anew."""
    answers(place, Outcome.PASSED)
    rehearse(place.desk, "shop", MINUTE)
    place.daemon = lambda store: None
    later: datetime = place.now
    assert rehearse(place.desk, "shop", MINUTE) == 6
    assert journal(place).rehearsal_asked == later


@pytest.mark.parametrize("elsewhere", [False, True])
def test_an_account_that_is_refused_there_is_an_answer(place: Place, elsewhere: bool) -> None:
    """No rehearsal is begun then. Where orders are placed as well, it may be one of those."""
    refused = Failure("new terms", NOW, 1, NOW + MINUTE, FailureKind.ACCOUNT)
    place.store.save_journal("shop", Journal(failures={STAGING: refused}))
    if elsewhere:
        place.specs = (replace(SPEC, fallbacks=(replace(LAB, directory=STAGING),)),)
    assert rehearse(place.desk, "shop", MINUTE) == (6 if elsewhere else 1)
    assert ("it could not be rehearsed: new terms" in place.output) is not elsewhere
    assert journal(place).rehearsal_asked == NOW


def test_an_open_order_keeps_its_key(place: Place) -> None:
    """The Journal is changed, not written anew."""
    place.open_order("shop")
    key = place.store.pending_key("shop")
    rehearse(place.desk, "shop", timedelta(0))
    assert key is not None
    assert place.store.pending_key("shop") == key
    assert journal(place).pending is not None


def test_an_issuer_without_a_place_to_rehearse_is_told_by_its_key(place: Place) -> None:
    """It is for the operator to say where."""
    place.specs = (replace(SPEC, issuer=replace(LAB, rehearsal=None)),)
    with pytest.raises(ConfigurationError, match=r"issuers\.lab\.rehearsal"):
        rehearse(place.desk, "shop", MINUTE)
    assert place.hands.writes == []


def test_that_the_certificate_is_paused_is_said(place: Place) -> None:
    """Nobody would answer until then."""
    place.specs = (replace(SPEC, paused=True),)
    assert rehearse(place.desk, "shop", timedelta(0)) == 6
    assert "paused in the configuration" in place.output
