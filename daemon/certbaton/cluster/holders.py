"""
Whether other instances of certbaton are alive, by their Leases.

One GET in ten minutes for each that has a Service which is configured here too, so
nothing where there is none. What cannot be read says nothing against anybody.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from certbaton.cluster import codec
from certbaton.cluster.contract import Kind, KubeApi
from certbaton.errors import CertbatonError, ObjectGone
from certbaton.model import Instance, ObjectRef

FRESH: Final = timedelta(minutes=10)
RETRY: Final = timedelta(minutes=1)
# Who has not looked for longer has seen nothing of what happened in between. Looks come a bit
# later than they are due, and one may be made up for by what was read just before.
GAP: Final = 3 * FRESH
LONGEST_SECONDS: Final = 3600  # no Lease of certbaton's lasts longer


@dataclass(frozen=True, slots=True)
class Sign:
    """
    An instance's Lease, as it was read at *read_at*: see `certbaton.model.Claim`.

    *state* is what is compared; None where it could not be read.
    """

    read_at: datetime
    state: str | None = None
    renewed_at: datetime | None = None
    lasts: timedelta = timedelta(0)
    unchanged_since: datetime | None = None
    trouble: str | None = None


class Holders:
    """Looks at the Leases of other instances. Safe to share between threads."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self._lock = threading.Lock()
        self._signs: dict[Instance, Sign] = {}

    def sign(
        self, instance: Instance, now: datetime, again: Callable[[Sign], bool] = lambda sign: False
    ) -> Sign:
        """
        The Lease of *instance*, as it was read within ten minutes, or one if it was in trouble.

        *again* may ask for a new look at what is known, which the answer is then not asked of.
        """
        with self._lock:
            last = self._signs.get(instance)
            if last is not None and not again(last):
                fresh = FRESH if last.trouble is None else RETRY
                if timedelta(0) <= now - last.read_at < fresh:
                    return last
            found = self._read(instance, now)
            if last is not None and found.trouble is None and last.state == found.state:
                found = replace(found, renewed_at=last.renewed_at)
                if timedelta(0) <= now - last.read_at <= GAP:
                    found = replace(found, unchanged_since=last.unchanged_since)
            self._signs[instance] = found
            return found

    def _read(self, instance: Instance, now: datetime) -> Sign:
        try:
            obj = self._api.read(Kind.LEASE, ObjectRef(instance.namespace, instance.release))
        except ObjectGone:
            return Sign(now, state="none", unchanged_since=now)
        except CertbatonError as error:
            return Sign(now, trouble=str(error))
        spec = obj.get("spec") or {}
        seconds, renewed = spec.get("leaseDurationSeconds"), spec.get("renewTime")
        lasts = min(max(seconds, 0), LONGEST_SECONDS) if isinstance(seconds, int) else 0
        return Sign(
            now,
            state=f"{renewed} {spec.get('holderIdentity')}",
            renewed_at=_time(renewed, now),
            lasts=timedelta(seconds=lasts),
            unchanged_since=now,
        )


def _time(text: object, now: datetime) -> datetime | None:
    """Read a time; one in the future is as good as now."""
    try:
        return min(codec.read_time(text), now)
    except (codec.Unreadable, OverflowError):
        return None
