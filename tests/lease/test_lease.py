"""The Lease: taken, renewed, run out, taken over, given up; and never held by two."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from certbaton.cluster import Kind, Lease, NotLeading
from certbaton.cluster.answers import Asked
from certbaton.model import ObjectRef
from fakes.kube import FakeApi
from lease.clocks import INSTANCE, Contender, World, both_until

REF = ObjectRef("tls", "certbaton")


@pytest.fixture
def world() -> World:
    return World()


def test_the_first_one_takes_it_with_two_requests(world: World) -> None:
    """It is called like the release, in its namespace."""
    one = Contender(world, "one")
    assert not one.lease.valid()
    one.step()
    assert one.lease.valid()
    assert [f"{asked}" for asked in one.api.requests] == [
        "read Lease tls/certbaton",
        "create Lease tls/certbaton",
    ]
    assert world.record() == {
        "holderIdentity": "one",
        "leaseDurationSeconds": 60,
        "acquireTime": "2027-03-01T12:00:00.000000Z",
        "renewTime": "2027-03-01T12:00:00.000000Z",
        "leaseTransitions": 0,
    }


def test_it_is_renewed_by_one_write_every_twenty_seconds(world: World) -> None:
    """Three requests a minute, and when it was acquired stays."""
    one = Contender(world, "one")
    one.step()
    one.api.requests.clear()
    one.until(600.0)
    assert {asked.verb for asked in one.api.requests} == {"replace"}
    assert len(one.api.requests) == 30
    assert one.lease.valid()
    assert world.record()["acquireTime"] == "2027-03-01T12:00:00.000000Z"
    assert world.record()["renewTime"] == "2027-03-01T12:10:00.000000Z"


def test_what_others_wrote_on_it_stays(world: World) -> None:
    """Labels, for instance."""
    one = Contender(world, "one")
    one.step()
    world.server.merge(Kind.LEASE, REF, {"metadata": {"labels": {"team": "web"}}})
    one.until(100.0)
    assert one.lease.valid()
    assert world.server.read(Kind.LEASE, REF)["metadata"]["labels"] == {"team": "web"}


def test_the_second_one_stands_by_without_a_request(world: World) -> None:
    """As long as its watch tells it of every renewal."""
    one, two = Contender(world, "one"), Contender(world, "two")
    one.step()
    two.step()
    two.api.requests.clear()
    both_until(600.0, one, two)
    assert not two.api.requests
    assert two.lease.holder == "one"
    assert "one holds the Lease tls/certbaton, renewed 0 s ago" in two.lease.sentence()
    with pytest.raises(NotLeading, match="does not hold"):
        two.lease.ensure()


@pytest.mark.parametrize("skew", [-3600.0, 0.0, 3600.0], ids=["behind", "right", "ahead"])
def test_it_is_taken_over_when_it_has_run_out_and_no_sooner(world: World, skew: float) -> None:
    """By when the successor saw it change, so that nobody's clock has to be right."""
    one, two = Contender(world, "one", skew=-skew), Contender(world, "two", skew=skew)
    both_until(90.0, one, two)  # the last renewal is at 80
    two.until(139.9)
    assert not two.lease.valid()
    two.until(140.1)
    assert two.lease.valid()
    assert not one.lease.valid()
    assert world.record()["leaseTransitions"] == 1


def test_a_successor_without_a_watch_takes_it_over_too(world: World) -> None:
    """Its writes are refused while the holder renews; each refusal is one look."""
    one, two = Contender(world, "one"), Contender(world, "two")
    both_until(300.0, one, two, hearing=False)
    assert one.lease.valid()
    two.until(500.0)
    assert two.lease.valid()


def test_the_holder_stops_before_it_runs_out(world: World) -> None:
    """An API server that is away: it goes on for nine tenths of the time, and then loses it."""
    one = Contender(world, "one")
    one.step()
    one.cut = True
    one.until(53.9)
    assert one.lease.valid()
    assert one.lease.problem == "no answer"
    one.until(54.1)
    assert not one.lease.valid()
    one.cut = False
    one.until(200.0)
    assert not one.lease.valid(), "what is lost is not taken again unasked"
    one.lease.campaign()
    one.step()
    assert one.lease.valid()
    assert one.lease.problem is None


def test_an_outage_shorter_than_the_lease_is_not_noticed(world: World) -> None:
    one = Contender(world, "one")
    one.step()
    one.cut = True
    one.until(50.0)
    one.cut = False
    one.until(60.0)
    assert one.lease.valid()
    assert one.changes == 4, "gained, its own name on it, a problem, no problem"


def test_an_answer_that_gets_lost_costs_one_look(world: World) -> None:
    """The write happened: the holder finds itself on it, and goes on."""
    one = Contender(world, "one")
    one.deaf = True
    one.step()
    assert not one.lease.valid()
    one.deaf = False
    one.until(10.0)
    assert one.lease.valid()
    one.deaf = True
    one.until(20.0)
    one.deaf = False
    one.until(30.0)
    assert one.lease.valid()
    assert one.changes <= 6
    assert world.record()["leaseTransitions"] == 0


def test_answers_that_are_lost_for_ever_end_it_on_both_sides(world: World) -> None:
    """Nobody works, as nobody knows; once they come again, somebody does."""
    one, two = Contender(world, "one"), Contender(world, "two")
    both_until(30.0, one, two)
    one.deaf = two.deaf = True
    both_until(500.0, one, two)
    assert not one.lease.valid()
    assert not two.lease.valid()
    one.deaf = two.deaf = False
    one.lease.campaign()
    both_until(700.0, one, two)
    assert one.lease.valid() != two.lease.valid()


def test_a_released_one_is_taken_at_once(world: World) -> None:
    """As client-go releases: nobody's name, one second."""
    one, two = Contender(world, "one"), Contender(world, "two")
    both_until(30.0, one, two)
    assert one.lease.release()
    assert not one.lease.valid()
    assert world.record()["holderIdentity"] == ""
    assert world.record()["leaseDurationSeconds"] == 1
    two.hears()
    two.step()
    assert two.lease.valid()
    assert one.lease.release(), "twice is once"
    assert world.record()["holderIdentity"] == "two"


def test_who_is_about_to_end_writes_nothing_renews_no_more_and_can_still_give_it_up(
    world: World,
) -> None:
    """What was sent before may still arrive: until it has, the Lease keeps others away."""
    one, two = Contender(world, "one"), Contender(world, "two")
    both_until(30.0, one, two)  # renewed at 20
    one.lease.finish()
    with pytest.raises(NotLeading, match="begins no write"):
        one.lease.ensure()
    both_until(79.9, one, two)
    assert world.record()["renewTime"] == "2027-03-01T12:00:20.000000Z"
    assert not two.lease.valid()
    both_until(80.1, one, two)
    assert two.lease.valid()
    two.lease.finish()
    assert two.lease.release()
    assert world.record()["holderIdentity"] == ""
    both_until(200.0, one, two)
    assert not one.lease.valid(), "nor does it take it again"


def test_a_release_whose_last_renewal_got_lost_is_heard_all_the_same(world: World) -> None:
    one = Contender(world, "one")
    one.step()
    one.deaf = True
    one.until(20.0)
    one.deaf = False
    assert one.lease.release()
    assert world.record()["holderIdentity"] == ""


def test_a_release_that_nobody_hears_leaves_it_to_run_out(world: World) -> None:
    one, two = Contender(world, "one"), Contender(world, "two")
    both_until(30.0, one, two)
    one.cut = True
    assert not one.lease.release()
    assert not one.lease.valid()
    two.until(100.0)
    assert two.lease.valid()


@pytest.mark.parametrize("seconds", [40.0, 100.0])
def test_a_renewal_that_was_on_its_way_while_it_ran_out_does_not_bring_it_back(
    world: World, seconds: float
) -> None:
    """The process was stopped: what it had begun ends first, even if that renewal is young."""
    one = Contender(world, "one")
    one.step()

    def stopped() -> None:
        world.time += seconds

    one.after_write = stopped
    one.until(20.0)
    assert not one.lease.valid()
    one.after_write = lambda: None
    one.until(world.time + 50.0)
    assert not one.lease.valid()


def test_a_machine_that_slept_does_not_hold_it(world: World) -> None:
    """Also where only the wall clock tells of the sleep."""
    one = Contender(world, "one")
    one.step()
    one.skew += 100.0
    assert not one.lease.valid()


def test_a_wall_clock_that_is_put_back_changes_nothing(world: World) -> None:
    one = Contender(world, "one")
    one.step()
    one.skew -= 1000.0
    one.until(40.0)
    assert one.lease.valid()


def test_an_edited_holder_ends_it_at_once(world: World) -> None:
    """Whoever writes another name there, by hand perhaps, has taken it."""
    one = Contender(world, "one")
    one.step()
    world.server.merge(Kind.LEASE, REF, {"spec": {"holderIdentity": "somebody"}})
    one.hears()
    assert not one.lease.valid()


def test_a_deleted_lease_is_made_anew_by_its_holder(world: World) -> None:
    """Those who stand by wait as long as they would have."""
    one, two = Contender(world, "one"), Contender(world, "two")
    both_until(30.0, one, two)
    lies = world.server.read(Kind.LEASE, REF)["metadata"]
    world.server.delete(Kind.LEASE, REF, lies["uid"], lies["resourceVersion"])
    two.until(35.0)
    assert not two.lease.valid()
    both_until(45.0, one, two)
    assert one.lease.valid()
    assert world.record()["holderIdentity"] == "one"


def test_a_deleted_lease_is_made_anew_before_one_that_starts_can_take_it(world: World) -> None:
    """As soon as its holder hears of it, whoever did it; of an older deletion it hears nothing."""
    one, two = Contender(world, "one"), Contender(world, "two")
    both_until(30.0, one, two)
    lies = world.server.read(Kind.LEASE, REF)["metadata"]
    world.server.delete(Kind.LEASE, REF, lies["uid"], lies["resourceVersion"])
    gone = int(lies["resourceVersion"]) + 1
    two.hears_that_it_is_gone(gone)
    one.hears_that_it_is_gone(gone)
    both_until(30.1, one, two)
    assert world.record()["holderIdentity"] == "one"
    three = Contender(world, "three")
    both_until(80.0, one, two, three)
    assert (one.lease.valid(), two.lease.valid(), three.lease.valid()) == (True, False, False)
    writes = len(one.api.requests)
    one.hears_that_it_is_gone(gone)
    one.step()
    assert len(one.api.requests) == writes


def test_a_deleted_lease_that_somebody_took_first_is_lost(world: World) -> None:
    """The other one read it just then: there is one holder all the same."""
    one, two = Contender(world, "one"), Contender(world, "two")
    one.step()
    lies = world.server.read(Kind.LEASE, REF)["metadata"]
    world.server.delete(Kind.LEASE, REF, lies["uid"], lies["resourceVersion"])
    two.step()
    assert two.lease.valid()
    one.hears_that_it_is_gone(int(lies["resourceVersion"]) + 1)
    one.step()
    assert not one.lease.valid()
    assert world.record()["holderIdentity"] == "two"


def test_an_answer_that_lay_there_for_long_takes_no_place_of_what_the_watch_told(
    world: World,
) -> None:
    """Else who was stopped in between would wait for one that has given it up."""
    world.server.create(
        Kind.LEASE,
        REF.namespace,
        {
            "metadata": {"name": REF.name, "namespace": REF.namespace},
            "spec": {"holderIdentity": "an old one", "leaseDurationSeconds": 3600},
        },
    )
    two = Contender(world, "two")

    def meanwhile(asked: Asked) -> None:
        if asked.verb == "read":
            obj = world.server.merge(Kind.LEASE, REF, {"spec": {"holderIdentity": "one"}})
            two.lease._heard(obj, None)

    two.api.after = meanwhile
    two.step()
    assert two.lease.holder == "one"


def test_a_lease_without_content_is_taken(world: World) -> None:
    world.server.create(Kind.LEASE, "tls", {"metadata": {"name": "certbaton", "namespace": "tls"}})
    one = Contender(world, "one")
    one.step()
    assert one.lease.valid()


def test_a_holder_with_an_absurd_time_is_waited_for_no_longer_than_any_setting(
    world: World,
) -> None:
    spec = {"holderIdentity": "gone", "leaseDurationSeconds": 10**9}
    body = {"metadata": {"name": "certbaton", "namespace": "tls"}, "spec": spec}
    world.server.create(Kind.LEASE, "tls", body)
    one = Contender(world, "one")
    one.until(3599.0)
    assert not one.lease.valid()
    one.until(3601.0)
    assert one.lease.valid()


def test_the_holders_own_time_counts_not_the_successors(world: World) -> None:
    """Settings may differ while a new configuration is rolled out."""
    one = Contender(world, "one")
    two = Contender(world, "two", duration=timedelta(seconds=6), renew_every=timedelta(seconds=2))
    both_until(20.0, one, two)
    one.cut = True
    two.until(79.0)
    assert not two.lease.valid()
    two.until(81.0)
    assert two.lease.valid()


def test_the_threads_take_renew_and_hand_over() -> None:
    """With real clocks and the watch: a release is heard at once, not after a time."""
    server = FakeApi()
    leases, news = [], threading.Event()
    for name in ("one", "two"):
        lease = Lease(
            server.client(name),
            INSTANCE,
            identity=name,
            duration=timedelta(seconds=5),
            renew_every=timedelta(seconds=1),
        )
        lease.start(news.set)
        leases.append(lease)
        while not leases[0].valid():
            assert news.wait(5)
            news.clear()
    one, two = leases
    try:
        assert not two.valid()
        one.stop()
        assert one.release()
        for _ in range(20):
            if two.valid():
                break
            news.wait(0.2)
            news.clear()
        assert two.valid()
    finally:
        for lease in leases:
            lease.stop()
