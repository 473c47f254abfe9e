"""
Child processes of the lab: started, waited for, measured, and never left behind.

A child is its own process group with its output in a log file. It is stopped by its process
id, at the latest when this interpreter ends; the kernel kills it when this process is killed.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import select
import signal
import socket
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

from lab.spawn import spawn

READY_DEADLINE = 90.0
STOP_DEADLINE = 10.0
_POLL = 0.02

_running: set[Process] = set()


class LabError(Exception):
    """Something that the lab needs is missing or does not start; the text says what helps."""


class Process:
    """
    A child process with its output in *log* (appended to).

    *environ* is added to this process's environment. *stop_signal* is what a polite stop sends.
    *on_line* gets each line of output as it arrives, on a thread of its own.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        environ: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        self.name = name
        self.command = [str(word) for word in command]
        self.log = log
        self._environ = dict(environ or {})
        self._cwd = cwd
        self._stop_signal = stop_signal
        self._on_line = on_line
        self._reader: _Reader | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._peak_rss_mb = 0.0
        self._cpu_s = 0.0

    @property
    def pid(self) -> int:
        """The process id, also after the end; LabError if it was never started."""
        return self._started().pid

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._child is not None and self._child.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The exit code (negative: the signal that killed it), None while it runs."""
        return self._started().poll()

    @property
    def peak_rss_mb(self) -> float:
        """Peak resident memory in MB (10^6 bytes); the last value known once it has ended."""
        self._measure()
        return self._peak_rss_mb

    @property
    def cpu_s(self) -> float:
        """Seconds of CPU used, user and system; the last value known once it has ended."""
        self._measure()
        return self._cpu_s

    def start(self) -> Self:
        """Start it; returns at once."""
        if self.running:
            raise LabError(f"{self.name} is running already")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        log = self.log.open("ab", buffering=0)
        self._reader = None if self._on_line is None else _Reader(log, self._on_line)
        try:
            output = log.fileno() if self._reader is None else self._reader.write_end
            self._child = spawn(self.command, output, {**os.environ, **self._environ}, self._cwd)
        except OSError as error:
            raise LabError(f"{self.name} cannot be started: {error}") from error
        finally:
            if self._reader is None:
                log.close()
            else:
                self._reader.start()
        _running.add(self)
        return self

    def wait_ready(
        self,
        ready: Callable[[], object],
        *,
        deadline: float = READY_DEADLINE,
        interval: float = 0.05,
    ) -> Self:
        """
        Wait until *ready* returns something true; an exception of it counts as "not yet".

        LabError, with the end of the log, when the process ends or *deadline* seconds pass.
        """
        end = time.monotonic() + deadline
        reason = "it does not answer"
        while True:
            if not self.running:
                raise LabError(
                    f"{self.name} ended with exit code {self.exit_code}:\n{self.log_tail()}"
                )
            try:
                if ready():
                    return self
            except Exception as error:  # noqa: BLE001 - whatever it is, the deadline ends it
                reason = str(error)
            if time.monotonic() > end:
                raise LabError(
                    f"{self.name} is not ready after {deadline:.0f} s ({reason}):\n"
                    f"{self.log_tail()}"
                )
            time.sleep(interval)

    def wait(self, timeout: float) -> int:
        """Wait for its end and return the exit code; LabError after *timeout* seconds."""
        child = self._started()
        end = time.monotonic() + timeout
        # Not Popen.wait: once the child is reaped, its measurements are gone.
        while not _has_ended(child.pid):
            self._measure()
            if time.monotonic() > end:
                raise LabError(f"{self.name} still runs after {timeout:.0f} s")
            time.sleep(_POLL)
        self._measure()
        code = child.wait()
        _running.discard(self)
        return code

    def stop(self, *, deadline: float = STOP_DEADLINE) -> None:
        """End it politely, by SIGKILL after *deadline* seconds; nothing if it has ended."""
        child = self._child
        if child is None:
            return
        self._measure()
        if child.poll() is None:
            _signal(child.pid, self._stop_signal)
            try:
                child.wait(deadline)
            except subprocess.TimeoutExpired:
                _signal_group(child.pid, signal.SIGKILL)
                child.wait()
        # What it started itself and left behind is still in its group.
        _signal_group(child.pid, signal.SIGKILL)
        _running.discard(self)

    def kill(self) -> None:
        """SIGKILL at once, as a crash would."""
        child = self._started()
        self._measure()
        _signal_group(child.pid, signal.SIGKILL)
        child.wait()
        _running.discard(self)

    def send(self, sig: signal.Signals) -> None:
        """Send a signal to the process alone."""
        if self.running:
            _signal(self.pid, sig)

    def drain(self) -> None:
        """Return when *on_line* has had every line written so far."""
        if self._reader is not None:
            self._reader.drain()

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of its log."""
        try:
            text = self.log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return "(no log)"
        return "\n".join(text.splitlines()[-lines:])

    def __enter__(self) -> Self:
        return self if self.running else self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            raise LabError(f"{self.name} was never started")
        return self._child

    def _measure(self) -> None:
        if self._child is None or self._child.returncode is not None:
            return
        pid = self._child.pid
        # Each may vanish while it is read.
        with contextlib.suppress(OSError, ValueError, IndexError):
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    self._peak_rss_mb = int(line.split()[1]) * 1024 / 1e6
        with contextlib.suppress(OSError, ValueError, IndexError):
            # The name in the second field may hold spaces; the fields are counted after it.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            self._cpu_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class _Reader:
    """Copies a child's output into its log and hands the lines on."""

    def __init__(self, log: FileIO, on_line: Callable[[str], None]) -> None:
        self._read_end, self.write_end = os.pipe()
        self._log = log
        self._on_line = on_line
        self._lock = threading.Lock()
        self._open = True
        self._rest = b""

    def start(self) -> None:
        """Begin to read; the child has its own copy of the write end by now."""
        os.close(self.write_end)
        threading.Thread(target=self._loop, name="lab-reader", daemon=True).start()

    def drain(self) -> None:
        while True:
            with self._lock:
                waiting = bytearray(4)
                if self._open:
                    fcntl.ioctl(self._read_end, termios.FIONREAD, waiting)
                if not any(waiting):
                    return
            time.sleep(_POLL / 10)

    def _loop(self) -> None:
        while self._open:
            select.select([self._read_end], [], [])
            with self._lock:
                data = os.read(self._read_end, 1 << 16)
                if not data:
                    self._open = False
                    os.close(self._read_end)
                    self._log.close()
                    return
                self._log.write(data)
                *lines, self._rest = (self._rest + data).split(b"\n")
                for line in lines:
                    self._on_line(line.decode(errors="replace"))


def _has_ended(pid: int) -> bool:
    """Whether child *pid* has ended, leaving it as a zombie that can still be measured."""
    try:
        info = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return info is not None


def _signal(pid: int, sig: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, sig)


def _signal_group(pid: int, sig: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, sig)


@atexit.register
def _stop_all() -> None:
    for process in list(_running):
        process.stop(deadline=3.0)


def free_ports(count: int) -> list[int]:
    """
    Distinct TCP ports of 127.0.0.1 that nothing listens on, free for UDP as well.

    Below the range from which the kernel draws ports for outgoing connections, so that none of
    those can take one before the server does; counted on from a different place in each process.
    """
    ports: list[int] = []
    for _ in range(20_000):
        port = _next_port()
        if _is_free(port):
            ports.append(port)
            if len(ports) == count:
                return ports
    raise LabError(f"no {count} free ports on 127.0.0.1")


_PORTS = range(10_000, 32_000)
_port_lock = threading.Lock()
_port = 0


def _next_port() -> int:
    global _port
    with _port_lock:
        if _port == 0:
            _port = os.getpid() * 197 % len(_PORTS)
        _port = (_port + 1) % len(_PORTS)
        return _PORTS[_port]


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True
