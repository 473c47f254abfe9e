"""What a person sees of the demo: plain lines, colour on a terminal only, NO_COLOR honoured."""

from __future__ import annotations

import os
import textwrap
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:  # the screen is there before the lab's imports are through
    from lab.timeline import Moment, Rollover

_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_KINDS = {
    "due": "yellow",
    "issued": "",
    "stored": "",
    "repointed": "",
    "served": "green",
    "counted": "dim",
    "marked": "dim",
    "collected": "cyan",
    "trouble": "red",
}
_WIDTH = 100


class Screen:
    """Writes to *out*; seconds are counted from *began* (of ``time.time``)."""

    def __init__(self, out: TextIO, began: float) -> None:
        self._out = out
        self._began = began
        self._colour = out.isatty() and not os.environ.get("NO_COLOR")

    def note(self, text: str = "", style: str = "", indent: int = 0) -> None:
        """A paragraph, wrapped."""
        lead = " " * indent
        lines = textwrap.wrap(
            text,
            _WIDTH,
            initial_indent=lead,
            subsequent_indent=lead,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in lines or [""]:
            self._write(self._styled(line, style))

    def heading(self, text: str) -> None:
        """A line that begins a part."""
        self.note()
        self.note(text, "bold")

    def step(self, text: str, style: str = "", at: datetime | None = None) -> None:
        """One line of the timeline, now or of *at*."""
        seconds = (at.timestamp() if at else time.time()) - self._began
        self._write(f"{seconds:7.1f} s  {self._styled(text, style)}")

    def moment(self, moment: Moment) -> None:
        """One moment of a rollover as a line of the timeline."""
        subject = moment.rollover.service if moment.rollover else moment.certificate
        text = f"{subject:<12} {sentence(moment)}"
        self.step(text, _KINDS[moment.kind.value], moment.at)

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Columns, numbers to the right (all but the first two)."""
        widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
        for number, row in enumerate((head, *rows)):
            cells = [
                cell.ljust(width) if i < 2 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            self._write("  " + self._styled("  ".join(cells).rstrip(), "dim" if not number else ""))

    def _styled(self, text: str, style: str) -> str:
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if style and self._colour else text

    def _write(self, line: str) -> None:
        print(line, file=self._out, flush=True)


def sentence(moment: Moment) -> str:
    """The moment in words."""
    version, rollover = moment.version, moment.rollover
    match moment.kind.value:
        case "due":
            return "renewal is due" if version else f"due: {moment.text}"
        case "issued":
            return "issued by the CA"
        case "stored" if version:
            count = (
                "" if version.acme_requests is None else f" ({version.acme_requests} CA requests)"
            )
            return f"downloaded{count}; Secret {version.name} written"
        case "repointed" if version:
            return f"Service repointed to {version.name}"
        case "served" if rollover:
            return f"first handshake with the new leaf {_after(rollover)}{_gap(rollover)}"
        case "counted" if rollover:
            verbs = ", ".join(f"{n} {verb}" for verb, n in rollover.api_requests.items())
            total = sum(rollover.api_requests.values())
            return f"noted by the daemon; {total} API requests since due ({verbs})"
        case "marked" if version:
            return f"old Secret {version.name} marked: its retention is over"
        case "collected" if version:
            return f"old Secret {version.name} collected: no Service names it"
    return moment.text


def _after(rollover: Rollover) -> str:
    seconds = rollover.due_to_served_s
    return "" if seconds is None else f"{seconds:.1f} s after due; "


def _gap(rollover: Rollover) -> str:
    if rollover.from_secret is None:
        return "no interruption (no listener before)"
    if rollover.interruption_ms is None:
        return "interruption unknown"
    return f"interruption {rollover.interruption_ms:.0f} ms"


def span(seconds: float) -> str:
    """A length of time, roughly."""
    whole = round(seconds)
    return f"{whole} s" if whole < 90 else f"{whole // 60} min {whole % 60} s"


def until(at: datetime) -> str:
    """How long it is until *at*."""
    return span(max(timedelta(0), at - datetime.now(UTC)).total_seconds())
