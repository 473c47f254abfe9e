"""
Knot DNS as an authoritative server on 127.0.0.1 that takes signed dynamic updates (RFC 2136).

Not named after any cloud: what the daemon's dns-01 solver talks to, and what Pebble can ask.
"""

from __future__ import annotations

import base64
import re
import secrets
from pathlib import Path
from typing import Self

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdatatype
import dns.rdtypes.txtbase
import dns.tsig
import dns.update

from lab import build
from lab.certs import write_private
from lab.process import LabError, Process, free_ports
from lab.server import Server

_TTL = 1
_TIMEOUT = 10.0


class Knot(Server):
    """
    One zone, in which every name without records of its own or below it has *default_ip*.

    A TXT record for ``_acme-challenge.a`` makes ``a`` itself exist, without an address: a name
    that is validated both ways needs `set_a`. With *above* the domain above is there too, and
    empty, so that who looks for CAA records gets an answer all the way up.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        zone: str = "example.test.",
        default_ip: str = "127.0.0.1",
        above: bool = False,
    ) -> None:
        programs = build.debian("knot", "knotd")
        super().__init__(folder)
        self.zone = zone if zone.endswith(".") else f"{zone}."
        self.server = "127.0.0.1"
        (self.port,) = free_ports(1)
        self.address = f"{self.server}:{self.port}"
        self.key_name = "certbaton-lab."
        self.key_algorithm = "hmac-sha256"
        secret = base64.b64encode(secrets.token_bytes(32)).decode()
        self.key_file = write_private(self.folder / "tsig.secret", secret.encode())
        self._keyring = {
            dns.name.from_text(self.key_name): dns.tsig.Key(
                self.key_name, secret, self.key_algorithm
            )
        }
        zone_file = self.folder / "zone"
        zone_file.write_text(
            f"$ORIGIN {self.zone}\n$TTL {_TTL}\n"
            f"@ SOA ns hostmaster 1 3600 600 86400 {_TTL}\n"
            f"@ NS ns\n@ A {default_ip}\nns A {self.server}\n* A {default_ip}\n"
        )
        self._above = self.zone.partition(".")[2] if above else None
        soa = f"ns.{self.zone} hostmaster 1 3600 600 86400 {_TTL}"
        (self.folder / "above").write_text(
            f"$ORIGIN {self._above}\n$TTL {_TTL}\n@ SOA {soa}\n@ NS ns.{self.zone}\n"
        )
        (self.folder / "db").mkdir(exist_ok=True)
        config = write_private(self.folder / "knot.conf", self._config(secret, zone_file).encode())
        self._knotd = programs.paths["knotd"]
        self._environ = programs.environ
        self.process = Process(
            "knotd",
            [self._knotd, "-c", config],
            log=self.folder / "knotd.log",
            environ=self._environ,
        )

    def start(self) -> Self:
        """Start; ready when it answers for its zone."""
        self.process.start().wait_ready(self._answers)
        return self

    def stop(self) -> None:
        """Stop it."""
        self.process.stop()

    def set_a(self, name: str, ip: str) -> None:
        """Let *name* (in the zone) have the one address *ip*."""
        update = dns.update.UpdateMessage(self.zone, keyring=self._keyring)
        update.replace(dns.name.from_text(name), _TTL, "A", ip)
        self._update(update)

    def add(self, name: str, kind: str, text: str) -> None:
        """Add a record of any *kind* to *name* (in the zone), *text* being as in a zone file."""
        update = dns.update.UpdateMessage(self.zone, keyring=self._keyring)
        update.add(dns.name.from_text(name), _TTL, kind, text)
        self._update(update)

    def txt(self, name: str) -> list[str]:
        """The TXT records of *name*, sorted; none is an empty list."""
        answer = self._ask(name, "TXT")
        return sorted(
            b"".join(record.strings).decode()
            for rrset in answer.answer
            for record in rrset
            if isinstance(record, dns.rdtypes.txtbase.TXTBase)
        )

    def versions(self) -> dict[str, str]:
        """The version that the program reports."""
        log = self.folder / "version.log"
        log.unlink(missing_ok=True)
        command = [str(self._knotd), "--version"]
        with Process("knotd --version", command, log=log, environ=self._environ) as process:
            process.wait(30.0)
            match = re.search(r"(\d+(?:\.\d+)+)", process.log_tail())
        return {"knot": match[1] if match else "unknown"}

    def _answers(self) -> bool:
        answer = self._ask(self.zone, "SOA")
        return bool(answer.flags & dns.flags.AA) and answer.rcode() == dns.rcode.NOERROR

    def _ask(self, name: str, kind: str) -> dns.message.Message:
        question = dns.message.make_query(dns.name.from_text(name), kind)
        return dns.query.tcp(question, self.server, timeout=_TIMEOUT, port=self.port)

    def _update(self, update: dns.update.UpdateMessage) -> None:
        try:
            answer = dns.query.tcp(update, self.server, timeout=_TIMEOUT, port=self.port)
        except (OSError, dns.exception.DNSException) as error:
            raise LabError(f"knot did not take an update: {error}") from error
        if answer.rcode() != dns.rcode.NOERROR:
            raise LabError(f"knot refused an update: {dns.rcode.to_text(answer.rcode())}")

    def _config(self, secret: str, zone_file: Path) -> str:
        above = (
            f'  - domain: {self._above}\n    storage: "{self.folder}"\n    file: above\n'
            if self._above
            else ""
        )
        return f"""\
server:
    rundir: "{self.folder}"
    listen: {self.server}@{self.port}
    udp-workers: 1
    tcp-workers: 2
    background-workers: 1
database:
    storage: "{self.folder}/db"
    journal-db-max-size: 64M
    kasp-db-max-size: 10M
    timer-db-max-size: 10M
    catalog-db-max-size: 10M
log:
  - target: stdout
    any: info
key:
  - id: {self.key_name}
    algorithm: {self.key_algorithm}
    secret: {secret}
acl:
  - id: updates
    key: {self.key_name}
    action: update
zone:
  - domain: {self.zone}
    storage: "{self.folder}"
    file: "{zone_file.name}"
    acl: updates
    zonefile-sync: -1
{above}"""
