"""``certbaton revoke``: the intent first, then the CA; nobody's certificate from under him."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from certbaton.commands.revoke import Request, revoke
from certbaton.errors import AccountMissing, AccountRefused, CaUnavailable, ConfigurationError
from certbaton.model import Revocation
from commands.place import DAY, LAB, NOW, SPEC, Place, hash_of, key
from fakes.ca import DIRECTORY

MINUTE = timedelta(minutes=1)


def test_a_leaked_key_is_told_at_once(place: Place) -> None:
    """Though Services name it; signed by that very key, which lets the CA ban it."""
    place.account()
    version = place.version()
    place.point(version)
    assert revoke(place.desk, Request("shop", "keyCompromise")) == 0
    assert place.revoked() == {hash_of(version): "keyCompromise"}
    assert place.seen(version).revoked == Revocation(NOW, "keyCompromise")
    assert place.signed_by == [None]
    assert "signed by the certificate's own key" in place.output


def test_the_intent_is_there_before_the_ca_hears_of_it(place: Place) -> None:
    """Whatever becomes of the request, the daemon replaces the certificate."""
    place.account()
    version = place.version()
    place.ca.fail("revokeCert", CaUnavailable("no answer"))
    assert revoke(place.desk, Request("shop", "keyCompromise")) == 1
    assert place.revoked() == {}
    assert place.seen(version).revoked is not None
    assert "not revoked: no answer" in place.output
    assert "Give this command again" in place.said[-1]
    assert revoke(place.desk, Request("shop", "keyCompromise")) == 0
    assert place.revoked() == {hash_of(version): "keyCompromise"}


def test_all_versions_with_the_leaked_key_go(place: Place) -> None:
    """A key that is reused compromises them all; others are left alone, and so is what expired."""
    place.account()
    leaked = key()
    expired = place.version(of=leaked, begins=NOW - 95 * DAY)
    old = place.version(of=leaked, begins=NOW - 60 * DAY)
    other = place.version(begins=NOW - 30 * DAY)
    new = place.version(of=leaked)
    assert revoke(place.desk, Request("shop", "keyCompromise")) == 0
    assert place.revoked().keys() == {hash_of(old), hash_of(new)}
    assert (place.seen(other).revoked, place.seen(expired).revoked) == (None, None)


def test_what_services_name_is_replaced_first(place: Place) -> None:
    """The intent is noted, the CA not told: exit code 6, and how to go on."""
    place.account()
    version = place.version()
    place.point(version)
    assert revoke(place.desk, Request("shop", "superseded")) == 6
    assert place.revoked() == {}
    assert place.seen(version).revoked == Revocation(NOW, "superseded")
    assert "a Service still names it" in place.said[-1]
    assert "--now" in place.said[-1]


def test_when_no_service_names_it_any_more_the_same_command_revokes_it(place: Place) -> None:
    """With the account that obtained it, and the first time of the intent."""
    account = place.account()
    version = place.version()
    place.point(version)
    revoke(place.desk, Request("shop", "superseded", secret=version.ref.name))
    place.point(place.version(begins=NOW))
    place.now += MINUTE
    assert revoke(place.desk, Request("shop", "superseded", secret=version.ref.name)) == 0
    assert place.revoked() == {hash_of(version): "superseded"}
    assert place.seen(version).revoked == Revocation(NOW, "superseded")
    assert place.signed_by == [account.url]


def test_given_again_it_goes_on_with_what_it_began(place: Place) -> None:
    """And not with the successor, which is the newest by then: that one has to be named."""
    account = place.account()
    older, version = place.version(begins=NOW - 60 * DAY), place.version()
    place.point(version)
    for _ in range(2):
        assert revoke(place.desk, Request("shop", "superseded")) == 6
    assert older.ref.name not in place.output
    assert place.seen(older).revoked is None
    successor = place.version(begins=NOW)
    place.point(successor)
    for _ in range(2):
        assert revoke(place.desk, Request("shop", "superseded")) == 0
        assert place.revoked() == {hash_of(version): "superseded"}
        assert f"--secret {successor.ref.name}" in place.output
    assert version.ref.name in place.asked[-1]
    assert successor.ref.name not in place.asked[-1]
    assert place.signed_by == [account.url] * 2
    assert place.seen(successor).revoked is None
    named = Request("shop", "superseded", secret=successor.ref.name, now=True)
    assert revoke(place.desk, named) == 0
    assert hash_of(successor) in place.revoked()


def test_a_leaked_key_that_the_ca_was_not_told_of_is_told_the_next_time(place: Place) -> None:
    """Though the daemon has replaced it meanwhile; another reason is for the one served now."""
    place.account()
    leaked = key()
    old, version = place.version(of=leaked, begins=NOW - 30 * DAY), place.version(of=leaked)
    place.ca.fail("revokeCert", CaUnavailable("no answer"), CaUnavailable("no answer"))
    assert revoke(place.desk, Request("shop", "keyCompromise")) == 1
    successor = place.version(begins=NOW)
    assert revoke(place.desk, Request("shop", "keyCompromise")) == 0
    assert place.revoked().keys() == {hash_of(old), hash_of(version)}
    assert revoke(place.desk, Request("shop", "superseded")) == 0
    assert place.revoked()[hash_of(successor)] == "superseded"


def test_it_can_wait_for_the_handover(place: Place) -> None:
    """And revokes then."""
    place.account()
    version = place.version()
    place.point(version)

    def daemon(store: object) -> None:
        if place.now == NOW + MINUTE:
            place.point(place.version(begins=place.now))

    place.daemon = daemon
    request = Request("shop", "cessationOfOperation", patience=10 * MINUTE)
    assert revoke(place.desk, request) == 0
    assert place.now == NOW + MINUTE
    assert place.revoked() == {hash_of(version): "cessationOfOperation"}


def test_now_means_now(place: Place) -> None:
    """Somebody who knows better."""
    place.account()
    version = place.version()
    place.point(version)
    assert revoke(place.desk, Request("shop", "unspecified", now=True)) == 0
    assert place.revoked() == {hash_of(version): "unspecified"}


def test_it_is_asked_first(place: Place) -> None:
    """A no leaves everything as it is."""
    place.account()
    version = place.version()
    place.answer = False
    writes = len(place.hands.writes)
    assert revoke(place.desk, Request("shop", "keyCompromise")) == 1
    assert (len(place.hands.writes), place.revoked()) == (writes, {})
    assert version.ref.name in place.asked[0]


def test_one_version_can_be_named(place: Place) -> None:
    """By its Secret, with or without the namespace; one that is not there is told."""
    place.account()
    old, new = place.version(begins=NOW - 60 * DAY), place.version()
    place.point(new)
    assert revoke(place.desk, Request("shop", "superseded", secret=str(old.ref))) == 0
    assert place.revoked() == {hash_of(old): "superseded"}
    with pytest.raises(ConfigurationError, match=f"no version 'shop-1'.*{new.ref.name}"):
        revoke(place.desk, Request("shop", "superseded", secret="shop-1"))


def test_another_accounts_certificate_is_revoked_with_its_own_key(place: Place) -> None:
    """The account that is here has no say over it."""
    place.account()
    version = place.version(account_url="https://ca.test/account/other")
    assert revoke(place.desk, Request("shop", "superseded")) == 0
    assert place.revoked() == {hash_of(version): "superseded"}
    assert place.signed_by == [None]


def test_an_account_in_the_middle_of_a_roll_over_is_not_relied_on(place: Place) -> None:
    """Which of its keys the CA knows is not sure."""
    account = place.account()
    place.version()
    place.store.stage_next_key(account, key())
    assert revoke(place.desk, Request("shop", "superseded")) == 0
    assert place.signed_by == [None]


def test_a_worse_reason_is_noted_a_better_one_is_not(place: Place) -> None:
    """After keyCompromise the key is never used again, whatever is said later."""
    place.account()
    version = place.version()
    for reason, noted in (
        ("superseded", "superseded"),
        ("keyCompromise", "keyCompromise"),
        ("unspecified", "keyCompromise"),
    ):
        assert revoke(place.desk, Request("shop", reason, secret=version.ref.name)) == 0
        seen = place.seen(version).revoked
        assert seen is not None
        assert seen.reason == noted


def test_a_certificate_that_left_the_configuration_can_be_revoked(place: Place) -> None:
    """And it is said that nobody replaces it."""
    place.account()
    version = place.version(certificate="gone")
    assert revoke(place.desk, Request("gone", "cessationOfOperation")) == 0
    assert place.revoked() == {hash_of(version): "cessationOfOperation"}
    assert "not configured any more" in place.output


@pytest.mark.parametrize("error", [AccountMissing("gone"), AccountRefused("deactivated")])
def test_without_the_account_there_is_the_certificates_own_key(
    place: Place, error: Exception
) -> None:
    """Told, and not done by itself: of the CA's record it makes a compromised key."""
    place.account()
    version = place.version()
    place.ca.fail("revokeCert", error)
    assert revoke(place.desk, Request("shop", "superseded")) == 1
    assert "--with-certificate-key does it without the account" in place.output
    own = Request("shop", "superseded", with_certificate_key=True)
    assert revoke(place.desk, own) == 0
    assert place.revoked() == {hash_of(version): "superseded"}
    place.ca.fail("revokeCert", CaUnavailable("no answer"))
    place.said.clear()
    assert revoke(place.desk, Request("shop", "superseded")) == 1
    assert "--with-certificate-key" not in place.output


def test_what_keeps_the_successor_from_coming_is_said(place: Place) -> None:
    """Somebody has to know that this one goes on being served; not where another is there."""
    place.account()
    version = place.version()
    place.specs = (replace(SPEC, paused=True),)
    assert revoke(place.desk, Request("shop", "keyCompromise")) == 0
    assert "shop is paused in the configuration" in place.output
    place.said.clear()
    place.version(begins=NOW)
    assert revoke(place.desk, Request("shop", "keyCompromise", secret=version.ref.name)) == 0
    assert "paused" not in place.output


def test_a_ca_that_was_left_is_talked_to_as_it_is_configured(place: Place) -> None:
    """By its own bundle and proxy, though no certificate uses that issuer any more."""
    place.account()
    version = place.version()
    place.issuers = (replace(LAB, ca_bundle="/private.pem"),)
    place.specs = (replace(SPEC, issuer=replace(LAB, name="next", directory="https://next.test")),)
    assert place.desk.issuer_at(DIRECTORY) == place.issuers[0]
    place.ca.fail("revokeCert", CaUnavailable("no answer"))
    assert revoke(place.desk, Request("shop", "keyCompromise")) == 1
    assert "name it there again" not in place.output
    assert revoke(place.desk, Request("shop", "keyCompromise")) == 0
    assert place.revoked() == {hash_of(version): "keyCompromise"}
    place.issuers = ()
    place.ca.fail("revokeCert", CaUnavailable("no answer"))
    assert revoke(place.desk, Request("shop", "keyCompromise")) == 1
    assert f"No issuer of the configuration is at {DIRECTORY}" in place.output


def test_slips_are_told_and_touch_nothing(place: Place) -> None:
    """A reason that no CA takes, and a name that is nowhere."""
    place.version()
    with pytest.raises(ConfigurationError, match=r"--reason: 'stolen'.*keyCompromise"):
        revoke(place.desk, Request("shop", "stolen"))
    with pytest.raises(ConfigurationError, match="no certificate 'shpo'"):
        revoke(place.desk, Request("shpo", "superseded"))
    assert place.asked == []


def test_what_has_expired_needs_no_revocation(place: Place) -> None:
    """Nothing is asked, nothing written."""
    place.version(begins=NOW - 100 * DAY)
    assert revoke(place.desk, Request("shop", "superseded")) == 0
    assert place.asked == []
    assert "nothing is to be revoked" in place.output
