"""The contract of `certbaton.solvers.Solver`, on every solver that is in the tree."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from certbaton.errors import SolverNotReady
from solvers.worlds import (
    SolverWorld,
    challenge,
    dns01_world,
    fake_dns,
    http01_world,
    knot_dns,
)


@pytest.fixture(params=["http-01", "dns-01", pytest.param("knot", marks=pytest.mark.servers)])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SolverWorld]:
    with ExitStack() as stack:
        if request.param == "http-01":
            yield stack.enter_context(http01_world(tmp_path))
        else:
            dns = knot_dns if request.param == "knot" else fake_dns
            yield stack.enter_context(dns01_world(stack.enter_context(dns(tmp_path))))


def test_what_is_presented_is_found_and_ready(world: SolverWorld) -> None:
    """After present the CA finds the answer, and ready says so by returning."""
    one = challenge(world.solver.challenge_type, world.name, "one")
    world.solver.present(one)
    world.solver.ready(one)
    assert world.finds(one)


def test_ready_is_honest_or_silent(world: SolverWorld) -> None:
    """Where ready looks, it raises SolverNotReady for an answer that is not there."""
    one = challenge(world.solver.challenge_type, world.name, "one")
    try:
        world.solver.ready(one)
    except SolverNotReady as error:
        assert error.retry_at is not None
        assert error.retry_at.tzinfo is not None
        assert one.value not in str(error)
    else:
        assert world.solver.challenge_type == "http-01"  # it does not look
    world.solver.present(one)
    world.solver.ready(one)


def test_presenting_twice_is_presenting_once(world: SolverWorld) -> None:
    """One clean_up takes away what was presented any number of times."""
    one = challenge(world.solver.challenge_type, world.name, "one")
    world.solver.present(one)
    world.solver.present(one)
    assert world.finds(one)
    world.solver.clean_up(one)
    assert not world.finds(one)


def test_cleaning_up_nothing_succeeds(world: SolverWorld) -> None:
    """clean_up needs no present before it, and may come twice."""
    one = challenge(world.solver.challenge_type, world.name, "one")
    world.solver.clean_up(one)
    world.solver.present(one)
    world.solver.clean_up(one)
    world.solver.clean_up(one)
    assert not world.finds(one)


def test_challenges_of_one_name_live_side_by_side(world: SolverWorld) -> None:
    """A name and its wildcard are answered at once, and cleaned up one by one."""
    kind = world.solver.challenge_type
    plain, wildcard = challenge(kind, world.name, "one"), challenge(kind, f"*.{world.name}", "two")
    world.solver.present(plain)
    world.solver.present(wildcard)
    assert world.finds(plain)
    assert world.finds(wildcard)
    world.solver.clean_up(plain)
    assert not world.finds(plain)
    assert world.finds(wildcard)
    world.solver.ready(wildcard)


def test_certificates_do_not_disturb_one_another(world: SolverWorld) -> None:
    """Challenges of different names come and go independently."""
    kind = world.solver.challenge_type
    several = [challenge(kind, f"n{number}.{world.name}", f"t{number}") for number in range(3)]
    for each in several:
        world.solver.present(each)
    world.solver.clean_up(several[1])
    assert [world.finds(each) for each in several] == [True, False, True]


def test_closing_is_always_possible(world: SolverWorld) -> None:
    """close may come twice; start brings the solver back."""
    world.solver.close()
    world.solver.close()
    world.solver.start()
    world.solver.start()
    one = challenge(world.solver.challenge_type, world.name, "one")
    world.solver.present(one)
    assert world.finds(one)


def test_nothing_shows_the_answer(world: SolverWorld) -> None:
    """Neither the solver nor a challenge shows a token or a value in its repr."""
    one = challenge(world.solver.challenge_type, world.name, "token-of-one")
    world.solver.present(one)
    shown = repr(world.solver) + repr(one)
    assert one.value not in shown
    assert one.token not in shown
