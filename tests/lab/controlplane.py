"""
A real Kubernetes API server with its etcd, as two processes on 127.0.0.1.

There is no controller manager and no kubelet: no default ServiceAccounts, no pods, no endpoint
slices, no garbage collection, and a deleted namespace stays in Terminating.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import requests

from lab import build
from lab.audit import POLICY, AuditEvent, AuditLog
from lab.certs import Authority, write_key, write_private
from lab.kube import Kube, KubeError
from lab.process import LabError, Process, free_ports
from lab.server import Server

_DEADLINE = 120.0
_MARK = "lab-audit-mark"


class ControlPlane(Server):
    """
    etcd and kube-apiserver; *apiserver_flags* are added to the latter's command line.

    `admin` is a client in the group system:masters; what is under test uses `token` and
    `kubeconfig_for` instead.
    """

    def __init__(self, folder: Path | None = None, *, apiserver_flags: Sequence[str] = ()) -> None:
        binaries = build.ensure("etcd", "kube-apiserver")
        super().__init__(folder)
        self._etcd_port, peer_port, self._port = free_ports(3)
        authority = Authority(self.folder / "pki", "kubernetes-ca")
        hosts = ("127.0.0.1", "localhost", "kubernetes.default.svc", "10.0.0.1")
        server = authority.issue("kube-apiserver", hosts=hosts)
        admin = authority.issue("lab-admin", organization="system:masters")
        signing_key = write_key(self.folder / "pki" / "service-accounts.key")
        self.ca = authority.file
        self.url = f"https://127.0.0.1:{self._port}"
        self.admin = Kube(self.url, ca=self.ca, cert=admin)
        self.kubeconfig_admin = self._kubeconfig(
            "admin",
            "default",
            {
                "client-certificate-data": _base64(admin[0]),
                "client-key-data": _base64(admin[1]),
            },
        )
        self._audit = AuditLog(self.folder / "audit.log")
        policy = self.folder / "audit-policy.yaml"
        policy.write_text(POLICY)
        self.etcd = Process(
            "etcd",
            [binaries["etcd"], *self._etcd_flags(peer_port)],
            log=self.folder / "etcd.log",
        )
        self.apiserver = Process(
            "kube-apiserver",
            [
                binaries["kube-apiserver"],
                f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
                "--bind-address=127.0.0.1",
                "--advertise-address=127.0.0.1",
                f"--secure-port={self._port}",
                f"--client-ca-file={self.ca}",
                f"--tls-cert-file={server[0]}",
                f"--tls-private-key-file={server[1]}",
                f"--cert-dir={self.folder / 'pki'}",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={signing_key}",
                f"--service-account-signing-key-file={signing_key}",
                "--authorization-mode=RBAC,Node",
                "--service-cluster-ip-range=10.0.0.0/24",
                "--endpoint-reconciler-type=none",
                # It would refuse pods of namespaces without a default ServiceAccount.
                "--disable-admission-plugins=ServiceAccount",
                f"--audit-policy-file={policy}",
                f"--audit-log-path={self._audit.file}",
                # Megabytes; by default it would rotate away what is to be counted.
                "--audit-log-maxsize=100000",
                *apiserver_flags,
            ],
            log=self.folder / "kube-apiserver.log",
        )

    def start(self) -> Self:
        """Start both; ready when every check of /readyz passes."""
        self.start_etcd()
        self.start_apiserver()
        return self

    def stop(self) -> None:
        """Stop both and forget the clients' connections; the data stays in `folder`."""
        self.admin.close()
        # With open watches each would take its time to say goodbye.
        self.apiserver.stop(deadline=1.0)
        self.etcd.stop(deadline=1.0)

    def start_etcd(self) -> None:
        """Start etcd on the data that is there."""
        url = f"http://127.0.0.1:{self._etcd_port}/health"

        def healthy() -> bool:
            with requests.Session() as session:
                session.trust_env = False
                return bool(session.get(url, timeout=5).json()["health"] == "true")

        self.etcd.start().wait_ready(healthy, deadline=_DEADLINE)

    def start_apiserver(self) -> None:
        """Start the API server; ready when every check of /readyz passes."""
        self.apiserver.start().wait_ready(self._ready, deadline=_DEADLINE)

    def stop_apiserver(self, *, kill: bool = False) -> None:
        """Stop the API server, by SIGKILL with *kill*."""
        if kill:
            self.apiserver.kill()
        else:
            self.apiserver.stop(deadline=5.0)

    def restart_apiserver(self, *, kill: bool = False) -> None:
        """Stop and start the API server: same port, same data, watches broken off."""
        self.stop_apiserver(kill=kill)
        self.start_apiserver()

    def restart_etcd(self, *, kill: bool = False) -> None:
        """Stop and start etcd: same port, same data; returns when the API server is ready."""
        if kill:
            self.etcd.kill()
        else:
            # It would wait for the API server's watches; without fsync, a kill loses no more.
            self.etcd.stop(deadline=1.0)
        self.start_etcd()
        self.apiserver.wait_ready(self._ready, deadline=_DEADLINE)

    def backup(self) -> Path:
        """A copy of etcd's data, made while it is stopped for a moment."""
        self.etcd.stop(deadline=1.0)
        copy = self.folder / f"etcd-backup-{uuid.uuid4().hex[:8]}"
        shutil.copytree(self.folder / "etcd", copy)
        self.start_etcd()
        self.apiserver.wait_ready(self._ready, deadline=_DEADLINE)
        return copy

    def restore(self, backup: Path) -> None:
        """
        Put back what `backup` kept, as an operator does it by hand: both are stopped for it.

        Revisions go back too: what clients know is of a future that never was.
        """
        self.stop()
        shutil.rmtree(self.folder / "etcd")
        shutil.copytree(backup, self.folder / "etcd")
        self.start()

    def create_namespace(self, name: str) -> None:
        """Create a namespace; nothing if it is there."""
        try:
            self.admin.create("/api/v1/namespaces", {"metadata": {"name": name}})
        except KubeError as error:
            if error.reason != "AlreadyExists":
                raise

    def token(self, namespace: str, serviceaccount: str, *, seconds: int = 86_400) -> str:
        """A token of a ServiceAccount that exists, from the TokenRequest API."""
        answer = self.admin.create(
            f"/api/v1/namespaces/{namespace}/serviceaccounts/{serviceaccount}/token",
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {"expirationSeconds": seconds},
            },
        )
        token: str = answer["status"]["token"]
        return token

    def client(self, token: str) -> Kube:
        """A client that holds *token*."""
        return Kube(self.url, ca=self.ca, token=token)

    def kubeconfig_for(self, token: str, namespace: str) -> Path:
        """A kubeconfig file (mode 0600) with *token* and *namespace* as the default one."""
        return self._kubeconfig(uuid.uuid4().hex[:8], namespace, {"token": token})

    def audit(
        self, user: str, since: datetime, until: datetime, *, leases: bool = False
    ) -> list[AuditEvent]:
        """
        Requests of *user* received from *since* to *until* (aware datetimes), in time order.

        A watch is one request, at the moment it was opened. Those for Leases are left out
        unless *leases*. A ServiceAccount's user is "system:serviceaccount:NAMESPACE:NAME".
        """
        self._flush_audit()
        events = [
            event
            for event in self._audit.events()
            if event.user == user
            and since <= event.received <= until
            and _MARK not in event.uri
            and (leases or event.resource != "leases")
        ]
        return sorted(events, key=lambda event: event.received)

    def versions(self) -> dict[str, str]:
        """The versions that the running servers report."""
        with requests.Session() as session:
            session.trust_env = False
            etcd = session.get(f"http://127.0.0.1:{self._etcd_port}/version", timeout=10).json()
        return {
            "kube-apiserver": str(self.admin.get("/version")["gitVersion"]),
            "etcd": f"v{etcd['etcdserver']}",
        }

    def kubectl(self, *args: str | Path, stdin: str | None = None, timeout: float = 120.0) -> str:
        """What kubectl prints, run as admin; LabError if it fails."""
        return self._run("kubectl", args, stdin, timeout)

    def helm(self, *args: str | Path, stdin: str | None = None, timeout: float = 120.0) -> str:
        """What helm prints, run as admin and without network; LabError if it fails."""
        return self._run("helm", args, stdin, timeout)

    def _run(
        self, program: str, args: Sequence[str | Path], stdin: str | None, timeout: float
    ) -> str:
        binary = build.ensure(program)[program]
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        environ = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(home),
            "KUBECONFIG": str(self.kubeconfig_admin),
            "KUBECACHEDIR": str(home / "kube-cache"),
            # Nothing listens there: a chart must not fetch anything.
            "HTTP_PROXY": "http://127.0.0.1:9",
            "HTTPS_PROXY": "http://127.0.0.1:9",
            "NO_PROXY": "127.0.0.1,localhost",
        } | {
            f"HELM_{name}": str(home / f"helm-{name.lower()}")
            for name in ("CACHE_HOME", "CONFIG_HOME", "DATA_HOME")
        }
        try:
            done = subprocess.run(
                [binary, *args],
                input=stdin or "",
                capture_output=True,
                text=True,
                env=environ,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{program} still ran after {timeout:.0f} s") from error
        if done.returncode != 0:
            words = " ".join(str(arg) for arg in args)
            raise LabError(f"{program} {words}: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def _ready(self) -> bool:
        return self.admin.raw("/readyz") == "ok"

    def _flush_audit(self) -> None:
        """Return when a request made now is in the log, as earlier ones are then too."""
        mark = uuid.uuid4().hex
        self.admin.get("/version", **{_MARK: mark})
        end = time.monotonic() + 10.0
        while not any(mark in event.uri for event in reversed(self._audit.events())):
            if time.monotonic() > end:
                raise LabError(f"{self._audit.file} lacks a request made 10 s ago")
            time.sleep(0.01)

    def _etcd_flags(self, peer_port: int) -> list[str]:
        client, peer = (f"http://127.0.0.1:{port}" for port in (self._etcd_port, peer_port))
        return [
            "--name=lab",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=lab={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]

    def _kubeconfig(self, name: str, namespace: str, user: dict[str, Any]) -> Path:
        cluster = {"server": self.url, "certificate-authority-data": _base64(self.ca)}
        context = {"cluster": "lab", "user": "lab", "namespace": namespace}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "lab", "cluster": cluster}],
            "users": [{"name": "lab", "user": user}],
            "contexts": [{"name": "lab", "context": context}],
            "current-context": "lab",
        }
        # JSON is YAML too.
        text = json.dumps(config, indent=1).encode()
        return write_private(self.folder / f"kubeconfig-{name}", text)


def _base64(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()
