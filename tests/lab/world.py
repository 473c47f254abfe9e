"""
The whole lab in one block: control plane, CA, DNS, cloud, the chart, and the daemon.

The daemon runs as in a cluster: with a token of the chart's ServiceAccount, never as admin, and
with the configuration that the chart installed, read back from its ConfigMap.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from lab.controlplane import ControlPlane
from lab.dns import Knot
from lab.kube import KubeError
from lab.oci import CloudController, Faults, LabApp, PortMap
from lab.pebble import Pebble
from lab.process import LabError, Process, free_ports

CHART = Path(__file__).parents[2] / "helm" / "certbaton"
RELEASE = NAMESPACE = "certbaton"
PREFIX = "service.beta.kubernetes.io/oci-load-balancer-"
TLS_SECRET = f"{PREFIX}tls-secret"
SSL_PORTS = f"{PREFIX}ssl-ports"
DOMAIN = "example.test"
LIFETIME_S = 60

Obj = dict[str, Any]


class World:
    """
    *lifetime* is that of certificates, in seconds; *poll_interval* the cloud controller's.

    *dns* starts a real name server (Knot) that takes dynamic updates and answers the CA.
    *folder* keeps logs and keys; without it they go with the block.
    """

    def __init__(
        self,
        *,
        lifetime: int = LIFETIME_S,
        poll_interval: float = 1.0,
        interruption: float = 0.3,
        dns: bool = False,
        folder: Path | None = None,
        faults: Faults | None = None,
        pebble: Mapping[str, Any] | None = None,
        workers: int = 1,
        addresses: int = 1,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.lifetime = lifetime
        self._stack = ExitStack()
        if folder is None:
            temporary = tempfile.TemporaryDirectory(prefix="certbaton-world-")
            self._stack.callback(temporary.cleanup)
            folder = Path(temporary.name)
        self.folder = folder
        self.ports = PortMap()
        self.solver_port, self.health_port = free_ports(2)
        self._wanted = (poll_interval, interruption, dns, faults, dict(pebble or {}), workers)
        self._addresses = addresses
        self._say = say
        self.config: Obj = {}
        self.dns: Knot | None = None
        self._daemon: Process | None = None
        self._daemons = 0
        self.lines: list[Obj] = []
        self._lines_changed = threading.Condition()
        self._listeners: list[Callable[[Obj], None]] = []

    # --- up and down ------------------------------------------------------------------

    def __enter__(self) -> Self:
        with self._stack:  # on failure everything that was started is stopped
            self._start()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def _start(self) -> None:
        poll_interval, interruption, dns, faults, pebble, workers = self._wanted
        if dns:
            self.dns = self._stack.enter_context(
                Knot(self.folder / "knot", zone=DOMAIN, above=True)
            )
        self.pebble = Pebble(
            self.folder / "pebble",
            http_port=self.ports(80),
            dns_server=self.dns.address if self.dns else None,
            **{"profiles": {"lab": self.lifetime, "long": 7_776_000}, **pebble},
        )
        self.plane = ControlPlane(self.folder / "plane")
        with ThreadPoolExecutor(2) as pool:  # they start at the same time
            for _ in pool.map(self._stack.enter_context, (self.pebble, self.plane)):
                pass
        self._say("API server and CA answer")
        self.app = LabApp(challenge_upstream=("127.0.0.1", self.solver_port))
        self._stack.callback(self.app.close)
        self.cloud = self._stack.enter_context(
            CloudController(
                self.plane.admin,
                backends=lambda namespace, name: self.app.address,
                poll_interval=poll_interval,
                interruption=interruption,
                faults=faults,
                workers=workers,
                ports=self.ports,
                addresses=self._addresses,
            )
        )
        self._stack.callback(self.cloud.close)
        self.plane.create_namespace(NAMESPACE)
        self._stack.callback(self.stop_daemon)

    # --- what users have ---------------------------------------------------------------

    def add_service(
        self,
        namespace: str,
        name: str,
        *names: str,
        annotations: Mapping[str, str] | None = None,
        ports: list[Obj] | None = None,
        wait: bool = True,
    ) -> Obj:
        """Make the Service that people have today; *names* get its address in DNS."""
        self.plane.create_namespace(namespace)
        self.plane.admin.create(
            f"/api/v1/namespaces/{namespace}/services",
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": name, "annotations": dict(annotations or {})},
                "spec": {
                    "type": "LoadBalancer",
                    "selector": {"app": name},
                    "ports": ports or [{"name": "http", "port": 80, "targetPort": 8080}],
                },
            },
        )
        if wait:
            address = self.address_of(namespace, name)
            for dns_name in names:
                self.set_a(dns_name, address)
        return self.service(namespace, name)

    def address_of(self, namespace: str, name: str, timeout: float = 60.0) -> str:
        """The load balancer's address in the Service's status, waited for."""

        def address() -> str | None:
            status = self.service(namespace, name).get("status", {}).get("loadBalancer", {})
            ingress = status.get("ingress") or [{}]
            found = ingress[0].get("ip")
            return str(found) if found else None

        trouble = f"no address at Service {namespace}/{name}"
        return str(self.wait_for(address, timeout, trouble))

    def set_a(self, name: str, address: str) -> None:
        """Let *name* have *address* in the DNS that the CA asks."""
        if self.dns is not None:
            self.dns.set_a(f"{name}.", address)
        else:
            self.pebble.set_a(name, address)

    def service(self, namespace: str, name: str) -> Obj:
        """The Service as it is now."""
        return self.plane.admin.get(f"/api/v1/namespaces/{namespace}/services/{name}")

    def tls_secret(self, namespace: str, name: str) -> str | None:
        """The name that the Service's tls-secret annotation holds, without a namespace."""
        annotations = self.service(namespace, name)["metadata"].get("annotations", {})
        value = annotations.get(TLS_SECRET)
        return value.rpartition("/")[2] if value else None

    def secrets(self, kind: str = "kubernetes.io/tls", namespace: str = NAMESPACE) -> list[Obj]:
        """Secrets of a type, oldest first."""
        found = self.plane.admin.list(
            f"/api/v1/namespaces/{namespace}/secrets", fieldSelector=f"type={kind}"
        )["items"]
        return sorted(found, key=lambda item: int(item["metadata"]["resourceVersion"]))

    # --- configuration and chart ---------------------------------------------------------

    def certificate(
        self,
        name: str,
        names: list[str],
        services: list[tuple[str, str]],
        *,
        solver: str = "http",
        **more: Any,
    ) -> Obj:
        """One entry of ``certificates``; the probe is told the port that stands for 443."""
        return {
            "name": name,
            "dnsNames": names,
            "issuer": "lab",
            "solver": solver,
            "services": [
                {
                    "namespace": namespace,
                    "name": service,
                    "probe": {"port": self.ports(443)},
                }
                for namespace, service in services
            ],
            **more,
        }

    def configuration(self, *certificates: Obj, **more: Any) -> Obj:
        """The configuration of the lab's daemon; *more* replaces or adds top-level keys."""
        solvers: Obj = {
            "http": {"type": "http-01", "address": "127.0.0.1", "port": self.solver_port}
        }
        if self.dns is not None:
            solvers["dns"] = {
                "type": "dns-01",
                "provider": "rfc2136",
                "rfc2136": {
                    "server": self.dns.server,
                    "port": self.dns.port,
                    "zone": self.dns.zone.rstrip("."),
                    "tsigKeyName": self.dns.key_name.rstrip("."),
                    "tsigAlgorithm": self.dns.key_algorithm,
                    "tsigSecretFile": str(self.dns.key_file),
                },
            }
        return {
            "issuers": {
                "lab": {
                    "directory": self.pebble.directory,
                    "caBundle": str(self.pebble.ca_file),
                    "profile": "lab",
                    # Pebble advises any moment of a life as short as this
                    "renewalInfo": False,
                }
            },
            "solvers": solvers,
            "certificates": list(certificates),
            "healthPort": self.health_port,
            # of CAA records the CA's own server is asked, whatever this machine's does
            "resolvers": [self.dns.address if self.dns else self.pebble.dns_server],
            **more,
            # of certificates that live a minute, more than four a week are to be had
            "policy": {
                "orderLimitWindow": f"{self.lifetime}s",
                **more.get("policy", {"pollListener": "250ms"}),
            },
        }

    def install(self, config: Obj) -> None:
        """Install or upgrade the chart with *config*, and read back what it installed."""
        values = self.folder / "values.yaml"
        values.write_text(yaml.safe_dump({"config": config}))
        self.plane.helm(
            "upgrade", "--install", RELEASE, CHART, "--namespace", NAMESPACE, "--values", values
        )
        self.config = config

    def daemon_files(self) -> tuple[Path, Path]:
        """The ConfigMap's configuration and a kubeconfig with the ServiceAccount's token."""
        path = f"/api/v1/namespaces/{NAMESPACE}/configmaps/{RELEASE}"
        installed = self.plane.admin.get(path)["data"]["config.yaml"]
        config = self.folder / "config.yaml"
        config.write_text(installed)
        token = self.plane.token(NAMESPACE, RELEASE)
        return config, self.plane.kubeconfig_for(token, NAMESPACE)

    @property
    def user(self) -> str:
        """The daemon's user name in the audit log."""
        return f"system:serviceaccount:{NAMESPACE}:{RELEASE}"

    # --- the daemon ------------------------------------------------------------------------

    def command(self, *words: str) -> list[str]:
        """The command line of one of certbaton's commands, against this lab."""
        config, kubeconfig = self.daemon_files()
        program = Path(sys.executable).parent / "certbaton"
        return [str(program), *words, "--config", str(config), "--kubeconfig", str(kubeconfig)]

    def environ(self, **more: str) -> dict[str, str]:
        """The daemon's environment: another time zone than UTC, as tests are to run."""
        return {
            "CERTBATON_RELEASE": RELEASE,
            "CERTBATON_NAMESPACE": NAMESPACE,
            "TZ": "Asia/Tokyo",
            "PYTHONWARNINGS": "error",
            **more,
        }

    def start_daemon(self, **environ: str) -> Process:
        """Start ``certbaton run``; its log lines arrive in `lines`."""
        self._daemons += 1
        self._daemon = Process(
            "certbaton",
            self.command("run"),
            log=self.folder / f"daemon-{self._daemons}.log",
            environ=self.environ(**environ),
            on_line=self._on_line,
        ).start()
        return self._daemon

    def stop_daemon(self) -> None:
        """Stop it politely, if it runs."""
        if self._daemon is not None:
            self._daemon.stop(deadline=30.0)

    @property
    def daemon(self) -> Process:
        """The daemon that was started last."""
        if self._daemon is None:
            raise LabError("no daemon was started")
        return self._daemon

    def on_daemon_line(self, listener: Callable[[Obj], None]) -> None:
        """Call *listener* with each line that the daemon logs."""
        self._listeners.append(listener)

    def _on_line(self, line: str) -> None:
        try:
            entry = json.loads(line)
        except ValueError:
            entry = {"event": "unreadable", "line": line}
        entry["seen"] = datetime.now(UTC)
        for listener in self._listeners:
            with contextlib.suppress(Exception):
                listener(entry)
        with self._lines_changed:
            self.lines.append(entry)
            self._lines_changed.notify_all()

    # --- waiting ----------------------------------------------------------------------------

    def wait_for(
        self, what: Callable[[], Any], timeout: float, trouble: str, interval: float = 0.1
    ) -> Any:
        """What *what* gives once true; LabError with *trouble* and the daemon's log if never."""
        end = time.monotonic() + timeout
        while True:
            try:
                found = what()
            except KubeError as error:
                if error.status != 404:
                    raise
                found = None
            if found:
                return found
            if time.monotonic() > end:
                log = self._daemon.log_tail(15) if self._daemon else "(no daemon)"
                raise LabError(f"{trouble} within {timeout:g} s; the daemon's log ends:\n{log}")
            time.sleep(interval)

    def wait_served(self, namespace: str, name: str, version: str, timeout: float = 60.0) -> None:
        """Wait until the Service names *version* and it is noted as served there."""

        def served() -> bool:
            path = f"/api/v1/namespaces/{NAMESPACE}/secrets/{version}"
            secret = self.plane.admin.get(path)
            noted = secret["metadata"].get("annotations", {}).get("certbaton.io/served", "{}")
            return self.tls_secret(
                namespace, name
            ) == version and f"{namespace}/{name}" in json.loads(noted)

        self.wait_for(served, timeout, f"{version} not served at {namespace}/{name}")

    def wait_next_version(
        self, namespace: str, name: str, previous: str | None, timeout: float = 90.0
    ) -> str:
        """Wait until the Service names another version than *previous*, and it is served."""

        def changed() -> str | None:
            named = self.tls_secret(namespace, name)
            return named if named != previous else None

        version = str(self.wait_for(changed, timeout, f"{namespace}/{name} was not repointed"))
        self.wait_served(namespace, name, version, timeout)
        return version
