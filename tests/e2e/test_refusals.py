"""
A cloud that says no, on real servers: to a certificate, or only for now.

Two releases, one after the other in the same world. In the first, certificates come due every
few seconds, and the second version of each is refused. In the second, a name is added to each of
several certificates, and the places where they are to go are unwell, each in its own way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest

from e2e.harness import leaf_hash, name_of, not_before, our_events, proofs, served_leaf
from e2e.history import History
from e2e.running import Clerk, Running, bad_certificate, rejections
from lab.oci.api import ServiceError
from lab.oci.faults import Faults
from lab.world import NAMESPACE, SSL_PORTS, World

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]

Obj = dict[str, Any]

LIFETIME_S = 3600
DUE_AFTER_S = 16
D = timedelta(seconds=5)
POLICY = {
    "renewLeftShort": 1 - DUE_AFTER_S / LIFETIME_S,
    "renewJitter": 0,
    "retentionCeiling": "5s",  # D
    "alertCeiling": "1s",
    "orderLimit": 100,
    "pollListener": "250ms",
    "backOff": ["1s"],
}
ALL, ONE = ("all-1", "all-2", "all-3"), ("one-1", "one-2")
TLS_PORT = 8443


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(
        lifetime=LIFETIME_S,
        poll_interval=0.2,
        interruption=0.1,
        dns=True,
        workers=8,
        faults=Faults(),
    ) as world:
        world.install(world.configuration())
        yield world


@pytest.fixture(scope="module")
def clerk(world: World) -> Clerk:
    return Clerk(world)


def entry(world: World, name: str, *services: str, more: tuple[str, ...] = (), **key: Any) -> Obj:
    """A certificate of dns-01 for Services in namespace shop."""
    names = [f"{host}.example.test" for host in (name, *more)]
    return world.certificate(name, names, [("shop", one) for one in services], solver="dns", **key)


# A certificate that is refused


@dataclass
class Story:
    """All that was there while the second versions were refused."""

    running: Running
    history: History
    told: list[Obj]
    events: dict[str, list[str]]

    def versions(self, certificate: str) -> list[Obj]:
        """All that there ever were, oldest first, as they were last."""
        last: dict[str, Obj] = {}
        for state in self.history.states("Secret"):
            if state.obj is None or state.obj["type"] != "kubernetes.io/tls":
                continue
            if state.obj["metadata"]["labels"]["certbaton.io/certificate"] == certificate:
                last[state.key[1]] = state.obj
        return sorted(last.values(), key=not_before)

    def numbers(self, certificate: str, service: str) -> list[int]:
        """Which versions the Service named in turn, by their number."""
        names = [name_of(version) for version in self.versions(certificate)]
        return [
            names.index(secret[1]) + 1
            for key, secret, _, _ in self.history.references()
            if key == ("shop", service)
        ]

    def failures(self, certificate: str) -> list[str]:
        """The sentences that it complained with."""
        return [
            line["error"]
            for line in self.told
            if line["event"] == "failed" and line["certificate"] == certificate
        ]


@pytest.fixture(scope="module")
def story(world: World, clerk: Clerk) -> Iterator[Story]:
    for service in (*ALL, *ONE, "curve"):
        world.add_service("shop", service)
    ports = [
        {"name": "http", "port": 80, "targetPort": 8080},
        {"name": "tls", "port": TLS_PORT, "targetPort": 8080},
    ]
    world.add_service("shop", "alert", annotations={SSL_PORTS: str(TLS_PORT)}, ports=ports)
    alert = entry(world, "alert", "alert")
    alert["services"][0] |= {"httpsPort": False, "probe": {"port": world.ports(TLS_PORT)}}
    faults = world.cloud.faults

    def rule(service: str, certificate: str, number: int) -> ServiceError | None:
        if number != 2:
            return None
        if certificate == "all" or service == "one-1":
            return bad_certificate()
        if certificate == "alert":
            # every call succeeds, and no handshake does
            faults.tls_alert.add(TLS_PORT)
        return None

    clerk.rule = rule
    running = Running(
        world,
        "refusals",
        entry(world, "all", *ALL),
        entry(world, "one", *ONE),
        entry(world, "curve", "curve", keyType="P-256"),
        alert,
        policy=POLICY,
    )
    with History(world.plane.admin, NAMESPACE) as history, running:
        there = Story(running, history, [], {})
        for name, services in (("all", ALL), ("one", ONE)):
            running.wait_whole(name, *services)
        running.wait(lambda: any(map(proofs, running.versions("alert"))), "alert is not served")
        # as an hour later: Events have gone, and come anew with their old counts
        world.cloud.recorder.expire("shop")
        running.wait(
            lambda: there.numbers("alert", "alert")[1:] == [2, 1], "no return to the first"
        )
        faults.tls_alert.clear()
        everywhere: dict[str, tuple[str, ...]] = {"all": ALL, "one": ONE, "alert": ("alert",)}
        for name, them in everywhere.items():
            running.wait(
                lambda name=name, them=them: (  # type: ignore[misc]
                    len(found := there.versions(name)) >= 3
                    and set(proofs(found[2])) == {f"shop/{one}" for one in them}
                ),
                f"the third version of {name} is not served",
                60,
            )
        there.told = running.told("{")
        there.events = {
            one: [event["message"] for event in our_events(world, "shop", one)]
            for one in (*ALL, *ONE, "alert")
        }
        running.__exit__(None, None, None)
        yield there


def test_a_version_that_two_services_refuse_is_refused_for_all(story: Story) -> None:
    """Both go back to what worked there; the third is not touched."""
    assert story.numbers("all", "all-1")[:4] == [1, 2, 1, 3]
    assert story.numbers("all", "all-2")[:4] == [1, 2, 1, 3]
    assert story.numbers("all", "all-3")[:2] == [1, 3]
    refused = rejections(story.versions("all")[1])
    assert set(refused) == {"shop/all-1", "*"}
    assert all("InvalidParameter" in found["why"] for found in refused.values())


def test_a_version_that_one_service_refuses_stays_with_the_others(story: Story) -> None:
    """Only that one is sick: it goes on with what it had until the next version is due."""
    assert story.numbers("one", "one-1")[:4] == [1, 2, 1, 3]
    assert story.numbers("one", "one-2")[:3] == [1, 2, 3]
    assert set(rejections(story.versions("one")[1])) == {"shop/one-1"}
    second, third = story.versions("one")[1:3]
    assert not_before(third) - not_before(second) >= timedelta(seconds=DUE_AFTER_S - 1)


def test_a_listener_that_answers_with_alerts_refuses_too(story: Story) -> None:
    """Every call of the API succeeded; the wire outranks them."""
    assert story.numbers("alert", "alert")[:4] == [1, 2, 1, 3]
    (why,) = [found["why"] for found in rejections(story.versions("alert")[1]).values()]
    assert f"port {story.running.world.ports(TLS_PORT)}" in why
    assert "alert" in why


@pytest.mark.parametrize("certificate", ["all", "alert"])
def test_after_a_refusal_by_all_the_next_order_waits(story: Story, certificate: str) -> None:
    """D, and it does not wait until the refused one would be due."""
    second, third = story.versions(certificate)[1:3]
    refused = datetime.fromisoformat(rejections(second)["*"]["at"])
    assert not_before(third) - refused >= D - timedelta(seconds=1)
    assert not_before(third) - not_before(second) < timedelta(seconds=DUE_AFTER_S + 8)


def test_no_service_was_ever_without_a_good_certificate(story: Story) -> None:
    """Each names a Secret that is there; no other leaf than those of versions was shown."""
    assert story.history.dangling() == []
    for service in (*ALL, *ONE):
        shown = served_leaf(story.running.world, "shop", service)
        assert shown in {leaf_hash(version) for version in story.versions(service[:3])}


def test_a_refusal_is_told_in_the_log_and_by_events(story: Story) -> None:
    for certificate, service in (("all", "all-1"), ("one", "one-1"), ("alert", "alert")):
        name = name_of(story.versions(certificate)[1])
        assert any(
            f"{name} is refused" in sentence and f"Service shop/{service}" in sentence
            for sentence in story.failures(certificate)
        )
        assert any(f"{name} is refused" in message for message in story.events[service])


def test_nothing_else_was_complained_about(story: Story) -> None:
    """Four refusals: twice for all of `all`, once for `one`, once for `alert`."""
    assert [len(story.failures(name)) for name in ("all", "one", "alert")] == [2, 1, 1]


def test_a_key_that_the_cipher_suite_cannot_serve_is_one_sentence(story: Story) -> None:
    """An ECDSA key under the default suite: nothing is ordered, nor written to the Service."""
    said = {
        wait.partition(" (")[0]
        for line in story.told
        if line["event"] == "turn" and line["certificate"] == "curve"
        for wait in line["waits"]
        if "cipher suite" in wait
    }
    assert len(said) == 1
    assert "keyType: RSA-2048" in said.pop()
    assert story.numbers("curve", "curve") == []


def test_what_no_service_could_serve_is_not_ordered(story: Story) -> None:
    """Nobody would have used it."""
    assert story.versions("curve") == []


# A place that is unwell


TROUBLES = {
    "full": ServiceError(400, "LimitExceeded", "Maximum number reached", "CreateCertificate"),
    "conflict": ServiceError(409, "Conflict", "An operation is in progress", "CreateCertificate"),
    "busy": ServiceError(429, "TooManyRequests", "Too many requests", "CreateCertificate"),
    "broken": ServiceError(500, "InternalServerError", "Internal error", "CreateCertificate"),
}
HUNG = "hung"
PLACES = (*TROUBLES, HUNG)


@dataclass
class Unwell:
    """The places as they were while they were unwell, and afterwards."""

    running: Running
    first: dict[str, Obj]
    second: dict[str, Obj]
    attempts: dict[str, int]
    shown: dict[str, str | None]
    issued: int
    told: dict[str, list[str]]
    events: dict[str, list[str]]
    after: dict[str, list[Obj]]
    paused: Obj


@pytest.fixture(scope="module")
def unwell(world: World, clerk: Clerk, story: Story) -> Iterator[Unwell]:
    for name in PLACES:
        world.add_service("shop", name)
    clerk.rule = lambda service, certificate, number: None
    policy = {"handoverCeiling": "4s", "pollListener": "250ms", "backOff": ["1s"]}
    running = Running(
        world, "unwell", *(entry(world, name, name) for name in PLACES), policy=policy
    )
    with running:
        first = {name: running.wait_whole(name) for name in PLACES}
        issued = world.pebble.certificates_issued()
        clerk.rule = lambda service, certificate, number: TROUBLES.get(service)
        world.cloud.faults.hang.add("UpdateListener")
        more = [entry(world, name, name, more=(f"www.{name}",)) for name in PLACES]
        running.restart(*more)
        before = {name: clerk.refused(name) for name in PLACES}
        for name in PLACES:
            running.wait(
                lambda name=name: (  # type: ignore[misc]
                    (clerk.refused(name) - before[name] >= 4 or name == HUNG)
                    and len(running.versions(name)) == 2
                    and proofs(running.versions(name)[-1])
                ),
                f"{name} was not tried, or not reported",
            )
        there = Unwell(
            running,
            first,
            {name: running.versions(name)[-1] for name in PLACES},
            {name: clerk.refused(name) - before[name] for name in PLACES},
            {name: served_leaf(world, "shop", name) for name in PLACES},
            world.pebble.certificates_issued() - issued,
            {
                name: [
                    wait
                    for line in running.told('"turn"')
                    if line["certificate"] == name
                    for wait in line["waits"]
                ]
                for name in PLACES
            },
            {
                name: [event["reason"] for event in our_events(world, "shop", name)]
                for name in PLACES
            },
            {},
            {},
        )
        clerk.rule = lambda service, certificate, number: None
        world.cloud.faults.hang.clear()
        for name in PLACES:
            world.cloud.resync("shop", name)  # its back-off is minutes by now, in the lab's time
            running.wait(
                lambda name=name: proofs(running.versions(name)[-1]) == {f"shop/{name}": "wire"},  # type: ignore[misc]
                f"{name} did not go on",
            )
            there.after[name] = running.versions(name)
        world.cloud.faults.paused = True
        running.restart(*more[1:], entry(world, "full", "full", more=("new.full",)))
        running.wait(
            lambda: (
                name_of(running.versions("full")[-1]) != name_of(there.second["full"])
                and proofs(running.versions("full")[-1])
            ),
            "the silent controller is not reported",
        )
        there.paused = running.versions("full")[-1]
        world.cloud.faults.paused = False
        running.wait(
            lambda: proofs(running.versions("full")[-1]) == {"shop/full": "wire"},
            "it did not go on when the controller was back",
        )
        there.after["silent"] = running.versions("full")
        yield there


@pytest.mark.parametrize("name", PLACES)
def test_a_place_that_is_unwell_refuses_no_version(unwell: Unwell, name: str) -> None:
    """The same version stays asked for; the listener keeps its old one meanwhile."""
    assert rejections(unwell.second[name]) == {}
    assert unwell.attempts[name] >= (1 if name == HUNG else 4)
    assert unwell.shown[name] == leaf_hash(unwell.first[name])


def test_nothing_is_ordered_for_a_place_that_is_unwell(unwell: Unwell) -> None:
    """One each: the one that was asked for."""
    assert unwell.issued == len(PLACES)


@pytest.mark.parametrize("name", PLACES)
def test_a_place_that_is_unwell_is_reported(unwell: Unwell, name: str) -> None:
    """In the controller's own words where it has any, and by an Event when the time is over."""
    assert "CertificateUnproven" in unwell.events[name]
    waits = [wait for wait in unwell.told[name] if f"Service shop/{name}" in wait]
    words = TROUBLES[name].code if name in TROUBLES else "shows leaf"
    assert any(words in wait for wait in waits), waits


@pytest.mark.parametrize("name", PLACES)
def test_it_goes_on_by_itself_when_the_place_is_well(unwell: Unwell, name: str) -> None:
    """The very version that was stuck is served, and was never refused."""
    newest = unwell.after[name][-1]
    assert name_of(newest) == name_of(unwell.second[name])
    assert rejections(newest) == {}


def test_a_silent_controller_is_a_report_and_no_refusal(unwell: Unwell) -> None:
    """Nothing is ordered for it either, and it goes on when it is back."""
    assert proofs(unwell.paused) == {"shop/full": "unproven"}
    assert rejections(unwell.paused) == {}
    newest = unwell.after["silent"][-1]
    assert name_of(newest) == name_of(unwell.paused)
    assert served_leaf(unwell.running.world, "shop", "full") == leaf_hash(newest)
