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
    ObjectRef,
    ProbeSpec,
    RolloutWindow,
    ServiceSpec,
)
from certbaton.settings_certificates import CertificateConfig, WindowConfig
from certbaton.settings_fields import (
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
from certbaton.settings_issuers import IssuerConfig, Issuers
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


def _resolver(value: object) -> str:
    written = as_text(value)
    address, port = written, "53"
    if found := re.fullmatch(r"\[(.+)\]:([0-9]{1,5})|([^:]+):([0-9]{1,5})", written):
        address, port = found[1] or found[3], found[2] or found[4]
    if not is_address(address) or not 0 < int(port) < 65536:
        raise ValueError(
            f"{shown(written)} is not the IP address of a name server, such as 192.0.2.53 or "
            "192.0.2.53:5353 or [2001:db8::53]:5353"
        )
    return written


Resolver = Annotated[
    str,
    BeforeValidator(_resolver),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9A-Fa-f.:\[\]]+$"}),
]


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
    resolvers: list[Resolver] = Field(default=[], max_length=8)
    route: Literal["auto", "outside", "inside"] = "auto"
    probe_timeout: Pause = timedelta(seconds=5)
    validation_patience: Pause = timedelta(minutes=2)
    workers: int = Field(default=16, ge=1, le=64)
    health_port: int = Field(default=8080, ge=0, le=65535)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "text"] = "json"

    def instance_id(self) -> Instance:
        """Give the instance as the core takes it."""
        return Instance(self.instance.release, self.instance.namespace)

    def account_secrets(self) -> dict[str, str]:
        """Give the names of accounts' Secrets by directory, where the configuration has one."""
        issuers = Issuers(self.issuers)
        return {
            directory: issuer.account_secret
            for name, issuer in self.issuers.items()
            if issuer.account_secret and (directory := issuers.directory(name))
        }

    def take_over_instances(self) -> frozenset[Instance]:
        """Give the instances that Services are to be taken away from."""
        parts = (name.split("/") for name in self.take_over_from)
        return frozenset(Instance(release, namespace) for namespace, release in parts)

    def specs(self) -> tuple[CertificateSpec, ...]:
        """Give one specification a certificate, sorted by name."""
        return tuple(
            sorted((self._spec(item) for item in self.certificates), key=lambda spec: spec.name)
        )

    def issuer_specs(self) -> tuple[IssuerSpec, ...]:
        """Give all issuers, also those that no certificate uses, as they stand there."""
        issuers = Issuers(self.issuers)
        return tuple(issuers.spec(name) for name in self.issuers)

    def _spec(self, item: CertificateConfig) -> CertificateSpec:
        issuers = [Issuers(self.issuers).spec(name) for name in item.issuer_names]
        windows = self.rollout_windows if item.rollout_windows is None else item.rollout_windows
        return CertificateSpec(
            name=item.name,
            names=tuple(sorted(item.names)),
            issuer=issuers[0],
            fallbacks=tuple(issuers[1:]),
            solver=item.solver,
            key_type=item.key_type,
            reuse_key=item.reuse_key,
            lifetime=item.lifetime,
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
