"""
The Service writes through the whole daemon: others write while it runs, and it goes on.

One daemon, one certificate for each test, so that none waits for another.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from e2e.harness import Certbaton, leaf_hash, name_of, our_events, proofs, served_leaf, until
from e2e.history import History
from lab.kube import KubeError
from lab.process import Process
from lab.world import NAMESPACE, SSL_PORTS, TLS_SECRET, World

pytestmark = pytest.mark.servers

Obj = dict[str, Any]

NAMES = ("replaced", "moved", "handmade", "again")
UNNAMED = "unnamed"


class Running:
    """A daemon that has handed over everything that could be handed over."""

    def __init__(self, world: World, certbaton: Certbaton, daemon: Process, lines: list[str]):
        self.world = world
        self.certbaton = certbaton
        self.daemon = daemon
        self.lines = lines

    def told(self, *words: str) -> list[Obj]:
        """The daemon's lines that hold all of *words*."""
        self.daemon.drain()
        return [
            json.loads(line)
            for line in self.lines
            if line.startswith("{") and all(word in line for word in words)
        ]

    def whole(self, name: str) -> bool:
        """Whether the Service has all that goes with the newest version, on the wire as well."""
        versions = self.certbaton.versions(name)
        if not versions:
            return False
        version = versions[-1]
        try:
            service = self.world.service("shop", name)
        except KubeError:
            return False
        annotations = service["metadata"].get("annotations", {})
        ports = {port["port"]: port["targetPort"] for port in service["spec"]["ports"]}
        return (
            annotations.get(TLS_SECRET) == f"{NAMESPACE}/{name_of(version)}"
            and annotations.get(SSL_PORTS) == "443"
            and ports.get(443) == ports[80]
            and served_leaf(self.world, "shop", name) == leaf_hash(version)
        )


@pytest.fixture(scope="module")
def running(calm_world: World) -> Iterator[Running]:
    world = calm_world
    entries = []
    for name in (*NAMES, UNNAMED):
        ports = [{"port": 80, "targetPort": 8080}] if name == UNNAMED else None
        annotations = {TLS_SECRET: "made-by-hand", SSL_PORTS: "443"} if name == "handmade" else {}
        # A Service that names a missing Secret has no address: its name points to another's.
        world.add_service(
            "shop", name, ports=ports, annotations=annotations, wait=name != "handmade"
        )
        host = f"{name}.example.test"
        world.set_a(host, world.address_of("shop", NAMES[0]))
        entries.append(world.certificate(name, [host], [("shop", name)]))
    certbaton = Certbaton(world, world.configuration(*entries, healthPort=0))
    lines: list[str] = []
    with certbaton.start(on_line=lines.append) as daemon:
        there = Running(world, certbaton, daemon, lines)
        for name in NAMES:
            until(
                lambda name=name: (  # type: ignore[misc]
                    there.certbaton.versions(name)
                    and proofs(there.certbaton.versions(name)[-1])
                    and there.whole(name)
                ),
                f"{name} is not served:\n{daemon.log_tail()}",
                60,
            )
        yield there
        assert daemon.running, daemon.log_tail()


def test_a_hand_made_tls_secret_was_replaced_at_once(running: Running) -> None:
    """The Secret that it named never existed, so the Service had no load balancer until then."""
    assert running.whole("handmade")
    assert running.world.address_of("shop", "handmade")


def test_an_unnamed_port_is_one_sentence_and_nothing_is_written(running: Running) -> None:
    """The certificate is obtained all the same; it waits for somebody to name the port."""
    service = running.world.service("shop", UNNAMED)
    assert TLS_SECRET not in (service["metadata"].get("annotations") or {})
    assert [port["port"] for port in service["spec"]["ports"]] == [80]
    until(
        lambda: running.told('"turn"', "single port without a name", f"shop/{UNNAMED}"),
        "nothing was said",
    )
    assert not any(
        line["event"] == "failed" and line["certificate"] == UNNAMED
        for line in running.told('"failed"')
        if "certificate" in line
    )


def test_it_goes_on_as_soon_as_the_port_has_a_name(running: Running) -> None:
    running.world.plane.kubectl(
        *("patch", "service", UNNAMED, "-n", "shop", "--type=json", "-p"),
        '[{"op": "add", "path": "/spec/ports/0/name", "value": "http"}]',
    )
    until(lambda: running.whole(UNNAMED), "it did not go on")


def test_what_kubectl_replace_dropped_is_repaired(running: Running) -> None:
    """The old version is named again; nothing is ordered for it."""
    issued = running.world.pebble.certificates_issued()
    manifest = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "replaced", "namespace": "shop"},
        "spec": {
            "type": "LoadBalancer",
            "selector": {"app": "replaced"},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
        },
    }
    running.world.plane.kubectl("replace", "-f", "-", stdin=json.dumps(manifest))
    until(lambda: running.whole("replaced"), "it was not repaired")
    assert running.world.pebble.certificates_issued() == issued


def test_our_port_follows_http_to_another_targetport(running: Running) -> None:
    running.world.plane.kubectl(
        *("patch", "service", "moved", "-n", "shop", "-p"),
        '{"spec": {"ports": [{"port": 80, "targetPort": 9090}]}}',
    )
    until(lambda: running.whole("moved"), "ours did not follow")
    service = running.world.service("shop", "moved")
    assert [port["targetPort"] for port in service["spec"]["ports"]] == [9090, 9090]


def test_a_service_deleted_and_made_again_is_given_its_certificate_again(
    running: Running,
) -> None:
    """On a load balancer that starts empty, under the same name; no Secret is ever missing."""
    issued = running.world.pebble.certificates_issued()
    admin = running.world.plane.admin
    path = "/api/v1/namespaces/shop/services/again"
    old = running.world.service("shop", "again")["metadata"]["uid"]
    with History(admin, NAMESPACE) as history:
        admin.delete(path)

        def gone() -> bool:
            try:
                admin.get(path)
            except KubeError as error:
                return error.status == 404
            return False

        until(gone, "it stays")
        until(
            lambda: running.told('"turn"', "Service shop/again is not there"),
            "its absence is not reported",
        )
        made = running.world.add_service("shop", "again")
        assert made["metadata"]["uid"] != old
        until(lambda: running.whole("again"), "it is not served again")
        assert history.dangling(only="again") == []
    assert running.world.pebble.certificates_issued() == issued


def test_others_see_by_events_what_was_done(running: Running) -> None:
    for name in NAMES:
        reasons = {event["reason"] for event in our_events(running.world, "shop", name)}
        assert "CertificateServed" in reasons
        assert "CertificateFailed" not in reasons
