"""What the end-to-end tests share: one certbaton in a world, as its commands and its objects."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509

from lab.kube import KubeError
from lab.oci.prober import handshake
from lab.oci.tls import leaf_sha256
from lab.process import Process
from lab.world import NAMESPACE, RELEASE, World

Obj = dict[str, Any]

SERVED = "certbaton.io/served"
MARKED = "certbaton.io/marked-for-deletion"
KILLED = -9
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
LEASE = {"duration": "6s", "renewEvery": "2s"}


@dataclass(frozen=True)
class Ended:
    """A command that has ended: its exit code, what it printed, and its log lines among that."""

    code: int
    output: str
    errors: str

    @property
    def lines(self) -> list[Obj]:
        """The log lines."""
        return [json.loads(line) for line in self.output.splitlines() if line.startswith("{")]

    def events(self, name: str) -> list[Obj]:
        """The log lines that tell of *name*."""
        return [line for line in self.lines if line["event"] == name]

    @property
    def done(self) -> list[str]:
        """The actions that were carried out, in order."""
        return [line["action"] for line in self.events("done")]

    def __str__(self) -> str:
        return f"exit code {self.code}\n{self.output}\n{self.errors}"


class Certbaton:
    """
    One release in *world*, with a configuration of its own.

    Its token is that of the chart's ServiceAccount. Another *release* than the chart's has its
    own account, Journals, versions and field manager, so that cases don't meet.
    """

    def __init__(
        self,
        world: World,
        config: Obj,
        *,
        release: str = RELEASE,
        kubeconfig: Path | None = None,
    ) -> None:
        self.world = world
        self.release = release
        self.folder = world.folder / f"release-{release}"
        self.folder.mkdir(exist_ok=True)
        self.config_file = self.folder / "config.yaml"
        self.write_log = self.folder / "writes.log"
        if kubeconfig is None:
            kubeconfig = world.folder / "kubeconfig-e2e"
            if not kubeconfig.exists():
                token = world.plane.token(NAMESPACE, RELEASE)
                world.plane.kubeconfig_for(token, NAMESPACE).rename(kubeconfig)
        self.kubeconfig = kubeconfig
        if release != RELEASE:
            allow_lease(world, release)
        self._starts = 0
        self.configure(config)

    def configure(self, config: Obj) -> None:
        """Let *config* be the configuration from the next start on; its Lease lasts shortly."""
        self.config_file.write_text(yaml.safe_dump({"lease": LEASE, **config}))

    # --- commands ---------------------------------------------------------------------

    def command(self, *words: str) -> list[str]:
        """The command line of one of its commands."""
        program = Path(sys.executable).parent / "certbaton"
        where = ["--config", str(self.config_file)]
        if words[0] != "config":
            where += ["--kubeconfig", str(self.kubeconfig)]
        return [str(program), *words, *where]

    def call(self, *words: str) -> Ended:
        """Run a command to its end."""
        return self._call(words, {})

    def _call(self, words: Sequence[str], environ: Mapping[str, str]) -> Ended:
        done = subprocess.run(
            self.command(*words),
            env={**os.environ, **self.world.environ(CERTBATON_RELEASE=self.release), **environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        ended = Ended(done.returncode, done.stdout, done.stderr)
        with (self.folder / "commands.log").open("a") as log:
            log.write(f"$ {' '.join(words)} {environ}\n{ended}\n")
        return ended

    def once(self, patience: str = "30s", **environ: str) -> Ended:
        """``certbaton once``."""
        ended = self._call(("once", "--timeout", patience), environ)
        if ended.code == KILLED:
            self.forget_lease()
        return ended

    def forget_lease(self) -> None:
        """As if the Lease of a process that was killed had run out (see test_replicas.py)."""
        try:
            self.world.plane.admin.delete(f"{LEASES}/{self.release}")
        except KubeError as error:
            if error.status != 404:
                raise

    def writes(self) -> list[str]:
        """What was written since the last call of this, with CERTBATON_WRITE_LOG set."""
        if not self.write_log.exists():
            return []
        found = self.write_log.read_text().splitlines()
        self.write_log.unlink()
        return found

    def start(self, on_line: Callable[[str], None] | None = None, **environ: str) -> Process:
        """Start ``certbaton run``."""
        self._starts += 1
        return Process(
            f"certbaton-{self.release}",
            self.command("run"),
            log=self.folder / f"run-{self._starts}.log",
            environ={**self.world.environ(CERTBATON_RELEASE=self.release), **environ},
            on_line=on_line,
        ).start()

    # --- its objects ------------------------------------------------------------------

    def versions(self, certificate: str) -> list[Obj]:
        """The TLS Secrets of a certificate, oldest first."""
        found = self.world.plane.admin.list(
            f"/api/v1/namespaces/{NAMESPACE}/secrets",
            labelSelector=f"certbaton.io/instance={self.release}.{NAMESPACE},"
            f"certbaton.io/certificate={certificate},certbaton.io/kind=version",
        )["items"]
        return sorted(found, key=not_before)

    def journal(self, certificate: str) -> Obj:
        """What the Journal of a certificate holds; empty where there is none."""
        name = f"journal.{certificate}.{self.release}.{NAMESPACE}"
        try:
            found = self.world.plane.admin.get(f"/api/v1/namespaces/{NAMESPACE}/secrets/{name}")
        except KubeError as error:
            if error.status != 404:
                raise
            return {}
        journal: Obj = json.loads(base64.b64decode(found["data"]["journal"]))
        return journal


def allow_lease(world: World, release: str) -> None:
    """Let the chart's ServiceAccount hold the Lease of another release than its own."""
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}"
    name = f"lease-of-{release}"
    rule = {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": [release],
        "verbs": ["get", "list", "watch", "update"],
    }
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    account = {"kind": "ServiceAccount", "name": RELEASE, "namespace": NAMESPACE}
    bodies: dict[str, Obj] = {
        "roles": {"rules": [rule]},
        "rolebindings": {"roleRef": role, "subjects": [account]},
    }
    for kind, body in bodies.items():
        try:
            world.plane.admin.create(f"{rbac}/{kind}", {"metadata": {"name": name}, **body})
        except KubeError as error:
            if error.status != 409:
                raise


def content(secret: Obj, key: str) -> bytes:
    """One entry of a Secret."""
    return base64.b64decode(secret["data"][key])


def leaf(secret: Obj) -> x509.Certificate:
    """The leaf of a version."""
    return x509.load_pem_x509_certificate(content(secret, "tls.crt"))


def leaf_hash(secret: Obj) -> str:
    """The leaf of a version, as a handshake shows it."""
    return leaf_sha256(content(secret, "tls.crt"))


def not_before(secret: Obj) -> datetime:
    """When a version begins to be valid."""
    return leaf(secret).not_valid_before_utc


def name_of(secret: Obj) -> str:
    """``metadata.name``."""
    return str(secret["metadata"]["name"])


def proofs(secret: Obj) -> dict[str, str]:
    """How the handovers of a version ended, by Service."""
    noted = json.loads(secret["metadata"].get("annotations", {}).get(SERVED, "{}"))
    return {service: proof["how"] for service, proof in noted.items()}


def served_leaf(world: World, namespace: str, name: str, address: int = 0) -> str | None:
    """The leaf that port 443 of a Service's load balancer shows, None for none."""
    balancer = world.cloud.find_load_balancer(namespace, name)
    if balancer is None:
        return None
    try:
        return handshake(*balancer.endpoint(443, address), "any.example.test")
    except OSError:
        return None


def our_events(world: World, namespace: str, name: str) -> list[Obj]:
    """The Events that certbaton posted about a Service."""
    found = world.plane.admin.list(
        f"/api/v1/namespaces/{namespace}/events",
        fieldSelector=f"involvedObject.kind=Service,involvedObject.name={name}",
    )["items"]
    return [event for event in found if event["source"]["component"] == "certbaton"]


def until(condition: Callable[[], Any], trouble: str, timeout: float = 60.0) -> Any:
    """What *condition* gives once it is true; fails with *trouble* after *timeout* seconds."""
    end = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < end, f"{trouble} (waited {timeout:g} s)"
        time.sleep(0.05)
    return found
