"""Keeps the daemon running, as a kubelet would: whoever ended is started again."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import Self

from lab.chaos import ChaosWorld
from lab.kube import KubeError
from lab.process import LabError
from soak.site import IN_A_POD

PAUSE_S = 0.5
KILLED = -signal.SIGKILL


class Keeper:
    """
    From `__enter__` on; *said* gets a line about each end, `trouble` those that nobody caused.
    """

    def __init__(self, world: ChaosWorld, said: Callable[[str], None]) -> None:
        self.trouble: list[str] = []
        self.died_at_a_write = 0
        self._world = world
        self._said = said
        self._next: dict[str, str] = {}
        self._expected = threading.Event()
        self._armed = ""
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)

    def __enter__(self) -> Self:
        self._world.start_daemon(**IN_A_POD)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)
        self._world.stop_daemon()

    def kill(self, crash_at: str | None = None) -> None:
        """SIGKILL now; the next one dies at *crash_at* (``before:3``), if it gets there."""
        with self._lock:
            self._next = {"CERTBATON_CRASH_AT": crash_at} if crash_at else {}
            self._expected.set()
            self._world.daemon.kill()

    def terminate(self) -> None:
        """SIGTERM, as a rolling update does."""
        with self._lock:
            self._expected.set()
            self._world.daemon.stop(deadline=30)

    def suspend(self) -> None:
        """SIGSTOP."""
        self._world.daemon.send(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._world.daemon.send(signal.SIGCONT)

    def disarm(self) -> None:
        """No further death is planned; one that waits for its write to die at is replaced."""
        if self._armed:
            self.kill()

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            with self._lock:
                if not self._world.daemon.running:
                    self._again()

    def _again(self) -> None:
        code = self._world.daemon.exit_code
        if self._expected.is_set():
            self._expected.clear()
        elif code == KILLED and self._armed:
            self.died_at_a_write += 1
            self._said(f"the daemon died {self._armed.replace(':', ' write ')}")
        else:
            tail = self._world.daemon.log_tail(3)
            self.trouble.append(f"the daemon ended by itself, exit code {code}: {tail}")
        self._armed = ""
        end = time.monotonic() + PAUSE_S
        while not self._stop.wait(0.05) and time.monotonic() < end:
            pass
        if self._stop.is_set():
            return
        environ, self._next = self._next, {}
        try:
            self._world.start_daemon(**IN_A_POD, **environ)
        except (LabError, KubeError) as error:
            self.trouble.append(f"the daemon could not be started: {error}")
            return
        self._armed = environ.get("CERTBATON_CRASH_AT", "")
