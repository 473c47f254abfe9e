"""
An API server in memory: exactly the methods of ``certbaton.cluster``'s `KubeApi`.

tests/contracts/test_api_contract.py runs one suite on this and on the real
kube-apiserver, so that what holds here holds there. Beyond it a test can be
other users of the same cluster (`FakeApi.client`), look at every request and
crash around it (`before`, `after`), and make watches end or expire.
"""

from __future__ import annotations

import copy
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import TypeAlias, TypeVar

from certbaton.cluster.answers import Answer, Asked, error_for
from certbaton.cluster.contract import Kind, Obj, Page, ref_of, uid_of, version_number
from certbaton.errors import CertbatonError
from certbaton.model import ObjectRef
from fakes import kube_rules as rules
from fakes.kube_fields import Manager, applied, flatten, updated

T = TypeVar("T")
Owners: TypeAlias = list[Manager]

WRITES = frozenset({"create", "replace", "merge", "apply", "delete"})


@dataclass(frozen=True)
class _Change:
    """*before* and *after* are None around creation and deletion."""

    number: int
    kind: Kind
    before: Obj | None
    after: Obj | None


@dataclass
class _World:
    """What all clients share. Everything happens under *changed*'s lock."""

    now: Callable[[], datetime]
    changed: threading.Condition = field(default_factory=threading.Condition)
    number: int = 100
    oldest: int = 100  # watches from before this are expired
    objects: dict[tuple[Kind, ObjectRef], Obj] = field(default_factory=dict)
    managers: dict[str, list[Manager]] = field(default_factory=dict)
    history: list[_Change] = field(default_factory=list)
    ended: int = 0  # how many times all watches were told to end
    bookmarks: int = 0


class FakeApi:
    """
    One user of the cluster in memory; *manager* is the field manager of ordinary writes.

    *before* and *after* are called with each request of this user, outside the
    lock; what they raise comes out of the method, as a crash or an outage
    would. *requests* is the list of all of them.
    """

    def __init__(
        self,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        manager: str = "certbaton",
        page: int = 500,
        world: _World | None = None,
    ) -> None:
        self._world = world or _World(now)
        self._manager = manager
        self._page = page
        self.before: Callable[[Asked], None] = lambda asked: None
        self.after: Callable[[Asked], None] = lambda asked: None
        self.requests: list[Asked] = []
        self.apart: timedelta | None = None

    # --- for tests ---------------------------------------------------------------------

    def client(self, manager: str) -> FakeApi:
        """Another user of the same cluster, without hooks."""
        return FakeApi(manager=manager, page=self._page, world=self._world)

    @property
    def writes(self) -> list[Asked]:
        """Those of the requests that change something."""
        return [asked for asked in self.requests if asked.verb in WRITES]

    def all(self, kind: Kind) -> dict[ObjectRef, Obj]:
        """Every object of *kind*, without a request."""
        return {ref_of(obj): obj for obj in self._those(kind, lambda obj: True)}

    def _those(self, kind: Kind, chosen: Callable[[Obj], bool]) -> list[Obj]:
        with self._world.changed:
            found = [(ref, obj) for (of, ref), obj in self._world.objects.items() if of is kind]
            return [rules.copied(obj) for _, obj in sorted(found, key=itemgetter(0)) if chosen(obj)]

    def set_status(self, kind: Kind, ref: ObjectRef, status: Obj) -> Obj:
        """Write the subresource ``status``, as a cloud's controller does."""
        with self._world.changed:
            before = self._get(Asked("merge", kind, ref.namespace, ref.name))
            after = rules.copied(before)
            after["status"] = status
            return self._store(kind, before, after)

    def clock_apart(self) -> timedelta | None:
        """As far as the test says, by `apart`."""
        return self.apart

    def end_watches(self) -> None:
        """End all open watches, as the server does after their time."""
        with self._world.changed:
            self._world.ended += 1
            self._world.changed.notify_all()

    def bookmark(self) -> None:
        """Send a bookmark on all open watches."""
        with self._world.changed:
            self._world.bookmarks += 1
            self._world.changed.notify_all()

    def compact(self) -> None:
        """Forget the past: a watch from before now is answered with 410."""
        with self._world.changed:
            self._world.history.clear()
            self._world.number += 1
            self._world.oldest = self._world.number

    # --- KubeApi -----------------------------------------------------------------------

    def read(self, kind: Kind, ref: ObjectRef) -> Obj:
        asked = Asked("read", kind, ref.namespace, ref.name)
        return self._request(asked, lambda: rules.copied(self._get(asked)))

    def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> Page:
        items: list[Obj] = []
        version = ""
        for page, version in self.pages(  # noqa: B007
            kind, namespace, label_selector=label_selector, field_selector=field_selector
        ):
            items += page
        return items, version

    def pages(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> Iterator[Page]:
        asked = Asked("list", kind, namespace)
        chosen = rules.selector(namespace, label_selector, field_selector)

        def snapshot() -> Page:
            return self._those(kind, chosen), str(self._world.number)

        items, version = self._request(asked, snapshot)
        yield items[: self._page], version
        for start in range(self._page, len(items), self._page):
            begin = start
            yield self._request(asked, lambda: items[begin : begin + self._page]), version  # noqa: B023

    def create(self, kind: Kind, namespace: str, body: Obj) -> Obj:
        ref = ObjectRef(namespace, body["metadata"]["name"])
        asked = Asked("create", kind, ref.namespace, ref.name)

        def act() -> Obj:
            if (kind, ref) in self._world.objects:
                raise self._refuse(asked, 409, "AlreadyExists")
            obj = rules.copied(body)
            obj["metadata"] |= {
                "namespace": namespace,
                "uid": str(uuid.uuid4()),
                "creationTimestamp": self._world.now().strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
            self._check(asked, None, obj)
            updated(self._owners(obj), {}, flatten(obj), self._manager, self._world.now())
            return self._store(kind, None, obj)

        return self._request(asked, act)

    def replace(self, kind: Kind, ref: ObjectRef, body: Obj) -> Obj:
        return self._update(Asked("replace", kind, ref.namespace, ref.name), lambda _: body)

    def merge(self, kind: Kind, ref: ObjectRef, body: Obj) -> Obj:
        return self._update(
            Asked("merge", kind, ref.namespace, ref.name), lambda obj: rules.merged(obj, body)
        )

    def apply(self, kind: Kind, ref: ObjectRef, body: Obj, field_manager: str) -> Obj:
        asked = Asked("apply", kind, ref.namespace, ref.name)

        def act() -> Obj:
            before = self._world.objects.get((kind, ref))
            if before is None:
                assert "uid" in body["metadata"], "it would be created: not a thing certbaton wants"
                raise self._refuse(asked, 409, "Conflict")
            self._precondition(asked, before, body["metadata"])
            after = rules.copied(before)
            content = rules.defaulted(kind, rules.copied(body))
            owners = copy.deepcopy(self._owners(before))
            changed, _ = applied(owners, after, content, field_manager, self._world.now())
            if not changed:
                return rules.copied(before)
            self._check(asked, before, after)
            self._world.managers[uid_of(before)] = owners
            return self._store(kind, before, after)

        return self._request(asked, act)

    def delete(self, kind: Kind, ref: ObjectRef, uid: str, resource_version: str) -> None:
        asked = Asked("delete", kind, ref.namespace, ref.name)

        def act() -> None:
            before = self._get(asked)
            self._precondition(asked, before, {"uid": uid, "resourceVersion": resource_version})
            self._world.number += 1
            after = rules.copied(before)
            after["metadata"]["resourceVersion"] = str(self._world.number)
            del self._world.objects[kind, ref]
            self._publish(_Change(self._world.number, kind, after, None))

        self._request(asked, act)

    def watch(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        resource_version: str,
        timeout_seconds: int,
        label_selector: str | None = None,
        field_selector: str | None = None,
    ) -> FakeWatch:
        asked = Asked("watch", kind, namespace)

        def act() -> FakeWatch:
            if version_number(resource_version) < self._world.oldest:
                raise self._refuse(asked, 410, "Expired")
            chosen = rules.selector(namespace, label_selector, field_selector)
            return FakeWatch(
                self._world, kind, chosen, version_number(resource_version), timeout_seconds
            )

        return self._request(asked, act)

    def close(self) -> None:
        """Nothing to let go of."""

    # --- inside ------------------------------------------------------------------------

    def _request(self, asked: Asked, act: Callable[[], T]) -> T:
        self.requests.append(asked)
        self.before(asked)
        with self._world.changed:
            answer = act()
        self.after(asked)
        return answer

    def _refuse(self, asked: Asked, status: int, reason: str, message: str = "") -> CertbatonError:
        return error_for(asked, Answer(status, reason, message), self._world.now())

    def _get(self, asked: Asked) -> Obj:
        obj = self._world.objects.get((asked.kind, ObjectRef(asked.namespace or "", asked.name)))
        if obj is None:
            raise self._refuse(asked, 404, "NotFound")
        return obj

    def _precondition(self, asked: Asked, there: Obj, wanted: Obj) -> None:
        for key in ("uid", "resourceVersion"):
            if wanted.get(key) not in (None, "", there["metadata"][key]):
                raise self._refuse(asked, 409, "Conflict")

    def _check(self, asked: Asked, before: Obj | None, after: Obj) -> None:
        problem = rules.flaw(asked.kind, before, rules.defaulted(asked.kind, after))
        if problem is not None:
            field_, words = problem
            causes = ({"reason": "FieldValueInvalid", "field": field_, "message": words},)
            message = f"{asked.kind} {asked.name!r} is invalid: {field_}: {words}"
            raise error_for(asked, Answer(422, "Invalid", message, causes), self._world.now())

    def _owners(self, obj: Obj) -> Owners:
        return self._world.managers.setdefault(uid_of(obj), [])

    def _update(self, asked: Asked, change: Callable[[Obj], Obj]) -> Obj:
        def act() -> Obj:
            before = self._get(asked)
            after = rules.copied(change(rules.copied(before)))
            wanted = after.get("metadata") or {}
            self._precondition(asked, before, wanted)
            kept = ("uid", "creationTimestamp", "name", "namespace", "resourceVersion")
            after["metadata"] = wanted | {key: before["metadata"][key] for key in kept}
            after["metadata"]["managedFields"] = before["metadata"].get("managedFields", [])
            after["apiVersion"], after["kind"] = before["apiVersion"], before["kind"]
            if "status" in before:
                after["status"] = rules.copied(before["status"])
            self._check(asked, before, after)
            if after == before:
                return rules.copied(before)
            owners = self._owners(before)
            updated(owners, flatten(before), flatten(after), self._manager, self._world.now())
            return self._store(asked.kind, before, after)

        return self._request(asked, act)

    def _store(self, kind: Kind, before: Obj | None, after: Obj) -> Obj:
        self._world.number += 1
        after["apiVersion"], after["kind"] = kind.api_version, kind.kind
        after["metadata"]["resourceVersion"] = str(self._world.number)
        after["metadata"]["managedFields"] = [
            manager.entry(kind.api_version) for manager in self._owners(after)
        ]
        self._world.objects[kind, ref_of(after)] = after
        self._publish(_Change(self._world.number, kind, before, after))
        return rules.copied(after)

    def _publish(self, change: _Change) -> None:
        self._world.history.append(change)
        self._world.changed.notify_all()


class FakeWatch:
    """An open watch on a `FakeApi`."""

    def __init__(
        self,
        world: _World,
        kind: Kind,
        chosen: Callable[[Obj], bool],
        position: int,
        timeout_seconds: int,
    ) -> None:
        self._world = world
        self._kind = kind
        self._chosen = chosen
        self._position = position
        self._ended = world.ended
        self._bookmarks = world.bookmarks
        self._until = time.monotonic() + timeout_seconds
        self._closed = False

    def __iter__(self) -> Iterator[tuple[str, Obj]]:
        return self

    def __next__(self) -> tuple[str, Obj]:
        with self._world.changed:
            while True:
                if self._closed or self._ended != self._world.ended:
                    raise StopIteration
                event = self._next()
                if event is not None:
                    return event
                left = self._until - time.monotonic()
                if left <= 0:
                    raise StopIteration
                self._world.changed.wait(left)

    def close(self) -> None:
        with self._world.changed:
            self._closed = True
            self._world.changed.notify_all()

    def _next(self) -> tuple[str, Obj] | None:
        for change in self._world.history:
            if change.number <= self._position or change.kind is not self._kind:
                continue
            self._position = change.number
            was = change.before is not None and self._chosen(change.before)
            is_ = change.after is not None and self._chosen(change.after)
            if is_:
                return ("MODIFIED" if was else "ADDED"), rules.copied(change.after or {})
            if was:
                last = rules.copied(change.before or {})
                last["metadata"]["resourceVersion"] = str(change.number)
                return "DELETED", last
        if self._bookmarks != self._world.bookmarks:
            self._bookmarks = self._world.bookmarks
            self._position = self._world.number
            return "BOOKMARK", {"metadata": {"resourceVersion": str(self._world.number)}}
        return None
