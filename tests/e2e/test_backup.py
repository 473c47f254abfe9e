"""
What people put back from backups: a whole cluster, or Services alone in a new one.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e.harness import name_of
from e2e.running import Running
from lab.kube import KubeError
from lab.oci.faults import Faults
from lab.world import NAMESPACE, SSL_PORTS, TLS_SECRET, World

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]

LIFETIME_S = 600
DUE_AFTER_S = 30
POLICY = {
    "pollListener": "250ms",
    "renewLeftShort": 1 - DUE_AFTER_S / LIFETIME_S,
    "renewJitter": 0,
    "backOff": ["1s"],
    "retentionShare": 0,
    "sweepShare": 0,
    "keepPrevious": 0,
}
# So many revisions lie between the backup and the day that it is needed.
LOST_REVISIONS = 300


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(
        lifetime=LIFETIME_S,
        poll_interval=0.2,
        interruption=0.1,
        dns=True,
        workers=3,
        faults=Faults(),
    ) as world:
        world.install(world.configuration())
        yield world


def test_a_restored_service_gets_its_load_balancer_back_before_its_certificate(
    world: World,
) -> None:
    """
    It names a version that is nowhere, so Oracle's controller makes no load balancer for it; and
    without one there is no port 80 for the challenge.
    """
    world.add_service(
        "shop",
        "restored",
        annotations={TLS_SECRET: f"{NAMESPACE}/restored-20250101-0123456789", SSL_PORTS: "443"},
        wait=False,
    )
    entry = world.certificate("restored", ["restored.example.test"], [("shop", "restored")])
    with Running(world, "restored", entry, policy={**POLICY, "backOff": ["5s"]}) as running:
        world.set_a("restored.example.test", world.address_of("shop", "restored"))
        running.wait_whole("restored")
        (given_up,) = running.done("GiveUp", "restored")
        assert "restored-20250101-0123456789" in given_up["why"]


def test_a_cluster_that_is_put_back_from_a_backup_ends_with_the_newest_served(
    world: World,
) -> None:
    """
    Under a running daemon, and once more with one that starts afterwards. The names of then are
    back, what came since is gone, and resourceVersions start again in the past: what the daemon
    remembers is of a future that never was.

    The version of the backup is named, and due. What came after it is made again from memory, or
    ordered once; then the old one is collected.
    """
    plane = world.plane
    world.add_service("shop", "shop", "shop.example.test")
    entry = world.certificate("shop", ["shop.example.test"], [("shop", "shop")])

    def settles(old: str) -> None:
        running.wait_whole("shop", than=old, timeout=90)
        running.wait(
            lambda: old not in map(name_of, running.versions("shop")), "the old version stays"
        )
        running.wait_whole("shop")
        assert not running.told('"turn_broke"')

    with Running(world, "backup", entry, policy=POLICY) as running:
        first = name_of(running.wait_whole("shop"))
        running.wait(lambda: "pending" not in running.certbaton.journal("shop"), "order open")
        backup = plane.backup()
        settles(first)
        for number in range(LOST_REVISIONS):
            plane.admin.create(
                f"/api/v1/namespaces/{NAMESPACE}/configmaps", {"metadata": {"name": f"x{number}"}}
            )
        issued = world.pebble.certificates_issued()

        plane.restore(backup)
        with pytest.raises(KubeError):  # and the daemon may have looked at all else by now
            plane.admin.get(f"/api/v1/namespaces/{NAMESPACE}/configmaps/x0")
        settles(first)
    assert world.pebble.certificates_issued() - issued in (0, 1)

    plane.restore(backup)
    assert [name_of(version) for version in running.versions("shop")] == [first]
    issued = world.pebble.certificates_issued()
    with running:
        settles(first)
    assert world.pebble.certificates_issued() - issued == 1
