"""
Rollovers as somebody beside the daemon sees them, told one by one as they happen.

The daemon's log says when a new version was due; everything else is seen from outside: Secrets
and Services at the API server, its audit log, the CA's log, handshakes of the lab's own prober.
"""

from __future__ import annotations

import base64
import contextlib
import json
import queue
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from lab.audit import AuditEvent
from lab.follow import Follower
from lab.kube import KubeError
from lab.oci.prober import Prober
from lab.world import NAMESPACE, TLS_SECRET, World

Obj = dict[str, Any]

CERTIFICATE = "certbaton.io/certificate"
SERVED = "certbaton.io/served"
MARKED = "certbaton.io/marked-for-deletion"
# What the daemon still sends for a handover (its Event) comes well within this.
GRACE = timedelta(seconds=1.5)


@dataclass
class Version:
    """One TLS Secret; *due* is None if it was there before."""

    certificate: str
    name: str
    leaf_sha256: str
    not_before: datetime
    not_after: datetime
    stored_at: datetime
    due: datetime | None = None
    issued_at: datetime | None = None
    acme_requests: int | None = None
    marked_at: datetime | None = None
    deleted_at: datetime | None = None
    noted_at: dict[str, datetime] = field(default_factory=dict)


@dataclass
class Rollover:
    """
    One Service led from one version to the next.

    *interruption_ms* is 0.0 the first time: there was no listener that could be interrupted.
    *end* is the daemon's last request for it: its note on the Secret, or the Event about that.
    """

    challenge: str
    service: str
    from_secret: str | None
    version: Version
    repointed_at: datetime
    served_at: datetime | None = None
    interruption_ms: float | None = None
    requests: list[AuditEvent] | None = None
    end: datetime | None = None

    @property
    def api_requests(self) -> dict[str, int]:
        """Requests by verb, from due to the daemon's own end of it."""
        return dict(sorted(Counter(event.verb for event in self.requests or ()).items()))

    @property
    def due_to_served_s(self) -> float | None:
        """From due to the first handshake."""
        return _seconds(self.version.due, self.served_at)

    def as_json(self) -> Obj:
        """What the demo's JSON file says of it."""
        return {
            "certificate": self.version.certificate,
            "challenge": self.challenge,
            "service": self.service,
            "from_secret": self.from_secret,
            "to_secret": self.version.name,
            "leaf_sha256": self.version.leaf_sha256,
            "issued_s": _seconds(self.version.due, self.version.stored_at),
            "due_to_served_s": self.due_to_served_s,
            "interruption_ms": self.interruption_ms,
            "api_requests": self.api_requests,
            "acme_requests": self.version.acme_requests,
        }


class Kind(StrEnum):
    """What happened."""

    DUE = "due"
    ISSUED = "issued"
    STORED = "stored"
    REPOINTED = "repointed"
    SERVED = "served"
    COUNTED = "counted"
    MARKED = "marked"
    COLLECTED = "collected"
    TROUBLE = "trouble"


@dataclass(frozen=True)
class Moment:
    """
    Something that happened; *text* is the daemon's sentence where it is its to say.

    Where something is due, *version* is the one before it.
    """

    kind: Kind
    at: datetime
    certificate: str
    version: Version | None = None
    rollover: Rollover | None = None
    text: str = ""


class Timeline:
    """
    Collects rollovers while `turn` is called again and again, and tells each moment.

    *challenges* gives each certificate's challenge type, *probers* one prober for each Service
    ("namespace/name"). To be entered before the daemon starts.
    """

    def __init__(
        self,
        world: World,
        challenges: Mapping[str, str],
        probers: Mapping[str, Prober],
        tell: Callable[[Moment], None] = lambda moment: None,
    ) -> None:
        self.rollovers: list[Rollover] = []
        self.versions: dict[str, Version] = {}
        self._world = world
        self._challenges = challenges
        self._probers = probers
        self._tell = tell
        self._due: dict[str, datetime] = {}
        self._issued: dict[str, datetime] = {}
        self._named: dict[str, str | None] = {}
        self._happened: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        admin = world.plane.admin
        self._followers = [
            Follower(admin, path, self._later(handler), **query)
            for path, handler, query in (
                (
                    f"/api/v1/namespaces/{NAMESPACE}/secrets",
                    self._secret,
                    {"fieldSelector": "type=kubernetes.io/tls"},
                ),
                ("/api/v1/services", self._service, {}),
            )
        ]

    def __enter__(self) -> Self:
        self._world.on_daemon_line(self._later(self._line))
        for follower in self._followers:
            follower.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for follower in self._followers:
            follower.close()

    def turn(self, seconds: float = 0.1) -> None:
        """Take in what happens within *seconds*."""
        end = time.monotonic() + seconds
        while True:
            try:
                handle = self._happened.get(timeout=max(0.001, min(0.05, end - time.monotonic())))
            except queue.Empty:
                self._look()
            else:
                handle()
            if time.monotonic() >= end:
                return

    def of(self, service: str) -> list[Rollover]:
        """The rollovers of one Service, oldest first."""
        return [rollover for rollover in self.rollovers if rollover.service == service]

    def missing(self, services: list[str], count: int) -> list[str]:
        """What still lacks of *count* whole rollovers at each of *services*, as sentences."""
        lacks: list[str] = []
        for service in services:
            found = self.of(service)
            if len(found) < count:
                lacks.append(f"{service}: {len(found)} of {count} rollovers began")
            for number, rollover in enumerate(found[:count], 1):
                name = rollover.version.name
                old = self.versions.get(rollover.from_secret or "")
                if rollover.served_at is None:
                    lacks.append(f"{service}: no handshake showed {name} (rollover {number})")
                elif rollover.requests is None:
                    lacks.append(f"{service}: the daemon did not note that {name} is served")
                elif old is not None and old.deleted_at is None:
                    lacks.append(f"{service}: {old.name} was not collected after {name}")
        return lacks

    # --- what happens ------------------------------------------------------------------------

    def _later(self, handler: Callable[..., None]) -> Callable[..., None]:
        """*handler* on the thread that calls `turn`, told when it really happened."""

        def happened(*what: Any) -> None:
            at = datetime.now(UTC)
            self._happened.put(lambda: handler(*what, at))

        return happened

    def _line(self, entry: Obj, at: datetime) -> None:
        certificate = str(entry.get("certificate", ""))
        staged = entry.get("event") == "done" and entry.get("action") == "StageOrder"
        if staged and entry.get("due"):
            due = self._due[certificate] = datetime.fromisoformat(entry["due"])
            self._issued.pop(certificate, None)
            old = [one for one in self.versions.values() if one.certificate == certificate]
            why = str(entry.get("why", ""))
            self._tell(Moment(Kind.DUE, due, certificate, old[-1] if old else None, text=why))
        elif entry.get("level") in ("warning", "error", "critical"):
            text = str(entry.get("error") or entry.get("event"))
            self._tell(Moment(Kind.TROUBLE, at, certificate, text=text))
        elif entry.get("event") == "unreadable":
            self._tell(Moment(Kind.TROUBLE, at, certificate, text=str(entry["line"])))

    def _secret(self, change: str, secret: Obj, at: datetime) -> None:
        meta = secret["metadata"]
        certificate = (meta.get("labels") or {}).get(CERTIFICATE)
        if certificate is None:
            return
        notes = meta.get("annotations") or {}
        version = self.versions.get(meta["name"])
        if version is None:
            if change == "DELETED":
                return
            version = self.versions[meta["name"]] = self._stored(certificate, secret, at)
        if change == "DELETED":
            version.deleted_at = at
            self._tell(Moment(Kind.COLLECTED, at, certificate, version))
            return
        if MARKED in notes and version.marked_at is None:
            version.marked_at = at
            self._tell(Moment(Kind.MARKED, at, certificate, version))
        for service in json.loads(notes.get(SERVED) or "{}"):
            version.noted_at.setdefault(service, at)

    def _stored(self, certificate: str, secret: Obj, at: datetime) -> Version:
        # Two threads tell of it; what the CA did comes first.
        self._look_at_ca(at)
        leaf = x509.load_pem_x509_certificate(base64.b64decode(secret["data"]["tls.crt"]))
        due = self._due.pop(certificate, None)
        version = Version(
            certificate,
            secret["metadata"]["name"],
            leaf.fingerprint(hashes.SHA256()).hex(),
            leaf.not_valid_before_utc,
            leaf.not_valid_after_utc,
            stored_at=at,
            due=due,
            issued_at=self._issued.pop(certificate, None),
            acme_requests=self._acme_requests(due) if due else None,
        )
        self._tell(Moment(Kind.STORED, at, certificate, version))
        return version

    def _acme_requests(self, since: datetime) -> int | None:
        """From newOrder, or the nonce that was fetched for it, to the download, which is over."""
        # No matter when they were told of: what was stored has been downloaded.
        seen = [request.endpoint for request in self._world.pebble.requests(since)]
        if "newOrder" not in seen or "certificate" not in seen:
            return None
        first, last = seen.index("newOrder"), len(seen) - seen[::-1].index("certificate")
        while first > 0 and seen[first - 1] == "newNonce":
            first -= 1
        return last - first

    def _service(self, change: str, service: Obj, at: datetime) -> None:
        meta = service["metadata"]
        key = f"{meta['namespace']}/{meta['name']}"
        if key not in self._probers:
            return
        value = (meta.get("annotations") or {}).get(TLS_SECRET)
        name = value.rpartition("/")[2] if value and change != "DELETED" else None
        before = self._named.get(key)
        self._named[key] = name
        if name is None or name == before:
            return
        if name not in self.versions:  # its own watch may be a moment behind
            path = f"/api/v1/namespaces/{NAMESPACE}/secrets/{name}"
            with contextlib.suppress(KubeError):
                self._secret("ADDED", self._world.plane.admin.get(path), at)
        if name not in self.versions:
            return
        version = self.versions[name]
        rollover = Rollover(self._challenges[version.certificate], key, before, version, at)
        self.rollovers.append(rollover)
        self._tell(Moment(Kind.REPOINTED, at, version.certificate, version, rollover))

    # --- what is looked for ------------------------------------------------------------------

    def _look(self) -> None:
        self._look_at_ca(datetime.now(UTC))
        for rollover in self.rollovers:
            if rollover.served_at is None:
                self._look_at_listener(rollover)
            noted = rollover.version.noted_at.get(rollover.service)
            if (
                rollover.served_at is not None
                and rollover.requests is None
                and noted is not None
                and datetime.now(UTC) > noted + GRACE
            ):
                self._count(rollover, noted)

    def _look_at_ca(self, at: datetime) -> None:
        for certificate, due in self._due.items():
            if certificate not in self._issued and self._world.pebble.certificates_issued(due):
                self._issued[certificate] = at
                self._tell(Moment(Kind.ISSUED, at, certificate))

    def _look_at_listener(self, rollover: Rollover) -> None:
        prober = self._probers[rollover.service]
        sight = prober.first_seen(rollover.version.leaf_sha256)
        if sight is None:
            return
        old = self.versions.get(rollover.from_secret or "")
        if old is None:
            rollover.interruption_ms = 0.0
        else:
            with contextlib.suppress(ValueError):  # the old leaf was never seen there
                milliseconds = prober.interruption_ms(old.leaf_sha256, sight.leaf or "")
                rollover.interruption_ms = round(milliseconds, 1)
        rollover.served_at = sight.utc
        version = rollover.version
        self._tell(Moment(Kind.SERVED, sight.utc, version.certificate, version, rollover))

    def _count(self, rollover: Rollover, noted: datetime) -> None:
        version = rollover.version
        since = version.due or rollover.repointed_at
        namespace = rollover.service.partition("/")[0]
        seen = self._world.plane.audit(self._world.user, since, noted + GRACE)
        end = max(
            (
                event.received
                for event in seen
                if (event.verb, event.resource, event.name) == ("patch", "secrets", version.name)
                and event.received <= noted
            ),
            default=noted,
        )
        about_it = (
            event.received
            for event in seen
            if event.resource == "events"
            and event.verb == "create"
            and event.namespace == namespace
            and event.received > end
        )
        rollover.end = next(about_it, end)
        rollover.requests = [event for event in seen if event.received <= rollover.end]
        self._tell(Moment(Kind.COUNTED, rollover.end, version.certificate, version, rollover))


def _seconds(since: datetime | None, until: datetime | None) -> float | None:
    if since is None or until is None:
        return None
    return round((until - since).total_seconds(), 3)
