"""The lab's small application: what stands behind the load balancers."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from lab.oci.ports import Address

CHALLENGE = "/.well-known/acme-challenge/"
_TLS_HANDSHAKE = 0x16


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    app: LabApp

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # Clients of a load balancer under change are cut off all the time.


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10
    server: _Server

    def handle(self) -> None:
        # Somebody speaks TLS to the plain port (kube-proxy's short circuit does that): answered
        # as real servers answer it, at once.
        first = self.connection.recv(1, socket.MSG_PEEK)
        if first and first[0] == _TLS_HANDSHAKE:
            self.connection.sendall(
                b"HTTP/1.0 400 Bad Request\r\nConnection: close\r\n\r\n"
                b"Client sent an HTTPS request to an HTTP server.\n"
            )
            # What is left unread would turn the answer into a reset.
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_WR)
                self.connection.settimeout(1)
                while self.connection.recv(65536):
                    pass
            return
        super().handle()

    def do_GET(self) -> None:
        app = self.server.app
        app.seen(self.path)
        if self.path.startswith(CHALLENGE) and app.challenge_upstream is not None:
            self._pass_on(app.challenge_upstream)
        elif self.path == "/":
            self._answer(200, f"hello from {app.pod}\n".encode())
        elif self.path == "/big":
            self._answer(200, app.big)
        else:
            self._answer(404, b"no such page\n")

    do_HEAD = do_GET

    def _pass_on(self, upstream: Address) -> None:
        connection = http.client.HTTPConnection(*upstream, timeout=5)
        try:
            headers = {"Host": self.headers.get("Host", ""), "Connection": "close"}
            connection.request("GET", self.path, headers=headers)
            answer = connection.getresponse()
            kind = answer.getheader("Content-Type", "application/octet-stream")
            self._answer(answer.status, answer.read(), kind)
        except (OSError, http.client.HTTPException):
            self._answer(502, b"the solver does not answer\n")
        finally:
            connection.close()

    def _answer(self, status: int, body: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class LabApp:
    """
    A pod: its own pages, and the challenge path passed on to certbaton's http-01 solver.

    *challenge_upstream* may be set at any time (the solver's port may be known later only);
    None means that the path is a 404 like any other, as with a user who has no such rule.
    """

    def __init__(self, pod: str = "shop-0", challenge_upstream: Address | None = None) -> None:
        self.pod = pod
        self.challenge_upstream = challenge_upstream
        self.big = b"x" * 1_000_000
        self._paths: list[str] = []
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.app = self
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self._thread.start()

    @property
    def address(self) -> Address:
        """Where it listens."""
        return "127.0.0.1", int(self._server.server_address[1])

    @property
    def paths(self) -> list[str]:
        """The paths it was asked for, in order."""
        with self._lock:
            return list(self._paths)

    def seen(self, path: str) -> None:
        with self._lock:
            self._paths.append(path)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
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
