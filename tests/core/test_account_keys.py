"""When an account's key is changed, and what waits meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from certbaton.model import (
    Account,
    CaTrouble,
    IssuerSpec,
    Journal,
    Outcome,
    Rehearsal,
    RollAccountKey,
)
from core.build import (
    ACCOUNT_URL,
    DAY,
    DIRECTORY,
    HOUR,
    MINUTE,
    NAMES,
    NOW,
    SHOP,
    a_pending,
    a_service,
    a_snapshot,
    a_spec,
    a_version,
    kinds,
    planned,
)

STAGE = IssuerSpec("stage", "https://stage.example/d")
NEXT = IssuerSpec("next", "https://next.example/d")
SPEC = a_spec(issuer=IssuerSpec("ca", DIRECTORY, rehearsal=STAGE), fallbacks=[NEXT])
ROLLING = Account(DIRECTORY, ACCOUNT_URL, rolling=True)
DUE = a_version("due", begins=NOW - 61 * DAY, served={SHOP: "wire"})
FRESH = a_version("fresh", begins=NOW - DAY, served={SHOP: "wire"})


def test_it_is_brought_to_its_end_though_nothing_is_due() -> None:
    """Of every account that the certificate may use."""
    for issuer in (SPEC.issuer, STAGE, NEXT):
        rolling = Account(issuer.directory, f"{issuer.directory}/1", rolling=True)
        world = a_snapshot(FRESH, services=[a_service(names=FRESH)], accounts=[rolling])
        (action,) = planned(world, SPEC).actions
        assert isinstance(action, RollAccountKey) and action.issuer == issuer


def test_no_order_is_begun_meanwhile() -> None:
    """It would be in the way; afterwards it is."""
    world = a_snapshot(DUE, services=[a_service(names=DUE)], account=ROLLING)
    assert kinds(planned(world, SPEC).actions) == ["RollAccountKey"]
    world = a_snapshot(DUE, services=[a_service(names=DUE)])
    assert kinds(planned(world, SPEC).actions) == ["StageOrder"]


def test_an_order_that_is_open_ends_first() -> None:
    """Its challenges were answered with the old key."""
    world = a_snapshot(
        DUE,
        services=[a_service(names=DUE)],
        account=ROLLING,
        journal=Journal(pending=a_pending()),
    )
    found = planned(world, SPEC)
    assert kinds(found.actions) == ["AdvanceOrder"]
    assert any("is changed when orders have ended there: shop" in wait.what for wait in found.waits)


@pytest.mark.parametrize(
    ("orders", "rolls"),
    [
        ({DIRECTORY: ("blog",)}, False),
        ({NEXT.directory: ("blog",)}, True),
        ({DIRECTORY: ()}, True),
    ],
    ids=["another certificate's", "one at another CA", "none"],
)
def test_so_does_any_others(orders: Mapping[str, tuple[str, ...]], rolls: bool) -> None:
    """All certificates of an issuer have one account."""
    world = a_snapshot(DUE, services=[a_service(names=DUE)], account=ROLLING, open_orders=orders)
    found = planned(world, SPEC)
    assert kinds(found.actions) == (["RollAccountKey"] if rolls else [])
    assert rolls or any("blog" in wait.what for wait in found.waits)


def test_so_does_a_rehearsal() -> None:
    """At the directory that it is at."""
    rolling = Account(STAGE.directory, "https://stage.example/1", rolling=True)
    for url, rolls in (("https://stage.example/order/1", False), (None, True)):
        rehearsal = Rehearsal(STAGE.directory, NOW, NAMES, url=url, outcome=Outcome.OPEN)
        world = a_snapshot(
            FRESH,
            services=[a_service(names=FRESH)],
            accounts=[rolling],
            journal=Journal(rehearsal=rehearsal),
        )
        assert ("RollAccountKey" in kinds(planned(world, SPEC).actions)) is rolls


def test_a_ca_that_does_not_answer_is_left_alone() -> None:
    """Until its pause is over."""
    world = a_snapshot(
        FRESH,
        services=[a_service(names=FRESH)],
        account=ROLLING,
        ca_troubles={DIRECTORY: CaTrouble(1, NOW, NOW, "HTTP 502")},
    )
    found = planned(world, SPEC)
    assert found.actions == () and NOW + MINUTE in {wait.until for wait in found.waits}
    assert kinds(planned(world, SPEC, now=NOW + MINUTE).actions) == ["RollAccountKey"]


def test_not_while_paused_nor_without_an_account() -> None:
    """Nothing is written for who is paused; what was never made has nothing to change."""
    world = a_snapshot(FRESH, services=[a_service(names=FRESH)], account=ROLLING)
    assert planned(world, replace(SPEC, paused=True)).actions == ()
    none = replace(ROLLING, url=None)
    world = a_snapshot(FRESH, services=[a_service(names=FRESH)], account=none)
    assert planned(world, SPEC).actions == ()
    assert planned(world, SPEC, now=NOW + HOUR).actions == ()
