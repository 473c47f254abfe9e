"""What the chart renders, by helm itself and without a cluster."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from certbaton.config import parse
from certbaton.leaving import LEAVE_AFTER
from certbaton.wellknown import KNOWN_CAS
from chart.conftest import CHART, HTTP01, ROOT, SHOP, Helm, Render

pytestmark = pytest.mark.servers

EXAMPLES = sorted((ROOT / "config" / "examples").glob("*.yaml"))


def container(objects: dict[tuple[str, str], dict[str, Any]]) -> dict[str, Any]:
    spec = pod(objects)["spec"]
    found: dict[str, Any] = spec["containers"][0]
    assert len(spec["containers"]) == 1
    return found


def pod(objects: dict[tuple[str, str], dict[str, Any]]) -> dict[str, Any]:
    (found,) = [item for (kind, _), item in objects.items() if kind == "Deployment"]
    template: dict[str, Any] = found["spec"]["template"]
    return template


def test_helm_lint_has_nothing_to_say(helm: Helm) -> None:
    """Warnings are errors."""
    helm("lint", "--strict", CHART)
    for path in EXAMPLES:
        helm("lint", "--strict", CHART, values={"config": yaml.safe_load(path.read_text())})


def test_the_same_values_give_the_same_text(helm: Helm) -> None:
    """No dates and no dice, or GitOps would never come to rest."""
    values = {"config": {"solvers": HTTP01, "certificates": [SHOP]}}
    first, second = (helm("template", "a", CHART, values=values) for _ in range(2))
    assert first == second


def test_the_defaults_make_these_objects(render: Render) -> None:
    """No CRDs, and no Service without an http-01 solver."""
    assert sorted(render()) == [
        ("ClusterRole", "tls.certbaton"),
        ("ClusterRoleBinding", "tls.certbaton"),
        ("ConfigMap", "certbaton"),
        ("Deployment", "certbaton"),
        ("Role", "certbaton"),
        ("RoleBinding", "certbaton"),
        ("ServiceAccount", "certbaton"),
    ]


def test_an_http01_solver_brings_a_service_and_a_port(render: Render) -> None:
    """Port 80 leads to the port that the solver listens on."""
    objects = render(config={"solvers": {"web": {"type": "http-01", "port": 8888}}})
    service = objects["Service", "certbaton-http01"]
    assert service["spec"]["type"] == "ClusterIP"
    (port,) = service["spec"]["ports"]
    assert port["port"] == 80
    ports = {item["name"]: item["containerPort"] for item in container(objects)["ports"]}
    assert ports == {"health": 8080, port["targetPort"]: 8888}
    assert service["spec"]["selector"].items() <= pod(objects)["metadata"]["labels"].items()


def test_the_container_runs_the_daemon_on_the_mounted_file(render: Render) -> None:
    """Release and namespace come by the environment, which goes before the file."""
    found = container(render("second"))
    assert found["command"] + found["args"] == [
        *("certbaton", "run", "--config", "/etc/certbaton/config.yaml"),
    ]
    environ = {item["name"]: item for item in found["env"]}
    assert environ["CERTBATON_RELEASE"]["value"] == "second"
    reference = environ["CERTBATON_NAMESPACE"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert reference == "metadata.namespace"
    assert found["volumeMounts"][0]["mountPath"] == "/etc/certbaton/config.yaml"


def test_several_replicas_are_spread_and_kept(render: Render) -> None:
    """One at a time goes away, also when nodes are drained; the selector is the Deployment's."""
    objects = render(replicaCount=3, config={"solvers": HTTP01})
    deployment = objects["Deployment", "certbaton"]["spec"]
    assert deployment["replicas"] == 3
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 1}
    budget = objects["PodDisruptionBudget", "certbaton"]["spec"]
    assert budget == {"maxUnavailable": 1, "selector": deployment["selector"]}
    (spread,) = pod(objects)["spec"]["topologySpreadConstraints"]
    assert spread["labelSelector"] == deployment["selector"]
    assert spread["whenUnsatisfiable"] == "ScheduleAnyway"
    service = objects["Service", "certbaton-http01"]["spec"]
    assert service["publishNotReadyAddresses"] is False, "only who has read the cluster can answer"


def test_one_replica_is_replaced_by_one_that_stands_by_already(render: Render) -> None:
    """And needs no budget, which would only keep its node from being drained."""
    objects = render(config={"solvers": HTTP01})
    deployment = objects["Deployment", "certbaton"]["spec"]
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert not [kind for kind, _ in objects if kind == "PodDisruptionBudget"]
    assert "topologySpreadConstraints" not in pod(objects)["spec"]
    assert objects["Service", "certbaton-http01"]["spec"]["publishNotReadyAddresses"] is True


def test_the_spreading_can_be_another(render: Render) -> None:
    wanted = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    objects = render(replicaCount=2, topologySpreadConstraints=[wanted])
    assert pod(objects)["spec"]["topologySpreadConstraints"] == [wanted]


def test_the_probes_follow_the_health_port(render: Render) -> None:
    """And go with it, as nothing then answers."""
    found = container(render(config={"healthPort": 9000}))
    assert found["ports"][0] == {"name": "health", "containerPort": 9000, "protocol": "TCP"}
    assert found["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "health"}
    assert found["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "health"}
    off = container(render(config={"healthPort": 0}))
    assert not {"ports", "livenessProbe", "readinessProbe"} & set(off)


def test_the_token_is_mounted_in_the_pod_alone(render: Render) -> None:
    """Whatever else uses the ServiceAccount gets none."""
    objects = render()
    assert objects["ServiceAccount", "certbaton"]["automountServiceAccountToken"] is False
    assert pod(objects)["spec"]["automountServiceAccountToken"] is True


def test_a_proxy_is_for_the_cas_and_not_for_the_api_server(render: Render) -> None:
    """The kubelet puts the API server's address in; extraEnv comes last, and goes first."""
    proxy = {"url": "http://proxy.example:3128", "noProxy": ".internal.example,10.0.0.0/8"}
    environ = {item["name"]: item for item in container(render(proxy=proxy))["env"]}
    assert environ["HTTPS_PROXY"]["value"] == "http://proxy.example:3128"
    assert environ["NO_PROXY"]["value"] == (
        "$(KUBERNETES_SERVICE_HOST),.internal.example,10.0.0.0/8"
    )
    plain = {item["name"] for item in container(render())["env"]}
    assert not {"HTTPS_PROXY", "NO_PROXY"} & plain
    found = container(render(proxy=proxy, extraEnv=[{"name": "MORE", "value": "1"}]))["env"]
    assert found[-1] == {"name": "MORE", "value": "1"}


@pytest.mark.parametrize("way", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_nor_is_one_with_a_password_which_extra_env_has(render: Render, way: str) -> None:
    """It stands in a Secret; who says NO_PROXY there too means what he says."""
    secret = {"secretKeyRef": {"name": "proxy", "key": "url"}}
    by_hand = [{"name": way, "valueFrom": secret}]
    environ = {item["name"]: item for item in container(render(extraEnv=by_hand))["env"]}
    assert environ["NO_PROXY"]["value"] == "$(KUBERNETES_SERVICE_HOST)"
    own = [*by_hand, {"name": "NO_PROXY", "value": "none.example"}]
    found = [item for item in container(render(extraEnv=own))["env"] if item["name"] == "NO_PROXY"]
    assert found == [{"name": "NO_PROXY", "value": "none.example"}]


def test_ca_bundles_are_files_beside_the_configuration(render: Render) -> None:
    """From Secrets and ConfigMaps, under the names that `caBundle` then has."""
    bundles = {
        "internal.pem": {"secretName": "internal-ca"},
        "lab.pem": {"configMapName": "lab-ca", "key": "roots"},
    }
    objects = render(caBundles=bundles)
    (volume,) = [v for v in pod(objects)["spec"]["volumes"] if v["name"] == "ca-bundles"]
    assert volume["projected"]["sources"] == [
        {"secret": {"name": "internal-ca", "items": [{"key": "ca.crt", "path": "internal.pem"}]}},
        {"configMap": {"name": "lab-ca", "items": [{"key": "roots", "path": "lab.pem"}]}},
    ]
    (mount,) = [m for m in container(objects)["volumeMounts"] if m["name"] == "ca-bundles"]
    assert mount == {"name": "ca-bundles", "mountPath": "/etc/certbaton/ca", "readOnly": True}
    assert "ca-bundles" not in str(render())


def test_the_chart_knows_the_names_of_the_table(render: Render) -> None:
    """Each of them works without a directory."""
    issuers = {name: {"email": "ops@example.com"} for name in KNOWN_CAS}
    text = render(config={"issuers": issuers})["ConfigMap", "certbaton"]["data"]["config.yaml"]
    assert set(parse(text, {}).issuers) == set(KNOWN_CAS)


def test_every_key_of_the_default_file_goes_through_the_chart(render: Render) -> None:
    """What config/default.yaml has, all examples on, the daemon reads from the ConfigMap."""
    lines = (ROOT / "config" / "default.yaml").read_text().splitlines()
    text = "\n".join(
        line if re.match(r"#( \S|$)", line) else line.removeprefix("#") for line in lines
    )
    config = yaml.safe_load(text)
    del config["instance"]
    found = render(config=config)["ConfigMap", "certbaton"]["data"]["config.yaml"]
    assert parse(found, {}).specs() == parse(text, {}).specs()


IMAGES: dict[str, tuple[dict[str, str], str]] = {
    "the defaults": ({}, "certbaton:0.1.0"),
    "a registry": ({"registry": "registry.example/a/"}, "registry.example/a/certbaton:0.1.0"),
    "a tag": ({"repository": "b", "tag": "edge"}, "b:edge"),
    "a digest before a tag": (
        {"tag": "edge", "digest": "sha256:" + "0" * 64},
        "certbaton@sha256:" + "0" * 64,
    ),
}


@pytest.mark.parametrize(("image", "expected"), IMAGES.values(), ids=IMAGES)
def test_the_image_is_put_together(render: Render, image: dict[str, str], expected: str) -> None:
    """From registry, repository, and tag or digest."""
    assert container(render(image=image))["image"] == expected


NAMES: dict[str, tuple[str, dict[str, Any], str]] = {
    "a release named as the chart": ("certbaton", {}, "certbaton"),
    "a release of another name": ("tls", {}, "tls-certbaton"),
    "nameOverride": ("tls", {"nameOverride": "baton"}, "tls-baton"),
    "fullnameOverride": ("tls", {"fullnameOverride": "baton"}, "baton"),
    "the longest release": ("a" * 53, {}, "a" * 53 + "-ce"),
}


@pytest.mark.parametrize(("release", "values", "name"), NAMES.values(), ids=NAMES)
def test_objects_are_named_after_the_release(
    render: Render, release: str, values: dict[str, Any], name: str
) -> None:
    """The Service's name fits its 63 characters too."""
    objects = render(release, config={"solvers": HTTP01}, **values)
    assert ("Deployment", name) in objects
    assert ("ServiceAccount", name) in objects
    assert ("Service", f"{name}-http01") in objects
    assert all(len(found) <= 63 for kind, found in objects if kind == "Service")


def test_a_service_account_can_be_brought_along(render: Render) -> None:
    """It then gets the rights, and none is made."""
    objects = render(serviceAccount={"create": False, "name": "mine"})
    assert not [kind for kind, _ in objects if kind == "ServiceAccount"]
    assert pod(objects)["spec"]["serviceAccountName"] == "mine"
    assert objects["RoleBinding", "certbaton"]["subjects"][0]["name"] == "mine"
    assert objects["ClusterRoleBinding", "tls.certbaton"]["subjects"][0]["name"] == "mine"


def test_rbac_can_be_left_to_others(render: Render) -> None:
    """Nothing of its API group is then made."""
    objects = render(rbac={"create": False})
    assert not [kind for kind, _ in objects if "Role" in kind]


def test_common_labels_are_on_every_object_and_never_in_the_selector(render: Render) -> None:
    """A selector cannot be changed afterwards."""
    objects = render(
        commonLabels={"team": "web", "app.kubernetes.io/name": "other"},
        config={"solvers": HTTP01},
    )
    for key, item in objects.items():
        assert item["metadata"]["labels"]["team"] == "web", key
        assert item["metadata"]["labels"]["app.kubernetes.io/name"] == "certbaton", key
    selector = objects["Deployment", "certbaton"]["spec"]["selector"]["matchLabels"]
    assert selector == {
        "app.kubernetes.io/name": "certbaton",
        "app.kubernetes.io/instance": "certbaton",
    }


def test_the_pod_takes_the_usual_extras(render: Render) -> None:
    """Each value ends where Kubernetes has it."""
    volume = {"name": "tsig", "secret": {"secretName": "tsig"}}
    mount = {"name": "tsig", "mountPath": "/tsig", "readOnly": True}
    affinity: dict[str, Any] = {"nodeAffinity": {}}
    objects = render(
        extraEnv=[{"name": "HTTPS_PROXY", "value": "http://proxy.example:3128"}],
        extraEnvFrom=[{"secretRef": {"name": "more"}}],
        extraVolumes=[volume],
        extraVolumeMounts=[mount],
        podAnnotations={"a": "b"},
        podLabels={"c": "d", "app.kubernetes.io/name": "never"},
        nodeSelector={"disk": "fast"},
        tolerations=[{"key": "infra", "operator": "Exists"}],
        affinity=affinity,
        priorityClassName="high",
        imagePullSecrets=[{"name": "pull"}],
        serviceAccount={"annotations": {"e": "f"}},
        terminationGracePeriodSeconds=40,
    )
    template, found = pod(objects), container(objects)
    assert {"name": "HTTPS_PROXY", "value": "http://proxy.example:3128"} in found["env"]
    assert found["envFrom"] == [{"secretRef": {"name": "more"}}]
    assert volume in template["spec"]["volumes"]
    assert mount in found["volumeMounts"]
    assert template["metadata"]["annotations"]["a"] == "b"
    assert template["metadata"]["labels"]["c"] == "d"
    assert template["metadata"]["labels"]["app.kubernetes.io/name"] == "certbaton"
    spec = template["spec"]
    assert spec["nodeSelector"] == {"disk": "fast"}
    assert spec["tolerations"] == [{"key": "infra", "operator": "Exists"}]
    assert spec["affinity"] == affinity
    assert spec["priorityClassName"] == "high"
    assert spec["imagePullSecrets"] == [{"name": "pull"}]
    assert spec["terminationGracePeriodSeconds"] == 40
    assert objects["ServiceAccount", "certbaton"]["metadata"]["annotations"] == {"e": "f"}


def test_a_pod_is_given_twice_the_time_that_the_daemon_takes_to_leave(render: Render) -> None:
    """What the daemon does not use is for the kubelet, and for a node that is busy."""
    given = pod(render())["spec"]["terminationGracePeriodSeconds"]
    assert given >= 2 * LEAVE_AFTER.total_seconds()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_config_map_holds_the_values(render: Render, path: Any) -> None:
    """What the daemon reads is what was written, with the chart's issuers beside it."""
    written = yaml.safe_load(path.read_text())
    objects = render(config=written)
    text = objects["ConfigMap", "certbaton"]["data"]["config.yaml"]
    read = yaml.safe_load(text)
    issuers = yaml.safe_load((CHART / "values.yaml").read_text())["config"]["issuers"]
    assert read == written | {"issuers": issuers | written["issuers"]}
    assert parse(text, {}).specs() == parse(path.read_text(), {}).specs()


def test_numbers_survive_the_way_through_helm(render: Render) -> None:
    """Helm reads numbers as floats, and writes large ones as 1e+06."""
    config = {"policy": {"orderLimit": 1000, "late": 0.1667}, "workers": 64, "healthPort": 65535}
    text = render(config=config)["ConfigMap", "certbaton"]["data"]["config.yaml"]
    parsed = parse(text, {})
    assert (parsed.policy.order_limit, parsed.policy.late) == (1000, 0.1667)
    assert (parsed.workers, parsed.health_port) == (64, 65535)
