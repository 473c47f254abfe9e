"""The proxy itself: it listens, and tells what it has seen."""

from __future__ import annotations

import ssl
import threading
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self

from lab.boulder.book import Finalized, Order
from lab.boulder.desk import Desk, Seen
from lab.boulder.faults import Faults
from lab.boulder.limits import Hit, Limits
from lab.boulder.ways import Ways
from lab.boulder.wire import Listener, Upstream
from lab.certs import Authority
from lab.pebble import Pebble
from lab.process import free_ports
from lab.server import Server

HOST = "127.0.0.1"


class LimitHit(AssertionError):
    """A limit of the CA's was hit in a test that didn't want it to be."""


class Boulder(Faults, Server):
    """
    Pebble with Boulder's manners; see the package for what it does.

    *ways* are the switches (default: as Boulder), *limits* the buckets. Leaving the block raises
    LimitHit when one of the limits was hit, unless *may_hit_limits*.
    """

    def __init__(
        self,
        pebble: Pebble,
        folder: Path | None = None,
        *,
        ways: Ways | None = None,
        limits: Limits | None = None,
        may_hit_limits: bool = False,
    ) -> None:
        Faults.__init__(self)
        Server.__init__(self, folder)
        self.pebble = pebble
        self.limits = limits or Limits()
        self.may_hit_limits = may_hit_limits
        authority = Authority(self.folder / "pki", "boulder-https-ca")
        certificate, key = authority.issue("boulder", hosts=(HOST, "localhost"))
        self.ca_file = authority.file
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(certificate, key)
        host, _, rest = pebble.directory.removeprefix("https://").partition(":")
        trusting = ssl.create_default_context(cafile=str(pebble.ca_file))
        upstream = Upstream((host, int(rest.partition("/")[0])), trusting)
        self._desk = Desk(upstream, self, ways or Ways(), self.limits)
        (self._port,) = free_ports(1)
        self._closed = threading.Event()
        self._listener: Listener | None = None

    @property
    def ways(self) -> Ways:
        """The switches, to be changed at any time."""
        return self._desk.ways

    @property
    def directory(self) -> str:
        """The directory's URL, for an IssuerSpec."""
        return f"https://{HOST}:{self._port}/dir"

    @property
    def ca_bundle(self) -> str:
        """The file with the root that clients are to trust."""
        return str(self.ca_file)

    def start(self) -> Self:
        """Listen."""
        self._listener = Listener((HOST, self._port), self._tls, self._desk.handle, self._closed)
        threading.Thread(
            target=self._listener.serve_forever, args=(0.05,), name="lab-boulder", daemon=True
        ).start()
        return self

    def stop(self) -> None:
        """Listen no more."""
        self._closed.set()
        if self._listener is not None:
            self._listener.shutdown()
            self._listener.server_close()
            self._listener = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        if error is None and not self.may_hit_limits:
            self.check_limits()

    @property
    def limits_hit(self) -> list[Hit]:
        """The refusals for a limit of Let's Encrypt's."""
        with self.lock:
            return list(self.limits.hits)

    def check_limits(self) -> None:
        """Raise LimitHit if a limit was hit."""
        if hits := self.limits_hit:
            told = ", ".join(f"{hit.limit} for {hit.what}" for hit in hits[:5])
            raise LimitHit(f"{len(hits)} requests hit a limit of the CA's: {told}")

    def seen(self, kind: str | None = None, account: str | None = None) -> list[Seen]:
        """The requests so far, in the order of their answers."""
        with self.lock:
            return [
                each
                for each in self._desk.seen
                if kind in (None, each.kind) and account in (None, each.account)
            ]

    def counts(self, account: str | None = None) -> Counter[str]:
        """How many requests there were, by kind."""
        return Counter(each.kind for each in self.seen(account=account))

    @property
    def finalized(self) -> list[Finalized]:
        """Every finalize that reached Pebble and that it took, whether or not the answer came."""
        with self.lock:
            return list(self._desk.book.finalized)

    def orders(self, account: str | None = None) -> list[Order]:
        """The orders that were handed out, each once."""
        with self.lock:
            known = self._desk.book.orders.values()
            return [each for each in known if account in (None, each.account)]

    def certificates_issued(self) -> int:
        """How many certificates Pebble signed, through the proxy or past it."""
        return self.pebble.certificates_issued()
