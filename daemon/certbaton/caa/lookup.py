"""Which CAA records hold for a name: from the name upwards to the first that has any."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, cast

import dns.edns
import dns.exception
import dns.message
import dns.name
import dns.nameserver
import dns.query
import dns.rcode
import dns.rdatatype
import dns.resolver
from dns.rdtypes.ANY.CAA import CAA

from certbaton.caa.records import Found, Property

#: Seconds that a look-up of all names of a certificate may take.
DEADLINE: Final = 10.0

# One question may take half of that, one try of it less: then the next server is asked.
_QUESTION: Final = 5.0
_TRY: Final = 2.0

_AT_ONCE: Final = 8


class _Trouble(Exception):
    """Nothing is known, and why."""


def look_up(
    names: Sequence[str], resolvers: Sequence[str] = (), *, deadline: float = DEADLINE
) -> tuple[Found, ...]:
    """
    Give what holds for each of *names*, in their order; IP addresses have no CAA and are left out.

    *resolvers* are ``192.0.2.53``, ``192.0.2.53:5353``, ``2001:db8::53`` or
    ``[2001:db8::53]:5353``, and follow aliases as any resolver does; none: the system's.
    *deadline* is in seconds, for all together. Never raises: what could not be looked up says so
    in `Found.trouble`.
    """
    wanted = [name for name in dict.fromkeys(names) if not _is_address(name)]
    if not wanted:
        return ()
    try:
        asker = _Asker(_resolver(resolvers), time.monotonic() + deadline)
    except (dns.exception.DNSException, OSError, ValueError):
        source = "the configured resolvers" if resolvers else "the system's resolvers"
        return tuple(Found(name, trouble=f"{source} cannot be used") for name in wanted)
    with ThreadPoolExecutor(min(len(wanted), _AT_ONCE), "caa") as pool:
        return tuple(pool.map(asker.find, wanted))


class _Asker:
    """Asks *resolver* until the *end*; each name once, as many share the names above them."""

    def __init__(self, resolver: dns.resolver.Resolver, end: float) -> None:
        self._resolver = resolver
        self._end = end
        self._known: dict[dns.name.Name, tuple[str, tuple[Property, ...]] | str] = {}
        self._locks: dict[dns.name.Name, threading.Lock] = {}
        self._lock = threading.Lock()

    def find(self, name: str) -> Found:
        """Give the relevant record set of *name* (RFC 8659 section 3)."""
        own = name.removeprefix("*.")
        try:
            for owner in _upwards(own):
                target, records = self._records(owner)
                if records:
                    return Found(name, _text(owner), target, records)
        except _Trouble as trouble:
            # Without the name itself it is the same for all names, and told once.
            return Found(name, trouble=str(trouble).replace(f" about {own}", ""))
        except (dns.exception.DNSException, ValueError):
            return Found(name, trouble="it is not the name of a domain")
        return Found(name)

    def _records(self, owner: dns.name.Name) -> tuple[str, tuple[Property, ...]]:
        with self._lock:
            lock = self._locks.setdefault(owner, threading.Lock())
        with lock:
            if owner not in self._known:
                try:
                    self._known[owner] = self._ask(owner)
                except _Trouble as trouble:
                    self._known[owner] = str(trouble)
            known = self._known[owner]
        if isinstance(known, str):
            raise _Trouble(known)
        return known

    def _ask(self, owner: dns.name.Name) -> tuple[str, tuple[Property, ...]]:
        left = self._end - time.monotonic()
        if left <= 0:
            raise _Trouble("there was no time left for it")
        # else each question of a hundred names waits for the one that is dead
        self._resolver.nameservers = sorted(self._resolver.nameservers, key=_is_silent)
        try:
            answer = self._resolver.resolve(
                owner,
                dns.rdatatype.CAA,
                raise_on_no_answer=False,
                lifetime=min(left, _QUESTION),
                search=False,
            )
        except dns.resolver.NXDOMAIN:
            return "", ()
        except (dns.resolver.NoNameservers, dns.resolver.LifetimeTimeout) as error:
            raise _Trouble(_said(owner, error)) from error
        except (dns.exception.DNSException, OSError, EOFError, ValueError) as error:
            raise _Trouble(f"the answer about {_text(owner)} makes no sense") from error
        if answer.rrset is None:
            return "", ()
        target = "" if answer.canonical_name == owner else _text(answer.canonical_name)
        records = [cast(CAA, record) for record in answer.rrset]
        return target, tuple(
            sorted(
                (
                    Property(each.flags, each.tag.decode("ascii", "replace").lower(), each.value)
                    for each in records
                ),
                key=lambda each: (each.tag, each.value, each.flags),
            )
        )


def _upwards(name: str) -> Iterator[dns.name.Name]:
    """Give *name* and the names above it; not the root."""
    owner = dns.name.from_text(name)
    while owner != dns.name.root:
        yield owner
        owner = owner.parent()


def _said(
    owner: dns.name.Name, error: dns.resolver.NoNameservers | dns.resolver.LifetimeTimeout
) -> str:
    """Say what the last server did that was asked, in few words."""
    errors = error.kwargs.get("errors") or ()
    if not errors:
        return f"no resolver answered about {_text(owner)} in time"
    server, _, port, reason, response = errors[-1]
    address = str(server).removeprefix("Do53:").removesuffix(f"@{port}")
    who = f"resolver {address}" + ("" if port == 53 else f" port {port}")
    if isinstance(response, dns.message.Message) and response.rcode() != dns.rcode.NOERROR:
        code = dns.rcode.to_text(response.rcode())
        return f"{who} answers {code} about {_text(owner)}{_details(response)}"
    if isinstance(reason, dns.exception.Timeout):
        return f"{who} did not answer about {_text(owner)} in time"
    if isinstance(reason, OSError):
        return f"{who} cannot be reached ({reason.strerror or type(reason).__name__})"
    return (
        f"{who} answers about {_text(owner)} what cannot be read: see whether a CAA record there "
        "has a tag that is not letters and digits"
    )


def _details(response: dns.message.Message) -> str:
    """Say why, if the resolver does (RFC 8914): the codes, as the texts are anybody's."""
    codes = sorted({int(each.code) for each in response.extended_errors()})
    known = {int(each): each.name.replace("_", " ") for each in dns.edns.EDECode}
    names = [known.get(code, f"extended error {code}") for code in codes[:3]]
    return f" ({', '.join(names)})" if names else ""


def _resolver(resolvers: Sequence[str]) -> dns.resolver.Resolver:
    resolver = dns.resolver.Resolver(configure=not resolvers)
    servers = resolvers or [str(each) for each in resolver.nameservers]
    resolver.nameservers = [_Server(*_address(each)) for each in servers]
    resolver.timeout = _TRY
    resolver.use_edns(0, 0, 1232)
    return resolver


class _Server(dns.nameserver.Do53Nameserver):
    """
    dnspython's own takes an answer that cannot be read for silence, and we are to tell which.

    *silent*: it did not answer the last question.
    """

    silent = False

    def query(
        self,
        request: dns.message.QueryMessage,
        timeout: float,
        source: str | None,
        source_port: int,
        max_size: bool = False,
        one_rr_per_rrset: bool = False,
        ignore_trailing: bool = False,
    ) -> dns.message.Message:
        silent = False
        try:
            if max_size:  # dnspython's word for "by TCP"
                return dns.query.tcp(request, self.address, timeout, self.port)
            return dns.query.udp(
                request,
                self.address,
                timeout,
                self.port,
                ignore_unexpected=True,
                raise_on_truncation=True,
            )
        except dns.exception.Timeout:
            silent = True
            raise
        finally:
            self.silent = silent


def _is_silent(server: object) -> bool:
    return isinstance(server, _Server) and server.silent


def _address(written: str) -> tuple[str, int]:
    """Read an address with or without a port; ValueError where it is none."""
    address, port = written, "53"
    if written.startswith("["):
        address, _, port = written[1:].partition("]")
        port = port.removeprefix(":") or "53"
    elif written.count(":") == 1:
        address, _, port = written.partition(":")
    return str(ipaddress.ip_address(address)), int(port)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _text(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True)
