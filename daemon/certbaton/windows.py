"""
Rollout windows: when listeners may be changed, in the time zone of those who watch them.

A repoint is an interruption of seconds; certificates are obtained when due all
the same. Fields and names are cron's, read by APScheduler; but it counts weekdays
from Monday, where cron counts them from Sunday.
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
_NUMBERS = re.compile(r"([0-7])(?:-([0-7]))?(?:/([0-9]+))?")


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
    *others, weekdays = window.cron.split() or [""]
    cron = " ".join([*others, _as_apscheduler_counts(weekdays)])
    return CronTrigger.from_crontab(cron, timezone=ZoneInfo(window.timezone))


def _as_apscheduler_counts(weekdays: str) -> str:
    """Write cron's days of the week (0 and 7 are Sunday) as names, a range as all of its days."""
    days: list[str] = []
    for part in weekdays.split(","):
        found = _NUMBERS.fullmatch(part)
        if found is None:
            days.append(part)
            continue
        first, last, step = (int(number) if number else None for number in found.groups())
        assert first is not None  # noqa: S101 - the pattern has it
        if last is None:
            last = 6 if step else first
        if first > last or step == 0:
            raise ValueError(f"{part} is no range of weekdays")
        days += [DAYS[day % 7] for day in range(first, last + 1, step or 1)]
    return ",".join(days)
