"""
The cluster under one roof: Secrets, Services and Events, and how well we know them.

With `Cluster.start` three watches keep it up to date, at no request but their
renewal every five to ten minutes; without it, `Cluster.refresh` lists anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from certbaton.cluster.cache import WatchCache
from certbaton.cluster.contract import KubeApi
from certbaton.cluster.events import SyncEvents
from certbaton.cluster.holders import Holders
from certbaton.cluster.services import Services
from certbaton.cluster.store import Store
from certbaton.errors import CertbatonError
from certbaton.model import Instance, ObjectRef


class Cluster:
    """
    One instance's view of its cluster: `store`, `services`, `events`, `holders`.

    *targets* are the Services that certbaton serves, *account_secrets* the names of accounts'
    Secrets, by directory, that are not the usual ones. Safe to share between threads. *api* is
    the caller's to close.
    """

    def __init__(
        self,
        api: KubeApi,
        instance: Instance,
        targets: Iterable[ObjectRef],
        *,
        account_secrets: Mapping[str, str] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        targets = frozenset(targets)
        self.api = api
        self.instance = instance
        self.store = Store(api, instance, account_secrets)
        self.services = Services(api, targets, instance.field_manager)
        self.events = SyncEvents(api, targets, now)
        self.holders = Holders(api)

    @property
    def _caches(self) -> tuple[WatchCache[Any], ...]:
        return self.store.cache, self.services.cache, self.events.cache

    @property
    def complete(self) -> bool:
        """
        Secrets and Services are known in full: a precondition of deleting anything.

        Events are not asked about: they are hints, and may be missing for good.
        """
        needed: tuple[WatchCache[Any], ...] = (self.store.cache, self.services.cache)
        return all(cache.synced and cache.problem is None for cache in needed)

    def problems(self) -> tuple[str, ...]:
        """One sentence for each collection not known in full, and each record unreadable."""
        found = [
            cache.problem or f"{cache.name}: not listed yet"
            for cache in self._caches
            if cache.problem is not None or not cache.synced
        ]
        return (*found, *self.store.problems())

    def start(self, on_change: Callable[[], None]) -> None:
        """
        Begin to watch, each collection in a thread of its own. Returns at once.

        *on_change* is called from those threads, without arguments, whenever
        something that is kept has changed by another hand than ours.
        """
        for cache in self._caches:
            cache.start(on_change)

    def stop(self) -> None:
        """End the watches and wait for their threads, a few seconds at most."""
        for cache in self._caches:
            cache.close()
        for cache in self._caches:
            cache.stop()

    def refresh(self) -> None:
        """
        List all three anew, now: a request for each 500 objects. For use without `start`.

        A list that fails is in `problems`, and the others go on.
        """
        for cache in self._caches:
            try:
                cache.relist()
            except CertbatonError:
                continue  # the cache has kept it as its problem
