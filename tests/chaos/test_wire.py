"""
A renewal while the way to the API server or to the CA is bad ends as if nothing had happened.

Each family of faults has a release of its own behind proxies of its own; they run side by side,
as most of it is waiting.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack

import pytest

from chaos.cases import PROFILES, SHORT_S, Case, Cases, Family
from lab.chaos import ApiProxy, ChaosWorld, WireFault
from lab.chaos.faults import Kind

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

WRITES = ("POST", "PUT", "PATCH", "DELETE")
CHANGES = ("PUT", "PATCH", "DELETE")


def drop(api: ApiProxy) -> None:
    for _ in range(20):
        api.drop_watches()
        time.sleep(0.2)


def hold(api: ApiProxy) -> None:
    time.sleep(1.5)  # in which it starts
    api.hold_watches(4)


def bad(kind: Kind, methods: tuple[str, ...] = ()) -> tuple[WireFault, ...]:
    """So often, but no more: chance could let one step fail until its back-off is minutes."""
    return (WireFault(kind, 0.4, methods=methods, times=12),)


def with_and_without_retry_after(kind: Kind) -> tuple[WireFault, ...]:
    return WireFault(kind, 0.25, times=6), WireFault(kind, 0.25, seconds=1, times=6)


def families() -> dict[str, Family]:
    """New faults: they count."""
    return {
        "api-delayed": Family(
            (WireFault("delay-before", 0.3, seconds=1), WireFault("delay-after", 0.5, seconds=1))
        ),
        "api-cut": Family(bad("cut-before")),
        "api-lost-answer": Family(bad("cut-after", WRITES)),
        "api-409": Family(bad("conflict", CHANGES)),
        "api-410": Family(
            (
                WireFault("gone", watches=True, times=4),
                WireFault("gone", 0.5, methods=("GET",), times=4),
            )
        ),
        "api-429": Family(with_and_without_retry_after("too-many")),
        "api-500": Family(bad("error")),
        "api-500-carried-out": Family(bad("error-after", WRITES)),
        "api-503": Family(with_and_without_retry_after("unavailable")),
        "watches-dropped": Family(done=drop),
        "watches-stale": Family(done=hold),
        "ca-half-the-nonces": Family(ca=(WireFault("bad-nonce", 0.5, methods=("POST",)),)),
        "ca-lost-answer": Family(ca=bad("cut-after", ("POST",))),
        "ca-cut": Family(ca=bad("cut-before")),
        "ca-429": Family(ca=with_and_without_retry_after("too-many")),
        "ca-503": Family(ca=with_and_without_retry_after("unavailable")),
    }


@pytest.fixture(scope="module")
def world() -> Iterator[ChaosWorld]:
    with ChaosWorld(
        lifetime=SHORT_S,
        poll_interval=0.2,
        interruption=0.1,
        dns=True,
        workers=3,
        pebble={"profiles": PROFILES},
    ) as world:
        yield world


class Renewals:
    """Every family's renewal, under way."""

    def __init__(self, cases: Cases) -> None:
        self.cases = cases
        them = families()
        self.made: dict[str, Case] = dict(zip(them, cases.each(cases.issued, them), strict=True))
        self.running: dict[str, Future[None]] = {
            name: cases.later(cases.renew, self.made[name], family) for name, family in them.items()
        }


@pytest.fixture(scope="module")
def renewals(world: ChaosWorld) -> Iterator[Renewals]:
    with ExitStack() as stack:
        yield Renewals(Cases(world, stack))


@pytest.mark.parametrize("family", families())
def test_a_renewal_ends_as_if_nothing_had_happened(renewals: Renewals, family: str) -> None:
    """One new version, served and noted, the old one collected, and no challenge left."""
    renewals.running[family].result()
    assert renewals.cases.issued_of(renewals.made[family]) == 2
    assert renewals.cases.history.dangling(only=family) == []


def test_no_certificate_was_wasted(renewals: Renewals) -> None:
    """By the CA's own count: each release's first and its renewal."""
    for future in renewals.running.values():
        future.exception()
    assert renewals.cases.world.pebble.certificates_issued() == 2 * len(renewals.made)
