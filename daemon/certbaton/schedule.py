"""
The scheduler: knows one function and one number, when to call it next.

Built around APScheduler's traps: a wake while the job runs would be lost, and
a job on a date trigger is gone after its run. So one job stays on an interval
trigger as backstop; a wake sets a flag and moves the next run, and the end of
a run does so again if flagged. A job's next run is wrong while APScheduler is
handing the job out, and a run that comes due before the last one is quite over
is skipped: `_move` asks under its lock, and `_skipped` moves it again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from apscheduler.events import EVENT_JOB_MAX_INSTANCES
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

from certbaton.reconcile import Reconciler, Report
from certbaton.telemetry import logger

# A turn that takes longer than this is stuck: validation and handshakes have their deadlines.
TURN_DEADLINE = timedelta(minutes=15)
# Changes come in bursts; the watch delivers our own writes, too.
GATHER = timedelta(milliseconds=50)


class Scheduler:
    """
    Hands each certificate that is due to a bounded pool; a slow one delays no other.

    *backstop* is how often every certificate gets a turn, whatever happens.
    """

    def __init__(
        self,
        reconciler: Reconciler,
        *,
        workers: int,
        backstop: timedelta,
        clock: Callable[[], datetime],
    ) -> None:
        self._reconciler = reconciler
        self._clock = clock
        self._backstop = backstop
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="turn")
        self._lock = threading.RLock()
        self._next: dict[str, datetime] = {}
        self._running: dict[str, datetime] = {}
        self._again: set[str] = set()
        self._woken = False
        self._ticking = False
        self._closed = False
        self._ending: threading.Thread | None = None
        self._scheduler = BackgroundScheduler(timezone=UTC)
        self._job = None

    def start(self) -> None:
        """Begin; the first tick comes at once."""
        self._scheduler.add_listener(self._skipped, EVENT_JOB_MAX_INSTANCES)
        self._scheduler.start()
        with self._lock:  # the first tick waits until it can move its job
            self._job = self._scheduler.add_job(
                self._tick,
                IntervalTrigger(seconds=self._backstop.total_seconds(), timezone=UTC),
                next_run_time=datetime.now(UTC),
                misfire_grace_time=None,
                coalesce=True,
                max_instances=1,
            )

    def wake(self) -> None:
        """Something changed: every certificate gets a turn soon. Any thread may call it."""
        with self._lock:
            self._next.clear()
            self._again.update(self._running)
            self._move(self._clock() + GATHER)

    def close(self, timeout: timedelta) -> bool:
        """
        End: no new turn begins; running ones are waited for up to *timeout*.

        True if all ended; else call it again to wait on. The tick itself is never waited for by
        APScheduler, which would deadlock if the tick modifies its job.
        """
        with self._lock:
            self._closed = True
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
        if self._ending is None:
            self._ending = threading.Thread(
                target=self._pool.shutdown, kwargs={"cancel_futures": True}, daemon=True
            )
            self._ending.start()
        self._ending.join(timeout.total_seconds())
        return not self._ending.is_alive()

    def alive(self) -> str | None:
        """Give None while well, else a sentence: a turn began too long ago."""
        with self._lock:
            now = self._clock()
            stuck = [name for name, at in self._running.items() if now - at > TURN_DEADLINE]
            if stuck:
                return f"the turn of {', '.join(sorted(stuck))} began over {TURN_DEADLINE} ago"
            return None

    # --- inside -----------------------------------------------------------------------

    def _move(self, at: datetime) -> None:
        """Bring the next tick forward to *at*, or remember to, while one runs."""
        if self._closed or self._job is None:
            return
        if self._ticking:
            self._woken = True
            return
        # APScheduler reads the machine's clock, whatever ours says
        at += datetime.now(UTC) - self._clock()
        job = self._scheduler.get_job(self._job.id)  # waits while it is being handed out
        if job is not None and (job.next_run_time is None or at < job.next_run_time):
            job.modify(next_run_time=at)

    def _skipped(self, event: object) -> None:
        with self._lock:
            self._move(self._clock() + GATHER)

    def _tick(self) -> None:
        with self._lock:
            self._ticking, self._woken = True, False
        try:
            self._dispatch()
        except Exception as exc:  # noqa: BLE001 - reported, and tried again
            # the next tick comes all the same: no counter ever ends the loop
            logger().error("tick_broke", exc_info=exc)
        finally:
            with self._lock:
                self._ticking = False
                if self._woken:
                    self._move(self._clock() + GATHER)
                else:
                    self._aim()

    def _aim(self) -> None:
        waiting = [at for name, at in self._next.items() if name not in self._running]
        if waiting:
            self._move(min(waiting))

    def _dispatch(self) -> None:
        names = self._reconciler.certificates()
        now = self._clock()
        with self._lock:
            if self._closed:
                return
            self._next = {name: at for name, at in self._next.items() if name in names}
            for name in names:
                if self._next.get(name, now) > now:
                    continue
                if name in self._running:
                    self._again.add(name)
                    continue
                self._running[name] = now
                self._pool.submit(self._turn, name)

    def _turn(self, name: str) -> None:
        with self._lock:
            self._running[name] = self._clock()
            self._again.discard(name)
        report: Report | None = None
        try:
            report = self._reconciler.turn(name)
        except Exception as exc:  # noqa: BLE001 - nobody looks at the pool's futures
            logger().error("turn_broke", certificate=name, exc_info=exc)
        finally:
            with self._lock:
                del self._running[name]
                latest = self._clock() + self._backstop
                at = report.next_at if report else None
                at = min(at, latest) if at else latest
                # never in a tight loop, whatever a plan says
                at = max(at, self._clock() + GATHER)
                self._next[name] = self._clock() + GATHER if name in self._again else at
                self._again.discard(name)
                self._aim()
