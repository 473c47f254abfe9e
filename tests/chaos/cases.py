"""Releases with one certificate each that is due when a test wants it to be, and their worlds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from chaos.history import LongHistory
from e2e.harness import (
    Certbaton,
    leaf_hash,
    name_of,
    not_before,
    proofs,
    served_leaf,
    until,
)
from lab.chaos import ApiProxy, CaProxy, ChaosWorld, WireFault, through
from lab.kube import KubeError
from lab.process import Process
from lab.world import NAMESPACE, RELEASE

Obj = dict[str, Any]

# What is to be renewed lives so long, and is due after some of it; what comes then is not due
# again before a test is over, however slow the machine is.
SHORT_S, LONG_S = 240, 3600
DUE_AFTER = 0.1
PROFILES = {"lab": SHORT_S, "day": LONG_S}
POLICY = {
    "renewLeftShort": 1 - DUE_AFTER,
    "keepPrevious": 0,
    "retentionShare": 0,
    "sweepShare": 0,
    "pollListener": "100ms",
    "backOff": ["1s"],
}


@dataclass
class Family:
    """Faults on the way to the API server and to the CA, and what else is *done* meanwhile."""

    api: tuple[WireFault, ...] = ()
    ca: tuple[WireFault, ...] = ()
    done: Callable[[ApiProxy], None] | None = None
    patience: float = 60.0


@dataclass
class Case:
    """One release behind proxies of its own."""

    certbaton: Certbaton
    config: Obj
    api: ApiProxy
    ca: CaProxy
    seen: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        """Of the release, its certificate, its Service."""
        return self.certbaton.release


class Cases:
    """
    Makes cases in *world*, *side_by_side* of them at a time.

    All by dns-01, since the lab's pods know one solver of http-01.
    """

    def __init__(self, world: ChaosWorld, stack: ExitStack, side_by_side: int = 4) -> None:
        self.world = world
        self.history = stack.enter_context(LongHistory(world.plane.admin, NAMESPACE))
        self._stack = stack
        self._pool = stack.enter_context(ThreadPoolExecutor(side_by_side))
        allow_leases(world)
        world.install(world.configuration())
        token = world.plane.token(NAMESPACE, RELEASE)
        self._kubeconfig = world.plane.kubeconfig_for(token, NAMESPACE)

    def later(self, what: Callable[..., Any], *args: Any) -> Future[Any]:
        """Do it when its turn comes."""
        return self._pool.submit(what, *args)

    def each(self, what: Callable[..., Any], them: Iterable[Any]) -> list[Any]:
        """The same with all of them."""
        return list(self._pool.map(what, them))

    def make(self, name: str, profile: str = "day") -> Case:
        """A release; nothing is issued."""
        api = self._stack.enter_context(
            ApiProxy(self.world.folder / name, self.world.plane.url, self.world.plane.ca)
        )
        pebble = self.world.pebble
        ca = self._stack.enter_context(
            CaProxy(self.world.folder / name, pebble.directory, pebble.ca_file)
        )
        self.world.add_service("shop", name, f"{name}.example.test")
        config = self.world.configuration(
            self.world.certificate(name, [f"{name}.example.test"], [("shop", name)], solver="dns"),
            healthPort=0,
            policy=POLICY,
            lease={"duration": "2s", "renewEvery": "600ms"},
        )
        config["issuers"]["lab"] |= {
            "directory": ca.directory,
            "caBundle": str(ca.ca_file),
            "renewalInfo": False,
            "profile": profile,
        }
        kubeconfig = through(self._kubeconfig, api)
        certbaton = Certbaton(self.world, config, release=name, kubeconfig=kubeconfig)
        return Case(certbaton, config, api, ca)

    def issued(self, name: str) -> Case:
        """A release whose first version is served, and due before long."""
        case = self.make(name, "lab")
        ended = case.certbaton.once()
        assert ended.code == 0, ended
        return case

    def due(self, case: Case) -> None:
        """Wait until its version is due; the next will live long."""
        (version,) = case.certbaton.versions(case.name)
        case.seen.add(name_of(version))
        due = not_before(version) + timedelta(seconds=SHORT_S * (DUE_AFTER + 0.02))
        until(lambda: datetime.now(UTC) > due, f"{case.name} is not due", SHORT_S)
        case.config["issuers"]["lab"]["profile"] = "day"
        case.certbaton.configure(case.config)

    def lacks(self, case: Case) -> str | None:
        """What must be true of a release at rest, and is not."""
        name, certbaton = case.name, case.certbaton
        versions = certbaton.versions(name)
        if len(versions) != 1 or name_of(versions[0]) in case.seen:
            return f"versions {[name_of(version) for version in versions]}, before {case.seen}"
        (version,) = versions
        if self.world.tls_secret("shop", name) != name_of(version):
            return "the Service does not name it"
        if served_leaf(self.world, "shop", name) != leaf_hash(version):
            return "the listener does not serve it"
        if proofs(version) != {f"shop/{name}": "wire"}:
            return f"proofs {proofs(version)}"
        journal = certbaton.journal(name)
        if "pending" in journal or "failures" in journal:
            return f"the Journal tells of {sorted(journal)}"
        assert self.world.dns is not None
        left = self.world.dns.txt(f"_acme-challenge.{name}.example.test.")
        return f"challenges are left: {left}" if left else None

    def ends_well(self, case: Case, daemon: Process, patience: float) -> None:
        """Wait until *daemon* has brought *case* to rest; nothing was lost on the way."""
        end = time.monotonic() + patience
        while True:
            try:
                lacks = self.lacks(case)
            except KubeError as error:
                lacks = str(error)
            if lacks is None:
                break
            assert daemon.running, f"it ended: {daemon.log_tail()}"
            assert time.monotonic() < end, f"{case.name}: {lacks}; {daemon.log_tail()}"
            time.sleep(0.1)
        assert '"turn_broke"' not in daemon.log.read_text()

    def renew(self, case: Case, family: Family) -> None:
        """One renewal under the faults of *family*, by ``certbaton run``."""
        self.due(case)
        with (
            case.api.misbehaving(*family.api),
            case.ca.misbehaving(*family.ca),
            case.certbaton.start() as daemon,
        ):
            if family.done is not None:
                family.done(case.api)
            self.ends_well(case, daemon, family.patience)
        for fault in (*family.api, *family.ca):
            assert fault.met, f"nothing met {fault}"

    def issued_of(self, case: Case) -> int:
        """How many versions it ever had."""
        return len(
            {
                state.key[1]
                for state in self.history.states("Secret")
                if state.key[1].startswith(f"{case.name}-2")
            }
        )


def allow_leases(world: ChaosWorld) -> None:
    """Let the chart's ServiceAccount have the Leases of releases that no chart made."""
    rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces"
    world.plane.create_namespace(NAMESPACE)
    name = {"metadata": {"name": "chaos-leases"}}
    rule = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["*"]}
    world.plane.admin.create(f"{rbac}/{NAMESPACE}/roles", {**name, "rules": [rule]})
    world.plane.admin.create(
        f"{rbac}/{NAMESPACE}/rolebindings",
        {
            **name,
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "Role",
                "name": "chaos-leases",
            },
            "subjects": [{"kind": "ServiceAccount", "name": RELEASE, "namespace": NAMESPACE}],
        },
    )
