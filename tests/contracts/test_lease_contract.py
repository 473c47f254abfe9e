"""The Lease on an API server in memory and on the real one: what each of its writes comes to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

import pytest

from certbaton.cluster.contract import Kind, KubeApi, Obj
from certbaton.cluster.lease import Lease
from certbaton.errors import ObjectGone
from certbaton.model import Instance
from contracts.conftest import Server

Make = Callable[..., Lease]


@pytest.fixture
def make(server: Server) -> Iterator[Make]:
    """A process that wants the Lease of this namespace, for five seconds at a time."""
    made: list[Lease] = []

    def make(identity: str, api: KubeApi | None = None, seconds: float = 5.0) -> Lease:
        lease = Lease(
            api or server.api,
            Instance("certbaton", server.namespace),
            identity=identity,
            duration=timedelta(seconds=seconds),
            renew_every=timedelta(seconds=seconds / 5),
        )
        made.append(lease)
        return lease

    yield make
    for lease in made:
        lease.stop()


def spec(server: Server) -> Obj:
    found: Obj = server.other.read(Kind.LEASE, server.ref("certbaton"))["spec"]
    return found


def until(condition: Callable[[], bool], news: threading.Event) -> float:
    """How long it took until *condition*."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < 20
        news.wait(0.1)
        news.clear()
    return time.monotonic() - began


def test_it_is_made_renewed_and_given_up(server: Server, make: Make) -> None:
    """The server takes every write as it is, and microseconds are kept."""
    one = make("one")
    one.campaign()
    one.step()
    assert one.valid()
    first = spec(server)
    assert first["holderIdentity"] == "one"
    assert first["leaseDurationSeconds"] == 5
    datetime.strptime(first["renewTime"], "%Y-%m-%dT%H:%M:%S.%fZ")  # noqa: DTZ007
    time.sleep(1.0)
    one.step()
    assert spec(server)["renewTime"] > first["renewTime"]
    assert spec(server)["acquireTime"] == first["acquireTime"]
    assert one.release()
    assert not spec(server).get("holderIdentity")
    assert not one.valid()


def test_of_two_only_one_takes_it(server: Server, make: Make) -> None:
    """Whoever comes second reads who was first."""
    one, two = make("one"), make("two", server.other)
    for lease in (one, two):
        lease.campaign()
        lease.step()
    assert (one.valid(), two.valid()) == (True, False)
    assert two.holder == "one"
    assert two.problem is None


def test_a_renewal_over_somebodys_change_is_refused_and_then_made(
    server: Server, make: Make
) -> None:
    """By its resourceVersion; the change stays."""
    one = make("one")
    one.campaign()
    one.step()
    labels = {"metadata": {"labels": {"team": "web"}}}
    server.other.merge(Kind.LEASE, server.ref("certbaton"), labels)
    time.sleep(1.0)
    one.step()
    assert one.holder == "one"
    one.step()
    assert one.valid()
    found = server.other.read(Kind.LEASE, server.ref("certbaton"))
    assert found["metadata"]["labels"] == {"team": "web"}


def test_a_release_is_heard_by_the_watch_at_once(server: Server, make: Make) -> None:
    """One of this name among all of the namespace."""
    news = threading.Event()
    one, two = make("one"), make("two", server.other)
    one.start(news.set)
    until(one.valid, news)
    two.start(news.set)
    until(lambda: two.holder == "one", news)
    time.sleep(1.2)
    one.stop()
    assert one.release()
    assert until(two.valid, news) < 2.0


def test_what_is_not_renewed_is_taken_over_when_its_time_is_over(
    server: Server, make: Make
) -> None:
    """The holder has stopped believing in it before."""
    news = threading.Event()
    one, two = make("one", seconds=2.0), make("two", server.other, seconds=2.0)
    one.start(news.set)
    until(one.valid, news)
    two.start(news.set)
    until(lambda: two.holder == "one", news)
    one.stop()
    held: list[bool] = []
    assert until(lambda: held.append(one.valid()) or two.valid(), news) < 3.0  # type: ignore[func-returns-value]
    assert not one.valid()
    assert spec(server)["leaseTransitions"] == 1


def test_one_that_is_deleted_under_its_holder_is_back_at_once(server: Server, make: Make) -> None:
    """By the watch, long before it would be renewed; who starts then stands by."""
    news = threading.Event()
    one = make("one", seconds=100.0)
    one.start(news.set)
    until(one.valid, news)
    lies = server.other.read(Kind.LEASE, server.ref("certbaton"))["metadata"]
    time.sleep(0.5)  # until it has heard of its own
    server.other.delete(Kind.LEASE, server.ref("certbaton"), lies["uid"], lies["resourceVersion"])

    def back() -> bool:
        try:
            return bool(spec(server)["holderIdentity"] == "one")
        except ObjectGone:
            return False

    assert until(back, news) < 5.0
    two = make("two", server.other, seconds=100.0)
    two.campaign()
    two.step()
    assert (one.valid(), two.valid()) == (True, False)
