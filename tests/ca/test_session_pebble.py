"""The session on Let's Encrypt's own test CA: the contract, calm and not so calm."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from ca.advance_contract import AdvanceContract, begin
from ca.pebble_world import Answers, PebbleWorld
from certbaton import failpoints
from certbaton.ca.order import Issued
from certbaton.ca.session import Session
from certbaton.errors import CaUnavailable, ConfigurationError, ProfileRefused
from certbaton.model import IssuerSpec, KeyType
from certbaton.pki import PrivateKey
from lab.pebble import Pebble

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def answers() -> Iterator[Answers]:
    server = Answers()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def calm(answers: Answers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    with Pebble(tmp_path_factory.mktemp("calm"), http_port=answers.port) as pebble:
        yield pebble


@pytest.fixture
def world(calm: Pebble, answers: Answers) -> PebbleWorld:
    return PebbleWorld(calm, answers)


class TestOnPebble(AdvanceContract):
    """The contract, on a calm Pebble."""


def test_an_issuance_takes_a_directory_and_a_nonce_once(world: PebbleWorld) -> None:
    """Cold: 3 requests more than the 7; a second certificate takes neither again."""
    first = begin(world, "cold.example.com")
    first.finish()
    world.requests()
    second = begin(world, "warm.example.com", ca=first.ca)
    assert isinstance(second.advance(order=second.order), Issued)
    seen = world.all_requests()
    assert "newNonce" not in seen
    assert "directory" not in seen
    assert len(seen) <= 8
    assert sum(world.slept) < 8


def test_an_account_made_with_an_e_mail_address_is_the_same_one(world: PebbleWorld) -> None:
    """The address is sent where there is one; it makes no second account."""
    key = PrivateKey.generate(KeyType.EC_P256)
    spec = IssuerSpec("p", world.issuer.directory, world.issuer.ca_bundle, "ops@example.com")
    assert Session(spec, key).new_account() == world.session(key).find_account()


def test_a_profile_that_is_not_there_is_the_operator_s_to_correct(world: PebbleWorld) -> None:
    """With the CA's words."""
    ca = world.session(PrivateKey.generate(KeyType.EC_P256))
    ca.new_account()
    with pytest.raises(ProfileRefused, match="invalidProfile"):
        ca.new_order(["profile.example.com"], "no-such-profile")


def test_a_ca_that_is_not_trusted_is_told_from_a_wrong_bundle(
    world: PebbleWorld, tmp_path: Path
) -> None:
    """Without the bundle: no answer. With a bundle that isn't there: the operator's to correct."""
    key = PrivateKey.generate(KeyType.EC_P256)
    with pytest.raises(CaUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        Session(IssuerSpec("p", world.issuer.directory), key).new_account()
    missing = str(tmp_path / "missing.pem")
    with pytest.raises(ConfigurationError, match=r"missing\.pem"):
        Session(IssuerSpec("p", world.issuer.directory, missing), key).new_account()


def test_half_of_all_nonces_rejected_costs_no_request(answers: Answers, tmp_path: Path) -> None:
    """The nonce that came with the refusal is used; a HEAD is never needed again."""
    with Pebble(tmp_path, http_port=answers.port, nonce_reject=50) as pebble:
        world = PebbleWorld(pebble, answers)
        first = begin(world, "nonce0.example.com")
        first.finish()
        world.requests()
        for number in range(1, 6):
            begin(world, f"nonce{number}.example.com", ca=first.ca).finish()
        assert "newNonce" not in world.all_requests()
        assert world.issued() == 6


def test_a_reused_authorization_takes_five_requests(answers: Answers, tmp_path: Path) -> None:
    """The order is ready at once; nothing is presented."""
    with Pebble(tmp_path, http_port=answers.port, authz_reuse=100) as pebble:
        world = PebbleWorld(pebble, answers)
        first = begin(world, "reuse.example.com")
        first.finish()
        world.requests()
        second = begin(world, "reuse.example.com", ca=first.ca)
        assert isinstance(second.advance(order=second.order), Issued)
        assert len(world.requests()) <= 5
        assert second.presented == []


@pytest.fixture(params=["Asia/Tokyo", "America/New_York"])
def zone(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = request.param
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


def test_a_date_to_retry_after_is_obeyed_in_every_time_zone(
    zone: None, answers: Answers, tmp_path: Path
) -> None:
    """Pebble sends seconds or a date by chance; the library polls madly in one zone, or hangs."""
    with Pebble(tmp_path, http_port=answers.port, retry_after=(1, 1)) as pebble:
        world = PebbleWorld(pebble, answers)
        first = begin(world, "zone.example.com")
        for number in range(6):
            world.requests()
            issuance = begin(world, f"zone{number}.example.com", ca=first.ca)
            issuance.finish()
            assert len(world.requests()) <= 10
        assert max(world.slept) <= 2


def test_the_writes_of_an_issuance_are_always_the_same(
    world: PebbleWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fail points count them: reads are none, since their number is chance."""
    log = tmp_path / "writes"
    monkeypatch.setattr(failpoints, "_WRITE_LOG", str(log))
    begin(world, "writes.example.com", "writes2.example.com").finish()
    assert log.read_text().splitlines() == [
        "acme newAccount",
        "acme newOrder",
        "acme challenge",
        "acme challenge",
        "acme finalize",
    ]


def test_a_slow_validation_is_waited_for(answers: Answers, tmp_path: Path) -> None:
    """Up to two seconds here, as on a CA with several vantage points."""
    with Pebble(tmp_path, http_port=answers.port, va_sleep=2) as pebble:
        begin(PebbleWorld(pebble, answers), "slow.example.com", "slow2.example.com").finish()


def test_patience_bounds_a_call(world: PebbleWorld) -> None:
    """Nothing is slept beyond it."""
    issuance = begin(world, "bounded.example.com")
    issuance.advance(patience=timedelta(seconds=0.3))
    assert sum(world.slept) <= 0.3
