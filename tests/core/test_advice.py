"""Renewal information: when it moves a renewal, when it doesn't, and when it is asked for."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from certbaton.core.advice import due, moment_in, poll_pause, trouble_pause
from certbaton.core.renewal import dangerous_time, renewal_time
from certbaton.model import (
    CaTrouble,
    CertificateSpec,
    CheckRenewalInfo,
    IssuerSpec,
    Journal,
    Leaf,
    OrderRecord,
    Plan,
    Reason,
    RenewalCheck,
    RenewalInfo,
    SecretVersion,
    StageOrder,
    Wait,
    WaitKind,
)
from core.build import (
    ACCOUNT_URL,
    DAY,
    DIRECTORY,
    HOUR,
    MINUTE,
    NAMES,
    NOW,
    POLICY,
    SECOND,
    SHOP,
    There,
    a_failure,
    a_leaf,
    a_pending,
    a_service,
    a_snapshot,
    a_spec,
    a_version,
    kinds,
    planned,
)

URL = "https://ca.example/incident"
PAST = (NOW - 2 * HOUR, NOW - HOUR)
LIFETIMES = [MINUTE, 160 * HOUR, 45 * DAY, 90 * DAY]


def leaf_of(version: SecretVersion) -> Leaf:
    assert version.leaf is not None
    return version.leaf


def rule(version: SecretVersion) -> datetime:
    return renewal_time("shop", leaf_of(version), POLICY)


def at(version: SecretVersion, spec: CertificateSpec | None = None) -> datetime:
    """When *version* is due, all else being well."""
    return due(spec or a_spec(), version, a_snapshot(version), POLICY, NOW).at


def on(version: SecretVersion) -> There:
    return a_service(names=version)


def advised(*ago: timedelta, names: tuple[str, ...] = NAMES) -> list[OrderRecord]:
    return [OrderRecord(NOW - each, DIRECTORY, names, advised=True) for each in ago]


# --- the moment ---------------------------------------------------------------------------------


@pytest.mark.parametrize("lasts", LIFETIMES, ids=str)
def test_the_moment_lies_in_the_window_and_is_the_same_for_ever(lasts: timedelta) -> None:
    """By certificate, leaf and window: drawn again it could keep landing in the future."""
    info = RenewalInfo(NOW + lasts / 5, NOW + lasts / 4)
    leaf = a_leaf(begins=NOW, lasts=lasts)
    moment = moment_in("shop", leaf, info)
    assert info.start <= moment < info.end
    assert moment == moment_in("shop", leaf, replace(info, fetched_at=NOW, explanation_url=URL))
    others = {
        moment_in("blog", leaf, info),
        moment_in("shop", a_leaf("another", begins=NOW, lasts=lasts), info),
        moment_in("shop", leaf, replace(info, end=info.end + SECOND)),
    }
    assert moment not in others and len(others) == 3


def test_a_fleet_is_spread_over_the_whole_window() -> None:
    """Not bunched at either end."""
    info = RenewalInfo(NOW, NOW + DAY)
    drawn = [(moment_in(f"c{n}", a_leaf(), info) - NOW) / DAY for n in range(200)]
    assert min(drawn) < 0.03 and max(drawn) > 0.97


def test_the_time_zone_of_a_window_is_no_part_of_it() -> None:
    """A CA may write the same window in another one."""
    tokyo = timezone(9 * HOUR)
    here = RenewalInfo(NOW, NOW + DAY)
    there = RenewalInfo(here.start.astimezone(tokyo), here.end.astimezone(tokyo))
    assert moment_in("shop", a_leaf(), here) == moment_in("shop", a_leaf(), there)


@pytest.mark.parametrize("lasts", LIFETIMES, ids=str)
def test_a_window_moves_the_renewal_either_way(lasts: timedelta) -> None:
    """Earlier or later than two thirds, as the CA says."""
    for part in (0.2, 0.9):
        start = NOW + lasts * part
        version = a_version(begins=NOW, lasts=lasts, window=(start, start + lasts / 100))
        assert start <= at(version) < start + lasts / 100


@pytest.mark.parametrize("lasts", LIFETIMES, ids=str)
def test_never_later_than_dangerously_late(lasts: timedelta) -> None:
    """With a twentieth of its life left no CA's word holds a renewal back."""
    version = a_version(begins=NOW, lasts=lasts, window=(NOW + lasts * 2, NOW + lasts * 3))
    assert at(version) == dangerous_time(leaf_of(version), POLICY) == NOW + lasts * 0.95


USELESS = {
    "there is none": None,
    "its end is its start": (NOW, NOW),
    "its end is before its start": (NOW + 80 * DAY, NOW + 79 * DAY),
}


@pytest.mark.parametrize("window", USELESS.values(), ids=USELESS)
def test_without_a_window_of_use_the_time_rule_counts(
    window: tuple[datetime, datetime] | None,
) -> None:
    """Never later, never sooner."""
    version = a_version(window=window, ari_id="x")
    assert at(version) == rule(version)


def test_a_window_that_nobody_is_to_follow_counts_for_nothing() -> None:
    """``renewalInfo: false``, though an earlier setting left it on the version."""
    version = a_version(window=PAST)
    ignoring = a_spec(issuer=IssuerSpec("ca", DIRECTORY, renewal_info=False))
    assert at(version, ignoring) == rule(version)
    found = planned(a_snapshot(version, services=[on(version)]), ignoring)
    assert kinds(found.actions) == [] and not any("asked for" in wait.what for wait in found.waits)


def test_after_a_look_of_no_use_the_earlier_of_both_counts() -> None:
    """The window may have changed meanwhile, for all we know."""
    late = a_version("late", window=(NOW + 50 * DAY, NOW + 51 * DAY))
    early = a_version("early", window=(NOW + DAY, NOW + 2 * DAY))
    for version, expected in ((late, rule(late)), (early, at(early))):
        checks = {version.ref: RenewalCheck(NOW + HOUR, "HTTP 500", 1)}
        snapshot = a_snapshot(version, renewal_checks=checks)
        assert due(a_spec(), version, snapshot, POLICY, NOW).at == expected
        checks = {version.ref: RenewalCheck(NOW + HOUR)}
        snapshot = a_snapshot(version, renewal_checks=checks)
        assert due(a_spec(), version, snapshot, POLICY, NOW).at == at(version)


def test_the_wake_up_is_the_moment_itself() -> None:
    """Let's Encrypt's window for a certificate of 160 hours is three hours wide."""
    version = a_version(window=(NOW + HOUR, NOW + 4 * HOUR), served={SHOP: "wire"})
    found = planned(a_snapshot(version, services=[on(version)]))
    assert Wait(f"{version.ref} is due for renewal", at(version), WaitKind.LATER) in found.waits
    moment = at(version)
    before = planned(a_snapshot(version, services=[on(version)]), now=moment - SECOND)
    assert "StageOrder" not in kinds(before.actions)
    after = planned(a_snapshot(version, services=[on(version)]), now=moment)
    assert "StageOrder" in kinds(after.actions) and after.due == moment


# --- a window in the past ------------------------------------------------------------------------


def staged(found: Plan) -> StageOrder:
    (action,) = [action for action in found.actions if isinstance(action, StageOrder)]
    return action


def test_a_window_in_the_past_is_acted_on_at_once() -> None:
    """It is advised, and says where the CA explains itself."""
    version = a_version(window=RenewalInfo(*PAST, URL), served={SHOP: "wire"})
    found = planned(a_snapshot(version, services=[on(version)]))
    action = staged(found)
    assert (action.reason, action.advised) == (Reason.RENEWING, True)
    assert "the CA asks for" in action.why and URL in action.why
    assert any(URL in note for note in found.notes)


def test_the_back_off_after_a_failure_holds_all_the_same() -> None:
    """RFC 9773 section 4.2: advice says when to renew, not how often to try."""
    version = a_version(window=PAST, served={SHOP: "wire"})
    failed = Journal(failures={DIRECTORY: a_failure(retry_at=NOW + MINUTE)})
    world = a_snapshot(version, services=[on(version)], journal=failed)
    found = planned(world)
    assert "StageOrder" not in kinds(found.actions)
    assert [wait.until for wait in found.waits if wait.kind is WaitKind.BACK_OFF] == [NOW + MINUTE]
    assert staged(planned(world, now=NOW + MINUTE)).advised


def test_the_explanation_is_told_while_nothing_is_due() -> None:
    """As long as the version is the one that listeners are to serve."""
    window = RenewalInfo(NOW + DAY, NOW + 2 * DAY, URL)
    version = a_version(window=window, served={SHOP: "wire"})
    found = planned(a_snapshot(version, services=[on(version)]))
    assert [note for note in found.notes if URL in note] and "StageOrder" not in kinds(
        found.actions
    )
    newer = a_version("newer", begins=NOW - HOUR, served={SHOP: "wire"})
    found = planned(a_snapshot(version, newer, services=[on(newer)]))
    assert not [note for note in found.notes if URL in note]


RECENT: dict[str, tuple[list[OrderRecord], timedelta | None]] = {
    "none": ([], None),
    "one": (advised(HOUR), None),
    "two: when the first is a day old": (advised(HOUR, 3 * HOUR), 21 * HOUR),
    "three: when the second is": (advised(HOUR, 3 * HOUR, 4 * HOUR), 21 * HOUR),
    "two, one of them a day ago": (advised(HOUR, DAY), None),
    "two for other names": (advised(HOUR, 3 * HOUR, names=NAMES[:1]), None),
    "two that nobody advised": (
        [OrderRecord(NOW - HOUR, DIRECTORY, NAMES)] * 2,
        None,
    ),
}


@pytest.mark.parametrize(("records", "pause"), RECENT.values(), ids=RECENT)
def test_twice_a_day_at_most(records: list[OrderRecord], pause: timedelta | None) -> None:
    """A CA that wants every new certificate renewed at once doesn't make us order without end."""
    version = a_version(begins=NOW - MINUTE, window=PAST, served={SHOP: "wire"})
    policy = replace(POLICY, order_limit=10)
    found = planned(a_snapshot(version, services=[on(version)], issued=records), policy=policy)
    if pause is None:
        assert staged(found).advised
        return
    assert "StageOrder" not in kinds(found.actions)
    (wait,) = [wait for wait in found.waits if "is due for renewal" in wait.what]
    assert wait.until == NOW + pause
    later = planned(
        a_snapshot(version, services=[on(version)], issued=records), policy=policy, now=wait.until
    )
    assert staged(later).advised


def test_the_time_rule_holds_beyond_that() -> None:
    """What is due by its age is renewed, however often advice was followed; it isn't advised."""
    version = a_version(begins=NOW - 61 * DAY, window=PAST, served={SHOP: "wire"})
    records = advised(HOUR, 3 * HOUR)
    found = planned(a_snapshot(version, services=[on(version)], issued=records))
    assert not staged(found).advised


def test_of_a_short_life_two_in_one_lifetime() -> None:
    """Nothing is counted in days: an hour's certificate is advised twice an hour."""
    version = a_version(begins=NOW - SECOND, lasts=HOUR, window=PAST)
    snapshot = a_snapshot(version, issued=advised(MINUTE, 30 * MINUTE))
    assert due(a_spec(), version, snapshot, POLICY, NOW).at == rule(version)
    snapshot = a_snapshot(version, issued=advised(MINUTE, 59 * MINUTE))
    assert due(a_spec(), version, snapshot, POLICY, NOW).at == NOW + MINUTE


def test_records_bear_the_api_servers_time() -> None:
    """Which may be ahead of ours."""
    version = a_version(begins=NOW - MINUTE, window=PAST)
    records = [replace(each, at=each.at + 2 * MINUTE) for each in advised(HOUR, 3 * HOUR)]
    snapshot = replace(a_snapshot(version, issued=records), clock_apart=2 * MINUTE)
    assert due(a_spec(), version, snapshot, POLICY, NOW).at == NOW + 21 * HOUR


@pytest.mark.parametrize("lasts", LIFETIMES, ids=str)
def test_a_ca_that_never_has_enough_gets_two_orders_a_day(lasts: timedelta) -> None:
    """Every new certificate has its window in the past; between those, the time rule."""
    day = min(DAY, lasts)
    policy = replace(POLICY, order_limit=1000)
    records: list[OrderRecord] = []
    now, number = NOW, 0
    version = a_version("first", begins=NOW, lasts=lasts, window=(NOW - HOUR, NOW - MINUTE))
    while now < NOW + 6 * day:
        found = planned(a_snapshot(version, issued=records), policy=policy, now=now)
        for action in found.actions:
            if isinstance(action, StageOrder):
                number += 1
                records.append(OrderRecord(now, DIRECTORY, NAMES, action.advised))
                window = (now - HOUR, now - MINUTE)
                version = a_version(f"v{number}", begins=now, lasts=lasts, window=window)
        now += day / 60
    times = [record.at for record in records if record.advised]
    assert len(times) >= 10, "and it is asked as often as it may"
    for first in times:
        assert sum(first <= each < first + day for each in times) <= 2


# --- asking -------------------------------------------------------------------------------------


POLLS: dict[str, tuple[timedelta | None, timedelta, timedelta]] = {
    "as the CA says": (6 * HOUR, 90 * DAY, 6 * HOUR),
    "at least a minute": (SECOND, 90 * DAY, MINUTE),
    "at most a day": (30 * DAY, 90 * DAY, DAY),
    "at most a twentieth of its life": (DAY, 160 * HOUR, 8 * HOUR),
    "absent: six hours": (None, 90 * DAY, 6 * HOUR),
    "absent, a short life": (None, 20 * HOUR, HOUR),
    "a life of a minute": (6 * HOUR, MINUTE, 3 * SECOND),
    "a life of a minute, and at once": (SECOND, MINUTE, 3 * SECOND),
}


@pytest.mark.parametrize(("said", "lasts", "pause"), POLLS.values(), ids=POLLS)
def test_how_often_it_is_asked_for(
    said: timedelta | None, lasts: timedelta, pause: timedelta
) -> None:
    """By Retry-After, within bounds."""
    assert poll_pause(said, lasts, POLICY) == pause


def test_after_trouble() -> None:
    """What may pass by itself is tried soon, twice as late each time; the rest in six hours."""
    pauses = [trouble_pause(n, 90 * DAY, POLICY, temporary=True) for n in range(1, 12)]
    assert pauses == [*(MINUTE * 2**n for n in range(9)), 6 * HOUR, 6 * HOUR]
    assert trouble_pause(1, 90 * DAY, POLICY, temporary=False) == 6 * HOUR
    assert trouble_pause(1, MINUTE, POLICY, temporary=True) == 3 * SECOND
    assert trouble_pause(10**9, 90 * DAY, POLICY, temporary=True) == 6 * HOUR


FRESH = a_version("fresh", begins=NOW - HOUR, served={SHOP: "wire"}, ari_id="aki.serial")


def checked(found: Plan) -> list[str]:
    return [a.version.ref.name for a in found.actions if isinstance(a, CheckRenewalInfo)]


def test_a_new_process_asks_at_once() -> None:
    """Nothing is known of when it was asked last; nothing else is held up by it."""
    found = planned(a_snapshot(FRESH, services=[on(FRESH)]))
    (action,) = found.actions
    assert isinstance(action, CheckRenewalInfo)
    assert (action.version, action.issuer) == (FRESH, a_spec().issuer)


def test_then_when_it_is_time() -> None:
    """At the very moment, which is a wait."""
    checks = {FRESH.ref: RenewalCheck(NOW + HOUR)}
    world = a_snapshot(FRESH, services=[on(FRESH)], renewal_checks=checks)
    found = planned(world)
    assert found.actions == ()
    (wait,) = [wait for wait in found.waits if "is asked for" in wait.what]
    assert (wait.until, wait.kind) == (NOW + HOUR, WaitKind.LATER)
    assert checked(planned(world, now=NOW + HOUR)) == ["fresh"]


def test_it_is_the_last_thing_that_is_done() -> None:
    """A rollout, and an order, come first."""
    old = a_version("old", begins=NOW - 70 * DAY, ari_id="x")
    found = planned(a_snapshot(old, services=[a_service()]))
    assert kinds(found.actions) == ["Repoint", "StageOrder", "CheckRenewalInfo"]


UNASKED: dict[str, Plan] = {
    "a paused certificate": planned(a_snapshot(FRESH, services=[on(FRESH)]), a_spec(paused=True)),
    "a certificate that left the configuration": planned(
        a_snapshot(FRESH, services=[on(FRESH)]), configured=False
    ),
    "a leaf without an identifier": planned(
        a_snapshot(a_version(served={SHOP: "wire"}), services=[on(a_version())])
    ),
    "without an account key": planned(a_snapshot(FRESH, services=[on(FRESH)], account=None)),
    "one of a CA that is not configured": planned(
        a_snapshot(replace(FRESH, directory="https://other.example/d"), services=[on(FRESH)])
    ),
    "one that is dangerously late": planned(
        a_snapshot(FRESH, services=[on(FRESH)]), now=NOW + 86 * DAY
    ),
    "one that is revoked": planned(
        a_snapshot(a_version(revoked="superseded", ari_id="x"), services=[on(FRESH)])
    ),
}


@pytest.mark.parametrize("found", UNASKED.values(), ids=UNASKED)
def test_nobody_is_asked_about(found: Plan) -> None:
    """Where the answer would change nothing, or cannot be had."""
    assert checked(found) == []


def test_of_a_superseded_version_nobody_asks() -> None:
    """Only of the wanted one, and of one that is named since it is valid longer."""
    older = a_version("older", begins=NOW - 30 * DAY, served={SHOP: "wire"}, ari_id="x")
    short = replace(FRESH, leaf=a_leaf("short", begins=NOW - HOUR, lasts=6 * DAY, ari_id="y"))
    assert checked(planned(a_snapshot(older, FRESH, services=[on(FRESH)]))) == ["fresh"]
    assert checked(planned(a_snapshot(older, short, services=[on(older)]))) == ["fresh", "older"]


def test_a_ca_that_does_not_answer_is_left_alone_with_this_too() -> None:
    """After its pause it is asked, whoever probes: advice is a look, no order."""
    away = CaTrouble(1, NOW, NOW, "connection refused", probing="blog")
    world = a_snapshot(FRESH, services=[on(FRESH)], ca_troubles={DIRECTORY: away})
    found = planned(world)
    assert checked(found) == []
    assert [w.until for w in found.waits if "is asked for" in w.what] == [NOW + MINUTE]
    assert checked(planned(world, now=NOW + MINUTE)) == ["fresh"]


def test_while_an_order_is_open_it_is_asked_for_all_the_same() -> None:
    """After the order."""
    pending = a_pending(account_url=ACCOUNT_URL)
    found = planned(
        replace(
            a_snapshot(FRESH, services=[on(FRESH)]),
            journal=Journal(pending=pending),
        )
    )
    assert kinds(found.actions) == ["AdvanceOrder", "CheckRenewalInfo"]
