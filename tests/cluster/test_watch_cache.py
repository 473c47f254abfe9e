"""The watch cache in the corners that a real server doesn't show on demand."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from certbaton.cluster.answers import Asked
from certbaton.cluster.cache import WatchCache
from certbaton.cluster.contract import Kind, Obj, Page, uid_of, version_of
from certbaton.errors import ClusterUnavailable, PermanentError
from certbaton.model import ObjectRef
from fakes.kube import FakeApi

ONE = ObjectRef("a", "one")
Words = WatchCache[str]


def project(obj: Obj, before: str | None) -> str | None:
    word: str | None = (obj["metadata"].get("annotations") or {}).get("word")
    return word


def body(name: str, word: str) -> Obj:
    return {"metadata": {"name": name, "annotations": {"word": word}}}


def say(word: str) -> Obj:
    return {"metadata": {"annotations": {"word": word}}}


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        threading.Event().wait(0.002)


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


@pytest.fixture
def words(api: FakeApi) -> Iterator[Words]:
    cache = Words(api, Kind.SECRET, project=project, back_off=(0.001,))
    yield cache
    cache.stop()


def test_an_outage_is_a_problem_until_it_is_over(api: FakeApi, words: Words) -> None:
    """The loop never ends, and the sentence goes away by itself."""
    down = threading.Event()
    down.set()

    def outage(asked: Asked) -> None:
        if down.is_set():
            raise ClusterUnavailable("no route")

    api.before = outage
    words.start()
    eventually(lambda: words.problem == "Secrets in all namespaces: no route")
    assert not words.synced
    down.clear()
    eventually(lambda: words.synced and words.problem is None)
    down.set()
    api.end_watches()
    eventually(lambda: words.problem is not None)
    assert words.synced  # what is known is known; only its age is not
    down.clear()
    eventually(lambda: words.problem is None)


def test_the_end_of_an_outage_wakes_although_nothing_changed(api: FakeApi, words: Words) -> None:
    """What was held back by an incomplete reading would wait for the backstop otherwise."""
    woken = threading.Event()
    words.start(woken.set)
    eventually(lambda: words.synced)
    refused = threading.Event()

    def refuse_twice(asked: Asked) -> None:
        if api.requests[-2:] == [asked, asked]:
            api.before = lambda asked: None
        refused.set()
        woken.clear()
        raise PermanentError("not allowed yet")

    woken.clear()
    api.before = refuse_twice
    api.end_watches()
    assert refused.wait(5)
    assert woken.wait(5)
    assert words.problem is None


def test_a_failed_list_without_a_thread_is_raised_and_kept(api: FakeApi, words: Words) -> None:
    """The caller knows, and so does whoever asks for the problem later."""

    def outage(asked: Asked) -> None:
        raise ClusterUnavailable("no route")

    api.before = outage
    with pytest.raises(ClusterUnavailable):
        words.relist()
    assert words.problem is not None
    api.before = lambda asked: None
    words.relist()
    assert words.synced
    assert not words.problem


def test_a_projection_that_fails_does_not_end_the_loop(api: FakeApi) -> None:
    """A bug of ours is told as a problem, without content, and tried again."""
    broken = threading.Event()
    broken.set()

    def odd(obj: Obj, before: str | None) -> str | None:
        if broken.is_set():
            raise KeyError("S3CRET")
        return project(obj, before)

    api.create(Kind.SECRET, "a", body("one", "x"))
    cache = Words(api, Kind.SECRET, project=odd, back_off=(0.001,))
    cache.start()
    eventually(lambda: cache.problem == "Secrets in all namespaces: unforeseen KeyError")
    broken.clear()
    eventually(lambda: cache.items() == {ONE: "x"})
    cache.stop()


def test_bookmarks_move_the_position_on(api: FakeApi, words: Words) -> None:
    """A quiet collection can be resumed after the past was forgotten."""
    words.start()
    eventually(lambda: words.synced)
    eventually(lambda: [a.verb for a in api.requests].count("watch") == 1)
    api.compact()
    api.bookmark()
    eventually(lambda: words._position == str(api._world.number))
    api.end_watches()
    eventually(lambda: [a.verb for a in api.requests].count("watch") > 1)
    assert words.generation == 1


def test_what_is_learned_while_a_list_is_made_outlives_it(api: FakeApi) -> None:
    """A write of ours after the list's moment is not lost to the list."""

    class Slow(FakeApi):
        """Something is written between the list's moment and its arrival."""

        between: Callable[[], None] = staticmethod(lambda: None)

        def pages(self, *args: object, **more: object) -> Iterator[Page]:
            pages = list(super().pages(*args, **more))  # type: ignore[arg-type]
            self.between()
            yield from pages

    slow = Slow(world=api._world)
    cache = Words(slow, Kind.SECRET, project=project)
    one = api.create(Kind.SECRET, "a", body("one", "x"))
    cache.relist()

    def between() -> None:
        cache.learn(api.create(Kind.SECRET, "a", body("two", "y")))
        cache.learn(api.merge(Kind.SECRET, ONE, say("newer")))

    slow.between = between
    cache.relist()
    assert cache.items() == {ONE: "newer", ObjectRef("a", "two"): "y"}

    def deletion() -> None:
        api.delete(Kind.SECRET, ONE, uid_of(one), version_of(api.read(Kind.SECRET, ONE)))
        cache.forget(ONE, uid_of(one))

    slow.between = deletion
    cache.relist()
    assert cache.get(ONE) is None


def test_a_deletion_of_an_earlier_object_changes_nothing(api: FakeApi, words: Words) -> None:
    """We know the new one of that name already, by a write of ours."""
    first = api.create(Kind.SECRET, "a", body("one", "old"))
    words.start()
    eventually(lambda: words.synced)
    api.delete(Kind.SECRET, ONE, uid_of(first), version_of(first))
    words.learn(api.create(Kind.SECRET, "a", body("one", "new")))
    assert words.get(ONE) == "new"
    api.create(Kind.SECRET, "a", body("two", "later"))
    eventually(lambda: words.get(ObjectRef("a", "two")) == "later")
    assert words.get(ONE) == "new"


def test_our_own_writes_wake_nobody(api: FakeApi, words: Words) -> None:
    """The watch's echo of what was learned is no change."""
    woken: list[int] = []
    words.start(lambda: woken.append(1))
    eventually(lambda: len(woken) == 1)  # the list
    words.learn(api.create(Kind.SECRET, "a", body("one", "x")))
    words.learn(api.merge(Kind.SECRET, ONE, say("y")))
    api.client("other").create(Kind.SECRET, "a", body("two", "z"))
    eventually(lambda: words.get(ObjectRef("a", "two")) == "z")
    eventually(lambda: len(woken) == 2)


def test_what_is_kept_the_same_wakes_nobody(api: FakeApi, words: Words) -> None:
    """Only the projection counts."""
    woken: list[int] = []
    api.create(Kind.SECRET, "a", body("one", "x"))
    words.start(lambda: woken.append(1))
    eventually(lambda: len(woken) == 1)
    api.merge(Kind.SECRET, ONE, {"metadata": {"annotations": {"other": "1"}}})
    api.create(Kind.SECRET, "a", body("two", "z"))
    eventually(lambda: words.get(ObjectRef("a", "two")) == "z")
    assert len(woken) == 2


def test_it_keeps_no_more_than_its_limit(api: FakeApi) -> None:
    """The oldest states go first."""
    cache = Words(api, Kind.EVENT, project=project, limit=2)
    cache.relist()
    for name in ("one", "two", "three"):
        cache.learn(api.create(Kind.EVENT, "a", body(name, name)))
    assert set(cache.items().values()) == {"two", "three"}


def test_a_store_put_back_from_a_backup_is_believed(api: FakeApi, words: Words) -> None:
    """resourceVersions then begin before what was heard: all that was known is dropped."""
    for name in ("one", "two"):
        api.create(Kind.SECRET, "a", body(name, "after"))
    words.relist()
    api._world.number = 50
    api._world.objects.clear()
    api.create(Kind.SECRET, "a", body("one", "before"))
    words.relist()
    assert words.items() == {ONE: "before"}


def test_a_store_put_back_while_the_server_was_away_for_a_moment_is_noticed(
    api: FakeApi, words: Words
) -> None:
    """A watch from a resourceVersion of the future is silent: only a list can tell."""
    for name in ("one", "two"):
        api.create(Kind.SECRET, "a", body(name, "after"))
    words.start()
    eventually(lambda: words.synced)

    def once(asked: Asked) -> None:
        api.before = lambda asked: None
        api._world.number = 0
        api._world.objects.clear()
        api._world.history.clear()
        api.create(Kind.SECRET, "a", body("one", "before"))
        raise ClusterUnavailable("connection refused")

    api.before = once
    api.end_watches()
    eventually(lambda: words.items() == {ONE: "before"})


def test_watches_of_different_caches_end_at_different_times(api: FakeApi) -> None:
    """Between five and ten minutes, the same at every start."""
    seconds = {
        Words(api, kind, project=project)._duration(turn)
        for kind in (Kind.SECRET, Kind.SERVICE, Kind.EVENT)
        for turn in range(20)
    }
    assert len(seconds) > 40
    assert min(seconds) >= 300
    assert max(seconds) < 600


def test_stopping_takes_no_time(api: FakeApi, words: Words) -> None:
    """Though a watch lasts minutes."""
    words.start()
    eventually(lambda: words.synced)
    began = time.monotonic()
    words.stop()
    assert time.monotonic() - began < 1
