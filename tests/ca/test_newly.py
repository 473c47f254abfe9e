"""Orders that carry what not every CA takes, and what becomes of them where it doesn't."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from certbaton.ca.newly import Placed, ServerErrors, Wish, order_with_fallbacks
from certbaton.ca.problems import Problem, error_for
from certbaton.errors import (
    AccountMissing,
    AccountRefused,
    CaaForbids,
    CaUnavailable,
    PermanentError,
    ProfileRefused,
    RetryableError,
)
from certbaton.model import DirectoryInfo, OrderInfo

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
END = datetime(2026, 12, 24, 12, 0, tzinfo=UTC)
ORDER = OrderInfo("https://ca/order/1", "pending", (), "", None, None)
INFO = DirectoryInfo(frozenset({"newOrder", "renewalInfo"}), {"shortlived": "", "classic": ""})
NAMES = ("a.example.com",)
ALL = Wish(NAMES, "shortlived", replaces="aki.serial", not_after=END)

# What one newOrder carried: profile, replaces, notAfter.
Sent = tuple[str | None, str | None, datetime | None]


@dataclass
class Ca:
    """Refuses what a test says; keeps what it was sent."""

    refusals: list[Exception | None] = field(default_factory=list)
    info: DirectoryInfo = INFO
    sent: list[Sent] = field(default_factory=list)

    def directory(self) -> DirectoryInfo:
        return self.info

    def new_order(
        self,
        names: Sequence[str],
        profile: str | None = None,
        *,
        replaces: str | None = None,
        not_after: datetime | None = None,
    ) -> OrderInfo:
        assert tuple(names) == NAMES
        self.sent.append((profile, replaces, not_after))
        error = self.refusals.pop(0) if self.refusals else None
        if error is not None:
            raise error
        return ORDER


def refusal(status: int, kind: str, detail: str = "its words") -> Exception:
    return error_for("newOrder", Problem(status, kind, detail), NOW)


def place(ca: Ca, wish: Wish = ALL, **more: int) -> Placed:
    return order_with_fallbacks(ca, wish, **more)  # type: ignore[arg-type]


def test_everything_is_sent_where_the_ca_takes_it() -> None:
    """In one request; and what it carried is told, for the Journal."""
    ca = Ca()
    assert place(ca) == Placed(ORDER, "shortlived", "aki.serial", END, ())
    assert ca.sent == [("shortlived", "aki.serial", END)]


@pytest.mark.parametrize(
    ("sentence", "error"),
    [
        ("it is replaced already", refusal(409, "alreadyReplaced")),
        ("its replacement is open", refusal(409, "conflict")),
        ("a CA that never heard of it", refusal(404, "malformed", "no such authority key")),
        ("another account's", refusal(403, "unauthorized")),
        ("a CA that knows no such field", refusal(400, "malformed", "unknown field replaces")),
        ("some word of tomorrow", refusal(400, "somethingNew")),
    ],
)
def test_a_predecessor_that_is_refused_is_left_out_at_once(sentence: str, error: Exception) -> None:
    """It earns a privilege, no more; profile and end stay."""
    ca = Ca([error])
    placed = place(ca)
    assert (placed.profile, placed.replaces, placed.not_after) == ("shortlived", None, END)
    assert ca.sent == [("shortlived", "aki.serial", END), ("shortlived", None, END)]
    assert placed.notes == (f"ordered without replaces: {error}",)


@pytest.mark.parametrize(
    "error", [refusal(429, "rateLimited"), refusal(503, "rateLimited"), CaUnavailable("cut")]
)
def test_what_passes_by_itself_is_raised(error: RetryableError) -> None:
    """A limit is not asked around: without the predecessor it would count all the more."""
    ca = Ca([error])
    with pytest.raises(type(error)):
        place(ca)
    assert len(ca.sent) == 1


def test_a_forgotten_account_is_nobody_s_fault() -> None:
    """The same order comes again, with its predecessor, when the account is there."""
    ca = Ca([refusal(400, "accountDoesNotExist")])
    with pytest.raises(AccountMissing):
        place(ca)
    assert len(ca.sent) == 1


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (refusal(403, "unauthorized"), AccountRefused),
        (refusal(403, "caa"), CaaForbids),
        (refusal(400, "rejectedIdentifier"), PermanentError),
    ],
)
def test_a_refusal_that_stays_is_raised(error: Exception, expected: type[Exception]) -> None:
    """After one more request; the end of the certificate has nothing to do with it."""
    ca = Ca([error, error])
    with pytest.raises(expected):
        place(ca)
    assert ca.sent == [("shortlived", "aki.serial", END), ("shortlived", None, END)]


def test_an_end_that_is_refused_is_left_out_and_the_predecessor_stays() -> None:
    """Let's Encrypt takes no notAfter, and says so before it looks at anything else."""
    error = refusal(400, "malformed", "NotBefore and NotAfter are not supported")
    ca = Ca([error])
    placed = place(ca)
    assert (placed.replaces, placed.not_after) == ("aki.serial", None)
    assert placed.notes[0].startswith("ordered without notAfter: ")


def test_an_end_that_is_refused_without_a_word_is_left_out_last() -> None:
    """Where the CA doesn't say which, the predecessor goes first."""
    error = refusal(400, "malformed", "bad request")
    ca = Ca([error, error])
    assert place(ca).not_after is None
    assert [sent[1:] for sent in ca.sent] == [("aki.serial", END), (None, END), (None, None)]


def test_a_preferred_profile_that_is_refused_is_left_out() -> None:
    """invalidProfile, although the directory lists it."""
    ca = Ca([refusal(400, "invalidProfile")])
    placed = place(ca)
    assert (placed.profile, placed.replaces) == (None, "aki.serial")


def test_a_preferred_profile_that_is_not_listed_is_not_sent() -> None:
    """The directory is the only authority: no request is spent on it."""
    ca = Ca()
    placed = place(ca, Wish(NAMES, "tlsclient"))
    assert ca.sent == [(None, None, None)]
    assert "does not list profile 'tlsclient'; it lists classic, shortlived" in placed.notes[0]


def test_a_ca_that_refuses_every_profile_and_none_lacks_no_required_one() -> None:
    """That would be looked for daily, and not waited for where the configuration requires none."""
    ca = Ca([refusal(400, "invalidProfile"), refusal(400, "invalidProfile")])
    with pytest.raises(PermanentError, match="invalidProfile") as found:
        place(ca, Wish(NAMES, "classic"))
    assert not isinstance(found.value, ProfileRefused)


def test_a_required_profile_is_never_left_out() -> None:
    """Neither where it isn't listed, without a request, nor where it is refused."""
    ca = Ca()
    with pytest.raises(ProfileRefused, match="it lists classic, shortlived; to do: correct"):
        place(ca, Wish(NAMES, "tlsclient", required=True))
    assert ca.sent == []
    ca = Ca([refusal(400, "invalidProfile")])
    with pytest.raises(ProfileRefused, match="invalidProfile"):
        place(ca, Wish(NAMES, "classic", required=True, replaces="aki.serial"))
    assert len(ca.sent) == 1


def test_a_predecessor_is_not_sent_where_there_is_no_renewal_information() -> None:
    """RFC 9773 section 5: the directory says whether the CA knows of it. Nothing is told."""
    ca = Ca(info=DirectoryInfo(frozenset({"newOrder"}), {"shortlived": ""}))
    assert place(ca).notes == ()
    assert ca.sent == [("shortlived", None, END)]


def busy() -> Exception:
    """A failure of the CA's own that says when to come back."""
    return error_for("newOrder", Problem(500, "serverInternal", "", retry_after=HOUR), NOW)


def test_after_two_server_errors_it_goes_without_its_predecessor() -> None:
    """Pebble answers 500 to an unknown one: three requests, and no pause for all of its orders."""
    broken = refusal(500, "serverInternal")
    ca, told = Ca([broken, broken]), list[str]()
    assert order_with_fallbacks(ca, ALL, say=told.append).replaces is None
    assert [sent[1] for sent in ca.sent] == ["aki.serial", "aki.serial", None]
    assert "failed twice" in told[0]


def test_one_server_error_costs_no_predecessor() -> None:
    """The second request has it, too."""
    ca = Ca([refusal(500, "serverInternal")])
    assert place(ca).replaces == "aki.serial"
    assert len(ca.sent) == 2


def test_a_ca_that_is_broken_is_asked_three_times_at_most() -> None:
    """It is the CA's failure then; without a predecessor it is asked once."""
    broken = refusal(500, "serverInternal")
    for wish, requests in ((ALL, 3), (Wish(NAMES), 1)):
        ca = Ca([broken] * 9)
        with pytest.raises(CaUnavailable):
            place(ca, wish)
        assert len(ca.sent) == requests


def test_a_ca_that_says_when_is_obeyed_first() -> None:
    """Twice; then it goes without."""
    ca, errors, told = Ca([busy(), busy()]), ServerErrors(), list[str]()
    for _ in range(2):
        with pytest.raises(CaUnavailable):
            errors.place(ca, "shop", ALL, told.append)
    assert told == []
    assert errors.place(ca, "shop", ALL, told.append).replaces is None
    assert [sent[1] for sent in ca.sent] == ["aki.serial", "aki.serial", None]
    assert "failed 2 times in a row" in told[0]


def test_server_errors_are_counted_in_a_row_and_each_certificate_by_itself() -> None:
    """An order that came through begins anew; a network error proves nothing."""
    ca, errors = Ca([busy(), None, busy(), CaUnavailable("cut"), busy()]), ServerErrors()
    for certificate in ("shop", "shop", "shop", "shop", "mail"):
        try:
            errors.place(ca, certificate, ALL)
        except CaUnavailable:
            continue
    assert errors.place(ca, "shop", ALL).replaces == "aki.serial"
    assert errors.place(ca, "mail", ALL).replaces == "aki.serial"
