"""
Fail points: die by SIGKILL before or after the n-th write. Inert in production.

Only where ``CERTBATON_CRASH_AT`` is set, to ``before:<n>`` or ``after:<n>``,
does anything happen: the n-th write of this process (cluster writes and CA
POSTs together, from 1) is the last thing it does. ``CERTBATON_WRITE_LOG``
names a file to which each write's name is appended, so that a test knows how
many there are. Neither changes what a write does.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CRASH_AT = os.environ.get("CERTBATON_CRASH_AT", "")
_WRITE_LOG = os.environ.get("CERTBATON_WRITE_LOG", "")
_lock = threading.Lock()
_count = 0


def _reached(moment: str, number: int) -> None:
    if f"{moment}:{number}" == _CRASH_AT:
        os.kill(os.getpid(), signal.SIGKILL)
        threading.Event().wait()  # the signal arrives; nothing of this thread goes on


@contextmanager
def write(name: str) -> Iterator[None]:
    """Wrap one write to the cluster or the CA; *name* says which, without any content."""
    if not _CRASH_AT and not _WRITE_LOG:
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
