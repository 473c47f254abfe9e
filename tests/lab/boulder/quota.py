"""
What counts against which of Let's Encrypt's limits, and what is exempt.

A renewal with `replaces`, inside the window of its predecessor's renewal information, is exempt
from all but the requests a second. Names of which there was a certificate before are exempt
from the orders of an account and the certificates of a domain.
"""

from __future__ import annotations

from lab.boulder import limits
from lab.boulder.advice import Window
from lab.boulder.book import Authorization, Book, Order, names_in
from lab.boulder.limits import Limits
from lab.boulder.words import Problem, Reply, Request

_HERE = "127.0.0.1"


class Quota:
    """Kept under the proxy's lock."""

    def __init__(self, buckets: Limits, book: Book) -> None:
        self._limits, self._book = buckets, book
        self._keys: set[str | None] = set()
        self._spent: set[str] = set()

    def refusal(self, request: Request, window: Window) -> Problem | None:
        """A refusal if *request* is one too many; otherwise it is counted."""
        refused = self._limits.request(request.kind, _HERE)
        if refused is not None:
            return refused
        if request.kind == "newAccount" and request.key not in self._keys:
            return self._limits.check((limits.NEW_ACCOUNTS, _HERE))
        if request.kind == "newOrder":
            return self._new_order(request, window)
        return None

    def exempt(self, request: Request, window: Window) -> frozenset[str]:
        """The limits that an order does not count against."""
        if window is not None and window[0] <= request.at < window[1]:
            return limits.ALL_BUT_REQUESTS
        if self._book.issued_before(names_in(request.payload)):
            return frozenset({limits.NEW_ORDERS, limits.PER_DOMAIN})
        return frozenset()

    def learn(self, request: Request, reply: Reply) -> None:
        """Spend what was used, now that Pebble has answered."""
        if request.kind == "newAccount" and reply.status == 201:
            self._keys.add(request.key)
            self._limits.spend((limits.NEW_ACCOUNTS, _HERE))
        if request.kind == "finalize" and reply.status == 200:
            order = self._book.order_of(request)
            if order is not None and order.url not in self._spent:
                self._spent.add(order.url)
                self._certificate(order)
        authorization = self._book.authorization_of(request)
        if authorization is not None and authorization.status == "invalid":
            self.failed(authorization, request.account)

    def failed(self, authorization: Authorization, account: str | None) -> None:
        """Count a failed validation, once."""
        if not authorization.counted:
            authorization.counted = True
            self._limits.spend(
                (limits.FAILED, f"{authorization.name.removeprefix('*.')} on {account}")
            )

    def _new_order(self, request: Request, window: Window) -> Problem | None:
        exempt, names = self.exempt(request, window), names_in(request.payload)
        wanted = [
            (limits.FAILED, f"{name.removeprefix('*.')} on {request.account}")
            for name in sorted(names)
        ]
        wanted += [(limits.NEW_ORDERS, str(request.account)), *self._of(names)]
        wanted = [each for each in wanted if each[0] not in exempt]
        refused = self._limits.check(*wanted)
        if refused is None:
            self._limits.spend(*(each for each in wanted if each[0] == limits.NEW_ORDERS))
        return refused

    def _certificate(self, order: Order) -> None:
        self._limits.spend(*(each for each in self._of(order.names) if each[0] not in order.exempt))

    @staticmethod
    def _of(names: frozenset[str]) -> list[tuple[str, str]]:
        domains = [(limits.PER_DOMAIN, each) for each in limits.registered_domains(names)]
        return [*domains, (limits.PER_SET, limits.exact_set(names))]
