"""How many requests a second go out, on a clock that only waiting moves."""

from __future__ import annotations

import threading
import time

import pytest

from certbaton.ca.throttle import RATE, Throttle
from certbaton.ca.traffic import Traffic


class Clock:
    """Seconds, and what was slept."""

    def __init__(self) -> None:
        self.seconds = 100.0
        self.stopped = False

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> bool:
        if self.stopped:
            return False
        self.seconds += seconds
        return True


def moments(throttle: Throttle, clock: Clock, count: int) -> list[float]:
    """When each of *count* requests, one after the other, was let through."""
    found = []
    for _ in range(count):
        assert throttle.wait()
        found.append(clock.seconds)
    return found


def test_fifteen_a_second() -> None:
    """Five fewer than Let's Encrypt's limit at the edge of its network."""
    assert RATE == 15


def test_no_second_has_more_than_its_rate() -> None:
    """Wherever the second begins: the sixteenth waits for the first to be a second ago."""
    clock = Clock()
    found = moments(Throttle(15, clock.now, clock.sleep), clock, 100)
    assert found[:15] == [100.0] * 15
    assert all(later - earlier >= 1.0 for earlier, later in zip(found, found[15:], strict=False))
    assert found[-1] == pytest.approx(106.0)


def test_who_asks_seldom_never_waits() -> None:
    """Nothing is paid for what others did long ago."""
    clock = Clock()
    throttle = Throttle(2, clock.now, clock.sleep)
    for _ in range(10):
        clock.seconds += 0.6
        before = clock.seconds
        assert throttle.wait()
        assert clock.seconds == before


def test_an_interrupted_wait_says_so() -> None:
    """And whoever needs not wait isn't interrupted."""
    clock = Clock()
    clock.stopped = True
    throttle = Throttle(1, clock.now, clock.sleep)
    assert throttle.wait()
    assert not throttle.wait()


def test_threads_share_it() -> None:
    """Each has a moment of its own, as far from the others as the rate says."""
    waited: list[float] = []

    def sleep(seconds: float) -> bool:
        waited.append(seconds)
        return True

    throttle = Throttle(1, lambda: 5.0, sleep)
    threads = [threading.Thread(target=throttle.wait) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(waited) == [float(number) for number in range(1, 20)]


def test_on_a_real_clock() -> None:
    """Twenty-one at ten a second: at least two seconds from the first to the last."""
    never = threading.Event()
    throttle = Throttle(10, time.monotonic, lambda seconds: not never.wait(seconds))
    began = time.monotonic()
    for _ in range(21):
        assert throttle.wait()
    assert time.monotonic() - began >= 2.0


def test_the_configured_pace_is_that_of_every_host() -> None:
    """However many hosts there are."""
    clock = Clock()
    traffic = Traffic(2, monotonic=clock.now)
    traffic._sleep = clock.sleep  # type: ignore[method-assign]
    for host in ("ca.test", "other.test"):
        found = moments(traffic._throttle(host), clock, 10)
        assert found[-1] - found[0] == pytest.approx(4.0)
        clock.seconds += 10
