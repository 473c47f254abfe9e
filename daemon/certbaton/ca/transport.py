"""
Connections to a CA that end: under one deadline from the first packet to the last byte.

The library's timeout starts anew with every byte and every address of a host. Here a request has
what is left of its `traffic.Running`, be it direct or through a proxy.
"""

from __future__ import annotations

import http.client
import io
import os
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Any, Final

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.ssl_ import create_urllib3_context

from certbaton.ca.traffic import Running, running
from certbaton.noproxy import exempts

MAX_ANSWER: Final = 1024 * 1024


class _Reader(io.RawIOBase):
    """A socket's file that gives every read what is left until the deadline, and no more."""

    def __init__(self, sock: socket.socket, raw: io.RawIOBase) -> None:
        self._sock, self._raw = sock, raw
        running().reading(sock)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        request = running()
        self._sock.settimeout(request.left())
        count = self._raw.readinto(buffer)
        request.heard += count or 0
        if request.heard > MAX_ANSWER:
            raise OSError(f"more than {MAX_ANSWER} bytes")
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _HttpResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        # Status line and headers are read through it as well as the body.
        self.fp = io.BufferedReader(_Reader(sock, self.fp.detach()))


class _HttpConnection(HTTPConnection):
    response_class = _HttpResponse

    def _new_conn(self) -> socket.socket:
        return _connected(self)


class _HttpsConnection(HTTPSConnection):
    response_class = _HttpResponse

    def _new_conn(self) -> socket.socket:
        return _connected(self)


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _HttpConnection


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection


_POOLS: Final = {"http": _HttpPool, "https": _HttpsPool}


class _Roots:
    """
    One TLS context for each file or directory of roots, shared by all threads.

    The library makes one for each connection: with the system's roots 0.7 MB each, for as long as
    the connection rests, and as many as there are workers, CAs and accounts.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._contexts: dict[str, tuple[tuple[int, int], ssl.SSLContext]] = {}

    def context(self, path: str) -> ssl.SSLContext:
        """Verify by the roots at *path*, as they are now. OSError where they cannot be read."""
        at = Path(path)
        found = at.stat()
        state = (found.st_mtime_ns, found.st_size)
        with self._lock:
            known = self._contexts.get(path)
            if known is None or known[0] != state:
                context = create_urllib3_context()
                if at.is_dir():
                    context.load_verify_locations(capath=path)
                else:
                    context.load_verify_locations(path)
                known = self._contexts[path] = (state, context)
            return known[1]


_ROOTS: Final = _Roots()


class Adapter(HTTPAdapter):
    """
    Connections whose answers are read under the deadline, through a proxy as well.

    *exempting*: what NO_PROXY names is asked directly; not so where the proxy is an issuer's own.
    """

    def __init__(self, *, exempting: bool = True) -> None:
        super().__init__()
        self._exempting = exempting

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        exempt = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
        if self._exempting and exempts(exempt, str(request.url)):
            proxies = None
        return super().send(request, stream, timeout, verify, cert, proxies)

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> Any:
        host, pool = super().build_connection_pool_key_attributes(request, verify, cert)
        kept: dict[str, Any] = dict(pool)
        if host["scheme"] == "https" and verify:
            kept = {key: value for key, value in kept.items() if not key.startswith("ca_cert")}
            path = DEFAULT_CA_BUNDLE_PATH if verify is True else verify
            kept["ssl_context"] = _ROOTS.context(path)
        return host, kept

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        if not verify or not url.lower().startswith("https"):
            super().cert_verify(conn, url, verify, cert)  # type: ignore[no-untyped-call]
        # else the pool has its context; the library would load the roots for each connection

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager


def _connected(connection: HTTPConnection) -> socket.socket:
    """Connect; raises what urllib3's own way raises."""
    request = running()
    seconds = min(float(connection.timeout or request.left()), request.left())
    try:
        return _connect(connection.host.strip("[]"), connection.port or 0, seconds, request)
    except socket.gaierror as error:
        raise NameResolutionError(connection.host, connection, error) from error
    except TimeoutError as error:
        raise ConnectTimeoutError(connection, str(error)) from error
    except OSError as error:
        raise NewConnectionError(connection, str(error)) from error


def _connect(host: str, port: int, seconds: float, request: Running) -> socket.socket:
    """
    Connect to one of the addresses of *host*: *seconds* for all of them, and for TLS after it.

    Each has an even share of what is left, so that one that never answers doesn't cost the rest.
    """
    end = time.monotonic() + seconds
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    failed: OSError = TimeoutError("no address was tried")
    for tried, (family, kind, protocol, _, address) in enumerate(addresses):
        sock = socket.socket(family, kind, protocol)
        try:
            request.connecting(sock)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            left = end - time.monotonic()
            sock.settimeout(max(left / (len(addresses) - tried), 0.001))
            sock.connect(address)
            sock.settimeout(max(end - time.monotonic(), 0.001))
        except OSError as error:
            sock.close()
            late = isinstance(error, TimeoutError)
            failed = TimeoutError("connecting took too long") if late else error
        else:
            return sock
    raise failed
