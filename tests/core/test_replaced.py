"""Forced and revoked versions, what an order replaces, and keys that are taken again or never."""

from __future__ import annotations

from dataclasses import replace

import pytest

from certbaton.core.collect import kept
from certbaton.core.need import need
from certbaton.core.renewal import wanted_version
from certbaton.model import (
    EVERYWHERE,
    Journal,
    KeyType,
    OrderRecord,
    Plan,
    Reason,
    Repoint,
    SecretVersion,
    StageOrder,
)
from core.build import (
    ACCOUNT_URL,
    API,
    DAY,
    DIRECTORY,
    HOUR,
    MINUTE,
    NAMES,
    NOW,
    POLICY,
    SHOP,
    a_pending,
    a_service,
    a_snapshot,
    a_spec,
    a_version,
    kinds,
    planned,
)

GOOD = a_version("good", begins=NOW - 20 * DAY, served={SHOP: "wire"})
REVOKED = a_version("revoked", begins=NOW - 10 * DAY, served={SHOP: "wire"}, revoked="superseded")
ASKED = replace(GOOD, renew_asked=NOW - MINUTE)
NEW = a_version("new", begins=NOW - MINUTE)


def staged(found: Plan) -> StageOrder:
    (action,) = [action for action in found.actions if isinstance(action, StageOrder)]
    return action


def repointed(found: Plan) -> list[str]:
    return [a.reference.name for a in found.actions if isinstance(a, Repoint) and a.version]


# --- why ----------------------------------------------------------------------------------------

WHY: dict[str, tuple[list[SecretVersion], Reason | None]] = {
    "somebody asked": ([ASKED], Reason.FORCED),
    "somebody asked, and a newer one came": ([ASKED, NEW], None),
    "somebody asked, and a newer one begins in a minute": (
        [ASKED, a_version("new", begins=NOW + MINUTE)],
        None,
    ),
    "somebody asked, and what came is refused by all": (
        [ASKED, replace(NEW, rejected=a_version(rejected={EVERYWHERE: NOW}).rejected)],
        None,
    ),
    "somebody asked after that, too": (
        [
            ASKED,
            replace(
                NEW,
                rejected=a_version(rejected={EVERYWHERE: NOW}).rejected,
                renew_asked=NOW,
            ),
        ],
        Reason.FORCED,
    ),
    "somebody asked for one that is of no use now": (
        [GOOD, a_version("other", begins=NOW, names=NAMES[:1], renew_asked=NOW)],
        None,
    ),
    "it is revoked": ([REVOKED], Reason.REVOKED),
    "the newest is revoked, an older one bridges": ([GOOD, REVOKED], Reason.REVOKED),
    "a revoked one was replaced": ([REVOKED, NEW], None),
    "a revoked one has a successor that begins in a minute": (
        [REVOKED, a_version("new", begins=NOW + MINUTE)],
        None,
    ),
    "its successor is revoked before it begins": (
        [GOOD, a_version("new", begins=NOW + MINUTE, revoked="superseded")],
        None,
    ),
    "another one with its key was revoked for that": (
        [
            a_version("shared", key="k"),
            a_version("told", begins=NOW - 80 * DAY, key="k", revoked="keyCompromise"),
        ],
        Reason.REVOKED,
    ),
    "another one with its key was revoked for something else": (
        [
            a_version("shared", key="k"),
            a_version("told", begins=NOW - 80 * DAY, key="k", revoked="superseded"),
        ],
        None,
    ),
    "it is revoked, and has expired": (
        [a_version(begins=NOW - 100 * DAY, revoked="superseded")],
        Reason.REVOKED,
    ),
}


@pytest.mark.parametrize(("versions", "reason"), WHY.values(), ids=WHY)
def test_why(versions: list[SecretVersion], reason: Reason | None) -> None:
    """Whatever is left of its life; once a successor is there, it is over."""
    for some in (versions, versions[::-1]):
        found = need(a_spec(), a_snapshot(*some), POLICY, NOW)
        assert (found.reason if found else None) == reason


def test_both_are_ordered_at_once() -> None:
    """Though a valid one is there that is far from due; the plan says since when and why."""
    found = planned(a_snapshot(ASKED, services=[a_service(names=ASKED)]))
    assert staged(found).reason is Reason.FORCED and found.due == NOW - MINUTE
    found = planned(a_snapshot(REVOKED, services=[a_service(names=REVOKED)]))
    assert staged(found).reason is Reason.REVOKED and "superseded" in staged(found).why
    assert any(note.startswith("revoked: Service shop/shop") for note in found.notes)


def test_our_own_limits_hold_all_the_same() -> None:
    """Five asked renewals a week are one too many for the CA."""
    issued = [OrderRecord(NOW - n * DAY, DIRECTORY, NAMES) for n in (1, 2, 3, 4)]
    for version in (ASKED, REVOKED):
        found = planned(a_snapshot(version, services=[a_service(names=version)], issued=issued))
        assert found.actions == ()
        assert any("our own limit" in wait.what for wait in found.waits)


def test_an_order_that_is_open_answers_it() -> None:
    """There is never a second one."""
    journal = Journal(pending=a_pending())
    found = planned(a_snapshot(ASKED, services=[a_service(names=ASKED)], journal=journal))
    assert kinds(found.actions) == ["AdvanceOrder"]


# --- what listeners serve meanwhile ---------------------------------------------------------------


def test_a_revoked_one_is_never_wanted() -> None:
    """Not while it is all there is."""
    assert wanted_version(a_spec(), [REVOKED], NOW) is None
    assert wanted_version(a_spec(), [REVOKED, GOOD], NOW) == GOOD


def test_it_stays_served_until_its_successor_is_there() -> None:
    """Better a revoked one than none; then the next one takes its place at once."""
    there = a_service(names=REVOKED)
    assert repointed(planned(a_snapshot(REVOKED, services=[there]))) == []
    assert repointed(planned(a_snapshot(REVOKED, NEW, services=[there]))) == ["new"]


def test_an_older_one_that_is_not_revoked_is_better() -> None:
    """Until the successor is there."""
    found = planned(a_snapshot(GOOD, REVOKED, services=[a_service(names=REVOKED)]))
    assert repointed(found) == ["good"]


def test_it_goes_nowhere_where_it_is_not_yet() -> None:
    """Another Service waits for its successor, or keeps what it has."""
    other = a_version("other", names=NAMES[:1], served={API: "wire"})
    services = [a_service(names=REVOKED), a_service(API, names=other)]
    found = planned(a_snapshot(REVOKED, other, services=services), a_spec(SHOP, API))
    assert repointed(found) == []
    services = [a_service(names=REVOKED), a_service(API)]
    assert repointed(planned(a_snapshot(REVOKED, services=services), a_spec(SHOP, API))) == []


def test_nobody_comes_back_to_it_while_there_is_another() -> None:
    """What last worked there is revoked; what worked before that is not."""
    refused = a_version("refused", begins=NOW - HOUR, rejected={SHOP: NOW - MINUTE})
    older = a_version("older", begins=NOW - 40 * DAY, names=NAMES[:1], served={SHOP: "wire"})
    there = a_service(names=refused)
    world = a_snapshot(refused, replace(REVOKED, revoked=None), older, services=[there])
    assert repointed(planned(world)) == ["revoked"]
    world = a_snapshot(refused, REVOKED, older, services=[there])
    assert repointed(planned(world)) == ["older"]
    assert repointed(planned(a_snapshot(refused, REVOKED, services=[there]))) == ["revoked"]


def test_it_is_not_kept_for_being_valid_longer() -> None:
    """Nor is one that somebody wants renewed, or whose window is in the past."""
    short = a_version("short", begins=NOW - HOUR, lasts=6 * DAY)
    for told in (
        REVOKED,
        ASKED,
        replace(GOOD, renewal_info=a_version(window=(NOW - HOUR, NOW - MINUTE)).renewal_info),
    ):
        found = planned(a_snapshot(told, short, services=[a_service(names=told)]))
        assert repointed(found) == ["short"]
    assert repointed(planned(a_snapshot(GOOD, short, services=[a_service(names=GOOD)]))) == []


def test_no_rollout_window_is_waited_for() -> None:
    """A revoked certificate is worse than a pause."""
    for named, expected in ((REVOKED, ["new"]), (GOOD, [])):
        services = [a_service(names=named)]
        world = a_snapshot(named, NEW, services=services, window_opens_at=NOW + DAY)
        assert repointed(planned(world)) == expected


def test_it_is_kept_for_no_rollback() -> None:
    """An older one that is not revoked is; what tells of a compromised key stays with that key."""
    new = replace(NEW, served=GOOD.served)
    assert kept(a_spec(), a_snapshot(GOOD, REVOKED, new), POLICY, NOW) == {new.ref, GOOD.ref}
    told = a_version("told", begins=NOW - 5 * DAY, key="k", revoked="keyCompromise")
    shared = a_version("shared", begins=NOW - 6 * DAY, key="k", marked_at=NOW)
    world = a_snapshot(told, shared, new, references=[shared.ref])
    assert told.ref in kept(a_spec(), world, POLICY, NOW)


# --- what an order replaces -----------------------------------------------------------------------

ISSUED = a_version("issued", begins=NOW - 61 * DAY, ari_id="aki.1")
REPLACES: dict[str, tuple[list[SecretVersion], str | None]] = {
    "the same names": ([ISSUED], "issued"),
    "one name of them": ([a_version("one", names=NAMES[:1], ari_id="aki.2")], "one"),
    "none of them": ([a_version("none", names=("x.example",), ari_id="aki.3")], None),
    "of another CA": ([a_version(directory="https://other.example/d", ari_id="aki.4")], None),
    "of another account": (
        [a_version(names=NAMES[:1], account_url="https://ca.example/account/2", ari_id="a.5")],
        None,
    ),
    "without an identifier": ([a_version(names=NAMES[:1])], None),
    "the newest of several": (
        [ISSUED, a_version("newer", begins=NOW - 61 * DAY + HOUR, ari_id="aki.6")],
        "newer",
    ),
    "the newest that it may": (
        [ISSUED, a_version("newer", names=("x.example",), ari_id="aki.7")],
        "issued",
    ),
    "one that has expired": ([a_version("old", begins=NOW - 99 * DAY, ari_id="aki.8")], "old"),
}


@pytest.mark.parametrize(("versions", "predecessor"), REPLACES.values(), ids=REPLACES)
def test_what_an_order_replaces(versions: list[SecretVersion], predecessor: str | None) -> None:
    """The newest that shares a name, of this CA and this account."""
    action = staged(planned(a_snapshot(*versions)))
    assert (action.predecessor.ref.name if action.predecessor else None) == predecessor
    assert action.predecessor is None or action.predecessor.account_url == ACCOUNT_URL


# --- keys -----------------------------------------------------------------------------------------

OLD = a_version("old", begins=NOW - 61 * DAY, key="k")
REFUSED = a_version("tried", begins=NOW - 20 * DAY, key="k", rejected={EVERYWHERE: NOW - 9 * DAY})
REUSED: dict[str, tuple[list[SecretVersion], str | None]] = {
    "the newest that fits": ([OLD, a_version("older", begins=NOW - 80 * DAY)], "old"),
    "there is none": ([], None),
    "of other names": ([a_version(names=NAMES[:1])], None),
    "of another type": ([a_version(key_type=KeyType.EC_P256)], None),
    "its own was compromised": ([a_version(revoked="keyCompromise")], None),
    "it was revoked for something else": ([a_version("shop", revoked="superseded")], "shop"),
    "an older one with that key was compromised": (
        [OLD, a_version("told", begins=NOW - 85 * DAY, key="k", revoked="keyCompromise")],
        None,
    ),
    "an older one's is sound": (
        [
            a_version("told", begins=NOW - 30 * DAY, key="bad", revoked="keyCompromise"),
            a_version("older", begins=NOW - 62 * DAY),
        ],
        "older",
    ),
    "a listener refused one with that key": ([OLD, REFUSED], None),
}


@pytest.mark.parametrize(("versions", "reused"), REUSED.values(), ids=REUSED)
def test_which_key_is_taken_again(versions: list[SecretVersion], reused: str | None) -> None:
    """Only where that is asked for; never one that was compromised."""
    action = staged(planned(a_snapshot(*versions), a_spec(reuse_key=True)))
    assert (action.reuse.ref.name if action.reuse else None) == reused
    assert staged(planned(a_snapshot(*versions))).reuse is None
