"""
A list-watch loop that keeps a slim projection of a collection in memory.

Why our own: kubernetes' ``Watch`` doesn't move the resourceVersion of dynamic
objects on, so resuming and 410 would be ours anyway. The answers to our own
writes are taken in as well (`WatchCache.learn`), so that a plan made right after
a write sees it. Whatever comes from where in whatever order, an older state
never replaces a newer one.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from certbaton.cluster.contract import (
    Expired,
    Kind,
    KubeApi,
    Obj,
    WatchStream,
    ref_of,
    uid_of,
    version_number,
    version_of,
)
from certbaton.errors import CertbatonError
from certbaton.model import ObjectRef

T = TypeVar("T")

WATCH_SECONDS = (300, 600)
BACK_OFF = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
LIST_AFTER = 3
SHORT_WATCH = 1.0
STOP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Entry(Generic[T]):
    uid: str
    version: int
    value: T


class WatchCache(Generic[T]):
    """
    What a collection holds, by what we last heard.

    *project* makes of an object what is kept of it; None keeps nothing. It also
    gets what was kept of the same object (same uid) before, is called in the
    order in which states are accepted and under the cache's lock, and must not
    raise on odd content. *on_change* is called, without the lock, after the
    watch or a list brought something new; not for `learn`. *gone* is called
    as *project* is, with the resourceVersion at which an object was gone.

    Without `start` there is no thread, and `relist` is how it comes to know
    anything. Safe to share between threads.
    """

    def __init__(
        self,
        api: KubeApi,
        kind: Kind,
        *,
        project: Callable[[Obj, T | None], T | None],
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        limit: int | None = None,
        back_off: tuple[float, ...] = BACK_OFF,
        gone: Callable[[int], None] = lambda version: None,
    ) -> None:
        self._api = api
        self._kind = kind
        self._project = project
        self._namespace = namespace
        self._selectors = {"label_selector": label_selector, "field_selector": field_selector}
        self._limit = limit
        self._back_off = back_off
        self._gone = gone
        self._on_change: Callable[[], None] = lambda: None
        self._lock = threading.RLock()
        self._entries: dict[ObjectRef, _Entry[T]] = {}
        self._forgotten: set[str] = set()
        self._seen = 0  # everything up to this resourceVersion has been heard of
        self._synced = False
        self._problem: str | None = None
        self._generation = 0
        self._revision = 0
        self._position: str | None = None  # where the thread watches from; its own
        self._stopping = threading.Event()
        self._stream: WatchStream | None = None
        self._thread: threading.Thread | None = None

    @property
    def name(self) -> str:
        """What is watched, for a sentence."""
        place = f"namespace {self._namespace}" if self._namespace else "all namespaces"
        return f"{self._kind.plural.capitalize()} in {place}"

    @property
    def synced(self) -> bool:
        """A list succeeded, and no watch has been lost for good (410) since."""
        with self._lock:
            return self._synced

    @property
    def problem(self) -> str | None:
        """Why the last list or watch failed; None while all is well."""
        with self._lock:
            return self._problem

    @property
    def generation(self) -> int:
        """How many lists succeeded: one more means that nothing older can have been missed."""
        with self._lock:
            return self._generation

    @property
    def revision(self) -> int:
        """Another number whenever what is kept is not what it was."""
        with self._lock:
            return self._revision

    def values(self) -> list[T]:
        """All that is kept, without the names; cheaper than `items`."""
        with self._lock:
            return [entry.value for entry in self._entries.values()]

    def items(self) -> dict[ObjectRef, T]:
        """A copy of everything that is kept."""
        with self._lock:
            return {ref: entry.value for ref, entry in self._entries.items()}

    def missing(self, refs: Iterable[ObjectRef]) -> frozenset[ObjectRef]:
        """Those of *refs* of which nothing is kept."""
        with self._lock:
            return frozenset(ref for ref in refs if ref not in self._entries)

    def get(self, ref: ObjectRef) -> T | None:
        """What is kept of one object."""
        with self._lock:
            entry = self._entries.get(ref)
            return entry.value if entry else None

    def uid(self, ref: ObjectRef) -> str:
        """The uid of the object that is kept under *ref*; empty where there is none."""
        with self._lock:
            entry = self._entries.get(ref)
            return entry.uid if entry else ""

    # --- taking in --------------------------------------------------------------------

    def learn(self, obj: Obj) -> None:
        """Take in the answer to a read or write of our own. An older state changes nothing."""
        with self._lock:
            self._accept(obj)

    def forget(self, ref: ObjectRef, uid: str) -> None:
        """Take in that we deleted that object (or found it gone): it does not come back."""
        with self._lock:
            entry = self._entries.get(ref)
            if entry is not None and entry.uid == uid:
                del self._entries[ref]
                self._revision += 1
            self._forgotten.add(uid)

    def relist(self) -> None:
        """
        Look live, now: one request for each 500 objects.

        Raises what the list raises; without a thread, `problem` says so too.
        """
        try:
            changed, _ = self._list()
        except CertbatonError as error:
            if self._thread is None:
                self._failed(error)
            raise
        if changed:
            self._on_change()

    def _accept(self, obj: Obj) -> bool:
        """Store a state unless it is an old one; true if what is kept differs by it."""
        ref, uid, version = ref_of(obj), uid_of(obj), version_number(version_of(obj))
        entry = self._entries.get(ref)
        # Without an entry: had it still existed at _seen, there would be one.
        if uid in self._forgotten or version <= (entry.version if entry else self._seen):
            return False
        before = entry.value if entry is not None and entry.uid == uid else None
        value = self._project(obj, before)
        self._revision += 1
        if value is None:
            return self._entries.pop(ref, None) is not None
        self._entries[ref] = _Entry(uid, version, value)
        if self._limit is not None and len(self._entries) > self._limit:
            del self._entries[min(self._entries, key=lambda key: self._entries[key].version)]
        return value != before

    def _remove(self, obj: Obj) -> bool:
        """Take in a deletion; one of an earlier object of that name changes nothing."""
        ref, uid, version = ref_of(obj), uid_of(obj), version_number(version_of(obj))
        self._forgotten.discard(uid)
        entry = self._entries.get(ref)
        if entry is None or (entry.uid != uid and entry.version > version):
            return False
        del self._entries[ref]
        self._revision += 1
        self._gone(version)
        return True

    def _list(self) -> tuple[bool, str]:
        """
        List, and make that the state; also where to watch from.

        What was learned of later states, while the pages came in, stays.
        """
        listed: set[ObjectRef] = set()
        uids: set[str] = set()
        changed = False
        resource_version = ""
        began = self._seen
        for items, resource_version in self._api.pages(
            self._kind, self._namespace, **self._selectors
        ):
            with self._lock:
                if version_number(resource_version) < began:
                    # A list never lies behind what was heard before it: the server's store was
                    # put back from a backup, and nothing that is known counts any more.
                    self._entries.clear()
                    self._revision += 1
                    self._forgotten.clear()
                    self._seen = began = 0
                for obj in items:
                    listed.add(ref_of(obj))
                    uids.add(uid_of(obj))
                    changed |= self._accept_listed(obj)
        version = version_number(resource_version)
        with self._lock:
            for ref, entry in list(self._entries.items()):
                if ref not in listed and entry.version <= version:
                    del self._entries[ref]
                    self._revision += 1
                    self._gone(version)
                    changed = True
            # An object that we deleted while the list was made may be on it; it stays forgotten.
            self._forgotten &= uids
            self._seen = max(self._seen, version)
            # What waits for a whole reading goes on, also if nothing else is new.
            changed |= not self._synced or self._problem is not None
            self._synced = True
            self._problem = None
            self._generation += 1
        return changed, resource_version

    def _accept_listed(self, obj: Obj) -> bool:
        """As `_accept`, but here a missing entry is no proof that the object is gone."""
        if ref_of(obj) not in self._entries:
            seen, self._seen = self._seen, 0
            try:
                return self._accept(obj)
            finally:
                self._seen = seen
        return self._accept(obj)

    def _failed(self, error: CertbatonError) -> None:
        with self._lock:
            self._problem = f"{self.name}: {error}"
            if isinstance(error, Expired):
                self._synced = False

    # --- the loop ---------------------------------------------------------------------

    def start(self, on_change: Callable[[], None] | None = None) -> None:
        """Begin to list and watch, in a daemon thread. Returns at once; once only."""
        if on_change is not None:
            self._on_change = on_change
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, name=f"watch-{self._kind.plural}", daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        """Tell the loop to end, without waiting for it."""
        self._stopping.set()
        with self._lock:
            stream = self._stream
        if stream is not None:
            stream.close()

    def stop(self) -> None:
        """End the loop and wait for its thread, a few seconds at most."""
        self.close()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        failures = 0
        turn = 0
        while not self._stopping.is_set():
            turn += 1
            began = time.monotonic()
            try:
                if self._position is None:
                    changed, self._position = self._list()
                    if changed:
                        self._on_change()
                self._follow(self._position, self._duration(turn))
                # A stream that ends as soon as it is open would be asked for in a hot loop.
                failures = failures + 1 if time.monotonic() - began < SHORT_WATCH else 0
            except Expired as error:
                self._position = None
                self._failed(error)
                failures += 1
                if failures == 1:
                    continue  # the ordinary case: listing anew helps, at once
            except CertbatonError as error:
                # While it was away its store may have been put back from a backup, and a watch
                # from a resourceVersion of the future is answered with silence.
                self._position = None
                self._failed(error)
                failures += 1
            except Exception as error:  # noqa: BLE001  a loop that ends silently is worse
                self._position = None
                with self._lock:
                    self._problem = f"{self.name}: unforeseen {type(error).__name__}"
                failures += 1
            if failures:
                if failures >= LIST_AFTER:
                    self._position = None  # whatever is wrong with it
                delay = self._back_off[min(failures, len(self._back_off)) - 1]
                self._stopping.wait(delay)

    def _follow(self, position: str, seconds: int) -> None:
        """Watch until the stream ends, and remember where the next one begins."""
        stream = self._api.watch(
            self._kind,
            self._namespace,
            resource_version=position,
            timeout_seconds=seconds,
            **self._selectors,
        )
        with self._lock:
            self._stream = stream
            self._problem = None
        try:
            if self._stopping.is_set():
                return
            for kind, obj in stream:
                with self._lock:
                    changed = self._heard(kind, obj)
                self._position = version_of(obj) or self._position
                if changed:
                    self._on_change()
        finally:
            with self._lock:
                self._stream = None
            stream.close()

    def _heard(self, kind: str, obj: Obj) -> bool:
        changed = False
        if kind == "DELETED":
            changed = self._remove(obj)
        elif kind in ("ADDED", "MODIFIED"):
            changed = self._accept(obj)
        self._seen = max(self._seen, version_number(version_of(obj)))
        return changed

    def _duration(self, turn: int) -> int:
        """So long shall a watch last: a hash, so that those of a fleet do not end together."""
        low, high = WATCH_SECONDS
        text = f"{self._kind}/{self._namespace}/{self._selectors}/{turn}"
        return low + zlib.crc32(text.encode()) % (high - low)
