"""
Pebble, Let's Encrypt's test CA, as a process on 127.0.0.1, with a DNS server to look names up.

Unless told otherwise it is calm: no validation sleep, no rejected nonces, no Retry-After, and
(almost) no reused authorizations. Its memory is its only store: `restart` forgets all.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import requests

from lab import build
from lab.certs import Authority
from lab.process import LabError, Process, free_ports
from lab.server import Server

PROFILES = {"lab": 60, "long": 7_776_000}

# Pebble's paths are odd on purpose, so that no client relies on them; these are RFC 8555's names.
ENDPOINTS = {
    "/dir": "directory",
    "/nonce-plz": "newNonce",
    "/sign-me-up": "newAccount",
    "/my-account/": "account",
    "/order-plz": "newOrder",
    "/my-order/": "order",
    "/finalize-order/": "finalize",
    "/authZ/": "authorization",
    "/chalZ/": "challenge",
    "/certZ/": "certificate",
    "/revoke-cert": "revokeCert",
    "/rollover-account-key": "keyChange",
    "/list-orderz/": "orders",
    "/draft-ietf-acme-ari-03/renewalInfo/": "renewalInfo",
}
_REQUEST = re.compile(r" (\w+) (/\S*) -> calling handler\(\)$")
_STAMP = re.compile(r"^Pebble (\d+/\d+/\d+ \d+:\d+:\d+) ")
_ISSUED = re.compile(r" Issued certificate serial (\S+) for order ")


@dataclass(frozen=True)
class CaRequest:
    """
    One request that the CA's protocol end got.

    *at* is when its log line arrived here, usually milliseconds after the request; *endpoint* is
    RFC 8555's name of the resource ("newOrder", "authorization", "certificate", ...).
    """

    at: datetime
    method: str
    endpoint: str


class Pebble(Server):
    """
    The CA; validates http-01 at port *http_port* of the address that DNS gives.

    *profiles* are names with a validity in seconds. *dns_server* ("127.0.0.1:53") replaces the
    pebble-challtestsrv that otherwise answers every name with *default_ip*. *retry_after* is
    in seconds for pending authorizations and processing orders, 0 for no header; *va_sleep* is
    the most that a validation sleeps; *nonce_reject* and *authz_reuse* are percentages;
    *external_accounts* maps key identifiers to base64url MAC keys, and requires one of them.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        http_port: int,
        dns_server: str | None = None,
        profiles: Mapping[str, int] = PROFILES,
        default_ip: str = "127.0.0.1",
        nonce_reject: int = 0,
        authz_reuse: int = 0,
        va_sleep: int = 0,
        alternate_roots: int = 0,
        chain_length: int = 1,
        retry_after: tuple[int, int] = (0, 0),
        key_algorithm: str = "ecdsa",
        external_accounts: Mapping[str, str] | None = None,
    ) -> None:
        binaries = build.ensure("pebble", *(() if dns_server else ("pebble-challtestsrv",)))
        super().__init__(folder)
        port, management_port, dns_port, self._dns_management_port = free_ports(4)
        authority = Authority(self.folder / "pki", "pebble-https-ca")
        cert, key = authority.issue("pebble", hosts=("127.0.0.1", "localhost"))
        self.ca_file = authority.file
        self.directory = f"https://127.0.0.1:{port}/dir"
        self.management = f"https://127.0.0.1:{management_port}"
        self.default_ip = default_ip
        self.dns_server = dns_server or f"127.0.0.1:{dns_port}"
        config = {
            "listenAddress": f"127.0.0.1:{port}",
            "managementListenAddress": f"127.0.0.1:{management_port}",
            "certificate": str(cert),
            "privateKey": str(key),
            "httpPort": http_port,
            # Nothing here uses tls-alpn-01.
            "tlsPort": 1,
            "externalAccountBindingRequired": bool(external_accounts),
            "externalAccountMACKeys": dict(external_accounts or {}),
            "retryAfter": {"authz": retry_after[0], "order": retry_after[1]},
            "keyAlgorithm": key_algorithm,
            "profiles": {
                name: {"description": f"{seconds} s", "validityPeriod": seconds}
                for name, seconds in profiles.items()
            },
        }
        config_file = self.folder / "pebble.json"
        config_file.write_text(json.dumps({"pebble": config}, indent=1))
        self._lock = threading.Lock()
        self._requests: list[CaRequest] = []
        self._issued: list[datetime] = []
        self.process = Process(
            "pebble",
            [binaries["pebble"], "-config", config_file, "-dnsserver", self.dns_server],
            log=self.folder / "pebble.log",
            environ={
                "PEBBLE_VA_NOSLEEP": "0" if va_sleep else "1",
                "PEBBLE_VA_SLEEPTIME": str(va_sleep),
                "PEBBLE_WFE_NONCEREJECT": str(nonce_reject),
                "PEBBLE_AUTHZREUSE": str(authz_reuse),
                "PEBBLE_ALTERNATE_ROOTS": str(alternate_roots),
                "PEBBLE_CHAIN_LENGTH": str(chain_length),
                "TZ": "UTC",
            },
            on_line=self._note,
        )
        self.dns: Process | None = None
        if dns_server is None:
            self.dns = Process(
                "pebble-challtestsrv",
                [
                    binaries["pebble-challtestsrv"],
                    *("-dnsserver", self.dns_server),
                    *("-management", f"127.0.0.1:{self._dns_management_port}"),
                    *("-defaultIPv4", default_ip, "-defaultIPv6", ""),
                    *("-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", ""),
                ],
                log=self.folder / "challtestsrv.log",
            )

    def start(self) -> Self:
        """Start; ready when the directory answers."""
        if self.dns is not None:
            self.dns.start().wait_ready(lambda: self._dns("dns-request-history", host="x."))
        self._start_ca()
        return self

    def stop(self) -> None:
        """Stop the CA and its DNS server."""
        self.process.stop()
        if self.dns is not None:
            self.dns.stop()

    def restart(self) -> None:
        """Stop and start the CA: same URL, new root, no accounts; DNS and counts stay."""
        self.process.stop()
        self._start_ca()

    def set_a(self, name: str, ip: str) -> None:
        """Let *name* have the one address *ip* (only with its own DNS server)."""
        self._dns("clear-a", host=_fqdn(name))
        self._dns("add-a", host=_fqdn(name), addresses=[ip])

    def set_txt(self, name: str, value: str) -> None:
        """Add a TXT record (only with its own DNS server)."""
        self._dns("set-txt", host=_fqdn(name), value=value)

    def clear_txt(self, name: str) -> None:
        """Remove all TXT records of *name* (only with its own DNS server)."""
        self._dns("clear-txt", host=_fqdn(name))

    def requests(
        self, since: datetime | None = None, until: datetime | None = None
    ) -> list[CaRequest]:
        """Requests from *since* to *until* (aware datetimes), in the order of their arrival."""
        self.process.drain()
        with self._lock:
            return [seen for seen in self._requests if _within(seen.at, since, until)]

    def certificates_issued(
        self, since: datetime | None = None, until: datetime | None = None
    ) -> int:
        """How many certificates it signed, over all restarts."""
        self.process.drain()
        with self._lock:
            return sum(_within(at, since, until) for at in self._issued)

    def root(self, number: int = 0) -> bytes:
        """The root certificate of the running CA as PEM; with alternate roots 0, 1, ..."""
        return self._management("GET", f"roots/{number}")

    def set_renewal_info(self, certificate: bytes, answer: str) -> None:
        """Let *answer*, valid or not, be the renewal information of a certificate (PEM)."""
        body = {"Certificate": certificate.decode(), "ARIResponse": answer}
        self._management("POST", "set-renewal-info/", body)

    def versions(self) -> dict[str, str]:
        """The version that was built (Pebble itself reports none)."""
        return {"pebble": build.pinned_version("pebble")}

    def _start_ca(self) -> None:
        def answers() -> bool:
            with requests.Session() as session:
                session.trust_env = False
                session.verify = str(self.ca_file)
                return "newOrder" in session.get(self.directory, timeout=10).json()

        self.process.start().wait_ready(answers)
        # So that the request above does not count as one made after the start.
        self.process.drain()

    def _note(self, line: str) -> None:
        now = _moment(line)
        request, issued = _REQUEST.search(line), _ISSUED.search(line)
        with self._lock:
            if request is not None:
                endpoint = ENDPOINTS.get(request[2], request[2])
                self._requests.append(CaRequest(now, request[1], endpoint))
            if issued is not None:
                self._issued.append(now)

    def _management(self, method: str, path: str, body: Any = None) -> bytes:
        with requests.Session() as session:
            session.trust_env = False
            session.verify = str(self.ca_file)
            answer = session.request(method, f"{self.management}/{path}", json=body, timeout=10)
            answer.raise_for_status()
            return answer.content

    def _dns(self, action: str, **body: Any) -> bool:
        if self.dns is None:
            raise LabError("Pebble uses another DNS server; its records are set there")
        with requests.Session() as session:
            session.trust_env = False
            url = f"http://127.0.0.1:{self._dns_management_port}/{action}"
            answer = session.post(url, json=body, timeout=10)
            answer.raise_for_status()
            return True


def _moment(line: str) -> datetime:
    """
    When *line* was written: now, unless its own stamp says that it comes late.

    Pebble stamps whole seconds, too coarse to tell one certificate's requests from the next's.
    """
    now = datetime.now(UTC)
    stamp = _STAMP.search(line)
    if stamp is None:
        return now
    written = datetime.strptime(stamp[1], "%Y/%m/%d %H:%M:%S").replace(tzinfo=UTC)
    return max(written, min(now, written + timedelta(milliseconds=999)))


def _fqdn(name: str) -> str:
    return name if name.endswith(".") else f"{name}."


def _within(at: datetime, since: datetime | None, until: datetime | None) -> bool:
    return (since is None or since <= at) and (until is None or at <= until)
