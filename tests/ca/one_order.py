"""A stub CA with one order that says what it is told to, and somebody who drives it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from ca.stub import Handler, Stub, json_reply
from certbaton import pki
from certbaton.ca.order import Outcome, advance
from certbaton.ca.session import Session
from certbaton.ca.traffic import Traffic
from certbaton.model import ChallengeInfo, IssuerSpec, KeyType
from certbaton.pki import PrivateKey

KEY = PrivateKey.generate(KeyType.EC_P256)
CSR = pki.make_csr(PrivateKey.generate(KeyType.EC_P256), ("a.example.com",))
TOKEN = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0"
CHAIN = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


class Ca:
    """
    A stub with one order for *names*, each with an authorization.

    *statuses* are what the order says, one look after the other, the last one for ever.
    """

    def __init__(self, stub: Stub, names: Sequence[str] = ("a.example.com",)) -> None:
        self.stub, self.names = stub, names
        self.clock = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
        self.slept: list[float] = []
        self.presented: list[ChallengeInfo] = []
        self.statuses: list[str] = []
        self.headers: dict[str, str] = {}
        self.error: object = None
        self.authorizations = {name: self.authorization() for name in names}
        stub.fallback = self.usual
        spec = IssuerSpec("stub", f"{stub.url}/directory")
        traffic = Traffic(rate=1000)
        self.session = Session(spec, KEY, f"{stub.url}/account/1", traffic=traffic)

    def authorization(
        self, status: str = "pending", answered: str = "", error: object = None
    ) -> dict[str, Any]:
        """An authorization whose challenge is *answered*, like itself unless told otherwise."""
        challenge = {"status": answered or status, **({"error": error} if error else {})}
        return {"status": status, "challenge": challenge}

    def order(self, *statuses: str, error: object = None, **headers: str) -> None:
        self.statuses, self.error, self.headers = list(statuses), error, headers

    def advance(self, patience: timedelta = timedelta(minutes=2), **more: Any) -> Outcome:
        return advance(
            self.session,
            f"{self.stub.url}/order",
            CSR,
            challenge_type="http-01",
            present=self.presented.extend,
            sleep=self.sleep,
            patience=patience,
            now=lambda: self.clock,
            **more,
        )

    def sleep(self, seconds: float) -> bool:
        self.slept.append(seconds)
        self.clock += timedelta(seconds=seconds)
        return True

    def asked(self) -> list[str]:
        """Paths of the signed requests so far."""
        return [each.path for each in self.stub.requests if each.method == "POST"]

    def usual(self, handler: Handler) -> bool:
        kind, _, name = handler.path.lstrip("/").partition("/")
        if kind in ("order", "finalize"):
            json_reply(self.stub, 200, self._order(self._next()), **self.headers)(handler)
        elif kind == "authorization":
            json_reply(self.stub, 200, self._authorization(name))(handler)
        elif kind == "certificate":
            handler.answer(200, CHAIN, Replay_Nonce=self.stub.nonce())
        else:
            return False
        return True

    def _next(self) -> str:
        return self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]

    def _order(self, status: str) -> dict[str, object]:
        url = self.stub.url
        order: dict[str, object] = {
            "status": status,
            "authorizations": [f"{url}/authorization/{name}" for name in self.names],
            "finalize": f"{url}/finalize",
        }
        if status == "valid":
            order["certificate"] = f"{url}/certificate"
        if status == "invalid" and self.error:
            order["error"] = self.error
        return order

    def _authorization(self, name: str) -> dict[str, object]:
        said = self.authorizations[name]
        challenge = {
            "type": "http-01",
            "url": f"{self.stub.url}/challenge/{name}",
            "token": TOKEN,
            **said["challenge"],
        }
        return {
            "status": said["status"],
            "identifier": {"type": "dns", "value": name},
            "challenges": [challenge],
        }


def words_of(kind: str, detail: str, *subproblems: tuple[str, str, str]) -> dict[str, object]:
    """A problem document of *kind*; *subproblems* are (name, kind, detail)."""
    prefix = "urn:ietf:params:acme:error:"
    subs = [
        {"type": prefix + a_kind, "detail": words, "identifier": {"type": "dns", "value": name}}
        for name, a_kind, words in subproblems
    ]
    return {"type": prefix + kind, "detail": detail, **({"subproblems": subs} if subs else {})}
