"""The accounts' contract on the CA in memory, and what else tests ask of that."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ca.account_contract import EXTERNAL, AccountContract, Bound, new_key
from ca.advance_contract import begin
from ca.test_order import FakeWorld
from certbaton.ca.order import Failed
from certbaton.ca.problems import ReplacesRefused
from certbaton.errors import AccountRefused, PermanentError, ProfileRefused
from certbaton.model import RenewalAnswer
from certbaton.pki import leaf_of


@pytest.fixture
def world() -> FakeWorld:
    return FakeWorld()


@pytest.fixture
def bound() -> Bound:
    def make() -> FakeWorld:
        world = FakeWorld()
        world.fake.external_accounts = {EXTERNAL.kid: EXTERNAL.hmac_key}
        return world

    return make


class TestOnTheFake(AccountContract):
    """The contract, in no time."""


def test_an_external_account_may_be_good_for_one_key_only(world: FakeWorld) -> None:
    """As Google's are: the loss of an account's key is then a matter for the operator."""
    world.fake.external_accounts = {EXTERNAL.kid: EXTERNAL.hmac_key}
    world.fake.external_once = True
    key = new_key()
    url = world.session(key).new_account(EXTERNAL)
    assert world.session(key).new_account(EXTERNAL) == url
    with pytest.raises(AccountRefused, match="used up"):
        world.session(new_key()).new_account(EXTERNAL)


def test_a_key_in_use_is_refused_as_the_next_one(world: FakeWorld) -> None:
    """409, as RFC 8555 section 7.3.5 wants it, with what to do."""
    first, second = new_key(), new_key()
    ca = world.session(first)
    ca.new_account()
    world.session(second).new_account()
    with pytest.raises(PermanentError, match="roll-key` again"):
        ca.change_key(second)


def test_new_terms_stop_every_order_until_somebody_agrees(world: FakeWorld) -> None:
    """With the page where to do it."""
    ca = world.session(new_key())
    ca.new_account()
    world.fake.terms_changed = "https://ca.test/terms"
    with pytest.raises(AccountRefused, match=r"open https://ca\.test/terms, and agree there"):
        ca.new_order(["terms.example.com"])
    world.fake.terms_changed = None
    begin(world, "terms.example.com", ca=ca).finish()


def test_caa_fails_a_name_with_a_problem_of_its_own(world: FakeWorld) -> None:
    """Whatever stands at the name."""
    world.fake.caa_forbids = frozenset({"caa.example.com"})
    issuance = begin(world, "caa.example.com")
    outcome = issuance.advance()
    assert isinstance(outcome, Failed)
    assert "prevents issuance (caa)" in outcome.message
    (url,) = issuance.order.authorizations
    assert issuance.ca.authorization(url).problem == "caa"


def test_a_listed_profile_may_be_refused(world: FakeWorld) -> None:
    """Some are for a few accounts only."""
    world.fake.profiles = {"short": timedelta(days=6)}
    world.fake.refused_profiles = frozenset({"short"})
    ca = world.session(new_key())
    ca.new_account()
    assert "short" in ca.directory().profiles
    with pytest.raises(ProfileRefused):
        ca.new_order(["profile.example.com"], "short")


def test_an_end_is_refused_or_kept_to(world: FakeWorld) -> None:
    """Let's Encrypt refuses it, Google keeps to it."""
    issuance = begin(world, "end.example.com")
    end = world.clock + timedelta(days=3)
    with pytest.raises(PermanentError, match="NotAfter are not supported"):
        issuance.ca.new_order(["end2.example.com"], not_after=end)
    world.fake.takes_not_after = True
    issuance.order = issuance.ca.new_order(["end3.example.com"], not_after=end)
    issuance.names = ("end3.example.com",)
    assert leaf_of(issuance.finish().chain).not_after == end


def test_an_open_order_stands_for_its_predecessor(world: FakeWorld) -> None:
    """As at Boulder; and it must share a name with it, and the account."""
    world.fake.reuse_orders = False
    first = begin(world, "first.example.com")
    ari_id = leaf_of(first.finish().chain).ari_id
    with pytest.raises(PermanentError, match="shares no name"):
        first.ca.new_order(["other.example.com"], replaces=ari_id)
    with pytest.raises(PermanentError, match="another account"):
        begin(world, "x.example.com").ca.new_order(["first.example.com"], replaces=ari_id)
    with pytest.raises(PermanentError, match="not known"):
        first.ca.new_order(["first.example.com"], replaces="aki.serial")
    first.ca.new_order(["first.example.com"], replaces=ari_id)
    with pytest.raises(ReplacesRefused):
        first.ca.new_order(["first.example.com"], replaces=ari_id)


def test_renewal_information_is_what_a_test_says(world: FakeWorld) -> None:
    """For each certificate that was signed: a window, an error, or nothing."""
    issuance = begin(world, "ari.example.com")
    leaf = leaf_of(issuance.finish().chain)
    assert leaf.ari_id is not None
    with pytest.raises(PermanentError, match="404"):
        issuance.ca.renewal_info(leaf.ari_id)
    past = RenewalAnswer(leaf.not_before, leaf.not_before + timedelta(hours=1), None, None)
    world.fake.advise = lambda each: past if each == leaf else None
    assert issuance.ca.renewal_info(leaf.ari_id) == past
    world.fake.advise = lambda each: PermanentError("no window that makes sense")
    with pytest.raises(PermanentError, match="makes sense"):
        issuance.ca.renewal_info(leaf.ari_id)
