"""
``kill -9`` before and after every write: the next start ends as if nothing had happened.

Each case is a release of its own, http-01 and dns-01 in turn, and both side by side where it
matters. After one write and before the next the cluster is the same, but the process may have
done what is no write: answered a challenge, taken an answer away, read something. The renewals
are those of the same releases: by then each is due. Collecting is part of a renewal here, since
nothing is retained.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest

from e2e.harness import (
    KILLED,
    Certbaton,
    leaf_hash,
    name_of,
    not_before,
    proofs,
    served_leaf,
    until,
)
from e2e.history import History
from e2e.writes import FIRST, RENEWAL
from lab.process import Process
from lab.world import NAMESPACE, World

pytestmark = pytest.mark.servers

Obj = dict[str, Any]
T = TypeVar("T")
U = TypeVar("U")

LIFETIME_S = 500
DUE_AFTER = 0.1
KINDS = ("http", "dns")


def moments(writes: list[str]) -> list[str]:
    """Where to die: before and after each write."""
    return [f"{when}:{n}" for n in range(1, len(writes) + 1) for when in ("before", "after")]


def label(moment: str, writes: list[str]) -> str:
    when, number = moment.split(":")
    return f"{when}-{number}-{writes[int(number) - 1].replace(' ', '-')}"


def places_of(what: str) -> set[int]:
    """
    Where that is, in the moments of either list: a renewal is one of what was issued there.

    Just after the answer to a challenge was given to the CA, and before one has to be in place or
    to be taken away.
    """
    found = set()
    for writes in (FIRST, RENEWAL):
        challenge = writes.index("acme challenge") + 1
        closed = writes.index("cluster apply Service") + 2
        them = {
            "given": [f"after:{challenge}"],
            "there": [f"before:{challenge}", f"before:{closed}"],
        }
        found |= {moments(writes).index(moment) for moment in them[what]}
    return found


def names_at(moment: str, writes: list[str]) -> list[str]:
    """
    The releases that die then, of both types where the answer was just given to the CA.

    What DNS has is there without the process, so dns-01 dies where it has to be.
    """
    place = moments(writes).index(moment)
    kinds: tuple[str, ...] = (KINDS[(place + place // 2) % 2],)
    if place in places_of("given"):
        kinds = KINDS
    elif place in places_of("there"):
        kinds = ("dns",)
    return [f"{kind}-{place}" for kind in kinds]


class Cases:
    """The releases of this module, made as they are asked for."""

    def __init__(self, world: World, history: History) -> None:
        self.world = world
        self.history = history
        self._made: dict[str, Certbaton] = {}
        self._lock = threading.Lock()

    def release(self, name: str) -> Certbaton:
        """A release whose certificate, Service and DNS name are called like itself."""
        with self._lock:
            if name in self._made:
                return self._made[name]
        self.world.add_service("shop", name, f"{name}.example.test")
        solver = name.partition("-")[0]
        config = self.world.configuration(
            self.world.certificate(name, [f"{name}.example.test"], [("shop", name)], solver=solver),
            healthPort=0,
            policy={
                "renewLeftShort": 1 - DUE_AFTER,
                "keepPrevious": 0,
                "retentionShare": 0,
                "sweepShare": 0,
                "pollListener": "100ms",
                "backOff": ["1s"],
            },
        )
        made = Certbaton(self.world, config, release=name)
        with self._lock:
            self._made[name] = made
        return made

    def issued(self, name: str) -> Certbaton:
        """That release with its first version served, and due by now."""
        certbaton = self.release(name)
        if not certbaton.versions(name):
            ended = certbaton.once()
            assert ended.code == 0, ended
        (version,) = certbaton.versions(name)
        due = not_before(version) + timedelta(seconds=LIFETIME_S * (DUE_AFTER + 0.02))
        until(lambda: datetime.now(UTC) > due, f"{name} is not due", LIFETIME_S)
        return certbaton

    def settled(self, certbaton: Certbaton) -> Obj:
        """What must be true of a release at rest; its one version."""
        name = certbaton.release
        versions = certbaton.versions(name)
        assert len(versions) == 1, [name_of(version) for version in versions]
        assert self.world.tls_secret("shop", name) == name_of(versions[0])
        assert served_leaf(self.world, "shop", name) == leaf_hash(versions[0])
        assert proofs(versions[0]) == {f"shop/{name}": "wire"}
        journal = certbaton.journal(name)
        assert "pending" not in journal
        assert "failures" not in journal
        assert journal["lastVersion"] == name_of(versions[0])
        assert self.history.dangling(only=name) == []
        assert self.world.dns is not None
        assert self.world.dns.txt(f"_acme-challenge.{name}.example.test.") == []
        return versions[0]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(
        lifetime=LIFETIME_S, poll_interval=0.2, interruption=0.1, dns=True, workers=3
    ) as world:
        world.install(world.configuration())
        yield world


@pytest.fixture(scope="module")
def cases(world: World) -> Iterator[Cases]:
    with History(world.plane.admin, NAMESPACE) as history:
        yield Cases(world, history)


def each(step: Callable[[T], U], them: Iterable[T]) -> list[U]:
    """The same step with all of them at the same time."""
    with ThreadPoolExecutor(len(KINDS)) as pool:
        return list(pool.map(step, them))


def reused(writes: list[str]) -> list[str]:
    """With the authorization of before: Pebble, told to reuse none, reuses one in a hundred."""
    found = [write for write in writes if write != "acme challenge"]
    # ready at once: that it is about to be finalized is written with its URL
    del found[found.index("acme finalize") - 1]
    return found


def die_and_come_back(certbaton: Certbaton, moment: str, writes: list[str]) -> None:
    """
    Die at *moment*, and be started again until there is nothing left to do.

    Once is enough. Only where http-01's answer went with the process while the CA was asking for
    it, that validation has failed: the second start says so, and the third has a new order.
    """
    number = int(moment.partition(":")[2])
    died = certbaton.once(CERTBATON_CRASH_AT=moment, CERTBATON_WRITE_LOG=str(certbaton.write_log))
    # A write is told before it is made.
    assert certbaton.writes() in (writes[:number], reused(writes)[:number])
    assert died.code == KILLED or (died.code == 0 and number > len(certbaton.writes())), died
    ended = certbaton.once()
    if moment == f"after:{writes.index('acme challenge') + 1}" and ended.code == 1:
        assert certbaton.release.startswith("http"), ended
        (failure,) = certbaton.journal(certbaton.release)["failures"].values()
        assert "unauthorized" in failure["message"]
        until(lambda: certbaton.once().code == 0, "never settled")
        return
    assert ended.code == 0, ended


# A first issuance


def test_the_writes_of_a_first_issuance_are_these(cases: Cases) -> None:
    """If this list grows, the crashes below grow with it."""

    def issue(certbaton: Certbaton) -> None:
        ended = certbaton.once(CERTBATON_WRITE_LOG=str(certbaton.write_log))
        assert ended.code == 0, ended
        assert certbaton.writes() == FIRST

    releases = [cases.release(f"{kind}-calm") for kind in KINDS]
    each(issue, releases)
    each(cases.settled, releases)


@pytest.mark.parametrize("moment", moments(FIRST), ids=lambda moment: label(moment, FIRST))
def test_a_first_issuance_survives_a_kill(cases: Cases, moment: str) -> None:
    """One version is served, by one certificate of the CA, and nothing is left behind."""
    releases = [cases.release(name) for name in names_at(moment, FIRST)]
    issued = cases.world.pebble.certificates_issued()
    each(lambda certbaton: die_and_come_back(certbaton, moment, FIRST), releases)
    each(cases.settled, releases)
    assert cases.world.pebble.certificates_issued() - issued == len(releases)


def test_a_first_issuance_that_dies_after_every_second_write_gets_there(cases: Cases) -> None:
    """No start gets further than two writes, and each goes on from where the last one died."""

    def live(certbaton: Certbaton) -> None:
        for _ in FIRST:
            ended = certbaton.once(CERTBATON_CRASH_AT="after:2")
            if ended.code == 0:
                return
            assert ended.code == KILLED, ended
        raise AssertionError("it never got to the end")

    issued = cases.world.pebble.certificates_issued()
    live(cases.release("dns-often"))
    cases.settled(cases.release("dns-often"))
    assert cases.world.pebble.certificates_issued() - issued == 1


# A renewal


def test_the_writes_of_a_renewal_are_these(cases: Cases) -> None:
    """If this list grows, the crashes below grow with it."""

    def renew(certbaton: Certbaton) -> None:
        ended = certbaton.once(CERTBATON_WRITE_LOG=str(certbaton.write_log))
        assert ended.code == 0, ended
        assert certbaton.writes() in (RENEWAL, reused(RENEWAL))

    releases = each(cases.issued, [f"{kind}-calm" for kind in KINDS])
    each(renew, releases)
    each(cases.settled, releases)


@pytest.mark.parametrize("moment", moments(RENEWAL), ids=lambda moment: label(moment, RENEWAL))
def test_a_renewal_survives_a_kill(cases: Cases, moment: str) -> None:
    """The new version is served, by one certificate of the CA; the old one is collected."""
    releases = each(cases.issued, names_at(moment, RENEWAL))
    before = [name_of(version) for version in each(cases.settled, releases)]
    issued = cases.world.pebble.certificates_issued()
    each(lambda certbaton: die_and_come_back(certbaton, moment, RENEWAL), releases)
    after = [name_of(version) for version in each(cases.settled, releases)]
    assert not set(before) & set(after)
    assert cases.world.pebble.certificates_issued() - issued == len(releases)


# The daemon itself


def test_the_running_daemon_killed_after_finalize_goes_on_when_it_is_started_again(
    cases: Cases,
) -> None:
    """``run`` does what ``once`` does: the certificate that the CA signed meanwhile is taken."""
    certbaton = cases.release("http-run")
    issued = cases.world.pebble.certificates_issued()
    place = FIRST.index("acme finalize") + 1
    died = certbaton.start(CERTBATON_CRASH_AT=f"after:{place}")
    assert died.wait(30) == KILLED, died.log_tail()
    certbaton.forget_lease()
    until(lambda: cases.world.pebble.certificates_issued() > issued, "nothing was signed")

    def served(daemon: Process) -> bool:
        assert daemon.running, daemon.log_tail()
        return any(proofs(version) for version in certbaton.versions("http-run"))

    with certbaton.start() as daemon:
        until(lambda: served(daemon), "not served")
    cases.settled(certbaton)
    assert cases.world.pebble.certificates_issued() - issued == 1
