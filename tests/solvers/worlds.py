"""What the contract suites run on: a solver or provider, and the eyes of the CA."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import dns.tsig

from certbaton.model import ChallengeInfo
from certbaton.solvers import DnsProvider, Solver
from certbaton.solvers.dns01 import Dns01Solver, record_name
from certbaton.solvers.http01 import Http01Solver
from certbaton.solvers.rfc2136 import Rfc2136, build
from solvers.name_server import NameServer

SECRET = base64.b64encode(b"a secret that nobody may see").decode()


@dataclass(frozen=True)
class DnsWorld:
    """A provider, the zone it may write, and what its server holds at a name."""

    provider: DnsProvider
    zone: str
    txt: Callable[[str], list[str]]


@dataclass(frozen=True)
class SolverWorld:
    """A solver, a name it may solve, and whether the CA would find a challenge's answer."""

    solver: Solver
    name: str
    finds: Callable[[ChallengeInfo], bool]


def challenge(kind: str, name: str, token: str) -> ChallengeInfo:
    """A pending challenge with a value of its own."""
    value = f"{token}.thumbprint" if kind == "http-01" else f"digest-of-{token}"
    return ChallengeInfo(kind, f"https://ca.test/{token}", name, token, value, "pending")


def fetch(port: int, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of one request to 127.0.0.1."""
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


@contextmanager
def fake_dns(folder: Path) -> Iterator[DnsWorld]:
    """RFC 2136 against the name server of these tests."""
    server = NameServer("a.example", key=dns.tsig.Key("certbaton", SECRET))
    with server.running():
        yield DnsWorld(rfc2136(server, folder), "a.example", server.txt)


@contextmanager
def knot_dns(folder: Path) -> Iterator[DnsWorld]:
    """RFC 2136 against Knot."""
    from lab.dns import Knot

    with Knot(folder) as knot:
        provider = build(
            {
                "server": knot.server,
                "port": knot.port,
                "tsigKeyName": knot.key_name,
                "tsigAlgorithm": knot.key_algorithm,
                "tsigSecretFile": str(knot.key_file),
            }
        )
        yield DnsWorld(provider, knot.zone.rstrip("."), lambda name: sorted(knot.txt(name)))


def rfc2136(server: NameServer, folder: Path, **settings: object) -> Rfc2136:
    """A provider for *server*, with its key unless the settings say otherwise."""
    secret = folder / "tsig.secret"
    secret.write_text(f"{SECRET}\n", encoding="ascii")
    keys = {"server": "127.0.0.1", "port": server.port, "timeoutSeconds": 5}
    if server.key is not None:
        keys |= {"tsigKeyName": "certbaton", "tsigSecretFile": str(secret)}
    return build({**keys, **settings})


@contextmanager
def http01_world(folder: Path) -> Iterator[SolverWorld]:
    """http-01, seen by GET."""
    solver = Http01Solver(address="127.0.0.1", port=0)

    def finds(wanted: ChallengeInfo) -> bool:
        status, _, body = fetch(solver.port, f"/.well-known/acme-challenge/{wanted.token}")
        return status == 200 and body == wanted.value.encode()

    solver.start()
    try:
        yield SolverWorld(solver, "a.example", finds)
    finally:
        solver.close()


@contextmanager
def dns01_world(world: DnsWorld) -> Iterator[SolverWorld]:
    """dns-01 on a DNS service, seen in its zone."""
    yield SolverWorld(
        Dns01Solver(world.provider),
        f"shop.{world.zone}",
        lambda wanted: wanted.value in world.txt(record_name(wanted.name)),
    )
