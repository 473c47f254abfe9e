"""
Two releases of the chart in one cluster, with one Service in both configurations.

Each has its ServiceAccount's token, in its own namespace. The steps are one story, in the order of
the file; numbers that are hours in production are seconds here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.harness import LEASE, Ended, our_events, served_leaf, until
from lab.kube import KubeError
from lab.oci.faults import Faults
from lab.process import Process
from lab.world import CHART, RELEASE, TLS_SECRET, World

pytestmark = pytest.mark.servers

Obj = dict[str, Any]

NAMES = ["web.example.test"]
# Two looks at a Lease, and what a busy machine needs.
WATCH_S = 3


class Release:
    """A release of the chart in *namespace*, and the daemon that its pod would run."""

    def __init__(self, world: World, namespace: str) -> None:
        self.world = world
        self.namespace = namespace
        self.folder = world.folder / f"of-{namespace}"
        self.folder.mkdir()
        self.lines: list[str] = []
        self.process: Process | None = None
        world.plane.create_namespace(namespace)
        self.kubeconfig: Path | None = None

    def install(self, **more: Any) -> None:
        """Install or upgrade it with the Service ``shop/web``."""
        certificate = self.world.certificate("web", NAMES, [("shop", "web")], solver="dns")
        policy = {"pollListener": "100ms", "claimWatch": f"{WATCH_S}s", "backstop": "5s"}
        config = self.world.configuration(certificate, lease=LEASE, policy=policy, healthPort=0)
        values = self.folder / "values.yaml"
        values.write_text(yaml.safe_dump({"config": {**config, **more}}))
        plane = self.world.plane
        plane.helm(
            *("upgrade", "--install", RELEASE, CHART),
            *("--namespace", self.namespace, "--values", values),
        )
        path = f"/api/v1/namespaces/{self.namespace}/configmaps/{RELEASE}"
        (self.folder / "config.yaml").write_text(plane.admin.get(path)["data"]["config.yaml"])
        if self.kubeconfig is None:
            token = plane.token(self.namespace, RELEASE)
            self.kubeconfig = plane.kubeconfig_for(token, self.namespace)

    def _command(self, *words: str) -> list[str]:
        program = str(Path(sys.executable).parent / "certbaton")
        where = ["--config", str(self.folder / "config.yaml"), "--kubeconfig", str(self.kubeconfig)]
        return [program, *words, *where]

    def start(self) -> Process:
        """Start ``certbaton run``."""
        self.process = Process(
            f"certbaton-{self.namespace}",
            self._command("run"),
            log=self.folder / f"run-{time.monotonic_ns()}.log",
            environ=self._environ(),
            on_line=self.lines.append,
        ).start()
        return self.process

    def _environ(self) -> dict[str, str]:
        return self.world.environ(CERTBATON_NAMESPACE=self.namespace)

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop(deadline=30.0)
            self.process = None

    def once(self) -> Ended:
        """``certbaton once``."""
        done = subprocess.run(
            self._command("once", "--timeout", "30s"),
            env={**os.environ, **self._environ()},
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def told(self, *words: str) -> list[Obj]:
        """Its lines that hold all of *words*."""
        if self.process is not None:
            self.process.drain()
        return [json.loads(line) for line in self.lines if all(word in line for word in words)]

    def secrets(self) -> list[str]:
        """What it has in its namespace."""
        path = f"/api/v1/namespaces/{self.namespace}/secrets"
        found = self.world.plane.admin.list(path, labelSelector="certbaton.io/instance")["items"]
        return [str(item["metadata"]["name"]) for item in found]

    @property
    def lease(self) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases/{RELEASE}"

    def age_lease(self, by: timedelta) -> None:
        """As if it had not been renewed since then."""
        at = f"{datetime.now(UTC) - by:%Y-%m-%dT%H:%M:%S.%fZ}"
        self.world.plane.admin.patch(self.lease, {"spec": {"renewTime": at}})

    def lease_reads(self) -> int:
        """How often it has asked for the Lease of another release since the world began."""
        user = f"system:serviceaccount:{self.namespace}:{RELEASE}"
        now = datetime.now(UTC)
        events = self.world.plane.audit(user, now - timedelta(hours=1), now, leases=True)
        return sum(
            1
            for event in events
            if event.verb == "get" and f"/namespaces/{self.namespace}/" not in event.uri
        )


class Story:
    """Both releases, and the Service that both want."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.first = Release(world, "north")
        self.second = Release(world, "south")
        self.third = Release(world, "west")

    def value(self) -> str:
        """What the Service's annotation says."""
        annotations = self.world.service("shop", "web")["metadata"].get("annotations", {})
        return str(annotations.get(TLS_SECRET, ""))

    def claims(self) -> list[str]:
        """What was said about the claimed Service, in Events."""
        events = our_events(self.world, "shop", "web")
        return [e["message"] for e in events if e["reason"] == "CertificateClaimed"]

    def stays(self, seconds: float) -> None:
        """Look on: what the Service names is the same, all the time."""
        value, end = self.value(), time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.value() == value
            time.sleep(0.1)


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    with World(
        lifetime=3600,
        poll_interval=0.2,
        interruption=0.1,
        dns=True,
        workers=3,
        faults=Faults(),
    ) as world:
        there = Story(world)
        there.world.add_service("shop", "web", *NAMES)
        there.first.install()
        there.second.install()
        try:
            yield there
        finally:
            for release in (there.first, there.second, there.third):
                release.stop()


def test_the_first_one_has_it(story: Story) -> None:
    """Without a single look at anybody's Lease."""
    daemon = story.first.start()
    until(lambda: story.first.told("CertificateServed") or story.first.told("MarkServed"), "", 60)
    assert story.value().startswith("north/"), daemon.log_tail()
    assert story.first.lease_reads() == 0


def test_the_second_one_says_so_and_changes_nothing(story: Story) -> None:
    """One Event, one line, one look at the other's Lease; not even an account is made."""
    value, issued = story.value(), story.world.pebble.certificates_issued()
    daemon = story.second.start()
    until(lambda: story.second.told('"turn"', "north/certbaton"), f"silent\n{daemon.log_tail()}")
    story.stays(12)  # more than two backstops
    assert len(story.second.told('"turn"')) == 1
    (message,) = until(story.claims, "no Event")
    assert "north/certbaton" in message
    assert "takeOverFrom" in message
    assert story.value() == value
    assert story.second.secrets() == []
    assert story.second.lease_reads() == 1
    assert story.world.pebble.certificates_issued() == issued


def test_once_says_so_too(story: Story) -> None:
    """And that it is not done."""
    story.second.stop()
    ended = story.second.once()
    assert ended.code == 1, ended
    assert any("north/certbaton" in line["error"] for line in ended.events("not_done")), ended
    story.second.start()


def test_nothing_flips_over_rolling_restarts(story: Story) -> None:
    """Of both, in any order; the first one's Lease is given up in between."""
    for release in (story.first, story.second, story.first):
        release.stop()
        story.stays(2)
        release.start()
        until(lambda release=release: release.told('"leading"'), "not leading")  # type: ignore[misc]
        story.stays(2)
    assert story.second.secrets() == []
    assert len(story.claims()) == 1, "said again, it is the same Event"


def test_an_uninstalled_release_keeps_it_for_a_day(story: Story) -> None:
    """What it wrote stays served; its Lease is a given up one, and that is no sign of an end."""
    story.first.stop()
    story.world.plane.helm("uninstall", RELEASE, "--namespace", "north")
    assert story.world.plane.admin.get(story.first.lease)["spec"]["holderIdentity"] == ""
    story.second.stop()
    story.first.age_lease(timedelta(hours=23))
    story.second.start()
    story.stays(3 * WATCH_S)
    assert story.second.secrets() == []


def test_a_day_later_the_second_one_takes_over(story: Story) -> None:
    """After a second look, with a certificate of its own, and all that goes with it."""
    before = served_leaf(story.world, "shop", "web")
    story.second.stop()
    story.first.age_lease(timedelta(hours=25))
    began = time.monotonic()
    daemon = story.second.start()
    until(lambda: story.value().startswith("south/"), f"not taken\n{daemon.log_tail()}", 60)
    took = time.monotonic() - began
    assert took >= WATCH_S
    print(f"taken over {took:.1f} s after the start")
    until(lambda: served_leaf(story.world, "shop", "web") not in (None, before), "not served")
    until(lambda: story.second.told('"done"', "MarkServed"), "not noted")
    assert story.second.told('"Repoint"', "taken over from release north/certbaton")
    fields = story.world.service("shop", "web")["metadata"]["managedFields"]
    (ours,) = [item for item in fields if item["manager"] == "certbaton/south/certbaton"]
    assert 'k:{"port":443,"protocol":"TCP"}' in ours["fieldsV1"]["f:spec"]["f:ports"]
    # whose it was is still there: nobody touches another instance's Secrets
    assert any(name.startswith("web-") for name in story.first.secrets())


def test_the_first_one_is_the_newcomer_when_it_is_back(story: Story) -> None:
    """It finds its old Secrets, and leaves the Service to its new holder."""
    story.first.kubeconfig = None
    story.first.install()
    story.first.lines.clear()
    daemon = story.first.start()
    until(lambda: story.first.told('"turn"', "south/certbaton"), f"silent\n{daemon.log_tail()}")
    story.stays(5)
    assert story.value().startswith("south/")


def test_take_over_from_takes_it_from_the_living(story: Story) -> None:
    """At once; who had it gives way, and it stays so."""
    story.third.install(takeOverFrom=["south/certbaton"])
    daemon = story.third.start()
    until(lambda: story.value().startswith("west/"), f"not taken\n{daemon.log_tail()}", 60)
    until(
        lambda: story.second.told('"turn"', "claimed", "west/certbaton"),
        "the old holder does not say so",
    )
    story.stays(8)
    for namespace in ("north", "south", "west"):
        try:
            found = story.world.plane.admin.list(f"/api/v1/namespaces/{namespace}/secrets")
        except KubeError:
            continue
        owners = {
            item["metadata"]["labels"]["certbaton.io/instance"]
            for item in found["items"]
            if "certbaton.io/instance" in (item["metadata"].get("labels") or {})
        }
        assert owners == {f"certbaton.{namespace}"}
