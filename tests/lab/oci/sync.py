"""One sync of one Service, step by step as Oracle's controller makes it."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from typing import Any

from lab.kube import STRATEGIC_PATCH, Kube, KubeError
from lab.oci.api import ClientError, LoadBalancerApi, ServiceError, WorkRequest
from lab.oci.events import Recorder
from lab.oci.faults import Faults
from lab.oci.inside import InsideRoutes
from lab.oci.loadbalancer import LoadBalancer
from lab.oci.ports import Address
from lab.oci.service import (
    FINALIZER,
    Reference,
    SyncError,
    Wanted,
    key_of,
    listener_changed,
    needs_cleanup,
    read,
    wants_load_balancer,
)
from lab.oci.tls import Certificate

Obj = dict[str, Any]

MANAGER = "oci-cloud-controller-manager"
_ERRORS = (SyncError, ServiceError, ClientError, KubeError)


def text_of(error: Exception) -> str:
    """An error as the controller prints it."""
    return error.message if isinstance(error, KubeError) else str(error)


class Syncer:
    """Carries out syncs; the caller sees to it that no Service is synced twice at once."""

    def __init__(
        self,
        kube: Kube,
        api: LoadBalancerApi,
        recorder: Recorder,
        faults: Faults,
        *,
        backend: Callable[[str, str], Address | None],
        inside: InsideRoutes,
        stop: threading.Event,
    ) -> None:
        self._kube = kube
        self._api = api
        self._recorder = recorder
        self._faults = faults
        self._backend = backend
        self._inside = inside
        self._stop = stop

    def sync(self, service: Obj) -> bool:
        """
        Bring the load balancer in line with *service*; True if that meant to delete it.

        SyncError on failure, with the text that follows "Error syncing load balancer: ".
        """
        if not wants_load_balancer(service) or needs_cleanup(service):
            self.delete(service, "failed to check if load balancer exists before cleanup")
            self._patch_status(service, [])
            return True
        self._event(service, "EnsuringLoadBalancer", "Ensuring load balancer")
        self._add_finalizer(service)
        try:
            ingress = self._ensure(service)
        except _ERRORS as error:
            raise SyncError(f"failed to ensure load balancer: {text_of(error)}") from error
        self._event(service, "EnsuredLoadBalancer", "Ensured load balancer")
        self._patch_status(service, ingress)
        return False

    def delete(self, service: Obj, failure: str = "failed to delete load balancer") -> None:
        """Delete the Service's load balancer; reads no Secret."""
        try:
            balancer = self._api.find(service["metadata"]["uid"])
            if balancer is not None:
                failure = "failed to delete load balancer"
                self._event(service, "DeletingLoadBalancer", "Deleting load balancer")
                self._await(self._api.delete_load_balancer(balancer))
            failure = "failed to remove load balancer cleanup finalizer"
            self._remove_finalizer(service)
        except _ERRORS as error:
            raise SyncError(f"{failure}: {text_of(error)}") from error
        self._event(service, "DeletedLoadBalancer", "Deleted load balancer")

    def update_hosts(self, service: Obj) -> None:
        """A change of nodes: back ends only, no Secret is read."""
        balancer = self._api.find(service["metadata"]["uid"])
        if balancer is None:
            return
        self._refuse_if_busy(balancer)

    def _ensure(self, service: Obj) -> list[Obj]:
        self._refuse_if_gone(service)
        balancer = self._api.find(service["metadata"]["uid"])
        if balancer is not None:
            self._refuse_if_busy(balancer)
        wanted = read(service, refuse_udp=self._faults.refuse_udp)
        if balancer is None:
            balancer = self._create(service, wanted)
        else:
            self._ensure_certificates(balancer, wanted)
            self._update(balancer, wanted)
        if self._faults.fail_after_listener is not None:
            raise SyncError(self._faults.fail_after_listener)
        return self._ingress(service, balancer, wanted)

    def _refuse_if_gone(self, service: Obj) -> None:
        namespace, name = key_of(service)
        try:
            live = self._kube.get(f"/api/v1/namespaces/{namespace}/services/{name}")
        except KubeError as error:
            if error.status != 404:
                raise SyncError(f"Failed to check service status: {error.message}") from None
        else:
            if not live["metadata"].get("deletionTimestamp"):
                return
        raise SyncError("Service already deleted or no more exists")

    def _refuse_if_busy(self, balancer: LoadBalancer) -> None:
        if self._api.pending(balancer) is not None:
            raise SyncError(
                "Load Balancer might have work requests in progress, will wait and retry"
            )

    def _create(self, service: Obj, wanted: Wanted) -> LoadBalancer:
        namespace, name = key_of(service)
        certificates = self._certificates(wanted)
        step = "creating load balancer"
        try:
            request = self._api.create_load_balancer(
                service["metadata"]["uid"],
                namespace=namespace,
                service=name,
                backend=lambda: self._backend(namespace, name),
                certificates=certificates,
                listeners=list(wanted.listeners.values()),
                backend_sets=wanted.backend_sets,
            )
            step = "awaiting load balancer"
            self._await(request)
        except (ServiceError, ClientError) as error:
            raise SyncError(f"{step}: {error}") from error
        return request.load_balancer

    def _ensure_certificates(self, balancer: LoadBalancer, wanted: Wanted) -> None:
        if not wanted.requires_certificate:
            return
        try:
            # All Secrets are read each time, though only a name that is not there is created.
            for certificate in self._certificates(wanted):
                if certificate.name not in balancer.certificates:
                    self._await(self._api.create_certificate(balancer, certificate))
        except _ERRORS as error:
            raise SyncError(f"ensuring ssl certificates: {text_of(error)}") from error

    def _certificates(self, wanted: Wanted) -> list[Certificate]:
        found: dict[str, Certificate] = {}
        for kind, secret in (
            ("Listener", wanted.listener_secret),
            ("Backend", wanted.backend_secret),
        ):
            if secret is None:
                continue
            try:
                found[secret.name] = self._read_secret(secret)
            except (SyncError, KubeError) as error:
                raise SyncError(f"reading SSL {kind} Secret: {text_of(error)}") from error
        return list(found.values())

    def _read_secret(self, secret: Reference) -> Certificate:
        if not secret.namespace:
            raise SyncError("an empty namespace may not be set when a resource name is provided")
        path = f"/api/v1/namespaces/{secret.namespace}/secrets/{secret.name}"
        data = self._kube.get(path).get("data") or {}
        for key in ("tls.crt", "tls.key"):
            if key not in data:
                raise SyncError(f"{key} not found in secret {secret.namespace}/{secret.name}")
        return Certificate(
            secret.name,
            base64.b64decode(data["tls.crt"]),
            base64.b64decode(data["tls.key"]),
            base64.b64decode(data.get("passphrase", "")) or None,
            base64.b64decode(data.get("ca.crt", "")),
        )

    def _update(self, balancer: LoadBalancer, wanted: Wanted) -> None:
        # Back-end sets before the listeners that need them, and away after them; never two
        # changes at once.
        for port, certificate in sorted(wanted.backend_sets.items()):
            if port not in balancer.backend_sets:
                self._action(self._api.create_backend_set(balancer, port, certificate))
            elif balancer.backend_sets[port] != certificate:
                self._action(self._api.update_backend_set(balancer, port, certificate))
        for port, listener in sorted(wanted.listeners.items()):
            actual = balancer.listeners.get(port)
            if actual is None:
                self._action(self._api.create_listener(balancer, listener))
            elif listener_changed(actual, listener):
                self._action(self._api.update_listener(balancer, listener))
        for port in sorted(set(balancer.listeners) - set(wanted.listeners)):
            self._action(self._api.delete_listener(balancer, port))
        for port in sorted(set(balancer.backend_sets) - set(wanted.backend_sets)):
            self._action(self._api.delete_backend_set(balancer, port))

    def _action(self, request: WorkRequest) -> None:
        kind = "BackendSet" if "BackendSet" in request.operation else "listener"
        try:
            self._await(request)
        except (ServiceError, ClientError) as error:
            raise SyncError(f"updating {kind}: {error}") from error

    def _await(self, request: WorkRequest) -> None:
        self._api.await_work(request, self._stop)

    def _ingress(self, service: Obj, balancer: LoadBalancer, wanted: Wanted) -> list[Obj]:
        addresses = list(balancer.addresses)
        if self._faults.publish_inside and wanted.ip_mode != "Proxy":
            namespace, name = key_of(service)
            for port in wanted.listeners:
                addresses = [self._inside.endpoint(namespace, name, port)[0]]
        mode = {"ipMode": wanted.ip_mode} if wanted.ip_mode else {}
        return [{"ip": address, **mode} for address in addresses]

    def _event(self, service: Obj, reason: str, message: str) -> None:
        self._recorder.event(service, "Normal", reason, message)

    def _add_finalizer(self, service: Obj) -> None:
        if FINALIZER in (service["metadata"].get("finalizers") or []):
            return
        try:
            self._patch(service, {"metadata": {"finalizers": [FINALIZER]}})
        except KubeError as error:
            raise SyncError(
                f"failed to add load balancer cleanup finalizer: {error.message}"
            ) from error

    def _remove_finalizer(self, service: Obj) -> None:
        if FINALIZER not in (service["metadata"].get("finalizers") or []):
            return
        try:
            gone = {"metadata": {"$deleteFromPrimitiveList/finalizers": [FINALIZER]}}
            self._patch(service, gone)
        except KubeError as error:
            if error.status != 404:
                raise

    def _patch_status(self, service: Obj, ingress: list[Obj]) -> None:
        before = (service.get("status") or {}).get("loadBalancer", {}).get("ingress") or []
        if _comparable(before) == _comparable(ingress):
            return
        try:
            self._patch(service, {"status": {"loadBalancer": {"ingress": ingress or None}}})
        except KubeError as error:
            # The Service may be gone now that its finalizer is.
            if error.status != 404:
                raise SyncError(
                    f"failed to update load balancer status: {error.message}"
                ) from error

    def _patch(self, service: Obj, change: Obj) -> None:
        namespace, name = key_of(service)
        self._kube.patch(
            f"/api/v1/namespaces/{namespace}/services/{name}/status",
            change,
            content_type=STRATEGIC_PATCH,
            fieldManager=MANAGER,
        )


def _comparable(ingress: list[Obj]) -> list[tuple[str | None, str]]:
    # The API server fills in VIP where nothing was said.
    return [(one.get("ip"), one.get("ipMode") or "VIP") for one in ingress]
