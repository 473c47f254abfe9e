"""
TLS over a socket without ssl.SSLSocket.

SSLSocket leaks its descriptor if the other side has reset the connection before it is made,
which is what a listener under change does all the time, and it may not be cut from another
thread. Here the plain socket stays itself, and whoever opened it closes it.
"""

from __future__ import annotations

import contextlib
import socket
import ssl


class Stream:
    """What a relay needs of a connection; this one is plain."""

    def __init__(self, raw: socket.socket) -> None:
        self.raw = raw

    def receive(self) -> bytes | None:
        """What has come, perhaps nothing yet; None at the end. Reads the socket at most once."""
        return self.raw.recv(65536) or None

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self.raw.sendall(data)

    def finish(self) -> None:
        """Say goodbye, as far as the protocol has a word for it."""


class TlsStream(Stream):
    """One side of a TLS connection; `shake` must have returned before anything else."""

    def __init__(
        self,
        raw: socket.socket,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_name: str | None = None,
    ) -> None:
        super().__init__(raw)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_name
        )

    @property
    def leaf(self) -> bytes | None:
        """The DER of the other side's leaf."""
        return self._tls.getpeercert(binary_form=True)

    def shake(self) -> None:
        """Shake hands; an SSLError has sent its alert."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                self._feed()
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    self._flush()
                raise
            else:
                self._flush()
                return

    def receive(self) -> bytes | None:
        # With the end of the handshake the first data may have come already.
        data = self._drain()
        if data == b"":
            self._feed()
            data = self._drain()
        return data

    def send(self, data: bytes) -> None:
        self._tls.write(data)
        self._flush()

    def finish(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
            self._flush()

    def _feed(self) -> None:
        data = self.raw.recv(65536)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data:
            self.raw.sendall(data)

    def _drain(self) -> bytes | None:
        found = b""
        while True:
            try:
                data = self._tls.read(65536)
            except ssl.SSLWantReadError:
                return found
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                data = b""
            if not data:
                return found or None
            found += data
