"""Objects for the contract suites."""

from __future__ import annotations

import base64

from certbaton.cluster.contract import Obj, uid_of, version_of
from certbaton.cluster.services import SSL_PORTS, TLS_SECRET

MANAGER = "certbaton/certbaton/prod"


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def secret(name: str, **more: object) -> Obj:
    body: Obj = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": {"team": "a"}},
        "data": {"word": b64("hello")},
    }
    return body | more


def service(name: str, *ports: Obj, **metadata: object) -> Obj:
    http = {"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name} | metadata,
        "spec": {
            "type": "LoadBalancer",
            "selector": {"app": "shop"},
            "ports": list(ports) or [http],
        },
    }


def apply_body(there: Obj, *, secret_name: str = "shop-1", https: bool = True) -> Obj:
    body: Obj = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": there["metadata"]["name"],
            "namespace": there["metadata"]["namespace"],
            "uid": uid_of(there),
            "resourceVersion": version_of(there),
            "annotations": {TLS_SECRET: secret_name, SSL_PORTS: "443"},
        },
    }
    if https:
        port = {"name": "https", "port": 443, "protocol": "TCP", "targetPort": 8080}
        body["spec"] = {"ports": [port]}
    return body


def ports_of(obj: Obj) -> set[tuple[str | None, int, str]]:
    return {(p.get("name"), p["port"], p["protocol"]) for p in obj["spec"]["ports"]}
