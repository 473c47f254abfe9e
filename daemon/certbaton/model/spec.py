"""What is asked for: certificates, issuers, Services, and the numbers of the policy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

_OBJECT_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")


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

    @classmethod
    def of_field_manager(cls, manager: str) -> Instance | None:
        """Read what `field_manager` wrote; None where it is not of certbaton's."""
        parts = manager.split("/")
        if len(parts) != 3 or parts[0] != "certbaton":
            return None
        if not all(_OBJECT_NAME.fullmatch(part) for part in parts[1:]):
            return None  # anybody may call himself anything: it becomes part of a request
        return cls(parts[2], parts[1])


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


@dataclass(frozen=True, slots=True)
class ExternalAccountSpec:
    """
    How an account is bound to one that the CA knows already (RFC 8555 section 7.3.4).

    *secret* names a Secret in our namespace with the keys ``kid`` and ``hmacKey`` (base64url);
    without it, *api* is ZeroSSL's way: a URL that gives both for the account's e-mail address.
    """

    secret: str | None = None
    api: str | None = None


@dataclass(frozen=True, slots=True)
class IssuerSpec:
    """
    One ACME CA: where its directory is and how its account is made.

    *profile_required* says never to go without *profile*. *preferred_chain* is the common name
    of the issuer of a chain's last certificate. *proxy* is an HTTP proxy's URL, in place of what
    the environment says. *rehearsal* is the CA at which to try first after failed validations.
    *renewal_info* says to ask for it and to follow it (RFC 9773).
    *connect_timeout* and *timeout* bound one request: getting through, and as a whole.
    """

    name: str
    directory: str
    ca_bundle: str | None = None
    email: str | None = None
    profile: str | None = None
    timeout: timedelta = timedelta(seconds=30)
    connect_timeout: timedelta = timedelta(seconds=10)
    profile_required: bool = False
    preferred_chain: str | None = None
    proxy: str | None = None
    account_key_type: KeyType = KeyType.EC_P256
    external_account: ExternalAccountSpec | None = None
    rehearsal: IssuerSpec | None = None
    renewal_info: bool = True


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
class RolloutWindow:
    """When repoints may begin: *cron* (five fields) in *timezone*, for *duration* each time."""

    cron: str
    duration: timedelta
    timezone: str = "UTC"


@dataclass(frozen=True, slots=True)
class CertificateSpec:
    """
    A certificate as the configuration asks for it.

    *names* are sorted: lower-case A-labels, and IP addresses in their shortest form. *fallbacks*
    are the CAs that are asked, in this order, when *issuer* cannot. *lifetime* is asked for
    as notAfter, where the CA takes that. *reuse_key* keeps the private key over renewals.
    """

    name: str
    names: tuple[str, ...]
    issuer: IssuerSpec
    solver: str
    key_type: KeyType = KeyType.RSA_2048
    services: tuple[ServiceSpec, ...] = ()
    paused: bool = False
    windows: tuple[RolloutWindow, ...] = ()
    fallbacks: tuple[IssuerSpec, ...] = ()
    lifetime: timedelta | None = None
    reuse_key: bool = False

    @property
    def issuers(self) -> tuple[IssuerSpec, ...]:
        """All CAs that may issue it, the wanted one first."""
        return (self.issuer, *self.fallbacks)


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
    dangerous: float = 1 / 20
    advice_poll_floor: timedelta = timedelta(minutes=1)
    advice_poll_usual: timedelta = timedelta(hours=6)
    advice_poll_share: float = 1 / 20
    advice_poll_ceiling: timedelta = timedelta(days=1)
    advice_limit: int = 2
    advice_limit_window: timedelta = timedelta(days=1)
    fallback_failures: int = 3
    fallback_after: timedelta = timedelta(hours=1)
    fallback_share: float = 1 / 50
    ca_back_off_first: timedelta = timedelta(minutes=1)
    ca_back_off_ceiling: timedelta = timedelta(minutes=30)
    order_limit_open: timedelta = timedelta(hours=24)
    orders_at_a_time: int = 4
    requests_per_second: int = 15
    retention_share: float = 1 / 10
    retention_ceiling: timedelta = timedelta(hours=24)
    sweep_share: float = 1 / 30
    sweep_ceiling: timedelta = timedelta(minutes=15)
    settle_share: float = 1 / 10
    settle_ceiling: timedelta = timedelta(minutes=15)
    handover_ceiling: timedelta = timedelta(hours=1)
    alert_share: float = 1 / 20
    alert_ceiling: timedelta = timedelta(minutes=5)
    drift_share: float = 1 / 60
    drift_ceiling: timedelta = timedelta(minutes=1)
    drift_rounds: int = 5
    claim_lapse: timedelta = timedelta(hours=24)
    claim_watch: timedelta = timedelta(hours=1)
    clock_share: float = 1 / 20
    clock_floor: timedelta = timedelta(seconds=2)
    clock_ceiling: timedelta = timedelta(minutes=5)
    keep_previous: int = 1
    back_off: tuple[timedelta, ...] = (
        timedelta(minutes=1),
        timedelta(minutes=10),
        timedelta(minutes=100),
        timedelta(hours=24),
    )
    back_off_share: float = 1 / 50
    order_limit: int = 4
    order_limit_window: timedelta = timedelta(days=7)
    validation_limit: int = 3
    validation_limit_window: timedelta = timedelta(hours=1)
    poll_listener: timedelta = timedelta(seconds=1)
    backstop: timedelta = timedelta(minutes=10)
