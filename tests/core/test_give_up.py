"""A Service that names what is nowhere, and for which nothing is there to be named."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from certbaton.model import GiveUp, ObjectRef, SecretVersion
from core.build import DAY, NOW, SHOP, a_service, a_snapshot, a_spec, a_version, kinds, planned

GONE = ObjectRef("certbaton", "shop-20250101-0123456789")
OLD = a_version("shop-1", begins=NOW - 10 * DAY)


def a_restored(**more: Any) -> Any:
    """As a backup has it: it names GONE, and the controller makes no load balancer for that."""
    return a_service(names=GONE, ours=False, **{"addresses": (), **more})


def test_its_name_is_taken_off_before_anything_is_ordered() -> None:
    """Without a load balancer there is no port 80 for a challenge."""
    found = planned(a_snapshot(services=[a_restored()], absent=[GONE]))
    assert kinds(found.actions)[0] == "GiveUp"
    (given_up,) = [action for action in found.actions if isinstance(action, GiveUp)]
    assert (given_up.service, given_up.reference) == (SHOP, GONE)
    assert str(GONE) in given_up.why


@dataclass(frozen=True)
class Left:
    """What is different, so that the name stays or another takes its place."""

    there: Any
    versions: tuple[SecretVersion, ...] = ()
    snapshot: dict[str, Any] = field(default_factory=lambda: {"absent": [GONE]})
    spec: dict[str, Any] = field(default_factory=dict)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(Left(a_restored(), snapshot={}), id="nobody knows whether it is there"),
        pytest.param(Left(a_restored(addresses=("192.0.2.1",))), id="a load balancer is there"),
        pytest.param(Left(a_restored(), versions=(OLD,)), id="a version can be named"),
        pytest.param(
            Left(a_restored(), snapshot={"absent": [GONE], "remembered": [GONE]}),
            id="it can be put back",
        ),
        pytest.param(Left(a_restored(paused=True)), id="the Service is paused"),
        pytest.param(Left(a_restored(), spec={"paused": True}), id="the certificate is paused"),
    ],
)
def test_else_it_stays(case: Left) -> None:
    snapshot = a_snapshot(*case.versions, services=[case.there], **case.snapshot)
    assert "GiveUp" not in kinds(planned(snapshot, a_spec(**case.spec)).actions)
