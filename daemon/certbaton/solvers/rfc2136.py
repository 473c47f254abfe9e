"""
A DnsProvider for a name server of one's own: dynamic updates (RFC 2136), signed by TSIG (RFC 8945).

The one configured server is asked everything: which zone a name is in, where
a CNAME at it leads, whether a value is there, and it takes the updates. No
resolver and no cache is in between. Updates add and remove single records, so
each can be sent twice and none touches another value.
"""

from __future__ import annotations

import base64
import binascii
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.tsig
import dns.update
from dns.rdtypes.ANY.CNAME import CNAME
from dns.rdtypes.ANY.TXT import TXT

from certbaton.errors import PermanentError, SolverNotReady
from certbaton.solvers.options import Options

_DIGESTS = (
    "sha1",
    "sha224",
    "sha256",
    "sha256-128",
    "sha384",
    "sha384-192",
    "sha512",
    "sha512-256",
)
_ALGORITHMS = tuple(f"hmac-{digest}" for digest in _DIGESTS)

# A CNAME at _acme-challenge is common, a chain of them is not; a loop is a mistake.
_MAX_CNAMES = 8


@dataclass(frozen=True, slots=True)
class TsigKey:
    """
    A TSIG key. The secret stays in *secret_file*, as base64, and is read each time it is used.

    So a changed Secret takes effect without a restart, and no object here has
    anything to hide.
    """

    name: str
    algorithm: str
    secret_file: Path


class _Key(dns.tsig.Key):
    def __repr__(self) -> str:
        # dnspython's own shows the secret
        return f"<TSIG key {self.name}>"


@dataclass(frozen=True, slots=True)
class Rfc2136:
    """
    Updates zones on *server*, a name or an address.

    *zone* holds for the names within it; elsewhere, and without it, the zone
    is found by the server's SOA records. *ttl* and *timeout* are in seconds;
    *timeout* bounds one exchange, the change from UDP to TCP included.
    """

    server: str
    port: int = 53
    zone: str | None = None
    key: TsigKey | None = None
    ttl: int = 60
    timeout: float = 5.0

    def add_txt(self, name: str, value: str) -> None:
        """Add the record (RFC 2136 section 2.5.1); the server ignores one that is there."""
        owner, zone = self._place(name)
        self._update(zone, lambda update: update.add(owner, self.ttl, _txt(value)))

    def remove_txt(self, name: str, value: str) -> None:
        """Remove the record (RFC 2136 section 2.5.4); the server ignores one that is not there."""
        owner, zone = self._place(name)
        self._update(zone, lambda update: update.delete(owner, _txt(value)))

    def visible(self, name: str, value: str) -> bool:
        """Whether the server answers the record, at the end of the CNAMEs if there are any."""
        owner, response = self._follow(name, dns.rdatatype.TXT)
        found = response.get_rrset(response.answer, owner, dns.rdataclass.IN, dns.rdatatype.TXT)
        return found is not None and _txt(value) in found

    # --- finding the place -----------------------------------------------------------

    def _place(self, name: str) -> tuple[dns.name.Name, dns.name.Name]:
        """Where the record for *name* lies, and the zone that this is in."""
        owner, response = self._follow(name, dns.rdatatype.SOA)
        if self.zone is not None:
            zone = dns.name.from_text(self.zone)
            if owner.is_subdomain(zone):
                return owner, zone
        for rrset in (*response.answer, *response.authority):
            if rrset.rdtype == dns.rdatatype.SOA and owner.is_subdomain(rrset.name):
                if not response.flags & dns.flags.AA:
                    break
                return owner, rrset.name
        raise PermanentError(
            f"{self._who} is not authoritative for {_text(owner)}: name the server that "
            "takes the updates of its zone as server"
        )

    def _follow(
        self, name: str, rdtype: dns.rdatatype.RdataType
    ) -> tuple[dns.name.Name, dns.message.Message]:
        """Ask for *rdtype* at *name*, or where CNAMEs lead from there; the last answer."""
        owner = dns.name.from_text(name)
        visited = {owner}
        while True:
            response = self._ask(owner, rdtype)
            moved = False
            while (target := _alias(response, owner)) is not None:
                if target in visited or len(visited) > _MAX_CNAMES:
                    raise PermanentError(
                        f"the CNAMEs at {name} go round in circles or are more than "
                        f"{_MAX_CNAMES}: let the first one point to the last name"
                    )
                visited.add(target)
                owner, moved = target, True
            if not moved:
                return owner, response

    def _ask(self, owner: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> dns.message.Message:
        query = dns.message.make_query(owner, rdtype)
        query.flags &= ~dns.flags.RD
        response = self._exchange(query)
        code = response.rcode()
        if code in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            return response
        if code == dns.rcode.REFUSED:
            raise PermanentError(
                f"{self._who} refuses to answer about {_text(owner)}: it has no zone for it, or "
                "does not serve this address; name the server of its zone as server"
            )
        raise SolverNotReady(f"{self._who} answers {dns.rcode.to_text(code)} about {_text(owner)}")

    # --- updating --------------------------------------------------------------------

    def _update(
        self, zone: dns.name.Name, change: Callable[[dns.update.UpdateMessage], None]
    ) -> None:
        update = dns.update.UpdateMessage(zone)
        change(update)
        if self.key is not None:
            update.use_tsig(_read(self.key))
        code = self._exchange(update).rcode()
        if code == dns.rcode.NOERROR:
            return
        said = f"{self._who} answers {dns.rcode.to_text(code)} to an update of {_text(zone)}"
        if code in (dns.rcode.REFUSED, dns.rcode.NOTAUTH):
            key = f"the key {self.key.name}" if self.key else "an unsigned update (no tsigKeyName)"
            raise PermanentError(f"{said}: let its access rules allow {key} to change TXT records")
        if code in (dns.rcode.NOTIMP, dns.rcode.FORMERR, dns.rcode.NOTZONE):
            raise PermanentError(f"{said}: it takes no updates, or zone is set to another zone")
        raise SolverNotReady(said)

    # --- the wire --------------------------------------------------------------------

    @property
    def _who(self) -> str:
        return f"name server {self.server} port {self.port}"

    def _exchange(self, message: dns.message.Message) -> dns.message.Message:
        """Send *message* to the server's addresses, one after the other; the first answer."""
        deadline = time.monotonic() + self.timeout
        try:
            found = socket.getaddrinfo(self.server, self.port, type=socket.SOCK_DGRAM)
        except OSError as error:
            raise SolverNotReady(f"{self._who} cannot be resolved") from error
        addresses = list(dict.fromkeys(str(place[0]) for *_, place in found))
        trouble: Exception | None = None
        for number, address in enumerate(addresses):
            left = (deadline - time.monotonic()) / (len(addresses) - number)
            try:
                return self._exchange_with(address, message, max(left, 0.1))
            except dns.tsig.PeerBadTime as error:
                raise PermanentError(
                    f"the clocks of certbaton and {self._who} differ by more than 5 minutes: "
                    "set the one that is wrong"
                ) from error
            except dns.tsig.PeerBadKey as error:
                raise PermanentError(
                    f"{self._who} does not know the TSIG key {self._key_name} with this "
                    "algorithm: check tsigKeyName and tsigAlgorithm"
                ) from error
            except (dns.tsig.PeerError, dns.tsig.BadSignature) as error:
                raise PermanentError(
                    f"{self._who} has another secret for the TSIG key {self._key_name}: check "
                    "the file at tsigSecretFile"
                ) from error
            except dns.exception.FormError as error:
                if not message.had_tsig:
                    trouble = error
                    continue
                raise PermanentError(
                    f"{self._who} does not sign its answer with the TSIG key {self._key_name}: "
                    "check that it knows the key and lets it change TXT records"
                ) from error
            except (dns.exception.DNSException, OSError, EOFError) as error:
                trouble = error
        kind = "in time" if isinstance(trouble, dns.exception.Timeout) else "properly"
        detail = (
            f" ({trouble.strerror})" if isinstance(trouble, OSError) and trouble.strerror else ""
        )
        raise SolverNotReady(f"{self._who} does not answer {kind}{detail}") from trouble

    def _exchange_with(
        self, address: str, message: dns.message.Message, timeout: float
    ) -> dns.message.Message:
        """By UDP for half the *timeout*; truncated or lost, by TCP for the rest."""
        end = time.monotonic() + timeout
        try:
            return dns.query.udp(
                message,
                address,
                timeout / 2,
                self.port,
                ignore_unexpected=True,
                raise_on_truncation=True,
            )
        except (dns.message.Truncated, dns.exception.Timeout):
            return dns.query.tcp(message, address, max(end - time.monotonic(), 0.1), self.port)

    @property
    def _key_name(self) -> str:
        return self.key.name if self.key else "(none)"


def _read(key: TsigKey) -> _Key:
    """The key with its secret; PermanentError, without a word of the content, if it has none."""
    try:
        text = key.secret_file.read_text(encoding="ascii")
        secret = base64.b64decode("".join(text.split()), validate=True)
    except (OSError, UnicodeDecodeError, binascii.Error) as error:
        # From None: an error of decoding carries what it could not decode.
        raise PermanentError(
            f"the file that tsigSecretFile names cannot be read ({type(error).__name__}): it must "
            "be there and hold the TSIG secret in base64, and nothing else"
        ) from None
    if not secret:
        raise PermanentError(
            "the file that tsigSecretFile names is empty: put the TSIG secret in it, in base64"
        )
    return _Key(key.name, secret, key.algorithm)


def _alias(response: dns.message.Message, owner: dns.name.Name) -> dns.name.Name | None:
    rrset = response.get_rrset(response.answer, owner, dns.rdataclass.IN, dns.rdatatype.CNAME)
    return None if rrset is None else cast(CNAME, rrset[0]).target


def _txt(value: str) -> TXT:
    return TXT(dns.rdataclass.IN, dns.rdatatype.TXT, [value.encode("ascii")])


def _text(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True)


def build(settings: Mapping[str, object]) -> Rfc2136:
    """
    Build it from the keys in ``docs/dns/rfc2136.md``; ConfigurationError names a wrong one.

    The secret's file is not opened: it may be mounted later.
    """
    options = Options(settings, "rfc2136")
    server = options.required("server")
    port = options.integer("port", 53, least=1, most=65535)
    zone = options.text("zone")
    if zone is not None:
        try:
            dns.name.from_text(zone)
        except dns.exception.DNSException:
            raise options.error("zone", f"{zone!r} is not the name of a zone") from None
    name = options.text("tsigKeyName")
    algorithm = (options.text("tsigAlgorithm") or "hmac-sha256").lower().rstrip(".")
    if algorithm not in _ALGORITHMS:
        raise options.error(
            "tsigAlgorithm", f"{algorithm!r} is not one of {', '.join(_ALGORITHMS)}"
        )
    secret_file = options.text("tsigSecretFile")
    if name is not None and secret_file is None:
        raise options.error("tsigSecretFile", "a key needs the file with its secret")
    if secret_file is not None and name is None:
        raise options.error("tsigKeyName", "a secret needs the name of its key")
    ttl = options.integer("ttl", 60, least=0, most=86400)
    timeout = options.number("timeoutSeconds", 5.0, least=0.1, most=60.0)
    options.finish()
    key = TsigKey(name, algorithm, Path(secret_file)) if name and secret_file else None
    return Rfc2136(server, port, zone, key, ttl, timeout)
