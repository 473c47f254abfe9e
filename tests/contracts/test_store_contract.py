"""An account's life and a version's notes, on the fake and on a real API server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from certbaton.cluster.contract import Kind
from certbaton.cluster.store import Store
from certbaton.errors import ConfigurationError, Conflict
from certbaton.model import Instance, KeyType, RenewalInfo, Revocation
from certbaton.pki import PrivateKey
from contracts.conftest import Server
from contracts.objects import secret
from fakes.x509 import hierarchy

DIRECTORY = "https://ca.example/dir"
URL = "https://ca.example/acct/1"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def key() -> PrivateKey:
    return PrivateKey.generate(KeyType.EC_P256)


def store_on(server: Server) -> Store:
    """A process that has just read what is there."""
    store = Store(server.api, Instance("prod", server.namespace))
    store.cache.relist()
    return store


def test_an_accounts_key_is_changed_in_steps_that_another_process_can_follow(
    server: Server,
) -> None:
    """Made, known, next key stored, promoted in one write; each with a precondition."""
    old, new = key(), key()
    made = store_on(server).create_account(DIRECTORY, old)
    known = store_on(server).save_account_url(made, URL, external_kid="kid-1")
    with pytest.raises(Conflict):
        store_on(server).save_account_url(made, None)
    staged = store_on(server).stage_next_key(known, new)
    with pytest.raises(Conflict):
        store_on(server).stage_next_key(known, new)
    seen = store_on(server)
    assert seen.account(DIRECTORY) == staged
    assert (seen.account_key(DIRECTORY), seen.next_account_key(DIRECTORY)) == (old, new)
    promoted = seen.promote_next_key(staged)
    seen = store_on(server)
    assert seen.account(DIRECTORY) == promoted
    assert (promoted.url, promoted.external_kid, promoted.rolling) == (URL, "kid-1", False)
    assert (seen.account_key(DIRECTORY), seen.next_account_key(DIRECTORY)) == (new, None)


def test_an_import_keeps_the_key_that_it_replaces(server: Server) -> None:
    """And the next one of a roll-over; names with dots and hashes are what an API server takes."""
    old, following, new = key(), key(), key()
    store = store_on(server)
    known = store.save_account_url(store.create_account(DIRECTORY, old), URL)
    store.stage_next_key(known, following)
    account = store.import_account(DIRECTORY, new, None, replacing=True)
    assert store_on(server).account(DIRECTORY) == account
    assert store_on(server).account_key(DIRECTORY) == new
    there = server.other.read(Kind.SECRET, store.account_secret(DIRECTORY))
    kept = sorted(f"previous.{each.public_key_sha256[:10]}.key" for each in (old, following))
    assert sorted(there["data"]) == ["account", *kept, "tls.key"]


def test_an_external_account_is_asked_for_by_name(server: Server) -> None:
    """Absent is a mistake of the operator's, no outage."""
    with pytest.raises(ConfigurationError, match="no such Secret"):
        store_on(server).external_account("eab")
    data = {"kid": "a2lkLTE=", "hmacKey": "YzJWamNtVjA="}
    server.other.create(Kind.SECRET, server.namespace, secret("eab", data=data))
    found = store_on(server).external_account("eab")
    assert (found.kid, found.hmac_key) == ("kid-1", "c2VjcmV0")


def test_an_immutable_version_takes_notes_all_the_same(server: Server) -> None:
    """Its content stays; what is noted beside it comes and goes."""
    mine = key()
    leaf = hierarchy().sign(
        mine.unwrapped.public_key(), ("a.example",), NOW, NOW + timedelta(days=90)
    )
    version = store_on(server).create_version(
        "shop",
        leaf,
        mine,
        directory=DIRECTORY,
        account_url=URL,
        certificate_url="https://ca.example/cert/1",
        profile="shortlived",
        profile_got="classic",
    )
    info = RenewalInfo(NOW, NOW + timedelta(days=2), "https://ca.example/why", NOW)
    revoked = Revocation(NOW, "superseded")
    noted = store_on(server).annotate(version, renewal_info=info, renew_asked=NOW, revoked=revoked)
    (seen,) = store_on(server).versions()
    assert seen == noted
    assert (seen.renewal_info, seen.renew_asked, seen.revoked) == (info, NOW, revoked)
    assert (seen.profile, seen.profile_got) == ("shortlived", "classic")
    with pytest.raises(Conflict):
        store_on(server).annotate(version, renewal_info=None)
    store_on(server).annotate(noted, renewal_info=None, renew_asked=None)
    (seen,) = store_on(server).versions()
    assert (seen.renewal_info, seen.renew_asked, seen.revoked) == (None, None, revoked)
    assert store_on(server).version_key(version.ref) == mine
