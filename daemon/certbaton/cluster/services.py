"""
Services: what is read of them, who owns which part, and which Secrets they name.

Of every Service in every namespace the Secrets that it names are kept; of those
that certbaton serves, the rest of what a decision needs too. What to write is
for ``targets`` to say; this module only sends it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from certbaton.cluster import codec
from certbaton.cluster.cache import WatchCache
from certbaton.cluster.contract import (
    Kind,
    KubeApi,
    Obj,
    ref_of,
    uid_of,
    version_number,
    version_of,
)
from certbaton.cluster.derived import Derived
from certbaton.errors import Conflict, ObjectGone
from certbaton.model import (
    Address,
    Instance,
    ObjectRef,
    OwnedFields,
    ServicePort,
    ServiceState,
)

SSL_PORTS: Final = "service.beta.kubernetes.io/oci-load-balancer-ssl-ports"
TLS_SECRET: Final = "service.beta.kubernetes.io/oci-load-balancer-tls-secret"  # noqa: S105
BACKENDSET_SECRET: Final = "service.beta.kubernetes.io/oci-load-balancer-tls-backendset-secret"  # noqa: S105
KEPT_ANNOTATIONS: Final = ("service.beta.kubernetes.io/", "oci.oraclecloud.com/", "certbaton.io/")
HTTPS: Final = (443, "TCP")
LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class ServiceRecord:
    """What is kept of one Service: *state* only of those that certbaton serves."""

    references: tuple[ObjectRef, ...]
    state: ServiceState | None


class Services:
    """The Services of all namespaces; *targets* are those that certbaton serves."""

    def __init__(self, api: KubeApi, targets: Iterable[ObjectRef], field_manager: str) -> None:
        self._api = api
        self._targets = frozenset(targets)
        self._manager = field_manager
        self.written: frozenset[ObjectRef] = frozenset()
        self.cache: WatchCache[ServiceRecord] = WatchCache(api, Kind.SERVICE, project=self._project)
        self._named = Derived(
            lambda: self.cache.revision,
            lambda: frozenset(ref for record in self.cache.values() for ref in record.references),
        )

    def service(self, ref: ObjectRef) -> ServiceState | None:
        """A target as last heard of; None where it is not there. No request."""
        record = self.cache.get(ref)
        return record.state if record else None

    def service_live(self, ref: ObjectRef) -> ServiceState | None:
        """A target as it is now; None where it is not there. One request."""
        known = self.cache.uid(ref)
        try:
            obj = self._api.read(Kind.SERVICE, ref)
        except ObjectGone:
            if known:
                self.cache.forget(ref, known)
            return None
        self.cache.learn(obj)
        return self._state(obj)

    def references(self) -> frozenset[ObjectRef]:
        """
        All Secrets that any Service names, as last heard of. No request.

        In either annotation, in either form, whatever the Service's type.
        """
        return self._named()

    def references_live(self) -> frozenset[ObjectRef]:
        """As `references`, by a list made now: one request for each 500 Services."""
        self.cache.relist()
        return self.references()

    def apply(self, ref: ObjectRef, body: Obj, field_manager: str) -> ServiceState:
        """
        Server-side apply of everything that certbaton owns of a Service. One request.

        *body* holds uid and resourceVersion. Conflict where the Service changed
        since, is another one by now, or is gone; what is there has then been
        read again (one more request).
        """
        known = self.cache.uid(ref)
        try:
            answer = self._api.apply(Kind.SERVICE, ref, body, field_manager)
        except Conflict:
            self._look(ref, known)
            raise
        self.cache.learn(answer)
        self.written |= {ref}
        return self._state(answer)

    def merge(self, ref: ObjectRef, body: Obj) -> None:
        """Merge-patch a target; *body* holds uid and resourceVersion. As `apply` otherwise."""
        known = self.cache.uid(ref)
        try:
            self.cache.learn(self._api.merge(Kind.SERVICE, ref, body))
        except (Conflict, ObjectGone):
            self._look(ref, known)
            raise

    def _look(self, ref: ObjectRef, known: str) -> None:
        try:
            self.cache.learn(self._api.read(Kind.SERVICE, ref))
        except ObjectGone:
            if known:
                self.cache.forget(ref, known)

    def _state(self, obj: Obj) -> ServiceState:
        record = self.cache.get(ref_of(obj))
        return project_service(obj, self._manager, record.state if record else None)

    def _project(self, obj: Obj, before: ServiceRecord | None) -> ServiceRecord | None:
        ref = ref_of(obj)
        state = None
        if ref in self._targets:
            state = project_service(obj, self._manager, before.state if before else None)
        named = tuple(_references(obj))
        return ServiceRecord(named, state) if named or state else None


def reference(value: str | None, namespace: str) -> ObjectRef | None:
    """
    Read an annotation's value as Oracle's controller does (``getSecretParts``).

    ``name`` is in the Service's *namespace*; split at ``/``, the first two parts
    count, so that ``a/b/c`` is b in a. Nothing is trimmed: with a space it
    names a Secret that cannot exist. None where it names nothing.
    """
    if not value:
        return None
    parts = value.split("/")
    if len(parts) == 1:
        return ObjectRef(namespace, value)
    return ObjectRef(parts[0], parts[1]) if parts[0] and parts[1] else None


def project_service(
    obj: Obj, field_manager: str, before: ServiceState | None = None
) -> ServiceState:
    """
    Read a Service object; *before* is the state that was known, for `reference_version`.

    Never raises on what a user may have written.
    """
    ref, uid, version = ref_of(obj), uid_of(obj), version_of(obj)
    metadata = obj.get("metadata") or {}
    spec = obj.get("spec") or {}
    annotations = metadata.get("annotations") or {}
    named = reference(annotations.get(TLS_SECRET), ref.namespace)
    return ServiceState(
        ref=ref,
        uid=uid,
        resource_version=version,
        type=spec.get("type") or "ClusterIP",
        annotations={
            key: value for key, value in annotations.items() if key.startswith(KEPT_ANNOTATIONS)
        },
        ports=tuple(
            ServicePort(
                name=port.get("name"),
                port=int(port.get("port") or 0),
                protocol=port.get("protocol") or "TCP",
                target_port=port.get("targetPort"),
            )
            for port in spec.get("ports") or ()
        ),
        addresses=tuple(
            Address(ip=entry.get("ip") or entry.get("hostname") or "", ip_mode=entry.get("ipMode"))
            for entry in ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
        ),
        owned=owned_fields(metadata.get("managedFields") or (), field_manager),
        reference=named,
        reference_version=_first_seen(uid, named, version, before),
        backend_reference=reference(annotations.get(BACKENDSET_SECRET), ref.namespace),
        load_balancer_class=spec.get("loadBalancerClass"),
        deleting="deletionTimestamp" in metadata,
    )


def owned_fields(entries: Iterable[Mapping[str, Any]], field_manager: str) -> OwnedFields:
    """
    Who owns the parts that certbaton writes, by a Service's ``managedFields``.

    The instance that has a Service is the one that wrote its tls-secret; where somebody
    else has changed that since, the one that last wrote anything there.
    """
    tls_secret = ssl_ports = https_port = others_ssl_ports = others_https = False
    instances_https = False
    instances: list[tuple[bool, datetime, str]] = []
    manager: str | None = None
    changed_at: datetime | None = None
    secret_changes: list[datetime] = []
    for entry in entries:
        fields = entry.get("fieldsV1") or {}
        annotations = (fields.get("f:metadata") or {}).get("f:annotations") or {}
        owns_tls_secret = f"f:{TLS_SECRET}" in annotations
        owns_ssl_ports = f"f:{SSL_PORTS}" in annotations
        owns_https = _owns_https((fields.get("f:spec") or {}).get("f:ports") or {})
        at = _time(entry.get("time"))
        if owns_tls_secret and at is not None:
            secret_changes.append(at)
        if entry.get("manager") == field_manager and entry.get("operation") == "Apply":
            tls_secret, ssl_ports, https_port = owns_tls_secret, owns_ssl_ports, owns_https
            changed_at = at
        else:
            name = str(entry.get("manager") or "")
            applies = entry.get("operation") == "Apply"
            if applies and Instance.of_field_manager(name) is not None:
                instances_https |= owns_https
                if owns_tls_secret or owns_ssl_ports or owns_https:
                    instances.append((owns_tls_secret, at or LONG_AGO, name))
            else:
                others_ssl_ports |= owns_ssl_ports
                others_https |= owns_https
            if owns_tls_secret:
                manager = name
    ours = (tls_secret, changed_at or LONG_AGO, field_manager)
    found = max(instances, default=ours)
    has = found if found > ours and not tls_secret else None
    return OwnedFields(
        tls_secret=tls_secret,
        ssl_ports=ssl_ports,
        https_port=https_port,
        others_ssl_ports=others_ssl_ports,
        others_https=others_https,
        tls_secret_manager=manager,
        changed_at=changed_at,
        tls_secret_changed_at=max(secret_changes, default=None),
        instances_https=instances_https,
        holder=Instance.of_field_manager(has[2]) if has else None,
        held_since=has[1] if has and has[1] > LONG_AGO else None,
    )


def _owns_https(ports: Mapping[str, Any]) -> bool:
    """Whether ``k:{"port":443,"protocol":"TCP"}``, or anything below it, is among the keys."""
    for key in ports:
        if not key.startswith("k:"):
            continue
        try:
            item = json.loads(key[2:])
        except ValueError:
            continue
        if isinstance(item, Mapping) and (item.get("port"), item.get("protocol", "TCP")) == HTTPS:
            return True
    return False


def _references(obj: Obj) -> Iterator[ObjectRef]:
    annotations = (obj.get("metadata") or {}).get("annotations") or {}
    for key in (TLS_SECRET, BACKENDSET_SECRET):
        named = reference(annotations.get(key), ref_of(obj).namespace)
        if named is not None:
            yield named


def _first_seen(
    uid: str, named: ObjectRef | None, version: str, before: ServiceState | None
) -> str:
    if named is None:
        return ""
    if before is None or before.uid != uid or before.reference != named:
        return version
    return min(before.reference_version, version, key=version_number)


def _time(text: object) -> datetime | None:
    try:
        return codec.read_time(text)
    except codec.Unreadable:
        return None
