"""
Rollout windows: when listeners may be changed, in the time zone of those who watch them.

A repoint is an interruption of seconds; certificates are obtained when due all
the same. Fields and names are cron's, read by APScheduler; but it counts weekdays
from Monday, where cron counts them from Sunday, so they are passed on day by day.
And where cron means either by a day of the month and a weekday, it means both: that
is refused, since two windows say it without any doubt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from apscheduler.triggers.cron import CronTrigger

from certbaton.errors import ConfigurationError
from certbaton.model import RolloutWindow

DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_DAY = f"[0-7]|{'|'.join(DAYS)}"
_PART = re.compile(rf"(?:(\*)|({_DAY})(?:-({_DAY}))?)(?:/([0-9]+))?", re.IGNORECASE)


def opens_at(windows: Sequence[RolloutWindow], now: datetime) -> datetime | None:
    """
    Say when the next of *windows* opens; None while one is open, or where there are none.

    *now* is aware. A window that never comes again is left out.
    """
    if not windows:
        return None
    openings: list[datetime] = []
    for window in windows:
        trigger = _trigger(window)
        began = trigger.get_next_fire_time(None, now - window.duration + timedelta(microseconds=1))
        if began is not None and began <= now:
            return None
        if began is not None:
            openings.append(began.astimezone(UTC))
    return min(openings, default=now + timedelta(days=1))


def check(window: RolloutWindow) -> None:
    """Raise ConfigurationError where *window* cannot be read, or never comes."""
    try:
        trigger = _trigger(window)
    except (ValueError, KeyError, OSError) as exc:
        raise ConfigurationError(
            f"{window.cron!r} in time zone {window.timezone!r} is no window: {exc}; write five "
            "fields as cron does (minute hour day month weekday), and a zone such as Europe/Berlin"
        ) from None
    if trigger.get_next_fire_time(None, datetime(2026, 1, 1, tzinfo=UTC)) is None:
        raise ConfigurationError(f"{window.cron!r} never comes")


def _trigger(window: RolloutWindow) -> CronTrigger:
    fields = window.cron.split()
    if len(fields) == 5:
        *others, weekdays = fields
        if weekdays != "*" and others[2] != "*":
            raise ValueError(
                f"day {others[2]} and weekday {weekdays} in one line are either of them to cron, "
                "and both to others; make two windows of it"
            )
        fields = [*others, _as_apscheduler_counts(weekdays)]
    return CronTrigger.from_crontab(" ".join(fields), timezone=ZoneInfo(window.timezone))


def _as_apscheduler_counts(weekdays: str) -> str:
    """Write cron's days of the week (0 and 7 are Sunday) as names, a range as all of its days."""
    if weekdays == "*":
        return weekdays
    found: set[int] = set()
    for part in weekdays.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise ValueError(f"{part} is no weekday")
        every, first, last, step = match.groups()
        begin = 0 if every else _number(first)
        end = 6 if every or (step and last is None) else _number(last or first)
        if last is not None and end == 0:
            end = 7  # until Sunday
        if begin > end or step == "0":
            raise ValueError(f"{part} is no range of weekdays")
        found |= {day % 7 for day in range(begin, end + 1, int(step or 1))}
    return ",".join(DAYS[day] for day in sorted(found))


def _number(day: str) -> int:
    return int(day) if day.isdigit() else DAYS.index(day.lower())
