"""
Other hands in the cluster: hand-made Secrets, GitOps, pauses, deletions, windows.

Each story is run once as it is, and once for each write, with a crash before or after it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from certbaton.cluster import Cluster, Kind
from certbaton.cluster.contract import Obj
from certbaton.cluster.services import TLS_SECRET
from certbaton.model import PAUSED, CertificateSpec, KeyType, ObjectRef, RolloutWindow
from certbaton.pki import PrivateKey
from certbaton.reconcile import Reconciler
from crash.place import BAD_CERTIFICATE, Place
from crash.world import ADDRESS_PREFIX, LIFETIME, RESTART_TAKES, START, Crash, Moment, _named
from fakes.x509 import hierarchy

DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
FIRST, SECOND = ObjectRef("team-1", "shop"), ObjectRef("team-2", "shop")
LEGACY = ObjectRef("certbaton", "legacy")
RENEWED = START + 61 * DAY


class Told(Place):
    """A place with other hands in it; one process lives until it crashes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._alive: tuple[Cluster, Reconciler] | None = None
        self.deaths = 0

    def configure(self, spec: CertificateSpec) -> None:
        """Another configuration, and so a new process."""
        self.spec, self._alive = spec, None

    def run(self, until: datetime, turns: int = 3000) -> Told:
        """Let time pass until *until*, with the process that is there."""
        for _ in range(turns):
            if self._alive is None:
                self._alive = self.process()
            cluster, reconciler = self._alive
            try:
                cluster.refresh()
                report = reconciler.turn(self.spec.name)
            except Crash:
                self.deaths += 1
                self.now += RESTART_TAKES
                self._alive = None
                continue
            wake = min(report.next_at or until, until)
            self.now = max(wake, self.now + timedelta(milliseconds=50))
            if self.now >= until:
                self._control()  # the controller needs nobody who looks
                return self
        raise AssertionError(f"not settled after {turns} turns: {self.writes[-5:]}")

    def annotate(self, ref: ObjectRef, manager: str, **changes: str | None) -> None:
        """Somebody sets or takes away annotations of a Service."""
        names = {"tls_secret": TLS_SECRET, "paused": PAUSED}
        found = {names[key]: value for key, value in changes.items()}
        self.api.client(manager).merge(Kind.SERVICE, ref, {"metadata": {"annotations": found}})
        if "tls_secret" in changes:
            self.changed_at[ref] = self.now

    def named_at(self, ref: ObjectRef) -> str | None:
        found = _named(self._there(Kind.SERVICE)[ref], ref)
        return found.name if found else None

    def hand_made(self, begins: datetime, lasts: timedelta = LIFETIME) -> None:
        """A Secret by hand, for the right names."""
        key = PrivateKey.generate(KeyType.EC_P256)
        chain = hierarchy().sign(
            key.unwrapped.public_key(), self.spec.names, begins, begins + lasts
        )
        body: Obj = {
            "metadata": {"name": LEGACY.name, "namespace": LEGACY.namespace},
            "type": "kubernetes.io/tls",
            "data": {"tls.crt": _b64(chain), "tls.key": _b64(key.pem)},
        }
        self.api.client("kubectl").create(Kind.SECRET, LEGACY.namespace, body)

    def delete(self, ref: ObjectRef) -> None:
        """Somebody deletes a Secret."""
        there = self.api.read(Kind.SECRET, ref)["metadata"]
        self.api.client("kubectl").delete(Kind.SECRET, ref, there["uid"], there["resourceVersion"])

    def secret(self, ref: ObjectRef) -> object:
        return self.api.read(Kind.SECRET, ref)["data"]


def _b64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


# --- the stories --------------------------------------------------------------------------------


def adoption(world: Told) -> None:
    """Both name a hand-made Secret, a month old: it does for another month, then ours comes."""
    world.hand_made(START - 30 * DAY)
    for ref in world.targets:
        world.annotate(ref, "kubectl", tls_secret=str(LEGACY))
    before = world.secret(LEGACY)
    world.run(START + 28 * DAY)
    assert world.ca.issued == []
    assert world.named() == {"legacy"}
    world.run(START + 34 * DAY)
    assert len(world.ca.issued) == 1
    assert world.named() == set(world.versions()) - {"legacy"}
    assert world.secret(LEGACY) == before, "the hand-made one is left alone"
    cluster, _ = world.process()
    cluster.refresh()
    journal = cluster.store.journal(world.spec.name)
    assert journal is not None
    assert journal.originals == {str(ref): str(LEGACY) for ref in world.targets}
    assert journal.drift == {}


def refused_adoption(world: Told) -> None:
    """Ours is refused everywhere: the hand-made one comes back, and stays."""
    world.refuses = lambda ref, n: BAD_CERTIFICATE if n > 1 else None
    world.hand_made(START - 58 * DAY)
    for ref in world.targets:
        world.annotate(ref, "kubectl", tls_secret=str(LEGACY))
        world.number("legacy")
    world.run(START + 4 * DAY)
    assert world.named() == {"legacy"}
    # due at 60 days, refused by both; then after D, by both as well
    assert 2 <= len(world.ca.issued) <= 3
    flips = [leaves for leaves in world.history.values() if len(leaves) > 1]
    assert flips == [], "no listener served anything else"


def gitops(world: Told) -> None:
    """Argo CD puts back what its repository says, a second after each write of ours."""
    world.run(START + DAY)
    written = len(world.writes)
    pinned = world.named_at(FIRST)
    assert pinned is not None
    world.run(RENEWED)
    fresh = world.named_at(FIRST)
    assert fresh != pinned
    world.hand_made(world.now - DAY, timedelta(days=30))
    end = world.now + 10 * DAY
    undone = 0
    while world.now < end:
        if world.named_at(FIRST) != "legacy":
            undone += 1
            world.annotate(FIRST, "argocd-controller", tls_secret=str(LEGACY))
        world.run(world.now + 2 * HOUR)
    assert written < len(world.writes)
    # five within the first hours, then one a day
    assert 5 <= undone <= 18, undone
    assert world.named_at(SECOND) == fresh
    assert len(world.ca.issued) == 2, "nobody who writes a Service brings an order"


def pause(world: Told) -> None:
    """A paused Service keeps what it has; unpaused, it gets what the other has."""
    world.run(START + DAY)
    old = world.named_at(FIRST)
    world.annotate(FIRST, "kubectl", paused="true")
    world.run(RENEWED + 3 * DAY)
    assert world.named_at(FIRST) == old
    assert world.named_at(SECOND) != old
    assert old in world.versions(), "it is named"
    world.annotate(FIRST, "kubectl", paused=None)
    world.run(RENEWED + 4 * DAY)
    assert world.named() == {world.named_at(SECOND)}
    world.run(RENEWED + 7 * DAY)
    assert set(world.versions()) == world.named()
    assert len(world.ca.issued) == 2


def paused_certificate(world: Told) -> None:
    """No order while it is paused, and one afterwards."""
    world.run(START + DAY)
    spec = world.spec
    world.configure(replace(spec, paused=True))
    writes = len(world.writes)
    world.run(RENEWED + 5 * DAY)
    assert len(world.writes) == writes
    world.configure(spec)
    world.run(RENEWED + 8 * DAY)
    assert len(world.ca.issued) == 2
    assert len(world.versions()) == 1


def windows(world: Told) -> None:
    """Renewed at once when due, handed over on Sunday night."""
    world.configure(replace(world.spec, windows=(RolloutWindow("0 2 * * 0", 2 * HOUR),)))
    world.run(START + HOUR)
    first = world.named()
    assert len(first) == 1, "the very first does not wait"
    world.run(START + 60 * DAY + HOUR)
    assert len(world.ca.issued) == 2
    # START is a Monday, and so is the 56th day; the window opens on the 62nd
    opens = START.replace(hour=2, minute=0, second=0, microsecond=0) + 62 * DAY
    world.run(opens)
    assert world.named() == first
    world.run(opens + 10 * MINUTE)
    assert world.named().isdisjoint(first)
    assert len(world.named()) == 1
    assert len(world.ca.issued) == 2


def deleted(world: Told) -> None:
    """Somebody deletes what both Services name: the same name and content come back at once."""
    world.run(START + DAY)
    (name,) = world.named()
    ref = ObjectRef("certbaton", name)
    before = world.secret(ref)
    world.delete(ref)
    history = {ref: list(leaves) for ref, leaves in world.history.items()}
    crashed = world.lives
    world.broken.clear()
    world.run(world.now + MINUTE)
    world.broken.clear()  # it was missing until then, and that was not our doing
    world.run(START + 2 * DAY)
    if world.lives == crashed:
        assert world.secret(ref) == before
        assert world.named() == {name}
        assert world.history == history
        assert len(world.ca.issued) == 1
    else:  # it died with what it remembered: the next best is an order
        assert len(world.ca.issued) <= 2
    assert world.named() == set(world.versions())


def deleted_journal(world: Told) -> None:
    """Nobody orders for want of a Journal."""
    world.run(START + DAY)
    cluster, _ = world.process()
    cluster.refresh()
    for ref in [ref for ref in world._there(Kind.SECRET) if ref.name.startswith("journal.")]:
        world.delete(ref)
    lives = world.lives
    world.run(START + 59 * DAY)
    assert len(world.ca.issued) == 1
    if world.lives == lives:  # else it died with what it remembered
        cluster, _ = world.process()
        cluster.refresh()
        back = cluster.store.journal(world.spec.name)
        assert back is not None and len(back.orders) == 1
    world.run(RENEWED + 2 * DAY)
    assert len(world.ca.issued) == 2
    assert world.named() == set(world.versions())


def journal_deleted_while_the_ca_signs(world: Told) -> None:
    """It comes back with its key, and the certificate that was signed is used."""
    world.ca.issuance_time = timedelta(minutes=10)
    world.run(START + 3 * MINUTE)
    lives = world.lives
    for ref in [ref for ref in world._there(Kind.SECRET) if ref.name.startswith("journal.")]:
        world.delete(ref)
    world.run(START + DAY)
    # if it died between, with what it remembered, another one is ordered
    assert len(world.ca.issued) <= 1 + world.lives - lives
    assert world.named() == set(world.versions())
    assert len(world.named()) == 1
    assert world.answers == {} or world.lives > lives


def recreated(world: Told) -> None:
    """A Service is deleted and made anew, with another load balancer: no order, the same again."""
    world.run(START + DAY)
    (name,) = world.named()
    there = world.api.read(Kind.SERVICE, FIRST)["metadata"]
    world.api.client("kubectl").delete(Kind.SERVICE, FIRST, there["uid"], there["resourceVersion"])
    world.run(START + 2 * DAY)
    world.served.pop(FIRST, None)
    world._tried.pop(FIRST, None)
    world._add_service(FIRST, "127.0.0.1")
    world.run(START + 3 * DAY)
    assert world.named_at(FIRST) == name
    assert len(world.ca.issued) == 1
    assert len(world.history[FIRST]) == 1
    world.run(RENEWED + 2 * DAY)
    assert len(world.ca.issued) == 2
    assert world.named() == set(world.versions())


def restored(world: Told) -> None:
    """Services from a backup name what is nowhere: they get their load balancers, then ours."""
    for ref in world.targets:
        world.api.set_status(Kind.SERVICE, ref, {"loadBalancer": {}})
        nowhere = {"metadata": {"annotations": {TLS_SECRET: "certbaton/shop-20200101-0123456789"}}}
        world.api.client("kubectl").merge(Kind.SERVICE, ref, nowhere)
    world.run(START + MINUTE)
    world.broken.clear()  # until then they named what was not there, by no doing of ours
    given_up = [write for write in world.writes if write.startswith("cluster merge Service")]
    assert len(given_up) in (2, 3)  # the one after which it died is not carried out twice
    for number, ref in enumerate(world.targets, start=1):
        ingress = [{"ip": f"{ADDRESS_PREFIX}{number}", "ipMode": "Proxy"}]
        world.api.set_status(Kind.SERVICE, ref, {"loadBalancer": {"ingress": ingress}})
    world.run(START + DAY)
    assert len(world.ca.issued) == 1
    assert world.named() == set(world.versions())
    assert len(set(world.served.values())) == 1


def names_change(world: Told) -> None:
    """A name more, while the renewal is on its way: each listener changes once for each."""
    world.run(START + 60 * DAY + timedelta(seconds=3))
    world.configure(replace(world.spec, names=("api.example.test", *world.spec.names)))
    world.run(START + 64 * DAY)
    # of two made in one second, the one for the old names may stay for being proven
    assert len(world.versions()) <= 2
    assert len(world.named()) == 1
    cluster, _ = world.process()
    cluster.refresh()
    (used,) = [v for v in cluster.store.versions() if v.ref.name in world.named()]
    assert used.leaf is not None and used.leaf.names == world.spec.names
    assert len(world.ca.issued) <= 3
    for leaves in world.history.values():
        assert len(leaves) == len(set(leaves)), "none came back"


STORIES: dict[str, Callable[[Told], None]] = {
    "adoption": adoption,
    "refused adoption": refused_adoption,
    "gitops": gitops,
    "pause": pause,
    "paused certificate": paused_certificate,
    "windows": windows,
    "deleted": deleted,
    "deleted Journal": deleted_journal,
    "Journal deleted while the CA signs": journal_deleted_while_the_ca_signs,
    "recreated": recreated,
    "restored": restored,
    "names change": names_change,
}


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
def test_other_hands(story: Callable[[Told], None]) -> None:
    """As told in the story; then with a crash before or after each write of it."""
    found = Told(services=2)
    story(found)
    assert found.broken == []
    steps = 9 if story is gitops else 1
    for number in range(1, len(found.writes) + 1, steps):
        moment = Moment(("before", "after")[number % 2], number)
        crashed = Told(services=2, crashes=frozenset({moment}))
        try:
            story(crashed)
            assert crashed.broken == []
            assert crashed.deaths <= 1
        except AssertionError as error:
            raise AssertionError(f"{moment}, {found.writes[number - 1]}: {error}") from error
