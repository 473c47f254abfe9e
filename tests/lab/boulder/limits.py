"""
Let's Encrypt's rate limits (documentation of 2026-08-05) as token buckets.

Registered domains are the last two labels of a name: the lab has no list of public suffixes.
Orders and failed validations are spent as they come; certificates are looked at with newOrder,
and spent when an order is finalized, as Boulder does.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from lab.boulder.words import Problem

_HOUR = 3600.0
_DAY = 24 * _HOUR

NEW_ACCOUNTS = "newAccounts"
NEW_ORDERS = "newOrders"
PER_DOMAIN = "certificatesPerRegisteredDomain"
PER_SET = "certificatesPerExactSet"
FAILED = "failedValidations"
ALL_BUT_REQUESTS = frozenset({NEW_ORDERS, PER_DOMAIN, PER_SET, FAILED})

# Size, and seconds in which an empty bucket is full again.
LETS_ENCRYPT = {
    NEW_ACCOUNTS: (10, 3 * _HOUR),
    NEW_ORDERS: (300, 3 * _HOUR),
    PER_DOMAIN: (50, 7 * _DAY),
    PER_SET: (5, 7 * _DAY),
    FAILED: (5, _HOUR),
    # Requests a second for one address; newNonce has a burst of 10 and 20 a second.
    "requests:directory": (40, 1.0),
    "requests:newNonce": (10, 0.5),
    "requests:newOrder": (300, 1.0),
    "requests:renewalInfo": (1000, 1.0),
    "requests": (250, 1.0),
}
_WORDS = {
    NEW_ACCOUNTS: "too many registrations ({size}) from this IP address",
    NEW_ORDERS: "too many new orders ({size}) from this account",
    PER_DOMAIN: "too many certificates ({size}) already issued for {what}",
    PER_SET: "too many certificates ({size}) already issued for this exact set of identifiers: "
    "{what}",
    FAILED: "too many failed authorizations ({size}) for {what}",
}


@dataclass(frozen=True)
class Hit:
    """One refusal for a *limit*; *what* it counts: an account, a domain, names."""

    limit: str
    what: str
    at: datetime


@dataclass
class _Bucket:
    tokens: float
    at: float


class Limits:
    """
    The buckets; *clock* is in seconds. Kept under the proxy's lock.

    `hits` are the refusals. `sizes` may be changed: limit -> (size, seconds until full again).
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.sizes = dict(LETS_ENCRYPT)
        self.hits: list[Hit] = []
        self._clock = clock
        self._buckets: dict[tuple[str, str], _Bucket] = {}

    def check(self, *wanted: tuple[str, str]) -> Problem | None:
        """A refusal if one of *wanted*, pairs of limit and what it counts, is used up."""
        for limit, what in wanted:
            bucket = self._bucket(limit, what)
            if bucket.tokens < 1:
                self.hits.append(Hit(limit, what, datetime.now(UTC)))
                return self._refusal(limit, what, bucket)
        return None

    def spend(self, *wanted: tuple[str, str]) -> None:
        """Take one token of each, whether or not there is one."""
        for limit, what in wanted:
            self._bucket(limit, what).tokens -= 1

    def take(self, *wanted: tuple[str, str]) -> Problem | None:
        """`check`, and `spend` unless it refuses."""
        refusal = self.check(*wanted)
        if refusal is None:
            self.spend(*wanted)
        return refusal

    def left(self, limit: str, what: str) -> int:
        """How many tokens there are."""
        return math.floor(self._bucket(limit, what).tokens)

    def request(self, kind: str, address: str) -> Problem | None:
        """Count one request by its rate; 503 and not 429, as Let's Encrypt's front end does."""
        limit = f"requests:{kind}"
        return self.take((limit if limit in self.sizes else "requests", address))

    def _bucket(self, limit: str, what: str) -> _Bucket:
        size, seconds = self.sizes[limit]
        now = self._clock()
        bucket = self._buckets.setdefault((limit, what), _Bucket(size, now))
        bucket.tokens = min(size, bucket.tokens + (now - bucket.at) * size / seconds)
        bucket.at = now
        return bucket

    def _refusal(self, limit: str, what: str, bucket: _Bucket) -> Problem:
        size, seconds = self.sizes[limit]
        wait = max(1, math.ceil((1 - bucket.tokens) * seconds / size))
        if limit.startswith("requests"):
            return Problem(503, "rateLimited", "Service busy; retry later", wait)
        at = datetime.now(UTC) + timedelta(seconds=wait)
        words = _WORDS[limit].format(size=size, what=what)
        detail = (
            f"{words} in the last {timedelta(seconds=seconds)}, retry after {at:%F %T} UTC: "
            "see https://letsencrypt.org/docs/rate-limits/"
        )
        return Problem(429, "rateLimited", detail, wait)


def registered_domains(names: Iterable[str]) -> list[str]:
    """What PER_DOMAIN counts: the last two labels, an IP address as it is."""
    return sorted({_registered(name) for name in names})


def exact_set(names: Iterable[str]) -> str:
    """What PER_SET counts."""
    return ",".join(sorted(names))


def _registered(name: str) -> str:
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return ".".join(name.split(".")[-2:])
