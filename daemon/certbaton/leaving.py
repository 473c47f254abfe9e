"""
Leaving in time: a process that was asked to end hears of it, and is not kept by what hangs.

Python runs signal handlers in the main thread, once that one moves. A process that was stopped
(SIGSTOP, a frozen cgroup) may get the signal in any thread on waking, and a main thread that waits
for a lock would never hear of it. So the signal writes to a pipe, and a thread reads that.

Threads cannot be ended from outside, and the interpreter waits for those of a pool. So who has
waited long enough leaves without them, as a process that is killed does; whatever was on its
way then is what any crash leaves behind.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Final

REQUEST_GRACE: Final = timedelta(seconds=5)
"""So long may a request that runs when the signal comes go on running."""
LEAVE_AFTER: Final = timedelta(seconds=10)
"""So long after the signal the process is gone, the Lease given up or not."""
SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGINT})


def leave(code: int) -> None:
    """End the process now, whatever its threads do. Log lines were flushed one by one."""
    os._exit(code)


def on_signals(
    end: Callable[[], None],
    code: int,
    after: timedelta = LEAVE_AFTER,
    go: Callable[[int], None] = leave,
) -> None:
    """
    Call *end*, in a thread of its own, on the first SIGTERM or SIGINT. From the main thread only.

    Then the process has *after* to end by itself; else it leaves with exit *code*.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def listen() -> None:
        while SIGNALS.isdisjoint(os.read(reader, 64)):
            pass
        end()
        threading.Event().wait(after.total_seconds())
        go(code)

    threading.Thread(target=listen, name="leaving", daemon=True).start()
    for number in SIGNALS:
        signal.signal(number, lambda number, frame: None)
