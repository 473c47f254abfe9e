"""What is there: versions, Journals, Services and listeners, as read at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from certbaton.model.journal import Account, FailedValidation, Journal, OrderRecord
from certbaton.model.spec import Instance, ObjectRef


@dataclass(frozen=True, slots=True)
class Leaf:
    """
    Facts of an end-entity certificate.

    *sha256* is of its DER encoding, *public_key_sha256* of its
    SubjectPublicKeyInfo, both in hex. *names* are its SAN dNSNames and iPAddresses, sorted.
    *ari_id* is its CertID for renewal information (RFC 9773 section 4.1), None where it has no
    Authority Key Identifier.
    """

    sha256: str
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    public_key_sha256: str
    key_type: str
    self_signed: bool = False
    ari_id: str | None = None

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
class Rejection:
    """When a version was refused by a listener, and by what evidence (a sentence)."""

    at: datetime
    why: str


@dataclass(frozen=True, slots=True)
class RenewalInfo:
    """A CA's suggested window for renewing one version (RFC 9773 section 4.2)."""

    start: datetime
    end: datetime
    explanation_url: str | None = None
    fetched_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RenewalCheck:
    """
    When renewal information of a version is asked for again; *trouble* if it could not be had.

    *count* is how many looks in a row were of no use. Not stored: a new process asks at once.
    """

    next_at: datetime
    trouble: str | None = None
    count: int = 0


@dataclass(frozen=True, slots=True)
class Revocation:
    """A version was revoked, or is to be: *reason* is RFC 5280's (``keyCompromise``)."""

    at: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class CaTrouble:
    """
    A CA that cannot be reached, or answers with 5xx; noted against it and not its certificates.

    *count* in a row since *since*, the last one at *at*. *retry_at* where the CA named a time.
    *probing* is the certificate that tries whether it answers again, for all.
    """

    count: int
    since: datetime
    at: datetime
    message: str
    retry_at: datetime | None = None
    probing: str | None = None


EVERYWHERE = "*"
"""The key of a rejection that holds for every Service."""


@dataclass(frozen=True, slots=True)
class SecretVersion:
    """
    One immutable TLS Secret of ours.

    *leaf* is None where tls.crt cannot be read; *flaw* then, or where key and
    chain do not fit, is a sentence. *profile* is the one that was asked for, None
    the CA's default. *order_url* is of the order that it came of, "" where that is not known.
    *served* is keyed by ``namespace/name`` of
    the Service, *rejected* likewise or by `EVERYWHERE`. The private key is
    deliberately not here.
    """

    ref: ObjectRef
    certificate: str
    uid: str
    resource_version: str
    leaf: Leaf | None
    flaw: str | None = None
    directory: str = ""
    account_url: str = ""
    profile: str | None = None
    profile_got: str | None = None
    certificate_url: str = ""
    order_url: str = ""
    served: Mapping[str, Proof] = field(default_factory=dict)
    marked_at: datetime | None = None
    rejected: Mapping[str, Rejection] = field(default_factory=dict)
    renewal_info: RenewalInfo | None = None
    renew_asked: datetime | None = None
    revoked: Revocation | None = None


class Route(StrEnum):
    """How a probe reaches a listener."""

    OUTSIDE = "outside"
    INSIDE = "inside"


@dataclass(frozen=True, slots=True)
class Sight:
    """
    What one handshake showed: *leaf_sha256*, or *trouble* in a few words.

    No leaf is "unknown", never "wrong". *alert* says that the trouble was a TLS
    alert: somebody there speaks TLS, and refuses.
    """

    address: str
    port: int
    leaf_sha256: str | None
    trouble: str | None = None
    alert: bool = False


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
    *others_ssl_ports* and *tls_secret_manager* likewise for the annotations;
    *tls_secret_changed_at* is the last change of the latter by anybody.
    Other instances of certbaton are no "others" for the first two:
    *instances_https* says that one of them set port 443. *holder* is the one
    that has this Service, and *held_since* when it last wrote there.
    """

    tls_secret: bool = False
    ssl_ports: bool = False
    https_port: bool = False
    others_ssl_ports: bool = False
    others_https: bool = False
    tls_secret_manager: str | None = None
    changed_at: datetime | None = None
    tls_secret_changed_at: datetime | None = None
    instances_https: bool = False
    holder: Instance | None = None
    held_since: datetime | None = None


PAUSED = "certbaton.io/paused"


@dataclass(frozen=True, slots=True)
class ServiceState:
    """
    A Service as the cluster has it.

    *reference* is the value of its tls-secret annotation read as the cloud
    reads it; *reference_version* the lowest resourceVersion known to carry
    it (a sync of that version or a later one has worked on it).
    *backend_reference* is the Secret for TLS towards the pods, which the same
    sync puts on the load balancer.
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
    backend_reference: ObjectRef | None = None
    load_balancer_class: str | None = None
    deleting: bool = False

    @property
    def paused(self) -> bool:
        """Whether somebody asked that nothing be written here (``certbaton.io/paused``)."""
        value = self.annotations.get(PAUSED)
        return value is not None and value.strip().lower() not in ("false", "no", "0")


@dataclass(frozen=True, slots=True)
class Binding:
    """
    A Service read with the eyes of its cloud, against what is wanted of it.

    *complete* says that nothing but the Secret's name might need writing;
    *problem* is a sentence where it cannot be written as it is, *tls_ports*
    are the ports that terminate TLS. *changed_at* is when we last changed it
    (the API server's clock, whole seconds), None where we never did.
    *key_kinds* are those that the listener's cipher suite can serve (``RSA``,
    ``EC``), None where that is not known. *value* is the annotation as it stands.
    """

    reference: ObjectRef | None
    complete: bool
    problem: str | None = None
    tls_ports: tuple[int, ...] = ()
    changed_at: datetime | None = None
    key_kinds: frozenset[str] | None = None
    value: str | None = None


@dataclass(frozen=True, slots=True)
class ListenerState:
    """What is known of a Service's TLS listeners: how they are seen, and what was seen."""

    route: Route
    sights: tuple[Sight, ...] = ()
    events: tuple[SyncEvent, ...] = ()


@dataclass(frozen=True, slots=True)
class Claim:
    """
    Another instance of certbaton has this Service: what speaks for its being alive.

    *since* is its last write there, *renewed_at* the last renewal of its Lease, None
    where it has none; *lasts* is that Lease's duration. *unchanged_since* is since when we
    have looked at the Lease, or at its absence, without a gap, and found it the same; None
    where it cannot be read, for *trouble*. *asked* says that ``takeOverFrom`` names *holder*.
    """

    holder: Instance
    since: datetime | None
    renewed_at: datetime | None = None
    lasts: timedelta = timedelta(0)
    unchanged_since: datetime | None = None
    trouble: str | None = None
    asked: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """
    What concerns one certificate, as read at one moment.

    *complete* is false after any failed reading: then nothing is deleted.
    *journal_lost* says that *journal* was deleted, and is what we remember of it.
    *references* are all Secrets that any Service in any namespace names, in
    either annotation. *issued* are the orders that ended in a certificate, and
    *failed_validations* those that did not, over all our Journals, also deleted ones. *foreign* are
    leaves of Secrets that are not ours and that we may read, *absent* those that Services name
    and that are not there, as far as we may know; *remembered* are
    versions that were deleted while named, and whose content is still known; *written* are Services
    that this process has written. *window_opens_at* is
    None while a rollout window is open, or where there are none. *clock_apart* is
    how far the API server's clock is ahead of ours. *claims* are by Services that another
    instance has. *accounts* are by directory, those of all issuers of the certificate, of their
    rehearsals, and of the CA that an open order is at; *ca_troubles* are CAs, by directory, that
    do not answer; *open_orders* are the certificates with an order open, by the CA's directory.
    """

    accounts: Mapping[str, Account]
    journal: Journal | None
    versions: tuple[SecretVersion, ...]
    services: Mapping[ObjectRef, ServiceState]
    bindings: Mapping[ObjectRef, Binding]
    listeners: Mapping[ObjectRef, ListenerState]
    references: frozenset[ObjectRef]
    issued: tuple[OrderRecord, ...] = ()
    failed_validations: tuple[FailedValidation, ...] = ()
    foreign: Mapping[ObjectRef, Leaf] = field(default_factory=dict)
    absent: frozenset[ObjectRef] = frozenset()
    remembered: frozenset[ObjectRef] = frozenset()
    written: frozenset[ObjectRef] = frozenset()
    window_opens_at: datetime | None = None
    clock_apart: timedelta = timedelta(0)
    claims: Mapping[ObjectRef, Claim] = field(default_factory=dict)
    journal_lost: bool = False
    renewal_checks: Mapping[ObjectRef, RenewalCheck] = field(default_factory=dict)
    ca_troubles: Mapping[str, CaTrouble] = field(default_factory=dict)
    open_orders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    complete: bool = True
    problems: tuple[str, ...] = ()
