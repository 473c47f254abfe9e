"""Services: references in every dialect, states, and the one write."""

from __future__ import annotations

import pytest

from certbaton.cluster.contract import Kind, Obj, uid_of, version_of
from certbaton.cluster.services import SSL_PORTS, TLS_SECRET, Services, owned_fields, reference
from certbaton.errors import Conflict, ObjectGone
from certbaton.model import Address, ObjectRef, ServicePort
from cluster.builders import INSTANCE, NOW, SHOP, apply_body, service
from fakes.kube import FakeApi

MANAGER = INSTANCE.field_manager


@pytest.fixture
def user(api: FakeApi) -> FakeApi:
    return api.client("kubectl")


@pytest.fixture
def services(api: FakeApi) -> Services:
    return Services(api, [SHOP], MANAGER)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("one", "ns/one"),
        ("a/one", "a/one"),
        ("a/b/c", "a/b"),
        ("a/b/", "a/b"),
        ("", None),
        (None, None),
        ("/", None),
        ("a/", None),
        ("/b", None),
        ("/b/c", None),
        (" one", "ns/ one"),
        ("a/one ", "a/one "),
    ],
)
def test_a_reference_is_read_as_oracles_controller_does(
    value: str | None, expected: str | None
) -> None:
    """Split at slashes, two parts count, nothing is trimmed."""
    found = reference(value, "ns")
    assert (str(found) if found else None) == expected


def test_references_of_every_service_count(user: FakeApi, services: Services) -> None:
    """Both annotations, all namespaces, targets or not, LoadBalancer or not."""
    user.create(Kind.SERVICE, "shop", service(SHOP, tls_secret="certbaton/one"))
    user.create(
        Kind.SERVICE, "b", service(ObjectRef("b", "x"), tls_secret="two", backendset="c/three/d")
    )
    plain = service(ObjectRef("d", "y"), backendset="four")
    plain["spec"]["type"] = "ClusterIP"
    user.create(Kind.SERVICE, "d", plain)
    user.create(Kind.SERVICE, "e", service(ObjectRef("e", "z")))
    services.cache.relist()
    assert {str(ref) for ref in services.references()} == {
        "certbaton/one",
        "b/two",
        "c/three",
        "d/four",
    }


def test_of_other_services_only_references_are_kept(user: FakeApi, services: Services) -> None:
    """Thousands of Services must not fill the memory."""
    user.create(Kind.SERVICE, "b", service(ObjectRef("b", "x"), tls_secret="two"))
    user.create(Kind.SERVICE, "b", service(ObjectRef("b", "y")))
    services.cache.relist()
    (record,) = services.cache.items().values()
    assert record.state is None
    assert services.service(ObjectRef("b", "x")) is None


def test_a_live_look_at_references_sees_what_the_cache_has_not_heard(
    api: FakeApi, user: FakeApi, services: Services
) -> None:
    """One request for each page."""
    services.cache.relist()
    user.create(Kind.SERVICE, "b", service(ObjectRef("b", "x"), tls_secret="two"))
    assert services.references() == frozenset()
    api.requests.clear()
    assert services.references_live() == {ObjectRef("b", "two")}
    assert [asked.verb for asked in api.requests] == ["list"]
    made = user.read(Kind.SERVICE, ObjectRef("b", "x"))
    user.delete(Kind.SERVICE, ObjectRef("b", "x"), uid_of(made), version_of(made))
    assert services.references_live() == frozenset()


def test_a_target_is_read_in_full(user: FakeApi, services: Services) -> None:
    """What targets, probe and core need; nothing of kubectl's last-applied copy."""
    udp = {"port": 53, "protocol": "UDP", "targetPort": "dns", "name": "dns"}
    http = {"port": 80, "name": "http", "protocol": "TCP", "targetPort": 8080}
    body = service(SHOP, http, udp, tls_secret="one")
    body["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] = "{}"
    body["metadata"]["annotations"]["oci.oraclecloud.com/load-balancer-type"] = "lb"
    body["spec"]["loadBalancerClass"] = "x/y"
    user.create(Kind.SERVICE, "shop", body)
    user.set_status(
        Kind.SERVICE,
        SHOP,
        {
            "loadBalancer": {
                "ingress": [{"ip": "192.0.2.1", "ipMode": "Proxy"}, {"hostname": "lb.example"}]
            }
        },
    )
    services.cache.relist()
    state = services.service(SHOP)
    assert state is not None
    assert state.type == "LoadBalancer"
    assert state.load_balancer_class == "x/y"
    assert state.annotations == {
        TLS_SECRET: "one",
        "oci.oraclecloud.com/load-balancer-type": "lb",
    }
    assert state.ports == (
        ServicePort("http", 80, "TCP", 8080),
        ServicePort("dns", 53, "UDP", "dns"),
    )
    assert state.addresses == (Address("192.0.2.1", "Proxy"), Address("lb.example"))
    assert state.reference == ObjectRef("shop", "one")
    assert state.owned.tls_secret_manager == "kubectl"
    assert not state.deleting


def test_an_apply_is_one_write_and_known_at_once(
    api: FakeApi, user: FakeApi, services: Services
) -> None:
    """The state that comes back is the one in the cache."""
    user.create(Kind.SERVICE, "shop", service())
    services.cache.relist()
    api.requests.clear()
    before = services.service(SHOP)
    assert before is not None
    after = services.apply(SHOP, apply_body(before, "certbaton/one"), MANAGER)
    assert after == services.service(SHOP)
    assert after.reference == ObjectRef("certbaton", "one")
    assert after.reference_version == after.resource_version
    assert after.annotations[SSL_PORTS] == "443"
    assert after.owned.changed_at == NOW
    assert services.references() == {ObjectRef("certbaton", "one")}
    assert [asked.verb for asked in api.requests] == ["apply"]


def test_a_lost_race_teaches(api: FakeApi, user: FakeApi, services: Services) -> None:
    """Conflict, and the next look at the cache shows what is there."""
    user.create(Kind.SERVICE, "shop", service())
    services.cache.relist()
    before = services.service(SHOP)
    assert before is not None
    user.merge(Kind.SERVICE, SHOP, {"metadata": {"annotations": {TLS_SECRET: "theirs"}}})
    with pytest.raises(Conflict):
        services.apply(SHOP, apply_body(before, "one"), MANAGER)
    now = services.service(SHOP)
    assert now is not None
    assert now.reference == ObjectRef("shop", "theirs")
    there = user.read(Kind.SERVICE, SHOP)
    user.delete(Kind.SERVICE, SHOP, uid_of(there), version_of(there))
    with pytest.raises(Conflict):
        services.apply(SHOP, apply_body(now, "one"), MANAGER)
    assert services.service(SHOP) is None
    with pytest.raises(ObjectGone):
        user.read(Kind.SERVICE, SHOP)


def test_a_live_look_at_a_service_is_one_request(
    api: FakeApi, user: FakeApi, services: Services
) -> None:
    """And it is None where there is none, whatever the cache believed."""
    made = user.create(Kind.SERVICE, "shop", service(tls_secret="one"))
    state = services.service_live(SHOP)
    assert state is not None
    assert state == services.service(SHOP)
    assert [asked.verb for asked in api.requests] == ["read"]
    user.delete(Kind.SERVICE, SHOP, uid_of(made), version_of(made))
    assert services.service_live(SHOP) is None
    assert services.service(SHOP) is None


def test_the_reference_version_is_the_first_that_carried_it(
    user: FakeApi, services: Services
) -> None:
    """It stays through unrelated changes, and begins anew with another reference or object."""

    def seen() -> tuple[int, int]:
        services.cache.relist()
        state = services.service(SHOP)
        assert state is not None
        return int(state.reference_version or 0), int(state.resource_version)

    def say(secret: str | None) -> None:
        user.merge(Kind.SERVICE, SHOP, {"metadata": {"annotations": {TLS_SECRET: secret}}})

    user.create(Kind.SERVICE, "shop", service(tls_secret="one"))
    first, _ = seen()
    user.set_status(Kind.SERVICE, SHOP, {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}})
    say("shop/one")  # the same Secret in the other form
    version, newest = seen()
    assert version == first < newest
    say("two")
    version, newest = seen()
    assert version == newest
    say("one")
    version, newest = seen()
    assert version == newest > first
    say(None)
    assert seen()[0] == 0
    say("one")
    seen()
    there = user.read(Kind.SERVICE, SHOP)
    user.delete(Kind.SERVICE, SHOP, uid_of(there), version_of(there))
    user.create(Kind.SERVICE, "shop", service(tls_secret="one"))
    version, newest = seen()
    assert version == newest


OTHER = "certbaton/elsewhere/second"
THIRD = "certbaton/elsewhere/third"
HTTPS = 'k:{"port":443,"protocol":"TCP"}'


def entry(
    manager: str,
    operation: str = "Update",
    *ports: str,
    annotations: str = "",
    time: str = "2026-03-01T12:00:00Z",
) -> Obj:
    fields: Obj = {"f:spec": {"f:ports": {key: {".": {}} for key in ports}}}
    if annotations:
        fields["f:metadata"] = {"f:annotations": {f"f:{annotations}": {}}}
    return {
        "manager": manager,
        "operation": operation,
        "time": time,
        "fieldsV1": fields,
    }


@pytest.mark.parametrize(
    ("entries", "owned"),
    [
        ([], set()),
        ([entry(MANAGER, "Apply", HTTPS)], {"https_port"}),
        ([entry("x", "Apply", HTTPS)], {"others_https"}),
        # our own name with another operation isn't what an apply of ours would remove
        ([entry(MANAGER, "Update", HTTPS)], {"others_https"}),
        ([entry("x", "Update", 'k:{"protocol":"TCP","port":443}')], {"others_https"}),
        ([entry("x", "Update", 'k:{"port":443,"protocol":"UDP"}')], set()),
        ([entry("x", "Update", 'k:{"port":443}')], {"others_https"}),
        ([entry("x", "Update", "k:{broken", "k:[]", "v:7", ".")], set()),
        ([entry(MANAGER, "Apply", annotations=SSL_PORTS)], {"ssl_ports"}),
        ([entry("x", "Apply", annotations=SSL_PORTS)], {"others_ssl_ports"}),
        ([entry(MANAGER, "Apply", annotations=TLS_SECRET)], {"tls_secret"}),
        # what other instances own is no stranger's
        ([entry(OTHER, "Apply", HTTPS)], {"instances_https"}),
        ([entry(OTHER, "Apply", annotations=SSL_PORTS)], set()),
        ([entry(OTHER, "Update", HTTPS)], {"others_https"}),
        ([entry("certbaton/a/b/c", "Apply", HTTPS)], {"others_https"}),
        ([{"manager": "x"}], set()),
    ],
)
def test_ownership_is_read_from_the_managed_fields(entries: list[Obj], owned: set[str]) -> None:
    """Whose 443/TCP, ssl-ports and tls-secret are; odd entries own nothing."""
    found = owned_fields(entries, MANAGER)
    names = (
        *("tls_secret", "ssl_ports", "https_port"),
        *("others_ssl_ports", "others_https", "instances_https"),
    )
    assert {name for name in names if getattr(found, name)} == owned
    assert (found.changed_at == NOW) == any(
        (e.get("manager"), e.get("operation")) == (MANAGER, "Apply") for e in entries
    )


EARLY, LATE = "2026-03-01T11:00:00Z", "2026-03-01T13:00:00Z"


@pytest.mark.parametrize(
    ("why", "entries", "holder"),
    [
        ("nobody", [], None),
        ("another one", [entry(OTHER, "Apply", annotations=TLS_SECRET)], OTHER),
        ("we", [entry(MANAGER, "Apply", annotations=TLS_SECRET)], None),
        ("a person under such a name", [entry(OTHER, annotations=TLS_SECRET)], None),
        ("a controller", [entry("argocd", "Apply", annotations=TLS_SECRET)], None),
        (
            "names that are none",
            [
                entry(name, "Apply", annotations=TLS_SECRET)
                for name in ("certbaton/../x", "certbaton/a", "certbaton/a/b/c", "certbaton/A/b")
            ],
            None,
        ),
        (
            "both wrote the same: we go on",
            [entry(name, "Apply", annotations=TLS_SECRET, time=LATE) for name in (OTHER, MANAGER)],
            None,
        ),
        (
            "a person changed it since: it is the holder's to repair",
            [entry(OTHER, "Apply", HTTPS), entry("kubectl", annotations=TLS_SECRET)],
            OTHER,
        ),
        (
            "likewise, but we wrote last",
            [
                entry(OTHER, "Apply", HTTPS, time=EARLY),
                entry(MANAGER, "Apply", HTTPS, time=LATE),
                entry("kubectl", annotations=TLS_SECRET),
            ],
            None,
        ),
        (
            "likewise, and we wrote first",
            [
                entry(OTHER, "Apply", HTTPS, time=LATE),
                entry(MANAGER, "Apply", HTTPS, time=EARLY),
            ],
            OTHER,
        ),
        (
            "it took over from us, what we once wrote is no matter",
            [
                entry(OTHER, "Apply", annotations=TLS_SECRET, time=EARLY),
                entry(MANAGER, "Apply", HTTPS, time=LATE),
            ],
            OTHER,
        ),
        (
            "the third one took over from the second",
            [
                entry(OTHER, "Apply", HTTPS, time=LATE),
                entry(THIRD, "Apply", annotations=TLS_SECRET, time=EARLY),
            ],
            THIRD,
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_another_instance_has_a_service(why: str, entries: list[Obj], holder: str | None) -> None:
    """Whoever wrote tls-secret; failing that, whoever of certbaton's wrote there last."""
    found = owned_fields(entries, MANAGER).holder
    assert (found.field_manager if found else None) == holder, why


def test_since_when_another_instance_has_it_is_its_last_write() -> None:
    """By the API server's clock; nothing where we have it."""
    assert owned_fields([entry(OTHER, "Apply", annotations=TLS_SECRET)], MANAGER).held_since == NOW
    assert owned_fields([entry(MANAGER, "Apply", HTTPS)], MANAGER).held_since is None
