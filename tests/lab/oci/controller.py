"""The simulated cloud controller manager: cache, queue, workers, and the cloud beneath them."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from lab.kube import Kube, KubeError, Watch
from lab.oci.api import ClientError, LoadBalancerApi, ServiceError, Stopped
from lab.oci.events import Recorder
from lab.oci.faults import Faults
from lab.oci.inside import InsideRoutes
from lab.oci.loadbalancer import LoadBalancer
from lab.oci.ports import Address, PortMap
from lab.oci.service import SyncError, key_of, needs_cleanup, needs_update, wants_load_balancer
from lab.oci.sync import Syncer, text_of
from lab.oci.workqueue import WorkQueue

Obj = dict[str, Any]
Key = tuple[str, str]

SERVICES = "/api/v1/services"
# Oracle's controller polls a work request about every 5 s, waits 10 min for it and backs off
# from 5 s to 5 min; a lab that polls faster scales all of it alike.
OBSERVED_POLL_S = 5.0
_BACKOFF_S = (5.0, 300.0)
_WORK_TIMEOUT_S = 600.0
_WORK_S = 1.0


class CloudController:
    """
    Runs from `start` (or entering the block) to `stop`; the cloud it made stays until `close`.

    *backends* tells where a Service's pods listen. *poll_interval* is 5 as observed; what else
    takes time (OCI's own work, back-off, the patience with a work request) is scaled with it
    unless it is given: *work_seconds*, and *backoff_scale* (1.0: 5 s to 5 min). *interruption*
    is how long a listener is closed while it is changed, in seconds as they are.
    """

    def __init__(
        self,
        kube: Kube,
        *,
        backends: Callable[[str, str], Address | None] | None = None,
        poll_interval: float = 1.0,
        interruption: float = 0.3,
        work_seconds: float | None = None,
        workers: int = 1,
        faults: Faults | None = None,
        ports: PortMap | None = None,
        addresses: int = 1,
        backoff_scale: float | None = None,
    ) -> None:
        scale = poll_interval / OBSERVED_POLL_S
        self.faults = faults or Faults()
        self.ports = ports or PortMap()
        self.poll_interval = poll_interval
        self.api = LoadBalancerApi(
            self.faults,
            ports=self.ports,
            poll_interval=poll_interval,
            work_seconds=_WORK_S * scale if work_seconds is None else work_seconds,
            work_timeout=_WORK_TIMEOUT_S * scale,
            interruption=interruption,
            addresses=addresses,
        )
        self._kube = kube
        self._workers = workers
        self._backoff = scale if backoff_scale is None else backoff_scale
        self._backend = backends or (lambda namespace, name: None)
        self.inside = InsideRoutes(
            self.faults,
            ports=self.ports,
            backend=self._backend,
            balancer=self.find_load_balancer,
        )
        self._lock = threading.RLock()
        self._threads: list[threading.Thread] = []
        self._watch: Watch | None = None
        self._begin_process()

    # Running.

    def start(self) -> None:
        """Start, or start again: then every Service gets a full sync."""
        if self._threads:
            return
        self._begin_process()
        names = ["informer"] + ["worker"] * self._workers
        self._threads = [
            threading.Thread(
                target=self._inform if name == "informer" else self._work,
                name=f"ccm-{name}",
                daemon=True,
            )
            for name in names
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """The controller's process ends, whatever it was doing; the cloud goes on."""
        self._stop.set()
        self._queue.shut_down()
        with self._lock:
            if self._watch is not None:
                self._watch.close()
        for thread in self._threads:
            thread.join(30)
        self._threads = []
        self.recorder.close()

    def close(self) -> None:
        """Stop, and take the cloud down as well."""
        self.stop()
        self.api.close()
        self.inside.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def resync(self, namespace: str, name: str) -> None:
        """A full sync of one Service, as a retry would make it."""
        self._queue.add((namespace, name))

    def node_changed(self) -> int:
        """
        The set of nodes changed: back ends of all load balancers are updated.

        Reads no Secret. Posts UpdatedLoadBalancer; where it fails, a full sync follows. Returns
        how many Services were updated.
        """
        if self.faults.paused or not self._threads:
            return 0
        with self._lock:
            services = [one for one in self._synced.values() if wants_load_balancer(one)]
        done = 0
        for service in services:
            key = key_of(service)
            try:
                with self._operation(key):
                    self._syncer.update_hosts(service)
            except (SyncError, ServiceError, ClientError) as error:
                self.recorder.event(
                    service,
                    "Warning",
                    "UpdateLoadBalancerFailed",
                    f"Error updating load balancer with new hosts map[]: {error}",
                )
                self._queue.add(key)
            else:
                self.recorder.event(
                    service,
                    "Normal",
                    "UpdatedLoadBalancer",
                    "Updated load balancer with new hosts",
                )
                done += 1
        return done

    # Looking.

    def find_load_balancer(self, namespace: str, name: str) -> LoadBalancer | None:
        """The load balancer of that Service, if there is one."""
        for balancer in self.api.balancers():
            if (balancer.namespace, balancer.service) == (namespace, name):
                return balancer
        return None

    def load_balancer(self, namespace: str, name: str, timeout: float = 0.0) -> LoadBalancer:
        """The load balancer of that Service, waited for; LookupError if it does not come."""
        deadline = time.monotonic() + timeout
        while (balancer := self.find_load_balancer(namespace, name)) is None:
            if time.monotonic() >= deadline:
                raise LookupError(f"{namespace}/{name} has no load balancer")
            time.sleep(0.01)
        return balancer

    def certificates(self) -> list[str]:
        """The names of all certificates on all load balancers."""
        return [name for balancer in self.api.balancers() for name in balancer.certificates]

    def inside_endpoint(self, namespace: str, name: str, port: int = 443) -> Address:
        """Where a probe meets kube-proxy's short circuit, answering as `faults.inside` says."""
        return self.inside.endpoint(namespace, name, port)

    def retries(self) -> dict[Key, float]:
        """The Services whose last sync failed, and in how many seconds the next one begins."""
        return self._queue.retries()

    @property
    def idle(self) -> bool:
        """No sync is under way or ready to begin (a back-off may be waiting)."""
        return self._queue.idle

    # The process.

    def _begin_process(self) -> None:
        """What a controller knows when it starts: nothing."""
        self._stop = threading.Event()
        base, most = (seconds * self._backoff for seconds in _BACKOFF_S)
        self._queue = WorkQueue(base=base, most=most, paused=lambda: self.faults.paused)
        self.recorder = Recorder(self._kube, self.faults)
        self._syncer = Syncer(
            self._kube,
            self.api,
            self.recorder,
            self.faults,
            backend=self._backend,
            inside=self.inside,
            stop=self._stop,
        )
        self._cache: dict[Key, Obj] = {}
        self._before: dict[Key, Obj] = {}
        self._synced: dict[Key, Obj] = {}
        self._busy: set[Key] = set()

    def _inform(self) -> None:
        while not self._stop.is_set():
            try:
                listing = self._kube.list(SERVICES)
                present = {key_of(service): service for service in listing["items"]}
                with self._lock:
                    gone = [old for key, old in self._cache.items() if key not in present]
                for old in gone:
                    self._forget(old)
                for service in present.values():
                    self._see(service)
                self._follow(listing["metadata"]["resourceVersion"])
            except KubeError:
                # Expired, or the server is away: list again.
                self._stop.wait(0.2)

    def _follow(self, version: str) -> None:
        while True:
            watch = self._kube.watch(
                SERVICES, resource_version=version, timeout=120, allowWatchBookmarks=True
            )
            with self._lock:
                self._watch = watch
            with watch:
                if self._stop.is_set():
                    return
                for event in watch:
                    service = event["object"]
                    version = service["metadata"]["resourceVersion"]
                    if event["type"] == "BOOKMARK":
                        continue
                    if self.faults.watch_delay_s > 0:
                        self._stop.wait(self.faults.watch_delay_s)
                    if event["type"] == "DELETED":
                        self._forget(service)
                    else:
                        self._see(service)
            if self._stop.is_set():
                return

    def _see(self, service: Obj) -> None:
        key = key_of(service)
        with self._lock:
            old = self._cache.get(key)
            self._cache[key] = service
            if old is None:
                due = wants_load_balancer(service) or needs_cleanup(service)
            else:
                changed = needs_update(old, service) is not None
                if changed:
                    self._before[key] = old
                due = changed or needs_cleanup(service)
        if due:
            self._queue.add(key)

    def _forget(self, service: Obj) -> None:
        with self._lock:
            self._cache.pop(key_of(service), None)
            self._before.pop(key_of(service), None)

    def _work(self) -> None:
        while (key := self._queue.get()) is not None:
            try:
                self._sync(key)
                self._queue.forget(key)
            except Stopped:
                pass
            except (SyncError, ServiceError, ClientError, KubeError):
                self._queue.add_after_failure(key)
            finally:
                self._queue.done(key)

    def _sync(self, key: Key) -> None:
        with self._lock:
            service = copy.deepcopy(self._cache.get(key))
            stale = copy.deepcopy(self._before.get(key))
            last = self._synced.get(key)
        if service is not None and stale is not None and self.faults.take_stale_sync():
            service = stale
            # The cache catches up while the sync is under way.
            self._queue.add(key)
        if service is None:
            if last is not None:
                self._syncer.delete(last)
                with self._lock:
                    self._synced.pop(key, None)
            return
        try:
            if last is not None and last["metadata"]["uid"] != service["metadata"]["uid"]:
                self._syncer.delete(last)
            with self._lock:
                self._synced[key] = service
            with self._operation(key):
                deleted = self._syncer.sync(service)
        except (SyncError, ServiceError, ClientError, KubeError) as error:
            self.recorder.event(
                service,
                "Warning",
                "SyncLoadBalancerFailed",
                f"Error syncing load balancer: {text_of(error)}",
            )
            raise
        if deleted:
            with self._lock:
                self._synced.pop(key, None)

    def _operation(self, key: Key) -> _Operation:
        return _Operation(self._busy, self._lock, key)


class _Operation:
    """At most one operation per Service; the second is refused, it does not wait."""

    def __init__(self, busy: set[Key], lock: threading.RLock, key: Key) -> None:
        self._busy, self._lock, self._key = busy, lock, key

    def __enter__(self) -> None:
        with self._lock:
            if self._key in self._busy:
                raise SyncError("An operation for the service is already in progress.")
            self._busy.add(self._key)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._busy.discard(self._key)
