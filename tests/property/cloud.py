"""
A cluster in which everybody acts at random: operators, GitOps, two instances, an unwell cloud.

Real core and hands over an API server and a CA in memory, as in ``tests/crash``. What happens is
for the test to say; this keeps the books: what was done to whom, and what is never forgiven.
"""

from __future__ import annotations

import base64
import json
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from certbaton import pki
from certbaton.apply import Applier
from certbaton.cluster import Cluster, Kind
from certbaton.cluster.answers import Asked
from certbaton.cluster.records import SERVED
from certbaton.cluster.services import TLS_SECRET
from certbaton.core.rollover import WIRE
from certbaton.dealings import Dealings
from certbaton.errors import CaUnavailable
from certbaton.model import (
    CertificateSpec,
    Instance,
    IssuerSpec,
    KeyType,
    ObjectRef,
    Policy,
    ServiceSpec,
    Sight,
)
from certbaton.observe import Observer
from certbaton.pki import PrivateKey
from certbaton.reconcile import Reconciler
from certbaton.targets.oci import OciTarget
from crash.place import BAD_CERTIFICATE, FULL, Place
from crash.world import INSTANCE, Names, _decoded, _named
from fakes.ca import DIRECTORY
from fakes.x509 import hierarchy

SECOND = Instance("certbaton", "elsewhere")
HAND_MADE = ObjectRef("certbaton", "by-hand")
MISSING = ObjectRef("certbaton", "never-was")
DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
# nobody wakes up more often than this: enough to see things, and quick
STEP = timedelta(seconds=20)
# five minutes after a sync an alert counts; then what was there comes back, one by one
REJECTING = HOUR
HORIZON = timedelta(days=36500)


def _writer(service: dict[str, Any]) -> str:
    """The namespace of the instance that applied last."""
    applied = [one for one in service["metadata"]["managedFields"] if one["operation"] == "Apply"]
    latest = max(applied, key=lambda one: str(one["time"]))
    return str(latest["manager"]).split("/")[1]


@dataclass
class Life:
    """One process of an instance."""

    cluster: Cluster
    reconciler: Reconciler
    certificates: tuple[str, ...]


@dataclass
class Cloud(Place):
    """Four Services: ``shop`` on two, ``mail`` on one; the other instance's ``web`` on two."""

    services: int = 4
    route: str = "outside"
    policy: Policy = field(
        default_factory=lambda: Policy(
            keep_previous=0,
            poll_listener=MINUTE,
            renew_jitter=0,
            backstop=6 * HOUR,
        )
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        issuer = IssuerSpec("lab", DIRECTORY)

        def spec(name: str, *numbers: int) -> CertificateSpec:
            return CertificateSpec(
                name=name,
                names=(f"{name}.example.test",),
                issuer=issuer,
                solver="names",
                key_type=KeyType.EC_P256,
                services=tuple(ServiceSpec(self.targets[number - 1]) for number in numbers),
            )

        self.specs = {
            INSTANCE: {"shop": spec("shop", 1, 2), "mail": spec("mail", 3)},
            SECOND: {"web": spec("web", 2, 4)},
        }
        self.alive: dict[Instance, Life | None] = {INSTANCE: None, SECOND: None}
        # what the place will not have: by the certificate's name there
        self.bad: dict[str, tuple[frozenset[ObjectRef], str]] = {}
        self.next_bad: dict[str, tuple[frozenset[ObjectRef], str]] = {}
        self.full_until: dict[ObjectRef, datetime] = {}
        self.stuck_until: dict[ObjectRef, datetime] = {}
        self.not_after: dict[str, datetime] = {}
        self.disturbed: dict[ObjectRef, datetime] = dict.fromkeys(self.targets, self.now)
        # while a refused version is about, a certificate may run out; an alert may not stay
        self.refused_until: dict[ObjectRef, datetime] = dict.fromkeys(self.targets, self.now)
        # since when a listener answers with alerts, and whether that could be told
        self.alerting_since: dict[ObjectRef, tuple[datetime, bool]] = {}
        self.credit: Counter[str] = Counter()
        self.written: Counter[ObjectRef] = Counter()
        self.touched: Counter[ObjectRef] = Counter()
        self.began = self.now
        self.ca_away_until = self.now
        self.ca.before = self.ca_hook
        self.ca.resources |= {"keyChange", "renewalInfo"}
        self._hand_made()

    # --- the cloud ---------------------------------------------------------------------

    def ca_hook(self, request: str) -> None:
        """Nobody gets through to the CA while it is away."""
        if self.now < self.ca_away_until:
            raise CaUnavailable(f"no route for {request}")

    def _hand_made(self) -> None:
        self.hand_made_until = self.now + 35 * DAY
        key = PrivateKey.generate(KeyType.EC_P256)
        names = ("shop.example.test", "mail.example.test", "web.example.test")
        chain = hierarchy().sign(
            key.unwrapped.public_key(), names, self.now - DAY, self.now + 40 * DAY
        )
        data = {
            "tls.crt": base64.b64encode(chain.encode()).decode(),
            "tls.key": base64.b64encode(key.pem.encode()).decode(),
        }
        body = {
            "metadata": {"name": HAND_MADE.name, "namespace": HAND_MADE.namespace},
            "type": "kubernetes.io/tls",
            "data": data,
        }
        self.api.client("kubectl").create(Kind.SECRET, HAND_MADE.namespace, body)

    def _sync(self, ref: ObjectRef, named: ObjectRef) -> str | None:
        self._requests += 1
        if self.now < self.full_until.get(ref, self.now):
            return FULL.format(number=self._requests)
        known = self.on_balancer[ref]
        if named.name not in known:
            secret = self._there(Kind.SECRET).get(named)
            if secret is None:
                return f"reading SSL Listener Secret: secrets {named.name!r} not found"
            where, how = self.bad.get(named.name, (frozenset(), ""))
            if ref in where and how == "400":
                return BAD_CERTIFICATE.format(number=self._requests)
            leaf = pki.leaf_of(_decoded(secret, "tls.crt"))
            known[named.name] = leaf.sha256
            self.not_after[leaf.sha256] = leaf.not_after
        where, how = self.bad.get(named.name, (frozenset(), ""))
        self._alerting[ref] = ref in where and how == "alert"
        if not self._alerting[ref]:
            self.alerting_since.pop(ref, None)
        elif ref not in self.alerting_since or self.served.get(ref) != known[named.name]:
            self.alerting_since[ref] = self.now, self._can_tell(ref, named)
        self.served[ref] = known[named.name]
        return None

    def _control(self) -> None:
        there = self._there(Kind.SERVICE)
        held = {
            ref: at
            for ref, at in self.changed_at.items()
            if self.now < self.stuck_until.get(ref, self.now) or ref not in there
        }
        for ref in held:
            del self.changed_at[ref]  # its controller is away
        super()._control()
        self.changed_at.update(held)

    def look(
        self, addresses: Sequence[str], ports: Sequence[int], name: str, timeout: float
    ) -> tuple[Sight, ...]:
        """What the listeners show; from inside, what the pods' plain ports answer."""
        if self.route == "inside":
            self._control()
            return tuple(Sight(a, p, None, "no TLS", alert=True) for a in addresses for p in ports)
        found: tuple[Sight, ...] = super().look(addresses, ports, name, timeout)  # type: ignore[no-untyped-call]
        return found

    # --- the books ---------------------------------------------------------------------

    def _check(self) -> None:
        """Called after each of our writes."""

    def _api_hook(self, moment: str) -> Callable[[Asked], None]:
        inner = super()._api_hook(moment)

        def hook(asked: Asked) -> None:
            inner(asked)
            if moment != "after":
                return
            ref = ObjectRef(asked.namespace or "", asked.name or "")
            if asked.kind is Kind.SERVICE and asked.verb == "apply":
                self.written[ref] += 1
                service = self._there(Kind.SERVICE)[ref]
                named = _named(service, ref)
                # what it named before, in a namespace that it may not read, may be gone
                missing = named is not None and named not in self._there(Kind.SECRET)
                if missing and named and named.namespace == _writer(service):
                    self.broken.append(f"{self.now}: we made {ref} name the missing {named}")
            if asked.kind is not Kind.SECRET:
                return
            if asked.verb == "delete" and ref in self._references():
                self.broken.append(f"{self.now}: we deleted {ref}, which is named")
            if asked.verb == "create":
                certificate = ref.name.rsplit("-", 2)[0]
                if certificate in self.next_bad and "journal" not in ref.name:
                    self.bad[ref.name] = self.next_bad.pop(certificate)

        return hook

    def _references(self) -> set[ObjectRef | None]:
        return {_named(obj, ref) for ref, obj in self._there(Kind.SERVICE).items()}

    def disturb(self, *refs: ObjectRef, until: datetime | None = None) -> None:
        """Something was done to these Services: nothing is asked of them for some days."""
        for ref in refs:
            self.touched[ref] += 1
            self.disturbed[ref] = max(self.disturbed[ref], until or self.now)

    def holder(self, ref: ObjectRef) -> Instance | None:
        """Whose name stands on tls-secret."""
        obj = self._there(Kind.SERVICE).get(ref)
        if obj is None:
            return None
        managed = obj["metadata"].get("managedFields") or []  # type: ignore[attr-defined]
        for entry in managed:
            fields = entry["fieldsV1"].get("f:metadata", {}).get("f:annotations", {})
            if f"f:{TLS_SECRET}" in fields:
                return Instance.of_field_manager(str(entry["manager"]))
        return None

    # --- processes -----------------------------------------------------------------------

    def life(self, instance: Instance) -> Life:
        """A new process: nothing is remembered but the cluster."""
        self.lives += 1
        specs = self.specs[instance]
        api = self.api.client(str(instance))
        api.before, api.after = self._api_hook("before"), self._api_hook("after")
        targets = {service.ref for spec in specs.values() for service in spec.services}
        cluster = Cluster(api, instance, targets, now=lambda: self.now)
        target = OciTarget()
        dealings = Dealings(
            cluster,
            self.ca.connect,
            {"names": Names(self.answers)},
            specs,
            policy=self.policy,
            clock=lambda: self.now,
            sleep=self._sleep,
        )
        applier = Applier(
            cluster,
            target,
            dealings,
            policy=self.policy,
            field_manager=instance.field_manager,
            clock=lambda: self.now,
        )
        observer = Observer(
            cluster,
            target,
            route=self.route,
            look=self.look,
            policy=self.policy,
            renewal_checks=dealings.advice.checks,
            ca_troubles=dealings.authorities.outages.troubles,
        )
        reconciler = Reconciler(
            cluster,
            observer,
            applier,
            dealings,
            specs,
            self.policy,
            lambda: self.now,
            threading.Event(),
        )
        return Life(cluster, reconciler, tuple(specs))

    def beat(self, instance: Instance) -> None:
        """Renew the Lease of a living instance."""
        ref = ObjectRef(instance.namespace, instance.release)
        spec = {
            "holderIdentity": "somebody",
            "leaseDurationSeconds": 60,
            "renewTime": self.now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        if (Kind.LEASE, ref) in self.api._world.objects:
            self.api.merge(Kind.LEASE, ref, {"spec": spec})
        else:
            body = {"metadata": {"name": ref.name, "namespace": ref.namespace}, "spec": spec}
            self.api.create(Kind.LEASE, ref.namespace, body)

    def pass_time(self, span: timedelta) -> None:
        """Let everybody work until *span* is over."""
        end = self.now + span
        while self.now < end:
            wake = end
            self._control()  # what it has told since is there to be read
            self._forget_events()
            for instance in self.running:
                self.beat(instance)
            for instance, life in self.alive.items():
                if instance not in self.running:
                    continue
                if life is None:
                    life = self.alive[instance] = self.life(instance)
                for certificate in life.certificates:
                    life.cluster.refresh()
                    report = life.reconciler.turn(certificate)
                    wake = min(wake, report.next_at or wake)
                    for sentence in [*report.failed, *(one.what for one in report.waits)]:
                        if "unexpected" in sentence or "round in circles" in sentence:
                            self.broken.append(f"{self.now}: {certificate}: {sentence}")
            self._control()
            self._look_for_outages()
            self.now = max(wake, self.now + STEP)

    def _forget_events(self) -> None:
        """As the API server does after an hour: a retry every five minutes makes thousands."""
        objects = self.api._world.objects
        oldest = (self.now - HOUR).strftime("%Y-%m-%dT%H:%M:%SZ")
        for kind, ref in [key for key in objects if key[0] is Kind.EVENT]:
            if str(objects[kind, ref].get("lastTimestamp") or oldest) < oldest:
                del objects[kind, ref]

    running: frozenset[Instance] = frozenset({INSTANCE, SECOND})

    def _look_for_outages(self) -> None:
        """
        No listener serves what has run out, unless something was done to it of late.

        Nor does one answer with alerts for longer than it takes to bring back what was there.
        """
        for ref in self.targets:
            shown = self.served.get(ref)
            if ref not in self._there(Kind.SERVICE) or self.now < self.disturbed[ref] + 9 * DAY:
                continue
            if self.alerts_in_vain(ref):
                self.broken.append(f"{self.now}: {ref} answers with alerts, and nobody minds")
                self.disturbed[ref] = self.now
            if self.now < self.refused_until[ref]:
                continue
            if shown is None or self.not_after.get(shown, self.now) < self.now:
                self.broken.append(f"{self.now}: {ref} is out, and nobody had done anything to it")
                self.disturbed[ref] = self.now

    def alerts_in_vain(self, ref: ObjectRef) -> bool:
        """Say whether it answers with alerts though the wire has had the time to reject that."""
        since, can_tell = self.alerting_since.get(ref, (self.now, False))
        return can_tell and self.now >= since + REJECTING

    def _can_tell(self, ref: ObjectRef, named: ObjectRef) -> bool:
        """
        Say whether an alert of *named* there can be known for what it is.

        It can where a probe meets the listener, another of ours was seen there before, and
        Events tell of the sync. Without those nothing tells a bad version from a bad place.
        """
        if self.route == "inside" or not self.tells:
            return False
        there = self._there(Kind.SECRET)
        proofs = (self._proofs(obj).get(str(ref)) for one, obj in there.items() if one != named)
        return any(proof is not None and proof["how"] == WIRE for proof in proofs)

    @staticmethod
    def _proofs(secret: dict[str, object]) -> dict[str, dict[str, str]]:
        annotations = secret["metadata"].get("annotations") or {}  # type: ignore[attr-defined]
        found: dict[str, dict[str, str]] = json.loads(annotations.get(SERVED) or "{}")
        return found

    # --- what is never forgiven -------------------------------------------------------------

    def heal(self) -> None:
        """All that was done to the place ends; everybody lives, nothing is paused."""
        self.full_until.clear()
        self.ca_away_until = self.now
        self.stuck_until.clear()
        self.next_bad.clear()
        self.tells = True
        self.running = frozenset(self.alive)
        for ref in self.targets:
            if ref in self._there(Kind.SERVICE):
                self.annotate(ref, "kubectl", **{"certbaton.io/paused": None})
        for instance, specs in self.specs.items():
            for name, spec in specs.items():
                specs[name] = replace(spec, paused=False)
            self.alive[instance] = None

    def annotate(self, ref: ObjectRef, manager: str, **changes: str | None) -> None:
        """Somebody sets or takes away annotations of a Service."""
        body = {"metadata": {"annotations": changes}}
        self.api.client(manager).merge(Kind.SERVICE, ref, body)
        if TLS_SECRET in changes:
            self.changed_at[ref] = self.now

    def shown(self, name: str) -> list[str]:
        """Versions of a certificate that are there."""
        return sorted(
            ref.name
            for ref, obj in self._there(Kind.SECRET).items()
            if obj.get("type") == "kubernetes.io/tls" and ref.name.startswith(f"{name}-")
        )
