"""Journals in Secrets."""

from __future__ import annotations

from dataclasses import replace

import pytest

from certbaton.cluster.contract import AlreadyExists, Kind
from certbaton.cluster.store import Store
from certbaton.errors import Conflict, PermanentError
from certbaton.model import Journal, ObjectRef
from cluster.builders import (
    b64,
    key,
    pending,
    reader,
)
from fakes.kube import FakeApi

# --- Journals --------------------------------------------------------------------------


def test_a_journal_is_created_and_then_changed(api: FakeApi, store: Store) -> None:
    """One request each; the key is there as long as the order is."""
    new = key()
    assert store.journal("shop") is None
    journal = store.save_journal("shop", pending(new), key=new, csr="CSR")
    assert store.journal("shop") == journal
    assert store.pending_key("shop") == new
    assert store.pending_csr("shop") == "CSR"
    assert journal.pending is not None
    moved = replace(journal, pending=replace(journal.pending, url="https://ca/order/1"))
    journal = store.save_journal("shop", moved, keep_key=True)
    assert reader(api).pending_key("shop") == new
    assert reader(api).journal("shop") == journal
    journal = store.save_journal("shop", replace(journal, pending=None, last_version="v"))
    assert store.pending_key("shop") is None
    assert store.pending_csr("shop") is None
    (obj,) = api.all(Kind.SECRET).values()
    assert obj["metadata"]["name"] == "journal.shop.prod.certbaton"
    assert obj["metadata"]["labels"]["certbaton.io/kind"] == "journal"
    assert set(obj["data"]) == {"journal"}
    assert [asked.verb for asked in api.requests] == ["create", "merge", "merge"]


def test_a_journal_written_by_somebody_else_is_a_conflict(api: FakeApi, store: Store) -> None:
    """For a change and for a creation; afterwards the store knows theirs."""
    theirs = reader(api)
    first = theirs.save_journal("shop", Journal(last_version="1"))
    with pytest.raises(AlreadyExists):
        store.save_journal("shop", Journal(last_version="2"))
    assert store.journal("shop") == first
    second = theirs.save_journal("shop", replace(first, last_version="3"))
    with pytest.raises(Conflict):
        store.save_journal("shop", replace(first, last_version="4"))
    assert store.journal("shop") == second


def test_the_key_of_a_pending_order_cannot_be_lost(store: Store) -> None:
    """Neither left out by mistake nor replaced by another one."""
    new = key()
    with pytest.raises(ValueError, match="lost"):
        store.save_journal("shop", pending(new))
    with pytest.raises(ValueError, match="not that"):
        store.save_journal("shop", pending(new), key=key())
    assert store.journal("shop") is None


def test_a_broken_journal_with_a_key_is_never_overwritten(api: FakeApi, store: Store) -> None:
    """It counts as missing, is reported, and a person must look: PermanentError."""
    new = key()
    store.save_journal("shop", pending(new), key=new, csr="CSR")
    ref = ObjectRef("certbaton", "journal.shop.prod.certbaton")
    api.merge(Kind.SECRET, ref, {"data": {"journal": b64("{")}})
    store.cache.relist()
    assert store.journal("shop") is None
    assert "private key" in store.problems()[0]
    with pytest.raises(PermanentError, match="private key"):
        store.save_journal("shop", Journal())
    assert reader(api).pending_key("shop") == new


def test_a_broken_journal_without_a_key_is_written_anew(api: FakeApi, store: Store) -> None:
    """Nothing is lost by it that could still be read."""
    store.save_journal("shop", Journal())
    ref = ObjectRef("certbaton", "journal.shop.prod.certbaton")
    api.merge(Kind.SECRET, ref, {"data": {"journal": b64("[]")}})
    store.cache.relist()
    assert store.journals() == {}
    assert len(store.problems()) == 1
    store.save_journal("shop", Journal(last_version="v"))
    assert store.problems() == ()
    assert reader(api).journals()["shop"].last_version == "v"


def test_a_stranger_in_the_journals_place_is_for_a_person(api: FakeApi, store: Store) -> None:
    """Otherwise it would be a lost race for ever."""
    api.create(Kind.SECRET, "certbaton", {"metadata": {"name": "journal.shop.prod.certbaton"}})
    with pytest.raises(PermanentError, match="in the way"):
        store.save_journal("shop", Journal())


def test_all_journals_are_at_hand(store: Store) -> None:
    """The limits count over all of them."""
    a = store.save_journal("a", Journal(last_version="1"))
    b = store.save_journal("b", Journal(last_version="2"))
    assert store.journals() == {"a": a, "b": b}
