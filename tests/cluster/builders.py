"""Things to put into a cluster; a test names only what matters to it."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

from certbaton.cluster.contract import Obj
from certbaton.cluster.services import SSL_PORTS, TLS_SECRET
from certbaton.cluster.store import Store
from certbaton.model import (
    Instance,
    Journal,
    KeyType,
    ObjectRef,
    PendingOrder,
    SecretVersion,
    ServiceState,
)
from certbaton.pki import PrivateKey
from fakes.kube import FakeApi
from fakes.x509 import hierarchy

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
INSTANCE = Instance("prod", "certbaton")
DIRECTORY = "https://ca.example/dir"
ACCOUNT_URL = "https://ca.example/acct/1"
SHOP = ObjectRef("shop", "shop")


def key() -> PrivateKey:
    """A new key, quickly made."""
    return PrivateKey.generate(KeyType.EC_P256)


def chain(
    of: PrivateKey, *, begins: datetime = NOW, names: tuple[str, ...] = ("a.example",)
) -> str:
    """A leaf for that key, and the intermediate."""
    return hierarchy().sign(of.unwrapped.public_key(), names, begins, begins + timedelta(days=90))


def stored(store: Store, certificate: str = "shop", *, begins: datetime = NOW) -> SecretVersion:
    """A version that lies in the cluster."""
    new = key()
    return store.create_version(
        certificate,
        chain(new, begins=begins),
        new,
        directory=DIRECTORY,
        account_url=ACCOUNT_URL,
        certificate_url="https://ca.example/cert/1",
    )


def pending(of: PrivateKey) -> Journal:
    """A Journal with an order that was begun."""
    return Journal(
        pending=PendingOrder(
            directory=DIRECTORY,
            account_url=ACCOUNT_URL,
            names=("a.example",),
            key_type="P-256",
            public_key_sha256=of.public_key_sha256,
            reason="DoesNotExist",
            staged_at=NOW,
        )
    )


def service(ref: ObjectRef = SHOP, *ports: Obj, **annotations: str) -> Obj:
    """A Service of type LoadBalancer; annotations by short name (tls_secret, backendset)."""
    prefix = "service.beta.kubernetes.io/oci-load-balancer-"
    full = {"tls_secret": TLS_SECRET, "backendset": f"{prefix}tls-backendset-secret"}
    http = {"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": ref.name,
            "namespace": ref.namespace,
            "annotations": {full.get(name, name): value for name, value in annotations.items()},
        },
        "spec": {"type": "LoadBalancer", "ports": list(ports) or [http]},
    }


def apply_body(state: ServiceState, secret: str) -> Obj:
    """What makes a Service name *secret*."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": state.ref.name,
            "namespace": state.ref.namespace,
            "uid": state.uid,
            "resourceVersion": state.resource_version,
            "annotations": {TLS_SECRET: secret, SSL_PORTS: "443"},
        },
        "spec": {"ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 8080}]},
    }


def reader(api: FakeApi, instance: Instance = INSTANCE) -> Store:
    """Another process's view of the same cluster, as of now."""
    store = Store(api.client("reader"), instance)
    store.cache.relist()
    return store


def b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
