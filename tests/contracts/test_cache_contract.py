"""The watch cache against both API servers: it follows, resumes, lists anew, is never fooled."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from certbaton.cluster import cache as module
from certbaton.cluster.cache import WatchCache
from certbaton.cluster.contract import Kind, Obj, uid_of, version_of
from contracts.conftest import Server

Words = WatchCache[str]


def project(obj: Obj, before: str | None) -> str | None:
    """Keep one annotation."""
    word: str | None = (obj["metadata"].get("annotations") or {}).get("word")
    return word


def body(name: str, word: str) -> Obj:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "annotations": {"word": word}, "labels": {"ours": "yes"}},
    }


def say(word: str) -> Obj:
    return {"metadata": {"annotations": {"word": word}}}


def eventually(condition: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        threading.Event().wait(0.005)


@pytest.fixture
def words(server: Server) -> Iterator[Words]:
    """A cache of this namespace's Secrets that are ours; not started."""
    cache = Words(
        server.api,
        Kind.SECRET,
        namespace=server.namespace,
        label_selector="ours=yes",
        project=project,
        back_off=(0.05,),
    )
    yield cache
    cache.stop()


def test_it_follows(server: Server, words: Words) -> None:
    """What was there, what comes, changes, leaves the selector, and goes."""
    server.other.create(Kind.SECRET, server.namespace, body("one", "a"))
    assert not words.synced
    changes = threading.Semaphore(0)
    words.start(changes.release)
    eventually(lambda: words.items() == {server.ref("one"): "a"})
    assert words.synced
    server.other.create(Kind.SECRET, server.namespace, body("two", "b"))
    eventually(lambda: words.get(server.ref("two")) == "b")
    server.other.merge(Kind.SECRET, server.ref("two"), say("c"))
    eventually(lambda: words.get(server.ref("two")) == "c")
    server.other.merge(Kind.SECRET, server.ref("two"), {"metadata": {"labels": {"ours": "no"}}})
    eventually(lambda: words.get(server.ref("two")) is None)
    one = server.other.read(Kind.SECRET, server.ref("one"))
    server.other.delete(Kind.SECRET, server.ref("one"), uid_of(one), version_of(one))
    eventually(lambda: words.items() == {})
    assert words.generation == 1
    assert words.problem is None
    for _ in range(5):
        assert changes.acquire(timeout=5)


def test_it_resumes_where_a_stream_ended(
    server: Server, words: Words, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Watches end after their time; nothing is listed again, and nothing missed."""
    monkeypatch.setattr(module, "WATCH_SECONDS", (1, 2))
    monkeypatch.setattr(module, "SHORT_WATCH", 0.0)
    words.start()
    eventually(lambda: words.synced)
    for number in range(25):
        server.other.create(Kind.SECRET, server.namespace, body(f"s{number}", str(number)))
        threading.Event().wait(0.1)
    eventually(lambda: len(words.items()) == 25)
    assert words.generation == 1


def test_it_lists_anew_when_the_past_is_gone(server: Server, words: Words) -> None:
    """410: what changed meanwhile is found by a list, what was deleted meanwhile is dropped."""
    for name in ("one", "two"):
        server.other.create(Kind.SECRET, server.namespace, body(name, "a"))
    words.start()
    eventually(lambda: len(words.items()) == 2)
    end_of_the_past(server)
    eventually(lambda: words.generation == 2 and words.problem is None)
    server.other.merge(Kind.SECRET, server.ref("one"), say("b"))
    eventually(lambda: words.get(server.ref("one")) == "b")


def end_of_the_past(server: Server) -> None:
    """Streams break, and cannot be resumed."""
    one = server.other.read(Kind.SECRET, server.ref("two"))
    server.forget_the_past()
    ended = getattr(server.api, "end_watches", None)
    if ended is not None:
        ended()
    server.other.delete(Kind.SECRET, server.ref("two"), uid_of(one), version_of(one))


def test_the_answer_to_our_own_write_is_known_at_once(server: Server, words: Words) -> None:
    """Without waiting for the watch, which later tells nothing new."""
    words.start()
    eventually(lambda: words.synced)
    words.learn(server.api.create(Kind.SECRET, server.namespace, body("one", "a")))
    assert words.get(server.ref("one")) == "a"
    words.learn(server.api.merge(Kind.SECRET, server.ref("one"), say("b")))
    assert words.get(server.ref("one")) == "b"


def test_a_stale_answer_changes_nothing(server: Server, words: Words) -> None:
    """However late it is taken in: after a change, after a deletion, after a new object."""
    ref = server.ref("one")
    words.start()
    eventually(lambda: words.synced)
    first = server.api.create(Kind.SECRET, server.namespace, body("one", "a"))
    second = server.other.merge(Kind.SECRET, ref, say("b"))
    eventually(lambda: words.get(ref) == "b")
    words.learn(first)
    assert words.get(ref) == "b"
    server.other.delete(Kind.SECRET, ref, uid_of(second), version_of(second))
    eventually(lambda: words.get(ref) is None)
    words.learn(second)
    assert words.get(ref) is None
    server.other.create(Kind.SECRET, server.namespace, body("one", "c"))
    eventually(lambda: words.get(ref) == "c")
    words.learn(second)
    assert words.get(ref) == "c"


def test_what_we_deleted_does_not_come_back(server: Server, words: Words) -> None:
    """Not by events of its last changes that are still on their way."""
    ref = server.ref("one")
    made = server.api.create(Kind.SECRET, server.namespace, body("one", "a"))
    words.relist()
    changed = server.api.merge(Kind.SECRET, ref, say("b"))
    server.api.delete(Kind.SECRET, ref, uid_of(made), version_of(changed))
    words.forget(ref, uid_of(made))
    words.learn(changed)
    assert words.get(ref) is None
    again = server.api.create(Kind.SECRET, server.namespace, body("one", "c"))
    words.learn(again)
    assert words.get(ref) == "c"


def test_without_a_thread_it_lists_when_asked(server: Server, words: Words) -> None:
    """For plan and once: relist is the only way to news."""
    words.relist()
    server.other.create(Kind.SECRET, server.namespace, body("one", "a"))
    assert words.items() == {}
    words.relist()
    assert words.items() == {server.ref("one"): "a"}
    assert words.generation == 2
