"""
How a listener is seen, and what is believed where it cannot be.

On an inside route (kube-proxy's short circuit) a probe meets the pods: plain HTTP, a foreign
leaf, our old leaf. None of it is a failure, none of it proves anything.

Events have whole seconds, and what falls into the second of a change proves nothing. So where
Events are to prove something, the cloud controller hears of changes more than a second late, and
a sync takes more than one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from e2e.harness import (
    KILLED,
    Certbaton,
    Ended,
    content,
    leaf_hash,
    name_of,
    our_events,
    proofs,
    served_leaf,
    until,
)
from e2e.writes import FIRST_NOTED
from lab.oci.faults import Faults, InsideMode
from lab.oci.ports import PortMap
from lab.process import free_ports
from lab.world import SSL_PORTS, World

pytestmark = pytest.mark.servers

Obj = dict[str, Any]

LIFETIME_S = 120
MODE = "oci.oraclecloud.com/ingress-ip-mode"
BETTER_VIEW = f"{MODE}: proxy"
IN_A_POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}
TLS_PORTS = tuple(free_ports(2))


@pytest.fixture(scope="module")
def shared_world() -> Iterator[World]:
    world = World(
        lifetime=LIFETIME_S, poll_interval=0.5, interruption=0.1, workers=3, faults=Faults()
    )
    # Service ports that are real ports as well, so that the probe needs no other one.
    world.ports = PortMap({port: port for port in TLS_PORTS})
    with world:
        world.install(world.configuration())
        yield world


@pytest.fixture
def world(shared_world: World) -> Iterator[World]:
    yield shared_world
    faults = shared_world.cloud.faults
    faults.inside, faults.publish_inside, faults.events = "plain", False, True
    faults.watch_delay_s = 0.0
    faults.tls_alert.clear()


def hears_late(world: World) -> None:
    """The cloud controller begins its next sync in another second than that of the change."""
    world.cloud.faults.watch_delay_s = 1.1


class Shop:
    """A Service, its certificate, and a release of its own."""

    def __init__(self, world: World, name: str, **service: Any) -> None:
        self.world = world
        self.name = name
        world.add_service("shop", name, f"{name}.example.test", **service)
        world.set_a(f"www.{name}.example.test", world.address_of("shop", name))
        self.certbaton = Certbaton(world, {}, release=name)
        self.configure()

    def configure(
        self,
        *more_names: str,
        probe: Obj | None = None,
        service: Obj | None = None,
        policy: Obj | None = None,
        **top: Any,
    ) -> None:
        """Other names bring a renewal at once; *probe* is added to what the lab needs."""
        names = [f"{self.name}.example.test", *more_names]
        entry = self.world.certificate(self.name, names, [("shop", self.name)])
        entry["services"][0]["probe"].update(probe or {})
        entry["services"][0].update(service or {})
        config = self.world.configuration(entry, healthPort=0, **top)
        config["policy"].update(policy or {})
        self.certbaton.configure(config)

    def look_inside(self, *more_names: str, **more: Any) -> None:
        """Probe what a pod would meet, and know that it is that."""
        address, _ = self.world.cloud.inside_endpoint("shop", self.name)
        self.configure(*more_names, probe={"address": address}, route="inside", **more)

    @property
    def newest(self) -> Obj:
        return self.certbaton.versions(self.name)[-1]

    @property
    def proof(self) -> str | None:
        """How the handover of the newest version ended, if it has."""
        return proofs(self.newest).get(f"shop/{self.name}")


def was_no_failure(shop: Shop, ended: Ended) -> None:
    """Nothing failed, nobody was told so, and the listener has the newest version."""
    assert ended.code == 0, ended
    assert ended.events("failed") == []
    assert all(line["failed"] == [] for line in ended.events("turn"))
    reasons = {event["reason"] for event in our_events(shop.world, "shop", shop.name)}
    assert "CertificateFailed" not in reasons
    assert "failures" not in shop.certbaton.journal(shop.name)
    assert served_leaf(shop.world, "shop", shop.name) == leaf_hash(shop.newest)


def says(ended: Ended, words: str) -> bool:
    return any(words in wait for line in ended.events("turn") for wait in line["waits"])


# The inside route


@pytest.fixture(scope="module")
def inside(shared_world: World) -> Shop:
    """A shop whose first version was served, seen from outside."""
    shop = Shop(shared_world, "inside")
    ended = shop.certbaton.once()
    assert ended.code == 0, ended
    return shop


@pytest.mark.parametrize(
    ("mode", "shown"), [("plain", "no TLS there"), ("foreign", "shows leaf"), ("old", "shows leaf")]
)
def test_on_an_inside_route_a_sync_that_began_and_ended_after_the_change_is_proof(
    world: World, inside: Shop, mode: InsideMode, shown: str
) -> None:
    """Whatever the probe meets: it is told as it is, with how to get a better view."""
    world.cloud.faults.inside = mode
    issued = world.pebble.certificates_issued()
    before = name_of(inside.newest)
    world.set_a(f"{mode}.inside.example.test", world.address_of("shop", "inside"))
    inside.look_inside(f"{mode}.inside.example.test")
    hears_late(world)
    ended = inside.certbaton.once()
    was_no_failure(inside, ended)
    assert inside.proof == "events"
    assert says(ended, shown)
    assert says(ended, BETTER_VIEW)
    assert world.pebble.certificates_issued() == issued + 1
    met = world.cloud.inside.leaf("shop", "inside")
    assert met != leaf_hash(inside.newest)
    if mode == "old":
        assert met in {leaf_hash(version) for version in inside.certbaton.versions("inside")}
    assert name_of(inside.newest) != before


def test_without_events_it_goes_on_after_the_settle_time_and_calls_it_unproven(
    world: World,
) -> None:
    """A warning that can be read with kubectl; nothing is taken back, nothing ordered again."""
    world.cloud.faults.events = False
    shop = Shop(world, "silent")
    shop.look_inside(policy={"settleShare": 3 / LIFETIME_S})
    ended = shop.certbaton.once()
    was_no_failure(shop, ended)
    assert shop.proof == "unproven"
    assert says(ended, BETTER_VIEW)
    (event,) = our_events(world, "shop", "silent")
    assert (event["type"], event["reason"]) == ("Warning", "CertificateUnproven")
    again = shop.certbaton.once()
    assert (again.code, again.done) == (0, [])
    # The controller finds its voice: what is unproven may become proven.
    world.cloud.faults.events = True
    world.cloud.resync("shop", "silent")
    until(lambda: world.cloud.idle, "the sync does not end")
    late = shop.certbaton.once()
    assert (late.code, late.done) == (0, ["MarkServed"]), late
    assert shop.proof == "events"
    assert world.cloud.load_balancer("shop", "silent").certificates == [name_of(shop.newest)]


def test_our_wanted_leaf_is_believed_where_the_pods_cannot_have_it(world: World) -> None:
    """The Secret lies in certbaton's namespace: pods elsewhere cannot mount it."""
    world.cloud.faults.events = False
    world.cloud.faults.inside = "old"
    shop = Shop(world, "wanted")
    shop.look_inside()
    ended = shop.certbaton.once()
    was_no_failure(shop, ended)
    assert shop.proof == "wire"


# Which route it is


def test_a_pod_knows_by_the_ip_mode_whether_its_view_is_one_from_outside(world: World) -> None:
    """With VIP it meets the pods and waits for Events; with Proxy it meets the load balancer."""
    world.cloud.faults.publish_inside = True
    shop = Shop(world, "pod")
    # The CA comes from outside in any case.
    endpoint, _ = world.cloud.load_balancer("shop", "pod").endpoint(80)
    for name in ("pod.example.test", "www.pod.example.test"):
        world.set_a(name, endpoint)
    hears_late(world)
    ended = shop.certbaton.once(**IN_A_POD)
    was_no_failure(shop, ended)
    assert shop.proof == "events"
    assert says(ended, BETTER_VIEW)

    # As it was told.
    world.cloud.faults.watch_delay_s = 0.0
    word, _, value = BETTER_VIEW.partition(": ")
    world.plane.kubectl("annotate", "service", "pod", "-n", "shop", f"{word}={value}")

    def modes() -> list[str]:
        ingress = world.service("shop", "pod")["status"]["loadBalancer"]["ingress"]
        return [entry["ipMode"] for entry in ingress]

    until(lambda: modes() == ["Proxy"], "the mode does not change")
    world.cloud.faults.events = False
    shop.configure("www.pod.example.test")
    ended = shop.certbaton.once(**IN_A_POD)
    was_no_failure(shop, ended)
    assert shop.proof == "wire"
    assert not says(ended, BETTER_VIEW)


# Served means all of them


def test_every_address_must_show_the_new_leaf(world: World) -> None:
    """A second address that shows another leaf is waited for, and is no failure."""
    shop = Shop(world, "two-addresses")
    died = shop.certbaton.once(CERTBATON_CRASH_AT=f"before:{FIRST_NOTED}")
    assert died.code == KILLED, died
    assert shop.proof is None
    until(lambda: world.cloud.idle, "the sync does not end")
    world.cloud.faults.inside = "foreign"
    addresses = [
        world.address_of("shop", shop.name),
        world.cloud.inside_endpoint("shop", shop.name)[0],
    ]
    world.plane.admin.patch(
        f"/api/v1/namespaces/shop/services/{shop.name}/status",
        {"status": {"loadBalancer": {"ingress": [{"ip": address} for address in addresses]}}},
    )
    waiting = shop.certbaton.once("2s")
    assert waiting.code == 6, waiting
    assert waiting.events("failed") == []
    assert shop.proof is None
    # "old" is the current one here, as there is no older.
    world.cloud.faults.inside = "old"
    ended = shop.certbaton.once()
    was_no_failure(shop, ended)
    assert shop.proof == "wire"


def test_every_port_in_ssl_ports_must_show_the_new_leaf(world: World) -> None:
    """Of a user's own ports and ssl-ports; one that answers with an alert is waited for."""
    one, two = TLS_PORTS
    shop = Shop(
        world,
        "two-ports",
        annotations={SSL_PORTS: f"{one}, {two}"},
        ports=[
            {"name": "http", "port": 80, "targetPort": 8080},
            {"name": "one", "port": one, "targetPort": 8080},
            {"name": "two", "port": two, "targetPort": 8080},
        ],
    )
    shop.configure(service={"sslPorts": False, "httpsPort": False, "probe": {}})
    world.cloud.faults.tls_alert = {two}
    waiting = shop.certbaton.once("6s")
    assert waiting.code == 6, waiting
    assert waiting.events("failed") == []
    assert shop.proof is None
    world.cloud.faults.tls_alert.clear()
    ended = shop.certbaton.once()
    assert ended.code == 0, ended
    assert shop.proof == "wire"
    balancer = world.cloud.load_balancer("shop", "two-ports")
    assert {balancer.certificate_of(port) for port in TLS_PORTS} == {name_of(shop.newest)}
    chain = balancer.certificate(name_of(shop.newest)).chain
    assert chain == content(shop.newest, "tls.crt")
