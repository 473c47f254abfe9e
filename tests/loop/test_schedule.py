"""
The scheduler, with the real APScheduler under it and turns that a test holds and lets go.

Nothing here waits for time to pass: a test waits for what has to happen, and fails when it has
not after ten seconds. That something does *not* happen is seen by what happens in its place.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import cast

import pytest
from apscheduler.events import EVENT_JOB_MAX_INSTANCES

from certbaton import schedule
from certbaton.model import Wait, WaitKind
from certbaton.reconcile import Reconciler, Report
from certbaton.schedule import TURN_DEADLINE, Scheduler

LONG = timedelta(hours=1)
PATIENCE = 30.0


class Turns:
    """A reconciler: counts turns, and holds those that a test wants held."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.count: dict[str, int] = dict.fromkeys(names, 0)
        self.held: dict[str, threading.Event] = {}
        self.raising: dict[str, BaseException] = {}
        self.next_in: dict[str, timedelta] = {}
        self.looking: Callable[[], None] = lambda: None
        self._changed = threading.Condition()

    def certificates(self) -> tuple[str, ...]:
        names = self.names
        self.looking()
        return names

    def turn(self, name: str) -> Report:
        with self._changed:
            self.count[name] += 1
            self._changed.notify_all()
        gate = self.held.get(name)
        if gate is not None:
            assert gate.wait(PATIENCE)
        if name in self.raising:
            raise self.raising[name]
        if name not in self.next_in:
            return Report(name)
        until = datetime.now(UTC) + self.next_in[name]
        return Report(name, waits=(Wait("later", until, WaitKind.LATER),))

    def hold(self, name: str) -> threading.Event:
        """Hold the turns of *name* until the event is set."""
        self.held[name] = threading.Event()
        return self.held[name]

    def until(self, name: str, count: int) -> None:
        """Wait until *name* has had that many turns begun."""
        with self._changed:
            there = self._changed.wait_for(lambda: self.count[name] >= count, PATIENCE)
        assert there, f"{name} had {self.count[name]} turn(s), not {count}"


Start = Callable[..., Scheduler]


@pytest.fixture
def start() -> Iterator[Start]:
    """Make schedulers that end with the test."""
    made: list[tuple[Scheduler, Turns]] = []

    def make(
        turns: Turns,
        *,
        workers: int = 4,
        backstop: timedelta = LONG,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        started: bool = True,
    ) -> Scheduler:
        scheduler = Scheduler(
            cast(Reconciler, turns), workers=workers, backstop=backstop, clock=clock
        )
        made.append((scheduler, turns))
        if started:
            scheduler.start()
        return scheduler

    yield make
    for scheduler, turns in made:
        for gate in turns.held.values():
            gate.set()
        assert scheduler.close(timedelta(seconds=PATIENCE))


def until(what: Callable[[], bool]) -> None:
    """Wait until *what* is true."""
    deadline = threading.Event()
    for _ in range(int(PATIENCE / 0.01)):
        if what():
            return
        deadline.wait(0.01)
    raise AssertionError("it never came to be")


# --- turns ------------------------------------------------------------------------------------


def test_each_certificate_gets_a_turn_at_once(start: Start) -> None:
    """Without any wake."""
    turns = Turns("one", "two")
    start(turns)
    turns.until("one", 1)
    turns.until("two", 1)


def test_the_next_turn_comes_when_the_last_said(start: Start) -> None:
    """Of that certificate alone; the job outlives its runs."""
    turns = Turns("often", "seldom")
    turns.next_in["often"] = timedelta(milliseconds=60)
    start(turns)
    turns.until("often", 5)
    assert turns.count["seldom"] == 1


def test_the_backstop_comes_whatever_a_turn_said(start: Start) -> None:
    """A turn that waits for nothing, or for a time far away."""
    turns = Turns("nothing", "later")
    turns.next_in["later"] = timedelta(days=60)
    start(turns, backstop=timedelta(milliseconds=200))
    turns.until("nothing", 3)
    turns.until("later", 3)


def test_a_turn_that_wants_another_at_once_is_no_tight_loop(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a plan says."""
    monkeypatch.setattr(schedule, "GATHER", timedelta(seconds=1))
    turns = Turns("hasty")
    turns.next_in["hasty"] = -timedelta(days=1)
    scheduler = start(turns)
    turns.until("hasty", 1)
    until(lambda: "hasty" in scheduler._next)
    assert scheduler._next["hasty"] - datetime.now(UTC) > timedelta(milliseconds=500)


def test_a_slow_certificate_delays_no_other(start: Start) -> None:
    """One turn is held; the other gets turn after turn, and the held one none beside it."""
    turns = Turns("slow", "quick")
    gate = turns.hold("slow")
    turns.next_in["quick"] = timedelta(milliseconds=60)
    start(turns)
    turns.until("slow", 1)
    turns.until("quick", 4)
    assert turns.count["slow"] == 1
    gate.set()


def test_a_certificate_that_left_gets_no_more_turns(start: Start) -> None:
    """Nor is its time kept."""
    turns = Turns("stays", "leaves")
    turns.next_in = dict.fromkeys(("stays", "leaves"), timedelta(milliseconds=60))
    scheduler = start(turns)
    turns.until("leaves", 1)
    turns.names = ("stays",)
    turns.until("stays", 8)
    before = turns.count["leaves"]
    turns.until("stays", 12)
    assert turns.count["leaves"] == before
    assert "leaves" not in scheduler._next


# --- wakes ------------------------------------------------------------------------------------


def test_a_wake_brings_all_turns_forward(start: Start) -> None:
    """Something in the cluster changed."""
    turns = Turns("one", "two")
    scheduler = start(turns)
    turns.until("one", 1)
    turns.until("two", 1)
    until(lambda: not scheduler._running)
    scheduler.wake()
    turns.until("one", 2)
    turns.until("two", 2)


def test_a_wake_while_a_turn_runs_is_not_lost(start: Start) -> None:
    """What the turn had read before is out of date: it gets another one."""
    turns = Turns("one")
    gate = turns.hold("one")
    scheduler = start(turns)
    turns.until("one", 1)
    scheduler.wake()
    gate.set()
    turns.until("one", 2)


def test_a_wake_while_a_tick_runs_is_not_lost(start: Start) -> None:
    """APScheduler itself would drop it: one instance at a time."""
    turns = Turns("one")
    scheduler = start(turns)
    turns.until("one", 1)
    until(lambda: not scheduler._running)
    in_tick, go_on = threading.Event(), threading.Event()

    def look() -> None:
        turns.looking = lambda: None
        in_tick.set()
        assert go_on.wait(PATIENCE)

    turns.looking = look
    scheduler.wake()
    assert in_tick.wait(PATIENCE)
    # it has read which certificates there are, and another one turns up
    turns.count["two"] = 0
    turns.names = ("one", "two")
    scheduler.wake()
    go_on.set()
    turns.until("two", 1)


def test_many_wakes_are_gathered(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A burst of changes is one turn, not a hundred."""
    monkeypatch.setattr(schedule, "GATHER", timedelta(milliseconds=300))
    turns = Turns("one")
    scheduler = start(turns)
    turns.until("one", 1)
    until(lambda: not scheduler._running)
    for _ in range(100):
        scheduler.wake()
    turns.until("one", 2)
    assert turns.count["one"] == 2


def test_a_wake_before_the_start_is_harmless(start: Start) -> None:
    """The caches are filled, and tell so, before the scheduler runs."""
    turns = Turns("one")
    scheduler = start(turns, started=False)
    scheduler.wake()
    scheduler.start()
    turns.until("one", 1)


def test_a_tick_that_was_skipped_is_made_up_for(start: Start) -> None:
    """It came due before the last was quite over; its certificate waits for no backstop."""
    turns = Turns("one")
    scheduler = start(turns)
    turns.until("one", 1)
    until(lambda: not scheduler._running)
    in_tick, go_on, skipped = threading.Event(), threading.Event(), threading.Event()

    def look() -> None:
        turns.looking = lambda: None
        in_tick.set()
        assert go_on.wait(PATIENCE)

    turns.looking = look
    scheduler._scheduler.add_listener(lambda event: skipped.set(), EVENT_JOB_MAX_INSTANCES)
    scheduler.wake()
    assert in_tick.wait(PATIENCE)
    # as the end of a tick does, with the tick not gone yet for APScheduler
    job = scheduler._job
    assert job is not None
    job.modify(next_run_time=datetime.now(UTC))
    assert skipped.wait(PATIENCE)
    with scheduler._lock:
        assert scheduler._woken
    go_on.set()
    turns.until("one", 2)


def test_a_tick_that_ends_while_it_is_handed_out_moves_its_job(start: Start) -> None:
    """APScheduler writes the next run after handing the job out: what was moved before is lost."""
    turns = Turns("one")
    turns.next_in["one"] = timedelta(milliseconds=60)
    scheduler = start(turns)
    inner = scheduler._scheduler
    with inner._jobstores_lock:  # as while jobs are handed out
        mover = threading.Thread(target=scheduler.wake)
        mover.start()
        mover.join(0.2)
        assert mover.is_alive(), "it waits until the job has its next run"
    mover.join(PATIENCE)
    turns.until("one", 3)


# --- trouble ------------------------------------------------------------------------------------


def test_a_turn_that_raises_does_not_end_the_loop(start: Start) -> None:
    """It gets its next turn at the backstop, and others theirs."""
    turns = Turns("broken", "well")
    turns.raising["broken"] = ValueError("a mistake of ours")
    scheduler = start(turns, backstop=timedelta(milliseconds=200))
    turns.until("broken", 3)
    turns.until("well", 3)
    assert scheduler.alive() is None


def test_a_tick_that_raises_does_not_end_the_loop(start: Start) -> None:
    """The next comes with the backstop."""
    turns = Turns("one")
    failed = threading.Event()

    def look() -> None:
        turns.looking = lambda: None
        failed.set()
        raise ValueError("a mistake of ours")

    turns.looking = look
    start(turns, backstop=timedelta(milliseconds=200))
    assert failed.wait(PATIENCE)
    turns.until("one", 1)


def test_alive_tells_a_turn_that_never_ends(start: Start) -> None:
    """By the clock, and not before its deadline."""
    now = [datetime.now(UTC)]
    turns = Turns("stuck")
    gate = turns.hold("stuck")
    scheduler = start(turns, clock=lambda: now[0])
    turns.until("stuck", 1)
    assert scheduler.alive() is None
    now[0] += TURN_DEADLINE
    assert scheduler.alive() is None
    now[0] += timedelta(seconds=1)
    assert scheduler.alive() == "the turn of stuck began over 0:15:00 ago"
    gate.set()
    until(lambda: scheduler.alive() is None)


# --- the end ------------------------------------------------------------------------------------


def test_close_waits_for_turns_that_run(start: Start) -> None:
    """And says that all ended."""
    turns = Turns("one")
    gate = turns.hold("one")
    scheduler = start(turns)
    turns.until("one", 1)
    threading.Timer(0.1, gate.set).start()
    assert scheduler.close(timedelta(seconds=PATIENCE))
    assert not scheduler._running


def test_close_gives_up_on_a_turn_that_hangs(start: Start) -> None:
    """False, in the time that it was given."""
    turns = Turns("one")
    turns.hold("one")
    scheduler = start(turns)
    turns.until("one", 1)
    assert not scheduler.close(timedelta(milliseconds=50))


def test_close_in_the_middle_of_a_tick_does_not_deadlock(start: Start) -> None:
    """The tick modifies its job, or would; it is told that the end has come."""
    turns = Turns("one")
    in_tick, go_on = threading.Event(), threading.Event()

    def look() -> None:
        in_tick.set()
        assert go_on.wait(PATIENCE)

    turns.looking = look
    scheduler = start(turns)
    assert in_tick.wait(PATIENCE)
    threading.Timer(0.1, go_on.set).start()
    assert scheduler.close(timedelta(seconds=PATIENCE))
    assert turns.count["one"] == 0


def test_no_turn_begins_after_close(start: Start) -> None:
    """Not even one that was handed to the pool and had found no worker."""
    turns = Turns("first", "second")
    gate = turns.hold("first")
    scheduler = start(turns, workers=1)
    turns.until("first", 1)
    until(lambda: "second" in scheduler._running)
    assert not scheduler.close(timedelta(milliseconds=50))
    gate.set()
    assert scheduler.close(timedelta(seconds=PATIENCE))
    assert turns.count["second"] == 0
    scheduler.wake()
    assert turns.count["first"] == 1


def test_closing_what_was_never_started(start: Start) -> None:
    """A signal while the caches were still being filled."""
    scheduler = start(Turns("one"), started=False)
    assert scheduler.close(timedelta(seconds=PATIENCE))
