"""The leaves of Secrets that are not ours, as far as they may be read."""

from __future__ import annotations

import contextlib
import time
from typing import Final

from certbaton import pki
from certbaton.cluster import records
from certbaton.cluster.contract import Kind, KubeApi, Obj
from certbaton.errors import ConfigurationError, Conflict, ObjectGone, PermanentError
from certbaton.model import Instance, Leaf, ObjectRef

FOREIGN_SECONDS: Final = 600.0
# What Oracle's controller decrypts the key with, if it is encrypted.
PASSPHRASE: Final = "passphrase"  # noqa: S105 - the name of an entry


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

        One request in ten minutes for each; None where it is not there or not readable, where its
        key is missing or another one's (no listener can serve that), and for a version of ours
        that a person took out of use by its label. The key is looked at and let go.
        """
        if ref.namespace != self._instance.namespace:
            return None
        at, leaf = self._seen.get(ref, (0.0, None))
        if not at or time.monotonic() - at > FOREIGN_SECONDS:
            self._absent.discard(ref)
            try:
                obj = self._api.read(Kind.SECRET, ref)
                leaf = None if self._retired(obj) else _whole(obj)
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


def _whole(obj: Obj) -> Leaf | None:
    """The leaf in *obj*, if the key beside it is its own. PermanentError where it is unreadable."""
    chain, key = records.decode(obj, records.TLS_CRT), records.decode(obj, records.TLS_KEY)
    if not chain or not key:
        return None
    leaf = pki.leaf_of(chain)
    try:
        found = pki.PrivateKey.load(key, records.decode(obj, PASSPHRASE))
    except ConfigurationError:
        return None
    return leaf if found.public_key_sha256 == leaf.public_key_sha256 else None
