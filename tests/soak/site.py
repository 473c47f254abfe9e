"""What the soak runs on: certificates, their Services, and what users wrote on those."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any

from lab.chaos import ChaosWorld
from lab.oci import Faults
from lab.world import SSL_PORTS, TLS_SECRET

Obj = dict[str, Any]
Ref = tuple[str, str]

LIFETIME_S = 160
POLL_S = 0.5
# Certificate → solver and Services. The second's Services share it, in two namespaces.
CERTIFICATES: dict[str, tuple[str, list[Ref]]] = {
    "solo": ("http", [("alpha", "solo")]),
    "duo": ("http", [("alpha", "duo-front"), ("beta", "duo-shop")]),
    "wild": ("dns", [("beta", "wild")]),
    "deep": ("dns", [("gamma", "deep")]),
}
# From here a pod's probe meets the pods, as kube-proxy has it; the others have the mode that
# leads it out of the cluster.
INSIDE: frozenset[Ref] = frozenset({("gamma", "deep")})
OUTSIDE_MODE = {"oci.oraclecloud.com/ingress-ip-mode": "proxy"}
IN_A_POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
THEIRS = {
    "example.test/owner": "the shop",
    "service.beta.kubernetes.io/oci-load-balancer-shape": "flexible",
}
PORTS = [
    {"name": "http", "port": 80, "targetPort": 8080},
    {"name": "metrics", "port": 9100, "targetPort": "metrics"},
]
SERVICES: list[Ref] = [ref for _, refs in CERTIFICATES.values() for ref in refs]
# Those of the same certificate, itself included.
SIBLINGS: dict[str, frozenset[str]] = {
    "/".join(ref): frozenset("/".join(one) for one in refs)
    for _, refs in CERTIFICATES.values()
    for ref in refs
}
OF: dict[Ref, str] = {ref: name for name, (_, refs) in CERTIFICATES.items() for ref in refs}


def build(stack: ExitStack, seed: int, **more: Any) -> ChaosWorld:
    """Everything but the daemon, up and configured."""
    world = stack.enter_context(
        ChaosWorld(
            seed=seed,
            lifetime=LIFETIME_S,
            poll_interval=POLL_S,
            interruption=0.2,
            dns=True,
            workers=3,
            faults=Faults(publish_inside=True),
            pebble={"nonce_reject": 10},
            **more,
        )
    )
    entries = []
    for name, (solver, refs) in CERTIFICATES.items():
        for namespace, service in refs:
            mode = {} if (namespace, service) in INSIDE else OUTSIDE_MODE
            world.add_service(namespace, service, annotations={**THEIRS, **mode}, ports=PORTS)
        names = [f"{name}.example.test"]
        world.set_a(names[0], world.address_of(*refs[0]))
        if solver == "dns":
            names.append(f"*.{name}.example.test")
        entries.append(world.certificate(name, names, refs, solver=solver))
    world.install(world.configuration(*entries))
    return world


def foreign(service: Obj) -> str:
    """All that is others' on a Service, to be compared."""
    meta, spec = service["metadata"], dict(service["spec"])
    noted = meta.get("annotations") or {}
    ports = [
        {key: value for key, value in port.items() if key != "nodePort"}
        for port in spec.pop("ports")
        if port["port"] != 443
    ]
    return json.dumps(
        {
            "annotations": {k: v for k, v in noted.items() if k not in (TLS_SECRET, SSL_PORTS)},
            "labels": meta.get("labels"),
            "uid": meta["uid"],
            "ports": ports,
            "spec": spec,
        },
        sort_keys=True,
    )
