"""
The keys of the configuration file, as pydantic models.

Each key works when absent; the JSON schema in ``config/`` is made from these
models, and `certbaton.config` reads files with them.
"""

from __future__ import annotations

import ipaddress
import re
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
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
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d))+")
_LONGEST = timedelta(days=3660)
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_CERTIFICATE_NAME = re.compile(f"^[a-z0-9]([a-z0-9-]{{0,{MAX_CERTIFICATE_NAME - 2}}}[a-z0-9])?$")
# What a schema can say of a DNS name; `_dns_name` says the rest, and in words.
_DNS_NAME = r"^(\*\.)?([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?\.)+[A-Za-z0-9-]*[A-Za-z0-9]$"
_HOST = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(?:\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*")
_OBJECT_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")


def _is_address(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def _read_duration(value: object) -> object:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, str) and len(value) <= 32 and _DURATION.fullmatch(value):
        parts = re.findall(r"([0-9.]+)(ms|s|m|h|d)", value)
        seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
        if seconds > _LONGEST.total_seconds():
            raise ValueError(f"{value!r} is longer than ten years")
        return timedelta(seconds=seconds)
    raise ValueError(f"{shown(value)} is not a duration; write for example 30s, 10m, 1h30m or 7d")


def _not_zero(value: timedelta) -> timedelta:
    if not value:
        raise ValueError("must be longer than zero")
    return value


def write_duration(value: timedelta) -> str:
    """Write *value* as the file has it: 30s, 10m, 7d."""
    seconds = value.total_seconds()
    for unit in ("d", "h", "m", "s"):
        if seconds and seconds % _UNITS[unit] == 0:
            return f"{int(seconds // _UNITS[unit])}{unit}"
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"


# A duration that may be zero, where that switches something off, and one that may not.
Duration = Annotated[
    timedelta,
    BeforeValidator(_read_duration),
    PlainSerializer(write_duration),
    WithJsonSchema({"type": "string", "pattern": f"^{_DURATION.pattern}$"}),
]
Pause = Annotated[Duration, AfterValidator(_not_zero)]


def shown(value: object) -> str:
    """Show *value* to whoever wrote it in the file; what holds other values by its kind only."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "keys and values"
    if isinstance(value, list):
        return "a list"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def not_text(value: object) -> str:
    """Say that *value* should have been text."""
    quotes = "" if value is None or isinstance(value, dict | list) else "; put it in quotes"
    return f"must be text, not {shown(value)}{quotes}"


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(not_text(value))
    return value


def _object_name(value: object) -> str:
    name = _text(value)
    if not _OBJECT_NAME.fullmatch(name):
        raise ValueError(
            f"{shown(name)} is not a name that Kubernetes takes: lower-case letters, digits, "
            "inner hyphens and dots, at most 253 of them"
        )
    return name


ObjectName = Annotated[
    str,
    BeforeValidator(_object_name),
    WithJsonSchema({"type": "string", "pattern": f"^{_OBJECT_NAME.pattern}$"}),
]
Text = Annotated[str, Field(min_length=1, max_length=1024)]
Port = Annotated[int, Field(ge=1, le=65535)]


class _Section(BaseModel):
    # Strict, as the JSON schema is: "8089" is no port, and 1 is not true.
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        alias_generator=to_camel,
        validate_by_name=False,
        validate_by_alias=True,
    )


class InstanceConfig(_Section):
    """Which release this is; the chart sets both by environment variables."""

    release: ObjectName = Field(default="certbaton", max_length=53)
    namespace: Annotated[ObjectName, Field(max_length=63)] = "certbaton"

    @field_validator("namespace")
    @classmethod
    def _without_dots(cls, value: str) -> str:
        if "." in value:
            raise ValueError(f"{shown(value)} is not a namespace: those have no dots")
        return value


class IssuerConfig(_Section):
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
        if value is not None and not re.fullmatch(r"[^\s@:,]+@[^\s@:,]+", value):
            raise ValueError(f"{shown(value)} is not one e-mail address such as ops@example.com")
        return value


class Http01Config(_Section):
    """The built-in server for /.well-known/acme-challenge/ (RFC 8555 section 8.3)."""

    type: Literal["http-01"]
    port: Port = 8089
    address: Text = "::"  # of both families; it has to be reached from outside the pod


class Rfc2136Config(_Section):
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


class Dns01Config(_Section):
    """TXT records at _acme-challenge (RFC 8555 section 8.4)."""

    type: Literal["dns-01"]
    provider: Literal["rfc2136"] = "rfc2136"
    rfc2136: Rfc2136Config


SolverConfig = Annotated[Http01Config | Dns01Config, Field(discriminator="type")]


class ProbeConfig(_Section):
    """Where to look at a listener, in place of what the Service's status says."""

    address: Text | None = None
    port: Port | None = None
    server_name: Text | None = None

    @field_validator("address", "server_name")
    @classmethod
    def _host(cls, value: str | None) -> str | None:
        if value is not None and not (_HOST.fullmatch(value) or _is_address(value)):
            raise ValueError(
                f"{shown(value)} is neither an IP address nor a host name (no port, no scheme)"
            )
        return value


class ServiceConfig(_Section):
    """A Service of type LoadBalancer that serves the certificate."""

    namespace: ObjectName
    name: ObjectName
    ssl_ports: bool = True
    https_port: bool = True
    probe: ProbeConfig = ProbeConfig()


def _dns_name(value: object) -> str:
    name = _text(value).lower()
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
        if not _LABEL.fullmatch(label):
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
    WithJsonSchema({"type": "string", "maxLength": 253, "pattern": _DNS_NAME}),
]


class CertificateConfig(_Section):
    """One certificate, its names, and the Services that serve it."""

    name: Annotated[str, Field(json_schema_extra={"pattern": _CERTIFICATE_NAME.pattern})]
    dns_names: list[DnsName] = Field(min_length=1, max_length=100)
    issuer: str
    solver: str
    key_type: KeyType = Field(default=KeyType.RSA_2048, strict=False)
    services: list[ServiceConfig] = []

    @field_validator("name")
    @classmethod
    def _short_and_dotless(cls, value: str) -> str:
        if not _CERTIFICATE_NAME.fullmatch(value):
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
    settle_ceiling: Pause = _DEFAULTS.settle_ceiling
    handover_ceiling: Pause = _DEFAULTS.handover_ceiling
    keep_previous: int = Field(default=_DEFAULTS.keep_previous, ge=0, le=10)
    back_off: list[Pause] = Field(default=list(_DEFAULTS.back_off), min_length=1)
    back_off_share: float = Field(default=_DEFAULTS.back_off_share, gt=0, lt=1)
    order_limit: int = Field(default=_DEFAULTS.order_limit, ge=1, le=1000)
    order_limit_window: Pause = _DEFAULTS.order_limit_window
    validation_limit: int = Field(default=_DEFAULTS.validation_limit, ge=1, le=1000)
    validation_limit_window: Pause = _DEFAULTS.validation_limit_window
    poll_listener: Pause = _DEFAULTS.poll_listener
    backstop: Pause = _DEFAULTS.backstop

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
    probe_timeout: Pause = timedelta(seconds=5)
    validation_patience: Pause = timedelta(minutes=2)
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
