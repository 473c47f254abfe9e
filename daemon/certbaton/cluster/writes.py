"""Single writes to Secrets, after which the watch cache knows what is there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import TypeVar

from certbaton.cluster import records
from certbaton.cluster.cache import WatchCache
from certbaton.cluster.contract import AlreadyExists, Kind, KubeApi, Obj
from certbaton.cluster.records import Record
from certbaton.errors import CertbatonError, Conflict, ObjectGone, PermanentError
from certbaton.model import ObjectRef

T = TypeVar("T")


class SecretWrites:
    """Writes to Secrets of *namespace*; *cache* hears the answers."""

    def __init__(self, api: KubeApi, namespace: str, cache: WatchCache[Record]) -> None:
        self._api = api
        self._namespace = namespace
        self._cache = cache

    def create(
        self, ref: ObjectRef, labels: Mapping[str, str], data: Mapping[str, str | None]
    ) -> Obj:
        """
        Create a Secret of *data*; None leaves out. AlreadyExists.

        PermanentError where one without the labels of this instance is in the way.
        """
        content = {name: value for name, value in data.items() if value is not None}
        body = records.secret(ref, labels, content)
        try:
            answer = self.guarded(ref, lambda: self._api.create(Kind.SECRET, self._namespace, body))
        except AlreadyExists:
            if self._cache.get(ref) is None:
                raise PermanentError(
                    f"a Secret {ref} is in the way that does not carry this instance's labels;"
                    " delete or rename it"
                ) from None
            raise
        self._cache.learn(answer)
        return answer

    def merge(
        self,
        ref: ObjectRef,
        resource_version: str,
        data: Mapping[str, str | None],
        annotations: Mapping[str, str | None] | None = None,
    ) -> Obj:
        """
        Change parts of a Secret; None removes. Whatever isn't named stays as it is.

        Conflict where it is not at *resource_version* any more, ObjectGone.
        """
        body: Obj = {"metadata": {"resourceVersion": resource_version}}
        if annotations:
            body["metadata"]["annotations"] = dict(annotations)
        if data:
            body["data"] = {
                name: None if value is None else records.encode(value)
                for name, value in data.items()
            }
        answer = self.guarded(ref, lambda: self._api.merge(Kind.SECRET, ref, body))
        self._cache.learn(answer)
        return answer

    def guarded(self, ref: ObjectRef, write: Callable[[], T]) -> T:
        """Do *write*, which is about *ref*; after a Conflict, learn what is there first."""
        known = self._cache.uid(ref)
        try:
            return write()
        except ObjectGone:
            if known:
                self._cache.forget(ref, known)
            raise
        except Conflict:
            with contextlib.suppress(CertbatonError):
                self._cache.learn(self._api.read(Kind.SECRET, ref))
            raise
