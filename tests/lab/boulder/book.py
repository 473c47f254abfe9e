"""What the proxy has learned from Pebble's answers: orders, authorizations, challenges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from lab.boulder.words import Problem, Reply, Request

_OPEN = ("pending", "ready")


@dataclass
class Authorization:
    """One authorization; *refused* is why it is invalid, where the proxy said so."""

    url: str
    name: str = ""
    status: str = "pending"
    challenges: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    expires: datetime | None = None
    refused: Problem | None = None
    counted: bool = False


@dataclass
class Order:
    """
    One order that was handed out; *document* is its last known state, as Pebble told it.

    *finalized_at* is when a finalize of it got through. *exempt* are the limits that it doesn't
    count against.
    """

    url: str
    account: str
    names: frozenset[str]
    profile: str | None
    replaces: str | None
    at: datetime
    document: dict[str, Any]
    expires: datetime | None = None
    exempt: frozenset[str] = frozenset()
    finalized_at: datetime | None = None

    @property
    def authorizations(self) -> list[str]:
        found = self.document.get("authorizations")
        return list(found) if isinstance(found, list) else []


@dataclass(frozen=True)
class Finalized:
    """One finalize that reached Pebble, and that Pebble took."""

    order: str
    names: tuple[str, ...]
    account: str
    at: datetime


class Book:
    """Kept under the proxy's lock."""

    def __init__(self) -> None:
        self.orders: dict[str, Order] = {}
        self.authorizations: dict[str, Authorization] = {}
        self.finalized: list[Finalized] = []
        self.answered: set[str] = set()
        # External accounts that are used up, with the key that has them.
        self.external: dict[str, str | None] = {}
        self._by_finalize: dict[str, Order] = {}
        self._by_challenge: dict[str, Authorization] = {}

    # --- looking up ------------------------------------------------------------------------

    def order_of(self, request: Request) -> Order | None:
        """The order that an order's or a finalize's request is about."""
        return self.orders.get(request.url) or self._by_finalize.get(request.url)

    def authorization_of(self, request: Request) -> Authorization | None:
        """The authorization that a request is about, or one of its challenges."""
        return self.authorizations.get(request.url) or self._by_challenge.get(request.url)

    def names_of(self, request: Request) -> frozenset[str]:
        """The names that a request is about."""
        if request.kind == "newOrder":
            return names_in(request.payload)
        if (order := self.order_of(request)) is not None:
            return order.names
        authorization = self.authorization_of(request)
        return frozenset({authorization.name}) if authorization else frozenset()

    def refused(self, order: Order) -> list[Authorization]:
        """The authorizations of *order* that the proxy has made invalid."""
        known = (self.authorizations.get(url) for url in order.authorizations)
        return [each for each in known if each is not None and each.refused is not None]

    def is_open(self, order: Order, now: datetime) -> bool:
        """Whether *order* may still be finalized, as far as was seen."""
        known = (self.authorizations.get(url) for url in order.authorizations)
        return (
            order.document.get("status") in _OPEN
            and (order.expires is None or now < order.expires)
            and all(
                each is None or (each.status in ("pending", "valid") and each.refused is None)
                for each in known
            )
        )

    def issued_before(self, names: frozenset[str]) -> bool:
        """Whether a certificate of exactly these names was ordered here before."""
        return any(order.names == names and order.finalized_at for order in self.orders.values())

    def replacing(self, certificate: str, now: datetime) -> Order | None:
        """The order that replaces the certificate of this CertID, or is about to."""
        for order in self.orders.values():
            if order.replaces == certificate and (order.finalized_at or self.is_open(order, now)):
                return order
        return None

    def identical(self, request: Request, now: datetime) -> Order | None:
        """An open order of the same account, names and profile (Boulder's GetOrderForNames)."""
        names, profile = names_in(request.payload), (request.payload or {}).get("profile")
        for order in self.orders.values():
            if (
                order.account == request.account
                and order.names == names
                and order.profile == profile
                and self.is_open(order, now)
            ):
                return order
        return None

    # --- learning --------------------------------------------------------------------------

    def new_order(self, request: Request, reply: Reply, life: timedelta | None) -> Order:
        """Know the order that Pebble has made; *life* cuts its `expires`."""
        document = reply.document() or {}
        payload = request.payload or {}
        order = Order(
            url=reply.get("Location") or "",
            account=request.account or "",
            names=names_in(payload),
            profile=payload.get("profile"),
            replaces=payload.get("replaces"),
            at=request.at,
            document=document,
            expires=moment(document.get("expires")) if life is None else request.at + life,
        )
        self.orders[order.url] = order
        self._by_finalize[str(document.get("finalize"))] = order
        for url in order.authorizations:
            expires = None if life is None else order.expires
            self.authorizations.setdefault(url, Authorization(url, expires=expires))
        return order

    def learn(self, request: Request, reply: Reply) -> None:
        """Take from Pebble's answer what there is to know."""
        document = reply.document()
        if reply.status != 200 or document is None:
            return
        order, authorization = self.order_of(request), self.authorization_of(request)
        if request.kind in ("order", "finalize") and order is not None:
            order.document = document
            if request.kind == "finalize":
                order.finalized_at = order.finalized_at or request.at
                names = tuple(sorted(order.names))
                self.finalized.append(Finalized(order.url, names, order.account, request.at))
        elif request.kind == "challenge":
            if request.payload is not None:
                self.answered.add(request.url)
        elif authorization is not None:
            self._learn_authorization(authorization, document)

    def _learn_authorization(
        self, authorization: Authorization, document: Mapping[str, Any]
    ) -> None:
        identifier = document.get("identifier")
        name = str((identifier or {}).get("value", "")).lower()
        if document.get("wildcard") is True and not name.startswith("*."):
            name = f"*.{name}"
        authorization.name = name
        authorization.status = str(document.get("status"))
        if authorization.status == "valid":
            authorization.expires = None  # it is reused for longer than any order lives
        for challenge in document.get("challenges") or ():
            authorization.challenges[challenge["url"]] = challenge
            self._by_challenge[challenge["url"]] = authorization


def names_in(payload: Mapping[str, Any] | None) -> frozenset[str]:
    """The names of a newOrder, in lower case."""
    identifiers = (payload or {}).get("identifiers")
    return frozenset(_values(identifiers if isinstance(identifiers, list) else ()))


def _values(identifiers: Iterable[Any]) -> Iterable[str]:
    for each in identifiers:
        if isinstance(each, dict):
            yield str(each.get("value", "")).lower()


def moment(text: object) -> datetime | None:
    """RFC 3339 as aware UTC; None for anything else."""
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return at.astimezone(UTC) if at.tzinfo else None
