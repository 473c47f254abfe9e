"""
Fail points: die, or stop, before or after the n-th write. Inert in production.

Only where ``CERTBATON_CRASH_AT`` is set, to ``before:<n>`` or ``after:<n>``,
does anything happen: the n-th write of this process (cluster writes and CA
POSTs together, from 1; those of the Lease, which go by the clock, are not
counted) is the last thing it does. ``CERTBATON_STOP_AT``, set likewise, stops
the process there by SIGSTOP, and it goes on with SIGCONT. ``before`` is right
before the write is sent, behind all checks. ``CERTBATON_WRITE_LOG`` names a
file to which each write's name is appended, so that a test knows how many
there are. None of them changes what a write does.

``CERTBATON_CLOCK_OFFSET_FILE`` names a file with seconds by which the clock is
wrong, read at each look at it: suspended laptops and NTP steps, for tests.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

_CRASH_AT = os.environ.get("CERTBATON_CRASH_AT", "")
_STOP_AT = os.environ.get("CERTBATON_STOP_AT", "")
_WRITE_LOG = os.environ.get("CERTBATON_WRITE_LOG", "")
_OFFSET_FILE = os.environ.get("CERTBATON_CLOCK_OFFSET_FILE", "")
_lock = threading.Lock()
_count = 0


def _reached(moment: str, number: int) -> None:
    place = f"{moment}:{number}"
    if place == _STOP_AT:
        os.kill(os.getpid(), signal.SIGSTOP)
        threading.Event().wait(0.01)  # in which it arrives
    if place == _CRASH_AT:
        os.kill(os.getpid(), signal.SIGKILL)
        threading.Event().wait()  # the signal arrives; nothing of this thread goes on


@contextmanager
def write(name: str) -> Iterator[None]:
    """Wrap one write to the cluster or the CA; *name* says which, without any content."""
    if not (_CRASH_AT or _STOP_AT or _WRITE_LOG):
        yield
        return
    global _count
    with _lock:
        _count += 1
        number = _count
        if _WRITE_LOG:
            with Path(_WRITE_LOG).open("a", encoding="utf-8") as log:
                log.write(f"{name}\n")
    _reached("before", number)
    yield
    _reached("after", number)


def clock_offset() -> timedelta:
    """Give what is to be added to the clock: nothing in production."""
    if not _OFFSET_FILE:
        return timedelta(0)
    try:
        return timedelta(seconds=float(Path(_OFFSET_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return timedelta(0)
