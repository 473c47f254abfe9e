"""
Several certificates in one process: the real loop over an API server and a CA in memory.

Each certificate has Services of its own, whose listeners show at once what they name. Trouble is
what a test adds: `World.fail` for the cluster, `FakeCa.fail` for the CA.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from certbaton import caa, pki
from certbaton.accounts import ByEmail
from certbaton.apply import Applier
from certbaton.ca import zerossl
from certbaton.cluster import Cluster, Kind
from certbaton.cluster.answers import Asked
from certbaton.dealings import Dealings
from certbaton.errors import CaUnavailable
from certbaton.model import (
    CertificateSpec,
    ChallengeInfo,
    Instance,
    IssuerSpec,
    Journal,
    KeyType,
    ObjectRef,
    Policy,
    ServiceSpec,
    Sight,
    WaitKind,
)
from certbaton.observe import Observer
from certbaton.reconcile import Reconciler, Report
from certbaton.targets.oci import LISTENER_SSL, OciTarget
from crash.world import Names
from fakes.ca import DIRECTORY, FakeCa
from fakes.ca_session import FakeSession
from fakes.kube import FakeApi

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
INSTANCE = Instance("certbaton", "certbaton")
SECOND, MINUTE, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(days=1)


def a_spec(name: str, *services: str, names: tuple[str, ...] = ()) -> CertificateSpec:
    """A certificate for *name*.example on Services shop/*service*."""
    return CertificateSpec(
        name=name,
        names=names or (f"{name}.example",),
        issuer=IssuerSpec("lab", DIRECTORY),
        solver="names",
        key_type=KeyType.EC_P256,
        services=tuple(ServiceSpec(ObjectRef("shop", service)) for service in services),
    )


def settle(world: World, process: Process, name: str = "one", turns: int = 20) -> None:
    """Turn after turn, each when the last said, until only the renewal is left."""
    for _ in range(turns):
        report = process.turn(name)
        soon = [wait for wait in report.waits if wait.kind is not WaitKind.LATER]
        if not soon and process.journal(name).pending is None:
            return
        world.now = max(world.now + SECOND, min(wait.until for wait in soon))
    raise AssertionError(f"not settled: {report.waits}, {report.failed}")


# Keys on P-256 are made in no time; OCI's default cipher suite would not serve them.
TAKES_EC = {LISTENER_SSL: '{"CipherSuiteName": "oci-modern-ssl-cipher-suite-v1"}'}


@dataclass
class Process:
    """One life."""

    cluster: Cluster
    reconciler: Reconciler
    dealings: Dealings
    stop: threading.Event

    def turn(self, name: str) -> Report:
        """One turn, on what the cluster holds now."""
        self.cluster.refresh()
        return self.reconciler.turn(name)

    def journal(self, name: str) -> Journal:
        """A Journal as it lies there."""
        self.cluster.refresh()
        journal = self.cluster.store.journal(name)
        assert journal is not None
        return journal


class World:
    """*specs* are what is configured; their Services are there unless *services* says which."""

    def __init__(self, *specs: CertificateSpec, services: Sequence[str] | None = None) -> None:
        self.specs = specs
        self.now = NOW
        self.policy = Policy(poll_listener=4 * SECOND)
        self.api = FakeApi(now=lambda: self.now, manager="user")
        self.answers: dict[str, str] = {}
        self.ca = FakeCa(now=lambda: self.now, validate=self.validate)
        self.cas = {DIRECTORY: self.ca}
        self.caa = caa.Advice()
        self.by_email: ByEmail = zerossl.external_account
        self.caa_asked: list[tuple[str, ...]] = []
        self.target = OciTarget()
        self.blind = False
        self.watch: Callable[[str], None] = lambda what: None
        self._faults: list[tuple[str, Exception]] = []
        wanted = services if services is not None else [s.ref.name for s in self._services()]
        for name in wanted:
            self.add_service(name)

    def _services(self) -> list[ServiceSpec]:
        return [service for spec in self.specs for service in spec.services]

    def add_service(self, name: str) -> None:
        ref = ObjectRef("shop", name)
        ports = [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}]
        body = {
            "metadata": {"name": name, "namespace": "shop", "annotations": dict(TAKES_EC)},
            "spec": {"type": "LoadBalancer", "ports": ports},
        }
        self.api.create(Kind.SERVICE, "shop", body)
        ingress = [{"ip": name, "ipMode": "Proxy"}]
        self.api.set_status(Kind.SERVICE, ref, {"loadBalancer": {"ingress": ingress}})

    def fail(self, request: str, *errors: Exception) -> None:
        """
        Let the next requests to the API server that contain *request* fail, one for each error.

        A request is told as ``verb kind name``: ``apply Service one``.
        """
        self._faults += [(request, error) for error in errors]

    def process(
        self,
        *specs: CertificateSpec,
        instance: Instance = INSTANCE,
        take_over_from: frozenset[Instance] = frozenset(),
    ) -> Process:
        """A new life, with *specs* configured in place of the World's."""
        chosen = specs or self.specs
        api = self.api.client("certbaton")
        api.before = self._before
        cluster = Cluster(
            api, instance, [service.ref for service in self._services()], now=lambda: self.now
        )
        stop = threading.Event()
        dealings = Dealings(
            cluster,
            self._connect,
            {"names": Names(self.answers)},
            {spec.name: spec for spec in chosen},
            policy=self.policy,
            clock=lambda: self.now,
            sleep=self._sleep,
            look_up_caa=self._look_up_caa,
            by_email=self.by_email,
        )
        applier = Applier(
            cluster,
            self.target,
            dealings,
            policy=self.policy,
            field_manager=instance.field_manager,
            clock=lambda: self.now,
        )
        reconciler = Reconciler(
            cluster,
            Observer(
                cluster,
                self.target,
                look=self._look,
                policy=self.policy,
                take_over_from=take_over_from,
                renewal_checks=dealings.advice.checks,
                ca_troubles=dealings.authorities.outages.troubles,
            ),
            applier,
            dealings,
            {spec.name: spec for spec in chosen},
            self.policy,
            lambda: self.now,
            stop,
        )
        return Process(cluster, reconciler, dealings, stop)

    def add_ca(self, directory: str) -> FakeCa:
        """Another CA, for issuers there."""
        self.cas[directory] = FakeCa(
            now=lambda: self.now, validate=self.validate, directory=directory
        )
        return self.cas[directory]

    def away(self, directory: str, away: bool = True) -> None:
        """From now on nobody gets through to the CA there, or everybody again."""

        def before(request: str) -> None:
            if away:
                raise CaUnavailable(f"no route for {request}")

        self.cas[directory].before = before

    # --- what is there ------------------------------------------------------------------

    def named(self, service: str) -> str | None:
        """Which Secret a Service names."""
        obj = self.api.read(Kind.SERVICE, ObjectRef("shop", service))
        annotations = obj["metadata"].get("annotations") or {}
        value: str | None = annotations.get(
            "service.beta.kubernetes.io/oci-load-balancer-tls-secret"
        )
        return value

    def versions(self) -> list[str]:
        """The TLS Secrets, as a Service names them."""
        found = self.api.all(Kind.SECRET).items()
        return sorted(str(ref) for ref, obj in found if obj.get("type") == "kubernetes.io/tls")

    def events(self) -> list[str]:
        """Reasons of the Events, oldest first."""
        return [obj["reason"] for obj in self.api.all(Kind.EVENT).values()]

    # --- inside -------------------------------------------------------------------------

    def _connect(
        self, issuer: IssuerSpec, key: pki.PrivateKey, account_url: str | None
    ) -> FakeSession:
        return self.cas[issuer.directory].connect(issuer, key, account_url)

    def _look_up_caa(
        self, names: Sequence[str], identities: Sequence[str], account: str | None, kind: str | None
    ) -> caa.Advice:
        self.caa_asked.append(tuple(names))
        return self.caa

    def _before(self, asked: Asked) -> None:
        what = f"{asked.verb} {asked.kind} {asked.name}"
        self.watch(what)
        for fault in self._faults:
            if fault[0] in what:
                self._faults.remove(fault)
                raise fault[1]

    def _sleep(self, seconds: float) -> bool:
        self.now += timedelta(seconds=seconds)
        return True

    def validate(self, challenge: ChallengeInfo) -> str | None:
        return None if self.answers.get(challenge.url) == challenge.value else "no such record"

    def _look(
        self, addresses: Sequence[str], ports: Sequence[int], name: str, timeout: float
    ) -> tuple[Sight, ...]:
        leaves: list[Sight] = []
        for service in addresses:
            leaf = None if self.blind else self._leaf(self.named(service))
            leaves += [Sight(service, port, leaf, None if leaf else "timeout") for port in ports]
        return tuple(leaves)

    def _leaf(self, named: str | None) -> str | None:
        if named is None:
            return None

        namespace, _, name = named.partition("/")
        secret = self.api.read(Kind.SECRET, ObjectRef(namespace, name))
        return pki.leaf_of(base64.b64decode(secret["data"]["tls.crt"]).decode()).sha256
