"""
Events on Services: what the cloud's controller says, and what we say.

Hints only: they may be missing for good, late, folded or forged. What is kept
is bounded, of target Services only, and cut where it is long.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from certbaton.cluster import codec
from certbaton.cluster.cache import WatchCache
from certbaton.cluster.contract import AlreadyExists, Kind, KubeApi, Obj
from certbaton.errors import CertbatonError
from certbaton.model import ObjectRef, SyncEvent

REASONS: Final = frozenset(
    {
        "EnsuringLoadBalancer",
        "EnsuredLoadBalancer",
        "SyncLoadBalancerFailed",
        "DeletingLoadBalancer",
        "DeletedLoadBalancer",
    }
)
KEPT: Final = 1000
MESSAGE_LENGTH: Final = 1024
SOURCE: Final = "certbaton"


@dataclass(frozen=True, slots=True)
class _Record:
    service: ObjectRef
    uid: str
    event: SyncEvent


class SyncEvents:
    """What the controller told about *targets* in the last hour, as far as it reached us."""

    def __init__(
        self,
        api: KubeApi,
        targets: Iterable[ObjectRef],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._api = api
        self._targets = frozenset(targets)
        self._now = now
        self.cache: WatchCache[_Record] = WatchCache(
            api,
            Kind.EVENT,
            field_selector="involvedObject.kind=Service",
            project=self._project,
            limit=KEPT,
        )

    def of(self, ref: ObjectRef, uid: str) -> tuple[SyncEvent, ...]:
        """Those about this very Service, oldest first. No request."""
        found = (
            record.event
            for record in self.cache.items().values()
            if record.service == ref and record.uid == uid
        )
        return tuple(sorted(found, key=lambda e: (e.last_at, e.first_at, e.reason, e.message)))

    def publish(
        self,
        ref: ObjectRef,
        uid: str,
        resource_version: str,
        type: str,
        reason: str,
        message: str,
    ) -> bool:
        """
        Say something about a Service. One request, best effort: false where it failed.

        The name comes from the content, so that saying it again within the
        hour that Events live is one 409 and no second Event.
        """
        message = message[:MESSAGE_LENGTH]
        at = codec.write_time(self._now().replace(microsecond=0))
        digest = hashlib.sha256("\n".join((uid, type, reason, message)).encode()).hexdigest()
        body: Obj = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{ref.name}.{SOURCE}.{digest[:16]}",
                "namespace": ref.namespace,
            },
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Service",
                "name": ref.name,
                "namespace": ref.namespace,
                "uid": uid,
                "resourceVersion": resource_version,
            },
            "type": type,
            "reason": reason,
            "message": message,
            "source": {"component": SOURCE},
            "reportingComponent": SOURCE,
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": 1,
        }
        try:
            self._api.create(Kind.EVENT, ref.namespace, body)
        except AlreadyExists:
            return True
        except CertbatonError:
            return False  # a hint that nobody gets; the certificate's own line tells it too
        return True

    def _project(self, obj: Obj, before: _Record | None) -> _Record | None:
        about = obj.get("involvedObject") or {}
        service = ObjectRef(str(about.get("namespace") or ""), str(about.get("name") or ""))
        reason = str(obj.get("reason") or "")
        if service not in self._targets or reason not in REASONS:
            return None
        series = obj.get("series") or {}
        created = (obj.get("metadata") or {}).get("creationTimestamp")
        first = _time(obj.get("firstTimestamp") or obj.get("eventTime") or created)
        last = _time(series.get("lastObservedTime") or obj.get("lastTimestamp")) or first
        if first is None or last is None:
            return None
        event = SyncEvent(
            reason=reason,
            message=str(obj.get("message") or "")[:MESSAGE_LENGTH],
            first_at=first,
            last_at=last,
            count=int(series.get("count") or obj.get("count") or 1),
            synced_version=str(about.get("resourceVersion") or ""),
        )
        return _Record(service, str(about.get("uid") or ""), event)


def _time(text: Any) -> datetime | None:
    try:
        return codec.read_time(text) if text else None
    except codec.Unreadable:
        return None
