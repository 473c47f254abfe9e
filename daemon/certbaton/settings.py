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
    BeforeValidator,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from certbaton.model import (
    CertificateSpec,
    Instance,
    IssuerSpec,
    KeyType,
    ObjectRef,
    ProbeSpec,
    RolloutWindow,
    ServiceSpec,
)

# A version's name is <certificate>-<8>-<10> and has to fit a label (63).
from certbaton.settings_fields import (
    CERTIFICATE_NAME,
    DNS_NAME,
    HOST,
    LABEL,
    MAX_CERTIFICATE_NAME,
    ObjectName,
    Pause,
    Port,
    Section,
    Text,
    as_object_name,
    as_text,
    is_address,
    shown,
)
from certbaton.settings_policy import PolicyConfig


class InstanceConfig(Section):
    """Which release this is; the chart sets both by environment variables."""

    release: ObjectName = Field(default="certbaton", max_length=53)
    namespace: Annotated[ObjectName, Field(max_length=63)] = "certbaton"

    @field_validator("namespace")
    @classmethod
    def _without_dots(cls, value: str) -> str:
        if "." in value:
            raise ValueError(f"{shown(value)} is not a namespace: those have no dots")
        return value


class LeaseConfig(Section):
    """How one process of a release is chosen to work; the others stand by."""

    duration: Pause = timedelta(seconds=60)
    renew_every: Pause = timedelta(seconds=20)

    @model_validator(mode="after")
    def _in_time(self) -> LeaseConfig:
        if not timedelta(seconds=1) <= self.duration <= timedelta(hours=1):
            raise ValueError("duration must be from 1s to 1h")
        if self.renew_every >= self.duration / 2:
            raise ValueError("renewEvery must be less than half of duration")
        return self


class IssuerConfig(Section):
    """One ACME CA (RFC 8555)."""

    directory: Text
    ca_bundle: Text | None = None
    email: Text | None = None
    profile: Text | None = None
    timeout: Pause = timedelta(seconds=30)

    @field_validator("directory")
    @classmethod
    def _https(cls, value: str) -> str:
        if "@" in value:
            # not shown: what stands before the @ may be a password
            raise ValueError("an @ has no place in the address of an ACME directory")
        if not re.fullmatch(r"https://[^\s/]+(/\S*)?", value):
            raise ValueError(f"{shown(value)} is not an https:// address of an ACME directory")
        return value

    @field_validator("email")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[^\s@:,?]+@[^\s@:,?]+", value):
            raise ValueError(f"{shown(value)} is not one e-mail address such as ops@example.com")
        return value


class Http01Config(Section):
    """The built-in server for /.well-known/acme-challenge/ (RFC 8555 section 8.3)."""

    type: Literal["http-01"]
    port: Port = 8089
    address: Text = "::"  # of both families; it has to be reached from outside the pod


class Rfc2136Config(Section):
    """Dynamic updates of a name server of your own (RFC 2136), signed by TSIG (RFC 8945)."""

    server: Text
    port: Port = 53
    zone: Text | None = None
    tsig_key_name: Text | None = None
    tsig_algorithm: Literal[
        "hmac-sha1",
        "hmac-sha224",
        "hmac-sha256",
        "hmac-sha256-128",
        "hmac-sha384",
        "hmac-sha384-192",
        "hmac-sha512",
        "hmac-sha512-256",
    ] = "hmac-sha256"
    tsig_secret_file: Text | None = None
    ttl: int = Field(default=60, ge=0, le=86400)
    timeout_seconds: float = Field(default=5, ge=0.1, le=60)

    @field_validator("tsig_secret_file")
    @classmethod
    def _path(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith("/"):
            # not shown: somebody may have written the secret itself here
            raise ValueError("must be the absolute path of a file that holds the secret")
        return value


class Dns01Config(Section):
    """TXT records at _acme-challenge (RFC 8555 section 8.4)."""

    type: Literal["dns-01"]
    provider: Literal["rfc2136"] = "rfc2136"
    rfc2136: Rfc2136Config


SolverConfig = Annotated[Http01Config | Dns01Config, Field(discriminator="type")]


class ProbeConfig(Section):
    """Where to look at a listener, in place of what the Service's status says."""

    address: Text | None = None
    port: Port | None = None
    server_name: Text | None = None

    @field_validator("address", "server_name")
    @classmethod
    def _host(cls, value: str | None) -> str | None:
        if value is not None and not (HOST.fullmatch(value) or is_address(value)):
            raise ValueError(
                f"{shown(value)} is neither an IP address nor a host name (no port, no scheme)"
            )
        return value


class ServiceConfig(Section):
    """A Service of type LoadBalancer that serves the certificate."""

    namespace: ObjectName
    name: ObjectName
    ssl_ports: bool = True
    https_port: bool = True
    probe: ProbeConfig = ProbeConfig()


def _dns_name(value: object) -> str:
    name = as_text(value).lower()
    said = shown(value)
    if not name.isascii():
        raise ValueError(f"{said} has letters outside ASCII; write it in its xn-- form")
    if "://" in name or "/" in name:
        raise ValueError(f"{said} is an address of a page; write the name alone")
    if name.endswith("."):
        raise ValueError(f"{said} ends in a dot; leave it out")
    if "*" in name.removeprefix("*."):
        raise ValueError(f"{said}: a * can only be the whole first label, as in *.a.example")
    if len(name) > 253:
        raise ValueError(f"{said} is longer than the 253 characters of a DNS name")
    labels = name.removeprefix("*.").split(".")
    for label in labels:
        if not label:
            raise ValueError(f"{said} is not a DNS name: a label is empty")
        if len(label) > 63:
            raise ValueError(f"{said} is not a DNS name: a label is longer than 63 characters")
        if not LABEL.fullmatch(label):
            raise ValueError(
                f"{said} is not a DNS name: {shown(label)} is not letters, digits and inner hyphens"
            )
    if re.fullmatch(r"[0-9]+(\.[0-9]+){3}", name):
        raise ValueError(f"{said} is an IP address; only DNS names are supported")
    if labels[-1].isdigit():
        raise ValueError(f"{said} is not a DNS name: its last label is a number")
    if len(labels) < 2:
        raise ValueError(f"{said} is not a full DNS name such as shop.example.com")
    return name


DnsName = Annotated[
    str,
    BeforeValidator(_dns_name),
    WithJsonSchema({"type": "string", "maxLength": 253, "pattern": DNS_NAME}),
]


class WindowConfig(Section):
    """When listeners may be changed: at *cron*'s times, for *duration*, in *timezone*."""

    cron: str
    duration: Pause
    timezone: str = "UTC"


def _release(value: object) -> str:
    name = as_text(value)
    parts = name.split("/")
    if len(parts) != 2:
        raise ValueError(f"{shown(name)} is not a release written as namespace/name")
    for part in parts:
        as_object_name(part)
    return name


ReleaseName = Annotated[
    str,
    BeforeValidator(_release),
    WithJsonSchema({"type": "string", "pattern": "^[a-z0-9.-]+/[a-z0-9.-]+$"}),
]


class CertificateConfig(Section):
    """One certificate, its names, and the Services that serve it."""

    name: Annotated[str, Field(json_schema_extra={"pattern": CERTIFICATE_NAME.pattern})]
    dns_names: list[DnsName] = Field(min_length=1, max_length=100)
    issuer: str
    solver: str
    key_type: KeyType = Field(default=KeyType.RSA_2048, strict=False)
    services: list[ServiceConfig] = Field(default=[])
    paused: bool = False
    rollout_windows: list[WindowConfig] | None = None

    @field_validator("name")
    @classmethod
    def _short_and_dotless(cls, value: str) -> str:
        if not CERTIFICATE_NAME.fullmatch(value):
            raise ValueError(
                f"{shown(value)} must be lower-case letters, digits and inner hyphens, at most "
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


class Config(Section):
    """The whole file."""

    instance: InstanceConfig = InstanceConfig()
    issuers: dict[ObjectName, IssuerConfig] = Field(default={})
    solvers: dict[ObjectName, SolverConfig] = Field(default={})
    certificates: list[CertificateConfig] = Field(default=[])
    rollout_windows: list[WindowConfig] = Field(default=[])
    policy: PolicyConfig = PolicyConfig()
    lease: LeaseConfig = LeaseConfig()
    take_over_from: list[ReleaseName] = Field(default=[])
    route: Literal["auto", "outside", "inside"] = "auto"
    probe_timeout: Pause = timedelta(seconds=5)
    validation_patience: Pause = timedelta(minutes=2)
    workers: int = Field(default=4, ge=1, le=64)
    health_port: int = Field(default=8080, ge=0, le=65535)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "text"] = "json"

    def instance_id(self) -> Instance:
        """Give the instance as the core takes it."""
        return Instance(self.instance.release, self.instance.namespace)

    def take_over_instances(self) -> frozenset[Instance]:
        """Give the instances that Services are to be taken away from."""
        parts = (name.split("/") for name in self.take_over_from)
        return frozenset(Instance(release, namespace) for namespace, release in parts)

    def specs(self) -> tuple[CertificateSpec, ...]:
        """Give one specification a certificate, sorted by name."""
        return tuple(
            sorted((self._spec(item) for item in self.certificates), key=lambda spec: spec.name)
        )

    def _spec(self, item: CertificateConfig) -> CertificateSpec:
        issuer = self.issuers[item.issuer]
        windows = self.rollout_windows if item.rollout_windows is None else item.rollout_windows
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
            paused=item.paused,
            windows=tuple(
                RolloutWindow(window.cron, window.duration, window.timezone) for window in windows
            ),
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
