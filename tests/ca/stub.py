"""A server in place of a CA's: says what it is told to, and believes every signature."""

from __future__ import annotations

import base64
import http.server
import json
import ssl
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Request:
    """
    What the server got: *header* is the JWS's protected one, *payload* its text, or a form's.

    *connection* tells those apart that came on different ones. *headers* are HTTP's (names in
    lower case), *jws* is the body as it came.
    """

    method: str
    path: str
    agent: str
    header: dict[str, Any]
    payload: str
    connection: object = None
    headers: dict[str, str] = field(default_factory=dict)
    jws: dict[str, Any] = field(default_factory=dict)


Reply = Callable[["Handler"], None]


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection; the answer is what the Stub has queued for the path."""

    protocol_version = "HTTP/1.1"
    stub: Stub

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        """Send one whole answer; an underscore in a header's name is a hyphen."""
        if "Date" in headers:
            self.send_response_only(status)
        else:
            self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        jws = json.loads(body) if body.startswith(b"{") else {}
        self.stub.requests.append(
            Request(
                self.command,
                self.path,
                self.headers.get("User-Agent", ""),
                json.loads(_decoded(jws.get("protected", "e30"))),
                _decoded(jws.get("payload", "")).decode() if jws else body.decode(),
                self.client_address,
                {name.lower(): value for name, value in self.headers.items()},
                jws,
            )
        )
        queued = self.stub.replies.get(self.path)
        try:
            if queued:
                queued.pop(0)(self)
            else:
                self.stub.usual(self)
        except OSError:
            self.close_connection = True  # the client gave up, as it should

    do_GET = do_HEAD = do_POST = _any

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        # a client that goes, mid-way, is what some tests are about
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Stub:
    """A CA's server: usual answers, and per path a queue of unusual ones."""

    def __init__(self, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        """With *tls* it is an HTTPS server; *host* is what its URLs call it."""
        self.requests: list[Request] = []
        self.replies: dict[str, list[Reply]] = {}
        self.nonces = 0
        # What answers where nothing is queued; false where that is as usual.
        self.fallback: Callable[[Handler], bool] = lambda handler: False
        handler = type("BoundHandler", (Handler,), {"stub": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://{host}:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def reply(self, path: str, *replies: Reply) -> None:
        self.replies.setdefault(path, []).extend(replies)

    def nonce(self) -> str:
        self.nonces += 1
        return base64.urlsafe_b64encode(f"nonce{self.nonces:04d}".encode()).decode().rstrip("=")

    def directory(self, **more: object) -> dict[str, object]:
        names = ("newNonce", "newAccount", "newOrder")
        return {name: f"{self.url}/{name}" for name in names} | more

    def usual(self, handler: Handler) -> None:
        if self.fallback(handler):
            return
        if handler.path == "/directory":
            handler.answer(200, json.dumps(self.directory()).encode())
        elif handler.path == "/newAccount":
            headers = {"Location": f"{self.url}/account/1", "Replay_Nonce": self.nonce()}
            handler.answer(200, b"{}", **headers)
        else:
            handler.answer(200, b"{}", Replay_Nonce=self.nonce())


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def json_reply(stub: Stub, status: int, body: object, **headers: str) -> Reply:
    """Answer *body* as JSON, with a nonce unless *headers* has one."""
    headers.setdefault("Replay_Nonce", stub.nonce())
    return lambda handler: handler.answer(status, json.dumps(body).encode(), **headers)


def problem(stub: Stub, status: int, kind: str, **headers: str) -> Reply:
    """Refuse with a problem document of that type."""
    body = {"type": f"urn:ietf:params:acme:error:{kind}", "detail": "its words"}
    return json_reply(stub, status, body, **headers)
