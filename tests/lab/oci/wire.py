"""The sockets: one listening address and port, with the connections it has accepted."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable

from lab.oci.ports import Address
from lab.oci.stream import Stream, TlsStream

# Long enough for a slow test machine, short enough that a forgotten connection ends.
_PATIENCE = 30.0
_LINGER_NONE = struct.pack("ii", 1, 0)

Backend = Callable[[], Address | None]
TlsChoice = Callable[[], ssl.SSLContext | None]


class Wire:
    """
    A listener that forwards to a back end, with TLS terminated if *tls* gives a context.

    *tls* and *backend* are asked anew for each connection. `close` refuses new connections and
    cuts the open ones; the same address and port can be opened again at once.
    """

    def __init__(self, address: str, port: int, *, backend: Backend, tls: TlsChoice) -> None:
        self.address = address
        self.port = port
        self._backend = backend
        self._tls = tls
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._open: dict[socket.socket, threading.Thread] = {}

    @property
    def listening(self) -> bool:
        return self._socket is not None

    def open(self) -> None:
        """Listen; connections are accepted when this returns."""
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            # A connection going out from this very address and port may be in the way for a
            # moment, never for long.
            deadline = time.monotonic() + 5
            while True:
                try:
                    listening.bind((self.address, self.port))
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.01)
            listening.listen(128)
        except BaseException:
            listening.close()
            raise
        thread = threading.Thread(
            target=self._accept, args=(listening,), name=f"wire-{self.port}", daemon=True
        )
        with self._lock:
            self._socket, self._thread = listening, thread
        thread.start()

    def close(self) -> None:
        """Refuse new connections and cut the open ones."""
        with self._lock:
            listening, self._socket = self._socket, None
            thread, self._thread = self._thread, None
        if listening is not None:
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            if thread is not None and thread is not threading.current_thread():
                thread.join(5)
            listening.close()
        with self._lock:
            # Under the lock, so that no number is cut that the worker has given back by now.
            for connection in self._open:
                _cut(connection)
            workers = list(self._open.values())
        for worker in workers:
            if worker is not threading.current_thread():
                worker.join(5)

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with self._lock:
                if self._socket is not listening:
                    _reset(connection)
                    return
            worker = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            with self._lock:
                self._open[connection] = worker
            worker.start()

    def _serve(self, raw: socket.socket) -> None:
        try:
            raw.settimeout(_PATIENCE)
            context = self._tls()
            if context is None:
                self._forward(Stream(raw))
            else:
                tls = TlsStream(raw, context, server_side=True)
                tls.shake()
                self._forward(tls)
        except (OSError, ValueError):
            pass  # The other side left, or would not agree on TLS, or `close` cut it.
        finally:
            with self._lock:
                self._open.pop(raw, None)
                raw.close()

    def _forward(self, client: Stream) -> None:
        # The back end is called when the client has something to say: a probe that only wants
        # the handshake costs it nothing.
        while (first := client.receive()) == b"":
            pass
        target = self._backend()
        if first is None or target is None:
            return
        with socket.create_connection(target, timeout=_PATIENCE) as upstream:
            upstream.sendall(first)
            _relay(client, Stream(upstream))
        client.finish()


def _relay(client: Stream, upstream: Stream) -> None:
    """Pass everything on in both directions until one side has ended."""
    peers = {client.raw: (client, upstream), upstream.raw: (upstream, client)}
    while True:
        ready, _, _ = select.select(list(peers), [], [], _PATIENCE)
        if not ready:
            return
        for socket_ in ready:
            source, target = peers[socket_]
            data = source.receive()
            if data is None:
                return
            target.send(data)


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _reset(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
    connection.close()
