"""When listeners may be changed: cron's fields, in the time zone of those who watch them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from certbaton.errors import ConfigurationError
from certbaton.model import RolloutWindow
from certbaton.windows import check, opens_at

HOUR = timedelta(hours=1)
BERLIN = "Europe/Berlin"


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@dataclass(frozen=True)
class Case:
    """*opens* is when the next window opens; None: one is open."""

    windows: list[RolloutWindow]
    now: str
    opens: str | None


NIGHTLY = RolloutWindow("0 2 * * *", 2 * HOUR)
IN_BERLIN = RolloutWindow("30 2 * * *", HOUR, BERLIN)
LATE = RolloutWindow("0 23 * * *", 3 * HOUR)

# 2027-03-01 is a Monday; in Berlin clocks go forward on 2027-03-28, and back on 2027-10-31
CASES: dict[str, Case] = {
    "no windows at all": Case([], "2027-03-01 12:00", None),
    "before it": Case([NIGHTLY], "2027-03-01 01:59:59.999999", "2027-03-01 02:00"),
    "its first moment": Case([NIGHTLY], "2027-03-01 02:00", None),
    "its last moment": Case([NIGHTLY], "2027-03-01 03:59:59.999999", None),
    "its end": Case([NIGHTLY], "2027-03-01 04:00", "2027-03-02 02:00"),
    "over midnight": Case([LATE], "2027-03-02 01:59", None),
    "the first of two that overlap": Case([NIGHTLY, LATE], "2027-03-01 22:00", "2027-03-01 23:00"),
    "between two that overlap": Case([LATE, NIGHTLY], "2027-03-02 02:00", None),
    "shorter than its own step": Case(
        [RolloutWindow("*/30 * * * *", timedelta(minutes=10))],
        "2027-03-01 12:15",
        "2027-03-01 12:30",
    ),
    "longer than its own step: always open": Case(
        [RolloutWindow("0 * * * *", 2 * HOUR)], "2027-03-01 12:15", None
    ),
    # time zones
    "in winter": Case([IN_BERLIN], "2027-03-01 01:29", "2027-03-01 01:30"),
    "in summer": Case([IN_BERLIN], "2027-07-01 00:29", "2027-07-01 00:30"),
    "in summer, where winter would open it": Case(
        [IN_BERLIN], "2027-07-01 01:30", "2027-07-02 00:30"
    ),
    "an hour that the clocks leave out": Case([IN_BERLIN], "2027-03-28 00:45", "2027-03-28 01:30"),
    "the day after": Case([IN_BERLIN], "2027-03-28 02:30", "2027-03-29 00:30"),
    "an hour that comes twice": Case([IN_BERLIN], "2027-10-31 00:30", None),
    "the date there counts, not ours": Case(
        [RolloutWindow("0 1 2 * *", HOUR, "Asia/Tokyo")], "2027-03-01 12:00", "2027-03-01 16:00"
    ),
    # days of the week, as cron counts them
    "Sunday is 0": Case([RolloutWindow("0 2 * * 0", HOUR)], "2027-03-01 12:00", "2027-03-07 02:00"),
    "Sunday is 7": Case([RolloutWindow("0 2 * * 7", HOUR)], "2027-03-01 12:00", "2027-03-07 02:00"),
    "Sunday is sun": Case(
        [RolloutWindow("0 2 * * SUN", HOUR)], "2027-03-01 12:00", "2027-03-07 02:00"
    ),
    "Monday to Friday, on a Friday": Case(
        [RolloutWindow("0 2 * * 1-5", HOUR)], "2027-03-05 12:00", "2027-03-08 02:00"
    ),
    "Monday to Friday, on a Sunday": Case(
        [RolloutWindow("0 2 * * mon-fri", HOUR)], "2027-03-07 12:00", "2027-03-08 02:00"
    ),
    "Friday to Sunday": Case(
        [RolloutWindow("0 2 * * 5-7", HOUR)], "2027-03-03 12:00", "2027-03-05 02:00"
    ),
    "every second day from Monday on": Case(
        [RolloutWindow("0 2 * * 1/2", HOUR)], "2027-03-01 12:00", "2027-03-03 02:00"
    ),
    "every second day is Sunday, Tuesday, Thursday, Saturday": Case(
        [RolloutWindow("0 2 * * */2", HOUR)], "2027-03-01 12:00", "2027-03-02 02:00"
    ),
    "every second day, on a Saturday: the next is Sunday": Case(
        [RolloutWindow("0 2 * * */2", HOUR)], "2027-03-06 12:00", "2027-03-07 02:00"
    ),
    "every third day of a range": Case(
        [RolloutWindow("0 2 * * 1-6/3", HOUR)], "2027-03-01 12:00", "2027-03-04 02:00"
    ),
    "every second day of a range by names": Case(
        [RolloutWindow("0 2 * * mon-fri/2", HOUR)], "2027-03-01 12:00", "2027-03-03 02:00"
    ),
    "Sunday to Tuesday by names": Case(
        [RolloutWindow("0 2 * * sun-tue", HOUR)], "2027-03-03 12:00", "2027-03-07 02:00"
    ),
    "Saturday and Sunday by names": Case(
        [RolloutWindow("0 2 * * Sat-Sun", HOUR)], "2027-03-06 12:00", "2027-03-07 02:00"
    ),
    "a name and a number": Case(
        [RolloutWindow("0 2 * * sun,3", HOUR)], "2027-03-01 12:00", "2027-03-03 02:00"
    ),
    "days of the month count as cron does": Case(
        [RolloutWindow("0 2 */2 * *", HOUR)], "2027-03-01 12:00", "2027-03-03 02:00"
    ),
    "Tuesday and Saturday": Case(
        [RolloutWindow("0 2 * * 2,6", HOUR)], "2027-03-03 12:00", "2027-03-06 02:00"
    ),
    # it never comes again, but something has to be said
    "never": Case([RolloutWindow("0 2 31 2 *", HOUR)], "2027-03-01 12:00", "2027-03-02 12:00"),
    "never, and another": Case(
        [RolloutWindow("0 2 31 2 *", HOUR), NIGHTLY], "2027-03-01 12:00", "2027-03-02 02:00"
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_when_a_window_opens(case: Case) -> None:
    """None while one is open."""
    expected = utc(case.opens) if case.opens else None
    assert opens_at(case.windows, utc(case.now)) == expected


@pytest.mark.parametrize("window", [NIGHTLY, IN_BERLIN, RolloutWindow("0 2 29 2 *", HOUR)])
def test_a_window_that_comes_is_fine(window: RolloutWindow) -> None:
    """Be it once in four years."""
    check(window)


MISTAKES = {
    "no cron": RolloutWindow("", HOUR),
    "six fields": RolloutWindow("0 0 2 * * *", HOUR),
    "an hour that is none": RolloutWindow("0 24 * * *", HOUR),
    "a weekday that is none": RolloutWindow("0 2 * * 8", HOUR),
    "weekdays the wrong way round": RolloutWindow("0 2 * * 5-1", HOUR),
    "names the wrong way round": RolloutWindow("0 2 * * fri-mon", HOUR),
    "a day by halves": RolloutWindow("0 2 * * mo", HOUR),
    "no weekday at all": RolloutWindow("0 2 * * 1,", HOUR),
    "no step": RolloutWindow("0 2 * * 1-5/0", HOUR),
    "a zone that is none": RolloutWindow("0 2 * * *", HOUR, "Europe/Atlantis"),
    "a zone that is a path": RolloutWindow("0 2 * * *", HOUR, "../../etc/passwd"),
    "a day that never comes": RolloutWindow("0 2 31 2 *", HOUR),
}


@pytest.mark.parametrize("window", MISTAKES.values(), ids=MISTAKES)
def test_a_window_that_cannot_be_read_is_told(window: RolloutWindow) -> None:
    """In a sentence, at the start of the program."""
    with pytest.raises(ConfigurationError, match=r"is no window|never comes"):
        check(window)


@pytest.mark.parametrize("cron", ["0 2 1 * 1", "0 2 */2 * mon", "0 2 1-7 * */2"])
def test_a_day_of_the_month_and_a_weekday_are_told_apart(cron: str) -> None:
    """To cron they are the 1st or any Monday; to others, Mondays that are the 1st."""
    with pytest.raises(ConfigurationError, match="make two windows of it"):
        check(RolloutWindow(cron, HOUR))
