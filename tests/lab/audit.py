"""The API server's audit log, as a list of requests."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Metadata
"""


@dataclass(frozen=True)
class AuditEvent:
    """
    One request to the API server.

    *received* and *responded* are aware datetimes in UTC with microseconds; of a watch the
    second is when it was opened. Requests that are not for a resource have "" as *resource*.
    """

    user: str
    verb: str
    group: str
    resource: str
    subresource: str
    namespace: str
    name: str
    code: int
    received: datetime
    responded: datetime
    uri: str
    user_agent: str


class AuditLog:
    """Reads the log file on from where it read last; safe to share between threads."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lock = threading.Lock()
        self._offset = 0
        self._seen: set[str] = set()
        self._events: list[AuditEvent] = []

    def events(self) -> list[AuditEvent]:
        """All requests logged so far, each once, in the order of their log lines."""
        with self._lock:
            if self.file.exists():
                with self.file.open("rb") as log:
                    log.seek(self._offset)
                    for line in log:
                        if not line.endswith(b"\n"):
                            break
                        self._offset += len(line)
                        self._add(json.loads(line))
            return list(self._events)

    def _add(self, entry: dict[str, Any]) -> None:
        # A watch is logged when it opens and when it ends; a request that panics, twice too.
        if entry["auditID"] in self._seen:
            return
        self._seen.add(entry["auditID"])
        subject = entry.get("objectRef") or {}
        self._events.append(
            AuditEvent(
                user=entry["user"].get("username", ""),
                verb=entry["verb"],
                group=subject.get("apiGroup", ""),
                resource=subject.get("resource", ""),
                subresource=subject.get("subresource", ""),
                namespace=subject.get("namespace", ""),
                name=subject.get("name", ""),
                code=int((entry.get("responseStatus") or {}).get("code", 0)),
                received=datetime.fromisoformat(entry["requestReceivedTimestamp"]),
                responded=datetime.fromisoformat(entry["stageTimestamp"]),
                uri=entry.get("requestURI", ""),
                user_agent=entry.get("userAgent", ""),
            )
        )
