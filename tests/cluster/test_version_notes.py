"""What is noted on a version for its renewal: profile, renewal information, wishes, revocation."""

from __future__ import annotations

from datetime import timedelta

import pytest

from certbaton.cluster.contract import Kind
from certbaton.cluster.store import Store
from certbaton.model import (
    Instance,
    ObjectRef,
    Proof,
    RenewalInfo,
    Revocation,
    SecretVersion,
)
from cluster.builders import ACCOUNT_URL, DIRECTORY, NOW, b64, chain, key, reader, stored
from fakes.kube import FakeApi

INFO = RenewalInfo(NOW, NOW + timedelta(days=2), "https://ca.example/why", NOW)
REVOKED = Revocation(NOW, "keyCompromise")


def by_hand(api: FakeApi, store: Store, version: SecretVersion, name: str, value: str) -> None:
    """``kubectl annotate``, and the watch has told."""
    kubectl = api.client("kubectl")
    kubectl.merge(Kind.SECRET, version.ref, {"metadata": {"annotations": {name: value}}})
    store.cache.relist()


def test_a_version_tells_where_it_came_from(api: FakeApi, store: Store) -> None:
    """The certificate's URL, the profile that was asked for and the one that the CA took."""
    new = key()
    version = store.create_version(
        "shop",
        chain(new),
        new,
        directory=DIRECTORY,
        account_url=ACCOUNT_URL,
        certificate_url="https://ca.example/cert/9",
        profile="shortlived",
        profile_got="classic",
    )
    (seen,) = reader(api).versions()
    assert seen == version
    assert seen.certificate_url == "https://ca.example/cert/9"
    assert (seen.profile, seen.profile_got) == ("shortlived", "classic")


def test_notes_come_and_go_one_by_one(api: FakeApi, store: Store) -> None:
    """Each write leaves what it does not name."""
    version = stored(store)
    version = store.annotate(version, renewal_info=INFO)
    version = store.annotate(version, renew_asked=NOW, revoked=REVOKED)
    version = store.annotate(version, served={"shop/shop": Proof(NOW, "wire")})
    (seen,) = reader(api).versions()
    assert seen == version
    assert (seen.renewal_info, seen.renew_asked, seen.revoked) == (INFO, NOW, REVOKED)
    version = store.annotate(version, renewal_info=None, renew_asked=None, revoked=None)
    (seen,) = reader(api).versions()
    assert (seen.renewal_info, seen.renew_asked, seen.revoked) == (None, None, None)
    assert seen.served


@pytest.mark.parametrize("value", ["now", "true", "yes please"])
def test_a_wish_in_words_counts_from_the_versions_beginning(
    api: FakeApi, store: Store, value: str
) -> None:
    """``kubectl annotate … certbaton.io/renew-asked=now``: asked, until there is a newer one."""
    version = stored(store)
    by_hand(api, store, version, "certbaton.io/renew-asked", value)
    (seen,) = store.versions()
    assert seen.renew_asked == NOW
    assert store.problems() == ()


def test_an_empty_wish_is_none(api: FakeApi, store: Store) -> None:
    """A slip of somebody's hand must not bring an order."""
    by_hand(api, store, stored(store), "certbaton.io/renew-asked", " ")
    assert store.versions()[0].renew_asked is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("certbaton.io/renewal-info", "soon"),
        ("certbaton.io/renewal-info", '{"start":"2026-01-02T00:00:00Z"}'),
        (
            "certbaton.io/renewal-info",
            '{"start":"2026-01-02T00:00:00Z","end":"2026-01-01T00:00:00Z"}',
        ),
        ("certbaton.io/revoked", "yes"),
        ("certbaton.io/revoked", '{"reason":"keyCompromise"}'),
    ],
)
def test_a_broken_note_is_reported_by_name_and_hides_no_other(
    api: FakeApi, store: Store, name: str, value: str
) -> None:
    """It is taken for missing; the version, its mark and its proofs stay as they are."""
    version = store.annotate(stored(store), served={"shop/shop": Proof(NOW, "wire")}, marked_at=NOW)
    by_hand(api, store, version, name, value)
    (seen,) = store.versions()
    assert (seen.renewal_info, seen.revoked, seen.flaw) == (None, None, None)
    assert (seen.served, seen.marked_at) == (version.served, NOW)
    (problem,) = store.problems()
    assert str(version.ref) in problem
    assert name in problem


def test_a_wish_and_a_revocation_outlive_a_deletion(api: FakeApi, store: Store) -> None:
    """What is put back is still to be replaced."""
    version = store.annotate(stored(store), renew_asked=NOW, revoked=REVOKED, marked_at=NOW)
    api.client("kubectl").delete(Kind.SECRET, version.ref, version.uid, version.resource_version)
    store.cache.relist()
    back = store.put_back(version.ref)
    assert (back.renew_asked, back.revoked, back.marked_at) == (NOW, REVOKED, None)


def test_the_key_of_a_version_is_read_when_it_is_needed(api: FakeApi, store: Store) -> None:
    """One request, and nothing keeps it."""
    new = key()
    version = store.create_version(
        "shop", chain(new), new, directory=DIRECTORY, account_url="a", certificate_url="u"
    )
    api.requests.clear()
    assert store.version_key(version.ref) == new
    assert [asked.verb for asked in api.requests] == ["read"]


def test_there_is_no_key_of_what_is_no_version_of_ours(api: FakeApi, store: Store) -> None:
    """Gone, unreadable, another instance's, or somebody else's Secret."""
    version = stored(store)
    theirs = stored(reader(api, Instance("test", "certbaton")), "other")
    assert store.version_key(theirs.ref) is None
    account = store.create_account(DIRECTORY, key())
    assert store.version_key(store.account_secret(account.directory)) is None
    assert store.version_key(ObjectRef("certbaton", "nothing")) is None
    there = api.read(Kind.SECRET, version.ref)["metadata"]
    api.delete(Kind.SECRET, version.ref, there["uid"], there["resourceVersion"])
    assert store.version_key(version.ref) is None
    broken = {
        "metadata": {"name": version.ref.name, "labels": there["labels"]},
        "data": {"tls.crt": b64(chain(key())), "tls.key": b64("nonsense")},
    }
    api.create(Kind.SECRET, "certbaton", broken)
    assert store.version_key(version.ref) is None
