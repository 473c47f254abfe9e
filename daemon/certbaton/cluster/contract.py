"""
What the rest of this package asks of an API server: kinds, methods, and errors of its own.

Nothing here talks to anybody. ``api.Api`` fulfils `KubeApi` over the network and the tests'
``FakeApi`` in memory; one contract suite runs on both.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from enum import Enum
from typing import Any, Protocol, TypeAlias

from certbaton.errors import Conflict, RetryableError
from certbaton.model import ObjectRef

Obj = dict[str, Any]
"""An object of the API, as its JSON says it."""

Page: TypeAlias = tuple[list[Obj], str]
"""Objects of a list, and the list's resourceVersion."""


class Kind(Enum):
    """The namespaced kinds that certbaton touches: *group*, *version*, *plural*."""

    SECRET = ("", "v1", "Secret", "secrets")
    SERVICE = ("", "v1", "Service", "services")
    EVENT = ("", "v1", "Event", "events")
    LEASE = ("coordination.k8s.io", "v1", "Lease", "leases")

    def __init__(self, group: str, version: str, kind: str, plural: str) -> None:
        self.group = group
        self.version = version
        self.kind = kind
        self.plural = plural

    @property
    def api_version(self) -> str:
        """``apiVersion`` of such an object: ``v1``, ``coordination.k8s.io/v1``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def __str__(self) -> str:
        return self.kind


class AlreadyExists(Conflict):
    """A create met an object of that name (HTTP 409, reason AlreadyExists)."""


class Expired(RetryableError):
    """The resourceVersion is too old to go on from (HTTP 410): list anew."""


class WatchStream(Protocol):
    """
    An open watch: an iterator of ``(type, object)``, type ADDED, MODIFIED, DELETED or BOOKMARK.

    It ends when the server ends it. Raises Expired and ClusterUnavailable.
    """

    def __iter__(self) -> Iterator[tuple[str, Obj]]: ...

    def __next__(self) -> tuple[str, Obj]: ...

    def close(self) -> None:
        """End it; any thread may, also while another one waits for the next event."""


class KubeApi(Protocol):
    """
    The API server, on plain dictionaries. Safe to share between threads.

    Every method raises what the table in ``answers`` says: ObjectGone (404 of an object),
    Conflict and AlreadyExists (409), PermanentError (400, 403, 422, a FieldManagerConflict),
    Expired (410), ClusterUnavailable (401, 429, 5xx, network). No message and no cause of these
    holds content of a Secret.
    """

    def clock_apart(self) -> timedelta | None:
        """How far the server's clock is ahead of ours; None where that is not known."""

    def read(self, kind: Kind, ref: ObjectRef) -> Obj:
        """One object, as it is now. One request."""

    def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> Page:
        """All objects and the list's resourceVersion; a request for each 500."""

    def pages(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> Iterator[Page]:
        """As `list`, page by page, so that they need not all be in memory; at least one page."""

    def create(self, kind: Kind, namespace: str, body: Obj) -> Obj:
        """Make a new object; AlreadyExists where its name is taken."""

    def replace(self, kind: Kind, ref: ObjectRef, body: Obj) -> Obj:
        """Put a whole object; with a resourceVersion in its metadata, Conflict if it changed."""

    def merge(self, kind: Kind, ref: ObjectRef, body: Obj) -> Obj:
        """JSON merge patch (RFC 7386); a resourceVersion in *body* as in `replace`."""

    def apply(self, kind: Kind, ref: ObjectRef, body: Obj, field_manager: str) -> Obj:
        """Server-side apply, forced."""

    def delete(self, kind: Kind, ref: ObjectRef, uid: str, resource_version: str) -> None:
        """Delete exactly this state of this object; Conflict if it is another one by now."""

    def watch(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        resource_version: str,
        timeout_seconds: int,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> WatchStream:
        """
        What happens after *resource_version*, bookmarks among it. Open when this returns.

        Expired comes from here or from the stream, as the server likes.
        """

    def close(self) -> None:
        """Let go of all connections."""


def ref_of(obj: Obj) -> ObjectRef:
    """Namespace and name of *obj*."""
    metadata = obj.get("metadata") or {}
    return ObjectRef(metadata.get("namespace") or "", metadata.get("name") or "")


def uid_of(obj: Obj) -> str:
    """``metadata.uid`` of *obj*, or an empty string."""
    return str((obj.get("metadata") or {}).get("uid") or "")


def version_of(obj: Obj) -> str:
    """``metadata.resourceVersion`` of *obj*, or an empty string."""
    return str((obj.get("metadata") or {}).get("resourceVersion") or "")


def version_number(resource_version: str) -> int:
    """
    A resourceVersion as a number; 0 where it is none.

    Kubernetes has promised since 1.35 that those of one kind can be compared
    so (KEP-5504), and every server on etcd has always done it.
    """
    return int(resource_version) if resource_version.isdecimal() else 0
