"""One load balancer: certificates by name, and listeners with real sockets."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from lab.oci.faults import Faults
from lab.oci.ports import Loopback, PortMap
from lab.oci.tls import (
    DEFAULT_SUITE,
    Certificate,
    Refused,
    check_suite,
    server_context,
)
from lab.oci.wire import Backend, Wire


@dataclass(frozen=True)
class Listener:
    """A listener as the API describes it."""

    port: int
    protocol: str = "TCP"
    certificate: str | None = None
    suite: str | None = None
    protocols: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.protocol}-{self.port}"

    @property
    def effective_suite(self) -> str:
        """What OCI uses where nothing is said."""
        return self.suite or DEFAULT_SUITE


class LoadBalancer:
    """
    The load balancer of one Service (its name is the Service's UID).

    Listener port p is bound at every address, at the port that the lab's port map has for p.
    Certificates are only ever added. Each change of a listener closes it for *interruption*
    seconds: new connections are refused, open ones cut; then it is back.
    """

    def __init__(
        self,
        uid: str,
        *,
        namespace: str,
        service: str,
        ports: PortMap,
        backend: Backend,
        faults: Faults,
        addresses: int = 1,
        interruption: float = 0.3,
        wait: Callable[[float], object] | None = None,
    ) -> None:
        self.uid = uid
        self.id = f"ocid1.loadbalancer.oc1.lab.{uid}"
        self.namespace = namespace
        self.service = service
        self.addresses: list[str] = [Loopback.take() for _ in range(addresses)]
        self.interruption = interruption
        # Backend sets by Service port; the value is the certificate for TLS towards the pods.
        self.backend_sets: dict[int, str | None] = {}
        self._ports = ports
        self._backend = backend
        self._faults = faults
        self._wait = wait or threading.Event().wait
        self._lock = threading.RLock()
        self._certificates: dict[str, Certificate] = {}
        self._listeners: dict[int, Listener] = {}
        self._wires: dict[int, list[Wire]] = {}
        self._closed = False

    # What tests and the demo look at.

    @property
    def certificates(self) -> list[str]:
        """Names, in the order in which they came."""
        with self._lock:
            return list(self._certificates)

    @property
    def listeners(self) -> dict[int, Listener]:
        """By Service port."""
        with self._lock:
            return dict(self._listeners)

    def certificate(self, name: str) -> Certificate:
        """The content under *name*."""
        with self._lock:
            return self._certificates[name]

    def certificate_of(self, port: int) -> str | None:
        """The name of the certificate on the listener of Service port *port*."""
        with self._lock:
            listener = self._listeners.get(port)
            return listener.certificate if listener else None

    def endpoint(self, port: int, address: int = 0) -> tuple[str, int]:
        """Where Service port *port* is really reached."""
        return self.addresses[address], self._ports(port)

    # What the API does to it.

    def check_certificate(self, certificate: Certificate) -> None:
        """Raise what CreateCertificate answers, if it is not success."""
        if {"*", certificate.name} & self._faults.refuse:
            raise Refused("InvalidParameter", "The certificate is not acceptable")
        certificate.check()
        with self._lock:
            if certificate.name in self._certificates:
                raise Refused(
                    "CertificateAlreadyExists",
                    f"Certificate '{certificate.name}' already exists",
                    409,
                )
            if len(self._certificates) >= self._faults.certificate_limit:
                raise Refused(
                    "LimitExceeded",
                    "Maximum number of certificates of this load balancer has been reached: "
                    f"{self._faults.certificate_limit}",
                )

    def add_certificate(self, certificate: Certificate) -> None:
        """Keep *certificate* under its name, for good."""
        self.check_certificate(certificate)
        with self._lock:
            self._certificates[certificate.name] = certificate

    def check_listener(self, listener: Listener) -> None:
        """Raise what the API answers for this listener, if it is not success."""
        if listener.certificate is None:
            return
        check_suite(listener.effective_suite, listener.protocols)
        with self._lock:
            if listener.certificate not in self._certificates:
                raise Refused(
                    "InvalidParameter", f"Certificate '{listener.certificate}' does not exist"
                )

    def put_listener(self, listener: Listener) -> None:
        """Make the listener of that port be *listener*; blocks while the old one is down."""
        self.check_listener(listener)
        if listener.port in self._listeners:
            self._close_wires(listener.port)
            self._wait(self.interruption)
        wires = self._make_wires(listener)
        with self._lock:
            if self._closed:
                return
            self._listeners[listener.port] = listener
            self._wires[listener.port] = wires
            for wire in wires:
                wire.open()

    def remove_listener(self, port: int) -> None:
        """The listener is gone, for good."""
        self._close_wires(port)
        with self._lock:
            self._listeners.pop(port, None)

    def close(self) -> None:
        """Everything off the wire."""
        with self._lock:
            self._closed = True
            ports = list(self._wires)
        for port in ports:
            self._close_wires(port)

    def _make_wires(self, listener: Listener) -> list[Wire]:
        context = None
        if listener.certificate is not None:
            context = server_context(
                self.certificate(listener.certificate),
                suite=listener.effective_suite,
                protocols=listener.protocols,
                alert=lambda: listener.port in self._faults.tls_alert,
            )
        return [
            Wire(address, self._ports(listener.port), backend=self._backend, tls=lambda: context)
            for address in self.addresses
        ]

    def _close_wires(self, port: int) -> None:
        with self._lock:
            wires = self._wires.pop(port, [])
        for wire in wires:
            wire.close()
