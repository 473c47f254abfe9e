"""Versions and Journals that somebody deleted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from certbaton.cluster import records
from certbaton.cluster.contract import Kind, Obj
from certbaton.cluster.store import Store
from certbaton.errors import Conflict, PermanentError
from certbaton.model import Journal, ObjectRef, Proof, Rejection, SecretVersion
from cluster.builders import NOW, key, pending, reader, stored
from fakes.kube import FakeApi


def delete(api: FakeApi, store: Store, ref: ObjectRef) -> None:
    """Somebody deletes it, and the watch tells."""
    there = api.read(Kind.SECRET, ref)["metadata"]
    api.client("kubectl").delete(Kind.SECRET, ref, there["uid"], there["resourceVersion"])
    store.cache.relist()
    api.requests.clear()


def content(obj: Obj) -> Obj:
    """All of a Secret but what the API server gives it."""
    metadata = {
        name: obj["metadata"][name]
        for name in ("name", "namespace", "labels", "annotations")
        if name in obj["metadata"]
    }
    return {**{k: v for k, v in obj.items() if k != "metadata"}, "metadata": metadata}


def noted(store: Store) -> SecretVersion:
    """A version that was served here and refused there."""
    return store.annotate(
        stored(store),
        served={"shop/shop": Proof(NOW, "wire")},
        rejected={"api/api": Rejection(NOW, "alerts")},
    )


def test_it_is_put_back_with_name_content_and_notes(api: FakeApi, store: Store) -> None:
    """One request; the mark for deletion stays away, since a Service names it."""
    version = noted(store)
    before = content(api.read(Kind.SECRET, version.ref))
    store.annotate(version, marked_at=NOW)
    delete(api, store, version.ref)
    assert store.versions() == ()
    back = store.put_back(version.ref)
    assert [asked.verb for asked in api.requests] == ["create"]
    assert content(api.read(Kind.SECRET, version.ref)) == before
    assert store.versions() == (back,)
    assert (back.served, back.rejected) == (version.served, version.rejected)
    assert back.marked_at is None
    assert back.uid != version.uid


def test_it_can_be_put_back_twice(api: FakeApi, store: Store) -> None:
    """Another replica was faster, and our watch does not know yet."""
    version = stored(store)
    body = content(api.read(Kind.SECRET, version.ref))
    delete(api, store, version.ref)
    there = api.client("certbaton").create(Kind.SECRET, "certbaton", body)
    back = store.put_back(version.ref)
    assert back.uid == there["metadata"]["uid"]
    assert store.versions() == (back,)


def test_what_is_remembered(api: FakeApi, store: Store) -> None:
    """Deleted versions, as long as somebody names them."""
    named, other, there = stored(store), stored(store), stored(store)
    assert store.remembered(frozenset({named.ref, other.ref})) == frozenset()
    delete(api, store, named.ref)
    delete(api, store, other.ref)
    assert store.remembered(frozenset({named.ref, there.ref})) == {named.ref}
    # what nobody named at that time is forgotten for good: no key is kept for nothing
    assert store.remembered(frozenset({named.ref, other.ref})) == {named.ref}
    with pytest.raises(PermanentError, match="not known any more"):
        store.put_back(other.ref)
    store.put_back(named.ref)
    assert store.remembered(frozenset({named.ref})) == frozenset()


def test_what_we_deleted_is_not_remembered(api: FakeApi, store: Store) -> None:
    """Not even where a Service names it again in that very moment."""
    version = stored(store)
    store.delete_version(version)
    assert store.remembered(frozenset({version.ref})) == frozenset()


def test_another_process_remembers_nothing(api: FakeApi, store: Store) -> None:
    """Keys lie in Secrets only."""
    version = stored(store)
    delete(api, store, version.ref)
    with pytest.raises(PermanentError, match="not known any more"):
        Store(api, store._instance).put_back(version.ref)


def test_another_secret_in_its_place_is_told_and_not_fought_over(
    api: FakeApi, store: Store
) -> None:
    """The next best version has to do then."""
    version = stored(store)
    obj = api.read(Kind.SECRET, version.ref)
    delete(api, store, version.ref)
    body = records.secret(version.ref, {}, {}, type_="kubernetes.io/tls")
    api.client("kubectl").create(Kind.SECRET, "certbaton", {**body, "data": obj["data"]})
    assert store.remembered(frozenset({version.ref})) == {version.ref}
    with pytest.raises(PermanentError, match="without our labels"):
        store.put_back(version.ref)
    assert store.remembered(frozenset({version.ref})) == frozenset()


# --- Journals ------------------------------------------------------------------------------------

JOURNAL = ObjectRef("certbaton", "journal.shop.prod.certbaton")


def begun(store: Store) -> Journal:
    """A Journal with an order at the CA, and its key."""
    new = key()
    return store.save_journal("shop", pending(new), key=new, csr="CSR")


def test_a_deleted_journal_is_put_back_whole(api: FakeApi, store: Store) -> None:
    """With the key of its order; until then it is what is counted, and not written yet."""
    journal, before = begun(store), content(api.read(Kind.SECRET, JOURNAL))
    delete(api, store, JOURNAL)
    assert store.journals() == {}
    assert store.journal("shop") == replace(journal, resource_version="")
    assert store.lost_journals() == (replace(journal, resource_version=""),)
    back = store.put_back_journal("shop")
    assert [asked.verb for asked in api.requests] == ["create"]
    assert content(api.read(Kind.SECRET, JOURNAL)) == before
    assert store.journals() == {"shop": back}
    assert store.lost_journals() == ()
    assert store.put_back_journal("shop") == back, "and once only"


def test_any_write_to_a_deleted_journal_brings_the_rest_of_it_back(
    api: FakeApi, store: Store
) -> None:
    """Also where it could not be put back before: no write begins with an empty one."""
    begun(store)
    key_before = store.pending_key("shop")
    delete(api, store, JOURNAL)
    lost = store.journal("shop")
    assert lost is not None
    store.save_journal("shop", replace(lost, originals={"shop/shop": "by-hand"}), keep_key=True)
    there = reader(api)
    assert there.pending_key("shop") == key_before
    assert there.pending_csr("shop") == "CSR"
    assert there.journals()["shop"].originals == {"shop/shop": "by-hand"}


def test_a_journal_that_was_written_anew_meanwhile_is_not_touched(
    api: FakeApi, store: Store
) -> None:
    """What lies there counts, also an empty one, and also where our watch does not know yet."""
    begun(store)
    delete(api, store, JOURNAL)
    theirs = reader(api).save_journal("shop", Journal(last_version="theirs"))
    with pytest.raises(Conflict):
        store.put_back_journal("shop")
    assert store.journals() == {"shop": theirs}
    assert store.lost_journals() == ()


def test_another_process_does_not_know_a_deleted_journal(api: FakeApi, store: Store) -> None:
    """It has to do with the versions' dates."""
    begun(store)
    delete(api, store, JOURNAL)
    other = reader(api)
    assert (other.journal("shop"), other.lost_journals()) == (None, ())
    with pytest.raises(Conflict, match="not known any more"):
        other.put_back_journal("shop")
