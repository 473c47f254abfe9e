"""Versions, Journals and accounts in Secrets."""

from __future__ import annotations

from datetime import timedelta

import pytest

from certbaton import pki
from certbaton.cluster import records
from certbaton.cluster.answers import Asked
from certbaton.cluster.contract import Kind
from certbaton.cluster.store import Store
from certbaton.errors import ClusterUnavailable, Conflict, ObjectGone, PermanentError
from certbaton.model import Instance, Journal, ObjectRef, Proof
from cluster.builders import (
    ACCOUNT_URL,
    DIRECTORY,
    INSTANCE,
    NOW,
    b64,
    chain,
    key,
    pending,
    reader,
    stored,
)
from fakes.kube import FakeApi


def test_a_version_lies_under_the_name_of_its_content(api: FakeApi, store: Store) -> None:
    """Type, immutability, labels, annotations and keys as the architecture page says."""
    new = key()
    text = chain(new)
    version = store.create_version(
        "shop",
        text,
        new,
        directory=DIRECTORY,
        account_url=ACCOUNT_URL,
        certificate_url="https://ca.example/cert/1",
        profile="shortlived",
    )
    (obj,) = api.all(Kind.SECRET).values()
    assert obj["metadata"]["name"] == pki.version_name("shop", text) == version.ref.name
    assert obj["metadata"]["namespace"] == "certbaton"
    assert obj["metadata"]["labels"] == {
        "certbaton.io/certificate": "shop",
        "certbaton.io/instance": "prod.certbaton",
        "certbaton.io/kind": "version",
    }
    assert obj["metadata"]["annotations"] == {
        "certbaton.io/directory": DIRECTORY,
        "certbaton.io/account": ACCOUNT_URL,
        "certbaton.io/certificate-url": "https://ca.example/cert/1",
        "certbaton.io/profile": "shortlived",
    }
    assert (obj["type"], obj["immutable"]) == ("kubernetes.io/tls", True)
    assert obj["data"] == {"tls.crt": b64(text), "tls.key": b64(new.pem)}
    assert [asked.verb for asked in api.requests] == ["create"]
    assert version.leaf == pki.leaf_of(text)
    assert (version.flaw, version.profile) == (None, "shortlived")
    assert store.versions("shop") == (version,) == reader(api).versions()


def test_creating_the_same_version_again_is_fine(api: FakeApi, store: Store) -> None:
    """After a crash, or beside a second writer: the content is compared."""
    new = key()
    text = chain(new)
    more = {"directory": DIRECTORY, "account_url": ACCOUNT_URL, "certificate_url": "u"}
    first = store.create_version("shop", text, new, **more)
    assert reader(api).create_version("shop", text, new, **more) == first
    assert len(api.all(Kind.SECRET)) == 1


def test_a_name_that_holds_something_else_is_never_overwritten(api: FakeApi, store: Store) -> None:
    """PermanentError, and the Secret stays."""
    new = key()
    text = chain(new)
    name = pki.version_name("shop", text)
    theirs = api.create(Kind.SECRET, "certbaton", {"metadata": {"name": name}, "data": {}})
    with pytest.raises(PermanentError, match=name):
        store.create_version(
            "shop", text, new, directory=DIRECTORY, account_url="a", certificate_url="u"
        )
    assert list(api.all(Kind.SECRET).values()) == [theirs]


@pytest.mark.parametrize("odd", [{"data": {"tls.crt": "b2Rk"}}, {"immutable": False}])
def test_one_of_ours_with_other_content_is_never_taken_for_it(
    api: FakeApi, store: Store, odd: dict[str, object]
) -> None:
    """The name comes from the content, so this should not be: somebody's hand was there."""
    new = key()
    text = chain(new)

    def create() -> None:
        store.create_version(
            "shop", text, new, directory=DIRECTORY, account_url="a", certificate_url="u"
        )

    create()
    (body,) = api.all(Kind.SECRET).values()
    ref = ObjectRef("certbaton", body["metadata"]["name"])
    there = body["metadata"]
    api.delete(Kind.SECRET, ref, there["uid"], there["resourceVersion"])
    data = {**body["data"], **odd.get("data", {})}  # type: ignore[dict-item]
    kept = {key: there[key] for key in ("name", "labels", "annotations") if key in there}
    api.create(
        Kind.SECRET,
        "certbaton",
        {**body, "metadata": kept, "data": data, "immutable": odd.get("immutable", True)},
    )
    with pytest.raises(PermanentError, match="other content"):
        create()


def test_versions_are_sorted_by_age(store: Store) -> None:
    """By certificate, then the oldest first, however they were found."""
    new = stored(store, begins=NOW)
    old = stored(store, begins=NOW - timedelta(days=60))
    other = stored(store, "api")
    assert store.versions() == (other, old, new)
    assert store.versions("shop") == (old, new)
    assert store.list_versions_live("shop") == (old, new)


def test_a_live_list_finds_what_the_cache_has_not_heard(api: FakeApi, store: Store) -> None:
    """One request, and the cache knows it then."""
    version = stored(reader(api))
    assert store.versions() == ()
    assert store.list_versions_live("shop") == (version,)
    assert [asked.verb for asked in api.requests] == ["list"]
    assert store.versions() == (version,)


def test_another_instances_objects_are_not_seen(api: FakeApi, store: Store) -> None:
    """Not versions, nor Journals, nor accounts: same names, other release."""
    theirs = reader(api, Instance("test", "certbaton"))
    stored(theirs)
    theirs.save_journal("shop", Journal(last_version="x"))
    theirs.create_account(DIRECTORY, key())
    store.cache.relist()
    assert (store.versions(), store.journals(), store.account(DIRECTORY)) == ((), {}, None)


def test_proofs_are_added_and_marks_come_off(api: FakeApi, store: Store) -> None:
    """Each one write with a precondition; what was there stays."""
    version = stored(store)
    wire = Proof(NOW, "wire")
    version = store.annotate(version, served={"shop/shop": wire})
    version = store.annotate(version, served={"b/b": Proof(NOW, "unproven")}, marked_at=NOW)
    assert version.served == {"shop/shop": wire, "b/b": Proof(NOW, "unproven")}
    assert version.marked_at == NOW
    assert store.versions() == (version,) == reader(api).versions()
    version = store.annotate(version, marked_at=None)
    assert version.marked_at is None
    assert version.served["shop/shop"] == wire
    assert [asked.verb for asked in api.writes] == ["create", "merge", "merge", "merge"]


def test_annotating_an_old_state_is_a_conflict_that_teaches(api: FakeApi, store: Store) -> None:
    """The cache then knows what is there, without a watch."""
    version = stored(store)
    theirs = reader(api)
    theirs.annotate(version, marked_at=NOW)
    with pytest.raises(Conflict):
        store.annotate(version, served={"a/b": Proof(NOW, "wire")})
    assert store.versions()[0].marked_at == NOW


def test_deleting_needs_the_state_that_was_decided_on(api: FakeApi, store: Store) -> None:
    """An un-marked version survives a sweep that began before."""
    version = store.annotate(stored(store), marked_at=NOW)
    unmarked = reader(api).annotate(version, marked_at=None)
    with pytest.raises(Conflict):
        store.delete_version(version)
    assert store.versions() == (unmarked,)
    store.delete_version(unmarked)
    assert store.versions() == ()
    assert api.all(Kind.SECRET) == {}
    store.delete_version(unmarked)  # gone is fine


def test_annotating_what_is_gone_says_so(api: FakeApi, store: Store) -> None:
    """ObjectGone, and the cache forgets it: looking again helps."""
    version = stored(store)
    reader(api).delete_version(version)
    with pytest.raises(ObjectGone):
        store.annotate(version, marked_at=NOW)
    assert store.versions() == ()


def test_a_broken_version_is_told_by_its_flaw(api: FakeApi, store: Store) -> None:
    """Unreadable chain, foreign key, missing key; it is listed all the same."""
    mine, other = key(), key()
    contents = {
        "unreadable": {"tls.crt": "nonsense", "tls.key": mine.pem},
        "foreign": {"tls.crt": chain(mine), "tls.key": other.pem},
        "keyless": {"tls.crt": chain(mine), "tls.key": "nonsense"},
    }
    for name, data in contents.items():
        api.create(
            Kind.SECRET,
            "certbaton",
            records.secret(
                ObjectRef("certbaton", name), records.labels("version", INSTANCE, name), data
            ),
        )
    store.cache.relist()
    found = {version.certificate: version for version in store.versions()}
    assert found["unreadable"].leaf is None
    assert "unreadable" in (found["unreadable"].flaw or "")
    assert found["foreign"].leaf is not None
    assert "does not fit" in (found["foreign"].flaw or "")
    assert found["keyless"].flaw is not None


def test_a_broken_annotation_is_reported_and_the_version_stays_good(
    api: FakeApi, store: Store
) -> None:
    """A slip of somebody's hand must not bring an order."""
    version = stored(store)
    api.merge(Kind.SECRET, version.ref, {"metadata": {"annotations": {records.SERVED: "no JSON"}}})
    store.cache.relist()
    assert store.versions()[0].flaw is None
    assert store.versions()[0].served == {}
    assert str(version.ref) in store.problems()[0]


def test_a_chain_is_read_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """An annotation's change parses nothing; its content cannot have changed."""
    version = stored(store)
    monkeypatch.setattr(pki, "leaf_of", lambda pem: pytest.fail("read again"))
    for _ in range(3):
        version = store.annotate(version, served={"a/b": Proof(NOW, "wire")}, marked_at=NOW)
    store.cache.relist()
    assert store.versions()[0].leaf is not None


def test_no_repr_shows_a_key(store: Store) -> None:
    """Not of a record, nor of what is handed out."""
    new = key()
    store.save_journal("shop", pending(new), key=new, csr="CSR")
    store.create_account(DIRECTORY, new)
    stored(store)
    shown = repr(store.cache.items()) + repr(store.pending_key("shop")) + repr(store.versions())
    assert "PRIVATE KEY" not in shown
    assert new.pem.splitlines()[1] not in shown


def test_an_outage_is_passed_on(api: FakeApi, store: Store) -> None:
    """And nothing is half known afterwards."""

    def outage(asked: Asked) -> None:
        raise ClusterUnavailable("no route")

    api.before = outage
    with pytest.raises(ClusterUnavailable):
        stored(store)
    assert store.versions() == ()


@pytest.mark.parametrize("length", [10, 62, 63, 64, 117])
def test_long_instances_have_hashed_labels(length: int) -> None:
    """A label's value has 63 characters at most; different instances stay different."""
    one, two = "a" * length, "a" * (length - 1) + "b"
    assert len(records.label(one)) <= 63
    assert records.label(one) != records.label(two)
    assert (records.label(one) == one) == (length <= 63)
