"""
A name server for fast tests: authoritative zones in memory, RFC 2136 updates, TSIG.

The provider's contract runs on it and on Knot, which keeps it honest.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import dns.tsig
import dns.update

IN = dns.rdataclass.IN
SOA, TXT, CNAME, NS = (
    dns.rdatatype.SOA,
    dns.rdatatype.TXT,
    dns.rdatatype.CNAME,
    dns.rdatatype.NS,
)


class NameServer:
    """
    Serves *zones* on a port of 127.0.0.1, by UDP and TCP; updates need *key* if there is one.

    What it does wrong on demand: *silent_udp*, *silent_tcp* (no answer), *truncates* (every
    answer by UDP), *rcode* (to everything), *tsig_error* (to every update), *unsigned* (a
    refusal of every update).
    """

    def __init__(self, *zones: str, key: dns.tsig.Key | None = None) -> None:
        self.key = key
        self.records: dict[dns.name.Name, dict[int, dns.rrset.RRset]] = {}
        self.zones = [dns.name.from_text(zone) for zone in zones]
        for zone in zones:
            self.add(zone, SOA, f"ns.{zone}. admin.{zone}. 1 3600 600 86400 60")
        self.silent_udp = self.silent_tcp = self.truncates = self.unsigned = False
        self.rcode: dns.rcode.Rcode | None = None
        self.tsig_error = 0
        self.by: list[str] = []
        self._lock = threading.Lock()
        self._udp, self._tcp = _sockets()
        self.port = self._udp.getsockname()[1]

    def add(self, name: str, kind: dns.rdatatype.RdataType, text: str) -> None:
        """Add a record."""
        rrset = dns.rrset.from_text(dns.name.from_text(name), 60, IN, kind, text)
        for rdata in rrset:
            self._at(rrset.name, kind).add(rdata)

    def txt(self, name: str) -> list[str]:
        """The TXT values at *name*, sorted."""
        rrset = self.records.get(dns.name.from_text(name), {}).get(TXT)
        return sorted(b"".join(rdata.strings).decode() for rdata in rrset or ())

    @contextmanager
    def running(self) -> Iterator[NameServer]:
        """Answer until the block ends."""
        threads = [threading.Thread(target=loop) for loop in (self._udp_loop, self._tcp_loop)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            for sock in (self._udp, self._tcp):
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
                waker.sendto(b"", ("127.0.0.1", self.port))
            for thread in threads:
                thread.join()
            self._udp.close()
            self._tcp.close()

    def _at(self, name: dns.name.Name, kind: int) -> dns.rrset.RRset:
        kinds = self.records.setdefault(name, {})
        if kind not in kinds:
            kinds[kind] = dns.rrset.RRset(name, IN, dns.rdatatype.RdataType(kind))
        return kinds[kind]

    def _udp_loop(self) -> None:
        while True:
            try:
                wire, peer = self._udp.recvfrom(65535)
            except OSError:
                return
            if not wire:
                return
            if not self.silent_udp:
                self._udp.sendto(self._answer(wire, "udp"), peer)

    def _tcp_loop(self) -> None:
        while True:
            try:
                sock, _ = self._tcp.accept()
            except OSError:
                return
            with sock, suppress(OSError, struct.error):
                sock.settimeout(5)
                (length,) = struct.unpack("!H", sock.recv(2))
                wire = sock.recv(length)
                if not self.silent_tcp:
                    answer = self._answer(wire, "tcp")
                    sock.sendall(struct.pack("!H", len(answer)) + answer)

    def _answer(self, wire: bytes, by: str) -> bytes:
        self.by.append(by)
        keyring = {self.key.name: self.key} if self.key else {}
        try:
            query = dns.message.from_wire(wire, keyring=keyring)
        except dns.message.UnknownTSIGKey:
            return self._tsig_refusal(wire, dns.rcode.BADKEY)
        except dns.tsig.BadSignature:
            return self._tsig_refusal(wire, dns.rcode.BADSIG)
        if self.tsig_error and query.had_tsig:
            return self._tsig_refusal(wire, self.tsig_error)
        response = dns.message.make_response(query)
        if self.unsigned:
            response.tsig, response.want_tsig_sign = None, False
        with self._lock:
            if self.rcode is not None:
                response.set_rcode(self.rcode)
            elif self.unsigned and query.had_tsig:
                response.set_rcode(dns.rcode.REFUSED)
            elif query.opcode() == dns.opcode.UPDATE:
                response.set_rcode(self._change(cast(dns.update.UpdateMessage, query)))
            else:
                self._look_up(query, response)
        if self.truncates and by == "udp":
            response.flags |= dns.flags.TC
        return response.to_wire()

    def _tsig_refusal(self, wire: bytes, error: int) -> bytes:
        query = dns.message.from_wire(wire, keyring=False)
        assert query.tsig is not None
        response = dns.message.make_response(query)
        response.set_rcode(dns.rcode.NOTAUTH)
        response.use_tsig(dns.tsig.Key(query.tsig.name, b"none"), tsig_error=error)
        response.request_mac = query.mac or b""
        return response.to_wire()

    def _change(self, update: dns.update.UpdateMessage) -> dns.rcode.Rcode:
        if self.key is not None and not update.had_tsig:
            return dns.rcode.REFUSED
        if update.zone[0].name not in self.zones:
            return dns.rcode.NOTAUTH
        for rrset in update.update:
            here = self._at(rrset.name, rrset.rdtype)
            for rdata in rrset:
                if rrset.deleting == dns.rdataclass.NONE:
                    here.discard(rdata)  # type: ignore[no-untyped-call]
                else:
                    here.add(rdata)
            if not here:
                del self.records[rrset.name][rrset.rdtype]
                if not self.records[rrset.name]:
                    del self.records[rrset.name]
        return dns.rcode.NOERROR

    def _look_up(self, query: dns.message.Message, response: dns.message.Message) -> None:
        name, kind = query.question[0].name, query.question[0].rdtype
        zone = self._zone(name)
        if zone is None:
            response.set_rcode(dns.rcode.REFUSED)
            return
        cut = self._cut(name, zone)
        if cut is not None:
            response.authority.append(self.records[cut][NS])
            return
        response.flags |= dns.flags.AA
        seen = set()
        while zone is not None and name not in seen and CNAME in self.records.get(name, {}):
            seen.add(name)
            response.answer.append(self.records[name][CNAME])
            name = self.records[name][CNAME][0].target
            zone = self._zone(name) or zone
        found = self.records.get(name, {}).get(kind)
        if found:
            response.answer.append(found)
        elif zone is not None and name.is_subdomain(zone):
            response.authority.append(self.records[zone][SOA])
            if not any(other.is_subdomain(name) for other in self.records):
                response.set_rcode(dns.rcode.NXDOMAIN)

    def _zone(self, name: dns.name.Name) -> dns.name.Name | None:
        fitting = [zone for zone in self.zones if name.is_subdomain(zone)]
        return max(fitting, key=len, default=None)

    def _cut(self, name: dns.name.Name, zone: dns.name.Name) -> dns.name.Name | None:
        for other, kinds in self.records.items():
            if other != zone and NS in kinds and name.is_subdomain(other):
                return other
        return None


def _sockets() -> tuple[socket.socket, socket.socket]:
    """One port for both protocols."""
    while True:
        tcp = socket.create_server(("127.0.0.1", 0))
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            udp.bind(tcp.getsockname())
        except OSError:
            tcp.close()
            udp.close()
        else:
            return udp, tcp
