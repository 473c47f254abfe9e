"""
The daemon's own parts on a real CA, over an API server in memory.

All that speaks ACME is what a release runs: the configuration, the wiring, the scheduler with its
pool, sessions, the http-01 solver. Certificates have no Service here: what their Secrets are used
for has its own tests. What was stored is counted at the API server, what was signed at the CA.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from certbaton import config as configuration
from certbaton.cluster import Cluster, Kind
from certbaton.cluster.answers import Asked
from certbaton.core.renewal import newest_first
from certbaton.model import Instance, ObjectRef, SecretVersion
from certbaton.schedule import Scheduler
from certbaton.settings import Config
from certbaton.wiring import Daemon, utc_now
from fakes.kube import FakeApi
from lab.process import free_ports

Obj = dict[str, Any]

NAMESPACE = "certbaton"
# One name, three, and ten: a CA that trips over one of many is seen as well.
NAMES: Mapping[str, int] = {"one": 1, "three": 3, "ten": 10}
_VERSION = re.compile(r"(?P<certificate>[a-z]+)-\d{8}-[0-9a-z]+")


class Place:
    """
    One release; *issuers* as in its configuration, *certificates* too (default: `NAMES`).

    *resolver* is asked for CAA records.
    """

    def __init__(
        self,
        issuers: Mapping[str, Obj],
        *,
        resolver: str,
        solver_port: int | None = None,
        certificates: Mapping[str, Obj] | None = None,
        **more: Any,
    ) -> None:
        self.solver_port = solver_port or free_ports(1)[0]
        self.issuers = issuers
        self._resolver = resolver
        self._certificates = certificates or {name: {} for name in NAMES}
        self._more = more
        self.api = FakeApi(manager="user")
        self._lock = threading.Lock()
        self._created: dict[str, set[str]] = {}
        self._tell: Callable[[SecretVersion], None] = lambda version: None
        self.before: Callable[[Asked], None] = lambda asked: None

    def certificate(self, name: str, **more: Any) -> Obj:
        """A certificate as the configuration has it."""
        count = NAMES.get(name, 1)
        return {
            "name": name,
            "dnsNames": [f"{number}.{name}.example.com" for number in range(count)],
            "solver": "http",
            "keyType": "P-256",
            "issuers": list(self.issuers),
            **more,
        }

    @property
    def config(self) -> Config:
        """The configuration, read as a file's text."""
        text = {
            "instance": {"release": "certbaton", "namespace": NAMESPACE},
            "issuers": dict(self.issuers),
            "solvers": {
                "http": {"type": "http-01", "address": "127.0.0.1", "port": self.solver_port}
            },
            "certificates": [
                self.certificate(name, **more) for name, more in self._certificates.items()
            ],
            "healthPort": 0,
            "resolvers": [self._resolver],
            **self._more,
        }
        return configuration.parse(json.dumps(text), {})

    @contextmanager
    def running(self) -> Iterator[Daemon]:
        """
        A life of the daemon, which ends as when it is told to: what it has begun it brings to an
        end, and begins nothing more.
        """
        config = self.config
        api = self.api.client("certbaton")
        api.before, api.after = lambda asked: self.before(asked), self._note
        cluster = Cluster(api, Instance("certbaton", NAMESPACE), [])
        daemon = Daemon(config, cluster)
        with daemon.solving():
            scheduler = Scheduler(
                daemon.reconciler,
                workers=config.workers,
                backstop=daemon.policy.backstop,
                clock=utc_now,
            )
            cluster.start(scheduler.wake)
            try:
                until(lambda: cluster.complete, "the cluster is not read")
                scheduler.start()
                yield daemon
            finally:
                ended = scheduler.close(timedelta(seconds=60))
                daemon.over.set()
                daemon.stop.set()
                cluster.stop()
        assert ended, "a turn has not ended within a minute"

    # --- what is there ------------------------------------------------------------------

    def stored(self, certificate: str | None = None) -> int:
        """How many versions were ever stored, also those collected since."""
        with self._lock:
            return sum(
                len(names)
                for of, names in self._created.items()
                if certificate is None or of == certificate
            )

    def versions(self, certificate: str) -> list[SecretVersion]:
        """The versions that are there, oldest first."""
        cluster = Cluster(self.api.client("looker"), Instance("certbaton", NAMESPACE), [])
        cluster.refresh()
        return list(reversed(newest_first(cluster.store.versions(certificate))))

    def journal(self, certificate: str) -> Obj:
        """A Journal as it lies there."""
        for ref, obj in self.api.all(Kind.SECRET).items():
            if ref.name.startswith(f"journal.{certificate}."):
                found: Obj = json.loads(base64.b64decode(obj["data"]["journal"]))
                return found
        return {}

    def account(self, directory: str) -> Obj:
        """What is noted of the account at a CA."""
        for obj in self.api.all(Kind.SECRET).values():
            if "account" in obj.get("data", {}):
                found: Obj = json.loads(base64.b64decode(obj["data"]["account"]))
                if found["directory"] == directory:
                    return found
        return {}

    def certificate_pem(self, version: SecretVersion) -> bytes:
        """What is in its Secret."""
        obj = self.api.read(Kind.SECRET, ObjectRef(NAMESPACE, version.ref.name))
        return base64.b64decode(obj["data"]["tls.crt"])

    def add_secret(self, name: str, **data: str) -> None:
        """A Secret that a person made beside the daemon."""
        body = {
            "metadata": {"name": name, "namespace": NAMESPACE},
            "type": "Opaque",
            "data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()},
        }
        self.api.create(Kind.SECRET, NAMESPACE, body)

    @contextmanager
    def on_stored(self, tell: Callable[[SecretVersion], None]) -> Iterator[None]:
        """Have *tell* called with each version, in the thread that stored it."""
        self._tell = tell
        yield
        self._tell = lambda version: None

    def wait_stored(self, each: int, *, timeout: float = 120.0) -> None:
        """Wait until of each certificate so many versions were stored."""
        until(
            lambda: all(self.stored(name) >= each for name in self._certificates),
            lambda: f"stored so far: {self._counts()}; {self._troubles()}",
            timeout,
        )

    def _counts(self) -> dict[str, int]:
        return {name: self.stored(name) for name in self._certificates}

    def _troubles(self) -> dict[str, Any]:
        return {name: self.journal(name).get("failures") for name in self._certificates}

    def _note(self, asked: Asked) -> None:
        found = _VERSION.fullmatch(asked.name)
        if asked.verb == "create" and asked.kind is Kind.SECRET and found:
            with self._lock:
                self._created.setdefault(found["certificate"], set()).add(asked.name)
            for version in self.versions(found["certificate"]):
                if version.ref.name == asked.name:
                    self._tell(version)


def until(
    condition: Callable[[], Any], trouble: str | Callable[[], str], timeout: float = 90.0
) -> None:
    """Wait until *condition* gives something true."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(trouble if isinstance(trouble, str) else trouble())
        time.sleep(0.05)
