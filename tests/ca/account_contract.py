"""
What accounts, and all that needs one, do at any CA: run on the fake one and on Pebble.

A subclass gives the fixtures `world`, and `bound`: a CA with external accounts, of which
``EXTERNAL`` is one.
"""

from __future__ import annotations

import contextlib
from typing import Protocol

import pytest

from ca.advance_contract import World, begin
from certbaton import pki
from certbaton.ca.order import Issued
from certbaton.ca.problems import ReplacesRefused
from certbaton.errors import (
    AccountMissing,
    AccountRefused,
    ConfigurationError,
    ExternalAccountRequired,
    PermanentError,
    ProfileRefused,
)
from certbaton.model import ExternalAccountKey, KeyType
from certbaton.pki import PrivateKey

EXTERNAL = ExternalAccountKey("kid-1", "YW4gSE1BQyBrZXkgb2YgdGhpcnR5LXR3byBieXRlcy4")


def new_key(key_type: KeyType = KeyType.EC_P256) -> PrivateKey:
    return PrivateKey.generate(key_type)


class Bound(Protocol):
    """A fixture that makes a CA with external accounts, which takes seconds on Pebble."""

    def __call__(self) -> World: ...


class AccountContract:
    """Tests for a subclass with the fixtures `world` and `bound`."""

    @pytest.mark.parametrize("key_type", [KeyType.EC_P256, KeyType.EC_P384, KeyType.RSA_2048])
    def test_any_type_of_key_has_an_account(self, world: World, key_type: KeyType) -> None:
        """And a certificate comes of it."""
        ca = world.session(new_key(key_type))
        ca.new_account()
        begin(world, f"{key_type.value.lower()}.example.com", ca=ca).finish()

    def test_a_changed_key_has_the_same_account(self, world: World) -> None:
        """Section 7.3.5: the old key has none any more, and orders go on with the new one."""
        old, new = new_key(), new_key(KeyType.EC_P384)
        url = world.session(old).new_account()
        world.session(old, url).change_key(new)
        assert world.session(new).find_account() == url
        with pytest.raises(AccountMissing):
            world.session(old).find_account()
        with pytest.raises(PermanentError):
            world.session(old, url).new_order(["old-key.example.com"], world.profile)
        begin(world, "new-key.example.com", ca=world.session(new, url)).finish()

    def test_a_key_that_has_an_account_is_no_next_key(self, world: World) -> None:
        """
        Both accounts stay as they are.

        Pebble answers 200 all the same: whether a key was changed, only looking for it tells.
        """
        first, second = new_key(), new_key()
        one, two = (world.session(each).new_account() for each in (first, second))
        with contextlib.suppress(PermanentError):
            world.session(first, one).change_key(second)
        assert world.session(first).find_account() == one
        assert world.session(second).find_account() == two

    def test_a_deactivated_account_is_refused_and_not_missing(self, world: World) -> None:
        """Section 7.3.6: for ever, by any request, and by looking for it."""
        key = new_key()
        ca = world.session(key)
        url = ca.new_account()
        ca.deactivate_account()
        with pytest.raises(AccountRefused):
            world.session(key, url).new_order(["gone.example.com"], world.profile)
        with pytest.raises(AccountRefused):
            world.session(key).find_account()
        with pytest.raises(AccountRefused):
            world.session(key).new_account()

    def test_a_profile_that_the_ca_does_not_have(self, world: World) -> None:
        """Refused with a class of its own, so that it can be left out."""
        ca = world.session(new_key())
        ca.new_account()
        with pytest.raises(ProfileRefused, match="invalidProfile"):
            ca.new_order(["profile.example.com"], "no-such-profile")

    def test_an_address_gets_a_certificate(self, world: World) -> None:
        """RFC 8738: an IP identifier, with a DNS name beside it."""
        issuance = begin(world, "127.0.0.1", "ip.example.com")
        outcome = issuance.finish()
        assert pki.leaf_of(outcome.chain).names == ("127.0.0.1", "ip.example.com")

    def test_a_predecessor_is_replaced_once(self, world: World) -> None:
        """RFC 9773 section 5: a second successor is refused; without a word of it, it is not."""
        first = begin(world, "replaced.example.com")
        ari_id = pki.leaf_of(first.finish().chain).ari_id
        names = ["replaced.example.com", "more.example.com"]
        second = begin(world, *names, ca=first.ca)
        second.order = first.ca.new_order(names[:1], world.profile, replaces=ari_id)
        second.names = ("replaced.example.com",)
        assert isinstance(second.advance(), Issued)
        with pytest.raises(ReplacesRefused):
            first.ca.new_order(names[:1], world.profile, replaces=ari_id)
        begin(world, "replaced.example.com", ca=first.ca).finish()

    def test_a_certificate_is_revoked_by_its_account_or_by_its_key(self, world: World) -> None:
        """Section 7.6; nobody else's word counts."""
        issuance = begin(world, "revoked.example.com")
        by_account = issuance.finish().chain
        by_key = begin(world, "revoked2.example.com", ca=issuance.ca).finish().chain
        stranger = world.session(new_key())
        stranger.new_account()
        with pytest.raises(PermanentError):
            stranger.revoke(by_account, "superseded")
        issuance.ca.revoke(by_account, "superseded")
        world.session(new_key()).revoke(by_key, "keyCompromise", issuance.key)

    def test_an_external_account_is_needed_once(self, bound: Bound) -> None:
        """Section 7.3.4: without one there is no account, with one there is, and from then on."""
        world = bound()
        key = new_key()
        with pytest.raises(ExternalAccountRequired, match="external") as caught:
            world.session(key).new_account()
        assert isinstance(caught.value, ConfigurationError)
        unknown = ExternalAccountKey("kid-2", EXTERNAL.hmac_key)
        with pytest.raises(AccountRefused, match="external account is mistyped"):
            world.session(key).new_account(unknown)
        wrong = ExternalAccountKey(EXTERNAL.kid, EXTERNAL.hmac_key[::-1])
        with pytest.raises(PermanentError):
            world.session(key).new_account(wrong)
        ca = world.session(key)
        url = ca.new_account(EXTERNAL)
        assert world.session(key).new_account(EXTERNAL) == url
        assert world.session(key).new_account() == url
        assert world.session(key).find_account() == url
        begin(world, "bound.example.com", ca=ca).finish()
