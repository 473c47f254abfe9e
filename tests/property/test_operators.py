"""
Whatever people, clouds and other controllers do in any order: nothing is lost, nothing breaks.

A stateful test over the real core and the real hands. It looks for outages, false rejections,
wasted orders, flip-flops and starvation. CERTBATON_STORIES is how many stories it tries, and
CERTBATON_SEED another row of them.
"""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from certbaton import pki
from certbaton.cluster import Cluster, Kind
from certbaton.cluster.services import TLS_SECRET
from certbaton.core import reject
from certbaton.model import KeyType, Leaf, ObjectRef, RenewalAnswer
from certbaton.pki import PrivateKey
from crash.place import BAD_CERTIFICATE, FULL
from crash.world import INSTANCE
from fakes.ca import DIRECTORY
from property.cloud import DAY, HAND_MADE, HOUR, MINUTE, MISSING, SECOND
from property.judging import Judged

STORIES = int(os.environ.get("CERTBATON_STORIES", "25"))
SEED = os.environ.get("CERTBATON_SEED")

SERVICES = [ObjectRef(f"team-{number}", "shop") for number in (1, 2, 3, 4)]
CERTIFICATES = {"shop": INSTANCE, "mail": INSTANCE, "web": SECOND}
SERVICE = st.sampled_from(SERVICES)
CERTIFICATE = st.sampled_from(sorted(CERTIFICATES))
SPANS = st.sampled_from([MINUTE, HOUR, 6 * HOUR, DAY, 3 * DAY, 20 * DAY, 45 * DAY])
FORGED = {
    "limit": ("SyncLoadBalancerFailed", FULL),
    "folded": ("SyncLoadBalancerFailed", "(combined from similar events): " + FULL),
    "of before": ("SyncLoadBalancerFailed", BAD_CERTIFICATE),
    "ended": ("EnsuredLoadBalancer", "Ensured load balancer"),
}


class Operators(RuleBasedStateMachine):
    """Each rule is something that happens in real clusters, if not on one day."""

    cloud: Judged

    @initialize(route=st.sampled_from(["outside", "inside"]))
    def start(self, route: str) -> None:
        self.cloud = Judged(route=route)
        self.cloud.pass_time(6 * HOUR)

    # --- time -------------------------------------------------------------------------------

    @rule(span=SPANS)
    def time_passes(self, span: timedelta) -> None:
        self.cloud.pass_time(span)

    @rule(certificate=CERTIFICATE)
    def a_process_starts_anew(self, certificate: str) -> None:
        self.cloud.alive[CERTIFICATES[certificate]] = None

    # --- operators --------------------------------------------------------------------------

    def _there(self, ref: ObjectRef) -> bool:
        return ref in self.cloud._there(Kind.SERVICE)

    @rule(
        ref=SERVICE,
        value=st.sampled_from([None, str(HAND_MADE), str(MISSING), "older"]),
        manager=st.sampled_from(["kubectl", "argocd-controller"]),
    )
    def somebody_annotates(self, ref: ObjectRef, value: str | None, manager: str) -> None:
        if not self._there(ref):
            return
        if value == "older":
            held = [name for name in CERTIFICATES for name in self.cloud.shown(name)[:1]]
            value = f"certbaton/{held[0]}" if held else None
        self.cloud.annotate(ref, manager, **{TLS_SECRET: value})
        self.cloud.disturb(ref)

    @rule(certificate=CERTIFICATE, which=st.integers(0, 3))
    def somebody_deletes_a_version(self, certificate: str, which: int) -> None:
        names = self.cloud.shown(certificate)
        if not names:
            return
        ref = ObjectRef(CERTIFICATES[certificate].namespace, names[which % len(names)])
        self._delete(ref)
        self.cloud.credit[certificate] += 1
        self.cloud.disturb(*SERVICES)

    @rule(certificate=CERTIFICATE)
    def somebody_deletes_a_journal(self, certificate: str) -> None:
        instance = CERTIFICATES[certificate]
        name = f"journal.{certificate}.{instance}"
        ref = ObjectRef(instance.namespace, name)
        if ref in self.cloud._there(Kind.SECRET):
            journal = self.cloud.life(instance).cluster
            journal.refresh()
            found = journal.store.journal(certificate)
            if found is not None and found.pending is not None:
                self.cloud.credit[certificate] += 1  # its key is gone with it
            self._delete(ref)

    def _delete(self, ref: ObjectRef) -> None:
        there = self.cloud.api.read(Kind.SECRET, ref)["metadata"]
        self.cloud.api.client("kubectl").delete(
            Kind.SECRET, ref, there["uid"], there["resourceVersion"]
        )

    @rule(ref=SERVICE, paused=st.booleans())
    def somebody_pauses_a_service(self, ref: ObjectRef, paused: bool) -> None:
        if self._there(ref):
            value = "true" if paused else None
            self.cloud.annotate(ref, "kubectl", **{"certbaton.io/paused": value})
            far = timedelta(days=3650) if paused else timedelta(0)
            self.cloud.disturbed[ref] = self.cloud.now + far

    @rule(certificate=CERTIFICATE, paused=st.booleans())
    def somebody_pauses_a_certificate(self, certificate: str, paused: bool) -> None:
        instance = CERTIFICATES[certificate]
        specs = self.cloud.specs[instance]
        specs[certificate] = replace(specs[certificate], paused=paused)
        self.cloud.alive[instance] = None
        far = timedelta(days=3650) if paused else timedelta(0)
        for service in specs[certificate].services:
            self.cloud.disturbed[service.ref] = self.cloud.now + far

    @rule(certificate=CERTIFICATE)
    def somebody_asks_for_another_name(self, certificate: str) -> None:
        instance = CERTIFICATES[certificate]
        specs = self.cloud.specs[instance]
        more = f"{certificate}-too.example.test"
        first = f"{certificate}.example.test"
        names = (first,) if more in specs[certificate].names else tuple(sorted((first, more)))
        specs[certificate] = replace(specs[certificate], names=names)
        self.cloud.alive[instance] = None
        self.cloud.credit[certificate] += 1
        self.cloud.disturb(*(service.ref for service in specs[certificate].services))

    @rule(certificate=CERTIFICATE)
    def somebody_asks_for_a_renewal(self, certificate: str) -> None:
        if certificate in self.cloud.next_bad:
            return  # see test_a_place_that_was_full_and_then_answers_with_alerts
        store = self._cluster(certificate).store
        for version in store.versions(certificate):
            store.annotate(version, renew_asked=self.cloud.now)
        self.cloud.credit[certificate] += 1

    @rule(certificate=CERTIFICATE)
    def somebody_changes_the_key_of_an_account(self, certificate: str) -> None:
        store = self._cluster(certificate).store
        account = store.account(DIRECTORY)
        if account is not None and account.url is not None and not account.rolling:
            store.stage_next_key(account, PrivateKey.generate(KeyType.EC_P256))

    def _cluster(self, certificate: str) -> Cluster:
        cluster = self.cloud.life(CERTIFICATES[certificate]).cluster
        cluster.refresh()
        return cluster

    @rule(span=st.sampled_from([MINUTE, HOUR, 6 * HOUR, DAY]))
    def the_ca_is_away(self, span: timedelta) -> None:
        self.cloud.ca_away_until = self.cloud.now + span

    @rule()
    def the_ca_asks_for_early_renewals(self) -> None:
        """Of what is there by now, within a day; each certificate once."""
        until = self.cloud.now
        known = {pki.leaf_of(each.chain).sha256 for each in self.cloud.ca.issued}

        def advise(leaf: Leaf) -> RenewalAnswer | None:
            if leaf.sha256 not in known:
                return None
            return RenewalAnswer(until, until + DAY, "https://ca.test/why", HOUR)

        self.cloud.ca.advise = advise
        for certificate in CERTIFICATES:
            self.cloud.credit[certificate] += 1

    @rule(ref=SERVICE)
    def somebody_deletes_a_service(self, ref: ObjectRef) -> None:
        if not self._there(ref):
            return
        there = self.cloud.api.read(Kind.SERVICE, ref)["metadata"]
        self.cloud.api.client("kubectl").delete(
            Kind.SERVICE, ref, there["uid"], there["resourceVersion"]
        )
        self.cloud.disturb(ref)
        self.cloud.served.pop(ref, None)
        self.cloud.alerting_since.pop(ref, None)
        self.cloud._tried.pop(ref, None)

    @rule(ref=SERVICE)
    def somebody_makes_it_anew(self, ref: ObjectRef) -> None:
        if self._there(ref):
            return
        self.cloud._add_service(ref, f"127.0.0.{SERVICES.index(ref) + 1}")
        self.cloud.changed_at.pop(ref, None)
        self.cloud.disturb(ref)

    @rule(days=st.sampled_from([0, 1, 3]))
    @precondition(lambda self: SECOND in self.cloud.running)
    def the_other_instance_is_away(self, days: int) -> None:
        self.cloud.running = frozenset({INSTANCE})
        self.cloud.pass_time(days * DAY + HOUR)
        self.cloud.running = frozenset({INSTANCE, SECOND})
        self.cloud.alive[SECOND] = None
        self.cloud.disturb(SERVICES[1], SERVICES[3])

    # --- the cloud ----------------------------------------------------------------------------

    @rule(
        certificate=CERTIFICATE,
        where=st.sets(SERVICE, min_size=1),
        how=st.sampled_from(["400", "alert"]),
    )
    def the_next_version_will_be_refused(
        self, certificate: str, where: set[ObjectRef], how: str
    ) -> None:
        if certificate not in self.cloud.next_bad:
            self.cloud.next_bad[certificate] = frozenset(where), how
            # one for the refusal, one for a Service that is sick with it
            self.cloud.credit[certificate] += 2
            for ref in where:
                self.cloud.touched[ref] += 1
                self.cloud.refused_until[ref] = self.cloud.now + 104 * DAY

    @rule(ref=SERVICE, days=st.sampled_from([1, 4]))
    def a_load_balancer_is_full(self, ref: ObjectRef, days: int) -> None:
        self.cloud.full_until[ref] = self.cloud.now + days * DAY
        self.cloud.disturb(ref, until=self.cloud.full_until[ref])

    @rule(ref=SERVICE, hours=st.sampled_from([1, 30]))
    def its_controller_is_away(self, ref: ObjectRef, hours: int) -> None:
        self.cloud.stuck_until[ref] = self.cloud.now + hours * HOUR
        self.cloud.disturb(ref, until=self.cloud.stuck_until[ref])

    @rule(tells=st.booleans())
    def events_are_missing(self, tells: bool) -> None:
        self.cloud.tells = tells

    @rule(ref=SERVICE, what=st.sampled_from(sorted(FORGED)), times=st.integers(1, 3))
    def somebody_forges_events(self, ref: ObjectRef, what: str, times: int) -> None:
        if not self._there(ref):
            return
        reason, message = FORGED[what]
        told, self.cloud.tells = self.cloud.tells, True
        for number in range(times):
            at = self.cloud.now - HOUR if what == "of before" else self.cloud.now
            version = "1" if what == "of before" else "999999"
            self.cloud._event(ref, reason, message.format(number=f"x{number}"), at, version)
        self.cloud.tells = told

    # --- in the end -----------------------------------------------------------------------------

    def teardown(self) -> None:
        if not hasattr(self, "cloud"):
            return
        cloud = self.cloud
        assert cloud.broken == []
        assert cloud.false_rejections() == []
        assert cloud.wasted() == []
        assert cloud.flip_flops() == []
        for ref in SERVICES:
            self.somebody_makes_it_anew(ref)
        cloud.heal()
        # long enough for the own limits (a week), for pauses after refusals, for a claim's end
        cloud.disturb(*SERVICES, until=cloud.now + 20 * DAY)
        cloud.pass_time(20 * DAY)
        assert cloud.settled() == []
        assert cloud.broken == []
        assert cloud.false_rejections() == []
        assert cloud.wasted() == []
        # and then nothing happens any more but renewals
        written = cloud.written.total()
        cloud.pass_time(6 * HOUR)
        assert cloud.written.total() - written <= 4


def _alerting() -> Judged:
    """A world some time after a renewal whose version one listener answers with alerts."""
    cloud = Judged(route="outside")
    cloud.pass_time(6 * HOUR)
    cloud.next_bad["mail"] = frozenset({cloud.targets[2]}), "alert"
    cloud.credit["mail"] += 2
    cloud.pass_time(75 * DAY)
    return cloud


def test_a_version_that_a_listener_answers_with_alerts_does_not_stay() -> None:
    """What was there before comes back: once by itself, since chance seldom gets so far."""
    cloud = _alerting()
    assert len(cloud.bad) == 1
    assert cloud.broken == []
    assert cloud.settled() == []
    assert cloud.wasted() == []


def test_the_books_show_a_listener_that_answers_with_alerts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the wire's word is not heard, that is an outage, and nothing has settled."""
    monkeypatch.setattr(reject, "_by_wire", lambda *_: None)
    cloud = _alerting()
    assert "answers with alerts" in cloud.broken[0]
    assert any("answers with alerts" in sentence for sentence in cloud.settled())


def test_a_version_that_nobody_took_is_left_for_the_next() -> None:
    """Refused while no Events told of it, it passed for unproven; then they tell of it."""
    cloud = Judged(route="outside")
    cloud.tells = False
    cloud.next_bad["shop"] = frozenset(cloud.targets[:2]), "400"
    cloud.credit["shop"] += 2
    cloud.pass_time(6 * HOUR)
    cloud.tells = True
    cloud.pass_time(26 * HOUR)
    assert cloud.broken == []
    assert cloud.settled() == []
    assert cloud.wasted() == []


def test_whatever_happens() -> None:
    """The same stories each time, unless asked for others."""
    chosen = settings(
        max_examples=STORIES,
        stateful_step_count=25,
        deadline=None,
        derandomize=SEED is None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
        report_multiple_bugs=False,
    )
    machine = seed(int(SEED))(Operators) if SEED is not None else Operators
    run_state_machine_as_test(machine, settings=chosen)


def test_a_place_that_was_full_and_then_answers_with_alerts() -> None:
    """Full for a day when the version came, so that its handover ended without a proof."""
    cloud = Judged(route="outside")
    cloud.pass_time(6 * HOUR)
    cloud.next_bad["mail"] = frozenset({cloud.targets[2]}), "alert"
    cloud.pass_time(59 * DAY + 12 * HOUR)
    cloud.full_until[cloud.targets[2]] = cloud.now + 2 * DAY
    cloud.pass_time(20 * DAY)
    assert cloud.broken == []
