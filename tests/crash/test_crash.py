"""
Whatever dies whenever: the next process ends where the crash-free run ends.

Two Services share a certificate; it is issued, handed over, renewed, handed over again, and the
old version is collected. Writes to the cluster and requests that change something at the CA
count alike. The architecture's crash table is what this guards.
"""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from certbaton.errors import CaUnavailable, CertbatonError, ClusterUnavailable
from crash.world import START, Crash, Moment, World

# Due at 60 days (give or take 0.9), and the old version's retention of a day is over by then.
UNTIL = START + timedelta(days=63)
ISSUANCES = 2
WRITES = 35
MOMENTS = [Moment(when, number) for number in range(1, WRITES + 1) for when in ("before", "after")]


def lost(what: str) -> CertbatonError:
    """The answer to a write that happened, but that nobody heard."""
    kind = CaUnavailable if what.startswith("acme ") else ClusterUnavailable
    return kind(f"no answer to {what}")


def assert_settled(world: World, issuances: int = ISSUANCES) -> None:
    """All that has to be true in the end, and was true after every single write."""
    assert world.broken == []
    assert len(world.ca.issued) == issuances
    # only the newest version is left, every Service names it, every listener serves it
    assert len(world.versions()) == 1
    assert world.named() == set(world.versions())
    assert len(set(world.served.values())) == 1
    assert len(world.served) == world.services
    for leaves in world.history.values():
        assert len(leaves) == issuances, "each version was put on each listener once"
    assert world.answers == {}, "no challenge is left behind"
    cluster, reconciler = world.process()
    cluster.refresh()
    journal = cluster.store.journal(world.spec.name)
    assert journal is not None
    assert journal.pending is None
    plan = reconciler.plan(world.spec.name)
    assert plan.actions == ()


def test_without_a_crash_a_certificate_is_issued_renewed_and_the_old_one_collected() -> None:
    """The run that all others are held against, and the number of its writes."""
    world = World().run(UNTIL)
    assert_settled(world)
    assert len(world.writes) == WRITES, world.writes


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda m: f"{m.when}-{m.number}")
def test_a_crash_around_any_write_changes_nothing(moment: Moment) -> None:
    """Before and after each write, with answers to challenges that outlive the process."""
    world = World(crashes=frozenset({moment})).run(UNTIL)
    assert_settled(world)
    assert world.lives == 2 + 1, "it did crash (and assert_settled looked)"


@pytest.mark.parametrize("number", range(1, WRITES + 1))
def test_crashes_around_any_two_writes_change_nothing(number: int) -> None:
    """Every pair whose first is around this write; the second may be in the recovery."""
    firsts = [moment for moment in MOMENTS if moment.number == number]
    for first in firsts:
        for second in MOMENTS[MOMENTS.index(first) + 1 :]:
            world = World(crashes=frozenset({first, second})).run(UNTIL)
            try:
                assert_settled(world)
            except AssertionError as error:
                raise AssertionError(f"{first} and {second}: {error}") from error


@pytest.mark.parametrize("moment", MOMENTS[::3], ids=lambda m: f"{m.when}-{m.number}")
def test_answers_to_challenges_may_die_with_the_process(moment: Moment) -> None:
    """As http-01's do: they are derived again from the order and the account key."""
    assert_settled(World(crashes=frozenset({moment}), lasting=False).run(UNTIL))


@pytest.mark.parametrize("number", range(1, WRITES + 1))
def test_a_lost_answer_to_any_write_changes_nothing(number: int) -> None:
    """The write happened, the process lives on and does not know."""
    assert_settled(World(loses=frozenset({number}), loss=lost).run(UNTIL))


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    services=st.integers(1, 3),
    lasting=st.booleans(),
    crashes=st.frozensets(
        st.builds(Moment, st.sampled_from(["before", "after"]), st.integers(1, 60)), max_size=5
    ),
    loses=st.frozensets(st.integers(1, 60), max_size=4),
    reuse_orders=st.booleans(),
    validation_s=st.integers(0, 400),
    issuance_s=st.integers(0, 400),
)
def test_any_mixture_of_crashes_lost_answers_and_slow_places_settles(
    services: int,
    lasting: bool,
    crashes: frozenset[Moment],
    loses: frozenset[int],
    reuse_orders: bool,
    validation_s: int,
    issuance_s: int,
) -> None:
    """Validation and signing may take longer than one call's patience of two minutes."""
    world = World(crashes, loses, lost, services, lasting)
    world.ca.reuse_orders = reuse_orders
    world.ca.validation_time = timedelta(seconds=validation_s)
    world.ca.issuance_time = timedelta(seconds=issuance_s)
    assert_settled(world.run(UNTIL))


def test_the_world_notices_a_service_that_names_a_missing_secret() -> None:
    """The guard itself works: a version deleted under a Service is seen as broken."""
    world = World().run(UNTIL)
    from certbaton.cluster import Kind
    from certbaton.model import ObjectRef

    ref = ObjectRef("certbaton", world.versions()[0])
    there = world.api.read(Kind.SECRET, ref)["metadata"]
    world.api.delete(Kind.SECRET, ref, there["uid"], there["resourceVersion"])
    world._check()
    assert any("missing" in sentence for sentence in world.broken)


def test_the_world_does_crash() -> None:
    """Nothing between the hook and the world swallows a Crash."""
    world = World(crashes=frozenset({Moment("before", 1)}))
    cluster, reconciler = world.process()
    cluster.refresh()
    with pytest.raises(Crash):
        reconciler.turn(world.spec.name)
