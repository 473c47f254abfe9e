"""
Events as client-go's recorder makes them: counted, folded, limited, and no proof of anything.

The order is the recorder's own: similar Events are folded into one, equal ones are counted on
one object, and what then exceeds the budget is dropped (though it has been counted).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from lab.kube import Kube, KubeError
from lab.oci.faults import Faults

Obj = dict[str, Any]

COMPONENT = "service-controller"
FOLDED = "(combined from similar events): "
# client-go: ten different messages of one reason, with less than ten minutes between them.
_SIMILAR = 10
_SIMILAR_WINDOW_S = 600.0


@dataclass
class _Logged:
    """What the recorder remembers of one Event object."""

    name: str
    first: datetime
    count: int


@dataclass
class _Group:
    """Events that differ in their message only."""

    messages: set[str] = field(default_factory=set)
    last: float = float("-inf")


@dataclass
class _Bucket:
    tokens: float
    at: float


class Recorder:
    """Posts Events about Services; posting happens at once, or late if the faults say so."""

    def __init__(
        self,
        kube: Kube,
        faults: Faults,
        *,
        component: str = COMPONENT,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kube = kube
        self._faults = faults
        self._component = component
        self._monotonic = monotonic
        self._lock = threading.RLock()
        self._logged: dict[tuple[str, ...], _Logged] = {}
        self._groups: dict[tuple[str, ...], _Group] = {}
        self._buckets: dict[tuple[str, ...], _Bucket] = {}
        self._late: list[threading.Timer] = []
        self._last_ns = 0

    def now(self) -> datetime:
        """The controller's clock: whole seconds, and perhaps wrong."""
        offset = timedelta(seconds=self._faults.clock_offset_s)
        return (datetime.now(UTC) + offset).replace(microsecond=0)

    def event(self, service: Obj, kind: str, reason: str, message: str) -> None:
        """Say *message* about *service*, as of its resourceVersion."""
        if not self._faults.events:
            return
        with self._lock:
            post = self._correlate(service, kind, reason, message)
            if post is None:
                return
            if self._faults.event_delay_s <= 0:
                post()
                return
            timer = threading.Timer(self._faults.event_delay_s, post)
            timer.daemon = True
            self._late = [one for one in self._late if one.is_alive()] + [timer]
            timer.start()

    def forge(
        self,
        service: Obj,
        kind: str,
        reason: str,
        message: str,
        *,
        resource_version: str | None = None,
        at: datetime | None = None,
        count: int = 1,
        component: str = COMPONENT,
    ) -> Obj:
        """An Event by somebody who may edit the namespace; past recorder, budget and faults."""
        body = self._body(service, kind, reason, message, at or self.now())
        body["count"] = count
        body["source"] = {"component": component}
        body["reportingComponent"] = component
        if resource_version is not None:
            body["involvedObject"]["resourceVersion"] = resource_version
        return self._kube.create(_path(service), body)

    def expire(self, namespace: str, older_than_s: float = 0.0) -> int:
        """Delete this component's Events last seen so long ago, as the API server would."""
        limit = self.now() - timedelta(seconds=older_than_s)
        gone = 0
        for event in self._kube.list(f"/api/v1/namespaces/{namespace}/events")["items"]:
            last = event.get("lastTimestamp")
            if event.get("source", {}).get("component") != self._component or last is None:
                continue
            if datetime.fromisoformat(last) <= limit:
                self._kube.delete(f"/api/v1/namespaces/{namespace}/events/{_name(event)}")
                gone += 1
        return gone

    def close(self) -> None:
        """Late Events are not posted any more."""
        with self._lock:
            late, self._late = self._late, []
        for timer in late:
            timer.cancel()
        for timer in late:
            timer.join(5)

    def _correlate(
        self, service: Obj, kind: str, reason: str, message: str
    ) -> Callable[[], None] | None:
        uid = service["metadata"]["uid"]
        group_key = (uid, kind, reason)
        group = self._groups.get(group_key)
        now = self._monotonic()
        if group is None or now - group.last > _SIMILAR_WINDOW_S:
            group = self._groups[group_key] = _Group()
        group.messages.add(message)
        group.last = now
        key: tuple[str, ...] = (*group_key, message)
        if len(group.messages) >= _SIMILAR:
            group.messages.pop()
            message = FOLDED + message
            key = group_key

        body = self._body(service, kind, reason, message, self.now())
        logged = self._logged.get(key)
        if logged is None:
            logged = _Logged(_name(body), self.now(), 0)
            self._logged[key] = logged
        logged.count += 1
        body["metadata"]["name"] = logged.name
        body["firstTimestamp"] = _stamp(logged.first)
        body["count"] = logged.count
        if not self._allowed((uid, kind)):
            return None
        path = _path(service)
        return lambda: self._post(path, body)

    def _post(self, path: str, body: Obj) -> None:
        # Nobody hears of a failure: a recorder's Events are best effort.
        with contextlib.suppress(KubeError):
            if body["count"] > 1:
                # The first Event's involvedObject stays, whatever is synced now.
                change = {name: body[name] for name in ("count", "lastTimestamp", "message")}
                try:
                    self._kube.patch(f"{path}/{_name(body)}", change)
                    return
                except KubeError as error:
                    if error.status != 404:
                        raise
            self._kube.create(path, body)

    def _allowed(self, key: tuple[str, ...]) -> bool:
        burst, now = float(self._faults.event_burst), self._monotonic()
        bucket = self._buckets.setdefault(key, _Bucket(burst, now))
        refill = (now - bucket.at) / self._faults.event_refill_s
        bucket.tokens, bucket.at = min(burst, bucket.tokens + refill), now
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True

    def _body(self, service: Obj, kind: str, reason: str, message: str, at: datetime) -> Obj:
        meta = service["metadata"]
        with self._lock:
            self._last_ns = max(self._last_ns + 1, time.time_ns())
            suffix = f"{self._last_ns:x}"
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{meta['name']}.{suffix}", "namespace": meta["namespace"]},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Service",
                "namespace": meta["namespace"],
                "name": meta["name"],
                "uid": meta["uid"],
                "resourceVersion": meta["resourceVersion"],
            },
            "type": kind,
            "reason": reason,
            "message": message,
            "source": {"component": self._component},
            "reportingComponent": self._component,
            "reportingInstance": "",
            "firstTimestamp": _stamp(at),
            "lastTimestamp": _stamp(at),
            "count": 1,
        }


def _path(service: Obj) -> str:
    return f"/api/v1/namespaces/{service['metadata']['namespace']}/events"


def _name(event: Obj) -> str:
    return str(event["metadata"]["name"])


def _stamp(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
