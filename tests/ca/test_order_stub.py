"""Driving an order at a CA that does what Pebble never does: every status, and what is lost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from ca.one_order import Ca, words_of
from ca.stub import Handler, Reply, Stub, json_reply, problem
from certbaton.ca.order import Failed, Issued, Unfinished, abandon
from certbaton.errors import CaUnavailable, RateLimited
from certbaton.model import FailureKind


@pytest.fixture
def ca(stub: Stub) -> Ca:
    return Ca(stub)


# --- what an order may say --------------------------------------------------------------------


def test_from_pending_to_the_certificate(ca: Ca) -> None:
    """The usual way, with a CA that signs while we wait."""
    ca.order("pending", "ready", "processing", "valid")
    assert isinstance(ca.advance(), Issued)
    assert ca.asked() == [
        "/order", "/authorization/a.example.com", "/challenge/a.example.com",
        "/order", "/finalize", "/order", "/certificate",
    ]  # fmt: skip


def test_ready_at_once(ca: Ca) -> None:
    """Nothing is presented, and no authorization read."""
    ca.order("ready", "valid")
    assert isinstance(ca.advance(), Issued)
    assert ca.asked() == ["/order", "/finalize", "/certificate"]
    assert ca.presented == []


def test_processing_when_we_come_back(ca: Ca) -> None:
    """Finalized by a process that is gone: it isn't finalized again."""
    ca.order("processing", "processing", "valid")
    assert isinstance(ca.advance(), Issued)
    assert "/finalize" not in ca.asked()


def test_valid_when_we_come_back(ca: Ca) -> None:
    """Two requests."""
    ca.order("valid")
    assert isinstance(ca.advance(), Issued)
    assert ca.asked() == ["/order", "/certificate"]


def test_an_order_that_falls_back_is_followed(ca: Ca) -> None:
    """From two of a CA's servers, one behind the other; challenges are not answered again."""
    ca.order("pending", "ready", "pending", "ready", "valid")
    assert isinstance(ca.advance(), Issued)
    assert ca.asked().count("/challenge/a.example.com") == 1


def test_processing_for_minutes_is_left_to_the_journal(ca: Ca) -> None:
    """After two of them, with a look each minute."""
    ca.order("processing")
    outcome = ca.advance()
    assert isinstance(outcome, Unfinished)
    assert outcome.retry_after == timedelta(minutes=1)
    assert 115 <= sum(ca.slept) <= 120
    asked = len(ca.asked())
    assert asked < 30
    assert ca.advance(answered=outcome.answered) == outcome
    assert len(ca.asked()) == asked + 1
    ca.order("valid")
    assert isinstance(ca.advance(answered=outcome.answered), Issued)


def test_patience_begins_anew_for_the_signing(ca: Ca) -> None:
    """Validated after minutes, signed in seconds: the certificate need not wait for a next call."""
    ca.order("ready", "processing", "processing", "valid")
    assert isinstance(ca.advance(answered=True), Issued)
    assert sum(ca.slept) > 2


@pytest.mark.parametrize("status", ["expired", "deactivated", "revoked"])
def test_an_order_that_is_over_without_words(ca: Ca, status: str) -> None:
    """Statuses of authorizations, which CAs have given to orders too."""
    ca.order(status)
    outcome = ca.advance()
    assert outcome == Failed(
        f"the CA will not issue: the order is {status}, and the CA gives no reason"
    )


@pytest.mark.parametrize("status", [404, 410])
def test_an_order_that_is_gone(ca: Ca, stub: Stub, status: int) -> None:
    """Let's Encrypt forgets orders that have expired."""
    stub.reply("/order", problem(stub, status, "malformed"))
    outcome = ca.advance()
    assert isinstance(outcome, Failed)
    assert (outcome.names, outcome.kind) == ((), FailureKind.OTHER)


@pytest.mark.parametrize("status", ["expired", "deactivated", "revoked"])
def test_an_authorization_that_ran_out_ends_the_order(ca: Ca, status: str) -> None:
    """A new order has new ones; no name has failed, and nothing was answered."""
    ca.authorizations["a.example.com"] = ca.authorization(status)
    ca.order("pending")
    assert ca.advance() == Failed(
        f"the CA will not issue: a.example.com: its authorization is {status}"
    )
    assert "/challenge/a.example.com" not in ca.asked()


def test_an_authorization_that_is_gone_ends_the_order(ca: Ca, stub: Stub) -> None:
    """It expires before its order does."""
    ca.order("pending")
    stub.reply("/authorization/a.example.com", problem(stub, 404, "malformed"))
    assert isinstance(ca.advance(), Failed)


def test_a_valid_authorization_is_reused(stub: Stub) -> None:
    """Only what is pending is presented and answered."""
    ca = Ca(stub, ("a.example.com", "b.example.com"))
    ca.authorizations["a.example.com"] = ca.authorization("valid")
    ca.order("pending", "ready", "valid")
    assert isinstance(ca.advance(), Issued)
    assert [each.name for each in ca.presented] == ["b.example.com"]
    assert [each for each in ca.asked() if "challenge" in each] == ["/challenge/b.example.com"]


def test_an_order_that_is_handed_out_again_goes_on(ca: Ca) -> None:
    """Its challenge was answered before the process died: present it, and let the CA look."""
    ca.authorizations["a.example.com"] = ca.authorization("pending", "processing")
    ca.order("pending", "ready", "valid")
    assert isinstance(ca.advance(), Issued)
    assert [each.name for each in ca.presented] == ["a.example.com"]
    assert "/challenge/a.example.com" not in ca.asked()


# --- what is lost -----------------------------------------------------------------------------


def cut(handler: Handler) -> None:
    handler.close_connection = True


@pytest.mark.parametrize(
    ("path", "statuses"),
    [
        ("/challenge/a.example.com", ("pending", "ready", "valid")),
        ("/finalize", ("ready", "valid")),
    ],
)
def test_a_lost_answer_is_made_up_for_by_looking(
    ca: Ca, stub: Stub, path: str, statuses: tuple[str, ...]
) -> None:
    """The CA did it, and we never heard: the next call finds the order further on."""
    ca.order(*statuses)
    stub.reply(path, cut)
    with pytest.raises(CaUnavailable):
        ca.advance()
    ca.order("valid")
    assert isinstance(ca.advance(), Issued)
    assert ca.asked().count(path) == 1


def test_a_certificate_that_is_not_there_yet_is_waited_for(ca: Ca, stub: Stub) -> None:
    """It was signed: another order would be a second one."""
    ca.order("valid")
    stub.reply("/certificate", *([problem(stub, 404, "malformed")] * 2))
    assert isinstance(ca.advance(), Issued)
    assert ca.asked().count("/certificate") == 3


def test_a_certificate_that_stays_away_is_left_to_the_journal(ca: Ca, stub: Stub) -> None:
    """Until the order is given up."""
    ca.order("valid")
    stub.reply("/certificate", *([problem(stub, 404, "malformed")] * 99))
    outcome = ca.advance()
    assert isinstance(outcome, Unfinished)
    assert outcome.what == "the order is valid at the CA"


def test_a_refused_look_keeps_its_time(ca: Ca, stub: Stub) -> None:
    """On errors Retry-After is no floor, but obeyed in full, however long."""
    ca.order("processing")
    stub.reply("/order", problem(stub, 429, "rateLimited", Retry_After="86400"))
    with pytest.raises(RateLimited) as caught:
        ca.advance()
    assert caught.value.retry_at is not None
    assert caught.value.retry_at - datetime.now(UTC) > timedelta(hours=23)


# --- when to look again -----------------------------------------------------------------------


def in_time(at: datetime) -> str:
    return format_datetime(at, usegmt=True)


@pytest.mark.parametrize(
    ("said", "waited"),
    [
        ("3", 3.0),
        ("3.5", 0.25),  # no number of seconds, and no date
        ("0", 0.25),
        ("-5", 0.25),
        ("Wed, 25 Nov 2026 12:00:07 GMT", 7.0),
        ("Wed, 25 Nov 2026 21:00:07 +0900", 7.0),
        ("Wed, 25 Nov 2026 11:00:00 GMT", 0.25),
    ],
)
def test_retry_after_on_a_look(ca: Ca, said: str, waited: float) -> None:
    """Seconds or a date in any zone, by the CA's own clock; the past is now."""
    date = in_time(datetime(2026, 11, 25, 12, 0, tzinfo=UTC))
    ca.order("processing", "valid", Retry_After=said, Date=date)
    assert isinstance(ca.advance(), Issued)
    assert len(ca.slept) == 1
    assert ca.slept[0] == pytest.approx(waited, abs=1.0 if waited > 1 else 0.2)


@pytest.mark.parametrize(
    ("said", "rests"), [("300", 300), ("600", 600), ("601", 600), ("86400", 600)]
)
def test_a_long_retry_after_is_the_journal_s(ca: Ca, said: str, rests: int) -> None:
    """Nothing is slept; beyond ten minutes the order is looked at every ten minutes."""
    ca.order("processing", Retry_After=said)
    outcome = ca.advance()
    assert isinstance(outcome, Unfinished)
    assert outcome.retry_after == timedelta(seconds=rests)
    assert ca.slept == []


# --- what it says of failures -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("problem_type", "kind"),
    [
        ("dns", FailureKind.VALIDATION),
        ("connection", FailureKind.VALIDATION),
        ("unauthorized", FailureKind.VALIDATION),
        ("incorrectResponse", FailureKind.VALIDATION),
        ("tls", FailureKind.VALIDATION),
        ("caa", FailureKind.CAA),
        ("serverInternal", FailureKind.OTHER),
        ("rejectedIdentifier", FailureKind.OTHER),
    ],
)
def test_a_failed_validation_is_told_by_its_problem(
    ca: Ca, problem_type: str, kind: FailureKind
) -> None:
    """With the CA's words, whichever it is."""
    said = words_of(problem_type, "what it saw")
    ca.authorizations["a.example.com"] = ca.authorization("invalid", error=said)
    ca.order("invalid")
    outcome = ca.advance()
    assert isinstance(outcome, Failed)
    assert outcome.kind is kind
    assert outcome.names == ("a.example.com",)
    words = f"the CA will not issue: a.example.com: what it saw ({problem_type})"
    assert outcome.message.partition("; to do: ")[0] == words


def test_each_name_has_its_own_words(stub: Stub) -> None:
    """Sorted; those that passed are not named. What counts most decides what comes next."""
    ca = Ca(stub, ("c.example.com", "b.example.com", "a.example.com"))
    for name, kind in (("c.example.com", "dns"), ("a.example.com", "caa")):
        error = words_of(kind, f"words on {name}")
        ca.authorizations[name] = ca.authorization("invalid", error=error)
    ca.authorizations["b.example.com"] = ca.authorization("valid")
    ca.order("invalid")
    outcome = ca.advance()
    assert isinstance(outcome, Failed)
    assert outcome.names == ("a.example.com", "c.example.com")
    assert outcome.kind is FailureKind.CAA
    assert outcome.message.startswith(
        "the CA will not issue: a.example.com: words on a.example.com (caa); "
        "c.example.com: words on c.example.com (dns)"
    )
    assert "b.example.com" not in outcome.message


def test_an_internationalized_name_is_told_in_both_forms(stub: Stub) -> None:
    """People look for what they wrote; what is counted against us is the name that the CA knows."""
    name = "xn--mh-via.example.com"
    ca = Ca(stub, (name,))
    ca.authorizations[name] = ca.authorization("invalid", error=words_of("dns", "no such name"))
    ca.order("invalid")
    outcome = ca.advance()
    assert isinstance(outcome, Failed)
    assert outcome.names == (name,)
    assert f"mäh.example.com ({name}): no such name" in outcome.message


def test_an_order_s_own_words_count_where_no_name_failed(ca: Ca) -> None:
    """As where CAA changed after the validation: subproblems by name."""
    ca.authorizations["a.example.com"] = ca.authorization("valid")
    error = words_of("caa", "while finalizing", ("a.example.com", "caa", "CAA forbids"))
    ca.order("invalid", error=error)
    outcome = ca.advance()
    assert isinstance(outcome, Failed)
    assert outcome.kind is FailureKind.CAA
    assert "while finalizing" in outcome.message
    assert "a.example.com: CAA forbids" in outcome.message
    assert outcome.names == ()


# --- giving up --------------------------------------------------------------------------------


def test_only_pending_authorizations_are_deactivated(stub: Stub) -> None:
    """And one that is decided in the same moment, or gone, keeps none of the others."""
    ca = Ca(stub, ("a.example.com", "b.example.com", "c.example.com", "d.example.com"))
    ca.authorizations["a.example.com"] = ca.authorization("valid")
    ca.order("pending")
    deactivated: list[str] = []

    def deactivate(reply: Reply) -> Reply:
        def replying(handler: Handler) -> None:
            deactivated.append(handler.path.rpartition("/")[2])
            reply(handler)

        return replying

    refusals = {
        "b.example.com": problem(stub, 400, "malformed"),
        "c.example.com": problem(stub, 404, "malformed"),
        "d.example.com": json_reply(stub, 200, {"status": "deactivated"}),
    }
    for name, reply in refusals.items():
        stub.reply(f"/authorization/{name}", stub.usual, deactivate(reply))
    abandon(ca.session, f"{stub.url}/order")
    assert deactivated == ["b.example.com", "c.example.com", "d.example.com"]
    bodies = [each.payload for each in stub.requests if each.path == "/authorization/d.example.com"]
    assert bodies == ["", '{"status": "deactivated"}']


@pytest.mark.parametrize("status", ["ready", "processing", "valid"])
def test_a_validated_order_is_left_alone(ca: Ca, status: str) -> None:
    """It has no pending authorizations, and may be issued."""
    ca.order(status)
    abandon(ca.session, f"{ca.stub.url}/order")
    assert ca.asked() == ["/order"]


def test_a_ca_that_is_away_is_told_when_giving_up(ca: Ca, stub: Stub) -> None:
    """The caller decides whether it matters."""
    ca.order("pending")
    stub.reply("/authorization/a.example.com", problem(stub, 503, "serverInternal"))
    with pytest.raises(CaUnavailable):
        abandon(ca.session, f"{stub.url}/order")
