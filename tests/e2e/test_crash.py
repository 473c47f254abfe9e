"""
``kill -9`` between any two writes: the next start ends as if nothing had happened.

Each case is a release of its own, http-01 and dns-01 in turn, and both side by side where it
matters. The renewals are those of the same releases: by then each is due. Collecting
is part of a renewal here, since nothing is retained.
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

LIFETIME_S = 200
DUE_AFTER = 0.1
KINDS = ("http", "dns")


def moments(writes: list[str]) -> list[str]:
    """
    Where to die: after each write, and before those that follow what is no write.

    Before the first; before the challenge is answered, when its answer is in place already; and
    before the order is closed, when its answer is taken away again.
    """
    closed = writes.index("cluster apply Service") + 1
    assert writes[closed] == "cluster merge Secret"
    before = [0, writes.index("acme challenge"), closed]
    return [f"before:{number + 1}" for number in before] + [
        f"after:{number}" for number in range(1, len(writes))
    ]


def label(moment: str, writes: list[str]) -> str:
    when, number = moment.split(":")
    return f"{when}-{number}-{writes[int(number) - 1].replace(' ', '-')}"


# Where the answer was just given to the CA: both types.
BOTH = {
    moments(writes).index(f"after:{writes.index('acme challenge') + 1}")
    for writes in (FIRST, RENEWAL)
}
# What DNS has is there without the process: before it is asked for, and before it is taken away.
DNS_ONLY = {1, 2}


def names_at(place: int) -> list[str]:
    """The releases that die at that place of the list of moments."""
    kinds = KINDS if place in BOTH else ("dns",) if place in DNS_ONLY else (KINDS[place % 2],)
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
        assert "failure" not in journal
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


def die_and_come_back(certbaton: Certbaton, moment: str, writes: list[str]) -> None:
    """
    Die at *moment*, and be started again until there is nothing left to do.

    Once is enough. Only where http-01's answer went with the process while the CA was asking for
    it, that validation has failed: the second start says so, and the third has a new order.
    """
    number = int(moment.partition(":")[2])
    died = certbaton.once(CERTBATON_CRASH_AT=moment, CERTBATON_WRITE_LOG=str(certbaton.write_log))
    assert died.code == KILLED, died
    assert certbaton.writes() == writes[:number]
    ended = certbaton.once()
    if moment == f"after:{writes.index('acme challenge') + 1}" and ended.code == 1:
        assert certbaton.release.startswith("http"), ended
        assert "unauthorized" in certbaton.journal(certbaton.release)["failure"]["message"]
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
    releases = [cases.release(name) for name in names_at(moments(FIRST).index(moment))]
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
        assert certbaton.writes() == RENEWAL

    releases = each(cases.issued, [f"{kind}-calm" for kind in KINDS])
    each(renew, releases)
    each(cases.settled, releases)


@pytest.mark.parametrize("moment", moments(RENEWAL), ids=lambda moment: label(moment, RENEWAL))
def test_a_renewal_survives_a_kill(cases: Cases, moment: str) -> None:
    """The new version is served, by one certificate of the CA; the old one is collected."""
    releases = each(cases.issued, names_at(moments(RENEWAL).index(moment)))
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
