"""
Servers that go away, lose their memory or hang in the middle of a renewal, and clocks that jump.

What ends in the same state as ever: one new version, served, noted, by one certificate of the CA.
Pebble is annoying here: it rejects half of the nonces, and is slow to sign.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from chaos.cases import PROFILES, SHORT_S, Case, Cases
from e2e.harness import Certbaton, until
from lab.chaos import ChaosWorld, WireFault
from lab.chaos.listener import interrupted, stuck
from lab.oci import Faults
from lab.process import Process

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

PATIENCE = 60.0
# So that an order is open for long enough to be met.
SLOW = WireFault("delay-before", path="/finalize-order/", seconds=2)


@pytest.fixture(scope="module")
def cases() -> Iterator[Cases]:
    with ExitStack() as stack:
        world = stack.enter_context(
            ChaosWorld(
                lifetime=SHORT_S,
                poll_interval=0.2,
                interruption=0.1,
                dns=True,
                workers=3,
                faults=Faults(),
                pebble={"nonce_reject": 50, "profiles": PROFILES},
            )
        )
        yield Cases(world, stack)


@pytest.fixture(scope="module")
def made(cases: Cases) -> dict[str, Case]:
    """All cases with their first version, so that they become due together."""
    return dict(zip(NAMES, cases.each(cases.issued, NAMES), strict=True))


NAMES = (
    "apiserver",
    "etcd",
    "away-at-start",
    "forgetful",
    "ahead",
    "behind",
    "asleep",
    "interrupted",
    "stuck",
)


def pending(certbaton: Certbaton) -> bool:
    """Whether an order is open at the CA."""
    return "url" in str(certbaton.journal(certbaton.release).get("pending") or "")


def renews(
    cases: Cases, case: Case, at: Callable[[], object], fault: Callable[[Process], None]
) -> None:
    """A renewal in whose middle, once *at* is true, *fault* happens."""
    cases.due(case)
    issued = cases.world.pebble.certificates_issued()
    with case.ca.misbehaving(SLOW), case.certbaton.start() as daemon:
        until(at, f"{case.name} never came to that point")
        fault(daemon)
        cases.ends_well(case, daemon, PATIENCE)
    assert cases.world.pebble.certificates_issued() - issued == 1
    assert cases.issued_of(case) == 2


def repointed(cases: Cases, case: Case) -> Callable[[], bool]:
    """Whether the Service names another version than before."""
    return lambda: cases.world.tls_secret("shop", case.name) not in case.seen


def test_an_api_server_that_is_killed_in_the_middle_of_an_order(
    cases: Cases, made: dict[str, Case]
) -> None:
    case = made["apiserver"]
    renews(
        cases,
        case,
        lambda: pending(case.certbaton),
        lambda daemon: cases.world.plane.restart_apiserver(kill=True),
    )


def test_an_etcd_that_is_killed_in_the_middle_of_a_handover(
    cases: Cases, made: dict[str, Case]
) -> None:
    case = made["etcd"]
    renews(
        cases,
        case,
        repointed(cases, case),
        lambda daemon: cases.world.plane.restart_etcd(kill=True),
    )


def test_an_api_server_that_is_away_when_the_daemon_starts(
    cases: Cases, made: dict[str, Case]
) -> None:
    """It waits, and does its work when it can."""
    case = made["away-at-start"]

    cases.due(case)
    issued = cases.world.pebble.certificates_issued()
    faults = WireFault("cut-before"), WireFault("cut-before", watches=True)
    with case.api.misbehaving(*faults):
        daemon = case.certbaton.start()
        time.sleep(4)
    with daemon:
        cases.ends_well(case, daemon, PATIENCE)
    assert cases.world.pebble.certificates_issued() - issued == 1


def test_a_clock_that_is_ahead_for_a_while(cases: Cases, made: dict[str, Case]) -> None:
    """Ten minutes, in which the old version has expired, and back."""
    case = made["ahead"]

    def step(daemon: Process) -> None:
        cases.world.clock.set(600)
        time.sleep(2)
        cases.world.clock.set(0)

    try:
        renews(cases, case, lambda: pending(case.certbaton), step)
    finally:
        cases.world.clock.set(0)


def test_a_clock_that_is_behind_for_a_while(cases: Cases, made: dict[str, Case]) -> None:
    """So far that the new version is not valid yet: nothing is ordered for that."""
    case = made["behind"]

    def step(daemon: Process) -> None:
        cases.world.clock.set(-60)
        time.sleep(3)
        cases.world.clock.set(0)

    try:
        renews(cases, case, lambda: pending(case.certbaton), step)
    finally:
        cases.world.clock.set(0)


def test_a_daemon_that_sleeps_through_its_own_order(cases: Cases, made: dict[str, Case]) -> None:
    """A suspended laptop: for longer than its Lease lasts."""
    case = made["asleep"]

    def sleep(daemon: Process) -> None:
        daemon.send(signal.SIGSTOP)
        time.sleep(8)
        daemon.send(signal.SIGCONT)

    renews(cases, case, lambda: pending(case.certbaton), sleep)


@pytest.mark.parametrize(("name", "how"), [("interrupted", interrupted), ("stuck", stuck)])
def test_a_listener_that_is_out_of_action_during_the_handover(
    cases: Cases, made: dict[str, Case], name: str, how: Callable[..., ExitStack]
) -> None:
    """That speaks against the place: nothing is rejected, nothing is ordered."""
    case = made[name]

    def out(daemon: Process) -> None:
        with how(cases.world.cloud.load_balancer("shop", name)):
            time.sleep(3)

    renews(cases, case, repointed(cases, case), out)
    (version,) = case.certbaton.versions(name)
    assert "certbaton.io/rejected" not in version["metadata"]["annotations"]


def test_a_ca_that_forgets_everything_in_the_middle_of_an_order(
    cases: Cases, made: dict[str, Case]
) -> None:
    """Account and order are gone: both are made anew."""
    case = made["forgetful"]
    cases.due(case)
    with case.ca.misbehaving(SLOW), case.certbaton.start() as daemon:
        until(lambda: pending(case.certbaton), "no order was begun")
        cases.world.pebble.restart()
        cases.ends_well(case, daemon, PATIENCE)
    assert cases.issued_of(case) == 2
