"""The accounts' contract on Pebble; chains to choose from and renewal information there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from ca.account_contract import EXTERNAL, AccountContract, Bound, new_key
from ca.advance_contract import begin
from ca.pebble_world import Answers, PebbleWorld
from certbaton.ca.newly import Wish, order_with_fallbacks
from certbaton.errors import PermanentError
from certbaton.pki import leaf_of, top_issuer
from lab.pebble import Pebble

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def answers() -> Iterator[Answers]:
    server = Answers()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def calm(answers: Answers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    folder = tmp_path_factory.mktemp("calm")
    with Pebble(folder, http_port=answers.port, alternate_roots=2) as pebble:
        yield pebble


@pytest.fixture
def world(calm: Pebble, answers: Answers) -> PebbleWorld:
    return PebbleWorld(calm, answers)


@pytest.fixture
def bound(answers: Answers, tmp_path: Path) -> Iterator[Bound]:
    with ExitStack() as stack:

        def make() -> PebbleWorld:
            accounts = {EXTERNAL.kid: EXTERNAL.hmac_key}
            pebble = Pebble(tmp_path, http_port=answers.port, external_accounts=accounts)
            return PebbleWorld(stack.enter_context(pebble), answers)

        yield make


class TestOnPebble(AccountContract):
    """The contract, on a calm Pebble."""


def test_the_chain_up_to_the_preferred_root_is_downloaded(world: PebbleWorld) -> None:
    """Whichever of the three it is, and the same again later; an unknown one is the default."""
    issuance = begin(world, "chains.example.com")
    issued = issuance.finish()
    key = new_key()
    seen = set()
    for number in range(3):
        root = x509.load_pem_x509_certificate(world.pebble.root(number))
        name = str(root.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
        world.issuer = replace(world.issuer, preferred_chain=name)
        ca = world.session(key)
        ca.new_account()
        chain = begin(world, f"chain{number}.example.com", ca=ca).finish().chain
        assert top_issuer(chain) == name
        seen.add(name)
    assert len(seen) == 3
    world.issuer = replace(world.issuer, preferred_chain="Nobody's Root")
    ca = world.session(key)
    ca.new_account()
    chain = begin(world, "chain9.example.com", ca=ca).finish().chain
    assert top_issuer(chain) == top_issuer(issued.chain)


def test_the_window_of_a_certificate_is_asked_for(world: PebbleWorld) -> None:
    """Right after it was issued; then in the past once it is revoked."""
    issuance = begin(world, "ari.example.com")
    chain = issuance.finish().chain
    leaf = leaf_of(chain)
    assert leaf.ari_id is not None
    answer = issuance.ca.renewal_info(leaf.ari_id)
    assert leaf.not_before < answer.start < answer.end <= leaf.not_after
    assert answer.retry_after == timedelta(hours=6)
    issuance.ca.revoke(chain, "superseded")
    assert issuance.ca.renewal_info(leaf.ari_id).end < datetime.now(UTC)


def test_a_window_that_makes_no_sense_is_refused(world: PebbleWorld) -> None:
    """Malformed, or with its end before its start; a certificate that nobody knows has none."""
    issuance = begin(world, "senseless.example.com")
    chain = issuance.finish().chain
    ari_id = leaf_of(chain).ari_id
    assert ari_id is not None
    backwards = {"start": "2026-12-02T00:00:00Z", "end": "2026-12-01T00:00:00Z"}
    for said in ("{", "[]", json.dumps({"suggestedWindow": backwards})):
        world.pebble.set_renewal_info(chain.encode(), said)
        with pytest.raises(PermanentError):
            issuance.ca.renewal_info(ari_id)
    with pytest.raises(PermanentError):
        issuance.ca.renewal_info(ari_id + "AAAA")


def test_an_order_is_placed_without_what_pebble_refuses(world: PebbleWorld) -> None:
    """A predecessor that is replaced already, and a profile that isn't there."""
    issuance = begin(world, "fallback.example.com")
    ari_id = leaf_of(issuance.finish().chain).ari_id
    wish = Wish(("fallback.example.com",), world.profile, replaces=ari_id)
    issuance.order = order_with_fallbacks(issuance.ca, wish).order
    issuance.finish()
    placed = order_with_fallbacks(issuance.ca, replace(wish, profile="tlsclient"))
    assert (placed.profile, placed.replaces) == (None, None)
    assert "tlsclient" in placed.notes[0]
    assert "alreadyReplaced" in placed.notes[1]
