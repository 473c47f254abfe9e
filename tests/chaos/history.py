"""A history of Services and Secrets that outlives restarts of the API server."""

from __future__ import annotations

from typing import Any

from e2e.history import History
from lab.kube import KubeError


class LongHistory(History):
    """`History` that goes on over whatever the API server does."""

    def _follow(self, kind: str) -> None:
        watch = self._watches[kind]
        while not self._stopping.is_set():
            try:
                with watch:
                    for event in watch:
                        if event["type"] != "BOOKMARK":
                            self._note(kind, event["type"], event["object"])
            except KubeError as error:
                if error.status == 410:
                    self._again(kind)
            watch = self._open(kind) or watch

    def _open(self, kind: str) -> Any:
        while not self._stopping.wait(0.05):
            try:
                watch = self._kube.watch(
                    self._paths[kind], resource_version=str(self._at(kind)), timeout=600.0
                )
            except KubeError as error:
                if error.status == 410:
                    self._again(kind)
                continue
            self._watches[kind] = watch
            return watch
        return None

    def _at(self, kind: str) -> int:
        with self._changed:
            return max((version for version, _ in self._last[kind].values()), default=0)

    def _again(self, kind: str) -> None:
        """List anew; of what began in between only so much is known that it did."""
        try:
            listing = self._kube.list(self._paths[kind])
        except KubeError:
            self._stopping.wait(0.2)
            return
        before = self._at(kind)
        at = int(listing["metadata"]["resourceVersion"])
        there = set()
        for obj in listing["items"]:
            key = (obj["metadata"]["namespace"], obj["metadata"]["name"])
            there.add(key)
            seen, alive = self._last[kind].get(key, (0, False))
            if int(obj["metadata"]["resourceVersion"]) > seen:
                born = before + 1 if kind == "Secret" and not alive else None
                self._note(kind, "ADDED" if not alive else "MODIFIED", obj, since=born)
        for key, (_, alive) in list(self._last[kind].items()):
            if alive and key not in there:
                gone = {"namespace": key[0], "name": key[1], "resourceVersion": str(at)}
                self._note(kind, "DELETED", {"metadata": gone})
