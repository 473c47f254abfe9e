"""
A small HTTP server on waitress that idle or slow clients cannot block.

For the http-01 solver, which anybody can reach, and for the probes of the
kubelet. Waitress answers in its own threads, but stops accepting once it has
its limit of connections, however idle they are; here the one that has kept us
waiting longest makes room instead. Nothing of a request is logged: the path
of a challenge is its token.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher

from certbaton.errors import ConfigurationError

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_log = logging.getLogger(__name__)

# Waitress names the path in what it logs of a request. This logger belongs to no hierarchy.
_silent = logging.Logger("silent")
_silent.addHandler(logging.NullHandler())

# A GET of a challenge is some 300 bytes; proxies in front add a few headers.
_MAX_HEADER = 8192
_MAX_BODY = 1024


class _Channel(HTTPChannel):
    logger = _silent

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Waitress's own last_activity moves with each byte that trickles in.
        self.waiting_since = time.monotonic()
        super().__init__(*args, **kwargs)

    def service(self) -> None:
        super().service()
        self.waiting_since = time.monotonic()


class _Listener(TcpWSGIServer):
    channel_class = _Channel
    logger = _silent

    def __init__(self, *args: Any, connections: int, patience: float, **kwargs: Any) -> None:
        self._limit = connections
        self._patience = patience
        self._pulling = threading.Lock()
        self._closed = False
        super().__init__(*args, **kwargs)

    def readable(self) -> bool:
        # Called before each poll, so a channel marked here is closed in that round.
        channels = list(cast("dict[int, _Channel]", self.active_channels).values())
        waiting = [channel for channel in channels if not channel.requests]
        latest = time.monotonic() - self._patience
        for channel in waiting:
            if channel.waiting_since < latest:
                channel.will_close = True
        if len(channels) >= self._limit and waiting:
            min(waiting, key=lambda channel: channel.waiting_since).will_close = True
        return self.accepting and len(channels) <= self._limit

    def pull_trigger(self) -> None:
        # The pipe's number may be another file's once it is closed.
        with self._pulling:
            if not self._closed:
                super().pull_trigger()

    def close(self) -> None:
        with self._pulling:
            self._closed = True
            super().close()


class HttpServer:
    """
    Serve *application* (WSGI) on *address* and *port* in threads of its own.

    *address* ``::`` means every address of both families, or of IPv4 alone
    where the node has no IPv6; *port* 0 means any free one. At most
    *connections* are open at once; one that takes more than *patience*
    seconds to bring a whole request or to take the answer is closed.
    """

    def __init__(
        self,
        application: WSGIApplication,
        *,
        name: str,
        address: str = "::",
        port: int,
        connections: int = 256,
        patience: float = 15.0,
    ) -> None:
        self._application = _guarded(application, name)
        self._name = name
        self._address = address
        self._port = port
        self._connections = connections
        self._patience = patience
        self._listener: _Listener | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    @property
    def port(self) -> int:
        """The port that it listens on; before `start` the one asked for."""
        return self._port

    @property
    def running(self) -> bool:
        """Whether it answers."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Begin to listen; ConfigurationError if the port cannot be had. Twice is once."""
        if self.running:
            return
        try:
            sock = _listen(self._address, self._port)
        except OSError as error:
            raise ConfigurationError(
                f"cannot listen on {self._address} port {self._port} "
                f"({error.strerror or error}); choose another",
                where=self._name,
            ) from error
        self._port = int(sock.getsockname()[1])
        dispatcher = ThreadedTaskDispatcher()
        dispatcher.queue_logger = _silent
        dispatcher.set_thread_count(2)
        self._listener = _Listener(
            self._application,
            map={},
            _sock=sock,
            dispatcher=dispatcher,
            adj=Adjustments(
                sockets=[sock],
                ident=None,  # no Server header
                max_request_header_size=_MAX_HEADER,
                max_request_body_size=_MAX_BODY,
                log_socket_errors=False,
            ),
            sockinfo=(sock.family, sock.type, sock.proto, sock.getsockname()),
            bind_socket=False,
            connections=self._connections,
            patience=self._patience,
        )
        self._stop.clear()
        self._thread = threading.Thread(
            target=self._loop, args=(self._listener, dispatcher), name=self._name, daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """End every connection and free the port; nothing if it does not run."""
        thread, listener = self._thread, self._listener
        if thread is None or listener is None:
            return
        self._stop.set()
        listener.pull_trigger()
        thread.join()
        self._thread = self._listener = None

    def _loop(self, listener: _Listener, dispatcher: ThreadedTaskDispatcher) -> None:
        sockets = cast("dict[int, socket.socket]", listener._map)  # type: ignore[attr-defined]
        try:
            while not self._stop.is_set():
                # poll, because select fails on file descriptors above 1023
                wasyncore.loop(timeout=1, use_poll=True, map=sockets, count=1)
        finally:
            dispatcher.shutdown()  # first: its threads pull the trigger
            listener.close()  # with its lock, against a close() that pulls it just now
            wasyncore.close_all(sockets, ignore_all=True)


def _listen(address: str, port: int) -> socket.socket:
    # Longer than a burst of connections that come between two rounds of the loop.
    backlog = 256
    if address == "::" and socket.has_dualstack_ipv6():
        return socket.create_server(
            (address, port), family=socket.AF_INET6, backlog=backlog, dualstack_ipv6=True
        )
    if address == "::":
        address = "0.0.0.0"  # noqa: S104 - the same on a node without IPv6
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.create_server((address, port), family=family, backlog=backlog)


def _guarded(application: WSGIApplication, name: str) -> WSGIApplication:
    """Answer 500 where *application* raises; Waitress would log the path with it."""

    def guarded(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            return application(environ, start_response)
        except Exception as error:  # noqa: BLE001 - the boundary of the server
            _log.error("%s: a request failed by %s", name, type(error).__name__)
            return answer(environ, start_response, "500 Internal Server Error", b"failed\n")

    return guarded


def answer(
    environ: WSGIEnvironment, start_response: StartResponse, status: str, body: bytes
) -> Iterable[bytes]:
    """Answer *status* and *body* as plain text; to HEAD the same headers and no body."""
    start_response(
        status,
        [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
        ],
    )
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]
