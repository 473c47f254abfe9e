"""What is ordered over months, and what is not, since no listener would use it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import pytest

from certbaton.model import (
    CertificateSpec,
    Journal,
    KeyType,
    OrderRecord,
    Proof,
    Repoint,
    SecretVersion,
    StageOrder,
    WaitKind,
)
from core.build import (
    API,
    DAY,
    DIRECTORY,
    HOUR,
    NAMES,
    NOW,
    SHOP,
    There,
    a_pending,
    a_service,
    a_snapshot,
    a_spec,
    a_version,
    kinds,
    planned,
)

RSA_ONLY = frozenset({"RSA"})
CLASSIC, SHORT = 90 * DAY, 6 * DAY


@dataclass
class Months:
    """One Service, whose listener serves at once what it names; new ones live for *lasts*."""

    spec: CertificateSpec
    lasts: timedelta
    named: SecretVersion | None = None
    service: Callable[[SecretVersion | None], There] = lambda named: a_service(names=named)
    now: datetime = NOW
    ordered: list[datetime] = field(default_factory=list)
    used: list[str] = field(default_factory=list)
    waits: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.versions = [self.named] if self.named else []

    def run(self, days: int) -> Months:
        end = self.now + days * DAY
        while self.now < end:
            self._look()
            self.now += HOUR
        return self

    def _look(self) -> None:
        last = self.versions[-1].ref.name if self.versions else None
        issued = [OrderRecord(at, DIRECTORY, NAMES) for at in self.ordered]
        found = planned(
            a_snapshot(
                *self.versions,
                services=[self.service(self.named)],
                journal=Journal(last_version=last, orders=tuple(issued)),
                issued=issued,
            ),
            self.spec,
            now=self.now,
        )
        self.waits |= {wait.what for wait in found.waits}
        assert all(wait.until > self.now for wait in found.waits), "it would look all the time"
        for action in found.actions:
            if isinstance(action, StageOrder):
                self.ordered.append(self.now)
                self.versions.append(
                    a_version(
                        f"new-{len(self.ordered)}",
                        begins=self.now,
                        lasts=self.lasts,
                        key_type=self.spec.key_type,
                        profile=self.spec.issuer.profile,
                    )
                )
            elif isinstance(action, Repoint) and action.version is not None:
                served = {str(SHOP): Proof(self.now, "wire")}
                self.named = replace(action.version, served=served)
                self.versions = [
                    self.named if version.ref == self.named.ref else version
                    for version in self.versions
                ]
                self.used.append(self.named.ref.name)


def old(age: timedelta, lasts: timedelta = CLASSIC) -> SecretVersion:
    served = {SHOP: Proof(NOW - age, "wire")}
    return a_version("old", begins=NOW - age, lasts=lasts, served=served)


# --- profiles ---------------------------------------------------------------------------------


def test_a_change_to_a_short_lived_profile_reaches_the_listener_at_once() -> None:
    """As a change of names does: what it names does not fit, though it is valid longer."""
    months = Months(a_spec(profile="shortlived"), SHORT, old(10 * DAY)).run(1)
    assert (len(months.ordered), months.used) == (1, ["new-1"])


def test_after_a_change_of_profile_every_certificate_is_used() -> None:
    """One at once, and then one for every three days."""
    months = Months(a_spec(profile="shortlived"), SHORT, old(59 * DAY)).run(32)
    assert months.used == [f"new-{number + 1}" for number in range(len(months.ordered))]
    assert len(months.ordered) == 11


def test_a_change_back_is_one_order() -> None:
    """To the CA's default, which lives longer."""
    named = replace(old(DAY, SHORT), profile="shortlived")
    months = Months(a_spec(), CLASSIC, named).run(50)
    assert (len(months.ordered), months.used) == (1, ["new-1"])


def test_an_order_of_another_profile_is_not_continued() -> None:
    """It was never finalized: it is dropped."""
    journal = Journal(pending=a_pending(profile="classic"))
    found = planned(a_snapshot(journal=journal), a_spec(profile="shortlived"))
    assert kinds(found.actions) == ["DropOrder"]
    assert "not what is asked for now" in found.actions[0].why


# --- what would not be used ---------------------------------------------------------------------


def test_nothing_is_renewed_while_every_service_keeps_one_that_lives_longer() -> None:
    """The newest is due, and nobody names it: the CA gives shorter ones by now."""
    longer = old(10 * DAY)
    newest = a_version("newest", begins=NOW - 5 * DAY, lasts=SHORT)
    found = planned(
        a_snapshot(longer, newest, services=[a_service(names=longer)], journal=Journal())
    )
    assert kinds(found.actions) == []
    (wait,) = [wait for wait in found.waits if "valid longer than a new certificate" in wait.what]
    # a new one will outlive it by what such a one has left when it is due
    assert (wait.kind, wait.until) == (WaitKind.LATER, NOW + (80 - 3) * DAY)
    due = planned(
        a_snapshot(longer, newest, services=[a_service(names=longer)], journal=Journal()),
        now=wait.until,
    )
    assert "StageOrder" in kinds(due.actions)


def test_one_service_that_names_the_newest_is_enough_for_a_renewal() -> None:
    """The others keep what they have."""
    longer = old(10 * DAY)
    newest = a_version("newest", begins=NOW - 5 * DAY, lasts=SHORT, served={API: "wire"})
    services = [a_service(names=longer), a_service(API, names=newest)]
    found = planned(
        a_snapshot(longer, newest, services=services, journal=Journal(last_version="newest")),
        a_spec(SHOP, API),
    )
    assert "StageOrder" in kinds(found.actions)


# --- keys that no listener could serve ------------------------------------------------------------

CURVE = a_spec(key_type=KeyType.EC_P256)
NAMED: dict[str, SecretVersion | None] = {
    "there is none yet": None,
    "the key type was changed": old(10 * DAY),
    "it has expired": replace(a_version("old", begins=NOW - 91 * DAY, key_type="P-256")),
    "it is due": a_version("old", begins=NOW - 70 * DAY, key_type="P-256"),
}


@pytest.mark.parametrize("named", NAMED.values(), ids=NAMED)
def test_a_key_that_no_listener_could_serve_is_never_ordered(named: SecretVersion | None) -> None:
    """Whatever the reason; one sentence says what to change."""
    months = Months(
        CURVE, CLASSIC, named, service=lambda one: a_service(names=one, key_kinds=RSA_ONLY)
    ).run(3)
    assert (months.ordered, months.used) == ([], [])
    (what,) = [what for what in months.waits if what.startswith("no certificate is ordered")]
    assert "can serve a P-256 key" in what and "set keyType: RSA-2048" in what


def test_one_listener_that_could_is_enough() -> None:
    """Or one of which nobody knows, or none that is there."""
    for services in (
        [a_service(key_kinds=RSA_ONLY), a_service(API, key_kinds=frozenset({"EC"}))],
        [a_service(key_kinds=RSA_ONLY), a_service(API, key_kinds=None)],
        [],
    ):
        spec = a_spec(SHOP, API, key_type=KeyType.EC_P256)
        found = planned(a_snapshot(services=services, journal=Journal()), spec)
        assert kinds(found.actions) == ["StageOrder"]
