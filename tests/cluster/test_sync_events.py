"""Events: the controller's, kept slim and few, and our own."""

from __future__ import annotations

from datetime import timedelta

import pytest

from certbaton.cluster.answers import Asked
from certbaton.cluster.contract import Kind, Obj
from certbaton.cluster.events import KEPT, MESSAGE_LENGTH, SyncEvents
from certbaton.errors import PermanentError
from certbaton.model import ObjectRef, SyncEvent
from cluster.builders import NOW, SHOP
from fakes.kube import FakeApi


@pytest.fixture
def events(api: FakeApi) -> SyncEvents:
    return SyncEvents(api, [SHOP], lambda: NOW)


def event(name: str, reason: str = "EnsuredLoadBalancer", **more: object) -> Obj:
    return {
        "metadata": {"name": name, "namespace": "shop"},
        "involvedObject": {
            "kind": "Service",
            "namespace": "shop",
            "name": "shop",
            "uid": "u1",
            "resourceVersion": "7",
        },
        "reason": reason,
        "message": "Ensured load balancer",
        "firstTimestamp": "2026-03-01T11:00:00Z",
        "lastTimestamp": "2026-03-01T11:30:00Z",
        "count": 3,
    } | more


def test_what_the_controller_says_of_a_target_is_kept(api: FakeApi, events: SyncEvents) -> None:
    """With both times, the count and the version that was synced."""
    api.create(Kind.EVENT, "shop", event("a"))
    events.cache.relist()
    assert events.of(SHOP, "u1") == (
        SyncEvent(
            reason="EnsuredLoadBalancer",
            message="Ensured load balancer",
            first_at=NOW - timedelta(hours=1),
            last_at=NOW - timedelta(minutes=30),
            count=3,
            synced_version="7",
        ),
    )
    assert events.of(SHOP, "u2") == ()


def test_everything_else_is_let_go(api: FakeApi, events: SyncEvents) -> None:
    """Node updates, other Services, other kinds, an Event without any time."""
    other = {"kind": "Service", "namespace": "shop", "name": "other", "uid": "u1"}
    pod = {"kind": "Pod", "namespace": "shop", "name": "shop", "uid": "u1"}
    api.create(Kind.EVENT, "shop", event("a", "UpdatedLoadBalancer"))
    api.create(Kind.EVENT, "shop", event("b", involvedObject=other))
    api.create(Kind.EVENT, "shop", event("c", involvedObject=pod))
    api.create(Kind.EVENT, "shop", event("d", firstTimestamp="x", lastTimestamp=None))
    events.cache.relist()
    assert events.cache.items() == {}


def test_an_event_of_the_newer_api_is_read_too(api: FakeApi, events: SyncEvents) -> None:
    """eventTime, and a series in place of count and lastTimestamp."""
    body = event(
        "a",
        firstTimestamp=None,
        lastTimestamp=None,
        count=None,
        eventTime="2026-03-01T11:00:00.500000Z",
        series={"count": 4, "lastObservedTime": "2026-03-01T11:59:00.000000Z"},
    )
    api.create(Kind.EVENT, "shop", body)
    events.cache.relist()
    (found,) = events.of(SHOP, "u1")
    assert found.count == 4
    assert found.first_at == NOW - timedelta(hours=1) + timedelta(milliseconds=500)
    assert found.last_at == NOW - timedelta(minutes=1)


def test_events_come_in_the_order_of_their_time(api: FakeApi, events: SyncEvents) -> None:
    """The oldest first."""
    for name, minute in (("a", 9), ("b", 7), ("c", 8)):
        time = f"2026-03-01T11:0{minute}:00Z"
        api.create(Kind.EVENT, "shop", event(name, lastTimestamp=time, message=name))
    events.cache.relist()
    assert [e.message for e in events.of(SHOP, "u1")] == ["b", "c", "a"]


def test_a_flood_is_bounded(api: FakeApi, events: SyncEvents) -> None:
    """Whoever may write Events cannot fill our memory."""
    for number in range(KEPT + 10):
        events.cache.learn(api.create(Kind.EVENT, "shop", event(f"e{number}", message="m" * 5000)))
    found = events.of(SHOP, "u1")
    assert len(found) == KEPT
    assert {len(e.message) for e in found} == {MESSAGE_LENGTH}


def test_our_own_event_says_where_it_comes_from(api: FakeApi, events: SyncEvents) -> None:
    """A core/v1 Event about this very Service, beside it."""
    assert events.publish(SHOP, "u1", "7", "Normal", "CertificateServed", "shop-1 is served")
    (obj,) = api.all(Kind.EVENT).values()
    assert obj["metadata"]["namespace"] == "shop"
    assert obj["involvedObject"]["uid"] == "u1"
    assert obj["source"] == {"component": "certbaton"}
    assert (obj["type"], obj["reason"]) == ("Normal", "CertificateServed")
    assert obj["lastTimestamp"] == "2026-03-01T12:00:00Z"


def test_saying_it_again_makes_no_second_event(api: FakeApi, events: SyncEvents) -> None:
    """The name comes from the content; another message is another Event."""
    for message in ("one", "one", "two"):
        assert events.publish(SHOP, "u1", "7", "Normal", "Said", message)
    assert events.publish(ObjectRef("b", "shop"), "u1", "7", "Normal", "Said", "one")
    assert len(api.all(Kind.EVENT)) == 3


def test_an_event_that_fails_stops_nobody(api: FakeApi, events: SyncEvents) -> None:
    """Best effort: false, and no error."""

    def refuse(asked: Asked) -> None:
        raise PermanentError("no right")

    api.before = refuse
    assert not events.publish(SHOP, "u1", "7", "Normal", "Said", "one")
