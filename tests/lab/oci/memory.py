"""
A stand-in for an API server, in memory: enough for the simulated controller's quick tests.

Services, Secrets and Events with uid, resourceVersion, finalizers, watches and the three ways
of changing that the controller and its tests use. No validation and no field management; the
tests that run on it run on the real API server too.
"""

from __future__ import annotations

import copy
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from lab.kube import MERGE_PATCH, STRATEGIC_PATCH, Kube, KubeError, Watch

Obj = dict[str, Any]

_DELETE_FINALIZERS = "$deleteFromPrimitiveList/finalizers"


class MemoryWatch(Watch):
    """Events from a version on, until closed."""

    def __init__(self, server: MemoryKube, path: str, version: int, timeout: float) -> None:
        self._server = server
        self._path = path
        self._version = version
        self._until = time.monotonic() + timeout
        self._shut = False

    def __next__(self) -> Obj:
        with self._server.changed:
            while not self._shut:
                for version, path, event in self._server.history:
                    if version > self._version and _within(path, self._path):
                        self._version = version
                        return copy.deepcopy(event)
                left = self._until - time.monotonic()
                if left <= 0:
                    break
                self._server.changed.wait(left)
        raise StopIteration

    def close(self) -> None:
        with self._server.changed:
            self._shut = True
            self._server.changed.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class MemoryKube(Kube):
    """The methods of `Kube` over a dictionary of paths; *requests* logs (verb, path)."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.history: list[tuple[int, str, Obj]] = []
        self.requests: list[tuple[str, str]] = []
        self._objects: dict[str, Obj] = {}
        self._version = 0

    def get(self, path: str, **query: Any) -> Obj:
        with self.changed:
            self.requests.append(("get", path))
            return copy.deepcopy(self._find(path))

    def list(self, path: str, **query: Any) -> Obj:
        with self.changed:
            self.requests.append(("list", path))
            items = [copy.deepcopy(one) for key, one in self._objects.items() if _within(key, path)]
            return {"metadata": {"resourceVersion": str(self._version)}, "items": items}

    def create(self, path: str, body: Obj, **query: Any) -> Obj:
        with self.changed:
            self.requests.append(("create", path))
            body = copy.deepcopy(body)
            meta = body["metadata"]
            meta.setdefault("namespace", path.split("/")[4] if "/namespaces/" in path else "")
            key = f"{path}/{meta['name']}"
            if key in self._objects:
                raise KubeError(409, "AlreadyExists", f"{_named(key)} already exists")
            meta["uid"] = str(uuid.uuid4())
            meta["creationTimestamp"] = _now()
            if path.endswith("/services"):
                for port in body["spec"].get("ports", []):
                    port.setdefault("protocol", "TCP")
                body.setdefault("status", {"loadBalancer": {}})
            self._objects[key] = body
            return self._changed("ADDED", key)

    def update(self, path: str, body: Obj, **query: Any) -> Obj:
        with self.changed:
            self.requests.append(("update", path))
            old = self._find(path)
            wanted = body["metadata"].get("resourceVersion")
            if wanted not in (None, old["metadata"]["resourceVersion"]):
                raise KubeError(409, "Conflict", f"{_named(path)}: the object has been modified")
            body = copy.deepcopy(body)
            body["metadata"]["uid"] = old["metadata"]["uid"]
            self._objects[path] = body
            return self._changed("MODIFIED", path)

    def patch(self, path: str, body: Any, *, content_type: str = MERGE_PATCH, **query: Any) -> Obj:
        with self.changed:
            self.requests.append(("patch", path))
            path = path.removesuffix("/status")
            old = self._find(path)
            body = copy.deepcopy(body)
            new = copy.deepcopy(old)
            if content_type == STRATEGIC_PATCH:
                # Of strategic merge only what the controller needs: finalizers are a set.
                meta = body.get("metadata", {})
                have = list(new["metadata"].get("finalizers", []))
                gone = meta.pop(_DELETE_FINALIZERS, [])
                have += [one for one in meta.pop("finalizers", []) if one not in have]
                new["metadata"]["finalizers"] = [one for one in have if one not in gone]
            _merge(new, body)
            for ingress in _ingress(new):
                ingress.setdefault("ipMode", "VIP")
            if new == old:
                return copy.deepcopy(old)
            self._objects[path] = new
            if new["metadata"].get("deletionTimestamp") and not new["metadata"].get("finalizers"):
                return self._remove(path)
            return self._changed("MODIFIED", path)

    def delete(self, path: str, body: Obj | None = None, **query: Any) -> Obj:
        with self.changed:
            self.requests.append(("delete", path))
            old = self._find(path)
            if old["metadata"].get("finalizers"):
                if not old["metadata"].get("deletionTimestamp"):
                    old["metadata"]["deletionTimestamp"] = _now()
                    return self._changed("MODIFIED", path)
                return copy.deepcopy(old)
            return self._remove(path)

    def watch(
        self, path: str, *, resource_version: str, timeout: float = 300.0, **query: Any
    ) -> Watch:
        with self.changed:
            self.requests.append(("watch", path))
            return MemoryWatch(self, path, int(resource_version), timeout)

    def close(self) -> None:
        """Nothing is open."""

    def _find(self, path: str) -> Obj:
        if path not in self._objects:
            raise KubeError(404, "NotFound", f"{_named(path)} not found")
        return self._objects[path]

    def _remove(self, path: str) -> Obj:
        answer = self._changed("DELETED", path)
        del self._objects[path]
        return answer

    def _changed(self, kind: str, path: str) -> Obj:
        self._version += 1
        found = self._objects[path]
        found["metadata"]["resourceVersion"] = str(self._version)
        self.history.append((self._version, path, {"type": kind, "object": copy.deepcopy(found)}))
        self.changed.notify_all()
        return copy.deepcopy(found)


def _within(key: str, collection: str) -> bool:
    if "/namespaces/" in collection:
        return key.rpartition("/")[0] == collection
    return key.rpartition("/")[0].endswith("/" + collection.rpartition("/")[2])


def _named(path: str) -> str:
    kind, _, name = path.rpartition("/")
    return f'{kind.rpartition("/")[2]} "{name}"'


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _merge(into: Obj, change: Obj) -> None:
    for name, value in change.items():
        if value is None:
            into.pop(name, None)
        elif isinstance(value, dict) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        else:
            into[name] = _without_nulls(value)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(one) for name, one in value.items() if one is not None}
    return value


def _ingress(service: Obj) -> Iterator[Obj]:
    yield from (service.get("status") or {}).get("loadBalancer", {}).get("ingress") or []
