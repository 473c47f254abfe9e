"""One running Pebble, seen as the contracts see a CA."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from certbaton.ca.session import Session
from certbaton.model import ChallengeInfo, IssuerSpec
from certbaton.pki import PrivateKey
from lab.pebble import Pebble
from lab.process import free_ports


class Answers:
    """Answers http-01 for every name, until there is a solver to do it."""

    def __init__(self) -> None:
        self.tokens: dict[str, str] = {}
        tokens = self.tokens

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = tokens.get(self.path.rpartition("/")[2], "").encode()
                self.send_response(200 if body else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        (self.port,) = free_ports(1)
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class PebbleWorld:
    """One running Pebble, seen as the contract sees a CA."""

    profile: str | None = "long"

    def __init__(self, pebble: Pebble, answers: Answers) -> None:
        self.pebble = pebble
        self.issuer = IssuerSpec("pebble", pebble.directory, ca_bundle=str(pebble.ca_file))
        self.slept: list[float] = []
        self._answers = answers
        self._seen = len(pebble.requests())

    def session(self, key: PrivateKey, url: str | None = None) -> Session:
        return Session(self.issuer, key, url)

    def publish(self, challenges: Sequence[ChallengeInfo]) -> None:
        for challenge in challenges:
            if challenge.type == "dns-01":
                self.pebble.set_txt(f"_acme-challenge.{challenge.name}", challenge.value)
            else:
                self._answers.tokens[challenge.token] = challenge.value

    def now(self) -> datetime:
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> bool:
        self.slept.append(seconds)
        time.sleep(seconds)
        return True

    def forget(self) -> None:
        self.pebble.restart()

    def requests(self) -> list[str]:
        seen = self.all_requests()
        return [each for each in seen if each not in ("newNonce", "directory")]

    def all_requests(self) -> list[str]:
        everything = self.pebble.requests()
        seen, self._seen = self._seen, len(everything)
        return [each.endpoint for each in everything[seen:]]

    def issued(self) -> int:
        return self.pebble.certificates_issued()
