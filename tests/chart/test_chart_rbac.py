"""What the chart's ServiceAccount may do, asked of the real API server with its own token."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chart.conftest import CHART
from lab.controlplane import ControlPlane
from lab.kube import APPLY_PATCH, Kube, KubeError

pytestmark = pytest.mark.servers

OWN, ELSEWHERE = "rbac", "rbac-elsewhere"
EVERYWHERE = (OWN, ELSEWHERE)
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
LEASES = "coordination.k8s.io/leases"

# Resource, namespaces, verbs that are allowed there. Everything else is not.
ALLOWED: dict[str, tuple[str, tuple[str, ...], set[str]]] = {
    "Secrets in its own namespace": (
        "secrets",
        (OWN,),
        {"get", "list", "watch", "create", "patch", "delete"},
    ),
    "Secrets elsewhere": ("secrets", (ELSEWHERE,), set()),
    "Services anywhere": ("services", EVERYWHERE, {"get", "list", "watch", "patch"}),
    "status of Services": ("services/status", EVERYWHERE, set()),
    "Events anywhere": ("events", EVERYWHERE, {"get", "list", "watch", "create", "patch"}),
    "its own Lease": (
        f"{LEASES}=certbaton",
        (OWN,),
        {"get", "list", "watch", "create", "update"},
    ),
    "another Lease in its own namespace": (f"{LEASES}=other", (OWN,), {"get", "create"}),
    "Leases elsewhere": (f"{LEASES}=certbaton", (ELSEWHERE,), {"get"}),
    "pods": ("pods", EVERYWHERE, set()),
    "commands in pods": ("pods/exec", EVERYWHERE, set()),
    "ConfigMaps": ("configmaps", EVERYWHERE, set()),
    "ServiceAccounts": ("serviceaccounts", EVERYWHERE, set()),
    "tokens": ("serviceaccounts/token", EVERYWHERE, set()),
    "Deployments": ("apps/deployments", EVERYWHERE, set()),
    "Roles": ("rbac.authorization.k8s.io/roles", EVERYWHERE, set()),
    "ClusterRoles": ("rbac.authorization.k8s.io/clusterroles", ("",), set()),
    "nodes": ("nodes", ("",), set()),
    "namespaces": ("namespaces", ("",), set()),
    "Services over all namespaces": ("services", ("",), {"get", "list", "watch", "patch"}),
    "Secrets over all namespaces": ("secrets", ("",), set()),
    "Events by the newer API": ("events.k8s.io/events", EVERYWHERE, set()),
}
QUESTIONS = [
    pytest.param(resource, namespace, verb, verb in verbs, id=f"{verb} {what} ({namespace or '*'})")
    for what, (resource, namespaces, verbs) in ALLOWED.items()
    for namespace in namespaces
    for verb in VERBS
]


@pytest.fixture(scope="module")
def daemon(control_plane: ControlPlane) -> Iterator[Kube]:
    control_plane.helm(
        *("install", "certbaton", CHART, "--namespace", OWN, "--create-namespace"),
    )
    control_plane.create_namespace(ELSEWHERE)
    for namespace in EVERYWHERE:
        control_plane.admin.create(
            f"/api/v1/namespaces/{namespace}/services",
            {
                "metadata": {"name": "web"},
                "spec": {"type": "LoadBalancer", "ports": [{"name": "http", "port": 80}]},
            },
        )
        control_plane.admin.create(
            f"/api/v1/namespaces/{namespace}/secrets", {"metadata": {"name": "mine"}}
        )
    with control_plane.client(control_plane.token(OWN, "certbaton")) as client:
        yield client


@pytest.mark.parametrize(("resource", "namespace", "verb", "expected"), QUESTIONS)
def test_it_may_do_what_it_needs_and_nothing_else(
    daemon: Kube, resource: str, namespace: str, verb: str, expected: bool
) -> None:
    """Each verb by itself, by a SelfSubjectAccessReview."""
    path, _, name = resource.partition("=")
    group, _, kind = (
        path.rpartition("/") if "." in path or path.startswith("apps/") else ("", "", path)
    )
    kind, _, sub = kind.partition("/")
    attributes = {"namespace": namespace, "verb": verb, "group": group, "resource": kind}
    attributes |= {"subresource": sub, "name": "" if verb == "create" else name}
    answer = daemon.create(
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        },
    )
    assert answer["status"]["allowed"] is expected


@pytest.mark.parametrize("namespace", EVERYWHERE)
def test_its_rules_name_no_further_resource(
    control_plane: ControlPlane, daemon: Kube, namespace: str
) -> None:
    """Beside the rules that every ServiceAccount has."""

    def rules(client: Kube) -> set[tuple[str, str]]:
        answer = client.create(
            "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
            {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectRulesReview",
                "spec": {"namespace": namespace},
            },
        )
        return {
            (resource, verb)
            for rule in answer["status"]["resourceRules"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }

    path = f"/api/v1/namespaces/{ELSEWHERE}/serviceaccounts"
    if namespace == OWN:
        control_plane.admin.create(path, {"metadata": {"name": "anybody"}})
    with control_plane.client(control_plane.token(ELSEWHERE, "anybody")) as anybody:
        found = rules(daemon) - rules(anybody)
    expected = {"services", "events", "leases"} | ({"secrets"} if namespace == OWN else set())
    assert {resource for resource, _ in found} == expected


def test_it_patches_a_service_in_any_namespace(daemon: Kube) -> None:
    """By server-side apply, as the daemon does, with its own field manager."""
    for namespace in EVERYWHERE:
        path = f"/api/v1/namespaces/{namespace}/services/web"
        found = daemon.get(path)
        body = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": "web",
                "uid": found["metadata"]["uid"],
                "resourceVersion": found["metadata"]["resourceVersion"],
                "annotations": {"a": "b"},
            },
        }
        answer = daemon.patch(
            path,
            body,
            content_type=APPLY_PATCH,
            fieldManager=f"certbaton/{OWN}/certbaton",
            force=True,
        )
        assert answer["metadata"]["annotations"] == {"a": "b"}


def test_an_apply_never_makes_a_service(daemon: Kube) -> None:
    """For that it would need to create."""
    body = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "new"},
        "spec": {"ports": [{"port": 80}]},
    }
    with pytest.raises(KubeError) as caught:
        daemon.apply(f"/api/v1/namespaces/{ELSEWHERE}/services/new", body, manager="certbaton")
    assert caught.value.status == 403


def test_it_keeps_secrets_in_its_own_namespace(daemon: Kube) -> None:
    """Made, changed, listed and deleted there; not even listed elsewhere."""
    path = f"/api/v1/namespaces/{OWN}/secrets"
    daemon.create(path, {"metadata": {"name": "journal.shop.x"}})
    daemon.patch(f"{path}/journal.shop.x", {"metadata": {"annotations": {"a": "b"}}})
    assert "journal.shop.x" in [item["metadata"]["name"] for item in daemon.list(path)["items"]]
    daemon.delete(f"{path}/journal.shop.x")
    for forbidden in (f"/api/v1/namespaces/{ELSEWHERE}/secrets", "/api/v1/secrets"):
        with pytest.raises(KubeError) as caught:
            daemon.list(forbidden)
        assert caught.value.status == 403
    with pytest.raises(KubeError) as caught:
        daemon.get(f"/api/v1/namespaces/{ELSEWHERE}/secrets/mine")
    assert caught.value.status == 403


def test_it_lists_services_of_all_namespaces_and_deletes_none(daemon: Kube) -> None:
    """What they name decides whether a Secret may go."""
    found = {item["metadata"]["namespace"] for item in daemon.list("/api/v1/services")["items"]}
    assert found >= set(EVERYWHERE)
    with pytest.raises(KubeError) as caught:
        daemon.delete(f"/api/v1/namespaces/{ELSEWHERE}/services/web")
    assert caught.value.status == 403


def test_it_holds_its_lease_and_no_other(daemon: Kube) -> None:
    """The Lease is named as the release."""
    path = f"/apis/coordination.k8s.io/v1/namespaces/{OWN}/leases"
    for name in ("certbaton", "other"):
        daemon.create(path, {"metadata": {"name": name}, "spec": {}})
    for name, allowed in (("certbaton", True), ("other", False)):
        lease = daemon.get(f"{path}/{name}") | {"spec": {"holderIdentity": "a"}}
        if allowed:
            daemon.update(f"{path}/{name}", lease)
            continue
        with pytest.raises(KubeError) as caught:
            daemon.update(f"{path}/{name}", lease)
        assert caught.value.status == 403


def test_it_writes_events_beside_a_service(daemon: Kube) -> None:
    """And nobody else's namespace is closed to them."""
    reference = {"kind": "Service", "namespace": ELSEWHERE, "name": "web", "apiVersion": "v1"}
    event = {
        "metadata": {"name": "web.1"},
        "involvedObject": reference,
        "reason": "Issued",
        "message": "a sentence",
        "type": "Normal",
    }
    path = f"/api/v1/namespaces/{ELSEWHERE}/events"
    daemon.create(path, event)
    daemon.patch(f"{path}/web.1", {"count": 2})
