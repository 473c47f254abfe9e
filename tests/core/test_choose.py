"""Which version a Service is to have: never worse than before, and what worked comes back."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from certbaton.core.choose import answers_for, choose, served_well
from certbaton.model import (
    EVERYWHERE,
    Journal,
    Leaf,
    ObjectRef,
    Proof,
    SecretVersion,
    ServiceSpec,
)
from core.build import (
    API,
    DAY,
    HOME,
    HOUR,
    MINUTE,
    NAMES,
    NOW,
    POLICY,
    SHOP,
    a_leaf,
    a_service,
    a_snapshot,
    a_spec,
    a_version,
)

LEGACY = ObjectRef(HOME, "legacy")
THEIRS = ObjectRef(SHOP.namespace, "legacy")
RSA, EC_ONLY = frozenset({"RSA"}), frozenset({"EC"})
BOTH = RSA | EC_ONLY
JOURNAL = Journal(originals={str(SHOP): str(LEGACY)})


def served(ago: timedelta, how: str = "wire") -> dict[ObjectRef, Proof]:
    """Seen to work at the Service, that long ago."""
    return {SHOP: Proof(NOW - ago, how)}


# 60 and 30 days old, and an hour; each replaced the one before it
FIRST = a_version("shop-1", begins=NOW - 60 * DAY, served=served(60 * DAY))
SECOND = a_version("shop-2", begins=NOW - 30 * DAY, served=served(30 * DAY))
THIRD = a_version("shop-3", begins=NOW - HOUR)
REFUSED = a_version("shop-3", begins=NOW - HOUR, rejected={SHOP: NOW - MINUTE})
REFUSED_BY_ALL = a_version("shop-3", begins=NOW - HOUR, rejected={EVERYWHERE: NOW - MINUTE})


@dataclass(frozen=True)
class Case:
    """*names* is what the Service names, *chosen* what it is to name; None: leave it."""

    versions: list[SecretVersion]
    names: SecretVersion | ObjectRef | None
    chosen: str | None
    back: bool = False
    foreign: dict[ObjectRef, Leaf] = field(default_factory=dict)
    ours: bool = True
    journal: Journal | None = JOURNAL
    suite: frozenset[str] | None = None


EXPIRED = a_version("shop-2", begins=NOW - 100 * DAY, served=served(99 * DAY))
OTHER_NAMES = a_version("shop-2", begins=NOW - 30 * DAY, names=NAMES[:1], served=served(30 * DAY))
LONGER = a_version("shop-2", begins=NOW - 30 * DAY, lasts=365 * DAY, served=served(30 * DAY))
UNTRIED = a_version("shop-2", begins=NOW - 30 * DAY)
EC = a_version("shop-2", begins=NOW - 30 * DAY, key_type="P-256", served=served(30 * DAY))
UNTRIED_EC = a_version("shop-2", begins=NOW - 30 * DAY, key_type="P-256")
DATED = a_leaf(begins=NOW - 91 * DAY)
UNPROVEN = a_version("shop-2", begins=NOW - 30 * DAY, served=served(30 * DAY, "unproven"))

CASES: dict[str, Case] = {
    "the newest": Case([FIRST, SECOND, THIRD], SECOND, "shop-3"),
    "no version: what it names is left": Case([], LEGACY, None, ours=False),
    # never worse than before
    "what it names is valid longer, and fits": Case([LONGER, THIRD], LONGER, "shop-2"),
    "what it names is valid longer, and was refused": Case(
        [
            a_version(
                "shop-2",
                begins=NOW - 30 * DAY,
                lasts=365 * DAY,
                rejected={SHOP: NOW - DAY},
            ),
            THIRD,
        ],
        ObjectRef(HOME, "shop-2"),
        "shop-3",
    ),
    "what it names is valid longer, for other names": Case(
        [a_version("shop-2", lasts=365 * DAY, names=NAMES[:1]), THIRD],
        ObjectRef(HOME, "shop-2"),
        "shop-3",
    ),
    "a hand-made Secret is valid longer": Case(
        [THIRD], LEGACY, "legacy", foreign={LEGACY: a_leaf(lasts=365 * DAY)}, ours=False
    ),
    "a hand-made one is valid as long": Case(
        [THIRD], LEGACY, "shop-3", foreign={LEGACY: a_leaf(begins=NOW - HOUR)}, ours=False
    ),
    "a hand-made one signed by itself": Case(
        [THIRD],
        LEGACY,
        "shop-3",
        foreign={LEGACY: a_leaf(lasts=365 * DAY, self_signed=True)},
        ours=False,
    ),
    "a hand-made one that has expired": Case(
        [a_version("shop-3", begins=NOW - 89 * DAY)],
        LEGACY,
        "shop-3",
        foreign={LEGACY: a_leaf(begins=NOW - 91 * DAY)},
        ours=False,
    ),
    "a hand-made one that only begins later": Case(
        [THIRD],
        LEGACY,
        "shop-3",
        foreign={LEGACY: a_leaf(begins=NOW + DAY, lasts=365 * DAY)},
        ours=False,
    ),
    "a hand-made one that cannot be read": Case([THIRD], THEIRS, "shop-3", ours=False),
    "a hand-made one whose key the listener cannot serve": Case(
        [THIRD],
        LEGACY,
        "shop-3",
        foreign={LEGACY: a_leaf(lasts=365 * DAY, key_type="P-256")},
        ours=False,
        suite=RSA,
    ),
    # refused
    "refused here: what worked comes back": Case([SECOND, REFUSED], REFUSED, "shop-2", True),
    "refused by all: what worked comes back": Case(
        [SECOND, REFUSED_BY_ALL], REFUSED_BY_ALL, "shop-2", True
    ),
    "refused: the one that worked last, not the newest of them": Case(
        [
            a_version("shop-1", begins=NOW - 60 * DAY, served=served(DAY)),
            SECOND,
            REFUSED,
        ],
        REFUSED,
        "shop-1",
        True,
    ),
    "refused: what worked comes back whatever its names": Case(
        [OTHER_NAMES, REFUSED], REFUSED, "shop-2", True
    ),
    "refused: what worked, and was refused since, stays away": Case(
        [
            a_version(
                "shop-2",
                begins=NOW - 30 * DAY,
                served=served(30 * DAY),
                rejected={SHOP: NOW - DAY},
            ),
            FIRST,
            REFUSED,
        ],
        REFUSED,
        "shop-1",
        True,
    ),
    "refused: an expired one never beats it": Case([EXPIRED, REFUSED], REFUSED, None, journal=None),
    "refused, and nothing was proven: the one before it": Case(
        [UNPROVEN, REFUSED], REFUSED, "shop-2", True
    ),
    "refused: what was proven, though another was there later": Case(
        [FIRST, UNPROVEN, REFUSED], REFUSED, "shop-1", True
    ),
    "refused, nothing proven, and the one before has other names": Case(
        [
            a_version(
                "shop-2",
                begins=NOW - 30 * DAY,
                names=NAMES[:1],
                served=served(30 * DAY, "unproven"),
            ),
            REFUSED,
        ],
        REFUSED,
        "shop-2",
        True,
    ),
    "refused, and never anything else of ours: what it named before us": Case(
        [REFUSED], REFUSED, "legacy", True, foreign={LEGACY: a_leaf()}
    ),
    "the same, and it cannot be read": Case(
        [REFUSED],
        REFUSED,
        str(THEIRS),
        True,
        journal=Journal(originals={str(SHOP): "legacy"}),
    ),
    "the same, and it is known to have expired": Case(
        [REFUSED], REFUSED, None, foreign={LEGACY: a_leaf(begins=NOW - 91 * DAY)}
    ),
    "the same, and it is known to be gone": Case([REFUSED], REFUSED, None),
    "it went back to what it named before us, and stays there": Case(
        [REFUSED], LEGACY, None, foreign={LEGACY: a_leaf()}
    ),
    "the same, where that cannot be read": Case(
        [REFUSED], THEIRS, None, journal=Journal(originals={str(SHOP): "legacy"})
    ),
    "refused, and none of ours worked here: what it named before us, no older one of ours": Case(
        [UNTRIED, REFUSED], REFUSED, "legacy", True, foreign={LEGACY: a_leaf()}
    ),
    "the same, and it went back there": Case(
        [UNTRIED, REFUSED], LEGACY, None, foreign={LEGACY: a_leaf()}
    ),
    "the same, and that has expired: the older one, on trial": Case(
        [UNTRIED, REFUSED], REFUSED, "shop-2", foreign={LEGACY: DATED}
    ),
    "the same, and that trial is under way: it ends first": Case(
        [UNTRIED, REFUSED], UNTRIED, "shop-2", foreign={LEGACY: a_leaf()}
    ),
    "the same, at a Service made anew with another hand-made one": Case(
        [UNTRIED, REFUSED], THEIRS, "shop-2", foreign={LEGACY: a_leaf()}, ours=False
    ),
    "all that fit are refused, and somebody else took the name away: what worked": Case(
        [OTHER_NAMES, REFUSED], None, "shop-2", True
    ),
    "the same, or wrote another there": Case(
        [OTHER_NAMES, REFUSED], THEIRS, "shop-2", True, ours=False
    ),
    "all are refused, at a Service made anew with another hand-made one": Case(
        [REFUSED], THEIRS, None, foreign={LEGACY: a_leaf()}, ours=False
    ),
    "refused, and the suite cannot serve what worked any more": Case(
        [EC, REFUSED], REFUSED, None, suite=RSA, journal=None
    ),
    "the same, and it can serve what it named before us": Case(
        [EC, REFUSED], REFUSED, "legacy", True, foreign={LEGACY: a_leaf()}, suite=RSA
    ),
    "the same, and it cannot serve that either": Case(
        [EC, REFUSED], REFUSED, None, foreign={LEGACY: a_leaf(key_type="P-256")}, suite=RSA
    ),
    "what it names has expired, and the only valid one was refused": Case(
        [EXPIRED, REFUSED], EXPIRED, "shop-3", journal=None
    ),
    "the same, by all": Case([EXPIRED, REFUSED_BY_ALL], EXPIRED, "shop-3", journal=None),
    "the same, and an older one has other names": Case(
        [EXPIRED, a_version("shop-1", names=NAMES[:1]), REFUSED], EXPIRED, "shop-1", journal=None
    ),
    "a hand-made one that has expired, and the only valid one was refused": Case(
        [REFUSED], LEGACY, "shop-3", foreign={LEGACY: DATED}, ours=False
    ),
    "refused, and a newer one is there": Case(
        [SECOND, REFUSED, a_version("shop-4", begins=NOW - MINUTE)], SECOND, "shop-4"
    ),
    "refused elsewhere only": Case(
        [SECOND, a_version("shop-3", begins=NOW - HOUR, rejected={API: NOW})], SECOND, "shop-3"
    ),
    # stopgap
    "what we wrote is gone, and what is left has other names": Case(
        [a_version("shop-2", names=NAMES[:1])], ObjectRef(HOME, "gone"), "shop-2"
    ),
    "the same, and the newest that is left was refused": Case(
        [a_version("shop-2", begins=NOW - 30 * DAY, names=NAMES[:1]), REFUSED],
        ObjectRef(HOME, "gone"),
        "shop-2",
        journal=None,
    ),
    "the same, and all that is left was refused": Case(
        [REFUSED], ObjectRef(HOME, "gone"), "shop-3", journal=None
    ),
    "the same, and all that is left has expired": Case([EXPIRED], ObjectRef(HOME, "gone"), None),
    "what we wrote is gone, and the suite can serve what worked only": Case(
        [EC, THIRD], ObjectRef(HOME, "gone"), "shop-2", True, suite=EC_ONLY
    ),
    "the same, an older one that never was there": Case(
        [UNTRIED_EC, THIRD], ObjectRef(HOME, "gone"), "shop-2", suite=EC_ONLY
    ),
    "somebody else's is gone, as far as we know": Case(
        [OTHER_NAMES], THEIRS, None, ours=False, journal=None
    ),
    # the listener's cipher suite
    "an RSA key where the suite serves both": Case([SECOND, THIRD], SECOND, "shop-3", suite=BOTH),
    "a kind of key that the suite does not serve": Case([THIRD], None, None, suite=EC_ONLY),
    "the same, and an older one fits": Case([SECOND, THIRD], SECOND, None, suite=EC_ONLY),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_is_chosen(case: Case) -> None:
    """One Service, its versions, and what it is to name."""
    there = a_service(names=case.names, ours=case.ours, key_kinds=case.suite)
    snapshot = a_snapshot(
        *case.versions, services=[there], journal=case.journal, foreign=case.foreign
    )
    found = choose(a_spec(), ServiceSpec(SHOP), snapshot, NOW)
    assert str(found.ref).removeprefix(f"{HOME}/") == str(case.chosen)
    assert found.back is case.back or found.ref is None
    assert (found.version is None) is (case.chosen not in {v.ref.name for v in case.versions})


def test_a_passed_over_version_is_told() -> None:
    """Somebody who wonders why finds a sentence."""
    snapshot = a_snapshot(LONGER, THIRD, services=[a_service(names=LONGER)])
    note = choose(a_spec(), ServiceSpec(SHOP), snapshot, NOW).note
    assert note is not None and "valid longer" in note


def test_a_suite_that_cannot_serve_the_key_is_told() -> None:
    """And what to do about it."""
    snapshot = a_snapshot(THIRD, services=[a_service(key_kinds=EC_ONLY)])
    problem = choose(a_spec(), ServiceSpec(SHOP), snapshot, NOW).problem
    assert problem is not None and "keyType" in problem and "listener-ssl-config" in problem


ANSWERS: dict[str, tuple[Leaf, bool]] = {
    "the same names": (a_leaf(), True),
    "more names": (a_leaf(names=(*NAMES, "extra.example")), True),
    "a name is missing": (a_leaf(names=NAMES[:1]), False),
    "a wildcard instead": (a_leaf(names=("*.example", "*.shop.example")), True),
    "a wildcard that is too far up": (a_leaf(names=("*.example",)), False),
    "signed by itself": (a_leaf(self_signed=True), False),
    "another kind of key, that the suite serves": (a_leaf(key_type="P-256"), True),
    "expired": (a_leaf(begins=NOW - 91 * DAY), False),
    "not valid yet": (a_leaf(begins=NOW + HOUR), False),
}


@pytest.mark.parametrize(("leaf", "answer"), ANSWERS.values(), ids=ANSWERS)
def test_whether_a_hand_made_leaf_does_what_is_asked(leaf: Leaf, answer: bool) -> None:
    """Its issuer is not judged, its names, its dates and its key are."""
    snapshot = a_snapshot(services=[a_service(key_kinds=BOTH)])
    assert answers_for(leaf, a_spec(), snapshot, SHOP, NOW) is answer


def test_a_wildcard_that_is_asked_for_has_to_be_there() -> None:
    """No wildcard covers another."""
    spec = a_spec(names=("*.shop.example",))
    snapshot = a_snapshot(services=[a_service()])
    assert not answers_for(a_leaf(names=("*.example",)), spec, snapshot, SHOP, NOW)


@pytest.mark.parametrize(
    ("versions", "answer"),
    [
        ([SECOND], True),
        ([a_version("shop-1", begins=NOW - 75 * DAY + MINUTE)], True),
        ([a_version("shop-1", begins=NOW - 75 * DAY)], False),
        ([REFUSED], False),
        ([a_version("shop-1", begins=NOW - 75 * DAY), REFUSED], False),
        ([], False),
    ],
    ids=["taken", "not late yet", "late", "refused", "late, and refused", "none"],
)
def test_whether_a_service_is_served_well(versions: list[SecretVersion], answer: bool) -> None:
    """It has one to go on with that is neither refused nor late."""
    snapshot = a_snapshot(*versions, services=[a_service()])
    assert served_well(a_spec(), SHOP, snapshot, POLICY, NOW) is answer
