"""
Which process of a release works: a Lease (coordination.k8s.io/v1) that one of them holds.

::

    campaign() ──► standing by ──taken──► holding ──┐ renewed by one PUT at a time
                        ▲                    │      │
                        └───── campaign() ◄──┴─ lost: run out, or taken by another

Why two never hold it: every write of it is a compare-and-swap on its resourceVersion.
Whoever takes it over has seen one state of it unchanged for as long as it lasts, by a clock
of its own, and its write succeeds only if that is the state still. The holder trusts its last
renewal for less than that (`MARGIN`), counted from before it was *sent*. Nobody compares clocks
of two machines: renewTime is for people to read.

What has run out stays lost, even if a late renewal succeeds, until `campaign` is called: so a
caller can first end what was begun under the old one. Not leases for writes that take long: a
process may be stopped between asking `ensure` and sending. What it then sends is guarded by
resourceVersion, uid, or a name that comes from the content.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from certbaton.cluster.cache import WatchCache
from certbaton.cluster.contract import Kind, KubeApi, Obj, version_number, version_of
from certbaton.errors import CertbatonError, Conflict, ObjectGone, PermanentError
from certbaton.model import Instance, ObjectRef

MARGIN: Final = 0.1
"""This share of its time the holder leaves unused: clocks that run apart, a write on its way."""
LONGEST: Final = timedelta(hours=1)
"""No setting is longer, so no Lease is waited for longer, whatever it says."""
RETRY_SECONDS: Final = (0.1, 2.0)
STOP_SECONDS: Final = 5.0


class NotLeading(Conflict):
    """This process does not hold its release's Lease: it may not write."""


def ticks() -> float:
    """Seconds of a clock that nobody sets, and that runs on while the machine sleeps."""
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


@dataclass(frozen=True, slots=True)
class _Moment:
    ticks: float
    wall: datetime


@dataclass(frozen=True, slots=True)
class _Seen:
    """One state of the Lease, and when this process learned of it."""

    obj: Obj
    at: float

    @property
    def holder(self) -> str:
        return str((self.obj.get("spec") or {}).get("holderIdentity") or "")

    @property
    def version(self) -> int:
        return version_number(version_of(self.obj))

    def lasts(self, default: float) -> float:
        found = (self.obj.get("spec") or {}).get("leaseDurationSeconds")
        seconds = float(found) if isinstance(found, int) and found > 0 else default
        return min(seconds, LONGEST.total_seconds())


class Lease:
    """
    The Lease of *instance*, for the process *identity*, which no other one may share.

    *api* must not be fenced by this very Lease, and should not wait for an answer much longer
    than half of *renew_every*. *ticks* and *wall* are clocks. Safe to share between threads.
    """

    def __init__(
        self,
        api: KubeApi,
        instance: Instance,
        *,
        identity: str,
        duration: timedelta = timedelta(seconds=60),
        renew_every: timedelta = timedelta(seconds=20),
        ticks: Callable[[], float] = ticks,
        wall: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._api = api
        self.ref = ObjectRef(instance.namespace, instance.release)
        self.identity = identity
        self._seconds = math.ceil(duration.total_seconds())
        self._usable = duration.total_seconds() * (1 - MARGIN)
        self._renew_every = renew_every.total_seconds()
        low, high = RETRY_SECONDS
        self._retry = min(max(self._renew_every / 8, low), high)
        self._ticks = ticks
        self._wall = wall
        self._lock = threading.RLock()
        self._seen: _Seen | None = None
        self._missing = False
        self._sent: _Moment | None = None  # the last renewal that succeeded; None: not holding
        self._campaigning = False
        self._finishing = False
        self._problem: str | None = None
        self._on_change: Callable[[], None] = lambda: None
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._watch: WatchCache[str] = WatchCache(
            api,
            Kind.LEASE,
            namespace=self.ref.namespace,
            field_selector=f"metadata.name={self.ref.name}",
            project=self._heard,
            gone=self._deleted,
        )

    # --- asking ------------------------------------------------------------------------

    def valid(self) -> bool:
        """Whether this process holds it, by its own clocks. No request."""
        sent = self._sent
        return sent is not None and self._age(sent) < self._usable

    def ensure(self) -> None:
        """Return if `valid`, and not about to end; NotLeading otherwise."""
        if self._finishing:
            raise NotLeading("this process ends: it begins no write any more")
        if not self.valid():
            raise NotLeading(f"this process does not hold the Lease {self.ref}: it writes nothing")

    @property
    def holder(self) -> str:
        """Who was last seen holding it; empty for nobody."""
        seen = self._seen
        return seen.holder if seen else ""

    @property
    def problem(self) -> str | None:
        """Why the last attempt to take or renew it failed; None while all is well."""
        return self._problem

    def sentence(self) -> str:
        """Who holds it, in words."""
        seen = self._seen
        if seen is None or not seen.holder:
            return f"nobody holds the Lease {self.ref}"
        ago = max(0, round(self._ticks() - seen.at))
        return f"{seen.holder} holds the Lease {self.ref}, renewed {ago} s ago"

    # --- having it ---------------------------------------------------------------------

    def start(self, on_change: Callable[[], None]) -> None:
        """
        Begin to watch, to take it and to renew it, in threads. Returns at once; once only.

        *on_change* is called from them when it was gained or lost, or another one holds it.
        """
        self._on_change = on_change
        self.campaign()
        self._watch.start(self._wake.set)
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)
        self._thread.start()

    def campaign(self) -> None:
        """Take it as soon as possible; nothing if it is held."""
        with self._lock:
            self._lapse()
            self._campaigning = not self._holding()
        self._wake.set()

    def finish(self) -> None:
        """
        Begin no write any more, and do not renew or take it: it is released, or runs out.

        For good; nothing is waited for.
        """
        self._finishing = True

    def stop(self) -> None:
        """End the threads. What is held is not given up, and runs out."""
        self._stopping.set()
        self._wake.set()
        self._watch.close()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)
        self._watch.stop()

    def release(self) -> bool:
        """Hold it no more from now on, and let the next one take it at once; false if unheard."""
        with self._lock:
            self._sent, self._campaigning = None, False
        for _ in range(2):
            seen = self._seen
            if seen is None or seen.holder != self.identity:
                return True
            spec = {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": self._now()}
            try:
                answer = self._api.replace(Kind.LEASE, self.ref, self._changed(seen, spec))
                self._learn(answer, seen)
            except Conflict:
                try:
                    self._look()
                except CertbatonError:
                    return False
            except CertbatonError:
                return False
        return self.holder != self.identity

    # --- one step ----------------------------------------------------------------------

    def step(self) -> float:
        """
        Do what is due, one write and one look at most; the seconds until something is.

        What `start` runs in its thread. Raises nothing of ours: see `problem`.
        """
        try:
            pause = self._step()
            self._tell(None)
        except CertbatonError as error:
            self._tell(str(error))
            # a right that is missing comes by hand, not by itself in a moment
            pause = self._renew_every if isinstance(error, PermanentError) else self._retry
        self._lapse()
        sent = self._sent
        return pause if sent is None else min(pause, max(0.0, self._usable - self._age(sent)))

    def _step(self) -> float:
        self._lapse()
        if self._finishing:
            return self._renew_every
        sent = self._sent
        if sent is not None:
            due = self._renew_every - self._age(sent)
            return due if due > 0 and not self._missing else self._write()
        if not self._campaigning:
            return self._renew_every
        if self._seen is None and not self._missing:
            self._look()
        seen = self._seen
        if seen is not None and seen.holder not in ("", self.identity):
            left = seen.at + seen.lasts(self._seconds) - self._ticks()
            if left > 0:
                return left
        return self._write()

    def _write(self) -> float:
        """Take or renew it, whichever it is."""
        seen = self._seen
        sent = _Moment(self._ticks(), self._wall())
        spec: Obj = {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": self._seconds,
            "renewTime": self._now(),
        }
        if seen is None or seen.holder != self.identity:
            before = (seen.obj.get("spec") or {}) if seen else {}
            spec["acquireTime"] = spec["renewTime"]
            spec["leaseTransitions"] = int(before.get("leaseTransitions") or 0) + bool(seen)
        try:
            if seen is None:
                answer = self._api.create(Kind.LEASE, self.ref.namespace, self._new(spec))
            else:
                answer = self._api.replace(Kind.LEASE, self.ref, self._changed(seen, spec))
        except Conflict:
            # Somebody was first, or it was we ourselves and the answer got lost: this tells.
            self._look()
            return RETRY_SECONDS[0]
        self._learn(answer, seen)
        self._won(sent)
        return self._renew_every

    def _look(self) -> None:
        known = self._seen
        try:
            obj = self._api.read(Kind.LEASE, self.ref)
        except ObjectGone:
            with self._lock:
                self._seen, self._missing = None, True
            return
        self._learn(obj, known)

    # --- what is known -----------------------------------------------------------------

    def _learn(self, obj: Obj, known: _Seen | None) -> None:
        """
        Take in an answer to what was asked when *known* was known.

        Also an older state than that: then etcd was put back. But not where the watch has told of
        a newer one since: an answer may have lain here for long, in a process that was stopped.
        """
        with self._lock:
            before = self._seen
            older = before is not None and version_number(version_of(obj)) < before.version
            if before is not known and older:
                return
            self._missing = False
            if before is None or version_of(before.obj) != version_of(obj):
                self._seen = _Seen(obj, self._ticks())
        self._told(before)

    def _heard(self, obj: Obj, before: str | None) -> str:
        """Take in what the watch tells, which may be late."""
        with self._lock:
            known = self._seen
            if known is None or version_number(version_of(obj)) > known.version:
                self._seen, self._missing = _Seen(obj, self._ticks()), False
        self._told(known)
        return version_of(obj)

    def _deleted(self, version: int) -> None:
        """
        Take in that it was gone at *version*: its holder makes it anew at once.

        Until then whoever starts would find nothing, and take it. Those who stand by wait as long
        as they would have.
        """
        with self._lock:
            if self._holding() and self._seen is not None and version > self._seen.version:
                self._seen, self._missing = None, True

    def _told(self, before: _Seen | None) -> None:
        """Draw the conclusions from a state that was just taken in."""
        if self._seen is not None and self.holder != self.identity:
            self._lost()  # by whatever hand; what is gone altogether is made anew
        if self.holder != (before.holder if before else ""):
            self._on_change()

    def _holding(self) -> bool:
        return self._sent is not None

    def _won(self, sent: _Moment) -> None:
        with self._lock:
            self._lapse()
            # An answer that came too late is worth nothing; the next step renews it.
            if self._age(sent) >= self._usable or not (self._holding() or self._campaigning):
                return
            gained = not self._holding()
            self._sent, self._campaigning = sent, False
        if gained:
            self._on_change()

    def _lapse(self) -> None:
        """Once it has run out it is lost, so that it does not come back under anybody's hands."""
        if self._holding() and not self.valid():
            self._lost()

    def _lost(self) -> None:
        with self._lock:
            held, self._sent = self._holding(), None
        if held:
            self._on_change()

    def _age(self, moment: _Moment) -> float:
        """Seconds since *moment*, by whichever clock says more."""
        by_wall = (self._wall() - moment.wall).total_seconds()
        return max(self._ticks() - moment.ticks, by_wall)

    def _tell(self, problem: str | None) -> None:
        if problem != self._problem:
            self._problem = problem
            self._on_change()

    # --- inside ------------------------------------------------------------------------

    def _now(self) -> str:
        return f"{self._wall().astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"

    def _new(self, spec: Obj) -> Obj:
        return {
            "apiVersion": Kind.LEASE.api_version,
            "kind": Kind.LEASE.kind,
            "metadata": {"name": self.ref.name, "namespace": self.ref.namespace},
            "spec": spec,
        }

    def _changed(self, seen: _Seen, spec: Obj) -> Obj:
        """The whole object with *spec* over its own; managed fields are the server's matter."""
        metadata = {
            key: value for key, value in seen.obj["metadata"].items() if key != "managedFields"
        }
        return {**seen.obj, "metadata": metadata, "spec": {**(seen.obj.get("spec") or {}), **spec}}

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                pause = self.step()
            except Exception as error:  # noqa: BLE001  a thread that ends silently is worse
                self._tell(f"unforeseen {type(error).__name__}")
                pause = self._retry
            self._wake.wait(pause)
            self._wake.clear()
