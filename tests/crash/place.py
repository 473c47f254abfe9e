"""
A crash world whose cloud says no: it refuses versions, serves alerts, or is itself unwell.

The controller posts its Events as Oracle's does, retries with a back-off, and keeps
certificates by name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from certbaton import pki
from certbaton.cluster import Kind
from certbaton.model import ObjectRef, Policy, Sight
from crash.world import CONTROLLER_TAKES, World, _decoded, _named

BEGINS_AFTER = timedelta(seconds=2)
RETRY_FIRST, RETRY_LAST = timedelta(seconds=5), timedelta(minutes=5)

BAD_CERTIFICATE = (
    "Error syncing load balancer: failed to ensure load balancer: ensuring ssl certificates: Error "
    "returned by LoadBalancer Service. Http Status Code: 400. Error Code: InvalidParameter. "
    "Operation Name: CreateCertificate. Opc request id: {number}"
)
FULL = (
    "Error syncing load balancer: failed to ensure load balancer: ensuring ssl certificates: Error "
    "returned by LoadBalancer Service. Http Status Code: 400. Error Code: LimitExceeded. "
    "Operation Name: CreateCertificate. Opc request id: {number}"
)

# What a Service's place answers to the n-th version (from 1): None takes it.
Answer = Callable[[ObjectRef, int], str | None]


def takes(ref: ObjectRef, number: int) -> str | None:
    """A place in order."""
    return None


@dataclass
class Place(World):
    """
    *refuses* gives the failure text by which a place answers a version; *alerts* says that
    its listener takes it, and answers every handshake with an alert. *tells* is whether Events
    are written at all.
    """

    refuses: Answer = takes
    alerts: Callable[[ObjectRef, int], bool] = lambda ref, number: False
    tells: bool = True
    order: list[str] = field(default_factory=list)
    policy: Policy = field(
        default_factory=lambda: Policy(
            keep_previous=0, poll_listener=timedelta(seconds=4), renew_jitter=0
        )
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._tried: dict[ObjectRef, tuple[str, datetime, timedelta]] = {}
        self._alerting: dict[ObjectRef, bool] = {}
        self._requests = 0

    def number(self, name: str) -> int:
        """Which version that is, in the order in which they were named."""
        if name not in self.order:
            self.order.append(name)
        return self.order.index(name) + 1

    def _event(self, ref: ObjectRef, reason: str, message: str, at: datetime, version: str) -> None:
        if not self.tells:
            return
        self._requests += 1
        stamp = at.strftime("%Y-%m-%dT%H:%M:%SZ")
        uid = self._there(Kind.SERVICE)[ref]["metadata"]["uid"]  # type: ignore[index]
        body = {
            "metadata": {"name": f"{ref.name}.{self._requests:x}", "namespace": ref.namespace},
            "involvedObject": {
                "kind": "Service",
                "namespace": ref.namespace,
                "name": ref.name,
                "uid": uid,
                "resourceVersion": version,
            },
            "type": "Warning" if "Failed" in reason else "Normal",
            "reason": reason,
            "message": message,
            "source": {"component": "service-controller"},
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": 1,
        }
        self.api.create(Kind.EVENT, ref.namespace, body)

    def _control(self) -> None:
        """Sync what has changed, one step at a time; what failed is tried again later."""
        for ref, obj in list(self._there(Kind.SERVICE).items()):
            named, changed = _named(obj, ref), self.changed_at.get(ref)
            if named is None or changed is None:
                continue
            name, due, pause = self._tried.get(ref, ("", changed + BEGINS_AFTER, RETRY_FIRST))
            if name != named.name:
                due, pause = changed + BEGINS_AFTER, RETRY_FIRST
            while self.now >= due + CONTROLLER_TAKES - BEGINS_AFTER:
                version = str(obj["metadata"]["resourceVersion"])  # type: ignore[index]
                self._event(ref, "EnsuringLoadBalancer", "Ensuring load balancer", due, version)
                ended = due + CONTROLLER_TAKES - BEGINS_AFTER
                failure = self._sync(ref, named)
                if failure is None:
                    self._event(ref, "EnsuredLoadBalancer", "Ensured load balancer", ended, version)
                    due += timedelta(days=36500)
                    self._tried[ref] = (named.name, due, pause)
                    break
                self._event(ref, "SyncLoadBalancerFailed", failure, ended, version)
                due, pause = ended + pause, min(pause * 2, RETRY_LAST)
                self._tried[ref] = (named.name, due, pause)

    def _sync(self, ref: ObjectRef, named: ObjectRef) -> str | None:
        known = self.on_balancer[ref]
        if named.name not in known:
            secret = self._there(Kind.SECRET).get(named)
            if secret is None:
                self.broken.append(f"{ref} names {named}, which the controller cannot read")
                return "not found"
            answer = self.refuses(ref, self.number(named.name))
            if answer is not None:
                self._requests += 1
                return answer.format(number=self._requests)
            known[named.name] = pki.leaf_of(_decoded(secret, "tls.crt")).sha256
        self._alerting[ref] = self.alerts(ref, self.number(named.name))
        if self.served.get(ref) != known[named.name]:
            self.served[ref] = known[named.name]
            if not self._alerting[ref]:
                self.history[ref].append(known[named.name])
        return None

    def look(self, addresses, ports, name, timeout):  # type: ignore[no-untyped-def]
        """What the listeners show: the leaf, or an alert."""
        sights = super().look(addresses, ports, name, timeout)
        found = []
        for sight in sights:
            ref = self.targets[int(sight.address.rpartition(".")[2]) - 1]
            if self._alerting.get(ref):
                trouble = "TLS alert handshake_failure"
                found.append(Sight(sight.address, sight.port, None, trouble, alert=True))
            else:
                found.append(sight)
        return tuple(found)
