"""
The words: plain, immutable data that every other module speaks in.

Nothing here does I/O or reads a clock. Times are timezone-aware UTC
everywhere. A term of the field is used as the field uses it: RFC 8555 (Order,
Authorization, Challenge), Kubernetes (Service, Secret), OCI (listener).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum


@dataclass(frozen=True, order=True, slots=True)
class ObjectRef:
    """A namespaced object, written ``namespace/name``."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Instance:
    """One release of certbaton: what tells its objects from another release's."""

    release: str
    namespace: str

    def __str__(self) -> str:
        return f"{self.release}.{self.namespace}"

    @property
    def field_manager(self) -> str:
        """Field manager of our Service writes; names the Lease of its holder."""
        return f"certbaton/{self.namespace}/{self.release}"


class KeyType(StrEnum):
    """Key types that Let's Encrypt and the OCI load balancer accept."""

    RSA_2048 = "RSA-2048"
    RSA_3072 = "RSA-3072"
    RSA_4096 = "RSA-4096"
    EC_P256 = "P-256"
    EC_P384 = "P-384"


class Reason(StrEnum):
    """Why a certificate is issued; cert-manager's words, and ours from Revoked on."""

    DOES_NOT_EXIST = "DoesNotExist"
    INVALID_KEY_PAIR = "InvalidKeyPair"
    INCORRECT_ISSUER = "IncorrectIssuer"
    REQUEST_CHANGED = "RequestChanged"
    RENEWING = "Renewing"
    EXPIRED = "Expired"
    REVOKED = "Revoked"
    FORCED = "Forced"


# --- what is asked for ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class IssuerSpec:
    """One ACME CA: where its directory is and how its account is made."""

    name: str
    directory: str
    ca_bundle: str | None = None
    email: str | None = None
    profile: str | None = None
    timeout: timedelta = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class ProbeSpec:
    """Where a listener is looked at, in place of what the Service's status says."""

    address: str | None = None
    port: int | None = None
    server_name: str | None = None


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """A Service of type LoadBalancer that serves the certificate."""

    ref: ObjectRef
    set_ssl_ports: bool = True
    add_https_port: bool = True
    probe: ProbeSpec = ProbeSpec()


@dataclass(frozen=True, slots=True)
class CertificateSpec:
    """A certificate as the configuration asks for it. *names* are sorted, lower-case A-labels."""

    name: str
    names: tuple[str, ...]
    issuer: IssuerSpec
    solver: str
    key_type: KeyType = KeyType.RSA_2048
    services: tuple[ServiceSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """
    The numbers behind the rules. Shares are of the leaf's lifetime L.

    The same rules so hold for minutes in the lab, for six days and for ninety.
    """

    renew_left: float = 1 / 3
    renew_left_short: float = 1 / 2
    short_lifetime: timedelta = timedelta(days=10)
    renew_jitter: float = 1 / 100
    late: float = 1 / 6
    retention_share: float = 1 / 10
    retention_ceiling: timedelta = timedelta(hours=24)
    sweep_share: float = 1 / 30
    sweep_ceiling: timedelta = timedelta(minutes=15)
    settle_share: float = 1 / 10
    settle_ceiling: timedelta = timedelta(minutes=15)
    handover_ceiling: timedelta = timedelta(hours=1)
    keep_previous: int = 1
    back_off: tuple[timedelta, ...] = (
        timedelta(minutes=1),
        timedelta(minutes=10),
        timedelta(minutes=100),
        timedelta(hours=24),
    )
    order_limit: int = 4
    order_limit_window: timedelta = timedelta(days=7)
    validation_limit: int = 3
    validation_limit_window: timedelta = timedelta(hours=1)
    poll_listener: timedelta = timedelta(seconds=1)
    poll_order: timedelta = timedelta(seconds=5)
    backstop: timedelta = timedelta(minutes=10)


# --- what is there -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Leaf:
    """
    Facts of an end-entity certificate.

    *sha256* is of its DER encoding, *public_key_sha256* of its
    SubjectPublicKeyInfo, both in hex. *names* are its SAN dNSNames, sorted.
    """

    sha256: str
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    public_key_sha256: str
    key_type: str
    self_signed: bool = False

    @property
    def lifetime(self) -> timedelta:
        """L: from notBefore to notAfter."""
        return self.not_after - self.not_before


@dataclass(frozen=True, slots=True)
class Proof:
    """How and when the handover of a version at one Service ended."""

    at: datetime
    how: str  # "wire", "events", or "unproven"


@dataclass(frozen=True, slots=True)
class SecretVersion:
    """
    One immutable TLS Secret of ours.

    *leaf* is None where tls.crt cannot be read; *flaw* then, or where key and
    chain do not fit, is a sentence. *served* is keyed by ``namespace/name`` of
    the Service. The private key is deliberately not here.
    """

    ref: ObjectRef
    certificate: str
    uid: str
    resource_version: str
    leaf: Leaf | None
    flaw: str | None = None
    directory: str = ""
    account_url: str = ""
    served: Mapping[str, Proof] = field(default_factory=dict)
    marked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class PendingOrder:
    """
    An order that was begun: the intent, written before the CA is asked.

    *url* is None until newOrder was answered. *chain* is set when the
    certificate was downloaded but its Secret could not be written.
    """

    directory: str
    account_url: str
    names: tuple[str, ...]
    key_type: str
    public_key_sha256: str
    reason: str
    staged_at: datetime
    profile: str | None = None
    url: str | None = None
    expires: datetime | None = None
    certificate_url: str | None = None
    chain: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong last, how many times in a row, and when it is tried again."""

    message: str
    at: datetime
    count: int
    retry_at: datetime


@dataclass(frozen=True, slots=True)
class OrderRecord:
    """One newOrder that was sent, for the limits that outlive an order."""

    at: datetime
    directory: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FailedValidation:
    """One name that a CA could not validate."""

    at: datetime
    directory: str
    name: str


@dataclass(frozen=True, slots=True)
class Journal:
    """
    A certificate's memory in the cluster. Long-lived.

    *last_version* names the version that its last order ended in.
    """

    resource_version: str = ""
    pending: PendingOrder | None = None
    failure: Failure | None = None
    orders: tuple[OrderRecord, ...] = ()
    failed_validations: tuple[FailedValidation, ...] = ()
    last_version: str | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """An ACME account: *url* is None between storing the key and newAccount's answer."""

    directory: str
    url: str | None
    resource_version: str = ""


class Route(StrEnum):
    """How a probe reaches a listener."""

    OUTSIDE = "outside"
    INSIDE = "inside"


@dataclass(frozen=True, slots=True)
class Sight:
    """
    What one handshake showed: *leaf_sha256*, or *trouble* in a few words.

    No leaf is "unknown", never "wrong".
    """

    address: str
    port: int
    leaf_sha256: str | None
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class SyncEvent:
    """One Event of the cloud controller on a Service (whole seconds, its own clock)."""

    reason: str
    message: str
    first_at: datetime
    last_at: datetime
    count: int
    synced_version: str  # involvedObject.resourceVersion


@dataclass(frozen=True, slots=True)
class ServicePort:
    """A port of a Service; *target_port* as in the object (number or name)."""

    name: str | None
    port: int
    protocol: str
    target_port: int | str | None


@dataclass(frozen=True, slots=True)
class Address:
    """One entry of ``status.loadBalancer.ingress``."""

    ip: str
    ip_mode: str | None = None


@dataclass(frozen=True, slots=True)
class OwnedFields:
    """
    What our field manager owns of a Service, by its managed fields.

    *others_https* is true where somebody else owns any part of port 443/TCP;
    *others_ssl_ports* and *tls_secret_manager* likewise for the annotations.
    """

    tls_secret: bool = False
    ssl_ports: bool = False
    https_port: bool = False
    others_ssl_ports: bool = False
    others_https: bool = False
    tls_secret_manager: str | None = None
    changed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ServiceState:
    """
    A Service as the cluster has it.

    *reference* is the value of its tls-secret annotation read as the cloud
    reads it; *reference_version* the lowest resourceVersion known to carry
    it (a sync of that version or a later one has worked on it).
    """

    ref: ObjectRef
    uid: str
    resource_version: str
    type: str
    annotations: Mapping[str, str]
    ports: tuple[ServicePort, ...]
    addresses: tuple[Address, ...]
    owned: OwnedFields
    reference: ObjectRef | None = None
    reference_version: str = ""
    load_balancer_class: str | None = None
    deleting: bool = False


@dataclass(frozen=True, slots=True)
class ListenerState:
    """What is known of a Service's TLS listeners: how they are seen, and what was seen."""

    route: Route
    sights: tuple[Sight, ...] = ()
    events: tuple[SyncEvent, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """
    What concerns one certificate, as read at one moment.

    *complete* is false after any failed reading: then nothing is deleted.
    *references* are all Secrets that any Service in any namespace names, in
    either annotation. *versions_fresh* says that the versions come from a
    list made since this process began (or since it last lost its watch), so
    that what a predecessor stored cannot be missing.
    """

    account: Account | None
    journal: Journal | None
    versions: tuple[SecretVersion, ...]
    services: Mapping[ObjectRef, ServiceState]
    listeners: Mapping[ObjectRef, ListenerState]
    references: frozenset[ObjectRef]
    complete: bool = True
    problems: tuple[str, ...] = ()


# --- what to do ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Action:
    """Base of all actions: one handler each in ``apply``, each one idempotent."""

    certificate: str
    why: str


@dataclass(frozen=True, slots=True)
class EnsureAccount(Action):
    """Key stored, then newAccount, then URL stored (RFC 8555 section 7.3)."""

    issuer: IssuerSpec


@dataclass(frozen=True, slots=True)
class StageOrder(Action):
    """Key and CSR into the Journal, before the CA is asked."""

    spec: CertificateSpec
    reason: Reason
    list_first: bool


@dataclass(frozen=True, slots=True)
class AdvanceOrder(Action):
    """Bring the pending order as far as it gets in one go."""

    spec: CertificateSpec | None
    pending: PendingOrder
    finish_only: bool = False


@dataclass(frozen=True, slots=True)
class CloseOrder(Action):
    """Take the pending order out of the Journal; *version* is what it ended in."""

    pending: PendingOrder
    version: str | None


@dataclass(frozen=True, slots=True)
class Repoint(Action):
    """One server-side apply that makes a Service name *version*."""

    service: ServiceSpec
    version: SecretVersion


@dataclass(frozen=True, slots=True)
class MarkServed(Action):
    """Note on the version that its handover at *service* has ended."""

    service: ObjectRef
    version: SecretVersion
    how: str


@dataclass(frozen=True, slots=True)
class MarkForDeletion(Action):
    """First half of collecting."""

    version: SecretVersion


@dataclass(frozen=True, slots=True)
class Unmark(Action):
    """A marked version is named again, or is to be named."""

    version: SecretVersion


@dataclass(frozen=True, slots=True)
class DeleteVersion(Action):
    """Second half: all Services looked at live, then deleted with preconditions."""

    version: SecretVersion


class WaitKind(StrEnum):
    """What a wait is for: ``once`` follows the first kind only."""

    IN_FLIGHT = "in flight"
    LATER = "later"
    BACK_OFF = "back-off"


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do before *until* (aware, UTC); *what* is a sentence for a person."""

    what: str
    until: datetime
    kind: WaitKind


@dataclass(frozen=True, slots=True)
class Plan:
    """
    What one certificate needs now.

    Actions are in order; *due* is since when a new version is wanted, and
    *notes* are sentences worth showing to somebody.
    """

    certificate: str
    actions: tuple[Action, ...] = ()
    waits: tuple[Wait, ...] = ()
    notes: tuple[str, ...] = ()
    due: datetime | None = None


# --- ACME resources, as ``ca`` hands them out -----------------------------------------


@dataclass(frozen=True, slots=True)
class ChallengeInfo:
    """
    One challenge of an authorization (RFC 8555 section 8).

    *value* is what the solver must show: the key authorization for http-01,
    its base64url SHA-256 digest for dns-01.
    """

    type: str
    url: str
    name: str
    token: str
    value: str
    status: str

    def __repr__(self) -> str:
        # token and value are answers to a challenge, not for a log
        return f"ChallengeInfo(type={self.type!r}, name={self.name!r}, status={self.status!r})"


@dataclass(frozen=True, slots=True)
class AuthorizationInfo:
    """One authorization: *name* without ``*.``; *error* is the CA's own words."""

    url: str
    name: str
    wildcard: bool
    status: str
    challenges: tuple[ChallengeInfo, ...]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class OrderInfo:
    """One order as the CA describes it; *retry_after* is a delay where one was sent."""

    url: str
    status: str
    authorizations: tuple[str, ...]
    finalize: str
    certificate: str | None
    expires: datetime | None
    error: str | None = None
    retry_after: timedelta | None = None
