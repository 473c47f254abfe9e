"""CAs in a row: what becomes of an open order, and of a CA that does not answer."""

from __future__ import annotations

from dataclasses import replace

from certbaton.model import (
    AdvanceOrder,
    CaTrouble,
    CertificateSpec,
    DropOrder,
    FailureKind,
    IssuerSpec,
    WaitKind,
)
from core.build import (
    DAY,
    HOUR,
    MINUTE,
    NOW,
    SHOP,
    a_leaf,
    a_version,
    kinds,
    planned,
)
from core.row import (
    DUE,
    FIRST,
    LATE,
    SECOND_CA,
    SPEC,
    THIRD,
    an_order,
    failed,
    outage,
    staged,
    world,
)

# --- an order that is open -----------------------------------------------------------------------


def test_an_open_order_at_a_ca_that_is_passed_over_is_dropped() -> None:
    """As soon as the next one can be asked; in the next look it is."""
    failures = {"first": failed(kind=FailureKind.ACCOUNT, waits=DAY)}
    order = an_order(FIRST)
    (action,) = planned(world(DUE, failures=failures, pending=order), SPEC).actions
    assert isinstance(action, DropOrder) and action.pending == order
    assert "second is asked in place of first" in action.why
    assert staged(planned(world(DUE, failures=failures), SPEC)).issuer == SECOND_CA


def test_one_that_may_have_been_signed_is_awaited() -> None:
    """Whatever its CA does: a certificate would be lost, and counted all the same."""
    order = an_order(FIRST, finalizing=True)
    for failures, away in (
        ({"first": failed(9, DAY)}, {}),
        ({}, {"first": outage(9, DAY)}),
        ({"first": failed(kind=FailureKind.ACCOUNT)}, {}),
    ):
        found = planned(world(LATE, failures=failures, away=away, pending=order), SPEC)
        (action,) = found.actions
        assert isinstance(action, AdvanceOrder) and not action.finish_only
        assert [n for n in found.notes if "second is asked once the order at" in n]
    waiting = {"first": failed(9, DAY, waits=HOUR)}
    found = planned(world(LATE, failures=waiting, pending=order), SPEC)
    assert found.actions == () and NOW + HOUR in {wait.until for wait in found.waits}


def test_an_open_order_stays_while_the_next_ca_cannot_be_asked_either() -> None:
    """It is dropped when that one's time comes."""
    failures = {
        "first": failed(kind=FailureKind.ACCOUNT, waits=DAY),
        "second": failed(waits=MINUTE),
    }
    snapshot = world(DUE, failures=failures, pending=an_order(FIRST))
    found = planned(snapshot, SPEC)
    assert found.actions == () and NOW + MINUTE in {wait.until for wait in found.waits}
    assert kinds(planned(snapshot, SPEC, now=NOW + MINUTE).actions) == ["DropOrder"]


def test_an_open_order_at_a_fallback_goes_on_when_the_first_is_well_again() -> None:
    """It was begun, and its CA is in the running: nobody goes back and forth."""
    found = planned(world(DUE, pending=an_order(SECOND_CA)), SPEC)
    (action,) = found.actions
    assert isinstance(action, AdvanceOrder) and not action.finish_only


def test_with_all_out_an_open_order_goes_on_where_it_is() -> None:
    """If it may be asked as soon as any other."""
    failures = {"first": failed(), "second": failed(), "third": failed()}
    found = planned(world(LATE, failures=failures, pending=an_order(THIRD)), SPEC)
    assert kinds(found.actions) == ["AdvanceOrder"]


def test_an_order_that_nobody_needs_any_more_goes_on_where_it_is() -> None:
    """No other CA is asked for what is not wanted."""
    fresh = a_version(directory=FIRST.directory, served={SHOP: "wire"})
    out = {"first": failed(9, DAY)}
    found = planned(world(fresh, failures=out, pending=an_order(FIRST)), SPEC)
    assert kinds(found.actions) == ["AdvanceOrder"]


def test_an_order_at_a_ca_that_left_the_list_is_dropped_or_awaited() -> None:
    """No account is made there for it."""
    gone = IssuerSpec("gone", "https://gone.example/d")
    assert kinds(planned(world(DUE, pending=an_order(gone)), SPEC).actions) == ["DropOrder"]
    found = planned(world(DUE, pending=an_order(gone, finalizing=True)), SPEC)
    (action,) = found.actions
    assert isinstance(action, AdvanceOrder) and action.finish_only


def test_a_profile_is_compared_with_its_own_cas() -> None:
    """The second one's is short, the first one's the default."""
    wrong = replace(an_order(SECOND_CA), profile=None)
    assert kinds(planned(world(DUE, pending=wrong), SPEC).actions) == ["DropOrder"]
    assert kinds(planned(world(DUE, pending=an_order(SECOND_CA)), SPEC).actions) == ["AdvanceOrder"]


# --- a CA that does not answer --------------------------------------------------------------------


def alone() -> CertificateSpec:
    return replace(SPEC, fallbacks=())


def test_a_ca_that_does_not_answer_is_left_alone_until_its_pause_is_over() -> None:
    """Neither an account, an order, nor one that is open; at that very moment it is tried."""
    trouble = CaTrouble(2, NOW - MINUTE, NOW, "HTTP 503")
    for pending in (None, an_order(FIRST), an_order(FIRST, finalizing=True)):
        snapshot = world(DUE, away={"first": trouble}, pending=pending)
        for there in (snapshot, replace(snapshot, accounts={})):
            found = planned(there, alone())
            assert found.actions == ()
            (wait,) = [wait for wait in found.waits if "does not answer" in wait.what]
            assert (wait.until, wait.kind) == (NOW + 2 * MINUTE, WaitKind.BACK_OFF)
            assert planned(there, alone(), now=wait.until).actions


def test_one_probes_for_all() -> None:
    """The others wait until that is known, and look again soon."""
    trouble = replace(outage(2, HOUR), probing="blog")
    found = planned(world(DUE, away={"first": trouble}), alone())
    assert found.actions == ()
    (wait,) = [wait for wait in found.waits if "blog tries it" in wait.what]
    assert NOW < wait.until <= NOW + MINUTE
    mine = planned(world(DUE, away={"first": replace(trouble, probing="shop")}), alone())
    assert kinds(mine.actions) == ["StageOrder"]


def test_what_needs_no_ca_does_not_wait_for_one() -> None:
    """A certificate that was downloaded only has to be stored."""
    stored = replace(an_order(FIRST, finalizing=True), chain="PEM")
    trouble = CaTrouble(5, NOW - HOUR, NOW, "HTTP 503")
    found = planned(world(DUE, away={"first": trouble}, pending=stored), SPEC)
    assert kinds(found.actions) == ["AdvanceOrder"]


def test_a_short_life_waits_for_no_half_hour() -> None:
    """A fiftieth of its life at most: whoever asks."""
    short = a_version(
        begins=NOW - HOUR / 2 - MINUTE, lasts=HOUR, directory=FIRST.directory, served={SHOP: "wire"}
    )
    trouble = CaTrouble(9, NOW - MINUTE, NOW, "HTTP 503")
    found = planned(world(short, away={"first": trouble}), alone())
    (wait,) = [wait for wait in found.waits if "does not answer" in wait.what]
    assert wait.until == NOW + HOUR / 50


# --- dangerously late ------------------------------------------------------------


def test_a_servers_own_time_holds_even_then() -> None:
    """Its Retry-After is obeyed in full; so is a back-off of ours."""
    dying = replace(LATE, leaf=a_leaf("dying", begins=NOW - 89 * DAY))
    for failure in (failed(waits=HOUR, named=True), failed(waits=HOUR)):
        found = planned(world(dying, failures={"first": failure}), alone())
        assert found.actions == () and NOW + HOUR in {wait.until for wait in found.waits}
    away = {"first": CaTrouble(1, NOW, NOW, "busy", NOW + 3 * HOUR)}
    found = planned(world(dying, away=away), alone())
    assert found.actions == () and NOW + 3 * HOUR in {wait.until for wait in found.waits}
