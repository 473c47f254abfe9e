"""
What Boulder does and Pebble doesn't, each of which can be switched off.

Read in Boulder's source of 2026-08-07 (`wfe2/wfe.go`, `ra/ra.go`, `sa/saro.go`). Facts on Pebble
2.10.1: it makes a new order for every newOrder, answers 409 alreadyReplaced only when the
replacing order is finalized, keeps orders for 24 h and answers for them afterwards, honours
notAfter, takes `*.w` with `a.w`, any number of names, one external account for any number of
keys, and answers 400 to a challenge that was answered before. Valid authorizations it reuses
itself, as Boulder does (PEBBLE_AUTHZREUSE); pending ones it doesn't, and nor does this.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from lab.boulder.book import Book, Order, names_in
from lab.boulder.words import Problem, Reply, Request, Wait

_WAITING = ("pending", "processing")


@dataclass
class Ways:
    """
    The switches, as Boulder has them; they may be changed at any time.

    *max_names* are the names that an order may have, *max_names_of* by profile.
    *repeated_challenge* is the status that answers a challenge's second POST, None leaves it to
    Pebble. *order_life* cuts the `expires` of orders made from then on: after it they are 404.
    *processing* is how long an order that was finalized is shown as processing.
    *retry_after* stands in answers on pending and processing orders, None for no header.
    """

    reuse_orders: bool = True
    replaced_once: bool = True
    refuse_not_after: bool = True
    refuse_overlap: bool = True
    external_account_once: bool = True
    max_names: int = 100
    max_names_of: dict[str, int] = field(default_factory=dict)
    repeated_challenge: int | None = 409
    order_life: timedelta | None = None
    processing: timedelta = timedelta(0)
    retry_after: Wait = 0


def pebbles_own() -> Ways:
    """No way of Boulder's: what Pebble does."""
    return Ways(
        reuse_orders=False,
        replaced_once=False,
        refuse_not_after=False,
        refuse_overlap=False,
        external_account_once=False,
        max_names=10_000,
        repeated_challenge=None,
    )


def refusal(ways: Ways, book: Book, request: Request) -> Problem | None:
    """What Boulder would refuse that Pebble doesn't."""
    if request.kind == "newOrder":
        return _refuse_order(ways, book, request)
    if request.kind == "newAccount" and ways.external_account_once:
        kid = external_account(request)
        if kid is not None and book.external.get(kid, request.key) != request.key:
            return Problem(403, "unauthorized", "The external account key was used before")
    now = request.at
    order, authorization = book.order_of(request), book.authorization_of(request)
    if order is not None and order.expires is not None and now >= order.expires:
        return Problem(404, "malformed", "No order for ID")
    if authorization is not None and authorization.expires and now >= authorization.expires:
        return Problem(404, "malformed", "Expired authorization")
    if request.kind == "finalize" and order is not None and book.refused(order):
        detail = 'Order\'s status ("invalid") is not acceptable for finalization'
        return Problem(403, "orderNotReady", detail)
    if (
        request.kind == "challenge"
        and request.payload is not None
        and request.url in book.answered
        and ways.repeated_challenge
    ):
        detail = "The challenge's authorization is not pending any more"
        return Problem(ways.repeated_challenge, "malformed", detail)
    return None


def _refuse_order(ways: Ways, book: Book, request: Request) -> Problem | None:
    payload: Mapping[str, Any] = request.payload or {}
    names = names_in(payload)
    if ways.refuse_not_after and (payload.get("notAfter") or payload.get("notBefore")):
        return Problem(400, "malformed", "NotBefore and NotAfter are not supported")
    most = ways.max_names_of.get(payload.get("profile") or "", ways.max_names)
    if len(names) > most:
        return Problem(400, "malformed", f"Order cannot contain more than {most} identifiers")
    if ways.refuse_overlap:
        for name in sorted(names):
            if f"*.{name.partition('.')[2]}" in names - {name}:
                detail = (
                    f'Domain name "{name}" is redundant with a wildcard domain in the same '
                    "request. Remove one or the other from the certificate request."
                )
                return Problem(400, "malformed", detail)
    replaces = payload.get("replaces")
    if ways.replaced_once and replaces and book.replacing(replaces, request.at) is not None:
        detail = (
            f'cannot indicate an order replaces certificate "{replaces}", which already has a '
            "replacement order"
        )
        return Problem(409, "alreadyReplaced", detail)
    return None


def external_account(request: Request) -> str | None:
    """The key identifier of the external account that a newAccount is bound to."""
    binding = (request.payload or {}).get("externalAccountBinding")
    if not isinstance(binding, dict):
        return None
    text = str(binding.get("protected", ""))
    header = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return str(header.get("kid"))


def show_order(ways: Ways, book: Book, order: Order, reply: Reply) -> Wait:
    """Put *order* into *reply* as Boulder would show it; the Retry-After that is due."""
    document = dict(order.document)
    if order.expires is not None:
        document["expires"] = f"{order.expires.astimezone(UTC):%FT%TZ}"
    if book.refused(order):
        document["status"] = "invalid"
    elif (
        order.finalized_at is not None
        and datetime.now(UTC) < order.finalized_at + ways.processing
        and document.get("status") in ("processing", "valid")
    ):
        document["status"] = "processing"
        document.pop("certificate", None)
    reply.write(document)
    return ways.retry_after if document.get("status") in _WAITING else None


def show_authorization(book: Book, request: Request, reply: Reply) -> None:
    """Show an authorization that the proxy refused as invalid, and when it expires."""
    authorization, document = book.authorization_of(request), reply.document()
    if authorization is None or document is None or request.kind != "authorization":
        return
    if authorization.expires is not None:
        document["expires"] = f"{authorization.expires.astimezone(UTC):%FT%TZ}"
    if authorization.refused is not None:
        document["status"] = "invalid"
        for challenge in document.get("challenges") or ():
            if challenge.get("url") in book.answered:
                challenge["status"] = "invalid"
                challenge["error"] = authorization.refused.document()
    reply.write(document)
