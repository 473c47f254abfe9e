"""
Whatever lies in the cluster: a sentence each, never a traceback, and the others go on.

One certificate's Service and Secrets are as odd as anybody can make them; another certificate,
on a Service of its own, has to be obtained and served all the same.
"""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from certbaton.cluster import Kind
from certbaton.cluster.services import BACKENDSET_SECRET, SSL_PORTS, TLS_SECRET
from certbaton.errors import CertbatonError
from certbaton.model import ObjectRef
from certbaton.targets.oci import BACKEND_PROTOCOL, LISTENER_SSL, LOAD_BALANCER_TYPE
from loop.world import World, a_spec

ODD, GOOD = a_spec("odd", "odd"), a_spec("good", "good")
LABELS = {
    "certbaton.io/instance": "certbaton.certbaton",
    "certbaton.io/certificate": "odd",
}

text = st.text(max_size=60) | st.sampled_from(
    ["", " ", "/", "a/b/c", "\x00", "\u202e", "x" * 200_000]
)
notes_of_services = st.dictionaries(
    st.sampled_from(
        [
            TLS_SECRET,
            SSL_PORTS,
            BACKENDSET_SECRET,
            LISTENER_SSL,
            LOAD_BALANCER_TYPE,
            BACKEND_PROTOCOL,
            "oci.oraclecloud.com/ingress-ip-mode",
            "certbaton.io/paused",
        ]
    ),
    text | st.sampled_from(["443", "nlb", "[" * 5000, "{}", '{"CipherSuiteName": 7}', "1e999"]),
    max_size=5,
)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | text
junk: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)
blobs = st.binary(max_size=300) | junk.map(lambda value: json.dumps(value).encode())
keys = st.sampled_from(["journal", "account", "tls.crt", "tls.key", "csr", "ca.crt", "other"])


def secret(name: str, kind: str, data: dict[str, bytes], notes: dict[str, str]) -> dict[str, Any]:
    return {
        "type": "Opaque",
        "metadata": {
            "name": name,
            "namespace": "certbaton",
            "labels": {**LABELS, "certbaton.io/kind": kind},
            "annotations": notes,
        },
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
    }


def settle(world: World) -> list[str]:
    """Let both certificates have their turns; what was told of trouble."""
    process = world.process(ODD, GOOD)
    told: list[str] = []
    for _ in range(4):
        for name in ("odd", "good"):
            report = process.turn(name)
            told += report.failed
        world.now = world.now.replace(microsecond=0)
        world._sleep(30)
    return told


@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    notes=notes_of_services,
    kind=st.sampled_from(["version", "journal", "account", "nonsense", ""]),
    data=st.dictionaries(keys, blobs, max_size=4),
    marks=st.dictionaries(
        st.sampled_from(
            [
                "certbaton.io/served",
                "certbaton.io/rejected",
                "certbaton.io/marked-for-deletion",
                "certbaton.io/directory",
            ]
        ),
        text | junk.map(json.dumps),
        max_size=3,
    ),
    name=st.sampled_from(
        ["odd-20270301-0123456789", "journal.odd.certbaton.certbaton", "odd", "zzz"]
    ),
    service_type=st.sampled_from(["LoadBalancer", "ClusterIP", "NodePort"]),
    load_balancer_class=st.none() | st.sampled_from(["example.com/other"]),
)
def test_odd_objects_give_sentences_and_hold_nobody_up(
    notes: dict[str, str],
    kind: str,
    data: dict[str, bytes],
    marks: dict[str, str],
    name: str,
    service_type: str,
    load_balancer_class: str | None,
) -> None:
    """Annotations of 200 kB, broken records and PEM, wrong types, odd names."""
    world = World(ODD, GOOD)
    spec: dict[str, Any] = {"type": service_type}
    if load_balancer_class and service_type == "LoadBalancer":
        spec["loadBalancerClass"] = load_balancer_class
    body = {"metadata": {"annotations": notes}, "spec": spec}
    with contextlib.suppress(CertbatonError):  # the API server would not have it either
        world.api.merge(Kind.SERVICE, ObjectRef("shop", "odd"), body)
    with contextlib.suppress(CertbatonError):
        world.api.create(Kind.SECRET, "certbaton", secret(name, kind, data, marks))
    told = settle(world)
    assert world.named("good") is not None
    for sentence in told:
        assert "unexpected" not in sentence, sentence
        assert len(sentence) < 3000


@pytest.mark.parametrize("count", [2000])
def test_thousands_of_foreign_secrets_and_services_change_nothing(count: int) -> None:
    """What is not ours by label is not even kept."""
    world = World(GOOD)
    for number in range(count):
        world.api.create(
            Kind.SECRET,
            "certbaton",
            {
                "type": "kubernetes.io/tls",
                "metadata": {"name": f"good-20270301-{number:010x}", "namespace": "certbaton"},
                "data": {"tls.crt": "", "tls.key": ""},
            },
        )
    before = set(world.api.all(Kind.SECRET))
    process = world.process()
    report = process.turn("good")
    assert report.failed == []
    assert world.named("good") is not None
    assert before <= set(world.api.all(Kind.SECRET)), "nothing foreign was touched"
    assert len(process.cluster.store.cache.items()) < 10
