"""``certbaton renew``: a wish on the newest version, which the daemon fulfils."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from certbaton.cluster import Kind
from certbaton.cluster.answers import Asked
from certbaton.commands.certificates import renew
from certbaton.errors import ClusterUnavailable, ConfigurationError
from certbaton.model import EVERYWHERE, Failure, Journal, Rejection, Revocation
from commands.place import DAY, NOW, SPEC, Place

MINUTE = timedelta(minutes=1)


def test_the_wish_stands_on_the_newest_version(place: Place) -> None:
    """One write; it says who does the rest, and how to watch it."""
    old, new = place.version(begins=NOW - 60 * DAY), place.version()
    assert renew(place.desk, "shop") == 0
    assert [asked.verb for asked in place.hands.writes] == ["merge"]
    assert place.seen(new).renew_asked == NOW
    assert place.seen(old).renew_asked is None
    assert new.ref.name in place.output
    assert place.said[-1].startswith("The daemon obtains it")
    assert "certbaton plan" in place.said[-1]


def test_asked_again_it_says_since_when_and_writes_nothing(place: Place) -> None:
    """It may be given twice."""
    version = place.version()
    renew(place.desk, "shop")
    writes = len(place.hands.writes)
    place.now += MINUTE
    assert renew(place.desk, "shop") == 0
    assert (len(place.hands.writes), place.seen(version).renew_asked) == (writes, NOW)
    assert "asked for already, at 2027-03-01 12:00:00 UTC" in place.output


def test_what_came_later_and_cannot_be_served_carries_the_wish_too(place: Place) -> None:
    """Refused everywhere, or revoked: it does not count as what was wished for."""
    oldest, good = place.version(begins=NOW - 60 * DAY), place.version(begins=NOW - 9 * DAY)
    refused = place.store.annotate(
        place.version(begins=NOW - 5 * DAY), rejected={EVERYWHERE: Rejection(NOW, "alerts")}
    )
    revoked = place.store.annotate(place.version(), revoked=Revocation(NOW, "superseded"))
    renew(place.desk, "shop")
    for version in (good, refused, revoked):
        assert place.seen(version).renew_asked == NOW
    assert place.seen(oldest).renew_asked is None
    assert f"in place of {good.ref.name}" in place.output


def test_with_no_certificate_there_is_nothing_to_ask(place: Place) -> None:
    """The daemon orders one anyway."""
    place.version(begins=NOW - 100 * DAY)
    writes = len(place.hands.writes)
    assert renew(place.desk, "shop") == 0
    assert len(place.hands.writes) == writes
    assert "without being asked" in place.output


def test_a_name_that_is_not_configured_is_a_slip(place: Place) -> None:
    """The names that there are stand beside it."""
    with pytest.raises(ConfigurationError, match=r"'shpo'.*there are the certificates shop"):
        renew(place.desk, "shpo")


def test_what_is_in_the_way_is_said(place: Place) -> None:
    """A pause in the configuration, and a back-off with its reason."""
    place.version()
    place.specs = (replace(SPEC, paused=True),)
    failure = Failure("the CA refused", NOW - MINUTE, 3, NOW + DAY)
    place.store.save_journal("shop", Journal(failures={"d": failure}))
    renew(place.desk, "shop")
    assert "paused in the configuration" in place.output
    assert "waits until 2027-03-02 12:00:00 UTC: the CA refused" in place.output


def test_what_failed_before_the_configuration_was_corrected_is_not_in_the_way(
    place: Place,
) -> None:
    """The daemon does not wait for it either."""
    place.version()
    other = Failure("no such name", NOW - MINUTE, 4, NOW + DAY, wish="another")
    directory = SPEC.issuer.directory
    place.store.save_journal("shop", Journal(failures={directory: other}))
    renew(place.desk, "shop")
    assert "no such name" not in place.output


def test_a_limit_of_our_own_that_is_in_the_way_is_said(place: Place) -> None:
    """As the daemon reckons it: the fifth certificate for the same names in a week waits."""
    place.version(begins=NOW - DAY)
    for days in (2, 3, 4):
        renew(place.desk, "shop")
        assert "orderLimit" not in place.output
        place.version(begins=NOW - days * DAY)
    renew(place.desk, "shop")
    assert "But the next order waits until 2027-03-04 12:00:00 UTC: 4 certificates" in place.output
    assert "policy.orderLimit" in place.output


def test_it_can_wait_for_the_new_one(place: Place) -> None:
    """Exit code 0 as soon as there is one."""
    place.version()
    place.daemon = lambda store: place.version(begins=place.now)
    assert renew(place.desk, "shop", 10 * MINUTE) == 0
    (_, new) = place.store.versions("shop")
    assert f"{new.ref.name} is there, valid until" in place.said[-1]


def test_without_a_certificate_it_waits_for_the_one_that_is_ordered_anyway(place: Place) -> None:
    """That none is there is no success; what is in the way of the first one is said too."""
    spent = place.version(begins=NOW - 100 * DAY)

    def daemon(store: object) -> None:
        if place.now == NOW + MINUTE:
            place.version(begins=NOW)

    place.daemon = daemon
    failure = Failure("the CA was away", NOW - DAY, 1, NOW + MINUTE)
    place.store.save_journal("shop", Journal(failures={"d": failure}))
    assert renew(place.desk, "shop", MINUTE / 2) == 6
    assert "the CA was away" in place.output
    place.now = NOW
    assert renew(place.desk, "shop", 10 * MINUTE) == 0
    assert place.now == NOW + MINUTE
    assert place.seen(spent).renew_asked is None


def test_waiting_ends_with_6_and_the_wish_stands(place: Place) -> None:
    """The daemon may be away."""
    version = place.version()
    assert renew(place.desk, "shop", 2 * MINUTE) == 6
    assert place.now == NOW + 2 * MINUTE
    assert place.seen(version).renew_asked == NOW
    assert "the wish stands" in place.said[-1]


def test_waiting_ends_with_1_when_the_order_fails(place: Place) -> None:
    """With the words of the failure; one from before the wish is none."""
    place.version()
    old = Failure("an old one", NOW - MINUTE, 1, NOW - MINUTE)
    place.store.save_journal("shop", Journal(failures={"d": old}))

    def fails(store: object) -> None:
        if place.now == NOW + timedelta(seconds=3):
            journal = place.store.journal("shop")
            assert journal is not None
            new = Failure("no such name", place.now, 1, NOW + DAY)
            place.store.save_journal("shop", replace(journal, failures={"d": new}))

    place.daemon = fails
    assert renew(place.desk, "shop", 10 * MINUTE) == 1
    assert place.now == NOW + timedelta(seconds=3)
    assert "no such name" in place.said[-1]


def test_an_api_server_that_is_away_for_a_moment_is_waited_out(place: Place) -> None:
    """The wait goes on; only at its end is it an error."""
    place.version()
    away = timedelta(seconds=5)

    def outage(asked: Asked) -> None:
        if NOW < place.now < NOW + away and asked.verb == "list" and asked.kind is Kind.SECRET:
            raise ClusterUnavailable("no route")

    place.hands.before = outage

    def daemon(store: object) -> None:
        if place.now == NOW + timedelta(seconds=3):
            place.version(begins=place.now)

    place.daemon = daemon
    assert renew(place.desk, "shop", MINUTE) == 0
    assert place.now == NOW + away


def test_a_lost_race_is_looked_at_again(place: Place) -> None:
    """The daemon wrote on the same version in between."""
    version = place.version()
    raced: list[object] = []

    def race(asked: Asked) -> None:
        if asked.verb == "merge" and not raced:
            raced.append(asked)
            store = place.store
            store.annotate(place.seen(version), marked_at=NOW)

    place.hands.before = race
    assert renew(place.desk, "shop") == 0
    seen = place.seen(version)
    assert (seen.renew_asked, seen.marked_at) == (NOW, NOW)
