"""The leaves of Secrets that are not ours, as far as they may be read."""

from __future__ import annotations

import contextlib
import time
from typing import Final

from certbaton import pki
from certbaton.cluster import records
from certbaton.cluster.contract import Kind, KubeApi, Obj
from certbaton.errors import Conflict, ObjectGone, PermanentError
from certbaton.model import Instance, Leaf, ObjectRef

FOREIGN_SECONDS: Final = 600.0


class ForeignLeaves:
    """What lies in Secrets of other people in the namespace of *instance*."""

    def __init__(self, api: KubeApi, instance: Instance) -> None:
        self._api = api
        self._instance = instance
        self._seen: dict[ObjectRef, tuple[float, Leaf | None]] = {}
        self._absent: set[ObjectRef] = set()

    def leaf(self, ref: ObjectRef) -> Leaf | None:
        """
        The leaf of a Secret that is not ours, if it may be read: in our own namespace.

        One request in ten minutes for each; None where it is not there or not readable, and for a
        version of ours that a person took out of use by its label.
        """
        if ref.namespace != self._instance.namespace:
            return None
        at, leaf = self._seen.get(ref, (0.0, None))
        if not at or time.monotonic() - at > FOREIGN_SECONDS:
            self._absent.discard(ref)
            try:
                obj = self._api.read(Kind.SECRET, ref)
                chain = records.decode(obj, records.TLS_CRT)
                leaf = pki.leaf_of(chain) if chain and not self._retired(obj) else None
            except ObjectGone:
                self._absent.add(ref)
                leaf = None
            except PermanentError:
                leaf = None
            self._seen[ref] = time.monotonic(), leaf
        return leaf

    def absent(self, ref: ObjectRef) -> bool:
        """Say whether *ref* was not there when `leaf` last looked. No request."""
        return ref in self._absent

    def check_absent(self, ref: ObjectRef) -> None:
        """Look once more, live: Conflict if *ref* is there by now. One request."""
        with contextlib.suppress(ObjectGone):
            self._api.read(Kind.SECRET, ref)
            self._seen.pop(ref, None)
            raise Conflict(f"Secret {ref} is there by now")

    def _retired(self, obj: Obj) -> bool:
        """Say whether somebody took ``certbaton.io/kind`` from a Secret of ours."""
        found = obj["metadata"].get("labels") or {}
        ours = found.get(records.INSTANCE) == records.label(str(self._instance))
        return ours and records.KIND not in found
