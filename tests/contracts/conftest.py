"""The two API servers that the contract is checked on."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from certbaton.cluster.contract import Kind, KubeApi, Obj
from certbaton.model import ObjectRef
from fakes.kube import FakeApi
from lab.controlplane import ControlPlane

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Server:
    """
    An API server with an empty namespace *namespace*.

    *other* is somebody else there (field manager ``kubectl``), *pages_of*
    makes lists come in pages of so many, *forget_the_past* leaves nothing to go on
    from for a watch (the real one does so by a restart).
    """

    api: KubeApi
    other: KubeApi
    namespace: str
    set_status: Callable[[ObjectRef, Obj], None]
    pages_of: Callable[[int], KubeApi]
    forget_the_past: Callable[[], None]

    def ref(self, name: str) -> ObjectRef:
        """A name in this namespace."""
        return ObjectRef(self.namespace, name)


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """A real API server for the whole run."""
    with ControlPlane() as plane:
        yield plane


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.servers)])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """The same contract on both."""
    namespace = f"contract-{next(_numbers)}"
    if request.param == "fake":
        fake = FakeApi()
        yield Server(
            fake,
            fake.client("kubectl"),
            namespace,
            lambda ref, status: void(fake.set_status(Kind.SERVICE, ref, status)),
            lambda size: FakeApi(page=size, world=fake._world),
            fake.compact,
        )
        return
    from certbaton.cluster import api as module

    plane: ControlPlane = request.getfixturevalue("control_plane")
    monkeypatch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    plane.create_namespace(namespace)
    api = module.Api.connect(str(plane.kubeconfig_admin))
    other = module.Api.connect(str(plane.kubeconfig_admin), user_agent="kubectl")

    def pages_of(size: int) -> KubeApi:
        monkeypatch.setattr(module, "PAGE", size)
        return api

    def set_status(ref: ObjectRef, status: Obj) -> None:
        path = f"/api/v1/namespaces/{ref.namespace}/services/{ref.name}/status"
        plane.admin.patch(path, {"status": status})

    yield Server(api, other, namespace, set_status, pages_of, plane.restart_apiserver)
    api.close()
    other.close()


def void(_: object) -> None:
    """Take an answer that nobody needs."""
