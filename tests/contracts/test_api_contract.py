"""
What certbaton relies on in an API server: one suite, on the fake and on the real one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from certbaton.cluster.contract import (
    AlreadyExists,
    Expired,
    Kind,
    Obj,
    ref_of,
    uid_of,
    version_number,
    version_of,
)
from certbaton.errors import Conflict, ObjectGone, PermanentError
from contracts.conftest import Server
from contracts.objects import b64, secret

# --- objects ---------------------------------------------------------------------------


def test_what_is_not_there_is_gone(server: Server) -> None:
    """Reading, changing and deleting a missing object all say ObjectGone."""
    ref = server.ref("missing")
    with pytest.raises(ObjectGone):
        server.api.read(Kind.SECRET, ref)
    with pytest.raises(ObjectGone):
        server.api.merge(Kind.SECRET, ref, {"metadata": {"labels": {"a": "b"}}})
    with pytest.raises(ObjectGone):
        server.api.delete(Kind.SECRET, ref, "00000000-0000-0000-0000-000000000000", "1")


def test_create_answers_what_is_stored(server: Server) -> None:
    """uid and resourceVersion come with the answer, which is what a read gives, too."""
    made = server.api.create(Kind.SECRET, server.namespace, secret("one"))
    assert uid_of(made)
    assert version_number(version_of(made)) > 0
    assert ref_of(made) == server.ref("one")
    assert made["type"] == "Opaque"
    assert server.api.read(Kind.SECRET, server.ref("one")) == made


def test_a_name_can_be_taken_once(server: Server) -> None:
    """A second create is AlreadyExists, which is a Conflict."""
    server.api.create(Kind.SECRET, server.namespace, secret("one"))
    with pytest.raises(AlreadyExists):
        server.api.create(Kind.SECRET, server.namespace, secret("one"))
    assert issubclass(AlreadyExists, Conflict)


def test_an_event_of_the_same_name_is_refused(server: Server) -> None:
    """So a name made of the content keeps an Event from being repeated."""
    body = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "shop.1", "namespace": server.namespace},
        "involvedObject": {"kind": "Service", "name": "shop", "namespace": server.namespace},
        "reason": "Served",
        "message": "it works",
        "type": "Normal",
    }
    server.api.create(Kind.EVENT, server.namespace, body)
    with pytest.raises(AlreadyExists):
        server.api.create(Kind.EVENT, server.namespace, body)


def test_a_lease_is_replaced_with_a_precondition(server: Server) -> None:
    """The leader's renewal is one PUT, and a lost race is a Conflict."""
    body: Obj = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "prod", "namespace": server.namespace},
        "spec": {"holderIdentity": "a", "leaseDurationSeconds": 60},
    }
    made = server.api.create(Kind.LEASE, server.namespace, body)
    made["spec"]["holderIdentity"] = "b"
    server.api.replace(Kind.LEASE, server.ref("prod"), made)
    with pytest.raises(Conflict):
        server.api.replace(Kind.LEASE, server.ref("prod"), made)
    assert server.api.read(Kind.LEASE, server.ref("prod"))["spec"]["holderIdentity"] == "b"


def test_merge_changes_only_what_it_names(server: Server) -> None:
    """None removes; whatever is not named stays."""
    ref = server.ref("one")
    made = server.api.create(
        Kind.SECRET, server.namespace, secret("one", data={"a": b64("1"), "b": b64("2")})
    )
    patch = {
        "metadata": {"resourceVersion": version_of(made), "annotations": {"x": "y"}},
        "data": {"a": None, "c": b64("3")},
    }
    changed = server.api.merge(Kind.SECRET, ref, patch)
    assert changed["data"] == {"b": b64("2"), "c": b64("3")}
    assert changed["metadata"]["annotations"] == {"x": "y"}
    assert changed["metadata"]["labels"] == {"team": "a"}
    assert version_number(version_of(changed)) > version_number(version_of(made))


def test_merge_on_an_old_version_is_a_conflict(server: Server) -> None:
    """A resourceVersion in the patch is a precondition."""
    made = server.api.create(Kind.SECRET, server.namespace, secret("one"))
    patch = {"metadata": {"resourceVersion": version_of(made), "annotations": {"x": "1"}}}
    server.api.merge(Kind.SECRET, server.ref("one"), patch)
    patch["metadata"]["annotations"] = {"x": "2"}
    with pytest.raises(Conflict) as caught:
        server.api.merge(Kind.SECRET, server.ref("one"), patch)
    assert not isinstance(caught.value, ObjectGone)


def test_a_write_that_changes_nothing_is_none(server: Server) -> None:
    """The resourceVersion stays, so that nobody is woken."""
    made = server.api.create(Kind.SECRET, server.namespace, secret("one"))
    same = server.api.merge(Kind.SECRET, server.ref("one"), {"data": {"word": b64("hello")}})
    assert version_of(same) == version_of(made)


def test_an_immutable_secret_keeps_its_content(server: Server) -> None:
    """Its data cannot change, its annotations can; the refusal quotes no content."""
    ref = server.ref("one")
    server.api.create(Kind.SECRET, server.namespace, secret("one", immutable=True))
    with pytest.raises(PermanentError) as caught:
        server.api.merge(Kind.SECRET, ref, {"data": {"word": b64("other")}})
    assert "data" in str(caught.value)
    assert b64("other") not in str(caught.value)
    with pytest.raises(PermanentError):
        server.api.merge(Kind.SECRET, ref, {"immutable": None})
    changed = server.api.merge(Kind.SECRET, ref, {"metadata": {"annotations": {"x": "y"}}})
    assert changed["data"] == {"word": b64("hello")}


def test_a_tls_secret_needs_both_keys(server: Server) -> None:
    """PermanentError that names the field."""
    body = secret("one", type="kubernetes.io/tls", data={"tls.crt": b64("x")})
    with pytest.raises(PermanentError, match=r"tls\.key"):
        server.api.create(Kind.SECRET, server.namespace, body)


def test_no_refusal_carries_what_was_sent(server: Server) -> None:
    """Neither text, cause nor context of an error about a Secret holds its data."""
    made = server.api.create(Kind.SECRET, server.namespace, secret("one", immutable=True))
    marker = "c2VjcmV0LWtleS1tYXRlcmlhbA=="
    calls: tuple[Callable[[], Obj], ...] = (
        lambda: server.api.merge(Kind.SECRET, server.ref("one"), {"data": {"word": marker}}),
        lambda: server.api.create(Kind.SECRET, server.namespace, secret("one", data={"a": marker})),
        lambda: server.api.create(
            Kind.SECRET,
            server.namespace,
            secret("two", type="kubernetes.io/tls", data={"a": marker}),
        ),
        lambda: server.api.replace(
            Kind.SECRET, server.ref("one"), made | {"data": {"word": marker}}
        ),
    )
    for call in calls:
        with pytest.raises((Conflict, PermanentError)) as caught:
            call()
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
        assert marker not in repr(caught.value)


def test_delete_meets_exactly_what_was_seen(server: Server) -> None:
    """Another uid or resourceVersion is a Conflict and deletes nothing."""
    ref = server.ref("one")
    made = server.api.create(Kind.SECRET, server.namespace, secret("one"))
    with pytest.raises(Conflict):
        server.api.delete(
            Kind.SECRET, ref, "00000000-0000-0000-0000-000000000000", version_of(made)
        )
    changed = server.api.merge(Kind.SECRET, ref, {"metadata": {"annotations": {"x": "y"}}})
    with pytest.raises(Conflict) as caught:
        server.api.delete(Kind.SECRET, ref, uid_of(made), version_of(made))
    assert not isinstance(caught.value, ObjectGone)
    server.api.delete(Kind.SECRET, ref, uid_of(made), version_of(changed))
    with pytest.raises(ObjectGone):
        server.api.delete(Kind.SECRET, ref, uid_of(made), version_of(changed))


# --- lists and watches -----------------------------------------------------------------


def test_lists_are_chosen_by_label_and_field(server: Server) -> None:
    """Label and field selectors work together, within a namespace."""
    for name, team in (("one", "a"), ("two", "b"), ("three", "a")):
        body = secret(name)
        body["metadata"]["labels"] = {"team": team}
        server.api.create(Kind.SECRET, server.namespace, body)
    found, version = server.api.list(Kind.SECRET, server.namespace, label_selector="team=a")
    assert {ref_of(obj).name for obj in found} == {"one", "three"}
    assert version_number(version) > 0
    found, _ = server.api.list(
        Kind.SECRET, server.namespace, label_selector="team=a", field_selector="metadata.name=one"
    )
    assert [ref_of(obj).name for obj in found] == ["one"]


def test_lists_come_in_pages(server: Server) -> None:
    """All objects are seen once, and every page says the same resourceVersion."""
    for number in range(5):
        server.api.create(Kind.SECRET, server.namespace, secret(f"s{number}"))
    pages = list(server.pages_of(2).pages(Kind.SECRET, server.namespace))
    assert [len(items) for items, _ in pages] == [2, 2, 1]
    assert {ref_of(o).name for items, _ in pages for o in items} == {f"s{n}" for n in range(5)}
    assert len({version for _, version in pages}) == 1


def test_an_empty_list_is_one_page(server: Server) -> None:
    """With a resourceVersion to watch from."""
    pages = list(server.api.pages(Kind.SECRET, server.namespace))
    assert [items for items, _ in pages] == [[]]
    assert pages[0][1]


def test_a_watch_tells_what_happened_since(server: Server) -> None:
    """From the list's resourceVersion on, in order, even what was before it was opened."""
    ref = server.ref("one")
    _, version = server.api.list(Kind.SECRET, server.namespace)
    made = server.api.create(Kind.SECRET, server.namespace, secret("one"))
    watch = server.api.watch(
        Kind.SECRET, server.namespace, resource_version=version, timeout_seconds=10
    )
    changed = server.api.merge(Kind.SECRET, ref, {"metadata": {"annotations": {"x": "y"}}})
    server.api.delete(Kind.SECRET, ref, uid_of(made), version_of(changed))
    seen = [next(watch) for _ in range(3)]
    watch.close()
    assert [kind for kind, _ in seen] == ["ADDED", "MODIFIED", "DELETED"]
    assert [uid_of(obj) for _, obj in seen] == [uid_of(made)] * 3
    numbers = [version_number(version_of(obj)) for _, obj in seen]
    assert numbers == sorted(set(numbers))
    assert next(watch, None) is None


def test_an_object_that_leaves_the_selector_is_deleted_to_the_watcher(server: Server) -> None:
    """And one that enters it is added."""
    server.api.create(Kind.SECRET, server.namespace, secret("one"))
    _, version = server.api.list(Kind.SECRET, server.namespace)
    watch = server.api.watch(
        Kind.SECRET,
        server.namespace,
        resource_version=version,
        timeout_seconds=10,
        label_selector="team=a",
    )
    for team in ("b", "a"):
        server.api.merge(Kind.SECRET, server.ref("one"), {"metadata": {"labels": {"team": team}}})
    assert [next(watch)[0] for _ in range(2)] == ["DELETED", "ADDED"]
    watch.close()


def test_a_watch_ends_after_its_time(server: Server) -> None:
    """Without an error: the next one goes on from there."""
    _, version = server.api.list(Kind.SECRET, server.namespace)
    began = time.monotonic()
    watch = server.api.watch(
        Kind.SECRET, server.namespace, resource_version=version, timeout_seconds=1
    )
    assert [kind for kind, _ in watch if kind != "BOOKMARK"] == []
    assert time.monotonic() - began < 10


def test_a_watch_is_closed_from_another_thread(server: Server) -> None:
    """The one who waits for the next event is woken at once."""
    _, version = server.api.list(Kind.SECRET, server.namespace)
    watch = server.api.watch(
        Kind.SECRET, server.namespace, resource_version=version, timeout_seconds=60
    )
    events: list[object] = []
    reader = threading.Thread(target=lambda: events.extend(watch), daemon=True)
    reader.start()
    began = time.monotonic()
    watch.close()
    reader.join(10)
    assert not reader.is_alive()
    assert time.monotonic() - began < 5
    assert events == []


def test_a_watch_from_long_ago_is_expired(server: Server) -> None:
    """410, by status or as an event of the stream."""
    _, version = server.api.list(Kind.SECRET, server.namespace)
    server.api.create(Kind.SECRET, server.namespace, secret("one"))
    server.forget_the_past()
    with pytest.raises(Expired):
        for _ in server.api.watch(Kind.SECRET, resource_version=version, timeout_seconds=5):
            pass


def test_events_are_watched_by_what_they_are_about(server: Server) -> None:
    """The field selector involvedObject.kind works for list and watch."""
    for number, kind in enumerate(("Service", "Pod")):
        server.api.create(
            Kind.EVENT,
            server.namespace,
            {
                "metadata": {"name": f"e{number}", "namespace": server.namespace},
                "involvedObject": {"kind": kind, "name": "x", "namespace": server.namespace},
                "reason": "Y",
            },
        )
    chosen = "involvedObject.kind=Service"
    found, _ = server.api.list(Kind.EVENT, server.namespace, field_selector=chosen)
    assert [obj["involvedObject"]["kind"] for obj in found] == ["Service"]
