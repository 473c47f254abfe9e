"""How far our clock is from the API server's, told by its answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from certbaton.cluster.clock import ServerClock

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
DATE = "Mon, 01 Jun 2026 12:00:00 GMT"


class Machine:
    """A clock that can be set, and an uptime that cannot."""

    def __init__(self) -> None:
        self.now, self.up = NOON, 1000.0
        self.clock = ServerClock(lambda: self.now, lambda: self.up)

    def passes(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.up += seconds


def seconds(clock: ServerClock) -> float:
    apart = clock.apart()
    assert apart is not None
    return apart.total_seconds()


def test_before_the_first_answer_nothing_is_known() -> None:
    """None is not zero."""
    assert ServerClock().apart() is None


def test_the_date_of_an_answer_tells() -> None:
    """Whole seconds: half a second either way is no difference."""
    machine = Machine()
    machine.clock.heard(DATE)
    assert seconds(machine.clock) == 0.5
    machine.now -= timedelta(minutes=10)
    machine.clock.heard(DATE)
    assert seconds(machine.clock) == 600.5


def test_time_that_passes_changes_nothing() -> None:
    """Both clocks go on."""
    machine = Machine()
    machine.clock.heard(DATE)
    machine.passes(3600)
    assert seconds(machine.clock) == 0.5


def test_a_clock_that_is_set_is_noticed_without_a_request() -> None:
    """Uptime did not jump, the clock did."""
    machine = Machine()
    machine.clock.heard(DATE)
    machine.passes(60)
    machine.now += timedelta(hours=1)
    assert seconds(machine.clock) == 0.5 - 3600


@pytest.mark.parametrize("date", [None, "", "yesterday", "Mon, 99 Foo 2026", "12:00"])
def test_nonsense_is_ignored(date: str | None) -> None:
    """A proxy's header is no evidence."""
    machine = Machine()
    machine.clock.heard(DATE)
    machine.clock.heard(date)
    assert seconds(machine.clock) == 0.5
