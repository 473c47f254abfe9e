"""The HTTP of the proxies: one thread for each connection, one more for each watch."""

from __future__ import annotations

import contextlib
import http.client
import select
import socket
import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol, cast

from lab.chaos.faults import AFTER, WireFault

_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "content-length"}
_PATIENCE = 60.0
_WATCH_PATIENCE = 3600.0
_RESET = struct.pack("ii", 1, 0)


class Front(Protocol):
    """What the server needs of its proxy."""

    upstream: tuple[str, int]
    upstream_tls: Any
    tls: Any
    closed: threading.Event

    def take(self, method: str, path: str, watch: bool) -> WireFault | None: ...
    def answer(self, fault: WireFault) -> Answer: ...
    def held(self) -> bool: ...
    def watching(self, line: WatchLine) -> contextlib.AbstractContextManager[None]: ...


@dataclass
class Answer:
    """A whole answer."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def ask(front: Front, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
    """Ask the server behind *front*; OSError or HTTPException where it cannot be reached."""
    connection, _ = _send(front, method, path, headers, body, _PATIENCE)
    try:
        response = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


def _send(
    front: Front, method: str, path: str, headers: Mapping[str, str], body: bytes, patience: float
) -> tuple[http.client.HTTPSConnection, socket.socket]:
    connection = http.client.HTTPSConnection(
        *front.upstream, timeout=patience, context=front.upstream_tls
    )
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        if name.lower() not in _HOP:
            connection.putheader(name, value)
    connection.putheader("Connection", "close")
    if body or method in ("POST", "PUT", "PATCH"):
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body or None)
    return connection, cast("socket.socket", connection.sock)


class WatchLine:
    """One open watch: its client and its server."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self._client, self._server = client, server
        self._over = threading.Event()

    def cut(self) -> None:
        """End it at once, at both ends."""
        self._over.set()
        for end in (self._client, self._server):
            with contextlib.suppress(OSError):
                # Not the TLS object's own shutdown, which another thread's read would trip over.
                socket.socket.shutdown(end, socket.SHUT_RDWR)

    def mind(self) -> None:
        """End it when the client leaves: clients of watches say nothing else."""
        while not self._over.is_set():
            try:
                readable, _, _ = select.select([self._client], [], [], 0.2)
            except (OSError, ValueError):
                readable = [self._client]
            if readable:
                self.cut()

    def close(self) -> None:
        """It is over."""
        self._over.set()


class Server(ThreadingHTTPServer):
    """Listens for a proxy."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], front: Front) -> None:
        super().__init__(address, _Handler)
        self.front = front

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients leave, and faults cut."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 300
    server: Server

    def setup(self) -> None:
        raw: socket.socket = self.request
        raw.settimeout(self.timeout)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        # Here and not where connections are accepted: a slow client holds up itself alone.
        self.request = self.server.front.tls.wrap_socket(raw, server_side=True)
        super().setup()

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            super().finish()
        self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _serve(self) -> None:
        front = self.server.front
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        watch = self.command == "GET" and "watch=true" in self.path.lower()
        fault = front.take(self.command, self.path, watch)
        if fault is not None and fault.kind not in AFTER and not self._before(fault):
            return
        try:
            if watch:
                self._watch(body)
                return
            answer = ask(front, self.command, self.path, dict(self.headers.items()), body)
        except (OSError, http.client.HTTPException):
            self._cut()  # the server is away
            return
        if fault is not None and fault.kind == "delay-after":
            front.closed.wait(fault.seconds or 0)
        elif fault is not None and fault.kind == "error-after":
            answer = front.answer(fault)
        elif fault is not None and fault.kind == "cut-after":
            self._cut()
            return
        self._answer(answer)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

    def _before(self, fault: WireFault) -> bool:
        """Let *fault* happen before the server is asked; whether it is asked at all."""
        if fault.kind == "delay-before":
            self.server.front.closed.wait(fault.seconds or 0)
            return True
        if fault.kind == "cut-before":
            self._cut()
            return False
        try:
            self._answer(self.server.front.answer(fault))
        except (OSError, http.client.HTTPException):
            self._cut()
        return False

    def _answer(self, answer: Answer) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in _HOP:
                self.send_header(name, value)
        length = answer.headers.get("Content-Length") if self.command == "HEAD" else None
        if answer.status not in (204, 304):
            self.send_header("Content-Length", length or str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def _cut(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            socket.socket.close(self.connection)

    def _watch(self, body: bytes) -> None:
        self.close_connection = True
        front = self.server.front
        headers = dict(self.headers.items())
        connection, upstream = _send(front, self.command, self.path, headers, body, _WATCH_PATIENCE)
        response = connection.getresponse()
        if response.status != 200:
            self._answer(Answer(response.status, dict(response.getheaders()), response.read()))
            connection.close()
            return
        line = WatchLine(self.connection, upstream)
        threading.Thread(target=line.mind, name="chaos-watch", daemon=True).start()
        try:
            with front.watching(line):
                self._stream(response)
        except (OSError, ValueError, http.client.HTTPException):
            self._cut()
        finally:
            line.close()
            response.close()
            connection.close()

    def _stream(self, response: http.client.HTTPResponse) -> None:
        self.send_response_only(200)
        self.send_header("Content-Type", response.getheader("Content-Type") or "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.send_header("Connection", "close")
        self.end_headers()
        while True:
            data = response.read1(65536)
            self.server.front.held()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))  # nothing: the last chunk
            if not data:
                return
