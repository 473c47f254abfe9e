"""
No key material anywhere but in Secrets: the whole loop at debug level, and everything searched.

Two certificates are obtained (http-01 and dns-01) and handed over, a third one cannot be, so that
errors are told as well.
"""

from __future__ import annotations

import base64
import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from josepy.jwk import JWK

from lab.world import NAMESPACE, World

pytestmark = pytest.mark.servers

CHALLENGE = "/.well-known/acme-challenge/"


def numbers_of(pem: str) -> list[int]:
    """The numbers that make up the secret part of a key: an EC key's scalar, RSA's exponents."""
    key = load_pem_private_key(pem.encode(), None)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return [key.private_numbers().private_value]
    assert isinstance(key, rsa.RSAPrivateKey)
    found = key.private_numbers()
    return [found.d, found.p, found.q, found.dmp1, found.dmq1, found.iqmp]


def spellings(number: int) -> set[str]:
    """How a JWK has it, and hex and decimal; leading zeros are left to the reader."""
    raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
    found = {f"{number:x}", f"{number:X}", str(number)}
    # a JWK pads to the curve's size: then the base64 of what follows is another
    for padded in (raw, raw.rjust(32, b"\0")):
        found.add(base64.urlsafe_b64encode(padded).decode().rstrip("="))
        found.add(base64.b64encode(padded).decode().rstrip("="))
    return found


def fragments(pem: str) -> set[str]:
    """
    A private key in every form that it may be told in.

    Every full line of the PEM body, the same bytes as hex and in the other base64, and the
    numbers that they hold as JWK (in which the account's key is handled), hex and decimal.
    """
    body = [line for line in pem.splitlines() if line and "-----" not in line]
    raw = base64.b64decode("".join(body))
    found = {line for line in body if len(line) >= 32}
    # the secret part of a key is in there somewhere, whatever the encoding it is told in
    for start in range(0, len(raw) - 24, 24):
        piece = raw[start : start + 24]
        found |= {piece.hex(), base64.urlsafe_b64encode(piece).decode()}
    for number in numbers_of(pem):
        found |= spellings(number)
    return found


def secrets_of(world: World) -> dict[str, set[str]]:
    """What must not be seen, by where it lies."""
    items = world.plane.admin.list(f"/api/v1/namespaces/{NAMESPACE}/secrets")["items"]
    found: dict[str, set[str]] = {}
    for item in items:
        key = (item.get("data") or {}).get("tls.key")
        if key:
            found[item["metadata"]["name"]] = fragments(base64.b64decode(key).decode())
    assert world.dns is not None
    found["TSIG secret"] = {world.dns.key_file.read_text().strip()}
    found["http-01 tokens"] = {
        path.removeprefix(CHALLENGE) for path in world.app.paths if path.startswith(CHALLENGE)
    }
    return found


def told(world: World, logs: list[Path]) -> dict[str, str]:
    """Everything that anybody may read."""
    admin = world.plane.admin
    texts = {log.name: log.read_text() for log in logs}
    for kind in ("services", "events", "configmaps"):
        texts[kind] = json.dumps(admin.list(f"/api/v1/{kind}")["items"])
    items: list[dict[str, Any]] = admin.list("/api/v1/secrets")["items"]
    texts["metadata of Secrets"] = json.dumps([item["metadata"] for item in items])
    process = Path(f"/proc/{world.daemon.pid}")
    texts["command line"] = (process / "cmdline").read_bytes().decode()
    texts["environment"] = (process / "environ").read_bytes().decode(errors="replace")
    for page in ("healthz", "readyz"):
        url = f"http://127.0.0.1:{world.health_port}/{page}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            texts[page] = answer.read().decode()
    return texts


@pytest.mark.parametrize(
    "key",
    [ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)],
    ids=["EC", "RSA"],
)
def test_a_key_is_found_in_every_form(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
) -> None:
    """As PEM, as the JWK of the ACME library, and in what Python shows of its numbers."""
    plain = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pieces = fragments(plain.decode())

    def found_in(text: str) -> bool:
        return any(piece in text for piece in pieces)

    jwk = JWK.load(plain).to_partial_json()
    for name in set(jwk) & {"d", "p", "q", "dp", "dq", "qi"}:
        assert found_in(json.dumps({name: jwk[name]})), name
    number = numbers_of(plain.decode())[0]
    for text in (plain.decode(), json.dumps(plain.decode()), str(number), hex(number)):
        assert found_in(text)
    public = key.public_key().public_numbers()
    assert not found_in(repr(public))


def test_no_key_or_token_is_told_anywhere(tmp_path: Path) -> None:
    """Logs at debug level, Events, annotations, pages, arguments and environment."""
    with World(dns=True, folder=tmp_path, lifetime=3600) as world:
        world.add_service("shop", "one", "one.example.test")
        world.add_service("shop", "two", "two.example.test")
        world.add_service("shop", "bad")
        world.set_a("bad.example.test", "127.0.0.1")  # where nobody answers the challenge
        config = world.configuration(
            world.certificate("one", ["one.example.test"], [("shop", "one")]),
            world.certificate("two", ["two.example.test"], [("shop", "two")], solver="dns"),
            world.certificate("bad", ["bad.example.test"], [("shop", "bad")]),
            logLevel="debug",
        )
        world.install(config)
        world.start_daemon()
        world.wait_next_version("shop", "one", None)
        world.wait_next_version("shop", "two", None)
        world.wait_for(
            lambda: any(line.get("event") == "failed" for line in world.lines),
            60,
            "the bad one did not fail",
        )
        hidden = secrets_of(world)
        assert len(hidden) >= 5
        assert hidden["http-01 tokens"], "the search has something to look for"
        texts = told(world, sorted(tmp_path.glob("daemon-*.log")))
        assert re.search("CertificateServed", texts["events"])
        for where, text in texts.items():
            for what, pieces in hidden.items():
                seen = [piece for piece in pieces if piece in text]
                assert not seen, f"{len(seen)} pieces of {what} are in {where}"
