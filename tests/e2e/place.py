"""A Service of a user's on a real API server, and certbaton's hand on it."""

from __future__ import annotations

import itertools
from typing import Any

import yaml

from certbaton.cluster import Api, Cluster
from certbaton.model import Instance, ObjectRef, ServiceSpec, ServiceState
from certbaton.targets.oci import OciTarget
from lab.world import NAMESPACE, PREFIX, RELEASE, TLS_SECRET, World

Obj = dict[str, Any]

OURS = Instance(RELEASE, NAMESPACE)
HTTP = {"name": "http", "port": 80, "targetPort": 8080}
_numbers = itertools.count(1)


class Place:
    """A Service of the user's, and certbaton's hand."""

    def __init__(self, world: World, api: Api) -> None:
        self.world = world
        self.ref = ObjectRef("shop", f"svc-{next(_numbers)}")
        self.path = f"/api/v1/namespaces/shop/services/{self.ref.name}"
        self.cluster = Cluster(api, OURS, {self.ref})
        self.target = OciTarget()
        self.folder = world.folder / self.ref.name
        self.folder.mkdir()

    # The user.

    def manifest(self, *ports: Obj, **annotations: str) -> Obj:
        """A Service as users write it; underscores in *annotations* are hyphens."""
        noted = {f"{PREFIX}{key.replace('_', '-')}": value for key, value in annotations.items()}
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": self.ref.name,
                "namespace": "shop",
                "labels": {"app": "shop"},
                "annotations": {"example.test/owner": "the shop", **noted},
            },
            "spec": {
                "type": "LoadBalancer",
                "selector": {"app": "shop"},
                "ports": list(ports or (HTTP,)),
            },
        }

    def make(self, *ports: Obj, **annotations: str) -> Obj:
        """Create it."""
        self.world.plane.create_namespace("shop")
        return self.world.plane.admin.create(
            "/api/v1/namespaces/shop/services",
            self.manifest(*ports, **annotations),
            fieldManager="kubectl-create",
        )

    def kubectl(self, *words: str, manifest: Obj | None = None) -> str:
        """Run kubectl, with *manifest* as its file."""
        if manifest is None:
            return self.world.plane.kubectl(*words)
        return self.world.plane.kubectl(*words, "-f", "-", stdin=yaml.safe_dump(manifest))

    # certbaton.

    def look(self) -> ServiceState | None:
        """Read it anew."""
        self.cluster.refresh()
        return self.cluster.services.service(self.ref)

    def write(
        self, state: ServiceState, secret: str, *, ssl_ports: bool = True, https: bool = True
    ) -> ServiceState:
        """Repoint what was read as *state*."""
        spec = ServiceSpec(self.ref, set_ssl_ports=ssl_ports, add_https_port=https)
        body = self.target.body(state, spec, ObjectRef(NAMESPACE, secret))
        return self.cluster.services.apply(self.ref, body, OURS.field_manager)

    def hand_over(self, secret: str, *, ssl_ports: bool = True, https: bool = True) -> None:
        """Read and repoint."""
        state = self.look()
        assert state is not None
        self.write(state, secret, ssl_ports=ssl_ports, https=https)

    # What is there.

    @property
    def now(self) -> Obj:
        """The object."""
        return self.world.plane.admin.get(self.path)

    @property
    def annotations(self) -> dict[str, str]:
        """Its annotations, without those of other controllers."""
        found = dict(self.now["metadata"].get("annotations") or {})
        found.pop("kubectl.kubernetes.io/last-applied-configuration", None)
        return found

    @property
    def ports(self) -> dict[str, tuple[int, str, int | str]]:
        """Number, protocol and targetPort of each port, by name."""
        return {
            port.get("name", ""): (port["port"], port["protocol"], port["targetPort"])
            for port in self.now["spec"]["ports"]
        }

    def named(self, secret: str) -> bool:
        """Whether it names *secret* of ours."""
        return self.annotations.get(TLS_SECRET) == f"{NAMESPACE}/{secret}"
