"""Every state that Services and Secrets were in, in the order of their resourceVersions."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any, Self

from lab.kube import Kube, KubeError, Watch
from lab.world import TLS_SECRET

Obj = dict[str, Any]
Key = tuple[str, str]


@dataclass(frozen=True)
class State:
    """
    One state: *version* is etcd's revision, the same count for both kinds.

    It is 0 for what was there before.
    """

    version: int
    kind: str
    key: Key
    obj: Obj | None  # None: deleted


class History:
    """
    Watches all Services, and the Secrets of *namespace*, from `__enter__` to `__exit__`.

    Revisions tell for certain what was there when, so a Secret that is missing for a millisecond
    is found as well as one that is missing for good.
    """

    def __init__(self, kube: Kube, namespace: str) -> None:
        self._kube = kube
        self._paths = {
            "Service": "/api/v1/services",
            "Secret": f"/api/v1/namespaces/{namespace}/secrets",
        }
        self._changed = threading.Condition()
        self._states: list[State] = []
        # The last revision heard of, and whether the object was there then.
        self._last: dict[str, dict[Key, tuple[int, bool]]] = {kind: {} for kind in self._paths}
        self._watches: dict[str, Watch] = {}
        self._broken: list[str] = []
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        for kind, path in self._paths.items():
            listing = self._kube.list(path)
            for obj in listing["items"]:
                self._note(kind, "ADDED", obj, since=0)
            version = listing["metadata"]["resourceVersion"]
            self._watches[kind] = self._kube.watch(path, resource_version=version, timeout=600.0)
            thread = threading.Thread(target=self._follow, args=(kind,), daemon=True)
            self._threads.append(thread)
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for watch in self._watches.values():
            watch.close()
        for thread in self._threads:
            thread.join(10)

    def states(self, kind: str, timeout: float = 10.0) -> list[State]:
        """Every state of that kind so far, up to what is there now."""
        end = time.monotonic() + timeout
        for one, path in self._paths.items():
            listing = self._kube.list(path)
            at = int(listing["metadata"]["resourceVersion"])
            there = {_key(obj): int(obj["metadata"]["resourceVersion"]) for obj in listing["items"]}
            with self._changed:
                while self._behind(one, there, at):
                    assert self._changed.wait(end - time.monotonic()), "the watch lags behind"
        with self._changed:
            assert not self._broken, self._broken
            return sorted((s for s in self._states if s.kind == kind), key=lambda s: s.version)

    def dangling(self, only: str | None = None) -> list[str]:
        """
        Each time that a Service named a Secret of the namespace that was not there, in words.

        With *only*, of the Services of that name.
        """
        lives: dict[Key, list[tuple[int, int]]] = {}
        for state in self.states("Secret"):
            spans = lives.setdefault(state.key, [])
            if state.obj is None:
                spans[-1:] = [(spans[-1][0], state.version)] if spans else []
            elif not spans or spans[-1][1] != FOREVER:
                spans.append((state.version, FOREVER))
        found = []
        for key, name, begin, end in self.references():
            if only is not None and key[1] != only:
                continue
            if not any(born <= begin and end <= died for born, died in lives.get(name, [])):
                found.append(f"{key} named {name} from {begin} to {end}, there: {lives.get(name)}")
        return found

    def references(self) -> list[tuple[Key, Key, int, int]]:
        """Which Service named which Secret, from which revision to before which."""
        found: list[tuple[Key, Key, int, int]] = []
        named: dict[Key, tuple[Key, int]] = {}

        def close(key: Key, version: int) -> None:
            if key in named:
                secret, begin = named.pop(key)
                found.append((key, secret, begin, version))

        for state in self.states("Service"):
            value = None
            if state.obj is not None:
                value = state.obj["metadata"].get("annotations", {}).get(TLS_SECRET)
            secret = None
            if value is not None:
                first, slash, second = value.partition("/")
                secret = (first, second) if slash else (state.key[0], value)
            if state.key in named and named[state.key][0] == secret:
                continue
            close(state.key, state.version)
            if secret is not None:
                named[state.key] = (secret, state.version)
        for key in list(named):
            close(key, FOREVER)
        return sorted(found, key=lambda item: item[2])

    def contents(self, name: str) -> set[str]:
        """Every content (tls.crt) that the Secret of that name ever had."""
        return {
            state.obj["data"].get("tls.crt", "")
            for state in self.states("Secret")
            if state.key[1] == name and state.obj is not None
        }

    def _behind(self, kind: str, there: dict[Key, int], at: int) -> bool:
        """Whether a list (keys, and their revisions) made *at* knows what was not heard of yet."""
        last = self._last[kind]
        return any(last.get(key, (0, False))[0] < version for key, version in there.items()) or any(
            alive and seen <= at and key not in there for key, (seen, alive) in last.items()
        )

    def _follow(self, kind: str) -> None:
        try:
            with self._watches[kind] as watch:
                for event in watch:
                    self._note(kind, event["type"], event["object"])
            if not self._stopping.is_set():
                self._broken.append(f"the watch of {kind} ended")
        except KubeError as error:
            if not self._stopping.is_set():
                self._broken.append(str(error))

    def _note(self, kind: str, event: str, obj: Obj, since: int | None = None) -> None:
        key, version = _key(obj), int(obj["metadata"]["resourceVersion"])
        with self._changed:
            gone = event == "DELETED"
            begin = version if since is None else since
            self._states.append(State(begin, kind, key, None if gone else obj))
            self._last[kind][key] = version, not gone
            self._changed.notify_all()


FOREVER = 1 << 62


def _key(obj: Obj) -> Key:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]
