"""
Two instances of certbaton in one cluster, with one Service in both configurations.

The real loop of both, over one API server and one CA in memory, for simulated days.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from certbaton.cluster import Kind
from certbaton.errors import ClusterUnavailable
from certbaton.model import Instance, ObjectRef, WaitKind
from loop.world import DAY, MINUTE, Process, World, a_spec

FIRST, SECOND = Instance("certbaton", "certbaton"), Instance("certbaton", "elsewhere")
BESIDE = Instance("second", "certbaton")
HOUR = timedelta(hours=1)
WEB = ObjectRef("shop", "web")


class Two(World):
    """Both instances are configured alike; *second* is FIRST's newcomer."""

    def __init__(self, second: Instance = SECOND, *services: str) -> None:
        super().__init__(a_spec("shop", *(services or ("web",))))
        self.second = second
        self.alive: dict[Instance, Process] = {}
        self.dead: set[Instance] = set()
        self.history: list[str] = []
        self.asked: list[str] = []
        self.soon: datetime | None = None
        self.watch = self.asked.append

    def start(self, instance: Instance, *take_over_from: Instance) -> Process:
        """A new life of *instance*, which renews its Lease from now on."""
        self.dead.discard(instance)
        self.alive[instance] = self.process(
            instance=instance, take_over_from=frozenset(take_over_from)
        )
        self.beat(instance)
        return self.alive[instance]

    def stop(self, instance: Instance) -> None:
        """It dies without a word."""
        del self.alive[instance]

    def beat(self, instance: Instance, holder: str = "somebody") -> None:
        """Renew a Lease, or give it up."""
        ref = ObjectRef(instance.namespace, instance.release)
        spec = {
            "holderIdentity": holder,
            "leaseDurationSeconds": 60 if holder else 1,
            "renewTime": self.now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        if ref in self.api.all(Kind.LEASE):
            self.api.merge(Kind.LEASE, ref, {"spec": spec})
        else:
            body = {"metadata": {"name": ref.name, "namespace": ref.namespace}, "spec": spec}
            self.api.create(Kind.LEASE, ref.namespace, body)

    def turn(self, *only: Instance) -> None:
        """A turn of each that lives."""
        for instance in only or tuple(self.alive):
            if instance not in self.alive:
                continue
            self.beat(instance)
            report = self.alive[instance].turn("shop")
            in_flight = [w.until for w in report.waits if w.kind is WaitKind.IN_FLIGHT]
            self.soon = min([*in_flight, *([self.soon] if self.soon else [])], default=None)
            named = self.holder()
            if not self.history or self.history[-1] != named:
                self.history.append(named)

    def run(self, span: timedelta, step: timedelta = 10 * MINUTE) -> None:
        """Let time pass, with a turn of each that lives every *step*, or when it asked for it."""
        end = self.now + span
        while self.now < end:
            soon, self.soon = self.soon, None
            self.now = max(self.now + MINUTE, min(self.now + step, soon or end, end))
            self.turn()

    def holder(self, service: str = "web") -> str:
        """Whose name stands on the Service's tls-secret."""
        obj = self.api.read(Kind.SERVICE, ObjectRef("shop", service))
        for entry in obj["metadata"].get("managedFields", []):
            annotations = entry["fieldsV1"].get("f:metadata", {}).get("f:annotations", {})
            if "f:service.beta.kubernetes.io/oci-load-balancer-tls-secret" in annotations:
                return str(entry["manager"])
        return ""

    def lease_reads(self) -> int:
        """How often anybody asked for a Lease since the last call of this."""
        found = sum(1 for what in self.asked if what.startswith("read Lease"))
        self.asked.clear()
        return found


@pytest.fixture(params=[SECOND, BESIDE], ids=["other namespace", "same namespace"])
def two(request: pytest.FixtureRequest) -> Two:
    """FIRST has been there for a while; its newcomer starts now."""
    world = Two(request.param)
    world.start(FIRST)
    world.run(HOUR)
    assert world.history == [FIRST.field_manager]
    world.asked.clear()
    return world


def test_alone_nobody_s_lease_is_asked_for(two: Two) -> None:
    """A rollover costs no request more than before."""
    two.run(65 * DAY, HOUR)
    assert len(two.ca.issued) == 2
    assert two.lease_reads() == 0


def test_the_holder_goes_on_and_the_newcomer_says_so(two: Two) -> None:
    """For three months, with renewals: one instance writes, and only it orders."""
    newcomer = two.start(two.second)
    report = newcomer.turn("shop")
    assert [wait.kind for wait in report.waits] == [WaitKind.BACK_OFF]
    assert "certbaton/certbaton" in report.notes[0]
    two.run(90 * DAY, 6 * HOUR)
    assert two.history == [FIRST.field_manager]
    assert len(two.ca.issued) == 2
    assert newcomer.cluster.store.versions() == ()
    assert newcomer.cluster.store.journals() == {}
    events = [
        obj for obj in two.api.all(Kind.EVENT).values() if obj["reason"] == "CertificateClaimed"
    ]
    assert len(events) == 1
    assert events[0]["type"] == "Warning"
    assert "takeOverFrom" in events[0]["message"]


def test_a_lease_is_asked_for_every_ten_minutes_at_most(two: Two) -> None:
    """However many turns there are."""
    two.start(two.second)
    two.lease_reads()
    two.run(2 * HOUR, MINUTE)
    assert 10 <= two.lease_reads() <= 13


def test_rolling_restarts_change_nothing(two: Two) -> None:
    """Of both, over days, with Leases given up in between and pauses of hours."""
    for number in range(12):
        two.start(two.second)
        two.run(3 * HOUR)
        two.stop(FIRST)
        two.beat(FIRST, holder="")
        two.run((1 + number) * HOUR)
        two.start(FIRST)
        two.run(HOUR)
        two.stop(two.second)
    assert two.history == [FIRST.field_manager]


def test_an_api_server_that_is_away_changes_nothing(two: Two) -> None:
    """For minutes, and for two days: who comes back first has not heard the other for so long."""
    newcomer = two.start(two.second)
    two.turn()
    for away in (5 * MINUTE, 2 * DAY):
        two.now += away / 2
        two.fail("read Lease", ClusterUnavailable("away"))
        newcomer.turn("shop")
        two.now += away / 2
        newcomer.turn("shop")
        newcomer.turn("shop")
        two.turn()
    assert two.history == [FIRST.field_manager]


@pytest.mark.parametrize("later", [MINUTE, 30 * MINUTE, 59 * MINUTE], ids=str)
def test_a_cluster_that_was_switched_off_for_a_week_changes_nothing(
    two: Two, later: timedelta
) -> None:
    """The newcomer is up first, and finds a Lease a week old; the holder takes its time."""
    two.start(two.second)
    two.turn()
    two.now += 7 * DAY
    newcomer = two.start(two.second)
    report = newcomer.turn("shop")
    assert [wait.kind for wait in report.waits] == [WaitKind.IN_FLIGHT]
    up = two.now + later
    while two.now < up:
        newcomer.turn("shop")
        two.now += MINUTE / 2
    two.start(FIRST)
    two.turn()
    two.run(2 * DAY)
    assert two.history == [FIRST.field_manager]


def test_a_machine_that_slept_for_a_week_changes_nothing(two: Two) -> None:
    """Nobody was restarted; the newcomer wakes first, and has heard nothing for a week."""
    newcomer = two.start(two.second)
    two.run(HOUR)
    two.now += 7 * DAY
    for _ in range(5):
        newcomer.turn("shop")
        two.now += MINUTE / 6
    two.turn()  # the holder is up
    two.run(2 * DAY)
    assert two.history == [FIRST.field_manager]


def test_a_clock_two_days_ahead_takes_nothing(two: Two) -> None:
    """What is renewed while somebody looks on is alive, whatever the dates say."""
    two.run(3 * DAY, HOUR)  # its last write is long ago by any clock
    newcomer = two.start(two.second)
    for _ in range(200):
        two.now -= 2 * DAY
        two.beat(FIRST)
        two.now += 2 * DAY + MINUTE
        newcomer.turn("shop")
        assert two.holder() == FIRST.field_manager


def test_a_holder_that_stays_away_after_that_has_lost_it_in_the_end(two: Two) -> None:
    """An hour under the newcomer's eyes, and a week by the Lease."""
    two.stop(FIRST)
    two.now += 7 * DAY
    two.start(two.second)
    two.run(59 * MINUTE)
    assert two.history == [FIRST.field_manager]
    two.run(70 * DAY, 6 * HOUR)
    assert two.history == [FIRST.field_manager, two.second.field_manager]


def silence(world: Two, step: timedelta = 10 * MINUTE) -> timedelta:
    """The holder dies; how long it takes until the newcomer has the Service."""
    world.stop(FIRST)
    died = world.now
    while world.holder() == FIRST.field_manager:
        world.run(step, step)
        assert world.now < died + 100 * DAY, "the newcomer never takes over"
    return world.now - died


def test_a_day_after_the_holder_died_the_newcomer_has_it() -> None:
    """From another namespace, where the old Secret cannot be read: at once, with its own."""
    two = Two()
    two.start(FIRST)
    two.run(HOUR)
    two.start(SECOND)
    two.run(HOUR)
    taken = silence(two)
    assert DAY <= taken <= DAY + 20 * MINUTE
    two.run(HOUR)
    # what goes with it is looked after as well
    two.api.merge(
        Kind.SERVICE,
        WEB,
        {
            "spec": {
                "ports": [
                    {"name": "http", "port": 80, "protocol": "TCP", "targetPort": 9090},
                    {"name": "https", "port": 443, "protocol": "TCP", "targetPort": 8080},
                ]
            }
        },
    )
    two.run(HOUR)
    ports = {
        port["port"]: port["targetPort"]
        for port in two.api.read(Kind.SERVICE, WEB)["spec"]["ports"]
    }
    assert ports == {80: 9090, 443: 9090}
    # the old holder is the newcomer when it is back
    two.start(FIRST)
    two.run(70 * DAY, 6 * HOUR)
    assert two.history == [FIRST.field_manager, SECOND.field_manager]


def test_from_the_same_namespace_it_is_taken_over_when_it_is_due() -> None:
    """The old Secret can be read, and is used up first; nothing is late."""
    two = Two(BESIDE)
    two.start(FIRST)
    two.run(HOUR)
    two.start(BESIDE)
    two.run(HOUR)
    taken = silence(two, 8 * HOUR)
    assert 58 * DAY <= taken <= 62 * DAY
    assert len(two.ca.issued) == 2


def test_without_a_lease_a_day_after_the_last_write() -> None:
    """An instance that never had one, or whose Lease was deleted with it."""
    two = Two()
    two.start(FIRST)
    two.run(HOUR)
    lease = two.api.all(Kind.LEASE)[ObjectRef("certbaton", "certbaton")]["metadata"]
    two.start(SECOND)
    two.stop(FIRST)
    two.api.delete(
        Kind.LEASE, ObjectRef("certbaton", "certbaton"), lease["uid"], lease["resourceVersion"]
    )
    two.run(22 * HOUR)
    assert two.history == [FIRST.field_manager]
    two.run(2 * HOUR)
    assert two.history == [FIRST.field_manager, SECOND.field_manager]


def test_take_over_from_takes_it_from_the_living(two: Two) -> None:
    """At once, whatever its Secret is worth; the old holder gives way, and does not come back."""
    two.start(two.second, FIRST)
    two.run(HOUR)
    assert two.holder() == two.second.field_manager
    assert two.lease_reads() <= 7  # the old holder's, of whom it is now
    two.run(100 * DAY, 6 * HOUR)
    assert two.history == [FIRST.field_manager, two.second.field_manager]
    assert len(two.ca.issued) == 3


def test_two_that_take_over_from_each_other_tire_of_it(two: Two) -> None:
    """An operator's mistake: twice a day at most, in the end."""
    two.start(FIRST, two.second)
    two.start(two.second, FIRST)
    two.run(2 * DAY, HOUR / 2)
    first_days = len(two.history)
    assert first_days < 20
    two.run(4 * DAY, HOUR / 2)
    assert len(two.history) - first_days <= 8
    assert len(two.ca.issued) == 2


def test_only_the_claimed_service_is_left_out() -> None:
    """The newcomer serves what is free, and hands it over whole."""
    two = Two(SECOND, "web", "api")
    two.start(FIRST)
    body = two.api.all(Kind.SERVICE)[ObjectRef("shop", "api")]["metadata"]
    two.api.delete(Kind.SERVICE, ObjectRef("shop", "api"), body["uid"], body["resourceVersion"])
    two.run(HOUR)
    two.stop(FIRST)
    newcomer = two.start(SECOND)
    two.add_service("api")
    two.run(HOUR)
    assert two.holder("api") == SECOND.field_manager
    assert two.holder("web") == FIRST.field_manager
    version = newcomer.cluster.store.versions()[0]
    assert list(version.served) == ["shop/api"]
    assert "CertificateFailed" not in two.events()


def test_a_person_in_between_does_not_hand_it_to_the_newcomer(two: Two) -> None:
    """What a person changes is the holder's to put back; it is still its Service."""
    newcomer = two.start(two.second)
    two.run(20 * MINUTE)
    annotations = {"service.beta.kubernetes.io/oci-load-balancer-tls-secret": "by-hand"}
    two.api.merge(Kind.SERVICE, WEB, {"metadata": {"annotations": annotations}})
    for _ in range(5):
        newcomer.turn("shop")
    assert two.named("web") == "by-hand"
    two.run(HOUR)
    assert two.holder() == FIRST.field_manager
    assert newcomer.cluster.store.versions() == ()
