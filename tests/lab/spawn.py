"""Starting a child process that the kernel kills when this process ends in whatever way."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

_PR_SET_PDEATHSIG = 1

# Loaded before any fork: a child between fork and exec must not import or look up symbols.
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class _Spawner:
    """
    A thread that starts all children.

    PR_SET_PDEATHSIG fires when the *thread* that forked ends, not the process; a child started
    from a short-lived worker thread would die with it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wanted = threading.Condition()
        self._job: Callable[[], None] | None = None
        self._owner = 0

    def run(self, job: Callable[[], None]) -> None:
        with self._lock:
            if self._owner != os.getpid():
                self._owner = os.getpid()
                threading.Thread(target=self._loop, name="lab-spawner", daemon=True).start()
            with self._wanted:
                self._job = job
                self._wanted.notify_all()
                while self._job is not None:
                    self._wanted.wait()

    def _loop(self) -> None:
        with self._wanted:
            while True:
                while self._job is None:
                    self._wanted.wait()
                self._job()
                self._job = None
                self._wanted.notify_all()


_spawner = _Spawner()


def spawn(
    command: list[str], output: int, environ: dict[str, str], cwd: Path | None
) -> subprocess.Popen[bytes]:
    parent = os.getpid()
    result: list[subprocess.Popen[bytes] | BaseException] = []

    def die_with_parent() -> None:
        if _libc is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            # The parent may have died before the call above.
            if os.getppid() != parent:
                os._exit(1)

    def job() -> None:
        try:
            result.append(
                subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=cwd,
                    env=environ,
                    start_new_session=True,
                    # It calls nothing but what was loaded before the fork.
                    preexec_fn=die_with_parent,
                )
            )
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread
            result.append(error)

    _spawner.run(job)
    outcome = result[0]
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome
