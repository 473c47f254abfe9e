"""The soak's judge, judged: what it must find, and what it must let pass."""

from __future__ import annotations

from soak.judge import Run, Version, Window, expired, false_rejections, outside, unwanted, wasted

HERE = "alpha/solo"


def version(number: int, issued: float, **more: object) -> Version:
    """A version that lives 120 s; due after half of it."""
    found = Version("solo", f"solo-{number}", f"leaf{number}", number, issued, issued + 120, issued)
    for name, value in more.items():
        setattr(found, name, value)
    return found


def signed(*versions: Version) -> list[tuple[int, float]]:
    return [(one.serial, one.issued) for one in versions]


def test_what_a_fault_of_the_place_covers_does_not_count() -> None:
    windows = [Window("x", 10, 20, place=True), Window("api", 0, 100)]
    assert outside(0, 30, windows) == 20
    assert outside(12, 18, windows) == 0


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


def test_an_expired_leaf_is_found_unless_the_place_was_at_fault() -> None:
    runs = [Run("leaf1", 3, 130)]
    assert expired(HERE, [version(1, 0)], runs, []) != []
    assert expired(HERE, [version(1, 0)], runs, [Window("x", 100, 140, place=True)]) == []
    assert expired(HERE, [version(1, 0)], [Run("leaf1", 3, 110)], []) == []
    assert expired(HERE, [], [Run("stranger", 3, 4)], []) != []


def test_what_explains_a_certificate() -> None:
    """Due, a clock that is ahead, a rejection, a deletion; nothing else."""
    first = version(1, 0)
    for second, windows in (
        (version(2, 60), []),
        (version(2, 55), [Window("clock-ahead", 50, 56, offset=6)]),
    ):
        both = [first, second]
        assert wasted(["solo"], both, signed(*both), windows, []) == []
    for before in (version(1, 0, rejected={"*": 10}), version(1, 0, deleted=12.0)):
        both = [before, version(2, 30)]
        assert wasted(["solo"], both, signed(*both), [], []) == []
    both = [first, version(2, 30)]
    assert len(wasted(["solo"], both, signed(*both), [], [])) == 1
    wrong = [Window("clock-ahead", 25, 31, offset=40)]  # by more than may be acted on
    assert len(wasted(["solo"], both, signed(*both), wrong, [])) == 1


def test_a_certificate_that_nobody_stored_is_wasted_unless_the_ca_forgot_it() -> None:
    assert len(wasted(["solo"], [], [(9, 50)], [], [])) == 1
    assert wasted(["solo"], [], [(9, 50)], [], [52]) == []


def test_a_rejection_needs_a_refusal_or_an_alert() -> None:
    rejected = version(1, 0, rejected={"*": 10.0})
    assert len(false_rejections([rejected], [])) == 1
    assert false_rejections([rejected], [Window("tls-alert", 5, 9, place=True)]) == []
    assert false_rejections([version(1, 0, rejected={"*": 10.0}, refused=True)], []) == []
