"""What happens to one request: rules, Boulder's refusals, Pebble's answer, and how it is shown."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from lab.boulder import ways as manners
from lab.boulder.advice import Window, window_in
from lab.boulder.book import Book
from lab.boulder.faults import Faults
from lab.boulder.limits import Limits
from lab.boulder.quota import Quota
from lab.boulder.rules import Rule
from lab.boulder.ways import Ways
from lab.boulder.wire import Upstream
from lab.boulder.words import After, Problem, Reply, Request, Wait

_PROBLEM = "application/problem+json"
_RENEWAL_INFO = "/draft-ietf-acme-ari-03/renewalInfo/"


@dataclass(frozen=True)
class Seen:
    """One request as it was answered; *status* is 0 where the client got nothing."""

    at: datetime
    kind: str
    account: str | None
    status: int
    reached_pebble: bool
    names: tuple[str, ...] = ()


class Desk:
    """Answers requests, and keeps what was seen; `faults.lock` guards all that changes."""

    def __init__(self, upstream: Upstream, faults: Faults, ways: Ways, limits: Limits) -> None:
        self.ways = ways
        self.book = Book()
        self.seen: list[Seen] = []
        self._upstream, self._faults, self._lock = upstream, faults, faults.lock
        self._quota = Quota(limits, self.book)
        self._one_order = threading.Lock()

    def handle(self, request: Request) -> Reply:
        """The answer to *request*."""
        with self._lock:
            names = self.book.names_of(request)
        taken = self._faults.rules.take(request, names)
        reached = False
        try:
            # Of two orders at a time the second is to see the first: reuse, replaces, limits.
            with self._one_order if request.kind == "newOrder" else contextlib.nullcontext():
                reply, reached = self._meet(request, taken)
        except (OSError, http.client.HTTPException):
            reply = Reply(0, cut=True)  # Pebble is away
        for rule in taken:
            if not rule.keeps_away:
                rule.change(reply)
        self._stamp(reply, _first(rule.retry_after for rule in taken))
        seen = Seen(
            request.at,
            request.kind,
            request.account,
            0 if reply.cut else reply.status,
            reached,
            tuple(sorted(names)),
        )
        with self._lock:
            self.seen.append(seen)
        return reply

    def _meet(self, request: Request, taken: Sequence[Rule]) -> tuple[Reply, bool]:
        """The answer, before it is changed, and whether Pebble was asked."""
        away = next((rule for rule in taken if rule.keeps_away), None)
        if away is not None and away.cut:
            return Reply(0, cut=True), False
        if away is not None and away.bad_nonce:
            return self._refuse(
                request, Problem(400, "badNonce", "JWS has an invalid nonce")
            ), False
        if away is not None and away.problem is not None:
            return self._refuse(request, away.problem, away.page), False
        window = self._window(request)
        with self._lock:
            problem = manners.refusal(self.ways, self.book, request)
            if problem is None:
                problem = self._quota.refusal(request, window)
            if problem is None and request.kind == "challenge":
                refused = self._refused_challenge(request)
                if refused is not None:
                    self._nonce(request, refused)
                    return refused, False
        if problem is not None:
            return self._refuse(request, problem), False
        reply = self._upstream.ask(request.method, request.path, request.headers, request.body)
        with self._lock:
            self._pass(request, reply, window)
        return reply, True

    def _pass(self, request: Request, reply: Reply, window: Window) -> None:
        """Learn from Pebble's answer, and show it as Boulder would."""
        book = self.book
        if request.kind == "newAccount" and reply.status == 201:
            kid = manners.external_account(request)
            if kid is not None:
                book.external[kid] = request.key
        elif request.kind == "newOrder" and reply.status == 201:
            self._order(request, reply, window)
        elif request.kind == "renewalInfo" and reply.status == 200:
            self._faults.advice.write(reply, datetime.now(UTC), self._render)
        book.learn(request, reply)
        self._quota.learn(request, reply)
        manners.show_authorization(book, request, reply)
        order = book.order_of(request)
        if order is not None and reply.status == 200 and request.kind in ("order", "finalize"):
            wait = manners.show_order(self.ways, book, order, reply)
            reply.header("Retry-After", self._render(wait))

    def _order(self, request: Request, reply: Reply, window: Window) -> None:
        order = None
        if self.ways.reuse_orders:
            # Pebble has made one more, of which nobody will hear.
            order = self.book.identical(request, request.at)
        if order is None:
            order = self.book.new_order(request, reply, self.ways.order_life)
            order.exempt = self._quota.exempt(request, window)
        reply.header("Location", order.url)
        manners.show_order(self.ways, self.book, order, reply)

    def _refused_challenge(self, request: Request) -> Reply | None:
        """Pebble is not asked to validate what is to fail; the order stays pending there."""
        authorization = self.book.authorization_of(request)
        if authorization is None or request.payload is None:
            return None
        problem = self._faults.take_refusal(authorization.name)
        if problem is None:
            return None
        authorization.refused = problem
        self._quota.failed(authorization, request.account)
        self.book.answered.add(request.url)
        reply = Reply(200, {"Content-Type": "application/json"})
        reply.header("Link", f'<{authorization.url}>;rel="up"')
        reply.write({**authorization.challenges[request.url], "status": "processing"})
        return reply

    def _refuse(self, request: Request, problem: Problem, page: bytes | None = None) -> Reply:
        reply = Reply(problem.status, {"Content-Type": _PROBLEM, **problem.headers})
        reply.write(problem.document())
        if page is not None:
            reply.body = page
            reply.header("Content-Type", "text/html")
        reply.header("Retry-After", self._render(problem.retry_after))
        self._nonce(request, reply)
        return reply

    def _nonce(self, request: Request, reply: Reply) -> None:
        """A nonce for an answer that isn't Pebble's; none where Pebble is away."""
        if request.method == "POST":
            headers = {"Host": request.headers.get("Host", ""), "User-Agent": "lab"}
            try:
                fresh = self._upstream.ask("HEAD", "/nonce-plz", headers, b"")
            except (OSError, http.client.HTTPException):
                return
            reply.header("Replay-Nonce", fresh.get("Replay-Nonce"))

    def _stamp(self, reply: Reply, wait: Wait) -> None:
        reply.header("Date", After(0).render(self._now()))
        if wait is not None:
            reply.header("Retry-After", self._render(wait))

    def _now(self) -> datetime:
        return datetime.now(UTC) + self._faults.date_off

    def _render(self, wait: Wait) -> str | None:
        return wait.render(self._now()) if isinstance(wait, After) else _text(wait)

    def _window(self, request: Request) -> Window:
        """The renewal window of what an order replaces, as clients see it."""
        replaces = (request.payload or {}).get("replaces")
        if request.kind != "newOrder" or not replaces:
            return None
        headers = {"Host": request.headers.get("Host", ""), "User-Agent": "lab"}
        reply = self._upstream.ask("GET", f"{_RENEWAL_INFO}{replaces}", headers, b"")
        if reply.status == 200:
            self._faults.advice.write(reply, datetime.now(UTC), self._render)
        return window_in(reply)


def _first(waits: Iterable[Wait]) -> Wait:
    return next((wait for wait in waits if wait is not None), None)


def _text(wait: int | None) -> str | None:
    return None if wait is None else str(wait)
