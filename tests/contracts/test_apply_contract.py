"""
Server-side apply of a Service, on the fake and on the real API server.
"""

from __future__ import annotations

import time
from datetime import datetime

import pytest

from certbaton.cluster.contract import (
    Kind,
    uid_of,
    version_of,
)
from certbaton.cluster.services import SSL_PORTS, TLS_SECRET, owned_fields, project_service
from certbaton.errors import Conflict, ObjectGone, PermanentError
from certbaton.model import ObjectRef
from contracts.conftest import Server
from contracts.objects import MANAGER, apply_body, ports_of, service


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


def test_a_managers_time_moves_with_anything_that_it_changes(server: Server) -> None:
    """
    A label: its entry, which has tls-secret as well, is younger then than that annotation.

    So the managed fields don't say when it was changed (`core/drift.py`).
    """
    server.other.create(Kind.SERVICE, server.namespace, service("shop"))
    ref = server.ref("shop")
    by_hand = {"metadata": {"annotations": {TLS_SECRET: "by-hand"}}}
    changed = server.other.merge(Kind.SERVICE, ref, by_hand)
    before = owned_fields(changed["metadata"]["managedFields"], MANAGER).tls_secret_changed_at
    time.sleep(1.1)  # its times are whole seconds
    touched = server.other.merge(Kind.SERVICE, ref, {"metadata": {"labels": {"release": "7"}}})
    after = owned_fields(touched["metadata"]["managedFields"], MANAGER)
    assert before is not None
    assert after.tls_secret_changed_at is not None
    assert after.tls_secret_changed_at > before
    assert after.tls_secret_manager == "kubectl"


def test_an_appliers_time_moves_likewise(server: Server) -> None:
    """Argo CD and Flux apply: one with another label does it, the very same again does not."""
    made = server.other.create(Kind.SERVICE, server.namespace, service("shop"))
    ref = server.ref("shop")

    def applied(label: str) -> datetime:
        body = apply_body(made)
        del body["metadata"]["resourceVersion"]
        body["metadata"]["labels"] = {"release": label}
        after = server.other.apply(Kind.SERVICE, ref, body, "argocd-controller")
        at = owned_fields(after["metadata"]["managedFields"], MANAGER).tls_secret_changed_at
        assert at is not None
        return at

    first = applied("6")
    time.sleep(1.1)
    assert applied("6") == first
    assert applied("7") > first
