"""Renewal information (RFC 9773) other than Pebble's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from lab.boulder.book import moment
from lab.boulder.words import Reply, Wait

Window = tuple[datetime, datetime] | None
_HOUR = timedelta(hours=1)
_MONTH = timedelta(days=30)


@dataclass(frozen=True)
class Advice:
    """What to answer for every certificate that Pebble knows; as it is: Pebble's own answer."""

    window: str | tuple[datetime, datetime] | None = None
    retry_after: Wait = None
    explanation: str | None = None

    def write(self, reply: Reply, now: datetime, render: Callable[[Wait], str | None]) -> None:
        """Change *reply*, which is Pebble's answer of 200."""
        if self.retry_after is not None:
            reply.header("Retry-After", render(self.retry_after))
        if self.window == "malformed":
            reply.body = b'{"suggestedWindow": {"start": "soon", "end":'
            return
        if self.window == "absent":
            reply.status = 404
            reply.header("Retry-After", None)
            reply.write({"type": "urn:ietf:params:acme:error:malformed", "detail": "No such"})
            return
        document = reply.document() or {}
        if self.window == "empty":
            document.pop("suggestedWindow", None)
        elif self.window is not None:
            start, end = self._at(now)
            document["suggestedWindow"] = {"start": start.isoformat(), "end": end.isoformat()}
        if self.explanation is not None:
            document["explanationURL"] = self.explanation
        if self.window is not None or self.explanation is not None:
            reply.write(document)

    def _at(self, now: datetime) -> tuple[datetime, datetime]:
        if isinstance(self.window, tuple):
            return self.window
        return {
            "past": (now - _HOUR, now - _HOUR / 2),
            "future": (now + _MONTH, now + _MONTH + _HOUR),
            "reversed": (now + _HOUR, now - _HOUR),
        }[str(self.window)]


def window_in(reply: Reply) -> Window:
    """The window of an answer; None where there is none that makes sense."""
    window = (reply.document() or {}).get("suggestedWindow")
    if reply.status != 200 or not isinstance(window, dict):
        return None
    start, end = moment(window.get("start")), moment(window.get("end"))
    return None if start is None or end is None or end <= start else (start, end)
