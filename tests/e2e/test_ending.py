"""
A leader that is asked to end (SIGTERM): it ends its write, begins none, and is gone in time.

Those that hang do so in a proxy of the leader's own; its successor has another way.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from certbaton.leaving import LEAVE_AFTER, REQUEST_GRACE
from e2e.harness import until
from e2e.replicas import DURATION_S, SLACK_S, Case, told
from e2e.writes import FIRST
from lab.chaos.faults import WireFault
from lab.chaos.proxy import ApiProxy
from lab.chaos.world import through
from lab.world import World

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(lifetime=3600, poll_interval=0.2, interruption=0.1, dns=True, workers=3) as world:
        world.install(world.configuration())
        yield world


@pytest.fixture
def case(world: World, request: pytest.FixtureRequest) -> Iterator[Case]:
    made = Case(world, request.param)
    yield made
    made.end()


@pytest.fixture
def way(case: Case) -> Iterator[ApiProxy]:
    """How ``one`` reaches the API server; ``two`` has another way."""
    plane = case.world.plane
    with ApiProxy(case.certbaton.folder, plane.url, plane.ca) as proxy:
        case.one.kubeconfig = through(case.certbaton.kubeconfig, proxy)
        yield proxy


MIDWAY = {
    "e1": "before:5",  # newOrder; its URL is not recorded any more
    "e2": "before:9",  # finalize
    "e3": "before:10",  # the version
    "e4": "before:11",  # the Service
}


@pytest.mark.parametrize("case", MIDWAY, indirect=True, ids=[f"{at}" for at in MIDWAY.values()])
def test_the_write_under_way_is_the_last_one(case: Case) -> None:
    """It is complete, the Lease is given up, and the successor goes on from there."""
    number = int(MIDWAY[case.name].partition(":")[2])
    case.begin(CERTBATON_STOP_AT=MIDWAY[case.name])
    until(lambda: case.one.stopped, "it was not stopped")
    case.one.running.send(signal.SIGTERM)  # it hears of it when it goes on
    asked = time.monotonic()
    case.one.running.send(signal.SIGCONT)
    assert case.one.running.wait(10) == 0
    told("asked to end midway, ended after", time.monotonic() - asked)
    assert case.one.writes() == FIRST[:number]
    assert case.one.at("stopped_midway") == []
    assert case.one.at("failed") == []
    case.two.wait("leading", 2.0)
    case.settle()


@pytest.mark.parametrize("case", ["hangs"], indirect=True)
def test_a_request_that_hangs_keeps_nobody(case: Case, way: ApiProxy) -> None:
    """
    The process is gone after five seconds, and its Lease runs out: that write may still come.

    It comes after the successor has gone on, and is refused.
    """
    late = WireFault("delay-before", methods=("PATCH",), path="/secrets/journal", seconds=12.0)
    with way.misbehaving(late):
        case.begin()
        until(lambda: late.met, "nothing hangs")
        asked = time.monotonic()
        case.one.running.send(signal.SIGTERM)
        assert case.one.running.wait(LEAVE_AFTER.total_seconds() + SLACK_S) == 0
        ended = time.monotonic() - asked
        told("asked to end while a request hangs, ended after", ended)
        assert ended < REQUEST_GRACE.total_seconds() + SLACK_S
        assert case.one.at("stopped_midway")
        taken = case.two.wait("leading", DURATION_S + SLACK_S) - asked
        told("taken over after", taken)
        assert taken <= DURATION_S + 0.5, "not renewed after the signal"
    case.settle()
    before = case.states()
    time.sleep(max(0.0, asked + 14.0 - time.monotonic()))
    assert case.states() == before


@pytest.mark.parametrize("case", ["silent"], indirect=True)
def test_an_api_server_that_answers_nothing_keeps_nobody(case: Case, way: ApiProxy) -> None:
    """Not the turn, not the watches, and not the Lease, which cannot be given up either."""
    everything = WireFault("delay-before", seconds=40.0)
    case.begin()
    case.settle()
    with way.misbehaving(everything, WireFault("delay-before", seconds=40.0, watches=True)):
        until(lambda: everything.met, "nothing hangs", 10.0)
        asked = time.monotonic()
        case.one.running.send(signal.SIGTERM)
        assert case.one.running.wait(LEAVE_AFTER.total_seconds() + SLACK_S) == 0
        told("asked to end while nothing answers, ended after", time.monotonic() - asked)
    case.two.wait("leading", DURATION_S + SLACK_S)
