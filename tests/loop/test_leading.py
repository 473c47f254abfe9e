"""Becoming the leader: what the predecessor has just stored is known before anything is ordered."""

from __future__ import annotations

import pytest

from certbaton.cluster import Cluster, FencedApi, Lease
from certbaton.config import parse
from certbaton.errors import CertbatonError, ClusterUnavailable
from certbaton.wiring import Daemon
from loop.world import INSTANCE, World, a_spec

ONE = a_spec("one", "one")


@pytest.fixture
def world() -> World:
    return World(ONE)


@pytest.fixture
def successor(world: World) -> Daemon:
    """It stood by, and listed everything before its predecessor began. Its watch is silent."""
    api = world.api.client("certbaton")
    lease = Lease(api, INSTANCE, identity="successor")
    lease.campaign()
    lease.step()
    services = [service.ref for service in ONE.services]
    cluster = Cluster(FencedApi(api, lease.ensure), INSTANCE, services)
    cluster.refresh()
    config = parse("{}", {"CERTBATON_RELEASE": "certbaton", "CERTBATON_NAMESPACE": "certbaton"})
    return Daemon(config, cluster, lease)


def leads(daemon: Daemon) -> bool:
    assert daemon.lease is not None
    return daemon.leads(daemon.lease, lambda: None)


def test_the_secrets_are_listed_when_the_lease_is_held(world: World, successor: Daemon) -> None:
    """So a version, its Journal and the account are there, however late the watch is."""
    world.process().turn("one")
    store = successor.cluster.store
    assert store.versions() == ()
    assert leads(successor)
    assert [str(version.ref) for version in store.versions("one")] == world.versions()
    journal = store.journal("one")
    assert journal is not None
    assert len(journal.orders) == 1
    assert journal.pending is None


def test_the_services_are_listed_too(world: World, successor: Daemon) -> None:
    """So that the predecessor's repoint is seen, and not told as drift."""
    world.process().turn("one")
    (service,) = [each.ref for each in ONE.services]

    def named() -> str | None:
        state = successor.cluster.services.service(service)
        return str(state.reference) if state and state.reference else None

    assert named() is None
    assert leads(successor)
    assert [named()] == world.versions()


def test_it_does_not_lead_before_that_list(
    world: World, successor: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that fails is made again."""
    world.process().turn("one")
    cache, failures = successor.cluster.store.cache, [ClusterUnavailable("away")]
    relist = cache.relist

    def once_away() -> None:
        successor.nudge()  # so that the pause is none
        if failures:
            raise failures.pop()
        relist()

    monkeypatch.setattr(cache, "relist", once_away)
    assert leads(successor)
    assert failures == []
    assert len(successor.cluster.store.versions("one")) == 1


def test_a_lease_that_was_lost_while_it_listed_is_no_lease(
    successor: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list may take minutes: it is asked again after it."""
    assert successor.lease is not None
    cache, lease = successor.cluster.store.cache, successor.lease

    def slow() -> None:
        lease.release()
        successor.stop.set()
        successor.nudge()

    monkeypatch.setattr(cache, "relist", slow)
    assert not leads(successor)


def test_what_cannot_be_listed_for_ever_leads_nobody(
    successor: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``once`` gives up at its deadline."""

    def away() -> None:
        successor.nudge()
        raise CertbatonError("away")

    monkeypatch.setattr(successor.cluster.store.cache, "relist", away)
    assert successor.lease is not None
    left = iter([2.0, 1.0, 0.0])
    assert not successor.leads(successor.lease, lambda: next(left))
