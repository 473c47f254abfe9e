"""Accounts: bound to external ones, found again, refused, and given another key."""

from __future__ import annotations

from dataclasses import replace

import pytest

from certbaton import pki
from certbaton.cluster import Kind
from certbaton.cluster.records import encode
from certbaton.errors import CaUnavailable, PermanentError
from certbaton.model import (
    Account,
    CertificateSpec,
    ExternalAccountKey,
    ExternalAccountSpec,
    FailureKind,
    IssuerSpec,
    KeyType,
    ObjectRef,
)
from fakes.ca import DIRECTORY
from loop.world import MINUTE, Process, World, a_spec, settle

ONE = a_spec("one", "one")
KID, HMAC = "kid-1", "c2VjcmV0LW9mLXRoZS1leHRlcm5hbC1hY2NvdW50"


def bound_by(external: ExternalAccountSpec) -> CertificateSpec:
    issuer = IssuerSpec("lab", DIRECTORY, email="a@b.example", external_account=external)
    return replace(ONE, issuer=issuer)


def a_bound_world(spec: CertificateSpec) -> World:
    """Its CA wants an external account, and takes each of them once."""
    world = World(spec)
    world.ca.external_accounts, world.ca.external_once = {KID: HMAC}, True
    return world


def add_secret(world: World, kid: str = KID, hmac: str = HMAC) -> None:
    world.api.create(
        Kind.SECRET,
        "certbaton",
        {
            "metadata": {"name": "eab", "namespace": "certbaton"},
            "data": {"kid": encode(kid), "hmacKey": encode(hmac)},
        },
    )


def account_of(process: Process) -> Account:
    process.cluster.refresh()
    account = process.cluster.store.account(DIRECTORY)
    assert account is not None
    return account


def key_of(process: Process) -> str:
    key = process.cluster.store.account_key(DIRECTORY)
    assert key is not None
    return key.public_key_sha256


def test_an_account_is_bound_by_what_the_secret_holds() -> None:
    """The kid is noted, so that anybody can tell what was used."""
    world = a_bound_world(bound_by(ExternalAccountSpec(secret="eab")))
    add_secret(world)
    process = world.process()
    settle(world, process)
    assert world.named("one") is not None
    assert account_of(process).external_kid == KID


def test_what_binds_an_account_is_used_once() -> None:
    """Its answer was lost: the account is found by its key, and nothing is sent again."""
    world = a_bound_world(bound_by(ExternalAccountSpec(secret="eab")))
    add_secret(world)

    def lost(request: str) -> None:
        world.ca.after = lambda request: None
        raise CaUnavailable("no answer")

    world.ca.after = lambda request: lost(request) if request == "newAccount" else None
    world.process().turn("one")
    eab = world.api.read(Kind.SECRET, ObjectRef("certbaton", "eab"))["metadata"]
    where = ObjectRef("certbaton", "eab")
    world.api.delete(Kind.SECRET, where, eab["uid"], eab["resourceVersion"])
    process = world.process()
    settle(world, process)
    assert world.named("one") is not None
    assert world.ca.calls.count("newAccount") == 1


def test_a_missing_secret_is_told_and_looked_for_again() -> None:
    """As a refused account: by name, with what to do, and never with what it holds."""
    world = a_bound_world(bound_by(ExternalAccountSpec(secret="eab")))
    process = world.process()
    (message,) = process.turn("one").failed
    assert "Secret certbaton/eab: there is no such Secret" in message
    assert process.journal("one").failures[DIRECTORY].kind is FailureKind.ACCOUNT
    add_secret(world)
    settle(world, process)
    assert world.named("one") is not None


def test_a_secret_that_binds_nothing_is_told_by_its_name() -> None:
    """Without what it holds; and another CA is asked at once, as where there is none."""
    world = a_bound_world(bound_by(ExternalAccountSpec(secret="eab")))
    add_secret(world, hmac="not base64 !")
    process = world.process()
    (message,) = process.turn("one").failed
    assert message.startswith("Secret certbaton/eab: the external account needs")
    assert "base64 !" not in message
    assert process.journal("one").failures[DIRECTORY].kind is FailureKind.ACCOUNT
    assert "newAccount" not in world.ca.calls


def test_without_a_secret_it_comes_by_e_mail() -> None:
    """Once, when the account is made."""
    world = a_bound_world(bound_by(ExternalAccountSpec(api="https://api.test/eab")))
    asked: list[IssuerSpec] = []

    def by_email(issuer: IssuerSpec) -> ExternalAccountKey:
        asked.append(issuer)
        return ExternalAccountKey(KID, HMAC)

    world.by_email = by_email
    process = world.process()
    settle(world, process)
    assert [issuer.email for issuer in asked] == ["a@b.example"]
    assert account_of(process).external_kid == KID


def test_an_api_that_does_not_answer_is_a_ca_that_does_not() -> None:
    """Nothing is valid yet, so the next CA is asked at once; nobody else troubles that API."""
    spec = bound_by(ExternalAccountSpec(api="https://api.test/eab"))
    other = IssuerSpec("other", "https://other.test/directory")
    world = a_bound_world(replace(spec, fallbacks=(other,)))
    second = world.add_ca(other.directory)
    asked: list[str] = []

    def by_email(issuer: IssuerSpec) -> ExternalAccountKey:
        asked.append(issuer.name)
        raise CaUnavailable("no answer from api.test")

    world.by_email = by_email
    two = replace(world.specs[0], name="two", names=("two.example",), services=())
    process = world.process(world.specs[0], two)
    process.turn("one")
    process.turn("two")
    assert len(asked) == 1 and len(second.issued) == 2
    assert process.journal("one").failures == {}


def test_the_key_is_of_the_type_that_is_configured() -> None:
    """P-384 here."""
    issuer = IssuerSpec("lab", DIRECTORY, account_key_type=KeyType.EC_P384)
    world = World(replace(ONE, issuer=issuer))
    process = world.process()
    settle(world, process)
    key = process.cluster.store.account_key(DIRECTORY)
    assert key is not None and key.type == KeyType.EC_P384


def test_a_deactivated_account_is_told_and_never_replaced() -> None:
    """Somebody had a reason; the Secret stays as it is."""
    world = World(ONE)
    process = world.process()
    settle(world, process)
    before = account_of(process)
    assert before.url is not None
    world.ca.deactivate_account(before.url)
    world.now += 62 * 24 * 60 * MINUTE
    for _ in range(30):
        process.turn("one")
        world.now += 30 * MINUTE
    assert account_of(process) == before
    assert world.ca.calls.count("newAccount") == 1
    failure = process.journal("one").failures[DIRECTORY]
    assert failure.kind is FailureKind.ACCOUNT and "deactivated" in failure.message


def test_an_account_that_the_ca_knows_by_another_url_is_found_by_its_key() -> None:
    """The CA moved: onlyReturnExisting comes first, and no account is made."""
    world = World(ONE)
    process = world.process()
    settle(world, process)
    known = account_of(process)
    process.cluster.store.save_account_url(known, "https://ca.test/old/1")
    world.now += 62 * 24 * 60 * MINUTE
    settle(world, process)
    assert account_of(process).url == known.url
    assert world.ca.calls.count("newAccount") == 1 and len(world.ca.issued) == 2


# --- another key ------------------------------------------------------------------------------


def rolling() -> tuple[World, Process, str]:
    """A certificate whose CA's account is to have another key; that key's hash."""
    world = World(ONE)
    world.ca.resources |= {"keyChange"}
    process = world.process()
    settle(world, process)
    key = pki.PrivateKey.generate(KeyType.EC_P256)
    process.cluster.store.stage_next_key(account_of(process), key)
    return world, process, key.public_key_sha256


def test_an_account_gets_the_key_that_lies_beside_its_own() -> None:
    """The same account, by the CA's own word; and it can order."""
    world, process, following = rolling()
    url = account_of(process).url
    process.turn("one")
    after = account_of(process)
    assert (after.url, after.rolling) == (url, False)
    assert key_of(process) == following
    assert process.cluster.store.next_account_key(DIRECTORY) is None
    world.now += 62 * 24 * 60 * MINUTE
    settle(world, process)
    assert len(world.ca.issued) == 2


def test_a_change_whose_answer_was_lost_is_found_to_be_done() -> None:
    """The CA is asked by the next key before it is told of it: once is enough."""
    world, process, following = rolling()

    def lost(request: str) -> None:
        if request == "keyChange":
            raise CaUnavailable("no answer")

    world.ca.after = lost
    report = process.turn("one")
    assert report.failed == ["no answer"]
    process = world.process()
    process.turn("one")
    assert key_of(process) == following
    assert world.ca.calls.count("keyChange") == 1


def test_an_account_whose_key_is_changed_is_never_taken_for_lost() -> None:
    """Its CA may know it by the next key by now."""
    world, process, _ = rolling()
    before = account_of(process)
    world.ca.forget()
    process.dealings.accounts.lost(DIRECTORY, before.url or "")
    assert account_of(process) == before


def test_nothing_is_ordered_while_a_key_is_changed() -> None:
    """An order begun with the old key would be in its way."""
    world, process, _ = rolling()
    world.ca.fail("findAccount", *[CaUnavailable("no route")] * 3)
    world.now += 62 * 24 * 60 * MINUTE
    process.turn("one")
    assert process.journal("one").pending is None and len(world.ca.issued) == 1
    for _ in range(40):
        world.now += 10 * MINUTE
        process.turn("one")
    assert len(world.ca.issued) == 2


def test_a_key_waits_for_the_order_that_is_open() -> None:
    """And is changed when that has ended, whatever wanted it."""
    world = World(ONE)
    world.ca.resources |= {"keyChange"}
    world.ca.validation_time = 10 * MINUTE
    process = world.process()
    process.turn("one")
    key = pki.PrivateKey.generate(KeyType.EC_P256)
    process.cluster.store.stage_next_key(account_of(process), key)
    report = process.turn("one")
    assert any("is changed when orders have ended there: one" in w.what for w in report.waits)
    assert "keyChange" not in world.ca.calls
    settle(world, process, turns=40)
    assert world.ca.calls.count("keyChange") == 1 and key_of(process) == key.public_key_sha256
    assert len(world.ca.issued) == 1


@pytest.mark.parametrize("forgotten", [False, True], ids=["refused", "forgotten"])
def test_a_key_that_the_ca_does_not_take_is_given_up(forgotten: bool) -> None:
    """Told in a sentence; the present key stays, and certificates are renewed as before."""
    world, process, following = rolling()
    if forgotten:
        world.ca.forget()
    else:
        world.ca.fail("keyChange", PermanentError("badPublicKey"))
    before = key_of(process)
    (message,) = process.turn("one").failed
    assert "does not take the next key" in message
    assert key_of(process) == before != following
    assert not account_of(process).rolling
    world.now += 62 * 24 * 60 * MINUTE
    settle(world, process)
    assert len(world.ca.issued) == 2


def test_a_key_of_another_account_is_never_promoted() -> None:
    """Its URL would be another one. The present key still is the account's, and goes on."""
    world, process, following = rolling()
    other = process.cluster.store.next_account_key(DIRECTORY)
    assert other is not None
    world.ca.session(other).new_account()
    before = key_of(process)
    (message,) = process.turn("one").failed
    assert "is given up and the present key stays: it knows that key as account" in message
    assert key_of(process) == before != following and not account_of(process).rolling
    world.now += 62 * 24 * 60 * MINUTE
    settle(world, process)
    assert len(world.ca.issued) == 2


def test_while_neither_key_is_the_account_s_both_are_kept() -> None:
    """One of them may be worth something: somebody has to look."""
    world, process, following = rolling()
    other = process.cluster.store.next_account_key(DIRECTORY)
    assert other is not None
    world.ca.forget()
    world.ca.session(other).new_account()
    known = process.cluster.store.account(DIRECTORY)
    assert known is not None
    process.cluster.store.save_account_url(known, "https://ca.test/account/of-old")
    (message,) = process.turn("one").failed
    assert "nothing is changed" in message
    assert account_of(process).rolling
    kept = process.cluster.store.next_account_key(DIRECTORY)
    assert kept is not None and kept.public_key_sha256 == following
