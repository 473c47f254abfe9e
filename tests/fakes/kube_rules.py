"""What the API server checks and fills in, as far as certbaton can run into it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from certbaton.cluster.contract import Kind

Obj = dict[str, Any]


def copied(obj: Obj) -> Obj:
    """A deep copy of what JSON can say, several times as quick as copy.deepcopy."""
    return {key: _copied(value) for key, value in obj.items()}


def _copied(tree: Any) -> Any:
    if type(tree) is dict:
        return copied(tree)
    if type(tree) is list:
        return [_copied(value) for value in tree]
    return tree


def selector(
    namespace: str | None, labels: str | None, fields: str | None
) -> Callable[[Obj], bool]:
    """A test for namespace, label selector (``a=b,c!=d,e``) and field selector."""

    def chosen(obj: Obj) -> bool:
        metadata = obj["metadata"]
        found = metadata.get("labels") or {}
        return (
            (namespace is None or metadata.get("namespace") == namespace)
            and all(_holds(term, found.get) for term in _terms(labels))
            and all(_holds(term, lambda path: _field(obj, path)) for term in _terms(fields))
        )

    return chosen


def _terms(text: str | None) -> list[str]:
    return [term.strip() for term in (text or "").split(",") if term.strip()]


def _holds(term: str, value_of: Callable[[str], Any]) -> bool:
    if "!=" in term:
        key, value = term.split("!=", 1)
        return bool(value_of(key) != value)
    if "=" in term:
        key, value = term.replace("==", "=").split("=", 1)
        return bool(value_of(key) == value)
    return value_of(term) is not None


def _field(obj: Obj, path: str) -> Any:
    node: Any = obj
    for name in path.split("."):
        node = (node or {}).get(name)
    return node


def merged(obj: Any, patch: Any) -> Any:
    """JSON merge patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return _copied(patch)
    result = dict(obj) if isinstance(obj, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def defaulted(kind: Kind, obj: Obj) -> Obj:
    """Fill in what the server fills in, in place."""
    if kind is Kind.SERVICE:
        for port in (obj.get("spec") or {}).get("ports") or ():
            port.setdefault("protocol", "TCP")
            port.setdefault("targetPort", port["port"])
    if kind is Kind.SECRET:
        obj.setdefault("type", "Opaque")
    return obj


def flaw(kind: Kind, before: Obj | None, after: Obj) -> tuple[str, str] | None:
    """The first thing that the server would refuse with 422: a field, and words."""
    if kind is Kind.SECRET:
        return _secret_flaw(before, after)
    if kind is Kind.SERVICE:
        return _service_flaw(after)
    return None


def _secret_flaw(before: Obj | None, after: Obj) -> tuple[str, str] | None:
    if before is not None and before.get("immutable"):
        if not after.get("immutable"):
            return "immutable", "Forbidden: field is immutable when `immutable` is set"
        if before.get("data") != after.get("data"):
            return "data", "Forbidden: field is immutable when `immutable` is set"
    if before is not None and before.get("type") != after.get("type"):
        return "type", "field is immutable"
    if after.get("type") == "kubernetes.io/tls":
        for key in ("tls.crt", "tls.key"):
            if key not in (after.get("data") or {}):
                return f"data[{key}]", "Required value"
    return None


def _service_flaw(after: Obj) -> tuple[str, str] | None:
    ports = (after.get("spec") or {}).get("ports") or []
    names: set[str] = set()
    for number, port in enumerate(ports):
        name = port.get("name")
        if not name and len(ports) > 1:
            return f"spec.ports[{number}].name", "Required value"
        if name in names:
            return f"spec.ports[{number}].name", f"Duplicate value: {name!r}"
        if name:
            names.add(name)
    keys = [(port["port"], port.get("protocol")) for port in ports]
    if len(keys) != len(set(keys)):
        return "spec.ports", "Duplicate value"
    return None
