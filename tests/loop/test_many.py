"""Thousands of certificates: what each of them costs does not grow with their number."""

from __future__ import annotations

import sys
from types import FrameType

import pytest

from loop.world import SECOND, Process, World, a_spec

FEW, MANY = 5, 50


def calls(process: Process, name: str) -> int:
    """How many functions, and steps of generators, one turn of *name* takes."""
    count = 0

    def counted(frame: FrameType, event: str, arg: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(counted)
    try:
        process.reconciler.turn(name)
    finally:
        sys.setprofile(None)
    return count


@pytest.fixture
def turns() -> dict[int, int]:
    """By the number of certificates: what a turn takes that finds nothing to do."""
    found = {}
    for number in (FEW, MANY):
        world = World(*(a_spec(f"c{each}", f"s{each}") for each in range(number)))
        process = world.process()
        process.cluster.refresh()
        for _ in range(2):
            for spec in world.specs:
                report = process.reconciler.turn(spec.name)
                assert not report.failed
            world.now += 10 * SECOND
        assert len(world.versions()) == number
        process.reconciler.turn("c0")
        found[number] = calls(process, "c0")
    return found


def test_a_turn_without_news_does_not_read_through_all_others(turns: dict[int, int]) -> None:
    """With 2000 certificates a pass over all of them would else take half a minute of one core."""
    assert turns[MANY] < turns[FEW] + MANY / 2
