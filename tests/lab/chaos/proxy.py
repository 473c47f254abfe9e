"""
TLS-terminating proxies in front of the API server and the CA, which pass on or misbehave.

The Host header is kept: Pebble makes its URLs, signed ones among them, from that. Everything
is passed on as it comes, watches piece by piece.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self

from lab.certs import Authority
from lab.chaos.faults import WireFault
from lab.chaos.server import Answer, Server, WatchLine, ask
from lab.process import free_ports

HOST = "127.0.0.1"
_API_WORDS = {
    409: "Conflict",
    410: "Expired",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
}
_STATUS = {"conflict": 409, "gone": 410, "too-many": 429, "unavailable": 503}


class Proxy(ABC):
    """
    One proxy in front of *upstream* (a URL with host and port), trusted by *upstream_ca*.

    Clients are to trust `ca_file`. `faults` are asked in order, the first that meets a request
    happens to it; `counts` tells how often each kind happened. All may be changed at run time.
    """

    def __init__(self, folder: Path, upstream: str, upstream_ca: Path, *, seed: int = 0) -> None:
        name = f"chaos-{type(self).__name__.lower()}"
        authority = Authority(folder / name, f"{name}-ca")
        cert, key = authority.issue(name, hosts=(HOST, "localhost"))
        self.ca_file = authority.file
        self.faults: list[WireFault] = []
        self.counts: Counter[str] = Counter()
        self._dice = Random(seed)
        self._lock = threading.Lock()
        self._held_until = 0.0
        self._watches: set[WatchLine] = set()
        host, _, port = upstream.removeprefix("https://").partition("/")[0].partition(":")
        self.upstream = host, int(port)
        self.upstream_tls = ssl.create_default_context(cafile=str(upstream_ca))
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(cert, key)
        self.tls.set_alpn_protocols(["http/1.1"])
        self.closed = threading.Event()
        (self.port,) = free_ports(1)
        self.url = f"https://{HOST}:{self.port}"
        self._server: Server | None = None

    def __enter__(self) -> Self:
        self._server = Server((HOST, self.port), self)
        threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="chaos-proxy", daemon=True
        ).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.closed.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        self.drop_watches()

    # --- what goes wrong ----------------------------------------------------------------

    @contextlib.contextmanager
    def misbehaving(self, *faults: WireFault) -> Iterator[None]:
        """Add *faults* for the length of the block."""
        with self._lock:
            self.faults = [*self.faults, *faults]
        try:
            yield
        finally:
            with self._lock:
                self.faults = [one for one in self.faults if one not in faults]

    def drop_watches(self) -> int:
        """Break every open watch off; how many there were."""
        with self._lock:
            watches = list(self._watches)
            self.counts["watch-dropped"] += len(watches)
        for watch in watches:
            watch.cut()
        return len(watches)

    def hold_watches(self, seconds: float) -> None:
        """Let watches fall behind: what comes within *seconds* arrives when they are over."""
        self._held_until = time.monotonic() + seconds

    # --- for the server ------------------------------------------------------------------

    def take(self, method: str, path: str, watch: bool) -> WireFault | None:
        """The fault that this request meets."""
        with self._lock:
            faults = self.faults
            found = next((one for one in faults if one.take(method, path, watch, self._dice)), None)
            if found is not None:
                self.counts[found.kind] += 1
        return found

    def held(self) -> bool:
        """Whether watches are held back now; counted by piece."""
        if time.monotonic() >= self._held_until:
            return False
        with self._lock:
            self.counts["watch-held"] += 1
        while (left := self._held_until - time.monotonic()) > 0 and not self.closed.is_set():
            self.closed.wait(min(left, 0.05))
        return True

    @contextlib.contextmanager
    def watching(self, line: WatchLine) -> Iterator[None]:
        """Know *line* while it is open."""
        with self._lock:
            self._watches.add(line)
        try:
            yield
        finally:
            with self._lock:
                self._watches.discard(line)

    @abstractmethod
    def answer(self, fault: WireFault) -> Answer:
        """What is answered in place of the server's answer."""


class ApiProxy(Proxy):
    """In front of the Kubernetes API server."""

    def answer(self, fault: WireFault) -> Answer:
        status = _STATUS.get(fault.kind, 500)
        body = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": f"injected by the lab: {status}",
            "reason": _API_WORDS[status],
            "code": status,
        }
        return Answer(status, _headers(fault, "application/json"), json.dumps(body).encode())


class CaProxy(Proxy):
    """In front of Pebble."""

    @property
    def directory(self) -> str:
        """The directory as it is seen through the proxy."""
        return f"{self.url}/dir"

    def answer(self, fault: WireFault) -> Answer:
        headers = _headers(fault, "application/problem+json")
        status, word = _STATUS.get(fault.kind, 500), "serverInternal"
        if fault.kind == "too-many":
            word = "rateLimited"
        elif fault.kind == "bad-nonce":
            status, word = 400, "badNonce"
            agent = {"Host": f"{HOST}:{self.port}", "User-Agent": "chaos"}  # Pebble asks for one
            fresh = ask(self, "HEAD", "/nonce-plz", agent, b"")
            headers["Replay-Nonce"] = fresh.headers["Replay-Nonce"]
        body = {
            "type": f"urn:ietf:params:acme:error:{word}",
            "detail": "injected by the lab",
            "status": status,
        }
        return Answer(status, headers, json.dumps(body).encode())


def _headers(fault: WireFault, kind: str) -> dict[str, str]:
    headers = {"Content-Type": kind}
    if fault.kind in ("too-many", "unavailable") and fault.seconds is not None:
        headers["Retry-After"] = str(max(1, round(fault.seconds)))
    return headers
