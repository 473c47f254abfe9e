"""What goes through the proxy: a request as it was read, a refusal, and an answer."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from lab.pebble import ENDPOINTS

ERROR = "urn:ietf:params:acme:error:"
# What a payload makes of a POST: certbaton's table of problems has the same names.
_FINER = {
    "newAccount": ("onlyReturnExisting", True, "findAccount"),
    "account": ("status", "deactivated", "deactivateAccount"),
    "authorization": ("status", "deactivated", "deactivateAuthorization"),
}


@dataclass(frozen=True)
class After:
    """Retry-After as an HTTP date, *seconds* from the answer's own Date, written in any *zone*."""

    seconds: int
    zone: tzinfo = UTC

    def render(self, now: datetime) -> str:
        at = (now + timedelta(seconds=self.seconds)).astimezone(self.zone)
        return f"{at:%a, %d %b %Y %H:%M:%S} {'GMT' if self.zone is UTC else f'{at:%z}'}"


Wait = int | After | None


@dataclass(frozen=True)
class Request:
    """
    One request of a client, its JWS read and not verified: that is Pebble's work.

    *kind* is RFC 8555's name of what is asked: that of the resource, but findAccount,
    deactivateAccount and deactivateAuthorization by the payload. *account* is the ``kid``;
    *key* the thumbprint of the key that was sent in its place.
    """

    at: datetime
    kind: str
    method: str
    path: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    account: str | None = None
    key: str | None = None
    payload: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Problem:
    """A refusal: problem document and headers; *type* is without its prefix."""

    status: int
    type: str
    detail: str
    retry_after: Wait = None
    headers: Mapping[str, str] = field(default_factory=dict)
    subproblems: tuple[Mapping[str, Any], ...] = ()

    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "type": f"{ERROR}{self.type}",
            "detail": self.detail,
            "status": self.status,
        }
        if self.subproblems:
            found["subproblems"] = list(self.subproblems)
        return found


@dataclass
class Reply:
    """What the client gets: *trickle* seconds for each byte, or nothing (*cut*) and a reset."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    trickle: float = 0.0
    cut: bool = False

    def header(self, name: str, value: str | None) -> None:
        """Set one header whatever the case of the one that is there; None takes it away."""
        for known in [each for each in self.headers if each.lower() == name.lower()]:
            del self.headers[known]
        if value is not None:
            self.headers[name] = value

    def get(self, name: str) -> str | None:
        """One header, whatever its case."""
        return {key.lower(): value for key, value in self.headers.items()}.get(name.lower())

    def document(self) -> dict[str, Any] | None:
        """The body as a JSON object; None for anything else."""
        try:
            found = json.loads(self.body)
        except ValueError:
            return None
        return found if isinstance(found, dict) else None

    def write(self, document: Mapping[str, Any]) -> None:
        """Put *document* in the body's place."""
        self.body = json.dumps(document).encode()


def read(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Request:
    """Read a request; what is no JWS is passed on all the same, for Pebble to refuse."""
    kind = next((name for start, name in ENDPOINTS.items() if path.startswith(start)), path)
    header: Any = {}
    payload: Any = None
    with contextlib.suppress(ValueError, KeyError, TypeError):
        jws = json.loads(body)
        header = json.loads(_decoded(jws["protected"]))
        payload = json.loads(_decoded(jws["payload"]) or b"null")
    jwk = header.get("jwk")
    if isinstance(payload, dict) and kind in _FINER:
        key, value, finer = _FINER[kind]
        kind = finer if payload.get(key) == value else kind
    return Request(
        at=datetime.now(UTC),
        kind=kind,
        method=method,
        path=path,
        url=f"https://{headers.get('Host', '')}{path}",
        headers=headers,
        body=body,
        account=header.get("kid"),
        key=_thumbprint(jwk) if isinstance(jwk, dict) else None,
        payload=payload if isinstance(payload, dict) else None,
    )


def _thumbprint(jwk: Mapping[str, Any]) -> str:
    needed = {name: jwk[name] for name in ("crv", "e", "kty", "n", "x", "y") if name in jwk}
    text = json.dumps(needed, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
