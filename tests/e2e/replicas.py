"""
Two processes of one release, and a case that they share.

Each case is a release of its own with one certificate by dns-01 (http-01 where it matters which
of them the CA's request reaches). The test holds its Lease until both stand by, so that the first
one does everything from the account on.
"""

from __future__ import annotations

import signal
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from e2e.harness import (
    LEASES,
    Certbaton,
    leaf_hash,
    name_of,
    proofs,
    served_leaf,
    until,
)
from lab.kube import KubeError
from lab.process import Process, free_ports
from lab.world import NAMESPACE, World

Obj = dict[str, Any]

DURATION_S = 6.0
# For a machine that is busy; what it takes is told by what the tests print.
SLACK_S = 2.0


class Replica:
    """
    One process of a release, with ports of its own.

    It reaches the API server by `kubeconfig`, which may be changed before it is started.
    """

    def __init__(self, certbaton: Certbaton, name: str, solver_port: int) -> None:
        self.certbaton = certbaton
        self.name = name
        self.kubeconfig = certbaton.kubeconfig
        self.log: list[tuple[float, str]] = []
        (self.health_port,) = free_ports(1)
        config = yaml.safe_load(certbaton.config_file.read_text())
        config["healthPort"] = self.health_port
        config["solvers"]["http"]["port"] = solver_port
        self._config: Path = certbaton.folder / f"{name}.yaml"
        self._config.write_text(yaml.safe_dump(config))
        self.write_log = certbaton.folder / f"{name}-writes.log"
        self.process: Process | None = None

    def start(self, **environ: str) -> Replica:
        """Start ``certbaton run``."""
        program = Path(sys.executable).parent / "certbaton"
        kubeconfig = str(self.kubeconfig)
        self.process = Process(
            f"certbaton-{self.certbaton.release}-{self.name}",
            [program, "run", "--config", self._config, "--kubeconfig", kubeconfig],
            log=self.certbaton.folder / f"{self.name}.log",
            environ=self.certbaton.world.environ(
                CERTBATON_RELEASE=self.certbaton.release,
                CERTBATON_WRITE_LOG=str(self.write_log),
                **environ,
            ),
            on_line=lambda line: self.log.append((time.monotonic(), line)),
        ).start()
        return self

    @property
    def running(self) -> Process:
        assert self.process is not None
        return self.process

    def at(self, event: str) -> list[float]:
        """When it logged *event*, each time."""
        self.running.drain()
        return [at for at, line in self.log if f'"event": "{event}"' in line]

    def wait(self, event: str, timeout: float = 30.0, count: int = 1) -> float:
        """When it logged *event* for the *count*-th time."""
        until(
            lambda: len(self.at(event)) >= count,
            f"{self.name}: no {event}\n{self.running.log_tail()}",
            timeout,
        )
        return self.at(event)[count - 1]

    @property
    def stopped(self) -> bool:
        """Whether it is stopped by SIGSTOP."""
        status = Path(f"/proc/{self.running.pid}/status").read_text()
        return "State:\tT" in status

    def writes(self) -> list[str]:
        """What it has written."""
        return self.write_log.read_text().splitlines() if self.write_log.exists() else []

    def probe(self, path: str) -> tuple[int, str]:
        """What its health server answers."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{self.health_port}{path}", timeout=5) as answer:
            return int(answer.status), str(answer.read().decode())


class Case:
    """A release and its replicas ``one``, which comes first, and ``two``."""

    def __init__(self, world: World, name: str, solver: str = "dns") -> None:
        self.world = world
        self.name = name
        entry = world.certificate(name, [f"{name}.example.test"], [("shop", name)], solver=solver)
        config = world.configuration(entry, policy={"pollListener": "100ms", "backOff": ["1s"]})
        self.certbaton = Certbaton(world, config, release=name)
        (other,) = free_ports(1)
        self.one = Replica(self.certbaton, "one", other)
        # The CA's requests come to this one.
        self.two = Replica(self.certbaton, "two", world.solver_port)
        self.issued = world.pebble.certificates_issued()

    def begin(self, **environ: str) -> None:
        """Both are there, and ``one`` begins; *environ* is for it alone."""
        self.world.add_service("shop", self.name, f"{self.name}.example.test")
        held = {"holderIdentity": "the test", "leaseDurationSeconds": 3600}
        self.world.plane.admin.create(LEASES, {"metadata": {"name": self.name}, "spec": held})
        self.one.start(**environ)
        self.two.start()
        for replica in (self.one, self.two):
            replica.wait("standing_by")
        # whoever is stopped cannot be first
        self.two.running.send(signal.SIGSTOP)
        free = {"spec": {"holderIdentity": ""}}
        self.world.plane.admin.patch(f"{LEASES}/{self.name}", free)
        self.one.wait("leading")
        self.two.running.send(signal.SIGCONT)

    def holder(self) -> str:
        """Who holds the Lease."""
        try:
            spec = self.world.plane.admin.get(f"{LEASES}/{self.name}")["spec"]
        except KubeError:
            return ""
        return str(spec.get("holderIdentity") or "")

    def served(self) -> bool:
        """Whether the newest version is served, and noted so."""
        versions = self.certbaton.versions(self.name)
        return bool(versions) and bool(proofs(versions[-1]))

    def settle(self) -> None:
        """Wait for the end, and look: one certificate, one version, an idle Journal."""
        until(self.served, f"not served\n{self.two.running.log_tail()}", 45.0)
        until(
            lambda: "pending" not in self.certbaton.journal(self.name),
            f"still open\n{self.two.running.log_tail()}",
        )
        (version,) = self.certbaton.versions(self.name)
        assert self.world.tls_secret("shop", self.name) == name_of(version)
        assert served_leaf(self.world, "shop", self.name) == leaf_hash(version)
        assert self.world.pebble.certificates_issued() - self.issued == 1
        assert self.world.dns is not None
        assert self.world.dns.txt(f"_acme-challenge.{self.name}.example.test.") == []

    def states(self) -> dict[str, str]:
        """The resourceVersions of everything that certbaton writes but Events and the Lease."""
        found = self.world.plane.admin.list(
            f"/api/v1/namespaces/{NAMESPACE}/secrets",
            labelSelector=f"certbaton.io/instance={self.name}.{NAMESPACE}",
        )["items"]
        found.append(self.world.service("shop", self.name))
        return {name_of(obj): obj["metadata"]["resourceVersion"] for obj in found}

    def end(self) -> None:
        for replica in (self.one, self.two):
            if replica.process is not None:
                replica.process.send(signal.SIGCONT)
                replica.process.stop(deadline=30.0)


def told(what: str, seconds: float) -> None:
    """Measured, for whoever runs this with -s."""
    print(f"{what}: {seconds:.2f} s", file=sys.stderr)
