"""
Probes of the kubelet: ``/healthz`` (liveness) and ``/readyz``.

Liveness asks whether the daemon moves, never whether the world is well: a
restart does not bring Let's Encrypt back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from certbaton.httpd import HttpServer, answer

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment


class Health(NamedTuple):
    """An answer to a probe, and one sentence for a person."""

    ok: bool
    sentence: str


Check = Callable[[], Health]


class HealthServer:
    """
    Answers ``/healthz`` by *live* and ``/readyz`` by *ready*: 200, or 503 where not ok.

    The body is the sentence; every other path is 404. The checks run in
    threads of the server and must return at once.
    """

    def __init__(self, port: int, live: Check, ready: Check, *, address: str = "::") -> None:
        self._checks = {"/healthz": live, "/readyz": ready}
        self._server = HttpServer(
            self._respond, name="health", address=address, port=port, connections=64
        )

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._server.port

    def start(self) -> None:
        """Begin to listen; ConfigurationError if the port is taken."""
        self._server.start()

    def close(self) -> None:
        """Stop listening and free the port."""
        self._server.close()

    def _respond(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        check = self._checks.get(environ["PATH_INFO"])
        if check is None or environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return answer(environ, start_response, "404 Not Found", b"not found\n")
        health = check()
        status = "200 OK" if health.ok else "503 Service Unavailable"
        return answer(environ, start_response, status, f"{health.sentence}\n".encode())
