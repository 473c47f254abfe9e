"""
http-01 (RFC 8555 section 8.3): a server for the key authorizations, and nothing else.

It listens on a port of its own. Port 80 of the domain has to bring
``/.well-known/acme-challenge/`` here, by a rule of the proxy that has it or by
a redirect. What is being answered is kept in memory only: after a restart the
same challenges are presented again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from certbaton.errors import SolverNotReady
from certbaton.httpd import HttpServer, answer
from certbaton.model import ChallengeInfo
from certbaton.solvers.options import Options

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

PATH = "/.well-known/acme-challenge/"
DEFAULT_PORT = 8089


class Http01Solver:
    """
    Answers by HTTP on *address* and *port*; see `HttpServer` for what they mean.

    A token is answered under every host name: it has at least 128 random bits
    (RFC 8555 section 8.3), so it tells certificates apart by itself.
    """

    challenge_type = "http-01"

    def __init__(self, *, address: str = "::", port: int = DEFAULT_PORT) -> None:
        self._answers: dict[str, bytes] = {}
        self._lock = threading.Lock()
        self._value_of: Callable[[str], str | None] = lambda token: None
        self._server = HttpServer(self._respond, name="http-01", address=address, port=port)

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

    def present(self, challenge: ChallengeInfo) -> None:
        """Answer *challenge*'s token from now on."""
        with self._lock:
            self._answers[challenge.token] = challenge.value.encode("ascii")

    def ready(self, challenge: ChallengeInfo) -> None:
        """
        Return if the server runs; SolverNotReady otherwise.

        Whether port 80 of the name leads here is not looked at: inside the
        cluster it need not, and the CA looks from elsewhere.
        """
        if not self._server.running:
            raise SolverNotReady("the http-01 server of certbaton does not run")

    def clean_up(self, challenge: ChallengeInfo) -> None:
        """Answer 404 to *challenge*'s token from now on."""
        with self._lock:
            self._answers.pop(challenge.token, None)

    def answer_others(self, value_of: Callable[[str], str | None]) -> None:
        """Ask *value_of* about tokens that were not presented here; None from it is a 404."""
        self._value_of = value_of

    def _respond(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path.startswith(PATH) and environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            body = self._answer(path[len(PATH) :])
            if body is not None:
                return answer(environ, start_response, "200 OK", body)
        return answer(environ, start_response, "404 Not Found", b"not found\n")

    def _answer(self, token: str) -> bytes | None:
        with self._lock:
            body = self._answers.get(token)
        if body is not None:
            return body
        value = self._value_of(token)
        return value.encode("ascii") if value is not None else None


def build(settings: Mapping[str, object]) -> Http01Solver:
    """Build it from ``address`` and ``port``; ConfigurationError names a wrong key."""
    options = Options(settings, "http-01")
    address = options.text("address") or "::"
    port = options.integer("port", DEFAULT_PORT, least=0, most=65535)
    options.finish()
    return Http01Solver(address=address, port=port)
