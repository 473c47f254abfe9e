"""When a certificate is due, why, and when it is tried again after a failure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from certbaton.core import renewal
from certbaton.core.limits import next_failure
from certbaton.core.need import CHECKS, need
from certbaton.core.renewal import (
    fits,
    late_time,
    newest_first,
    renewal_time,
    upcoming_version,
    usable,
    wanted_version,
)
from certbaton.model import (
    Failure,
    KeyType,
    Reason,
    SecretVersion,
)
from core.build import (
    DAY,
    HOUR,
    MINUTE,
    NAMES,
    NOW,
    POLICY,
    SECOND,
    a_leaf,
    a_snapshot,
    a_spec,
    a_version,
)

LONG_AGO = NOW - 200 * DAY
STAGING = "https://staging.example/directory"

# --- why ------------------------------------------------------------------------------------

WHY: dict[str, tuple[list[SecretVersion], Reason | None, str]] = {
    "there is no version": ([], Reason.DOES_NOT_EXIST, "there is no version"),
    "the only one cannot be read": (
        [a_version(readable=False)],
        Reason.INVALID_KEY_PAIR,
        "the chain is unreadable",
    ),
    "the key of the only one does not fit": (
        [a_version(flaw="the private key does not fit the certificate")],
        Reason.INVALID_KEY_PAIR,
        "does not fit",
    ),
    "a name was added": (
        [a_version(names=("shop.example",))],
        Reason.REQUEST_CHANGED,
        "shop-1 has shop.example",
    ),
    "a name was taken away": (
        [a_version(names=(*NAMES, "x.example"))],
        Reason.REQUEST_CHANGED,
        "x.example",
    ),
    "another key type is asked for": (
        [a_version(key_type=KeyType.EC_P256)],
        Reason.REQUEST_CHANGED,
        "key type asked for is RSA-2048, Secret certbaton/shop-1 has P-256",
    ),
    "it came from another issuer": (
        [a_version(directory=STAGING)],
        Reason.INCORRECT_ISSUER,
        f"came from {STAGING}",
    ),
    "nobody knows where it came from": (
        [a_version(directory="")],
        Reason.INCORRECT_ISSUER,
        "an unknown one",
    ),
    "it has expired": (
        [a_version(begins=LONG_AGO)],
        Reason.EXPIRED,
        "is not valid at this time",
    ),
    "it is two thirds through its life": (
        [a_version(begins=NOW - 61 * DAY)],
        Reason.RENEWING,
        "was due for renewal",
    ),
    "it is half through its life": ([a_version(begins=NOW - 45 * DAY)], None, ""),
    "it is new": ([a_version(begins=NOW)], None, ""),
    "it begins in four minutes, by this clock": ([a_version(begins=NOW + 4 * MINUTE)], None, ""),
    "the old one is due, and a new one begins in four minutes": (
        [a_version("old", begins=NOW - 61 * DAY), a_version("new", begins=NOW + 4 * MINUTE)],
        None,
        "",
    ),
    "what begins in four minutes does not fit": (
        [a_version(begins=NOW + 4 * MINUTE, names=("x.example",))],
        Reason.REQUEST_CHANGED,
        "x.example",
    ),
    "an internationalized name is no more": (
        [a_version(names=("xn--mh-via.example",))],
        Reason.REQUEST_CHANGED,
        "mäh.example (xn--mh-via.example)",
    ),
    "a broken one is newer than a good one": (
        [a_version("good"), a_version("broken", begins=NOW, flaw="the chain is out of order")],
        None,
        "",
    ),
    "an older one still fits what is asked for again": (
        [a_version("fits"), a_version("changed", begins=NOW, names=("x.example",))],
        None,
        "",
    ),
    "one of another issuer is newer than a good one": (
        [a_version("good"), a_version("foreign", begins=NOW, directory=STAGING)],
        None,
        "",
    ),
}


@pytest.mark.parametrize(("versions", "reason", "words"), WHY.values(), ids=WHY)
def test_why(versions: list[SecretVersion], reason: Reason | None, words: str) -> None:
    """A new version is wanted exactly where none fits that is valid and not yet due."""
    found = need(a_spec(), a_snapshot(*versions), POLICY, NOW)
    assert (found.reason if found else None) == reason
    assert words in (found.why if found else "")


PROFILES: dict[str, tuple[str | None, str | None, str | None]] = {
    "one is asked for": (
        None,
        "shortlived",
        "asked for is shortlived, Secret certbaton/shop-1 was",
    ),
    "another one": ("classic", "shortlived", "was asked for with classic"),
    "none any more": ("shortlived", None, "asked for is the CA's default"),
    "the same": ("classic", "classic", None),
}


@pytest.mark.parametrize(("was", "asked", "words"), PROFILES.values(), ids=PROFILES)
def test_a_change_of_profile(was: str | None, asked: str | None, words: str | None) -> None:
    """It is what was asked for that is compared, whatever the CA made of it."""
    found = need(a_spec(profile=asked), a_snapshot(a_version(profile=was)), POLICY, NOW)
    assert (found.reason if found else None) == (Reason.REQUEST_CHANGED if words else None)
    assert words is None or (found is not None and words in found.why)


@pytest.mark.parametrize(
    "other",
    [
        {"names": ("x.example",)},
        {"key_type": KeyType.EC_P256},
        {"directory": STAGING},
        {"profile": "shortlived"},
        {"flaw": "the chain is out of order"},
        {"readable": False},
    ],
    ids=str,
)
def test_what_was_asked_for_otherwise_does_not_fit(other: dict[str, Any]) -> None:
    """Each on its own, whatever else is right."""
    assert fits(a_version(), a_spec())
    assert not fits(a_version(**other), a_spec())


def test_the_order_of_the_checks() -> None:
    """The first that hits names the reason: what is wrong with all comes with the first fix."""
    everything = {
        "readable": False,
        "names": ("x.example",),
        "directory": STAGING,
        "begins": LONG_AGO,
    }
    reasons = []
    for mended in ([], ["readable"], ["names"], ["directory"]):
        for key in mended:
            del everything[key]
        found = need(a_spec(), a_snapshot(a_version(**everything)), POLICY, NOW)  # type: ignore[arg-type]
        assert found is not None
        reasons.append(found.reason)
    assert reasons == [
        Reason.INVALID_KEY_PAIR,
        Reason.REQUEST_CHANGED,
        Reason.INCORRECT_ISSUER,
        Reason.EXPIRED,
    ]
    assert [check.__name__ for check in CHECKS] == [
        "_exists",
        "_key_fits",
        "_request_same",
        "_issuer_same",
        "_not_revoked",
        "_not_expired",
    ]


def test_since_when() -> None:
    """Renewing is wanted since it was due, Expired since the end, the rest since now."""
    due, ended = a_version(begins=NOW - 70 * DAY), a_version(begins=LONG_AGO)
    assert due.leaf is not None and ended.leaf is not None
    cases = {
        renewal_time("shop", due.leaf, POLICY): [due],
        ended.leaf.not_after: [ended],
        NOW: [],
    }
    for since, versions in cases.items():
        found = need(a_spec(), a_snapshot(*versions), POLICY, NOW)
        assert found is not None and found.since == since


def test_names_with_a_wildcard_are_compared_as_they_are_sorted() -> None:
    """``*.shop.example`` sorts before ``shop.example``, in the specification as in the leaf."""
    names = ("*.shop.example", "shop.example")
    assert need(a_spec(names=names), a_snapshot(a_version(names=names)), POLICY, NOW) is None


# --- which ----------------------------------------------------------------------------------


def test_the_newest_that_fits_and_is_valid_is_wanted() -> None:
    """Neither a newer one that is broken, foreign or not yet valid, nor an older good one."""
    wanted = a_version("wanted", begins=NOW - 2 * DAY)
    versions = [
        a_version("older", begins=NOW - 3 * DAY),
        wanted,
        a_version("broken", begins=NOW - DAY, flaw="x"),
        a_version("unreadable", readable=False),
        a_version("foreign", begins=NOW - DAY, directory=STAGING),
        a_version("other names", begins=NOW - DAY, names=("x.example",)),
        a_version("to come", begins=NOW + SECOND),
    ]
    for some in (versions, versions[::-1]):
        assert wanted_version(a_spec(), some, NOW) == wanted


def test_of_two_with_the_same_beginning_the_name_decides() -> None:
    """So that two processes choose the same one, in whatever order they list."""
    one, two = a_version("a"), a_version("b")
    assert newest_first([two, one]) == newest_first([one, two]) == [one, two]


def test_what_begins_later_is_upcoming_if_it_fits() -> None:
    """The newest of those; one that is valid already is not upcoming."""
    soon, later = a_version("soon", begins=NOW + SECOND), a_version("later", begins=NOW + DAY)
    assert upcoming_version(a_spec(), [soon, later, a_version("now", begins=NOW)], NOW) == later
    foreign = a_version(begins=NOW + DAY, directory=STAGING)
    assert upcoming_version(a_spec(), [foreign], NOW) is None


@pytest.mark.parametrize(
    ("now", "answer"),
    [(NOW - SECOND, False), (NOW, True), (NOW + DAY - SECOND, True), (NOW + DAY, False)],
    ids=["before it begins", "as it begins", "just before its end", "at its end"],
)
def test_usable_from_its_beginning_until_just_before_its_end(now: datetime, answer: bool) -> None:
    """notBefore belongs to it, notAfter does not."""
    assert usable(a_version(begins=NOW, lasts=DAY), now) is answer


# --- when -----------------------------------------------------------------------------------


def part(lasts: timedelta, name: str = "leaf", certificate: str = "shop") -> float:
    """After which share of its life a leaf is due."""
    leaf = a_leaf(name, begins=NOW, lasts=lasts)
    return (renewal_time(certificate, leaf, POLICY) - NOW) / lasts


@pytest.mark.parametrize(
    ("lasts", "share"),
    [
        (90 * DAY, 2 / 3),
        (10 * DAY, 2 / 3),
        (10 * DAY - SECOND, 1 / 2),
        (6 * DAY, 1 / 2),
        (5 * MINUTE, 1 / 2),
    ],
    ids=str,
)
def test_due_after_a_share_of_its_life(lasts: timedelta, share: float) -> None:
    """Two thirds, or half of a short one, give or take a hundredth; never a number of days."""
    assert share - 0.01 <= part(lasts) <= share + 0.01


def test_the_moment_is_the_same_for_ever() -> None:
    """Not only in this process: a hash that changed would move all renewals of a fleet."""
    assert renewal.fraction("shop", "leaf") == pytest.approx(0.373460, abs=1e-6)
    assert part(90 * DAY) == part(90 * DAY)


def test_a_fleet_is_spread_over_the_whole_two_hundredths() -> None:
    """Different certificates, and different leaves of one, are due at different moments."""
    for parts in (
        [part(90 * DAY, certificate=f"c{number}") for number in range(200)],
        [part(90 * DAY, name=f"leaf {number}") for number in range(200)],
    ):
        assert len(set(parts)) == 200
        assert min(parts) < 2 / 3 - 0.0095 and max(parts) > 2 / 3 + 0.0095


def test_late_is_a_sixth_before_the_end() -> None:
    """As the architecture's Rules say."""
    assert late_time(a_leaf(begins=NOW, lasts=90 * DAY), POLICY) == NOW + 75 * DAY


# --- after a failure ------------------------------------------------------------------------


def pauses(count: int, lifetime: timedelta | None = None) -> list[timedelta]:
    """How long is waited after each failure in a row."""
    last: Failure | None = None
    found = []
    for _ in range(count):
        last = next_failure("no luck", last, "shop", lifetime, POLICY, NOW)
        found.append(last.retry_at - NOW)
    return found


def test_the_back_off_follows_its_list_and_stays_at_the_end() -> None:
    """1 min, 10 min, 100 min, a day, and a day ever after: no counter ends the loop."""
    for pause, meant in zip(pauses(7), [*POLICY.back_off, DAY, DAY, DAY], strict=True):
        assert 0.8 * meant <= pause <= 1.2 * meant


def test_the_back_off_never_exceeds_a_fiftieth_of_the_lifetime() -> None:
    """A certificate of an hour cannot wait for a day."""
    for pause in pauses(7, lifetime=HOUR):
        assert pause <= 1.2 * HOUR / 50
    assert pauses(1, lifetime=90 * DAY) == pauses(1)


def test_the_back_off_is_spread_over_two_fifths() -> None:
    """A fleet that failed together tries again one by one; the same failure always then."""

    def pause(name: str) -> float:
        found = next_failure("no luck", None, name, None, POLICY, NOW)
        return (found.retry_at - NOW) / MINUTE

    found = [pause(f"c{number}") for number in range(200)]
    assert len(set(found)) == 200
    assert 0.8 <= min(found) < 0.82 and 1.18 < max(found) <= 1.2
    assert pause("c1") == pause("c1")


@pytest.mark.parametrize(
    ("named", "waits"),
    [(3 * HOUR, 3 * HOUR), (SECOND, None), (-HOUR, None)],
    ids=["a time far away is obeyed", "no sooner than the back-off", "a time that has passed"],
)
def test_a_time_that_the_ca_named(named: timedelta, waits: timedelta | None) -> None:
    """Retry-After is obeyed in full, and never makes it sooner than the list."""
    found = next_failure("limit", None, "shop", HOUR, POLICY, NOW, NOW + named)
    plain = next_failure("limit", None, "shop", HOUR, POLICY, NOW)
    assert found.retry_at == (NOW + waits if waits else plain.retry_at)
