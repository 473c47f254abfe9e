"""Looking at other instances' Leases: rarely, and drawing no conclusion from what was not seen."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from certbaton.cluster import Kind
from certbaton.cluster.holders import FRESH, GAP, RETRY, Holders
from certbaton.errors import ClusterUnavailable
from certbaton.model import Instance, ObjectRef
from fakes.kube import FakeApi

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
OTHER = Instance("second", "elsewhere")
REF = ObjectRef("elsewhere", "second")


class Look:
    """A `Holders` and the other side."""

    def __init__(self) -> None:
        self.user = FakeApi(manager="user")
        self.api = self.user.client("certbaton")
        self.holders = Holders(self.api)

    def lease(self, **spec: Any) -> None:
        if REF in self.user.all(Kind.LEASE):
            self.user.merge(Kind.LEASE, REF, {"spec": spec})
        else:
            body = {"metadata": {"name": REF.name, "namespace": REF.namespace}, "spec": spec}
            self.user.create(Kind.LEASE, REF.namespace, body)

    def fail(self) -> None:
        def away(asked: object) -> None:
            raise ClusterUnavailable("the API server cannot be reached")

        self.api.before = away

    def work(self) -> None:
        self.api.before = lambda asked: None

    @property
    def requests(self) -> int:
        return len(self.api.requests)


@pytest.fixture
def look() -> Look:
    return Look()


def at(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S.%fZ}"


def test_one_request_in_ten_minutes(look: Look) -> None:
    """However often it is asked; unless who asks wants to know it now."""
    look.lease(renewTime=at(NOW), leaseDurationSeconds=60)
    for seconds in range(0, 600, 20):
        sign = look.holders.sign(OTHER, NOW + timedelta(seconds=seconds))
        assert (sign.renewed_at, sign.lasts) == (NOW, MINUTE)
    assert look.requests == 1
    look.holders.sign(OTHER, NOW + FRESH)
    assert look.requests == 2
    look.holders.sign(OTHER, NOW + FRESH, lambda sign: True)
    assert look.requests == 3


def test_unchanged_is_what_was_looked_at_without_a_gap(look: Look) -> None:
    """A renewal begins it anew, and so does a time in which nobody looked or could look."""
    look.lease(renewTime=at(NOW - DAY))
    assert look.holders.sign(OTHER, NOW).unchanged_since == NOW
    assert look.holders.sign(OTHER, NOW + FRESH).unchanged_since == NOW
    later = NOW + FRESH + GAP + MINUTE
    assert look.holders.sign(OTHER, later).unchanged_since == later
    look.lease(renewTime=at(NOW))
    assert look.holders.sign(OTHER, later + FRESH).unchanged_since == later + FRESH
    look.fail()
    sign = look.holders.sign(OTHER, later + 2 * FRESH)
    assert sign.unchanged_since is None
    assert sign.trouble == "the API server cannot be reached"
    look.work()
    back = later + 2 * FRESH + RETRY
    assert look.holders.sign(OTHER, back).unchanged_since == back


def test_trouble_is_looked_at_again_after_a_minute(look: Look) -> None:
    look.fail()
    look.holders.sign(OTHER, NOW)
    look.holders.sign(OTHER, NOW + MINUTE / 2)
    assert look.requests == 1
    look.holders.sign(OTHER, NOW + MINUTE)
    assert look.requests == 2


def test_an_absence_is_a_state_like_any_other(look: Look) -> None:
    """With no renewal; and somebody may make a Lease meanwhile."""
    sign = look.holders.sign(OTHER, NOW)
    assert (sign.renewed_at, sign.unchanged_since) == (None, NOW)
    assert look.holders.sign(OTHER, NOW + FRESH).unchanged_since == NOW
    look.lease(renewTime=at(NOW))
    assert look.holders.sign(OTHER, NOW + 2 * FRESH).unchanged_since == NOW + 2 * FRESH


def test_a_renewal_in_the_future_is_one_of_the_moment_it_was_seen_at(look: Look) -> None:
    """A clock that is years ahead does not keep a dead instance's claim for years."""
    look.lease(renewTime=at(NOW + 900 * DAY))
    assert look.holders.sign(OTHER, NOW).renewed_at == NOW
    assert look.holders.sign(OTHER, NOW + FRESH).renewed_at == NOW


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"renewTime": None},
        {"renewTime": "yesterday"},
        {"renewTime": "0001-01-01T00:00:00+05:00"},
        {"renewTime": 7, "leaseDurationSeconds": "long"},
        {"leaseDurationSeconds": -5},
    ],
    ids=str,
)
def test_an_odd_lease_is_one_without_a_date(look: Look, spec: dict[str, Any]) -> None:
    look.lease(**spec)
    sign = look.holders.sign(OTHER, NOW)
    assert (sign.renewed_at, sign.lasts) == (None, timedelta(0))
    assert sign.trouble is None


def test_no_lease_lasts_for_long(look: Look) -> None:
    """Else one could make itself immortal."""
    look.lease(leaseDurationSeconds=2**31)
    assert look.holders.sign(OTHER, NOW).lasts == timedelta(hours=1)
