"""The cluster as a whole, and what it costs to have it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from certbaton.cluster import Cluster
from certbaton.cluster.answers import Asked
from certbaton.cluster.contract import Kind
from certbaton.errors import ClusterUnavailable
from certbaton.model import Journal, ObjectRef, Proof
from cluster.builders import INSTANCE, NOW, SHOP, apply_body, key, pending, service, stored
from fakes.kube import FakeApi


@pytest.fixture
def cluster(api: FakeApi) -> Cluster:
    return Cluster(api, INSTANCE, [SHOP], now=lambda: NOW)


def settle(cluster: Cluster) -> None:
    deadline = time.monotonic() + 10
    while cluster.problems():
        assert time.monotonic() < deadline, cluster.problems()
        threading.Event().wait(0.002)


def test_nothing_is_complete_before_it_was_listed(api: FakeApi, cluster: Cluster) -> None:
    """One sentence for each collection until then."""
    assert not cluster.complete
    assert len(cluster.problems()) == 3
    cluster.refresh()
    assert cluster.complete
    assert cluster.problems() == ()
    assert [asked.verb for asked in api.requests] == ["list"] * 3


def test_what_cannot_be_listed_is_told_and_the_rest_goes_on(api: FakeApi, cluster: Cluster) -> None:
    """Without Services nothing is complete; without Events everything that counts is."""
    broken = {Kind.SERVICE}

    def outage(asked: Asked) -> None:
        if asked.kind in broken:
            raise ClusterUnavailable("no route")

    api.before = outage
    cluster.refresh()
    assert not cluster.complete
    assert cluster.problems() == ("Services in all namespaces: no route",)
    broken.clear()
    broken.add(Kind.EVENT)
    cluster.refresh()
    assert cluster.complete
    assert cluster.problems() == ("Events in all namespaces: no route",)


def test_a_broken_record_leaves_the_rest_complete(api: FakeApi, cluster: Cluster) -> None:
    """One certificate's trouble is not the others'."""
    cluster.refresh()
    cluster.store.save_journal("shop", Journal())
    ref = ObjectRef("certbaton", "journal.shop.prod.certbaton")
    api.merge(Kind.SECRET, ref, {"data": {"journal": None}})
    cluster.refresh()
    assert cluster.complete
    assert len(cluster.problems()) == 1


def test_watches_bring_a_wake_and_cost_nothing_more(api: FakeApi, cluster: Cluster) -> None:
    """Three lists and three watches; then only what others do wakes us."""
    woken = threading.Event()
    cluster.start(woken.set)
    settle(cluster)
    woken.clear()
    user = api.client("kubectl")
    user.create(Kind.SERVICE, "shop", service())
    assert woken.wait(10)
    assert cluster.services.service(SHOP) is not None
    deadline = time.monotonic() + 10
    while len(api.requests) < 6 and time.monotonic() < deadline:
        threading.Event().wait(0.002)
    cluster.stop()
    assert sorted(asked.verb for asked in api.requests) == ["list"] * 3 + ["watch"] * 3


def test_a_rollover_takes_seven_writes_and_no_read(api: FakeApi, cluster: Cluster) -> None:
    """Answers to our own writes are known at once, so that nothing is read in between."""
    api.client("kubectl").create(Kind.SERVICE, "shop", service())
    cluster.refresh()
    api.requests.clear()
    new = key()
    journal = cluster.store.save_journal("shop", pending(new), key=new, csr="CSR")
    journal = cluster.store.save_journal("shop", journal, keep_key=True)  # the order's URL
    version = stored(cluster.store)
    cluster.store.save_journal("shop", Journal(journal.resource_version))
    state = cluster.services.service(SHOP)
    assert state is not None
    cluster.services.apply(SHOP, apply_body(state, str(version.ref)), INSTANCE.field_manager)
    cluster.store.annotate(version, served={str(SHOP): Proof(NOW, "wire")})
    cluster.events.publish(SHOP, state.uid, state.resource_version, "Normal", "Served", "x")
    assert [(asked.verb, str(asked.kind)) for asked in api.requests] == [
        ("create", "Secret"),
        ("merge", "Secret"),
        ("create", "Secret"),
        ("merge", "Secret"),
        ("apply", "Service"),
        ("merge", "Secret"),
        ("create", "Event"),
    ]


def test_collecting_takes_two_writes_and_the_list(api: FakeApi, cluster: Cluster) -> None:
    """Mark, look at all Services live, sweep."""
    cluster.refresh()
    version = stored(cluster.store)
    api.requests.clear()
    version = cluster.store.annotate(version, marked_at=NOW)
    assert version.ref not in cluster.services.references_live()
    cluster.store.delete_version(version)
    assert [asked.verb for asked in api.requests] == ["merge", "list", "delete"]


IMPORT = """
import sys
import certbaton.cluster
assert not any(name.split(".")[0] == "kubernetes" for name in sys.modules)
from certbaton.cluster import Api
Api.connect(sys.argv[1]).close()
print([n for n in sys.modules if n.startswith(("kubernetes.client.models.",
                                               "kubernetes.client.api."))])
"""

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: c
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: u, user: {token: t}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
"""


def test_the_generated_models_are_never_imported(tmp_path: Path) -> None:
    """Nor the client at all before it is asked for."""
    config = tmp_path / "kubeconfig"
    config.write_text(KUBECONFIG)
    done = subprocess.run(
        [sys.executable, "-c", IMPORT, str(config)], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_only_this_package_imports_kubernetes() -> None:
    """And within it only what talks to the server, and what finds it."""
    package = Path(__file__).parents[2] / "daemon" / "certbaton"
    found = [
        str(file.relative_to(package))
        for file in package.rglob("*.py")
        for line in file.read_text().splitlines()
        if line.strip().startswith(("import kubernetes", "from kubernetes"))
    ]
    assert set(found) == {"cluster/api.py", "cluster/connecting.py"}
