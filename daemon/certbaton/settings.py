"""
The keys of the configuration file, as pydantic models.

Each key works when absent; the JSON schema in ``config/`` is made from these
models, and `certbaton.config` reads files with them.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel

from certbaton.model import (
    CertificateSpec,
    Instance,
    IssuerSpec,
    KeyType,
    ObjectRef,
    Policy,
    ProbeSpec,
    ServiceSpec,
)

# A version's name is <certificate>-<8>-<10> and has to fit a label (63).
MAX_CERTIFICATE_NAME = 42

_DEFAULTS = Policy()
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_OBJECT_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")


def _read_duration(value: object) -> object:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, str) and _DURATION.fullmatch(value):
        parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", value)
        return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in parts))
    raise ValueError(f"{value!r} is not a duration; write for example 30s, 10m, 1h30m or 7d")


def _write_duration(value: timedelta) -> str:
    seconds = value.total_seconds()
    for unit in ("d", "h", "m", "s"):
        if seconds and seconds % _UNITS[unit] == 0:
            return f"{int(seconds // _UNITS[unit])}{unit}"
    return f"{seconds:g}s"


Duration = Annotated[
    timedelta,
    BeforeValidator(_read_duration),
    PlainSerializer(_write_duration),
    WithJsonSchema({"type": "string", "pattern": f"^{_DURATION.pattern}$"}),
]


def _object_name(value: str) -> str:
    if not _OBJECT_NAME.fullmatch(value):
        raise ValueError(f"{value!r} is not a name that Kubernetes takes")
    return value


ObjectName = Annotated[str, BeforeValidator(lambda value: _object_name(str(value)))]


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True
    )


class InstanceConfig(_Section):
    """Which release this is; the chart sets both by environment variables."""

    release: ObjectName = "certbaton"
    namespace: ObjectName = "certbaton"


class IssuerConfig(_Section):
    """One ACME CA (RFC 8555)."""

    directory: str
    ca_bundle: str | None = None
    email: str | None = None
    profile: str | None = None
    timeout: Duration = timedelta(seconds=30)

    @field_validator("directory")
    @classmethod
    def _https(cls, value: str) -> str:
        if not re.fullmatch(r"https://[^\s/]+(/\S*)?", value):
            raise ValueError(f"{value!r} is not an https:// address of an ACME directory")
        return value


class Http01Config(_Section):
    """The built-in server for /.well-known/acme-challenge/ (RFC 8555 section 8.3)."""

    type: Literal["http-01"]
    port: int = Field(default=8089, ge=1, le=65535)
    address: str = "0.0.0.0"  # noqa: S104 - it has to be reached from outside the pod


class Rfc2136Config(_Section):
    """Dynamic updates of a name server of your own (RFC 2136), signed by TSIG (RFC 8945)."""

    server: str
    port: int = Field(default=53, ge=1, le=65535)
    zone: str | None = None
    tsig_key_name: str | None = None
    tsig_algorithm: str = "hmac-sha256"
    tsig_secret_file: str | None = None
    ttl: int = Field(default=60, ge=0)
    timeout_seconds: float = Field(default=5, gt=0)


class Dns01Config(_Section):
    """TXT records at _acme-challenge (RFC 8555 section 8.4)."""

    type: Literal["dns-01"]
    provider: Literal["rfc2136"] = "rfc2136"
    rfc2136: Rfc2136Config


SolverConfig = Annotated[Http01Config | Dns01Config, Field(discriminator="type")]


class ProbeConfig(_Section):
    """Where to look at a listener, in place of what the Service's status says."""

    address: str | None = None
    port: int | None = Field(default=None, ge=1, le=65535)
    server_name: str | None = None


class ServiceConfig(_Section):
    """A Service of type LoadBalancer that serves the certificate."""

    namespace: ObjectName
    name: ObjectName
    ssl_ports: bool = True
    https_port: bool = True
    probe: ProbeConfig = ProbeConfig()


def _dns_name(value: str) -> str:
    name = value.lower()
    if not name.isascii():
        raise ValueError(f"{value!r} has letters outside ASCII; write it in its xn-- form")
    labels = name.split(".")
    if labels[0] == "*":
        labels = labels[1:]
    if "*" in name.removeprefix("*."):
        raise ValueError(f"{value!r}: a * can only be the whole first label, as in *.a.example")
    if len(labels) < 2 or len(name) > 253:
        raise ValueError(f"{value!r} is not a full DNS name such as shop.example.com")
    for label in labels:
        if not _LABEL.fullmatch(label):
            raise ValueError(
                f"{value!r} is not a DNS name: {label!r} is not letters, digits and inner hyphens"
            )
    if labels[-1].isdigit():
        raise ValueError(f"{value!r} is not a DNS name: its last label is a number")
    return name


DnsName = Annotated[str, BeforeValidator(lambda value: _dns_name(str(value)))]


class CertificateConfig(_Section):
    """One certificate, its names, and the Services that serve it."""

    name: str
    dns_names: list[DnsName] = Field(min_length=1, max_length=100)
    issuer: str
    solver: str
    key_type: KeyType = KeyType.RSA_2048
    services: list[ServiceConfig] = []

    @field_validator("name")
    @classmethod
    def _short_and_dotless(cls, value: str) -> str:
        if not _LABEL.fullmatch(value) or len(value) > MAX_CERTIFICATE_NAME:
            raise ValueError(
                f"{value!r} must be lower-case letters, digits and inner hyphens, at most "
                f"{MAX_CERTIFICATE_NAME} of them (it begins the names of Secrets, and the OCI "
                "load balancer allows no dots)"
            )
        return value

    @field_validator("dns_names")
    @classmethod
    def _once_each(cls, names: list[str]) -> list[str]:
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{name!r} stands there twice")
        return names


class PolicyConfig(_Section):
    """The numbers behind the rules; shares are of the certificate's lifetime."""

    renew_left: float = Field(default=_DEFAULTS.renew_left, gt=0, lt=1)
    renew_left_short: float = Field(default=_DEFAULTS.renew_left_short, gt=0, lt=1)
    short_lifetime: Duration = _DEFAULTS.short_lifetime
    renew_jitter: float = Field(default=_DEFAULTS.renew_jitter, ge=0, lt=0.1)
    late: float = Field(default=_DEFAULTS.late, gt=0, lt=1)
    retention_share: float = Field(default=_DEFAULTS.retention_share, ge=0, lt=1)
    retention_ceiling: Duration = _DEFAULTS.retention_ceiling
    sweep_share: float = Field(default=_DEFAULTS.sweep_share, ge=0, lt=1)
    sweep_ceiling: Duration = _DEFAULTS.sweep_ceiling
    settle_share: float = Field(default=_DEFAULTS.settle_share, gt=0, lt=1)
    settle_ceiling: Duration = _DEFAULTS.settle_ceiling
    handover_ceiling: Duration = _DEFAULTS.handover_ceiling
    keep_previous: int = Field(default=_DEFAULTS.keep_previous, ge=0, le=10)
    back_off: list[Duration] = Field(default=list(_DEFAULTS.back_off), min_length=1)
    back_off_share: float = Field(default=_DEFAULTS.back_off_share, gt=0, lt=1)
    order_limit: int = Field(default=_DEFAULTS.order_limit, ge=1)
    order_limit_window: Duration = _DEFAULTS.order_limit_window
    validation_limit: int = Field(default=_DEFAULTS.validation_limit, ge=1)
    validation_limit_window: Duration = _DEFAULTS.validation_limit_window
    poll_listener: Duration = _DEFAULTS.poll_listener
    poll_order: Duration = _DEFAULTS.poll_order
    backstop: Duration = _DEFAULTS.backstop

    @model_validator(mode="after")
    def _order_of_times(self) -> PolicyConfig:
        if self.late >= min(self.renew_left, self.renew_left_short):
            raise ValueError("late must be less than renewLeft and renewLeftShort")
        return self

    def policy(self) -> Policy:
        """Give the same numbers as the core takes them."""
        values = {key: getattr(self, key) for key in type(self).model_fields}
        return Policy(**{**values, "back_off": tuple(self.back_off)})


class Config(_Section):
    """The whole file."""

    instance: InstanceConfig = InstanceConfig()
    issuers: dict[ObjectName, IssuerConfig] = {}
    solvers: dict[ObjectName, SolverConfig] = {}
    certificates: list[CertificateConfig] = []
    policy: PolicyConfig = PolicyConfig()
    route: Literal["auto", "outside", "inside"] = "auto"
    probe_timeout: Duration = timedelta(seconds=5)
    validation_patience: Duration = timedelta(minutes=2)
    workers: int = Field(default=4, ge=1, le=64)
    health_port: int = Field(default=8080, ge=0, le=65535)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "text"] = "json"

    def instance_id(self) -> Instance:
        """Give the instance as the core takes it."""
        return Instance(self.instance.release, self.instance.namespace)

    def specs(self) -> tuple[CertificateSpec, ...]:
        """Give one specification a certificate, sorted by name."""
        return tuple(
            sorted((self._spec(item) for item in self.certificates), key=lambda spec: spec.name)
        )

    def _spec(self, item: CertificateConfig) -> CertificateSpec:
        issuer = self.issuers[item.issuer]
        return CertificateSpec(
            name=item.name,
            names=tuple(sorted(item.dns_names)),
            issuer=IssuerSpec(
                name=item.issuer,
                directory=issuer.directory,
                ca_bundle=issuer.ca_bundle,
                email=issuer.email,
                profile=issuer.profile,
                timeout=issuer.timeout,
            ),
            solver=item.solver,
            key_type=item.key_type,
            services=tuple(
                ServiceSpec(
                    ref=ObjectRef(service.namespace, service.name),
                    set_ssl_ports=service.ssl_ports,
                    add_https_port=service.https_port,
                    probe=ProbeSpec(
                        service.probe.address, service.probe.port, service.probe.server_name
                    ),
                )
                for service in item.services
            ),
        )
