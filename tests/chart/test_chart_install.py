"""The chart on a real API server: installed, upgraded and taken away by helm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from certbaton.config import parse
from chart.conftest import CHART, ROOT
from lab.controlplane import ControlPlane
from lab.kube import KubeError
from lab.process import LabError

pytestmark = pytest.mark.servers

EXAMPLES = sorted((ROOT / "config" / "examples").glob("*.yaml"))


def install(plane: ControlPlane, namespace: str, values: object, verb: str = "install") -> str:
    return plane.helm(
        *(verb, "certbaton", CHART, "--namespace", namespace, "--create-namespace"),
        *("--values", "-"),
        stdin=yaml.safe_dump(values),
    )


def deployment(plane: ControlPlane, namespace: str) -> dict[str, Any]:
    return plane.admin.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/certbaton")


def config_map(plane: ControlPlane, namespace: str) -> str:
    found = plane.admin.get(f"/api/v1/namespaces/{namespace}/configmaps/certbaton")
    text: str = found["data"]["config.yaml"]
    return text


def test_it_installs_with_its_defaults_and_says_that_there_is_nothing_to_do(
    control_plane: ControlPlane,
) -> None:
    """The notes name the next commands, and warn of what is missing."""
    notes = install(control_plane, "defaults", {})
    spec = deployment(control_plane, "defaults")["spec"]
    assert spec["replicas"] == 1
    assert spec["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
    }
    assert "kubectl -n defaults rollout status deployment/certbaton" in notes
    assert "WARNING: no certificate is configured" in notes
    assert "WARNING: image.registry is not set" in notes
    assert "staging" not in notes
    assert parse(config_map(control_plane, "defaults"), {}).specs() == ()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_it_installs_with_each_example(control_plane: ControlPlane, path: Path) -> None:
    """And the daemon's own parser reads from the cluster what the example says."""
    namespace = f"example-{path.stem}"
    notes = install(control_plane, namespace, {"config": yaml.safe_load(path.read_text())})
    read = parse(config_map(control_plane, namespace), {})
    assert read.specs() == parse(path.read_text(), {}).specs()
    solvers = {solver.type for solver in read.solvers.values()}
    services = control_plane.admin.list(f"/api/v1/namespaces/{namespace}/services")["items"]
    assert [item["metadata"]["name"] for item in services] == (
        ["certbaton-http01"] if "http-01" in solvers else []
    )
    assert ("http://certbaton-http01" in notes) == ("http-01" in solvers)
    assert "no certificate is configured" not in notes


def test_the_notes_warn_of_a_staging_ca(control_plane: ControlPlane) -> None:
    """With the name of the certificate that no browser will trust."""
    config = yaml.safe_load(EXAMPLES[-1].read_text())
    config["certificates"][0]["issuer"] = "letsencrypt-staging"
    notes = install(
        control_plane, "staging", {"config": config, "image": {"registry": "r.example"}}
    )
    assert "WARNING: certificate shop may come from a staging CA (letsencrypt-staging)" in notes
    assert "image.registry" not in notes


def test_a_typo_fails_the_install_and_leaves_nothing(control_plane: ControlPlane) -> None:
    """Not even a release."""
    with pytest.raises(LabError, match="additional properties 'dnsName' not allowed"):
        install(control_plane, "typo", {"config": {"certificates": [{"dnsName": []}]}})
    with pytest.raises(KubeError, match="NotFound"):
        deployment(control_plane, "typo")


def test_another_configuration_is_another_pod(control_plane: ControlPlane) -> None:
    """The daemon reads its file when it starts, so the pod's template changes with it."""

    def checksum() -> str:
        template = deployment(control_plane, "upgrade")["spec"]["template"]
        found: str = template["metadata"]["annotations"]["checksum/config"]
        return found

    install(control_plane, "upgrade", {})
    first = checksum()
    install(control_plane, "upgrade", {}, "upgrade")
    assert checksum() == first
    install(control_plane, "upgrade", {"config": {"logLevel": "debug"}}, "upgrade")
    assert checksum() != first
    assert parse(config_map(control_plane, "upgrade"), {}).log_level == "debug"


def test_two_releases_of_one_name_live_side_by_side(control_plane: ControlPlane) -> None:
    """In two namespaces; what is cluster-wide carries the namespace in its name."""
    install(control_plane, "north", {})
    install(control_plane, "south", {})
    for namespace in ("north", "south"):
        path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
        binding = control_plane.admin.get(f"{path}/{namespace}.certbaton")
        assert binding["subjects"][0]["namespace"] == namespace


def test_the_pod_passes_the_restricted_pod_security_standard(control_plane: ControlPlane) -> None:
    """Asked of the API server's own admission, which refuses the same pod run as root."""
    install(control_plane, "restricted", {})
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    control_plane.admin.patch("/api/v1/namespaces/restricted", {"metadata": {"labels": labels}})
    spec = deployment(control_plane, "restricted")["spec"]["template"]["spec"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec}
    path = "/api/v1/namespaces/restricted/pods"
    created = control_plane.admin.create(path, pod)
    assert created["spec"]["securityContext"]["runAsUser"] == 65532
    assert created["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    spec["securityContext"]["runAsNonRoot"] = False
    with pytest.raises(KubeError, match="violates PodSecurity"):
        control_plane.admin.create(path, {**pod, "metadata": {"name": "b"}})


def test_taking_it_away_leaves_the_certificates(control_plane: ControlPlane) -> None:
    """Services go on naming Secrets that certbaton made, so helm must not know these."""
    install(control_plane, "gone", {})
    secrets = "/api/v1/namespaces/gone/secrets"
    control_plane.admin.create(
        secrets,
        {"metadata": {"name": "shop-20261124-0123456789"}, "type": "Opaque", "data": {}},
    )
    control_plane.helm("uninstall", "certbaton", "--namespace", "gone")
    left = [item["metadata"]["name"] for item in control_plane.admin.list(secrets)["items"]]
    assert left == ["shop-20261124-0123456789"]
    with pytest.raises(KubeError, match="NotFound"):
        deployment(control_plane, "gone")
    with pytest.raises(KubeError, match="NotFound"):
        control_plane.admin.get("/apis/rbac.authorization.k8s.io/v1/clusterroles/gone.certbaton")


def test_several_replicas_install_and_may_be_fewer_again(control_plane: ControlPlane) -> None:
    """The API server takes the budget and the spreading, and an upgrade takes them away."""
    path = "/apis/policy/v1/namespaces/several/poddisruptionbudgets"
    for verb, replicas in (("install", 3), ("upgrade", 1)):
        install(control_plane, "several", {"replicaCount": replicas}, verb)
        spec = deployment(control_plane, "several")["spec"]
        assert spec["replicas"] == replicas
        budgets = control_plane.admin.list(path)["items"]
        assert [item["spec"]["maxUnavailable"] for item in budgets] == [1] * (replicas > 1)
        assert ("topologySpreadConstraints" in spec["template"]["spec"]) == (replicas > 1)
