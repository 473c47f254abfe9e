"""
Reads the world, and nothing else: caches, and handshakes with listeners.

What a tick sees comes from the watch caches and from the answers to our own
writes, so that looking costs the API server nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from certbaton import probe
from certbaton.cluster import Cluster
from certbaton.cluster.derived import Derived
from certbaton.cluster.holders import RETRY, Sign
from certbaton.cluster.services import reference
from certbaton.core import claims
from certbaton.core.rollover import UNPROVEN, standing_proof
from certbaton.model import (
    Account,
    Binding,
    CaTrouble,
    CertificateSpec,
    Claim,
    FailedValidation,
    Instance,
    Journal,
    Leaf,
    ListenerState,
    ObjectRef,
    OrderRecord,
    Outcome,
    Policy,
    RenewalCheck,
    Route,
    SecretVersion,
    ServiceSpec,
    ServiceState,
    Sight,
    Snapshot,
)
from certbaton.targets import Target
from certbaton.windows import opens_at

DEFAULT_POLICY = Policy()

Look = Callable[[Sequence[str], Sequence[int], str, float], tuple[Sight, ...]]


class Observer:
    """Makes the Snapshot of one certificate."""

    def __init__(
        self,
        cluster: Cluster,
        target: Target,
        *,
        route: str = "auto",
        timeout: timedelta = timedelta(seconds=5),
        look: Look = probe.look,
        policy: Policy = DEFAULT_POLICY,
        take_over_from: frozenset[Instance] = frozenset(),
        renewal_checks: Callable[[], Mapping[ObjectRef, RenewalCheck]] = dict,
        ca_troubles: Callable[[], Mapping[str, CaTrouble]] = dict,
    ) -> None:
        """
        *route* is ``auto``, ``outside`` or ``inside``; *timeout* is one handshake's.

        Services are taken away from the instances of *take_over_from*. *renewal_checks* and
        *ca_troubles* give what this process knows, see `Snapshot`.
        """
        self._cluster = cluster
        self._target = target
        self._route = route
        self._timeout = timeout.total_seconds()
        self._look = look
        self._policy = policy
        self._take_over_from = take_over_from
        self._renewal_checks = renewal_checks
        self._ca_troubles = ca_troubles
        store = cluster.store
        self._counted = Derived(
            lambda: (store.journals(), store.lost_journals()),
            lambda: _count(store.journals(), store.lost_journals()),
        )

    def snapshot(
        self,
        certificate: str,
        spec: CertificateSpec | None,
        now: datetime,
        *,
        probing: bool = True,
    ) -> Snapshot:
        """
        Read what concerns *certificate*; *spec* is None where it left the configuration.

        *now* (aware, UTC) decides whether a rollout window is open.

        Only listeners whose handover has not been proven are looked at, and none
        if *probing* is false.
        """
        cluster = self._cluster
        versions = cluster.store.versions(certificate)
        by_ref = {version.ref: version for version in versions}
        services: dict[ObjectRef, ServiceState] = {}
        bindings: dict[ObjectRef, Binding] = {}
        listeners: dict[ObjectRef, ListenerState] = {}
        claimed: dict[ObjectRef, Claim] = {}
        for service in spec.services if spec else ():
            state = cluster.services.service(service.ref)
            if state is None:
                continue
            services[service.ref] = state
            claim = self._claim(state, now)
            if claim is not None:
                claimed[service.ref] = claim
            binding = bindings[service.ref] = self._target.bind(state, service)
            version = by_ref.get(binding.reference) if binding.reference else None
            if version is None or _proven(version, service, binding):
                continue
            assert spec is not None  # noqa: S101 - there are services
            listeners[service.ref] = self._listener(spec, service, state, binding, probing)
        counted = self._counted()
        journals = cluster.store.journals()
        journal = cluster.store.journal(certificate) if spec else journals.get(certificate)
        references = cluster.services.references()
        return Snapshot(
            accounts=self._accounts(spec, journal),
            journal=journal,
            journal_lost=journal is not None and not journal.resource_version,
            versions=versions,
            services=services,
            bindings=bindings,
            listeners=listeners,
            references=references,
            foreign=self._foreign(bindings, by_ref, journal),
            absent=frozenset(
                binding.reference
                for binding in bindings.values()
                if binding.reference
                and binding.reference not in by_ref
                and cluster.store.foreign.absent(binding.reference)
            ),
            remembered=cluster.store.remembered(references),
            written=cluster.services.written,
            window_opens_at=opens_at(spec.windows, now) if spec else None,
            issued=counted.issued,
            failed_validations=counted.failed_validations,
            clock_apart=cluster.api.clock_apart() or timedelta(0),
            claims=claimed,
            renewal_checks=self._renewal_checks(),
            ca_troubles=self._ca_troubles(),
            open_orders=counted.open_orders,
            complete=cluster.complete,
            problems=cluster.problems(),
        )

    def _accounts(
        self, spec: CertificateSpec | None, journal: Journal | None
    ) -> dict[str, Account]:
        wanted: set[str] = set()
        for issuer in spec.issuers if spec else ():
            wanted.add(issuer.directory)
            if issuer.rehearsal is not None:
                wanted.add(issuer.rehearsal.directory)
        if journal is not None and journal.pending is not None:
            wanted.add(journal.pending.directory)
        found = {directory: self._cluster.store.account(directory) for directory in wanted}
        return {directory: account for directory, account in found.items() if account}

    def _claim(self, state: ServiceState, now: datetime) -> Claim | None:
        """Say whose the Service is, if another instance's; one request now and then."""
        holder, since = state.owned.holder, state.owned.held_since
        if holder is None:
            return None
        since = min(since, now) if since is not None else None
        if holder in self._take_over_from:
            return Claim(holder, since, asked=True)

        def claim_by(sign: Sign) -> Claim:
            return Claim(
                holder, since, sign.renewed_at, sign.lasts, sign.unchanged_since, sign.trouble
            )

        def is_over(sign: Sign) -> bool:
            """Before anybody acts on the end of a claim, its holder is looked at once more."""
            end = claims.lapses_at(claim_by(sign), self._policy)
            return now >= end and (sign.read_at < end or now - sign.read_at >= RETRY)

        return claim_by(self._cluster.holders.sign(holder, now, is_over))

    def _foreign(
        self,
        bindings: Mapping[ObjectRef, Binding],
        ours: Mapping[ObjectRef, SecretVersion],
        journal: Journal | None,
    ) -> dict[ObjectRef, Leaf]:
        """
        Read the hand-made Secrets that Services name, where we may.

        Where a version is refused, those too that they named before us: to come
        back to.
        """
        named = {binding.reference for binding in bindings.values()}
        if journal is not None and any(version.rejected for version in ours.values()):
            originals = journal.originals
            named |= {reference(originals.get(str(ref)), ref.namespace) for ref in bindings}
        found = {}
        for ref in named:
            leaf = self._cluster.store.foreign.leaf(ref) if ref and ref not in ours else None
            if ref and leaf is not None:
                found[ref] = leaf
        return found

    def _listener(
        self,
        spec: CertificateSpec,
        service: ServiceSpec,
        state: ServiceState,
        binding: Binding,
        probing: bool,
    ) -> ListenerState:
        route = self._route_to(service, state)
        addresses = (
            [service.probe.address]
            if service.probe.address
            else [address.ip for address in state.addresses]
        )
        ports = [service.probe.port] if service.probe.port else list(binding.tls_ports)
        name = service.probe.server_name or probe.server_name_for(spec.names)
        sights: tuple[Sight, ...] = ()
        if probing and addresses and ports:
            sights = self._look(addresses, ports, name, self._timeout)
        return ListenerState(route, sights, self._cluster.events.of(service.ref, state.uid))

    def _route_to(self, service: ServiceSpec, state: ServiceState) -> Route:
        """
        Say whether a probe leaves the cluster: only then it testifies.

        With ``ipMode`` VIP or none, kube-proxy sends what pods send to the load
        balancer's address straight to the Service's endpoints.
        """
        if self._route != "auto":
            return Route(self._route)
        if service.probe.address is not None or "KUBERNETES_SERVICE_HOST" not in os.environ:
            return Route.OUTSIDE
        modes = [address.ip_mode for address in state.addresses]
        proxied = bool(modes) and all(mode == "Proxy" for mode in modes)
        return Route.OUTSIDE if proxied else Route.INSIDE


def _proven(version: SecretVersion, service: ServiceSpec, binding: Binding) -> bool:
    proof = standing_proof(version, service.ref, binding)
    return proof is not None and proof.how != UNPROVEN


@dataclass(frozen=True, slots=True)
class _Counted:
    """What all Journals say together."""

    issued: tuple[OrderRecord, ...]
    failed_validations: tuple[FailedValidation, ...]
    open_orders: Mapping[str, tuple[str, ...]]


def _count(there: Mapping[str, Journal], lost: Sequence[Journal]) -> _Counted:
    all_ = (*there.values(), *lost)
    return _Counted(
        tuple(record for each in all_ for record in each.orders),
        tuple(failed for each in all_ for failed in each.failed_validations),
        _open_orders(there),
    )


def _open_orders(journals: Mapping[str, Journal]) -> dict[str, tuple[str, ...]]:
    """Name the certificates that have an order open, or a rehearsal's, by the CA's directory."""
    found: dict[str, list[str]] = {}
    for name, journal in sorted(journals.items()):
        rehearsal = journal.rehearsal
        at = {journal.pending.directory} if journal.pending is not None else set()
        if rehearsal is not None and rehearsal.outcome is Outcome.OPEN and rehearsal.url:
            at.add(rehearsal.directory)
        for directory in at:
            found.setdefault(directory, []).append(name)
    return {directory: tuple(names) for directory, names in found.items()}
