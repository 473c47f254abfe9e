"""
What certbaton relies on in an API server: one suite, on the fake and on the real one.
"""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable

import pytest

from certbaton.cluster.contract import (
    AlreadyExists,
    Expired,
    Kind,
    Obj,
    ref_of,
    uid_of,
    version_number,
    version_of,
)
from certbaton.cluster.services import SSL_PORTS, TLS_SECRET, owned_fields, project_service
from certbaton.errors import Conflict, ObjectGone, PermanentError
from certbaton.model import ObjectRef
from contracts.conftest import Server

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


# --- objects ---------------------------------------------------------------------------


def test_what_is_not_there_is_gone(server: Server) -> None:
    """Reading, changing and deleting a missing object all say ObjectGone."""
    ref = server.ref("missing")
    with pytest.raises(ObjectGone):
        server.api.read(Kind.SECRET, ref)
    with pytest.raises(ObjectGone):
        server.api.merge(Kind.SECRET, ref, {"metadata": {"labels": {"a": "b"}}})
    with pytest.raises(ObjectGone):
        server.api.delete(Kind.SECRET, ref, "00000000-0000-0000-0000-000000000000", "1")


def test_create_answers_what_is_stored(server: Server) -> None:
    """uid and resourceVersion come with the answer, which is what a read gives, too."""
    made = server.api.create(Kind.SECRET, server.namespace, secret("one"))
    assert uid_of(made)
    assert version_number(version_of(made)) > 0
    assert ref_of(made) == server.ref("one")
    assert made["type"] == "Opaque"
    assert server.api.read(Kind.SECRET, server.ref("one")) == made


def test_a_name_can_be_taken_once(server: Server) -> None:
    """A second create is AlreadyExists, which is a Conflict."""
    server.api.create(Kind.SECRET, server.namespace, secret("one"))
    with pytest.raises(AlreadyExists):
        server.api.create(Kind.SECRET, server.namespace, secret("one"))
    assert issubclass(AlreadyExists, Conflict)


def test_an_event_of_the_same_name_is_refused(server: Server) -> None:
    """So a name made of the content keeps an Event from being repeated."""
    body = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "shop.1", "namespace": server.namespace},
        "involvedObject": {"kind": "Service", "name": "shop", "namespace": server.namespace},
        "reason": "Served",
        "message": "it works",
        "type": "Normal",
    }
    server.api.create(Kind.EVENT, server.namespace, body)
    with pytest.raises(AlreadyExists):
        server.api.create(Kind.EVENT, server.namespace, body)


def test_a_lease_is_replaced_with_a_precondition(server: Server) -> None:
    """The leader's renewal is one PUT, and a lost race is a Conflict."""
    body: Obj = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "prod", "namespace": server.namespace},
        "spec": {"holderIdentity": "a", "leaseDurationSeconds": 60},
    }
    made = server.api.create(Kind.LEASE, server.namespace, body)
    made["spec"]["holderIdentity"] = "b"
    server.api.replace(Kind.LEASE, server.ref("prod"), made)
    with pytest.raises(Conflict):
        server.api.replace(Kind.LEASE, server.ref("prod"), made)
    assert server.api.read(Kind.LEASE, server.ref("prod"))["spec"]["holderIdentity"] == "b"


def test_merge_changes_only_what_it_names(server: Server) -> None:
    """None removes; whatever is not named stays."""
    ref = server.ref("one")
    made = server.api.create(
        Kind.SECRET, server.namespace, secret("one", data={"a": b64("1"), "b": b64("2")})
    )
    patch = {
        "metadata": {"resourceVersion": version_of(made), "annotations": {"x": "y"}},
        "data": {"a": None, "c": b64("3")},
    }
    changed = server.api.merge(Kind.SECRET, ref, patch)
    assert changed["data"] == {"b": b64("2"), "c": b64("3")}
    assert changed["metadata"]["annotations"] == {"x": "y"}
    assert changed["metadata"]["labels"] == {"team": "a"}
    assert version_number(version_of(changed)) > version_number(version_of(made))


def test_merge_on_an_old_version_is_a_conflict(server: Server) -> None:
    """A resourceVersion in the patch is a precondition."""
    made = server.api.create(Kind.SECRET, server.namespace, secret("one"))
    patch = {"metadata": {"resourceVersion": version_of(made), "annotations": {"x": "1"}}}
    server.api.merge(Kind.SECRET, server.ref("one"), patch)
    patch["metadata"]["annotations"] = {"x": "2"}
    with pytest.raises(Conflict) as caught:
        server.api.merge(Kind.SECRET, server.ref("one"), patch)
    assert not isinstance(caught.value, ObjectGone)


def test_a_write_that_changes_nothing_is_none(server: Server) -> None:
    """The resourceVersion stays, so that nobody is woken."""
    made = server.api.create(Kind.SECRET, server.namespace, secret("one"))
    same = server.api.merge(Kind.SECRET, server.ref("one"), {"data": {"word": b64("hello")}})
    assert version_of(same) == version_of(made)


def test_an_immutable_secret_keeps_its_content(server: Server) -> None:
    """Its data cannot change, its annotations can; the refusal quotes no content."""
    ref = server.ref("one")
    server.api.create(Kind.SECRET, server.namespace, secret("one", immutable=True))
    with pytest.raises(PermanentError) as caught:
        server.api.merge(Kind.SECRET, ref, {"data": {"word": b64("other")}})
    assert "data" in str(caught.value)
    assert b64("other") not in str(caught.value)
    with pytest.raises(PermanentError):
        server.api.merge(Kind.SECRET, ref, {"immutable": None})
    changed = server.api.merge(Kind.SECRET, ref, {"metadata": {"annotations": {"x": "y"}}})
    assert changed["data"] == {"word": b64("hello")}


def test_a_tls_secret_needs_both_keys(server: Server) -> None:
    """PermanentError that names the field."""
    body = secret("one", type="kubernetes.io/tls", data={"tls.crt": b64("x")})
    with pytest.raises(PermanentError, match=r"tls\.key"):
        server.api.create(Kind.SECRET, server.namespace, body)


def test_no_refusal_carries_what_was_sent(server: Server) -> None:
    """Neither text, cause nor context of an error about a Secret holds its data."""
    made = server.api.create(Kind.SECRET, server.namespace, secret("one", immutable=True))
    marker = "c2VjcmV0LWtleS1tYXRlcmlhbA=="
    calls: tuple[Callable[[], Obj], ...] = (
        lambda: server.api.merge(Kind.SECRET, server.ref("one"), {"data": {"word": marker}}),
        lambda: server.api.create(Kind.SECRET, server.namespace, secret("one", data={"a": marker})),
        lambda: server.api.create(
            Kind.SECRET,
            server.namespace,
            secret("two", type="kubernetes.io/tls", data={"a": marker}),
        ),
        lambda: server.api.replace(
            Kind.SECRET, server.ref("one"), made | {"data": {"word": marker}}
        ),
    )
    for call in calls:
        with pytest.raises((Conflict, PermanentError)) as caught:
            call()
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
        assert marker not in repr(caught.value)


def test_delete_meets_exactly_what_was_seen(server: Server) -> None:
    """Another uid or resourceVersion is a Conflict and deletes nothing."""
    ref = server.ref("one")
    made = server.api.create(Kind.SECRET, server.namespace, secret("one"))
    with pytest.raises(Conflict):
        server.api.delete(
            Kind.SECRET, ref, "00000000-0000-0000-0000-000000000000", version_of(made)
        )
    changed = server.api.merge(Kind.SECRET, ref, {"metadata": {"annotations": {"x": "y"}}})
    with pytest.raises(Conflict) as caught:
        server.api.delete(Kind.SECRET, ref, uid_of(made), version_of(made))
    assert not isinstance(caught.value, ObjectGone)
    server.api.delete(Kind.SECRET, ref, uid_of(made), version_of(changed))
    with pytest.raises(ObjectGone):
        server.api.delete(Kind.SECRET, ref, uid_of(made), version_of(changed))


# --- lists and watches -----------------------------------------------------------------


def test_lists_are_chosen_by_label_and_field(server: Server) -> None:
    """Label and field selectors work together, within a namespace."""
    for name, team in (("one", "a"), ("two", "b"), ("three", "a")):
        body = secret(name)
        body["metadata"]["labels"] = {"team": team}
        server.api.create(Kind.SECRET, server.namespace, body)
    found, version = server.api.list(Kind.SECRET, server.namespace, label_selector="team=a")
    assert {ref_of(obj).name for obj in found} == {"one", "three"}
    assert version_number(version) > 0
    found, _ = server.api.list(
        Kind.SECRET, server.namespace, label_selector="team=a", field_selector="metadata.name=one"
    )
    assert [ref_of(obj).name for obj in found] == ["one"]


def test_lists_come_in_pages(server: Server) -> None:
    """All objects are seen once, and every page says the same resourceVersion."""
    for number in range(5):
        server.api.create(Kind.SECRET, server.namespace, secret(f"s{number}"))
    pages = list(server.pages_of(2).pages(Kind.SECRET, server.namespace))
    assert [len(items) for items, _ in pages] == [2, 2, 1]
    assert {ref_of(o).name for items, _ in pages for o in items} == {f"s{n}" for n in range(5)}
    assert len({version for _, version in pages}) == 1


def test_an_empty_list_is_one_page(server: Server) -> None:
    """With a resourceVersion to watch from."""
    pages = list(server.api.pages(Kind.SECRET, server.namespace))
    assert [items for items, _ in pages] == [[]]
    assert pages[0][1]


def test_a_watch_tells_what_happened_since(server: Server) -> None:
    """From the list's resourceVersion on, in order, even what was before it was opened."""
    ref = server.ref("one")
    _, version = server.api.list(Kind.SECRET, server.namespace)
    made = server.api.create(Kind.SECRET, server.namespace, secret("one"))
    watch = server.api.watch(
        Kind.SECRET, server.namespace, resource_version=version, timeout_seconds=10
    )
    changed = server.api.merge(Kind.SECRET, ref, {"metadata": {"annotations": {"x": "y"}}})
    server.api.delete(Kind.SECRET, ref, uid_of(made), version_of(changed))
    seen = [next(watch) for _ in range(3)]
    watch.close()
    assert [kind for kind, _ in seen] == ["ADDED", "MODIFIED", "DELETED"]
    assert [uid_of(obj) for _, obj in seen] == [uid_of(made)] * 3
    numbers = [version_number(version_of(obj)) for _, obj in seen]
    assert numbers == sorted(set(numbers))
    assert next(watch, None) is None


def test_an_object_that_leaves_the_selector_is_deleted_to_the_watcher(server: Server) -> None:
    """And one that enters it is added."""
    server.api.create(Kind.SECRET, server.namespace, secret("one"))
    _, version = server.api.list(Kind.SECRET, server.namespace)
    watch = server.api.watch(
        Kind.SECRET,
        server.namespace,
        resource_version=version,
        timeout_seconds=10,
        label_selector="team=a",
    )
    for team in ("b", "a"):
        server.api.merge(Kind.SECRET, server.ref("one"), {"metadata": {"labels": {"team": team}}})
    assert [next(watch)[0] for _ in range(2)] == ["DELETED", "ADDED"]
    watch.close()


def test_a_watch_ends_after_its_time(server: Server) -> None:
    """Without an error: the next one goes on from there."""
    _, version = server.api.list(Kind.SECRET, server.namespace)
    began = time.monotonic()
    watch = server.api.watch(
        Kind.SECRET, server.namespace, resource_version=version, timeout_seconds=1
    )
    assert [kind for kind, _ in watch if kind != "BOOKMARK"] == []
    assert time.monotonic() - began < 10


def test_a_watch_is_closed_from_another_thread(server: Server) -> None:
    """The one who waits for the next event is woken at once."""
    _, version = server.api.list(Kind.SECRET, server.namespace)
    watch = server.api.watch(
        Kind.SECRET, server.namespace, resource_version=version, timeout_seconds=60
    )
    events: list[object] = []
    reader = threading.Thread(target=lambda: events.extend(watch), daemon=True)
    reader.start()
    began = time.monotonic()
    watch.close()
    reader.join(10)
    assert not reader.is_alive()
    assert time.monotonic() - began < 5
    assert events == []


def test_a_watch_from_long_ago_is_expired(server: Server) -> None:
    """410, by status or as an event of the stream."""
    _, version = server.api.list(Kind.SECRET, server.namespace)
    server.api.create(Kind.SECRET, server.namespace, secret("one"))
    server.forget_the_past()
    with pytest.raises(Expired):
        for _ in server.api.watch(Kind.SECRET, resource_version=version, timeout_seconds=5):
            pass


def test_events_are_watched_by_what_they_are_about(server: Server) -> None:
    """The field selector involvedObject.kind works for list and watch."""
    for number, kind in enumerate(("Service", "Pod")):
        server.api.create(
            Kind.EVENT,
            server.namespace,
            {
                "metadata": {"name": f"e{number}", "namespace": server.namespace},
                "involvedObject": {"kind": kind, "name": "x", "namespace": server.namespace},
                "reason": "Y",
            },
        )
    chosen = "involvedObject.kind=Service"
    found, _ = server.api.list(Kind.EVENT, server.namespace, field_selector=chosen)
    assert [obj["involvedObject"]["kind"] for obj in found] == ["Service"]


# --- server-side apply -----------------------------------------------------------------


def test_apply_adds_what_we_own_and_leaves_the_rest(server: Server) -> None:
    """Annotations and the https port in one write; the user's are as they were."""
    made = server.other.create(
        Kind.SERVICE, server.namespace, service("shop", annotations={"mine": "1"})
    )
    after = server.api.apply(Kind.SERVICE, server.ref("shop"), apply_body(made), MANAGER)
    assert after["metadata"]["annotations"] == {
        "mine": "1",
        TLS_SECRET: "shop-1",
        SSL_PORTS: "443",
    }
    assert ports_of(after) == {("http", 80, "TCP"), ("https", 443, "TCP")}
    owned = owned_fields(after["metadata"]["managedFields"], MANAGER)
    assert (owned.tls_secret, owned.ssl_ports, owned.https_port) == (True, True, True)
    assert (owned.others_ssl_ports, owned.others_https) == (False, False)
    assert owned.tls_secret_manager is None
    assert owned.changed_at is not None


def test_apply_again_is_no_write(server: Server) -> None:
    """Neither resourceVersion nor our entry's time move."""
    made = server.other.create(Kind.SERVICE, server.namespace, service("shop"))
    first = server.api.apply(Kind.SERVICE, server.ref("shop"), apply_body(made), MANAGER)
    again = server.api.apply(Kind.SERVICE, server.ref("shop"), apply_body(first), MANAGER)
    assert again == first


def test_apply_removes_what_we_owned_and_leave_out(server: Server) -> None:
    """The listener with it; so a Service is never given up by an empty set."""
    made = server.other.create(Kind.SERVICE, server.namespace, service("shop"))
    first = server.api.apply(Kind.SERVICE, server.ref("shop"), apply_body(made), MANAGER)
    body = apply_body(first, https=False)
    del body["metadata"]["annotations"][SSL_PORTS]
    after = server.api.apply(Kind.SERVICE, server.ref("shop"), body, MANAGER)
    assert after["metadata"]["annotations"] == {TLS_SECRET: "shop-1"}
    assert ports_of(after) == {("http", 80, "TCP")}


def test_apply_leaves_another_protocol_alone(server: Server) -> None:
    """443/UDP of a user stays beside our 443/TCP."""
    http = {"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}
    quic = {"name": "quic", "port": 443, "targetPort": 8443, "protocol": "UDP"}
    made = server.other.create(Kind.SERVICE, server.namespace, service("shop", http, quic))
    after = server.api.apply(Kind.SERVICE, server.ref("shop"), apply_body(made), MANAGER)
    assert ports_of(after) == {("http", 80, "TCP"), ("https", 443, "TCP"), ("quic", 443, "UDP")}
    assert not owned_fields(after["metadata"]["managedFields"], MANAGER).others_https


def test_apply_takes_over_a_hand_made_annotation(server: Server) -> None:
    """Forced: the value is ours then, and the other manager owns it no more."""
    made = server.other.create(
        Kind.SERVICE, server.namespace, service("shop", annotations={TLS_SECRET: "by-hand"})
    )
    before = owned_fields(made["metadata"]["managedFields"], MANAGER)
    assert before.tls_secret_manager == "kubectl"
    after = server.api.apply(Kind.SERVICE, server.ref("shop"), apply_body(made), MANAGER)
    owned = owned_fields(after["metadata"]["managedFields"], MANAGER)
    assert after["metadata"]["annotations"][TLS_SECRET] == "shop-1"
    assert (owned.tls_secret, owned.tls_secret_manager) == (True, None)


def test_a_port_of_somebody_else_is_told_from_ours(server: Server) -> None:
    """others_https and others_ssl_ports speak of the user's own 443/TCP and annotation."""
    http = {"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}
    https = {"name": "tls", "port": 443, "targetPort": 8443, "protocol": "TCP"}
    made = server.other.create(
        Kind.SERVICE,
        server.namespace,
        service("shop", http, https, annotations={SSL_PORTS: "443"}),
    )
    body = apply_body(made, https=False)
    del body["metadata"]["annotations"][SSL_PORTS]
    after = server.api.apply(Kind.SERVICE, server.ref("shop"), body, MANAGER)
    owned = owned_fields(after["metadata"]["managedFields"], MANAGER)
    assert (owned.tls_secret, owned.ssl_ports, owned.https_port) == (True, False, False)
    assert (owned.others_ssl_ports, owned.others_https) == (True, True)
    assert ports_of(after) == {("http", 80, "TCP"), ("tls", 443, "TCP")}


def test_somebody_who_changes_our_annotation_owns_it(server: Server) -> None:
    """Drift: we no longer own it, and who does is in the managed fields."""
    made = server.other.create(Kind.SERVICE, server.namespace, service("shop"))
    server.api.apply(Kind.SERVICE, server.ref("shop"), apply_body(made), MANAGER)
    after = server.other.merge(
        Kind.SERVICE, server.ref("shop"), {"metadata": {"annotations": {TLS_SECRET: "other"}}}
    )
    owned = owned_fields(after["metadata"]["managedFields"], MANAGER)
    assert (owned.tls_secret, owned.ssl_ports) == (False, True)
    assert owned.tls_secret_manager == "kubectl"


def test_a_user_edit_of_our_port_makes_it_theirs_too(server: Server) -> None:
    """Any field below 443/TCP counts."""
    made = server.other.create(Kind.SERVICE, server.namespace, service("shop"))
    after = server.api.apply(Kind.SERVICE, server.ref("shop"), apply_body(made), MANAGER)
    for port in after["spec"]["ports"]:
        if port["port"] == 443:
            port["targetPort"] = 9443
    edited = server.other.replace(Kind.SERVICE, server.ref("shop"), after)
    owned = owned_fields(edited["metadata"]["managedFields"], MANAGER)
    assert owned.others_https
    assert owned.https_port  # the item itself is still ours


def test_apply_on_an_old_version_is_a_conflict(server: Server) -> None:
    """The resourceVersion in the body is a precondition."""
    made = server.other.create(Kind.SERVICE, server.namespace, service("shop"))
    server.other.merge(
        Kind.SERVICE, server.ref("shop"), {"metadata": {"annotations": {"mine": "2"}}}
    )
    with pytest.raises(Conflict):
        server.api.apply(Kind.SERVICE, server.ref("shop"), apply_body(made), MANAGER)


def test_apply_never_creates_a_service(server: Server) -> None:
    """Gone, or gone and made again: the uid in the body makes it a Conflict."""
    ref = server.ref("shop")
    made = server.other.create(Kind.SERVICE, server.namespace, service("shop"))
    server.other.delete(Kind.SERVICE, ref, uid_of(made), version_of(made))
    with pytest.raises(Conflict):
        server.api.apply(Kind.SERVICE, ref, apply_body(made), MANAGER)
    with pytest.raises(ObjectGone):
        server.api.read(Kind.SERVICE, ref)
    again = server.other.create(Kind.SERVICE, server.namespace, service("shop"))
    with pytest.raises(Conflict):
        server.api.apply(Kind.SERVICE, ref, apply_body(made), MANAGER)
    body = apply_body(made)
    body["metadata"]["resourceVersion"] = version_of(again)
    with pytest.raises(Conflict):  # cannot happen: 422 on the real one, of metadata.uid
        server.api.apply(Kind.SERVICE, ref, body, MANAGER)
    assert server.api.read(Kind.SERVICE, ref) == again


def test_a_second_port_beside_an_unnamed_one_is_refused(server: Server) -> None:
    """PermanentError with the server's words, and nothing is written."""
    made = server.other.create(
        Kind.SERVICE,
        server.namespace,
        service("shop", {"port": 80, "targetPort": 8080, "protocol": "TCP"}),
    )
    with pytest.raises(PermanentError, match="name"):
        server.api.apply(Kind.SERVICE, server.ref("shop"), apply_body(made), MANAGER)
    assert server.api.read(Kind.SERVICE, server.ref("shop")) == made


def test_a_name_that_is_taken_is_refused(server: Server) -> None:
    """Port 8443 is called https already."""
    http = {"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}
    taken = {"name": "https", "port": 8443, "targetPort": 8443, "protocol": "TCP"}
    made = server.other.create(Kind.SERVICE, server.namespace, service("shop", http, taken))
    with pytest.raises(PermanentError, match=r"[Dd]uplicate"):
        server.api.apply(Kind.SERVICE, server.ref("shop"), apply_body(made), MANAGER)


def test_a_status_is_read_and_owned_by_nobody_of_interest(server: Server) -> None:
    """Address and ipMode of the load balancer; the managed fields of a status are no matter."""
    made = server.other.create(Kind.SERVICE, server.namespace, service("shop"))
    server.api.apply(Kind.SERVICE, server.ref("shop"), apply_body(made), MANAGER)
    status = {"loadBalancer": {"ingress": [{"ip": "192.0.2.7", "ipMode": "Proxy"}]}}
    server.set_status(server.ref("shop"), status)
    state = project_service(server.api.read(Kind.SERVICE, server.ref("shop")), MANAGER)
    assert [(a.ip, a.ip_mode) for a in state.addresses] == [("192.0.2.7", "Proxy")]
    assert state.reference == ObjectRef(server.namespace, "shop-1")
    assert state.owned.https_port
    assert not state.owned.others_https
