"""
Words of the model with sensible defaults: a test names only what matters to it.

Out of the box everything is well: the certificate ``shop`` has one valid version a third into
its 90 days, an account, and one Service that names and serves it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from certbaton.core.plan import plan
from certbaton.core.rollover import UNPROVEN, standing_proof
from certbaton.model import (
    PAUSED,
    Account,
    Action,
    Address,
    Binding,
    CaTrouble,
    CertificateSpec,
    Claim,
    FailedValidation,
    Failure,
    FailureKind,
    IssuerSpec,
    Journal,
    KeyType,
    Leaf,
    ListenerState,
    ObjectRef,
    OrderRecord,
    OwnedFields,
    PendingOrder,
    Plan,
    Policy,
    Proof,
    Rejection,
    RenewalCheck,
    RenewalInfo,
    Revocation,
    Route,
    SecretVersion,
    ServicePort,
    ServiceSpec,
    ServiceState,
    Sight,
    Snapshot,
    SyncEvent,
)

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
POLICY = Policy()

HOME = "certbaton"
NAMES = ("shop.example", "www.shop.example")
DIRECTORY = "https://ca.example/directory"
ACCOUNT_URL = "https://ca.example/account/1"
SHOP, API = ObjectRef("shop", "shop"), ObjectRef("api", "api")
ADDRESS = "192.0.2.1"


def a_hash(text: str) -> str:
    """What stands for a SHA-256 of *text*."""
    return hashlib.sha256(text.encode()).hexdigest()


def a_spec(
    *services: ObjectRef | ServiceSpec,
    name: str = "shop",
    names: tuple[str, ...] = NAMES,
    directory: str = DIRECTORY,
    key_type: KeyType = KeyType.RSA_2048,
    profile: str | None = None,
    paused: bool = False,
    issuer: IssuerSpec | None = None,
    fallbacks: Sequence[IssuerSpec] = (),
    reuse_key: bool = False,
) -> CertificateSpec:
    """A certificate as asked for; without *services* for the Service shop/shop."""
    return CertificateSpec(
        name=name,
        names=names,
        issuer=issuer or IssuerSpec("ca", directory, profile=profile),
        fallbacks=tuple(fallbacks),
        reuse_key=reuse_key,
        solver="dns",
        key_type=key_type,
        services=tuple(
            service if isinstance(service, ServiceSpec) else ServiceSpec(service)
            for service in services or (SHOP,)
        ),
        paused=paused,
    )


def a_leaf(
    name: str = "leaf",
    *,
    begins: datetime = NOW - 30 * DAY,
    lasts: timedelta = 90 * DAY,
    names: tuple[str, ...] = NAMES,
    key_type: str = KeyType.RSA_2048,
    key: str | None = None,
    self_signed: bool = False,
    ari_id: str | None = None,
) -> Leaf:
    """A leaf called *name*; its *key* is its own unless given."""
    public_key = a_hash(key or f"{name} key")
    return Leaf(
        a_hash(name), names, begins, begins + lasts, public_key, key_type, self_signed, ari_id
    )


def a_version(
    name: str = "shop-1",
    *,
    begins: datetime = NOW - 30 * DAY,
    lasts: timedelta = 90 * DAY,
    names: tuple[str, ...] = NAMES,
    key_type: str = KeyType.RSA_2048,
    key: str | None = None,
    readable: bool = True,
    flaw: str | None = None,
    directory: str = DIRECTORY,
    profile: str | None = None,
    served: Mapping[ObjectRef, str | Proof] | None = None,
    rejected: Mapping[ObjectRef | str, datetime] | None = None,
    marked_at: datetime | None = None,
    namespace: str = HOME,
    account_url: str = ACCOUNT_URL,
    ari_id: str | None = None,
    window: tuple[datetime, datetime] | RenewalInfo | None = None,
    renew_asked: datetime | None = None,
    revoked: str | None = None,
) -> SecretVersion:
    """
    A version; *served* says how (and when, else two days ago) a handover ended there.

    *rejected* says by whom it was refused (`EVERYWHERE`: by all), and when. *window* is what its
    CA suggests; *revoked* for which reason it was, a minute ago.
    """
    leaf = a_leaf(
        name,
        begins=begins,
        lasts=lasts,
        names=names,
        key_type=key_type,
        key=key,
        ari_id=ari_id or (f"{name} ari" if window else None),
    )
    return SecretVersion(
        ref=ObjectRef(namespace, name),
        certificate="shop",
        uid=f"uid of {name}",
        resource_version="1",
        leaf=leaf if readable else None,
        flaw=flaw if readable else (flaw or "the chain is unreadable"),
        directory=directory,
        account_url=account_url,
        profile=profile,
        renewal_info=RenewalInfo(*window) if isinstance(window, tuple) else window,
        renew_asked=renew_asked,
        revoked=Revocation(NOW - MINUTE, revoked) if revoked else None,
        served={
            str(ref): how if isinstance(how, Proof) else Proof(NOW - 2 * DAY, how)
            for ref, how in (served or {}).items()
        },
        rejected={str(ref): Rejection(at, "refused") for ref, at in (rejected or {}).items()},
        marked_at=marked_at,
    )


@dataclass(frozen=True)
class There:
    """A Service in the cluster: its state, its binding, and what is known of its listener."""

    state: ServiceState
    binding: Binding
    listener: ListenerState


def a_service(
    ref: ObjectRef = SHOP,
    *,
    names: SecretVersion | ObjectRef | None = None,
    complete: bool = True,
    problem: str | None = None,
    changed_at: datetime | Literal["before"] | None = "before",
    reference_version: str = "50",
    route: Route = Route.OUTSIDE,
    sights: Sequence[Sight] = (),
    events: Sequence[SyncEvent] = (),
    addresses: Sequence[str] = (ADDRESS,),
    deleting: bool = False,
    ours: bool = True,
    key_kinds: frozenset[str] | None = None,
    paused: bool = False,
    backend: ObjectRef | None = None,
    manager: str | None = None,
    anybody_changed_at: datetime | None = None,
) -> There:
    """
    A Service that names a Secret; *ours* says whether we wrote that.

    We wrote it a minute ago, or before it was proven there. *manager* is who else owns the
    annotation, *anybody_changed_at* when it changed last, else when we changed it.
    """
    if changed_at == "before":
        proof = names.served.get(str(ref)) if isinstance(names, SecretVersion) else None
        changed_at = min(NOW - MINUTE, proof.at) if proof else NOW - MINUTE
        if names is None or not ours:
            changed_at = None
    reference = names.ref if isinstance(names, SecretVersion) else names
    state = ServiceState(
        ref=ref,
        uid=f"uid of {ref}",
        resource_version="60",
        type="LoadBalancer",
        annotations={PAUSED: "true"} if paused else {},
        ports=(ServicePort("http", 80, "TCP", 8080),),
        addresses=tuple(Address(ip) for ip in addresses),
        owned=OwnedFields(
            tls_secret=ours and reference is not None,
            ssl_ports=ours and reference is not None,
            https_port=ours and reference is not None,
            tls_secret_manager=manager,
            changed_at=changed_at,
            tls_secret_changed_at=anybody_changed_at or changed_at,
        ),
        backend_reference=backend,
        reference=reference,
        reference_version=reference_version if reference else "",
        deleting=deleting,
    )
    return There(
        state,
        Binding(
            reference,
            complete,
            problem,
            (443,),
            changed_at,
            key_kinds,
            value=str(reference) if reference else None,
        ),
        ListenerState(route, tuple(sights), tuple(events)),
    )


def a_sight(
    of: SecretVersion | None = None,
    *,
    address: str = ADDRESS,
    port: int = 443,
    trouble: str | None = None,
    alert: bool = False,
) -> Sight:
    """What a handshake showed: the leaf *of* a version, or trouble (a TLS alert if *alert*)."""
    leaf = of.leaf.sha256 if of and of.leaf else None
    return Sight(address, port, leaf, trouble if leaf is None else None, alert)


def an_event(
    reason: str,
    at: datetime = NOW,
    *,
    first_at: datetime | None = None,
    count: int = 1,
    version: str = "50",
    message: str = "",
) -> SyncEvent:
    """An Event of the controller; *reason* without its LoadBalancer."""
    names = {"SyncFailed": "SyncLoadBalancerFailed"}
    return SyncEvent(
        names.get(reason, f"{reason}LoadBalancer"), message, first_at or at, at, count, version
    )


def a_pending(
    *,
    key: str = "pending key",
    directory: str = DIRECTORY,
    account_url: str = ACCOUNT_URL,
    names: tuple[str, ...] = NAMES,
    key_type: str = KeyType.RSA_2048,
    profile: str | None = None,
    url: str | None = "https://ca.example/order/1",
    finalizing: bool = False,
) -> PendingOrder:
    """An order that was begun."""
    return PendingOrder(
        directory=directory,
        account_url=account_url,
        names=names,
        key_type=key_type,
        public_key_sha256=a_hash(key),
        reason="Renewing",
        staged_at=NOW - MINUTE,
        profile=profile,
        url=url,
        finalizing=finalizing,
    )


def a_failure(
    *,
    retry_at: datetime,
    count: int = 1,
    message: str = "no luck",
    at: datetime = NOW - MINUTE,
    since: datetime | None = None,
    kind: FailureKind = FailureKind.OTHER,
    named: bool = False,
) -> Failure:
    """A failure a minute ago; *since* is when the first of them was."""
    return Failure(message, at, count, retry_at, kind, since or at, named)


def a_snapshot(
    *versions: SecretVersion,
    services: Sequence[There] = (),
    journal: Journal | None = None,
    account: Account | str | None = ACCOUNT_URL,
    references: Sequence[ObjectRef] = (),
    issued: Sequence[OrderRecord] = (),
    failed: Sequence[FailedValidation] = (),
    foreign: Mapping[ObjectRef, Leaf] | None = None,
    remembered: Sequence[ObjectRef] = (),
    absent: Sequence[ObjectRef] = (),
    window_opens_at: datetime | None = None,
    complete: bool = True,
    problems: Sequence[str] = (),
    claims: Mapping[ObjectRef, Claim] | None = None,
    accounts: Sequence[Account] = (),
    renewal_checks: Mapping[ObjectRef, RenewalCheck] | None = None,
    ca_troubles: Mapping[str, CaTrouble] | None = None,
    open_orders: Mapping[str, tuple[str, ...]] | None = None,
) -> Snapshot:
    """
    The world as the observer gives it: only unproven listeners are looked at.

    *references* are what further Services name; those of *services* are among them anyway.
    *account* is the one at `DIRECTORY`, *accounts* are those elsewhere.
    """
    by_ref = {version.ref: version for version in versions}

    def open_(there: There) -> bool:
        version = by_ref.get(there.binding.reference) if there.binding.reference else None
        if version is None:
            return False
        proof = standing_proof(version, there.state.ref, there.binding)
        return proof is None or proof.how == UNPROVEN

    named = {there.binding.reference for there in services if there.binding.reference}
    return Snapshot(
        accounts={
            each.directory: each
            for each in (
                Account(DIRECTORY, account) if isinstance(account, str) else account,
                *accounts,
            )
            if each is not None
        },
        journal=journal,
        versions=tuple(versions),
        services={there.state.ref: there.state for there in services},
        bindings={there.state.ref: there.binding for there in services},
        listeners={there.state.ref: there.listener for there in services if open_(there)},
        references=frozenset({*named, *references}),
        issued=tuple(issued),
        failed_validations=tuple(failed),
        foreign=foreign or {},
        remembered=frozenset(remembered),
        absent=frozenset(absent),
        window_opens_at=window_opens_at,
        complete=complete,
        problems=tuple(problems),
        claims=claims or {},
        renewal_checks=renewal_checks or {},
        ca_troubles=ca_troubles or {},
        open_orders=open_orders or {},
    )


def planned(
    snapshot: Snapshot,
    spec: CertificateSpec | None = None,
    *,
    policy: Policy = POLICY,
    now: datetime = NOW,
    configured: bool = True,
) -> Plan:
    """The plan for `a_spec` (or *spec*); *configured* false: it left the configuration."""
    return plan("shop", (spec or a_spec()) if configured else None, snapshot, policy, now)


def kinds(actions: Sequence[Action]) -> list[str]:
    """What a plan would do, by name."""
    return [type(action).__name__ for action in actions]
