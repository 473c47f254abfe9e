"""What is collected, and when: mark, wait, look, sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pytest

from certbaton.core.collect import collect, handed_over_at, kept
from certbaton.model import (
    CertificateSpec,
    Journal,
    ObjectRef,
    Policy,
    Proof,
    SecretVersion,
    Snapshot,
    Wait,
    WaitKind,
)
from core.build import (
    API,
    DAY,
    HOME,
    HOUR,
    MINUTE,
    NOW,
    POLICY,
    SECOND,
    SHOP,
    There,
    a_hash,
    a_pending,
    a_service,
    a_snapshot,
    a_spec,
    a_version,
)

KEEP_NONE = Policy(keep_previous=0)


def version(
    number: int, *, served: str | Proof | None = None, marked: timedelta | None = None
) -> SecretVersion:
    """The versions of a year: the fourth is the newest, two days old, each 30 days younger."""
    return a_version(
        f"shop-{number}",
        begins=NOW - 2 * DAY - (4 - number) * 30 * DAY,
        served={SHOP: served} if served else None,
        marked_at=NOW - marked if marked is not None else None,
    )


# the newest went into service an hour more than its retention of a day ago
SERVED = Proof(NOW - 25 * HOUR, "wire")
NEWEST = version(4, served=SERVED)


def world(*versions: SecretVersion, there: Sequence[There] | None = None) -> Snapshot:
    """Those versions, and a Service that names the last of them."""
    if there is None:
        there = [a_service(names=versions[-1])]
    return a_snapshot(*versions, services=there)


def done(
    snapshot: Snapshot,
    spec: CertificateSpec | None = None,
    policy: Policy = KEEP_NONE,
    now: datetime = NOW,
    configured: bool = True,
) -> list[str]:
    """What is planned, as ``Kind name`` (``wait name`` for a wait)."""
    actions, waits = collect((spec or a_spec()) if configured else None, snapshot, policy, now)
    found = [f"{type(a).__name__} {a.version.ref.name}" for a in actions]  # type: ignore[attr-defined]
    return found + [f"wait {item.what.split()[0].removeprefix(HOME + '/')}" for item in waits]


# --- the stages -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """Two versions, of which the newer is in service; *plan* is what is to be done."""

    plan: list[str]
    served: str | Proof | None = SERVED
    marked: timedelta | None = None
    complete: bool = True


STAGES = {
    "the handover has not ended": Case([], served=None),
    "its retention runs": Case(["wait shop-3"], served=Proof(NOW - 23 * HOUR, "wire")),
    "its retention is just over": Case(["MarkForDeletion shop-3"], served=Proof(NOW - DAY, "wire")),
    "an unproven end starts the clock as well": Case(
        ["MarkForDeletion shop-3"], served=Proof(NOW - DAY, "unproven")
    ),
    "it was marked a moment ago": Case(["wait shop-3"], marked=timedelta(0)),
    "it was marked a second too few ago": Case(["wait shop-3"], marked=15 * MINUTE - SECOND),
    "it was marked a quarter of an hour ago": Case(["DeleteVersion shop-3"], marked=15 * MINUTE),
    "nothing is marked after an incomplete reading": Case([], complete=False),
    "nothing is deleted after an incomplete reading": Case([], marked=HOUR, complete=False),
}


@pytest.mark.parametrize("case", STAGES.values(), ids=STAGES)
def test_stage(case: Case) -> None:
    """An old version is retained, then marked, then left alone for a while, then deleted."""
    snapshot = world(version(3, marked=case.marked), version(4, served=case.served))
    assert done(replace(snapshot, complete=case.complete)) == case.plan


def test_the_times_shrink_with_the_lifetime() -> None:
    """Of an hour: six minutes of retention, two of looking again."""

    def state(served: timedelta, marked: timedelta | None = None) -> list[str]:
        old = a_version("old", begins=NOW - 50 * MINUTE, lasts=HOUR)
        old = replace(old, marked_at=NOW - marked if marked else None)
        proof = Proof(NOW - served, "wire")
        new = a_version("new", begins=NOW - 20 * MINUTE, lasts=HOUR, served={SHOP: proof})
        return done(world(old, new))

    assert state(6 * MINUTE - SECOND) == ["wait old"]
    assert state(6 * MINUTE) == ["MarkForDeletion old"]
    assert state(9 * MINUTE, 2 * MINUTE - SECOND) == ["wait old"]
    assert state(9 * MINUTE, 2 * MINUTE) == ["DeleteVersion old"]


def test_waits_are_for_later_and_say_until_when() -> None:
    """``once`` doesn't follow them."""
    retained = world(version(3), version(4, served=Proof(NOW - HOUR, "wire")))
    assert collect(a_spec(), retained, KEEP_NONE, NOW)[1] == [
        Wait("certbaton/shop-3 is retained", NOW + 23 * HOUR, WaitKind.LATER)
    ]
    marked = world(version(3, marked=MINUTE), NEWEST)
    assert collect(a_spec(), marked, KEEP_NONE, NOW)[1] == [
        Wait("certbaton/shop-3 is marked for deletion", NOW + 14 * MINUTE, WaitKind.LATER)
    ]


# --- when the clock starts ------------------------------------------------------------------

TWO = a_spec(SHOP, API)
HOUR_AGO, DAY_AGO = Proof(NOW - HOUR, "wire"), Proof(NOW - DAY, "unproven")


@pytest.mark.parametrize(
    ("served", "there", "since"),
    [
        ({SHOP: DAY_AGO, API: HOUR_AGO}, [SHOP, API], NOW - HOUR),
        ({SHOP: DAY_AGO}, [SHOP, API], None),
        ({SHOP: DAY_AGO}, [SHOP], NOW - DAY),
        ({}, [], NOW - 2 * DAY),
        ({SHOP: Proof(NOW - 9 * DAY, "wire")}, [SHOP], NOW - 2 * DAY),
    ],
    ids=[
        "the last of two Services counts",
        "one of two has not ended",
        "a Service that is not there does not count",
        "without any Service, its beginning",
        "never before its beginning",
    ],
)
def test_the_handover_ended(
    served: dict[ObjectRef, Proof], there: list[ObjectRef], since: datetime | None
) -> None:
    """Once it had ended at every Service that is there."""
    newest = a_version("shop-4", begins=NOW - 2 * DAY, served=served)
    snapshot = world(newest, there=[a_service(ref, names=newest) for ref in there])
    assert handed_over_at(TWO, snapshot, newest) == since


def test_a_proof_from_before_our_last_change_ends_no_handover() -> None:
    """A version that is put back on a listener has to be seen there again."""
    newest = a_version("shop-4", begins=NOW - 2 * DAY, served={SHOP: DAY_AGO})
    for changed, since in ((NOW - HOUR, None), (NOW - 2 * DAY, NOW - DAY)):
        snapshot = world(newest, there=[a_service(names=newest, changed_at=changed)])
        assert handed_over_at(a_spec(), snapshot, newest) == since


def test_a_service_that_cannot_be_written_is_not_waited_for() -> None:
    """Somebody has to change it first; what it names stays for being named."""
    newest = a_version("shop-4", begins=NOW - 2 * DAY, served={SHOP: DAY_AGO})
    for problem, since in ((None, None), ("it is an nlb now", NOW - DAY)):
        there = [a_service(names=newest), a_service(API, names=version(3), problem=problem)]
        assert handed_over_at(TWO, world(newest, there=there), newest) == since


# --- what stays -----------------------------------------------------------------------------


def keeps(
    *versions: SecretVersion,
    there: Sequence[There] = (),
    policy: Policy = KEEP_NONE,
    references: Sequence[ObjectRef] = (),
    spec: CertificateSpec | None = None,
) -> set[str]:
    snapshot = a_snapshot(*versions, services=there, references=references)
    return {ref.name for ref in kept(spec or a_spec(), snapshot, policy, NOW)}


def test_the_newest_good_one_stays() -> None:
    """Named by nobody, proven nowhere."""
    assert keeps(version(3), version(4)) == {"shop-4"}
    broken = replace(version(4), flaw="the private key does not fit the certificate")
    assert keeps(version(3), broken) == {"shop-3"}


def test_as_many_as_are_kept_for_a_rollback_stay() -> None:
    """The newest valid ones below the wanted one; one unless the policy says otherwise."""
    all_four = [version(number) for number in (1, 2, 3, 4)]
    for number, names in enumerate(
        [{"shop-4"}, {"shop-4", "shop-3"}, {"shop-4", "shop-3", "shop-2"}]
    ):
        assert keeps(*all_four, policy=Policy(keep_previous=number)) == names
    assert POLICY.keep_previous == 1


def test_an_expired_one_is_not_kept_for_a_rollback() -> None:
    """The fourth last of a year's has expired; nothing can be gained from it."""
    assert keeps(version(1), version(4), policy=Policy(keep_previous=9)) == {"shop-4"}


def test_one_that_is_kept_for_a_rollback_is_looked_at_when_it_expires() -> None:
    """At that very moment: of an hour's certificate, the next look of all would be far too late."""
    old, newest = version(2), version(4, served=SERVED)
    assert old.leaf is not None
    actions, waits = collect(a_spec(), world(old, newest), POLICY, NOW)
    assert (actions, waits) == (
        [],
        [Wait("certbaton/shop-2 is kept until it expires", old.leaf.not_after, WaitKind.LATER)],
    )
    last = old.leaf.not_after
    assert done(world(old, newest), policy=POLICY, now=last) == ["MarkForDeletion shop-2"]


@pytest.mark.parametrize(
    ("how", "stays"), [("wire", {"shop-4", "shop-2"}), ("events", {"shop-4", "shop-2"})]
)
def test_for_each_service_the_newest_proven_there_stays(how: str, stays: set[str]) -> None:
    """It is what a rollback of that very Service would go to."""
    assert keeps(version(1, served=how), version(2, served=how), version(3), version(4)) == stays


def test_unproven_is_not_proven() -> None:
    """What nobody saw work at a Service does not push out what was seen to work there."""
    versions = [version(2, served="wire"), version(3), version(4, served="unproven")]
    assert keeps(*versions) == {"shop-4", "shop-2"}
    assert keeps(*versions[:1], version(3, served="unproven"), version(4)) == {"shop-4", "shop-2"}


def test_each_service_has_its_own() -> None:
    """Proven at one is not proven at another."""
    at_api = a_version("at-api", begins=NOW - 40 * DAY, served={API: "wire"})
    at_shop = a_version("at-shop", begins=NOW - 35 * DAY, served={SHOP: "events"})
    assert keeps(at_api, at_shop, version(4), spec=TWO) == {"at-api", "at-shop", "shop-4"}
    assert keeps(at_api, at_shop, version(4)) == {"at-shop", "shop-4"}


def test_what_only_begins_later_stays() -> None:
    """Our clock may be behind the CA's."""
    new = a_version("new", begins=NOW + 4 * MINUTE)
    assert keeps(version(4), new) == {"shop-4", "new"}


def test_while_nothing_fits_the_newest_valid_one_stays() -> None:
    """Names were added: until the new certificate is there, it is all that there is."""
    spec = a_spec(names=("shop.example", "new.example"))
    assert keeps(version(3), version(4), spec=spec) == {"shop-4"}


def test_while_nothing_is_valid_all_stay() -> None:
    """Nobody knows what they are good for, and nothing is lost by keeping them."""
    expired = [a_version(f"v{n}", begins=NOW - (300 + n) * DAY) for n in range(3)]
    assert keeps(*expired, a_version("unreadable", readable=False)) == {
        "v0",
        "v1",
        "v2",
        "unreadable",
    }


# --- what is named --------------------------------------------------------------------------


@pytest.mark.parametrize("marked", [None, HOUR], ids=["not marked", "marked"])
def test_a_named_version_is_never_deleted(marked: timedelta | None) -> None:
    """By whomever, in whichever annotation; the mark comes off."""
    snapshot = world(version(3, marked=marked), NEWEST)
    snapshot = replace(snapshot, references=frozenset({ObjectRef(HOME, "shop-3"), NEWEST.ref}))
    assert done(snapshot) == (["Unmark shop-3"] if marked else [])


def test_a_secret_of_that_name_elsewhere_is_another_one() -> None:
    """A Service that names ``other/shop-3`` does not name ours."""
    snapshot = world(version(3), NEWEST)
    snapshot = replace(snapshot, references=frozenset({ObjectRef("other", "shop-3"), NEWEST.ref}))
    assert done(snapshot) == ["MarkForDeletion shop-3"]


def test_a_kept_version_loses_its_mark_even_after_an_incomplete_reading() -> None:
    """Taking a mark off deletes nothing."""
    snapshot = world(version(3), replace(NEWEST, marked_at=NOW - HOUR))
    assert done(replace(snapshot, complete=False)) == ["Unmark shop-4"]


def test_what_the_pending_order_ended_in_stays() -> None:
    """Its order is not closed yet; the key tells."""
    mine = replace(version(3), leaf=version(3).leaf)
    assert mine.leaf is not None
    pending = replace(a_pending(), public_key_sha256=mine.leaf.public_key_sha256)
    snapshot = replace(world(mine, NEWEST), journal=Journal(pending=pending))
    assert done(snapshot) == []
    other = replace(pending, public_key_sha256=a_hash("another key"))
    assert done(replace(snapshot, journal=Journal(pending=other))) == ["MarkForDeletion shop-3"]


# --- a certificate that left the configuration ----------------------------------------------


def test_versions_of_a_certificate_that_left_are_collected_unless_they_are_named() -> None:
    """By mark and sweep as well, but nothing has to be retained for them."""
    snapshot = world(version(2, marked=HOUR), version(3), version(4))
    assert done(snapshot, configured=False) == ["DeleteVersion shop-2", "MarkForDeletion shop-3"]


def test_one_that_cannot_be_read_waits_the_longest_time_after_its_mark() -> None:
    """Its lifetime, of which the wait would be a share, is unknown."""
    for age, plan in ((14 * MINUTE, ["wait x"]), (15 * MINUTE, ["DeleteVersion x"])):
        broken = a_version("x", readable=False, marked_at=NOW - age)
        assert done(a_snapshot(broken), configured=False) == plan


def test_without_a_good_version_nothing_is_collected() -> None:
    """Not even what had been marked before."""
    expired = a_version("old", begins=NOW - 300 * DAY, marked_at=NOW - DAY)
    assert done(a_snapshot(expired)) == ["Unmark old"]
    misfit = a_spec(names=("new.example",))
    assert done(world(version(3, marked=HOUR), version(4)), misfit) == []
