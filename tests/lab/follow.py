"""A list-watch of the lab's own: what the API server has of a kind, told change by change."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from lab.kube import Kube, KubeError, Watch

Obj = dict[str, Any]


class Follower:
    """
    A thread that lists and watches: *seen* gets the type of each change and the object.

    What is there at first is ADDED. It goes on over whatever the API server does.
    """

    def __init__(
        self, kube: Kube, path: str, seen: Callable[[str, Obj], None], **query: Any
    ) -> None:
        self._kube, self._path, self._seen, self._query = kube, path, seen, query
        self._stop = threading.Event()
        self._watch: Watch | None = None
        self._known: dict[str, Obj] = {}
        self._thread = threading.Thread(target=self._loop, name="timeline", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End: *seen* gets nothing more."""
        self._stop.set()
        if self._watch is not None:
            self._watch.close()
        if self._thread.is_alive():
            self._thread.join(5)

    def _loop(self) -> None:
        while not self._stop.is_set():
            try:
                self._follow(self._list())
            except KubeError:
                self._stop.wait(0.2)

    def _list(self) -> str:
        listing = self._kube.list(self._path, **self._query)
        present = {item["metadata"]["uid"]: item for item in listing["items"]}
        for uid in set(self._known) - set(present):
            self._seen("DELETED", self._known.pop(uid))
        for item in present.values():
            self._take("ADDED", item)
        return str(listing["metadata"]["resourceVersion"])

    def _follow(self, version: str) -> None:
        while not self._stop.is_set():
            with self._kube.watch(self._path, resource_version=version, **self._query) as watch:
                self._watch = watch
                if self._stop.is_set():
                    return
                for event in watch:
                    version = event["object"]["metadata"]["resourceVersion"]
                    self._take(event["type"], event["object"])

    def _take(self, change: str, item: Obj) -> None:
        if change == "DELETED":
            self._known.pop(item["metadata"]["uid"], None)
        else:
            self._known[item["metadata"]["uid"]] = item
        self._seen(change, item)
