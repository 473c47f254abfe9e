"""
An API server that can be written to only while a check passes.

The check comes before each write is handed to the client, after everything that led to it: a
process that was stopped for an hour between deciding and writing writes nothing on waking. It is
no fence at the wire. Behind it may lie a connect, a second one, and a request that a proxy keeps
for a while: seconds, or, for a process that is stopped just there, any time. Such a write arrives
in the term of a successor, and is refused there, not here: it carries a resourceVersion or uid,
or has a name that comes from its content.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

from certbaton.cluster.contract import Kind, KubeApi, Obj, Page, WatchStream
from certbaton.model import ObjectRef


class FencedApi:
    """`KubeApi` on *api*; *check* raises where nothing may be written."""

    def __init__(self, api: KubeApi, check: Callable[[], None]) -> None:
        self._api = api
        self._check = check

    def clock_apart(self) -> timedelta | None:
        """How far the server's clock is ahead of ours; None where that is not known."""
        return self._api.clock_apart()

    def read(self, kind: Kind, ref: ObjectRef) -> Obj:
        """One object, as it is now. One request."""
        return self._api.read(kind, ref)

    def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> Page:
        """All objects and the list's resourceVersion; a request for each 500."""
        return self._api.list(
            kind, namespace, label_selector=label_selector, field_selector=field_selector
        )

    def pages(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> Iterator[Page]:
        """As `list`, page by page."""
        return self._api.pages(
            kind, namespace, label_selector=label_selector, field_selector=field_selector
        )

    def create(self, kind: Kind, namespace: str, body: Obj) -> Obj:
        """Make a new object; AlreadyExists where its name is taken."""
        self._check()
        return self._api.create(kind, namespace, body)

    def replace(self, kind: Kind, ref: ObjectRef, body: Obj) -> Obj:
        """Put a whole object."""
        self._check()
        return self._api.replace(kind, ref, body)

    def merge(self, kind: Kind, ref: ObjectRef, body: Obj) -> Obj:
        """JSON merge patch."""
        self._check()
        return self._api.merge(kind, ref, body)

    def apply(self, kind: Kind, ref: ObjectRef, body: Obj, field_manager: str) -> Obj:
        """Server-side apply, forced."""
        self._check()
        return self._api.apply(kind, ref, body, field_manager)

    def delete(self, kind: Kind, ref: ObjectRef, uid: str, resource_version: str) -> None:
        """Delete exactly this state of this object."""
        self._check()
        self._api.delete(kind, ref, uid, resource_version)

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
        """What happens after *resource_version*."""
        return self._api.watch(
            kind,
            namespace,
            resource_version=resource_version,
            timeout_seconds=timeout_seconds,
            label_selector=label_selector,
            field_selector=field_selector,
        )

    def close(self) -> None:
        """Let go of all connections."""
        self._api.close()
