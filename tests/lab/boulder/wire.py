"""The HTTP of the proxy: one thread for each connection, kept alive as the client likes it."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from lab.boulder.words import Reply, Request, read

_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "content-length"}
_RESET = struct.pack("ii", 1, 0)
_PATIENCE = 60.0


class Upstream:
    """Pebble, asked anew for each request: it is restarted at times."""

    def __init__(self, address: tuple[str, int], tls: ssl.SSLContext) -> None:
        self._address, self._tls = address, tls

    def ask(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """Pass one request on, its Host kept; OSError or HTTPException where nobody answers."""
        connection = http.client.HTTPSConnection(
            *self._address, timeout=_PATIENCE, context=self._tls
        )
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                if name.lower() not in _HOP:
                    connection.putheader(name, value)
            connection.putheader("Connection", "close")
            if method == "POST":
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            response = connection.getresponse()
            found = Reply(response.status)
            for name, value in response.getheaders():
                # Links come in several lines, which are one header to those who read them.
                known = found.headers.get(name)
                found.headers[name] = value if known is None else f"{known}, {value}"
            found.body = response.read()
            return found
        finally:
            connection.close()


class Listener(ThreadingHTTPServer):
    """Hands each request to *handle*, and sends what that returns."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(
        self,
        address: tuple[str, int],
        tls: ssl.SSLContext,
        handle: Callable[[Request], Reply],
        closed: threading.Event,
    ) -> None:
        super().__init__(address, _Handler)
        self.tls, self.handle_request_of, self.closed = tls, handle, closed

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients leave, and faults cut."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 300
    server: Listener

    def setup(self) -> None:
        raw: socket.socket = self.request
        raw.settimeout(self.timeout)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        # Here and not where connections are accepted: a slow client holds up itself alone.
        self.request = self.server.tls.wrap_socket(raw, server_side=True)
        super().setup()

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            super().finish()
        self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = dict(self.headers.items())
        reply = self.server.handle_request_of(read(self.command, self.path, headers, body))
        if reply.cut:
            self._cut()
            return
        self.send_response_only(reply.status)
        for name, value in reply.headers.items():
            if name.lower() not in _HOP:
                self.send_header(name, value)
        if reply.status != 204:
            self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        if self.command != "HEAD":
            self._send(reply)

    do_GET = do_HEAD = do_POST = _serve

    def _send(self, reply: Reply) -> None:
        if not reply.trickle:
            self.wfile.write(reply.body)
            return
        for number in range(len(reply.body)):
            if self.server.closed.wait(reply.trickle):
                return
            self.wfile.write(reply.body[number : number + 1])

    def _cut(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            socket.socket.close(self.connection)
