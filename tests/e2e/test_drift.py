"""
Somebody else changes what certbaton wrote on a Service; and what certbaton leaves alone for now.

The somebody is Argo CD, by the name of its field manager and by how it applies. Two releases side
by side: in the second one, certificates are late soon after they were issued.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml

from e2e.harness import leaf_hash, name_of, not_before, our_events, proofs, served_leaf
from e2e.history import History
from e2e.running import Running
from lab.oci.faults import Faults
from lab.world import NAMESPACE, TLS_SECRET, World

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]

Obj = dict[str, Any]

ARGO = "argocd-controller"
PAUSED = "certbaton.io/paused"
LIFETIME_S = 3600
FIRST_PAUSE_S = 1.5
POLICY = {
    "pollListener": "250ms",
    "renewJitter": 0,
    "driftCeiling": "1500ms",
    "retentionCeiling": "60s",
    "backOff": ["1s"],
}
LATE_S, DUE_S = 14, 8
LATE_POLICY = {
    **POLICY,
    "renewLeft": 1 - DUE_S / LIFETIME_S,
    "renewLeftShort": 1 - DUE_S / LIFETIME_S,
    "late": 1 - LATE_S / LIFETIME_S,
    "orderLimit": 100,
}
ZONE = "Asia/Kathmandu"  # 5:45 ahead: neither ours nor the daemon's


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(
        lifetime=LIFETIME_S,
        poll_interval=0.2,
        interruption=0.1,
        dns=True,
        workers=4,
        faults=Faults(),
    ) as world:
        world.install(world.configuration())
        yield world


def entry(world: World, name: str, *more: str, **keys: Any) -> Obj:
    """A certificate of dns-01, its Service called like itself."""
    names = [f"{host}.example.test" for host in (name, *more)]
    return world.certificate(name, names, [("shop", name)], solver="dns", **keys)


def opening(minute: datetime) -> list[Obj]:
    """A window that opens then, by another zone's clock, and not again today."""
    there = minute.astimezone(ZoneInfo(ZONE))
    return [{"cron": f"{there.minute} {there.hour} * * *", "duration": "1h", "timezone": ZONE}]


@dataclass
class Place:
    """A daemon in its second start: some certificates have had a name added since."""

    running: Running
    late: Running
    history: History
    firsts: dict[str, Obj]
    opens_at: datetime


@pytest.fixture(scope="module")
def place(world: World) -> Iterator[Place]:
    names = ("synced", "frozen", "control", "paused", "window", "urgent")
    for name in names:
        world.add_service("shop", name)
    closed = opening(datetime.now(UTC) - timedelta(hours=12))
    running = Running(
        world,
        "drift",
        *(entry(world, name) for name in ("synced", "frozen", "control", "paused")),
        # a first issuance does not wait
        entry(world, "window", rolloutWindows=closed),
        policy=POLICY,
    )
    late = Running(world, "late", entry(world, "urgent", rolloutWindows=closed), policy=LATE_POLICY)
    with ExitStack() as stack:
        history = stack.enter_context(History(world.plane.admin, NAMESPACE))
        for one in (running, late):
            stack.enter_context(one)
        firsts = {name: running.wait_whole(name) for name in names[:5]}
        # the next full minute that leaves time for the tests before it
        opens_at = (datetime.now(UTC) + timedelta(seconds=80)).replace(second=0, microsecond=0)
        running.restart(
            entry(world, "synced"),
            entry(world, "frozen"),
            entry(world, "control"),
            entry(world, "paused", "www.paused", paused=True),
            entry(world, "window", "www.window", rolloutWindows=opening(opens_at)),
        )
        for name in firsts:
            running.wait_told('"turn"', f'"{name}"', since=running.began)
        yield Place(running, late, history, firsts, opens_at)


def sync(world: World, name: str, value: str, **annotations: str) -> float:
    """
    Let Argo CD apply its manifest of the Service, as it does with ServerSideApply=true.

    Gives when that began: kubectl may take its time to end.
    """
    began = time.monotonic()
    manifest = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": "shop",
            "annotations": {TLS_SECRET: value, **annotations},
        },
    }
    world.plane.kubectl(
        *("apply", "--server-side", "--force-conflicts", f"--field-manager={ARGO}", "-f", "-"),
        stdin=yaml.safe_dump(manifest),
    )
    return began


# Drift


def test_drift_is_told_with_the_name_of_who_did_it_and_put_back_after_a_pause(
    place: Place,
) -> None:
    """1.5 s, 3 s, 6 s: it grows, since a person or another controller stands behind it."""
    running, world = place.running, place.running.world
    ours = f"{NAMESPACE}/{name_of(place.firsts['synced'])}"
    for done in range(3):
        known = len(running.lines)
        changed = sync(world, "synced", "shop-by-argo")
        told = running.wait_told(
            *('"turn"', "drift: Service shop/synced", "docs/gitops.md"), since=known
        )
        (note,) = told["notes"]
        assert f"field manager '{ARGO}' set it to 'shop-by-argo'" in note
        assert f"(so far {done} times)" in note
        running.wait(lambda: running.named("synced") == ours, "it was not put back")
        # what the API server stamps has whole seconds
        pause = FIRST_PAUSE_S * 2**done
        assert pause - 1 <= time.monotonic() - changed < pause + 20
        noted = running.certbaton.journal("synced")["drift"]["shop/synced"]
        assert noted["rounds"] == done + 1


def test_drift_that_is_put_back_is_an_event_of_the_service(place: Place) -> None:
    """With the name of who did it."""
    drifts = [
        event["message"]
        for event in our_events(place.running.world, "shop", "synced")
        if event["reason"] == "CertificateDrift"
    ]
    assert len(drifts) == 3
    assert all(ARGO in message for message in drifts)


def test_a_secret_that_is_not_there_is_put_right_at_once(place: Place) -> None:
    """As what is missing keeps the Service from being synced at all."""
    running, world = place.running, place.running.world
    changed = sync(world, "synced", f"{NAMESPACE}/there-is-no-such-secret")
    ours = f"{NAMESPACE}/{name_of(place.firsts['synced'])}"
    running.wait(lambda: running.named("synced") == ours, "it was not put back")
    assert time.monotonic() - changed < FIRST_PAUSE_S * 2**3


def test_nothing_is_ordered_for_drift(place: Place) -> None:
    """The same version comes back, and is seen on the listener again."""
    running = place.running
    (version,) = running.versions("synced")
    assert name_of(version) == name_of(place.firsts["synced"])
    running.wait_whole("synced")


# Pauses


def test_nothing_is_written_on_a_paused_service(place: Place) -> None:
    """It is said instead; when the annotation is taken away, what was changed is put back."""
    running, world = place.running, place.running.world
    known = len(running.lines)
    sync(world, "frozen", "by-a-person", **{PAUSED: "true"})
    told = running.wait_told('"turn"', "paused: Service shop/frozen is paused", since=known)
    # one that was changed later and is not paused is put back meanwhile
    sync(world, "control", "shop-by-argo")
    running.wait(lambda: running.named("control") != "shop-by-argo", "the other was not put back")
    assert running.named("frozen") == "by-a-person"
    assert told["level"] == "warning"
    world.plane.kubectl("annotate", "service", "frozen", "-n", "shop", f"{PAUSED}-")
    ours = f"{NAMESPACE}/{name_of(place.firsts['frozen'])}"
    running.wait(lambda: running.named("frozen") == ours, "it was not put back afterwards")


def test_nothing_is_ordered_or_repointed_for_a_paused_certificate(place: Place) -> None:
    """A name was added, and it is said that it waits."""
    running = place.running
    running.wait_told('"turn"', "paused: paused is neither renewed, rolled out nor collected")
    assert [name_of(version) for version in running.versions("paused")] == [
        name_of(place.firsts["paused"])
    ]
    assert "pending" not in running.certbaton.journal("paused")


def test_a_deleted_version_of_a_paused_certificate_is_put_back_all_the_same(
    place: Place,
) -> None:
    """Same name, same content; the Service never named anything else."""
    running, first = place.running, place.firsts["paused"]
    path = f"/api/v1/namespaces/{NAMESPACE}/secrets/{name_of(first)}"
    running.world.plane.admin.delete(path)
    (back,) = running.wait(lambda: running.versions("paused"), "it was not put back")
    assert back["metadata"]["uid"] != first["metadata"]["uid"]
    assert back["data"] == first["data"]
    assert running.named("paused") == f"{NAMESPACE}/{name_of(first)}"


# Windows


def test_a_certificate_that_is_late_does_not_wait_for_the_window(place: Place) -> None:
    """The next one was obtained when it was due, and stood by until the old one was late."""
    late = place.late
    first = late.wait(lambda: late.versions("urgent"), "nothing was issued")[0]
    running_out = not_before(first) + timedelta(seconds=LATE_S)
    late.wait(lambda: late.done("Repoint", "urgent")[1:], "it waits for the window")
    second = late.versions("urgent")[1]
    (staged,) = late.done("StageOrder", "urgent")[1:2]
    repointed = late.done("Repoint", "urgent")[1]
    assert name_of(second) in repointed["why"]
    assert datetime.fromisoformat(staged["at"]) < running_out
    assert datetime.fromisoformat(repointed["at"]) >= running_out
    assert late.told('"turn"', "in the next rollout window")


def test_a_first_issuance_does_not_wait_for_the_window(place: Place) -> None:
    """It was closed for half a day."""
    first = place.firsts["window"]
    assert proofs(first) == {"shop/window": "wire"}


def test_a_repoint_waits_for_the_window_and_its_certificate_does_not(place: Place) -> None:
    """By the clock of the window's own time zone."""
    running, first = place.running, place.firsts["window"]
    second = running.wait(lambda: running.versions("window")[1:], "nothing was ordered")[0]
    assert not_before(second) < place.opens_at
    told = running.wait_told('"turn"', "shop/window", "in the next rollout window")
    (wait,) = [wait for wait in told["waits"] if "rollout window" in wait]
    assert f"until {place.opens_at:%FT%TZ}" in wait
    if datetime.now(UTC) < place.opens_at - timedelta(seconds=1):
        assert running.named("window") == f"{NAMESPACE}/{name_of(first)}"
        assert served_leaf(running.world, "shop", "window") == leaf_hash(first)
    served = running.wait_whole("window", than=name_of(first), timeout=90)
    assert name_of(served) == name_of(second)
    repointed = running.done("Repoint", "window")[-1]
    assert datetime.fromisoformat(repointed["at"]) >= place.opens_at


def test_no_service_ever_named_a_version_that_was_not_there(place: Place) -> None:
    """But for what somebody deleted, and for what somebody wrote there."""
    ours = f"named ('{NAMESPACE}', "
    found = [line for line in place.history.dangling() if ours in line]
    named_by_others = ("'paused'", "there-is-no-such-secret")
    assert [line for line in found if not any(one in line for one in named_by_others)] == []
