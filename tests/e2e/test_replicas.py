"""
Two daemons of one release: one works, the other stands by and takes over.

The first one does everything from the account on (`replicas`), and is stopped or killed between
two writes of its own.
"""

from __future__ import annotations

import contextlib
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from e2e.harness import KILLED, until
from e2e.replicas import DURATION_S, SLACK_S, Case, Replica, told
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
    name = getattr(request, "param", None) or request.node.originalname
    made = Case(world, name.removeprefix("test_").replace("_", "-")[:40])
    yield made
    made.end()


@contextlib.contextmanager
def way_of(case: Case, replica: Replica) -> Iterator[ApiProxy]:
    """How *replica* reaches the API server, before it is started; the other has another way."""
    plane = case.world.plane
    with ApiProxy(case.certbaton.folder, plane.url, plane.ca) as proxy:
        replica.kubeconfig = through(case.certbaton.kubeconfig, proxy)
        yield proxy
        case.end()


KILLS = {
    "a1": "after:4",  # the Journal has the key
    "a2": "after:6",  # and the order's URL
    "a3": "after:8",  # the CA signs
    "a4": "after:10",  # the Service is repointed
}


@pytest.mark.parametrize("case", KILLS, indirect=True, ids=[f"{at}" for at in KILLS.values()])
def test_a_killed_leader_is_followed_within_the_lease_time(case: Case) -> None:
    """The rollover goes on where it was; the CA issues once."""
    case.begin(CERTBATON_CRASH_AT=KILLS[case.name])
    assert case.one.running.wait(30) == KILLED
    died = time.monotonic()
    taken = case.two.wait("leading", DURATION_S + SLACK_S)
    told(f"killed {KILLS[case.name]}, taken over after", taken - died)
    assert taken - died <= DURATION_S + 0.5
    case.settle()
    together = case.one.writes() + case.two.writes()
    assert together.count("acme finalize") == 1
    assert together.count("acme newAccount") == 1


STOPS = {
    "s1": "before:5",  # newOrder, behind the check
    "s2": "after:6",  # the order's URL is recorded
    "s3": "before:9",  # finalize
    "s4": "before:10",  # the version
    "s5": "after:10",
    "s6": "before:11",  # the Service
    "s7": "before:12",  # the order is closed
}


@pytest.mark.parametrize("case", STOPS, indirect=True, ids=[f"{at}" for at in STOPS.values()])
def test_a_stopped_leader_that_wakes_up_writes_nothing_over_its_successor(case: Case) -> None:
    """
    Stopped between two writes it sends none; right before one, that one is refused.

    Then it stands by, and is still good for taking over.
    """
    moment = STOPS[case.name]
    case.begin(CERTBATON_STOP_AT=moment)
    until(lambda: case.one.stopped, "it was not stopped")
    stopped = time.monotonic()
    taken = case.two.wait("leading", DURATION_S + SLACK_S)
    told(f"stopped {moment}, taken over after", taken - stopped)
    case.settle()
    before = case.states()
    case.one.running.send(signal.SIGCONT)
    case.one.wait("standing_by", count=2)
    time.sleep(1.0)
    assert case.states() == before
    number = int(moment.partition(":")[2])
    assert case.one.writes() == FIRST[:number], "nothing after the one that it was at"
    assert case.world.pebble.certificates_issued() - case.issued == 1
    assert case.one.at("turn_broke") == []
    case.two.running.kill()
    until(lambda: len(case.one.at("leading")) == 2, "it does not lead again", 10.0)
    time.sleep(0.5)
    assert case.states() == before


@pytest.mark.parametrize("case", ["term"], indirect=True)
def test_a_leader_that_is_asked_to_end_hands_over_at_once(case: Case) -> None:
    """Exit code 0; whoever stands by is ready and well, and leads in well under a second."""
    case.begin()
    case.settle()
    assert case.two.probe("/healthz") == (200, "well\n")
    assert case.two.probe("/readyz") == (200, "well\n")
    before = case.states()
    asked = time.monotonic()
    case.one.running.send(signal.SIGTERM)
    taken = case.two.wait("leading", 5.0)
    told("asked to end, taken over after", taken - asked)
    assert taken - asked < 2.0
    assert case.one.running.wait(10) == 0
    time.sleep(0.5)
    assert case.states() == before


@pytest.mark.parametrize("case", ["midway"], indirect=True)
def test_a_leader_that_is_asked_to_end_midway_ends_its_write_and_no_more(case: Case) -> None:
    """It does not see the order through; the successor does."""
    case.begin()
    until(lambda: "acme newOrder" in case.one.writes(), "no order")
    asked = time.monotonic()
    case.one.running.send(signal.SIGTERM)
    assert case.one.running.wait(25) == 0
    told("asked to end midway, ended after", time.monotonic() - asked)
    case.two.wait("leading", 5.0)
    case.settle()


@pytest.mark.parametrize("case", ["beside"], indirect=True)
def test_once_beside_a_daemon_waits_and_says_for_whom(case: Case) -> None:
    """6; ``plan`` needs no Lease; when the daemon has ended, ``once`` works."""
    case.one.start()
    case.one.wait("leading")
    ended = case.certbaton.once("3s")
    assert ended.code == 6, ended
    (line,) = ended.events("still_waiting")
    assert line["what"].startswith(f"another process works: {case.holder()} holds the Lease")
    assert case.certbaton.call("plan").code == 0
    case.one.running.stop(deadline=30.0)
    case.world.add_service("shop", case.name, f"{case.name}.example.test")
    ended = case.certbaton.once()
    assert ended.code == 0, ended
    assert case.served()
    assert case.holder() == ""


@pytest.mark.parametrize("case", ["away"], indirect=True)
def test_an_api_server_that_is_away_for_longer_costs_nothing_but_the_time(case: Case) -> None:
    """Nobody works meanwhile; then exactly one does, in the same processes."""
    case.begin()
    case.settle()
    before = case.states()
    apiserver = case.world.plane.apiserver
    apiserver.send(signal.SIGSTOP)
    try:
        case.one.wait("lease_lost", DURATION_S + SLACK_S)
    finally:
        apiserver.send(signal.SIGCONT)
    again = time.monotonic()
    leads = (case.one, case.two)
    until(lambda: sum(len(one.at("leading")) for one in leads) == 2, "nobody leads", 20.0)
    told("after an outage, leading again after", time.monotonic() - again)
    time.sleep(1.0)
    assert sum(len(one.at("leading")) for one in leads) == 2
    assert all(one.running.running for one in leads)
    assert case.states() == before


@pytest.mark.parametrize("case", ["cut-off"], indirect=True)
def test_a_leader_that_alone_loses_the_network_writes_nothing_over_its_successor(
    case: Case,
) -> None:
    """
    It is cut off in the middle of an order; the other one has a way, and takes over.

    When its network is back it stands by, and writes nothing that it had begun.
    """
    with way_of(case, case.one) as way:
        case.begin(CERTBATON_STOP_AT="before:6")  # the order's URL is on its way
        until(lambda: case.one.stopped, "it was not stopped")
        with way.misbehaving(WireFault("cut-before"), WireFault("cut-before", watches=True)):
            way.drop_watches()
            case.one.running.send(signal.SIGCONT)
            cut = time.monotonic()
            case.one.wait("lease_lost", DURATION_S + SLACK_S)
            taken = case.two.wait("leading", DURATION_S + SLACK_S)
            told("cut off, taken over after", taken - cut)
            assert taken - cut <= DURATION_S + 0.5
            assert case.one.at("lease_lost")[0] <= taken + 0.1, "two led at one time"
            case.settle()
            before = case.states()
            written = case.one.writes()
        case.one.wait("standing_by", count=2)
        time.sleep(1.0)
        assert case.states() == before
        assert case.one.writes() == written
        assert case.one.at("turn_broke") == []
        case.two.running.kill()
        # Its watch may still be backing off: then it hears of two's last renewal when it tries.
        case.one.wait("leading", 2 * DURATION_S + SLACK_S, count=2)
        time.sleep(0.5)
        assert case.states() == before


@pytest.mark.parametrize("case", ["lagging"], indirect=True)
def test_a_successor_whose_watch_lags_orders_nothing_that_is_stored(case: Case) -> None:
    """Its predecessor died with the version just made; it has heard of nothing, and goes on."""
    with way_of(case, case.two) as way:
        case.begin(CERTBATON_STOP_AT="before:4")
        until(lambda: case.one.stopped, "it was not stopped")
        way.hold_watches(3 * DURATION_S)
        case.one.running.send(signal.SIGCONT)
        until(lambda: "cluster apply Service" in case.one.writes(), "no version")
        case.one.running.kill()
        case.two.wait("leading", 3 * DURATION_S)
        case.settle()
        assert way.counts["watch-held"]
        together = case.one.writes() + case.two.writes()
        assert together.count("acme newOrder") == 1
        assert together.count("acme finalize") == 1


def test_any_replica_answers_http01_for_the_one_that_works(world: World) -> None:
    """The CA's request comes to the one that stands by, which was given no challenge."""
    case = Case(world, "any", solver="http")
    try:
        case.begin()
        case.settle()
        assert case.two.writes() == []
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        path = "/.well-known/acme-challenge/" + "A" * 43
        with pytest.raises(urllib.error.HTTPError) as caught:
            opener.open(f"http://127.0.0.1:{world.solver_port}{path}", timeout=5)
        caught.value.close()
        assert caught.value.code == 404, "no order is open any more"
    finally:
        case.end()
