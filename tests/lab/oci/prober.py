"""A prober of the lab's own, beside the daemon's: what a user would see, ten times a second."""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from lab.oci.stream import TlsStream


@dataclass(frozen=True)
class Sight:
    """One attempt: the leaf seen (SHA-256 of its DER, hex), or why none was."""

    monotonic: float
    utc: datetime
    leaf: str | None
    error: str | None = None


@dataclass(frozen=True)
class Outage:
    """A run of failed attempts between two good ones (*end* None: not over yet)."""

    begin: float
    end: float | None
    errors: tuple[str, ...]

    @property
    def milliseconds(self) -> float | None:
        return None if self.end is None else (self.end - self.begin) * 1000


def handshake(address: str, port: int, server_name: str, timeout: float = 2.0) -> str:
    """One TLS handshake, nothing verified; the SHA-256 of the leaf's DER in hex."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection((address, port), timeout=timeout) as raw:
        tls = TlsStream(raw, context, server_name=server_name)
        tls.shake()
        leaf = tls.leaf
        tls.finish()
    if leaf is None:
        raise ssl.SSLError("no certificate was presented")
    return hashlib.sha256(leaf).hexdigest()


class Prober:
    """
    Shakes hands every *interval* seconds and remembers each attempt.

    A handshake is counted at the moment it is complete, an error at the moment it is known.
    """

    def __init__(self, address: str, port: int, server_name: str, interval: float = 0.1) -> None:
        self.address = address
        self.port = port
        self.server_name = server_name
        self.interval = interval
        self._sights: list[Sight] = []
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"prober-{port}", daemon=True)
        self._thread.start()

    @property
    def sights(self) -> list[Sight]:
        """All attempts so far."""
        with self._changed:
            return list(self._sights)

    def first_seen(self, sha256: str) -> Sight | None:
        """The first handshake that showed this leaf."""
        return next((sight for sight in self.sights if sight.leaf == sha256), None)

    def wait_for(self, sha256: str, timeout: float) -> Sight:
        """The first sight of this leaf, waited for; TimeoutError says what was seen instead."""
        with self._changed:
            self._changed.wait_for(
                lambda: any(sight.leaf == sha256 for sight in self._sights), timeout
            )
        found = self.first_seen(sha256)
        if found is None:
            last = self.sights[-1] if self.sights else None
            raise TimeoutError(f"{sha256[:12]} not seen in {timeout:g} s; last: {last}")
        return found

    def changes(self) -> list[Sight]:
        """The first sight of each leaf in a row of the same leaf; errors between are skipped."""
        found: list[Sight] = []
        for sight in self.sights:
            if sight.leaf is not None and (not found or found[-1].leaf != sight.leaf):
                found.append(sight)
        return found

    def interruption_ms(self, from_sha: str, to_sha: str) -> float:
        """
        From the last good handshake with the old leaf to the first good one with the new.

        So it is an upper bound of how long nobody could connect, up to one probe interval (and
        the length of a handshake) too long at each end; nothing is subtracted for that. Where
        the pair occurs several times, the last one counts. ValueError if it never does.
        """
        last_old: Sight | None = None
        found: float | None = None
        for sight in self.sights:
            if sight.leaf == from_sha:
                last_old = sight
            elif sight.leaf == to_sha and last_old is not None:
                found = (sight.monotonic - last_old.monotonic) * 1000
                last_old = None
            elif sight.leaf is not None:
                last_old = None
        if found is None:
            raise ValueError(f"never saw {from_sha[:12]} followed by {to_sha[:12]}")
        return found

    def outages(self) -> list[Outage]:
        """Every run of failures after the first good handshake, from last good to next good."""
        found: list[Outage] = []
        good: Sight | None = None
        errors: list[str] = []
        for sight in self.sights:
            if sight.leaf is None:
                errors.append(sight.error or "")
                continue
            if good is not None and errors:
                found.append(Outage(good.monotonic, sight.monotonic, tuple(errors)))
            good, errors = sight, []
        if good is not None and errors:
            found.append(Outage(good.monotonic, None, tuple(errors)))
        return found

    def close(self) -> None:
        self._stop.set()
        self._thread.join(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            leaf = error = None
            try:
                leaf = handshake(self.address, self.port, self.server_name)
            except (OSError, ValueError) as problem:
                error = f"{type(problem).__name__}: {problem}"
            sight = Sight(time.monotonic(), datetime.now(UTC), leaf, error)
            with self._changed:
                self._sights.append(sight)
                self._changed.notify_all()
            due = max(due + self.interval, time.monotonic())
            self._stop.wait(due - time.monotonic())
