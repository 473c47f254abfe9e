"""A tiny HTTP proxy: CONNECT only, and every name it is asked for is this machine."""

from __future__ import annotations

import http.server
import socket
import threading
from types import TracebackType
from typing import Self


class ConnectProxy:
    """
    Listens on 127.0.0.1 while it is open.

    *asked* are the hosts that it was asked to connect to, *credentials* what came with them.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.credentials: list[str | None] = []
        handler = type("BoundHandler", (_Handler,), {"proxy": self})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: ConnectProxy

    def do_CONNECT(self) -> None:
        self.proxy.asked.append(self.path)
        self.proxy.credentials.append(self.headers.get("Proxy-Authorization"))
        port = int(self.path.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), 10) as upstream:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=_pump, args=(upstream, self.connection), daemon=True)
            back.start()
            _pump(self.connection, upstream)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Pass on what comes, until one side has had enough."""
    try:
        while piece := source.recv(65536):
            sink.sendall(piece)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        return
