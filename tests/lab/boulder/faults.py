"""The calls with which a test lets things go wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

from lab.boulder import rules
from lab.boulder.advice import Advice
from lab.boulder.rules import ANY, Rule, Rules
from lab.boulder.words import Problem, Wait


class Faults:
    """
    What goes wrong; nothing at first.

    `date_off` is added to the Date of every answer. Kinds of requests are those of `Request`.
    """

    def __init__(self) -> None:
        self.date_off = timedelta(0)
        self.lock = threading.RLock()
        self.rules = Rules()
        self.advice = Advice()
        self._refused: dict[str, tuple[Problem, int | None]] = {}

    def answer(
        self,
        kind: str,
        status: int = 503,
        type: str = "serverInternal",
        detail: str = "injected by the lab",
        *,
        retry_after: Wait = None,
        headers: Mapping[str, str] | None = None,
        subproblems: Sequence[Mapping[str, Any]] = (),
        page: bytes | None = None,
        times: int | None = 1,
        skip: int = 0,
        name: str | None = None,
        account: str | None = None,
    ) -> Rule:
        """
        Refuse *times* requests of *kind* ("*": of any) in Pebble's place.

        With a problem document, or with *page* as some front end would.
        """
        problem = Problem(
            status, type, detail, retry_after, dict(headers or {}), tuple(subproblems)
        )
        return self.rules.add(Rule(kind, times, skip, name, account, problem=problem, page=page))

    def cut(
        self,
        kind: str,
        when: Literal["before", "after"],
        *,
        times: int | None = 1,
        skip: int = 0,
        name: str | None = None,
    ) -> Rule:
        """Reset the connection *before* Pebble sees the request, or *after* it has answered."""
        return self.rules.add(Rule(kind, times, skip, name, cut=when))

    def bad_nonce(self, kind: str, *, times: int | None = 1) -> Rule:
        """Answer badNonce, with a fresh nonce."""
        return self.rules.add(Rule(kind, times, bad_nonce=True))

    def rewrite(
        self,
        kind: str,
        edit: Callable[[dict[str, Any]], object] | None = None,
        *,
        headers: Mapping[str, str | None] | None = None,
        retry_after: Wait = None,
        body: bytes | None = None,
        trickle: float = 0.0,
        pad: int = 0,
        times: int | None = 1,
        skip: int = 0,
        name: str | None = None,
    ) -> Rule:
        """
        Change Pebble's answers: *edit* the document in place, set *headers* (None: take away).

        *body* replaces it all; *pad* makes it so many bytes longer; *trickle* is the seconds that
        each byte takes.
        """
        return self.rules.add(
            Rule(
                kind, times, skip, name, headers=dict(headers or {}), retry_after=retry_after,
                edit=edit, body=body, trickle=trickle, pad=pad,
            )
        )  # fmt: skip

    def pause(self, name: str, *, times: int | None = None) -> Rule:
        """Refuse orders with *name* as paused: rateLimited without Retry-After, with a URL."""
        problem = rules.paused(name)
        return self.rules.add(Rule("newOrder", times, name=name, problem=problem))

    def change_terms(self, kind: str = ANY, *, times: int | None = None) -> Rule:
        """Refuse signed requests with userActionRequired and a Link to new terms."""
        return self.rules.add(Rule(kind, times, problem=rules.terms_changed()))

    def refuse(
        self,
        name: str,
        type: str = "caa",
        detail: str = "CAA record for this name prevents issuance",
        *,
        times: int | None = None,
    ) -> None:
        """
        Let the next *times* validations of *name* ("*.a" for a wildcard) fail (None: all).

        Its authorization and the orders with it become invalid when the challenge is answered.
        """
        problem = Problem(403, type, detail)
        with self.lock:
            self._refused[name] = (problem, times)

    def advise(
        self,
        window: str | tuple[datetime, datetime] | None = None,
        *,
        retry_after: Wait = None,
        explanation: str | None = None,
    ) -> None:
        """
        Answer this renewal information for every certificate that Pebble knows.

        *window* is "past" (LE's in a mass revocation: an hour to half an hour ago), "future" (in
        a month), "reversed" (it ends before it starts), "malformed" (no JSON), "empty" (without
        a window), "absent" (404), or start and end; None gives Pebble's own. Alone *retry_after*
        and *explanation* change Pebble's answer.
        """
        with self.lock:
            self.advice = Advice(window, retry_after, explanation)

    def calm(self) -> None:
        """End all faults; the ways stay."""
        self.rules.clear()
        with self.lock:
            self._refused.clear()
            self.advice = Advice()
            self.date_off = timedelta(0)

    def take_refusal(self, name: str) -> Problem | None:
        """Why the validation of *name* that is due now fails; None if it doesn't."""
        with self.lock:
            problem, times = self._refused.get(name, (None, None))
            if problem is None or times == 0:
                return None
            if times is not None:
                self._refused[name] = problem, times - 1
            return problem
