"""What is read off a whole collection is made once, and anew when something has changed."""

from __future__ import annotations

from dataclasses import replace

from certbaton.cluster.derived import Derived
from certbaton.cluster.store import Store
from certbaton.model import Journal
from cluster.builders import key, pending, stored


def test_it_is_made_anew_only_in_another_state() -> None:
    """And never once too seldom: a change while it is being made counts as one after it."""
    state = [0]
    made: list[int] = []

    def make() -> int:
        made.append(state[0])
        if state[0] == 1:
            state[0] = 2  # somebody writes meanwhile
        return made[-1]

    derived = Derived(lambda: state[0], make)
    assert [derived(), derived()] == [0, 0] and made == [0]
    state[0] = 1
    assert [derived(), derived(), derived()] == [1, 2, 2] and made == [0, 1, 2]


def test_each_kind_of_change_is_seen_at_once(store: Store) -> None:
    """Created, changed, deleted: by the very next reading."""
    assert store.versions() == () and not store.journals()
    version = stored(store)
    assert store.versions() == store.versions("shop") == (version,)
    asked = store.annotate(version, marked_at=version.leaf.not_after if version.leaf else None)
    assert store.versions("shop") == (asked,) != (version,)
    new = key()
    journal = store.save_journal("shop", pending(new), key=new, csr="CSR")
    assert store.journals() == {"shop": journal}
    journal = store.save_journal("shop", replace(journal, pending=None))
    assert store.journals() == {"shop": journal}
    store.delete_version(asked)
    assert store.versions() == store.versions("shop") == ()
    assert store.remembered(frozenset({asked.ref})) == frozenset()


def test_nothing_is_sorted_out_twice(store: Store) -> None:
    """Two readings with nothing in between give the same object."""
    stored(store)
    store.save_journal("shop", Journal(last_version="v"))
    assert store.journals() is store.journals()
    assert store.versions() is store.versions()
    assert store.versions("shop") is store.versions("shop")
    assert store.lost_journals() is store.lost_journals()
