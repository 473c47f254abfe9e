"""A stand-in for OCI's load balancer API: work requests that take their time, and errors."""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from lab.oci.faults import Faults
from lab.oci.loadbalancer import Listener, LoadBalancer
from lab.oci.ports import PortMap
from lab.oci.tls import Certificate, Refused
from lab.oci.wire import Backend

_SDK = "Oracle-GoSDK/65.93.1"
_RETRYABLE = (429, 500, 502, 503, 504)


class ServiceError(Exception):
    """An error of the API, with the text that the Go SDK makes of it."""

    def __init__(self, status: int, code: str, message: str, operation: str) -> None:
        self.status = status
        self.code = code
        stamp = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S +0000 GMT")
        request = "/".join(secrets.token_hex(16).upper() for _ in range(3))
        super().__init__(
            f"Error returned by LoadBalancer Service. Http Status Code: {status}. "
            f"Error Code: {code}. Opc request id: {request}. Message: {message}\n"
            f"Operation Name: {operation}\n"
            f"Timestamp: {stamp}\n"
            f"Client Version: {_SDK}\n"
            f"Request Endpoint: POST https://iaas.lab.oraclecloud.com/20170115/loadBalancers\n"
            "Troubleshooting Tips: See https://docs.oracle.com/iaas/Content/API/References/"
            f"apierrors.htm#apierrors_{status}__{status}_{code.lower()} for more information "
            "about resolving this error.\n"
            "If you are unable to resolve this LoadBalancer issue, please contact Oracle support "
            "and provide them this full error message."
        )


class ClientError(Exception):
    """An error without status or operation: a failed work request, the client's own limits."""


class Stopped(Exception):
    """The controller was told to stop while it waited."""


@dataclass
class WorkRequest:
    """One asynchronous change of a load balancer."""

    id: str
    operation: str
    load_balancer: LoadBalancer
    state: str = "IN_PROGRESS"
    message: str = ""


class LoadBalancerApi:
    """
    The cloud: it goes on while the controller is stopped.

    *work_seconds* is what each work request takes by itself (a change of a listener also takes
    that listener's interruption); *poll_interval* is the pace of whoever awaits one.
    """

    def __init__(
        self,
        faults: Faults,
        *,
        ports: PortMap,
        poll_interval: float,
        work_seconds: float,
        work_timeout: float,
        interruption: float,
        addresses: int = 1,
    ) -> None:
        self.faults = faults
        self.ports = ports
        self.poll_interval = poll_interval
        self.work_seconds = work_seconds
        self.work_timeout = work_timeout
        self.interruption = interruption
        self.addresses = addresses
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._balancers: dict[str, LoadBalancer] = {}
        self._pending: dict[str, WorkRequest] = {}
        self._threads: list[threading.Thread] = []
        self._calls: list[tuple[str, str]] = []

    @property
    def calls(self) -> list[tuple[str, str]]:
        """(operation, Service's UID) of every change that was accepted, in order."""
        with self._lock:
            return list(self._calls)

    def balancers(self) -> list[LoadBalancer]:
        """All that exist."""
        with self._lock:
            return list(self._balancers.values())

    def find(self, uid: str) -> LoadBalancer | None:
        """ListLoadBalancers by name."""
        self._answer("ListLoadBalancers")
        with self._lock:
            return self._balancers.get(uid)

    def pending(self, balancer: LoadBalancer) -> WorkRequest | None:
        """The work request in progress on *balancer* (ListWorkRequests)."""
        self._answer("ListWorkRequests")
        with self._lock:
            return self._pending.get(balancer.uid)

    def create_load_balancer(
        self,
        uid: str,
        *,
        namespace: str,
        service: str,
        backend: Backend,
        certificates: list[Certificate],
        listeners: list[Listener],
        backend_sets: dict[int, str | None],
    ) -> WorkRequest:
        """A new load balancer with everything on it at once."""
        balancer = LoadBalancer(
            uid,
            namespace=namespace,
            service=service,
            ports=self.ports,
            backend=backend,
            faults=self.faults,
            addresses=self.addresses,
            interruption=self.interruption,
            wait=self._closed.wait,
        )

        def check() -> None:
            for certificate in certificates:
                balancer.check_certificate(certificate)

        def work() -> None:
            for certificate in certificates:
                balancer.add_certificate(certificate)
            balancer.backend_sets.update(backend_sets)
            for listener in listeners:
                balancer.put_listener(listener)
            with self._lock:
                self._balancers[uid] = balancer

        return self._begin("CreateLoadBalancer", balancer, check, work)

    def delete_load_balancer(self, balancer: LoadBalancer) -> WorkRequest:
        def work() -> None:
            balancer.close()
            with self._lock:
                self._balancers.pop(balancer.uid, None)

        return self._begin("DeleteLoadBalancer", balancer, None, work)

    def create_certificate(self, balancer: LoadBalancer, certificate: Certificate) -> WorkRequest:
        return self._begin(
            "CreateCertificate",
            balancer,
            lambda: balancer.check_certificate(certificate),
            lambda: balancer.add_certificate(certificate),
        )

    def create_backend_set(
        self, balancer: LoadBalancer, port: int, certificate: str | None
    ) -> WorkRequest:
        def work() -> None:
            balancer.backend_sets[port] = certificate

        return self._begin("CreateBackendSet", balancer, None, work)

    def update_backend_set(
        self, balancer: LoadBalancer, port: int, certificate: str | None
    ) -> WorkRequest:
        def work() -> None:
            balancer.backend_sets[port] = certificate

        return self._begin("UpdateBackendSet", balancer, None, work)

    def delete_backend_set(self, balancer: LoadBalancer, port: int) -> WorkRequest:
        def work() -> None:
            balancer.backend_sets.pop(port, None)

        return self._begin("DeleteBackendSet", balancer, None, work)

    def create_listener(self, balancer: LoadBalancer, listener: Listener) -> WorkRequest:
        return self._put_listener("CreateListener", balancer, listener)

    def update_listener(self, balancer: LoadBalancer, listener: Listener) -> WorkRequest:
        return self._put_listener("UpdateListener", balancer, listener)

    def delete_listener(self, balancer: LoadBalancer, port: int) -> WorkRequest:
        return self._begin("DeleteListener", balancer, None, lambda: balancer.remove_listener(port))

    def await_work(self, request: WorkRequest, stop: threading.Event) -> None:
        """Poll until *request* has ended; its failure carries neither status nor operation."""
        deadline = time.monotonic() + self.work_timeout
        while True:
            if stop.wait(self.poll_interval):
                raise Stopped
            try:
                self._answer("GetWorkRequest")
            except ServiceError as error:
                if error.status not in _RETRYABLE:
                    raise
            else:
                if request.state == "SUCCEEDED":
                    return
                if request.state == "FAILED":
                    raise ClientError(f'WorkRequest "{request.id}" failed: {request.message}')
            if time.monotonic() > deadline:
                raise ClientError("context deadline exceeded")

    def close(self) -> None:
        """The cloud is gone, with every load balancer."""
        self._closed.set()
        for thread in list(self._threads):
            thread.join(10)
        for balancer in self.balancers():
            balancer.close()

    def _put_listener(
        self, operation: str, balancer: LoadBalancer, listener: Listener
    ) -> WorkRequest:
        return self._begin(
            operation,
            balancer,
            lambda: balancer.check_listener(listener),
            lambda: balancer.put_listener(listener),
        )

    def _answer(self, operation: str) -> None:
        fault = self.faults.take_api(operation)
        if fault is None:
            return
        if fault.text is not None:
            raise ClientError(fault.text)
        raise ServiceError(fault.status, fault.code, fault.message, operation)

    def _begin(
        self,
        operation: str,
        balancer: LoadBalancer,
        check: Callable[[], None] | None,
        work: Callable[[], None],
    ) -> WorkRequest:
        self._answer(operation)
        with self._lock:
            if balancer.uid in self._pending:
                raise ServiceError(
                    409,
                    "Conflict",
                    f"Load balancer {balancer.id} has an operation in progress and cannot be "
                    "changed until it has ended",
                    operation,
                )
            try:
                if check is not None:
                    check()
            except Refused as error:
                raise ServiceError(error.status, error.code, error.message, operation) from None
            number = next(self._numbers)
            request = WorkRequest(
                f"ocid1.loadbalancerworkrequest.oc1.lab.{number:06d}", operation, balancer
            )
            self._pending[balancer.uid] = request
            self._calls.append((operation, balancer.uid))
            thread = threading.Thread(
                target=self._work, args=(request, work), name=f"oci-{operation}", daemon=True
            )
            self._threads = [one for one in self._threads if one.is_alive()] + [thread]
            thread.start()
        return request

    def _work(self, request: WorkRequest, work: Callable[[], None]) -> None:
        state, message = "SUCCEEDED", ""
        try:
            self._closed.wait(self.work_seconds)
            while request.operation in self.faults.hang and not self._closed.is_set():
                self._closed.wait(0.02)
            if request.operation in self.faults.fail_work:
                state, message = "FAILED", self.faults.fail_work[request.operation]
            elif not self._closed.is_set():
                work()
        except Refused as error:
            state, message = "FAILED", error.message
        except OSError as error:
            state, message = "FAILED", f"the lab could not do it: {error}"
        finally:
            with self._lock:
                request.message, request.state = message, state
                self._pending.pop(request.load_balancer.uid, None)
