"""
A world that crashes: real core, real hands, an API server and a CA in memory.

What runs is the daemon's own code from `Reconciler` down to the API's verbs and the CA's
requests. A crash is a BaseException out of the n-th write, before it happened or after; then a
new process starts with nothing but the cluster. Time is simulated: nobody sleeps.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from certbaton import pki
from certbaton.apply import Applier
from certbaton.cluster import Cluster, Kind
from certbaton.cluster.answers import Asked
from certbaton.cluster.services import TLS_SECRET, reference
from certbaton.dealings import Dealings
from certbaton.errors import CertbatonError
from certbaton.model import (
    CertificateSpec,
    ChallengeInfo,
    Instance,
    IssuerSpec,
    KeyType,
    ObjectRef,
    Policy,
    ServiceSpec,
    Sight,
)
from certbaton.observe import Observer
from certbaton.reconcile import Reconciler
from certbaton.solvers import Solver
from certbaton.targets.oci import LISTENER_SSL, OciTarget
from fakes.ca import DIRECTORY, FakeCa
from fakes.ca_session import FakeSession
from fakes.kube import WRITES, FakeApi

START = datetime(2027, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
LIFETIME = timedelta(days=90)
CONTROLLER_TAKES = timedelta(seconds=8)
RESTART_TAKES = timedelta(seconds=5)
INSTANCE = Instance("certbaton", "certbaton")
ADDRESS_PREFIX = "127.0.0."

# Keys on P-256 are made in no time; OCI's default cipher suite would not serve them.
TAKES_EC = {LISTENER_SSL: '{"CipherSuiteName": "oci-modern-ssl-cipher-suite-v1"}'}

# What the CA is asked that changes something there; the rest are reads.
CA_WRITES = frozenset(
    {"newAccount", "newOrder", "challenge", "finalize", "keyChange", "deactivateAuthorization"}
)


class Crash(BaseException):
    """The process is dead: nothing catches it but the world."""


@dataclass(frozen=True)
class Moment:
    """Before or after the n-th write (from 1), over all lives of the process."""

    when: str
    number: int


class Names(Solver):
    """A solver whose answers lie in the world, as DNS records do, or die with the process."""

    challenge_type = "dns-01"

    def __init__(self, answers: dict[str, str]) -> None:
        self.answers = answers

    def start(self) -> None: ...
    def close(self) -> None: ...
    def ready(self, challenge: ChallengeInfo) -> None: ...

    def present(self, challenge: ChallengeInfo) -> None:
        self.answers[challenge.url] = challenge.value

    def clean_up(self, challenge: ChallengeInfo) -> None:
        self.answers.pop(challenge.url, None)


@dataclass
class World:
    """
    *crashes* are the moments at which a process dies; *loses* those whose answer is lost instead
    (the write happened, and the process gets *loss*). *lasting* answers outlive the process.
    """

    crashes: frozenset[Moment] = frozenset()
    loses: frozenset[int] = frozenset()
    loss: Callable[[str], CertbatonError] = field(default=lambda what: CertbatonError(what))
    services: int = 2
    lasting: bool = True
    policy: Policy = field(
        default_factory=lambda: Policy(keep_previous=0, poll_listener=timedelta(seconds=4))
    )

    def __post_init__(self) -> None:
        self.now = START
        self.api = FakeApi(now=lambda: self.now, manager="user")
        self.answers: dict[str, str] = {}
        self.ca = FakeCa(
            now=lambda: self.now,
            validity=LIFETIME,
            validate=self._validate,
            before=lambda request: self._ca_hook("before", request),
            after=lambda request: self._ca_hook("after", request),
        )
        self.writes: list[str] = []
        self.lives = 0
        self.contents: dict[str, str] = {}
        self.broken: list[str] = []
        self.changed_at: dict[ObjectRef, datetime] = {}
        self.on_balancer: dict[ObjectRef, dict[str, str]] = {}
        self.served: dict[ObjectRef, str] = {}
        self.history: dict[ObjectRef, list[str]] = {}
        self.targets = tuple(
            ObjectRef(f"team-{number}", "shop") for number in range(1, self.services + 1)
        )
        for number, ref in enumerate(self.targets, start=1):
            self._add_service(ref, f"{ADDRESS_PREFIX}{number}")
        self.spec = CertificateSpec(
            name="shop",
            names=("shop.example.test", "www.shop.example.test"),
            # its looks would only take time here; see test_crash_at_cas.py
            issuer=IssuerSpec("lab", DIRECTORY, renewal_info=False),
            solver="names",
            key_type=KeyType.EC_P256,
            services=tuple(ServiceSpec(ref) for ref in self.targets),
        )

    # --- the cloud ---------------------------------------------------------------------

    def _add_service(self, ref: ObjectRef, address: str) -> None:
        self.api.create(
            Kind.SERVICE,
            ref.namespace,
            {
                "metadata": {
                    "name": ref.name,
                    "namespace": ref.namespace,
                    "annotations": dict(TAKES_EC),
                },
                "spec": {
                    "type": "LoadBalancer",
                    "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}],
                },
            },
        )
        self.api.set_status(
            Kind.SERVICE, ref, {"loadBalancer": {"ingress": [{"ip": address, "ipMode": "Proxy"}]}}
        )
        self.on_balancer[ref], self.history[ref] = {}, []

    def _control(self) -> None:
        """What Oracle's controller has done by now: certificates by name, never by content."""
        for ref, obj in self._there(Kind.SERVICE).items():
            named = _named(obj, ref)
            changed = self.changed_at.get(ref)
            if named is None or changed is None or self.now < changed + CONTROLLER_TAKES:
                continue
            known = self.on_balancer[ref]
            if named.name not in known:
                secret = self._there(Kind.SECRET).get(named)
                if secret is None:
                    self.broken.append(f"{ref} names {named}, which the controller cannot read")
                    continue
                known[named.name] = pki.leaf_of(_decoded(secret, "tls.crt")).sha256
            if self.served.get(ref) != known[named.name]:
                self.served[ref] = known[named.name]
                self.history[ref].append(known[named.name])

    def look(
        self, addresses: Sequence[str], ports: Sequence[int], name: str, timeout: float
    ) -> tuple[Sight, ...]:
        """The probe: what the listeners show at this moment."""
        self._control()
        sights = []
        for address in addresses:
            ref = self.targets[int(address.removeprefix(ADDRESS_PREFIX)) - 1]
            sights += [Sight(address, port, self.served.get(ref), None) for port in ports]
        return tuple(sights)

    def _validate(self, challenge: ChallengeInfo) -> str | None:
        return None if self.answers.get(challenge.url) == challenge.value else "no such record"

    # --- writes, crashes, invariants ---------------------------------------------------

    def _write(self, moment: str, what: str) -> None:
        if moment == "before":
            self.writes.append(what)
        number = len(self.writes)
        if moment == "after":
            self._check()
            if number in self.loses:
                raise self.loss(what)
        if Moment(moment, number) in self.crashes:
            raise Crash(f"{moment} write {number} ({what})")

    def _ca_hook(self, moment: str, request: str) -> None:
        if request in CA_WRITES:
            self._write(moment, f"acme {request}")

    def _api_hook(self, moment: str) -> Callable[[Asked], None]:
        def hook(asked: Asked) -> None:
            if asked.verb not in WRITES:
                return
            if moment == "after" and asked.kind is Kind.SERVICE:
                self.changed_at[ObjectRef(asked.namespace or "", asked.name)] = self.now
            self._write(moment, f"cluster {asked.verb} {asked.kind} {asked.name}")

        return hook

    def _there(self, kind: Kind) -> dict[ObjectRef, dict[str, object]]:
        """All objects of *kind*, as they lie there: for looking only (a copy takes its time)."""
        found = self.api._world.objects
        return {ref: obj for (of, ref), obj in found.items() if of is kind}

    def _check(self) -> None:
        """After every single write: no Service names what is not there, no name changes content."""
        secrets = self._there(Kind.SECRET)
        for ref, obj in self._there(Kind.SERVICE).items():
            named = _named(obj, ref)
            if named is not None and named not in secrets:
                self.broken.append(f"after {self.writes[-1]}: {ref} names the missing {named}")
        for ref, obj in secrets.items():
            if obj.get("type") != "kubernetes.io/tls":
                continue
            data = obj["data"]
            assert isinstance(data, dict)
            content = hashlib.sha256(data["tls.crt"].encode()).hexdigest()
            if self.contents.setdefault(ref.name, content) != content:
                self.broken.append(f"after {self.writes[-1]}: {ref} has other content than before")

    # --- the process -------------------------------------------------------------------

    def process(self) -> tuple[Cluster, Reconciler]:
        """A new life: nothing is remembered but the cluster."""
        self.lives += 1
        if not self.lasting:
            self.answers.clear()
        api = self.api.client("certbaton")
        api.before, api.after = self._api_hook("before"), self._api_hook("after")
        cluster = Cluster(api, INSTANCE, self.targets, now=lambda: self.now)
        target = OciTarget()
        dealings = Dealings(
            cluster,
            self.connect,
            {"names": Names(self.answers)},
            {self.spec.name: self.spec},
            policy=self.policy,
            clock=lambda: self.now,
            sleep=self._sleep,
        )
        applier = Applier(
            cluster,
            target,
            dealings,
            policy=self.policy,
            field_manager=INSTANCE.field_manager,
            clock=lambda: self.now,
        )
        reconciler = Reconciler(
            cluster,
            Observer(
                cluster,
                target,
                look=self.look,
                renewal_checks=dealings.advice.checks,
                ca_troubles=dealings.authorities.outages.troubles,
            ),
            applier,
            dealings,
            {self.spec.name: self.spec},
            self.policy,
            lambda: self.now,
            threading.Event(),
        )
        return cluster, reconciler

    def connect(
        self, issuer: IssuerSpec, key: pki.PrivateKey, account_url: str | None
    ) -> FakeSession:
        """A session at the CA of *issuer*."""
        return self.ca.connect(issuer, key, account_url)

    def _sleep(self, seconds: float) -> bool:
        self.now += timedelta(seconds=seconds)
        return True

    def run(self, until: datetime, turns: int = 3000) -> World:
        """Let time pass until *until*: processes live, crash and are started again."""
        cluster, reconciler = self.process()
        for _ in range(turns):
            try:
                cluster.refresh()
                report = reconciler.turn(self.spec.name)
            except Crash:
                self.now += RESTART_TAKES
                cluster, reconciler = self.process()
                continue
            wake = min(report.next_at or until, until)
            # a backstop turn costs nothing but time of the test's
            self.now = max(wake, self.now + timedelta(milliseconds=50))
            if self.now >= until:
                return self
        raise AssertionError(f"not settled after {turns} turns: {self.writes[-5:]}")

    # --- what is true now --------------------------------------------------------------

    def versions(self) -> list[str]:
        """Names of the TLS Secrets that are there."""
        return sorted(
            ref.name
            for ref, obj in self.api.all(Kind.SECRET).items()
            if obj.get("type") == "kubernetes.io/tls"
        )

    def named(self) -> set[str]:
        """Which Secrets the Services name."""
        found = set()
        for ref, obj in self.api.all(Kind.SERVICE).items():
            named = _named(obj, ref)
            if named is not None:
                found.add(named.name)
        return found


def _named(obj: dict[str, object], ref: ObjectRef) -> ObjectRef | None:
    metadata = obj["metadata"]
    assert isinstance(metadata, dict)
    return reference((metadata.get("annotations") or {}).get(TLS_SECRET), ref.namespace)


def _decoded(secret: dict[str, object], key: str) -> str:
    data = secret["data"]
    assert isinstance(data, dict)
    return base64.b64decode(data[key]).decode()
