"""What only a real API server can show: rights, credentials, the network, requests, memory."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes.config import incluster_config

from certbaton.cluster import Api, Cluster, Kind
from certbaton.errors import ClusterUnavailable, ConfigurationError, PermanentError
from certbaton.model import Instance, ObjectRef
from fakes.x509 import hierarchy
from lab.chaos import ApiProxy, WireFault, through
from lab.controlplane import ControlPlane

pytestmark = pytest.mark.servers

SHOP = ObjectRef("shop", "shop")


def service_account(plane: ControlPlane, namespace: str, rules: list[dict[str, Any]]) -> str:
    """A new ServiceAccount with a Role of *rules*; its token."""
    name = f"sa-{uuid.uuid4().hex[:8]}"
    plane.create_namespace(namespace)
    base = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    plane.admin.create(base, {"metadata": {"name": name, "namespace": namespace}})
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    plane.admin.create(f"{rbac}/roles", {"metadata": {"name": name}, "rules": rules})
    plane.admin.create(
        f"{rbac}/rolebindings",
        {
            "metadata": {"name": name},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "Role",
                "name": name,
            },
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        },
    )
    return plane.token(namespace, name)


@pytest.fixture
def admin(control_plane: ControlPlane) -> Iterator[Api]:
    """An Api that may do anything."""
    api = Api.connect(str(control_plane.kubeconfig_admin))
    yield api
    api.close()


def test_a_missing_right_is_told_with_verb_resource_and_namespace(
    control_plane: ControlPlane,
) -> None:
    """And with what to do about it."""
    token = service_account(control_plane, "rights", [])
    api = Api.connect(str(control_plane.kubeconfig_for(token, "rights")))
    with pytest.raises(PermanentError) as caught:
        api.merge(Kind.SECRET, ObjectRef("rights", "x"), {"data": {"a": "c2VjcmV0"}})
    text = str(caught.value)
    assert "not allowed to patch secrets in namespace rights" in text
    assert "rbac.create" in text
    assert "\n" not in text
    with pytest.raises(PermanentError, match="list services in all namespaces"):
        api.list(Kind.SERVICE)
    with pytest.raises(PermanentError, match=r"watch leases\.coordination\.k8s\.io"):
        api.watch(Kind.LEASE, "rights", resource_version="1", timeout_seconds=1)
    api.close()


def test_credentials_that_are_refused_may_be_renewed(control_plane: ControlPlane) -> None:
    """401 is no permanent error: tokens rotate."""
    api = Api.connect(str(control_plane.kubeconfig_for("nonsense", "default")))
    with pytest.raises(ClusterUnavailable, match="credentials"):
        api.list(Kind.SERVICE)
    api.close()


def test_a_namespace_that_is_missing_is_for_a_person(admin: Api) -> None:
    """A create into it is answered with 404, which is no lost race."""
    with pytest.raises(PermanentError, match="namespace nowhere"):
        admin.create(Kind.SECRET, "nowhere", {"metadata": {"name": "x"}})


def test_nobody_there_is_unavailable(control_plane: ControlPlane, tmp_path: Path) -> None:
    """A refused connection, in one sentence."""
    text = control_plane.kubeconfig_admin.read_text()
    config = tmp_path / "kubeconfig"
    config.write_text(text.replace(control_plane.url, "https://127.0.0.1:1"))
    api = Api.connect(str(config))
    with pytest.raises(ClusterUnavailable, match="refused"):
        api.read(Kind.SERVICE, SHOP)
    api.close()


def test_an_overloaded_server_says_when_to_come_again(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    """It is told as what it is, not as a server that cannot be reached, and asked once."""
    overloaded = WireFault("unavailable", seconds=30)
    with ApiProxy(tmp_path, control_plane.url, control_plane.ca) as proxy:
        api = Api.connect(str(through(control_plane.kubeconfig_admin, proxy)))
        with proxy.misbehaving(overloaded), pytest.raises(ClusterUnavailable, match="503") as told:
            api.read(Kind.SERVICE, SHOP)
        api.close()
    assert told.value.retry_at is not None
    assert told.value.retry_at > datetime.now(UTC) + timedelta(seconds=20)
    assert overloaded.met == 1


def test_a_certificate_of_another_authority_is_unavailable(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    """The daemon does not talk to a server that it cannot trust."""
    config = tmp_path / "kubeconfig"
    stranger = base64.b64encode(hierarchy("stranger").root_pem.encode()).decode()
    ours = base64.b64encode(control_plane.ca.read_bytes()).decode()
    text = control_plane.kubeconfig_admin.read_text()
    assert ours in text
    config.write_text(text.replace(ours, stranger))
    api = Api.connect(str(config))
    with pytest.raises(ClusterUnavailable, match="certificate verify failed"):
        api.read(Kind.SERVICE, SHOP)
    api.close()


def test_a_rotated_token_is_read_again(
    control_plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a pod: the token file changes, and the next request after its minute uses it."""
    token = service_account(
        control_plane,
        "rotation",
        [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}],
    )
    file = tmp_path / "token"
    file.write_text("stale")
    host, port = control_plane.url.removeprefix("https://").split(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(file))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(control_plane.ca))
    began = datetime.now()  # noqa: DTZ005  as the loader does

    class Later(datetime):
        """A clock that has moved on by two minutes."""

        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return began + timedelta(minutes=2)

    api = Api.connect()
    with pytest.raises(ClusterUnavailable):
        api.list(Kind.SECRET, "rotation")
    file.write_text(token)
    clock = SimpleNamespace(datetime=Later, timedelta=timedelta)
    monkeypatch.setattr(incluster_config, "datetime", clock)
    assert api.list(Kind.SECRET, "rotation")[0] == []
    api.close()


def test_outside_a_cluster_a_kubeconfig_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence, as an error of configuration."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ConfigurationError, match="give --kubeconfig"):
        Api.connect()
    with pytest.raises(ConfigurationError, match="/nowhere"):
        Api.connect("/nowhere")


def test_at_rest_there_are_three_watches_and_nothing_else(control_plane: ControlPlane) -> None:
    """No discovery either: three lists, three watches, counted by the server's audit log."""
    plane = control_plane
    namespace = "resting"
    rules = [
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["list", "watch"]},
    ]
    token = service_account(plane, namespace, rules)
    api = Api.connect(str(plane.kubeconfig_for(token, namespace)))
    user = whoami(token)
    plane.admin.create(
        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        {
            "metadata": {"name": "resting"},
            "rules": [
                {"apiGroups": [""], "resources": ["services", "events"], "verbs": ["list", "watch"]}
            ],
        },
    )
    plane.admin.create(
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        {
            "metadata": {"name": "resting"},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "resting",
            },
            "subjects": [
                {"kind": "ServiceAccount", "name": user.split(":")[-1], "namespace": namespace}
            ],
        },
    )
    began = datetime.now(UTC) - timedelta(seconds=1)
    cluster = Cluster(api, Instance("certbaton", namespace), [SHOP])
    changed = threading.Event()
    cluster.start(changed.set)
    for _ in range(200):
        if cluster.complete and not cluster.problems():
            break
        changed.wait(0.05)
        changed.clear()
    assert cluster.problems() == ()
    threading.Event().wait(2.0)
    cluster.stop()
    api.close()
    seen = plane.audit(user, began, datetime.now(UTC) + timedelta(seconds=1))
    counts = sorted((event.verb, event.resource) for event in seen)
    assert counts == sorted(
        (verb, kind) for verb in ("list", "watch") for kind in ("secrets", "services", "events")
    )


def whoami(token: str) -> str:
    """The user name in a ServiceAccount's token."""
    payload = token.split(".")[1]
    text = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    subject: str = json.loads(text)["sub"]
    return subject


USE = """
import sys
from certbaton.cluster import Api, Cluster, Kind
from certbaton.model import Instance, ObjectRef
api = Api.connect(sys.argv[1])
cluster = Cluster(api, Instance("certbaton", "default"), [ObjectRef("default", "shop")])
cluster.refresh()
assert cluster.complete, cluster.problems()
stream = api.watch(Kind.SECRET, resource_version=api.list(Kind.SECRET)[1], timeout_seconds=1)
list(stream)
cluster.services.service_live(ObjectRef("default", "shop"))
cluster.events.publish(ObjectRef("default", "shop"), "u", "1", "Normal", "Said", "hello")
api.close()
generated = ("kubernetes.client.models.", "kubernetes.client.api.")
print([name for name in sys.modules if name.startswith(generated)])
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS")))
"""


def test_the_generated_models_stay_unloaded(control_plane: ControlPlane, tmp_path: Path) -> None:
    """They would cost 20 MB; in use nothing loads them. Each write passes its fail point."""
    log = tmp_path / "writes"
    done = subprocess.run(
        [sys.executable, "-c", USE, str(control_plane.kubeconfig_admin)],
        env=os.environ | {"CERTBATON_WRITE_LOG": str(log)},
        capture_output=True,
        text=True,
        check=True,
    )
    modules, rss = done.stdout.split("\n")[:2]
    assert modules == "[]"
    assert int(rss) < 70_000
    assert log.read_text() == "cluster create Event\n"
    print(f"resident after use: {int(rss) / 1024:.1f} MB")
