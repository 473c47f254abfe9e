"""The soak's judge, judged: what it must find, and what it must let pass."""

from __future__ import annotations

from soak.judge import (
    Effect,
    Order,
    Run,
    Signed,
    Version,
    Window,
    collected,
    expired,
    false_rejections,
    outside,
    spans,
    unwanted,
    wasted,
)

HERE, THERE = "alpha/solo", "beta/other"
LIFE_S = 120


def version(number: int, issued: float, **more: object) -> Version:
    """A version that lives 120 s: due after half of it, late with 20 s left, and D is 12 s."""
    until = issued + LIFE_S
    found = Version("solo", f"solo-{number}", f"leaf{number}", number, issued, until, issued)
    for name, value in more.items():
        setattr(found, name, value)
    return found


def delay(begin: float, end: float, *services: str, kind: str = "oci-429") -> Window:
    """A fault of the place, at *services* or everywhere."""
    return Window(kind, begin, end, Effect.DELAYS, frozenset(services) or None)


def stop(begin: float, end: float, service: str) -> Window:
    return Window("listener-stuck", begin, end, Effect.STOPS, frozenset({service}))


def waste(
    *versions: Version,
    windows: tuple[Window, ...] = (),
    signed: tuple[Signed, ...] = (),
    forgot: tuple[float, ...] = (),
    orders: dict[str, Order] | None = None,
) -> list[str]:
    all_signed = [*signed, *(Signed(one.serial, one.issued) for one in versions)]
    return wasted(["solo"], versions, all_signed, windows, forgot, orders or {})


# What a fault covers


def test_a_fault_covers_the_services_that_it_touches_and_a_round_more() -> None:
    windows = [delay(10, 20, HERE), Window("api", 0, 100)]
    assert spans(windows, {HERE}, (Effect.DELAYS,)) == [(10, 23)]
    assert spans(windows, {THERE}, (Effect.DELAYS,)) == []
    assert outside(0, 30, [(10, 23)]) == 17
    assert outside(12, 18, [(10, 23)]) == 0


def test_where_the_controller_was_in_a_back_off_its_fault_is_over_later() -> None:
    """There, and nowhere else."""
    window = Window("oci-500", 10, 20, Effect.DELAYS, over={HERE: 31.0})
    assert (window.until(HERE), window.until(THERE)) == (31, 23)


# The newest good version


def test_the_longest_time_without_the_newest_version() -> None:
    """From its being stored until it is seen; a short relapse counts for itself."""
    versions = [version(1, 0), version(2, 60)]
    runs = [
        Run("leaf1", 3, 63),
        Run(None, 63.2, 64),
        Run("leaf2", 65, 90),
        Run("leaf1", 90, 92),
        Run("leaf2", 92, 99),
    ]
    assert unwanted(HERE, versions, runs, []) == (5, 60)
    refused = [versions[0], version(2, 60, refused=True)]
    assert unwanted(HERE, refused, [Run("leaf1", 3, 99)], []) == (3, 0)


def test_a_fault_elsewhere_is_no_reason_to_lack_it() -> None:
    """Only where Services are handed over one after the other."""
    versions = [version(1, 0), version(2, 60)]
    runs = [Run("leaf1", 0, 90), Run("leaf2", 90, 99)]
    fault = delay(60, 90, THERE)
    assert unwanted(HERE, versions, runs, [fault]) == (30, 60)
    assert unwanted(HERE, versions, runs, [fault], {THERE}) == (0, 60)
    assert unwanted(HERE, versions, runs, [delay(60, 90, HERE)]) == (0, 60)


def test_what_was_there_does_not_go_away_because_a_change_is_delayed() -> None:
    """Where the listener itself was stopped, or an old sync brought the old back, it may."""
    versions = [version(1, 0), version(2, 60)]
    runs = [
        Run("leaf1", 0, 60),
        Run("leaf2", 60, 70),
        Run("leaf1", 70, 110),
        Run("leaf2", 110, 111),
    ]
    assert unwanted(HERE, versions, runs, [delay(71, 110)]) == (40, 70)
    assert unwanted(HERE, versions, runs, [stop(70, 108, HERE)])[0] == 0
    stale = Window("stale-sync", 69, 110, Effect.REVERTS)
    assert unwanted(HERE, versions, runs, [stale])[0] == 0


# Expired, or down


def test_an_expired_leaf_is_found_unless_the_place_was_bad_ever_since_it_was_due() -> None:
    runs = [Run("leaf1", 3, 145)]
    assert expired(HERE, [version(1, 0)], runs, []) != []
    assert expired(HERE, [version(1, 0)], runs, [delay(50, 145)]) == []
    assert expired(HERE, [version(1, 0)], [Run("leaf1", 3, 110)], []) == []
    assert expired(HERE, [], [Run("stranger", 3, 4)], []) != []


def test_a_fault_at_the_end_does_not_excuse_an_expired_leaf() -> None:
    """Nor one of another Service: half a life was there to replace it."""
    runs = [Run("leaf1", 3, 145)]
    assert expired(HERE, [version(1, 0)], runs, [stop(118, 146, THERE)]) != []
    assert expired(HERE, [version(1, 0)], runs, [delay(58, 146, THERE)]) != []
    assert expired(HERE, [version(1, 0)], runs, [delay(100, 146)]) != []


def test_a_listener_that_is_down_is_excused_only_by_what_stops_it() -> None:
    """An API that answers 429 closes nothing."""
    runs = [Run("leaf1", 3, 30), Run(None, 30, 90), Run("leaf1", 90, 95)]
    versions = [version(1, 0)]
    assert expired(HERE, versions, runs, [delay(28, 95)]) != []
    assert expired(HERE, versions, runs, [stop(30, 88, THERE)]) != []
    assert expired(HERE, versions, runs, [stop(30, 88, HERE)]) == []


# Certificates


def test_what_explains_a_certificate() -> None:
    """Due, a clock that is ahead, a rejection, a deletion by the soak; nothing else."""
    first = version(1, 0)
    assert waste(first, version(2, 60)) == []
    assert waste(first, version(2, 55), windows=(Window("clock-ahead", 50, 56, offset=6),)) == []
    assert waste(version(1, 0, rejected={"*": 10.0}), version(2, 30)) == []
    assert waste(version(1, 0, taken=12.0, deleted=12.0), version(2, 30)) == []
    assert len(waste(first, version(2, 30))) == 1
    wrong = Window("clock-ahead", 25, 31, offset=40)  # by more than may be acted on
    assert len(waste(first, version(2, 30), windows=(wrong,))) == 1


def test_a_deletion_that_the_soak_did_not_make_explains_nothing() -> None:
    """And it is an invariant broken: the newest good version is never collected."""
    both = version(1, 0, deleted=9.0), version(2, 10)
    assert len(waste(*both)) == 1
    assert len(collected(both)) == 1
    # one after its successor came, one refused, and one that the soak took
    assert collected([version(1, 0, deleted=70.0), version(2, 60)]) == []
    assert collected([version(1, 0, deleted=9.0, rejected={"*": 5.0})]) == []
    assert collected([version(1, 0, deleted=9.0, taken=9.0)]) == []
    assert len(collected([version(1, 0, deleted=70.0), version(2, 60, refused=True)])) == 1


def test_after_a_refusal_the_next_order_waits_d_and_then_twice_that() -> None:
    served = version(1, 0)
    first = version(2, 60, rejected={"*": 62.0})
    for second in (73, 80):
        assert waste(served, first, version(3, second)) == []
    assert len(waste(served, first, version(3, 70))) == 1
    again = version(3, 74, rejected={"*": 75.0})
    assert len(waste(served, first, again, version(4, 90))) == 1
    assert waste(served, first, again, version(4, 98)) == []


def test_once_late_it_waits_d_each_time() -> None:
    """Late is with a sixth of the life left: at 100."""
    served = version(1, 0)
    refused = [version(2, 77, rejected={"*": 78.0}), version(3, 90, rejected={"*": 91.0})]
    assert waste(served, *refused, version(4, 103)) == []
    assert len(waste(served, *refused, version(4, 99))) == 1
    assert len(waste(served, *refused, version(4, 101))) == 1


def test_a_service_that_is_sick_alone_brings_an_order_when_all_it_takes_is_late() -> None:
    sick = version(2, 60, rejected={HERE: 62.0})
    assert len(waste(version(1, 0), sick, version(3, 75))) == 1
    assert waste(version(1, 0), sick, version(3, 101)) == []
    one, two = version(1, 0, rejected={THERE: 5.0}), version(2, 6, rejected={THERE: 8.0})
    assert len(waste(one, two, version(3, 9))) == 2
    assert waste(one, version(2, 17, rejected={THERE: 19.0}), version(3, 31)) == []


def test_a_certificate_that_nobody_stored_is_wasted_unless_the_ca_forgot_it() -> None:
    signed = (Signed(9, 50, "o"),)
    orders = {"o": Order("solo", 48, 53)}
    assert len(waste(signed=signed, orders=orders)) == 1
    assert waste(signed=signed, forgot=(52,), orders=orders) == []
    assert len(waste(signed=signed, forgot=(56,), orders=orders)) == 1  # it had given it up


def test_the_ca_forgets_one_certificate_per_order_that_was_open_then() -> None:
    signed = tuple(Signed(number, 50 + number, f"o{number}") for number in range(5))
    orders = {f"o{number}": Order("solo", 49 + number, 51 + number) for number in range(5)}
    orders["o4"].closed = 76
    assert len(waste(signed=signed, forgot=(75,), orders=orders)) == 4
    for order in orders.values():
        order.closed = 76
    assert len(waste(signed=signed, forgot=(75,), orders=orders)) == 4


# Rejections


def test_a_rejection_needs_a_refusal_or_an_alert() -> None:
    rejected = version(1, 0, rejected={"*": 10.0})
    alert = Window("tls-alert", 5, 9, Effect.STOPS)
    assert len(false_rejections([rejected], [])) == 1
    assert false_rejections([rejected], [alert]) == []
    assert false_rejections([version(1, 0, rejected={"*": 10.0}, refused=True)], []) == []


def test_a_rejection_after_the_alert_is_over_is_false() -> None:
    """The daemon's own clock may be wrong by a little."""
    alert = Window("tls-alert", 3, 13, Effect.STOPS)
    for at in (17.0, 28.0):
        assert len(false_rejections([version(1, 0, rejected={HERE: at})], [alert])) == 1
    ahead = Window("clock-ahead", 8, 14, offset=5)
    assert false_rejections([version(1, 0, rejected={HERE: 17.0})], [alert, ahead]) == []


def test_an_alert_on_an_inside_route_rejects_nothing() -> None:
    alert = Window("tls-alert", 3, 13, Effect.STOPS)
    rejected = [version(1, 0, rejected={HERE: 10.0})]
    assert false_rejections(rejected, [alert]) == []
    assert len(false_rejections(rejected, [alert], {HERE})) == 1
