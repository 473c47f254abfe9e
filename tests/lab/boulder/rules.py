"""Faults on demand: which requests they happen to, how often, and what they do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lab.boulder.words import Problem, Reply, Request, Wait

ANY = "*"
UNPAUSE = "https://portal.letsencrypt.org/sfe/v1/unpause?jwt=lab"
TERMS = "https://letsencrypt.org/documents/LE-SA-lab.pdf"
_PADDING = b" "


@dataclass(eq=False)
class Rule:
    """
    One fault: it happens to *times* requests of *kind* (None: to all), after *skip* others.

    *name* and *account* restrict it further. `hits` is how often it happened; `stop` ends it.
    One of *problem*, *bad_nonce*, *cut* = "before" keeps the request from Pebble; the others
    change Pebble's answer on its way back.
    """

    kind: str
    times: int | None = 1
    skip: int = 0
    name: str | None = None
    account: str | None = None
    problem: Problem | None = None
    page: bytes | None = None
    bad_nonce: bool = False
    cut: Literal["", "before", "after"] = ""
    headers: Mapping[str, str | None] = field(default_factory=dict)
    retry_after: Wait = None
    edit: Callable[[dict[str, Any]], object] | None = None
    body: bytes | None = None
    trickle: float = 0.0
    pad: int = 0
    hits: int = 0

    @property
    def keeps_away(self) -> bool:
        """Whether Pebble never sees the request."""
        return self.problem is not None or self.bad_nonce or self.cut == "before"

    def stop(self) -> None:
        """Let it happen no more."""
        self.times = self.hits

    def change(self, reply: Reply) -> None:
        """Do to Pebble's answer what there is to do."""
        if self.edit is not None and (document := reply.document()) is not None:
            self.edit(document)
            reply.write(document)
        if self.body is not None:
            reply.body = self.body
        for name, value in self.headers.items():
            reply.header(name, value)
        reply.body += _PADDING * self.pad
        reply.trickle = max(reply.trickle, self.trickle)
        reply.cut = reply.cut or self.cut == "after"


class Rules:
    """All rules, in the order in which they were made; the first that keeps away is the last."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self._lock = threading.Lock()

    def add(self, rule: Rule) -> Rule:
        """Let *rule* happen from now on."""
        with self._lock:
            self._rules.append(rule)
        return rule

    def clear(self) -> None:
        """Let none happen any more."""
        with self._lock:
            self._rules.clear()

    def take(self, request: Request, names: frozenset[str]) -> list[Rule]:
        """The rules that happen to *request*, which is about *names*."""
        taken: list[Rule] = []
        with self._lock:
            for rule in self._rules:
                if not _meets(rule, request, names):
                    continue
                if rule.skip > 0:
                    rule.skip -= 1
                    continue
                rule.hits += 1
                taken.append(rule)
                if rule.keeps_away:
                    break
        return taken


def _meets(rule: Rule, request: Request, names: frozenset[str]) -> bool:
    return (
        rule.kind in (ANY, request.kind)
        and (rule.times is None or rule.hits < rule.times)
        and (rule.name is None or rule.name in names)
        and (rule.account is None or rule.account == request.account)
    )


def paused(name: str) -> Problem:
    """Let's Encrypt's refusal of a paused name: no Retry-After, and where to lift it."""
    detail = (
        "Your account is temporarily prevented from requesting certificates for "
        f"{name} and possibly others. Please visit: {UNPAUSE}"
    )
    return Problem(429, "rateLimited", detail)


def terms_changed() -> Problem:
    """RFC 8555 section 7.3.3: new terms to agree to, with their address in a Link."""
    return Problem(
        403,
        "userActionRequired",
        "The terms of service have changed",
        headers={"Link": f'<{TERMS}>;rel="terms-of-service"'},
    )
