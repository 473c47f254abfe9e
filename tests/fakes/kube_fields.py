"""
Who owns which field: as much of server-side apply as certbaton's Service writes need.

An object is seen as a flat dictionary of paths in the notation of ``fieldsV1``
(``f:`` a key, ``k:`` an item of a keyed list, ``.`` the item itself). Lists are
atomic, but for a Service's ports, which are keyed by port and protocol.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Obj = dict[str, Any]
Path = tuple[str, ...]
Flat = dict[Path, Any]

# Set by the server, not by whoever writes.
_SERVER_SIDE = frozenset(
    {"uid", "resourceVersion", "creationTimestamp", "managedFields", "name", "namespace"}
)
_PORTS: Path = ("f:spec", "f:ports")


@dataclass
class Manager:
    """One entry of ``managedFields``."""

    name: str
    operation: str
    time: datetime
    paths: set[Path] = field(default_factory=set)

    def entry(self, api_version: str) -> Obj:
        """Lay it out as the API does."""
        tree: Obj = {}
        for path in sorted(self.paths):
            node = tree
            for segment in path:
                node = node.setdefault(segment, {})
        return {
            "manager": self.name,
            "operation": self.operation,
            "apiVersion": api_version,
            "time": self.time.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "fieldsType": "FieldsV1",
            "fieldsV1": tree,
        }


def flatten(obj: Obj) -> Flat:
    """All fields that somebody may own."""
    flat: Flat = {}
    metadata = obj.get("metadata") or {}
    for key, value in metadata.items():
        if key not in _SERVER_SIDE:
            flat.update(_walk(("f:metadata", f"f:{key}"), value))
    for key, value in obj.items():
        if key not in ("apiVersion", "kind", "metadata", "status"):
            flat.update(_walk((f"f:{key}",), value))
    return flat


def _walk(path: Path, value: Any) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _walk((*path, f"f:{key}"), inner)
    elif path == _PORTS:
        for item in value:
            key = (*path, _key(item))
            yield (*key, "."), None
            for name, inner in item.items():
                yield (*key, f"f:{name}"), inner
    else:
        yield path, value


def _key(port: Obj) -> str:
    key = {"port": port["port"], "protocol": port.get("protocol", "TCP")}
    return "k:" + json.dumps(key, separators=(",", ":"))


def put(obj: Obj, path: Path, value: Any) -> None:
    """Set one field of *obj*, making what is missing above it."""
    node, last = _descend(obj, path, make=True)
    if last != ".":
        node[last[2:]] = value


def take(obj: Obj, path: Path) -> None:
    """Remove one field of *obj*; an item of the ports as a whole."""
    if path[:2] == _PORTS and path[-1] == ".":
        ports = obj.get("spec", {}).get("ports", [])
        ports[:] = [port for port in ports if _key(port) != path[2]]
        return
    node, last = _descend(obj, path, make=False)
    if node is not None:
        node.pop(last[2:], None)


def _descend(obj: Obj, path: Path, *, make: bool) -> tuple[Any, str]:
    node: Any = obj
    for number, segment in enumerate(path[:-1]):
        if segment.startswith("k:"):
            item = next((port for port in node if _key(port) == segment), None)
            if item is None and make:
                item = json.loads(segment[2:])
                node.append(item)
            node = item
        else:
            empty: Any = [] if path[: number + 1] == _PORTS else {}
            node = node.setdefault(segment[2:], empty) if make else node.get(segment[2:])
        if node is None:
            return None, path[-1]
    return node, path[-1]


def updated(managers: list[Manager], before: Flat, after: Flat, name: str, now: datetime) -> None:
    """Take in an ordinary write: what changed is the writer's, and nobody else's."""
    changed = {path for path in after if path not in before or before[path] != after[path]}
    gone = before.keys() - after.keys()
    if not changed and not gone:
        return
    for manager in managers:
        manager.paths -= changed | gone
    if changed:
        mine = _manager(managers, name, "Update", now)
        mine.paths |= changed
        mine.time = now
    managers[:] = [manager for manager in managers if manager.paths]


def applied(
    managers: list[Manager], obj: Obj, body: Obj, name: str, now: datetime
) -> tuple[bool, set[Path]]:
    """
    Apply *body* to *obj* by force, in place.

    True if anything changed, values or owners; and the fields on which others
    disagreed, which without force would have been conflicts.
    """
    wanted = flatten(body)
    before = flatten(obj)
    mine = next((m for m in managers if (m.name, m.operation) == (name, "Apply")), None)
    had = set(mine.paths) if mine else set()
    overruled: set[Path] = set()
    for path, value in wanted.items():
        if path in before and before[path] != value:
            for other in managers:
                if other is not mine and path in other.paths:
                    other.paths.discard(path)
                    overruled.add(path)
        put(obj, path, value)
    dropped = had - wanted.keys()
    for path in sorted(dropped, key=lambda path: (len(path), path[-1] != ".", path)):
        if not any(path in other.paths for other in managers if other is not mine):
            take(obj, path)
    after = flatten(obj)
    changed = after != before or had != wanted.keys()
    if changed:
        mine = mine or _manager(managers, name, "Apply", now)
        mine.paths = set(wanted)
        mine.time = now
    for manager in managers:
        manager.paths &= after.keys()
    managers[:] = [manager for manager in managers if manager.paths]
    return changed, overruled


def _manager(managers: list[Manager], name: str, operation: str, now: datetime) -> Manager:
    for manager in managers:
        if (manager.name, manager.operation) == (name, operation):
            return manager
    manager = Manager(name, operation, now)
    managers.append(manager)
    return manager
