"""
How certbaton writes a Service, each rule on a real API server with the chart's ServiceAccount.

The tests drive the cluster and the target as `apply` does, one write at a time, so that others
can write in between at any moment; the cloud controller, which writes too, does not run here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from certbaton.cluster import Api
from certbaton.errors import ConfigurationError, Conflict
from e2e.harness import Certbaton
from e2e.place import HTTP, Place
from lab.kube import KubeError
from lab.world import NAMESPACE, RELEASE, SSL_PORTS, TLS_SECRET, World

pytestmark = pytest.mark.servers

Obj = dict[str, Any]


@pytest.fixture(scope="module")
def api(calm_world: World) -> Iterator[Api]:
    calm_world.cloud.stop()
    certbaton = Certbaton(calm_world, calm_world.config)
    api = Api.connect(str(certbaton.kubeconfig), None)
    yield api
    api.close()


@pytest.fixture
def place(calm_world: World, api: Api) -> Place:
    return Place(calm_world, api)


# What is written


def test_one_write_gives_ssl_ports_tls_secret_and_the_https_port(place: Place) -> None:
    """In one patch, so that 443 never speaks plain HTTP in between; nothing else changes."""
    before = place.make()
    place.hand_over("shop-1")
    assert place.annotations == {
        "example.test/owner": "the shop",
        SSL_PORTS: "443",
        TLS_SECRET: f"{NAMESPACE}/shop-1",
    }
    assert place.ports == {"http": (80, "TCP", 8080), "https": (443, "TCP", 8080)}
    after = place.now
    assert after["spec"]["selector"] == before["spec"]["selector"]
    assert after["metadata"]["labels"] == before["metadata"]["labels"]
    (https,) = [port for port in after["spec"]["ports"] if port["name"] == "https"]
    assert https["nodePort"] > 0


def test_the_field_manager_is_named_after_namespace_and_release(place: Place) -> None:
    place.make()
    place.hand_over("shop-1")
    (ours,) = [
        entry for entry in place.now["metadata"]["managedFields"] if entry["operation"] == "Apply"
    ]
    assert ours["manager"] == f"certbaton/{NAMESPACE}/{RELEASE}"


def test_a_repoint_changes_tls_secret_and_nothing_else(place: Place) -> None:
    place.make()
    place.hand_over("shop-1")
    before = place.now
    place.hand_over("shop-2")
    after = place.now
    assert after["metadata"]["annotations"].pop(TLS_SECRET) == f"{NAMESPACE}/shop-2"
    before["metadata"]["annotations"].pop(TLS_SECRET)
    assert after["metadata"]["annotations"] == before["metadata"]["annotations"]
    assert after["spec"] == before["spec"]


def test_ssl_ports_can_be_switched_off(place: Place) -> None:
    place.make()
    place.hand_over("shop-1", ssl_ports=False)
    assert SSL_PORTS not in place.annotations
    assert place.named("shop-1")
    assert "https" in place.ports


def test_the_https_port_can_be_switched_off(place: Place) -> None:
    place.make()
    place.hand_over("shop-1", https=False)
    assert place.ports == {"http": (80, "TCP", 8080)}
    assert place.named("shop-1")
    assert place.annotations[SSL_PORTS] == "443"


# What is others' stays theirs


def test_a_users_own_443_udp_stays_beside_ours(place: Place) -> None:
    """A strategic merge would have overwritten it: its key is the port's number alone."""
    quic = {"name": "quic", "port": 443, "protocol": "UDP", "targetPort": 8443}
    place.make(HTTP, quic)
    place.hand_over("shop-1")
    assert place.ports == {
        "http": (80, "TCP", 8080),
        "quic": (443, "UDP", 8443),
        "https": (443, "TCP", 8080),
    }
    place.hand_over("shop-2")
    assert place.ports["quic"] == (443, "UDP", 8443)


def test_a_users_own_443_tcp_is_left_alone(place: Place) -> None:
    """Whatever its name and its target."""
    place.make(HTTP, {"name": "web-tls", "port": 443, "targetPort": 9443})
    place.hand_over("shop-1")
    place.hand_over("shop-2")
    assert place.ports == {"http": (80, "TCP", 8080), "web-tls": (443, "TCP", 9443)}
    assert place.named("shop-2")
    place.kubectl(
        *("patch", "service", place.ref.name, "-n", "shop", "--type=json", "-p"),
        '[{"op": "replace", "path": "/spec/ports/1/targetPort", "value": 9444}]',
    )
    place.hand_over("shop-3")
    assert place.ports["web-tls"] == (443, "TCP", 9444)


def test_an_ssl_ports_that_others_set_stays_theirs(place: Place) -> None:
    place.make(HTTP, {"name": "api", "port": 8443, "targetPort": 8081}, ssl_ports="443,8443")
    place.hand_over("shop-1")
    assert place.annotations[SSL_PORTS] == "443,8443"
    place.kubectl(
        *("annotate", "service", place.ref.name, "-n", "shop", "--overwrite"),
        f"{SSL_PORTS}=8443",
    )
    place.hand_over("shop-2")
    assert place.annotations[SSL_PORTS] == "8443"
    assert place.named("shop-2")


def test_a_hand_made_tls_secret_is_replaced_at_once(place: Place) -> None:
    """By force: without it the API server answers 409 for ever."""
    place.make(HTTP, ssl_ports="443", tls_secret="by-hand-2024")
    place.hand_over("shop-1")
    assert place.named("shop-1")
    place.kubectl(
        *("annotate", "service", place.ref.name, "-n", "shop", "--overwrite"),
        f"{TLS_SECRET}=by-hand-2025",
    )
    place.hand_over("shop-2")
    assert place.named("shop-2")


# What cannot be written


@pytest.mark.parametrize(
    ("ports", "words"),
    [
        ([{"port": 80, "targetPort": 8080}], "single port without a name"),
        ([{"name": "web", "port": 80, "targetPort": 8080}], "no port named http"),
        (
            [HTTP, {"name": "https", "port": 8443, "targetPort": 8443}],
            "the name https is taken by port 8443/TCP",
        ),
        (
            [HTTP, {"name": "https", "port": 443, "protocol": "UDP", "targetPort": 8443}],
            "the name https is taken by port 443/UDP",
        ),
    ],
    ids=["unnamed", "no-http", "https-taken", "https-taken-by-udp"],
)
def test_where_no_https_port_can_be_added_one_sentence_says_so(
    place: Place, ports: list[Obj], words: str
) -> None:
    """Nothing is written, and the sentence names the Service and the way out."""
    before = place.make(*ports)
    with pytest.raises(ConfigurationError) as refused:
        place.hand_over("shop-1")
    assert words in str(refused.value)
    assert str(place.ref) in str(refused.value)
    assert "httpsPort: false" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert place.now["spec"] == before["spec"]
    assert place.annotations == before["metadata"]["annotations"]
    # The way out.
    place.hand_over("shop-1", https=False)
    assert place.named("shop-1")
    assert place.now["spec"] == before["spec"]


# Others write in between


def test_our_port_follows_the_targetport_of_http(place: Place) -> None:
    place.make()
    place.hand_over("shop-1")
    place.kubectl(
        *("patch", "service", place.ref.name, "-n", "shop", "-p"),
        '{"spec": {"ports": [{"port": 80, "targetPort": "web"}]}}',
    )
    place.hand_over("shop-1")
    assert place.ports == {"http": (80, "TCP", "web"), "https": (443, "TCP", "web")}


@pytest.mark.parametrize("how", ["client-side", "server-side"])
def test_what_we_own_survives_kubectl_apply(place: Place, how: str) -> None:
    """And what they own is theirs: their changes take effect, and our next write keeps them."""
    server_side = ["--server-side"] if how == "server-side" else []
    place.world.plane.create_namespace("shop")
    place.kubectl("apply", *server_side, manifest=place.manifest())
    place.hand_over("shop-1")
    changed = place.manifest({**HTTP, "targetPort": 9090}, {"name": "api", "port": 8081})
    changed["metadata"]["annotations"]["example.test/owner"] = "somebody else"
    place.kubectl("apply", *server_side, manifest=changed)
    for _ in range(2):
        assert place.named("shop-1")
        assert place.annotations[SSL_PORTS] == "443"
        assert place.annotations["example.test/owner"] == "somebody else"
        assert place.ports["http"] == (80, "TCP", 9090)
        assert place.ports["api"] == (8081, "TCP", 8081)
        assert place.ports["https"][:2] == (443, "TCP")
        place.hand_over("shop-1")
    assert place.ports["https"] == (443, "TCP", 9090)


def chart(folder: Path, place: Place) -> Path:
    """A chart of the user's with this one Service."""
    (folder / "templates").mkdir(parents=True)
    (folder / "Chart.yaml").write_text("apiVersion: v2\nname: shop\nversion: 1.0.0\n")
    text = yaml.safe_dump(place.manifest()).replace("8080", "{{ .Values.targetPort }}")
    (folder / "templates" / "service.yaml").write_text(text)
    (folder / "values.yaml").write_text("targetPort: 8080\n")
    return folder


@pytest.mark.parametrize("server_side", ["true", "false"])
def test_what_we_own_survives_helm_upgrade(place: Place, server_side: str) -> None:
    """In both modes of helm 4."""
    place.world.plane.create_namespace("shop")
    there = chart(place.folder / "chart", place)
    release = [place.ref.name, str(there), "--namespace=shop", f"--server-side={server_side}"]
    place.world.plane.helm("install", *release)
    place.hand_over("shop-1")
    place.world.plane.helm("upgrade", *release, "--set", "targetPort=9090")
    assert place.named("shop-1")
    assert place.annotations[SSL_PORTS] == "443"
    assert place.ports["http"] == (80, "TCP", 9090)
    place.hand_over("shop-2")
    assert place.ports == {"http": (80, "TCP", 9090), "https": (443, "TCP", 9090)}
    place.world.plane.helm("upgrade", *release, "--set", "targetPort=9091")
    assert place.named("shop-2")
    assert place.ports["http"] == (80, "TCP", 9091)


def test_kubectl_replace_drops_what_we_own_and_the_next_write_repairs_it(place: Place) -> None:
    place.make()
    place.hand_over("shop-1")
    place.kubectl("replace", manifest=place.manifest())
    assert TLS_SECRET not in place.annotations
    assert set(place.ports) == {"http"}
    place.hand_over("shop-1")
    assert place.named("shop-1")
    assert place.annotations[SSL_PORTS] == "443"
    assert place.ports["https"] == (443, "TCP", 8080)


# The wrong moment


def test_a_service_changed_between_our_read_and_our_write_is_looked_at_again(
    place: Place,
) -> None:
    """Conflict; what was read again holds the other's change, and the next write keeps it."""
    place.make()
    state = place.look()
    assert state is not None
    place.kubectl("annotate", "service", place.ref.name, "-n", "shop", "example.test/new=yes")
    with pytest.raises(Conflict):
        place.write(state, "shop-1")
    assert TLS_SECRET not in place.annotations
    again = place.cluster.services.service(place.ref)
    assert again is not None
    place.write(again, "shop-1")
    assert place.named("shop-1")
    assert place.annotations["example.test/new"] == "yes"


def gone(place: Place) -> bool:
    try:
        place.now  # noqa: B018
    except KubeError as error:
        return error.status == 404
    return False


def test_a_service_deleted_between_our_read_and_our_write_is_not_created(place: Place) -> None:
    """An apply would make one, of two annotations and a port; the uid in it prevents that."""
    place.make()
    state = place.look()
    assert state is not None
    place.world.plane.admin.delete(place.path)
    with pytest.raises(Conflict):
        place.write(state, "shop-1")
    assert gone(place)
    assert place.cluster.services.service(place.ref) is None


def test_a_service_deleted_and_made_again_is_another_one(place: Place) -> None:
    """What was decided on the old one is not written to the new one."""
    place.make()
    state = place.look()
    assert state is not None
    place.world.plane.admin.delete(place.path)
    made = place.make({**HTTP, "targetPort": 9090})
    with pytest.raises(Conflict):
        place.write(state, "shop-1")
    assert place.now["spec"] == made["spec"]
    assert TLS_SECRET not in place.annotations
    again = place.cluster.services.service(place.ref)
    assert again is not None
    assert again.uid == made["metadata"]["uid"]
    place.write(again, "shop-1")
    assert place.ports["https"] == (443, "TCP", 9090)
