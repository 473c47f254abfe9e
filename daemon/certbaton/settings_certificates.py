"""
The keys of a certificate: its names, its CAs, and the Services that serve it.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema, field_validator

from certbaton.model import KeyType
from certbaton.names import both_forms, to_ascii
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
    as_text,
    is_address,
    shown,
)

# As many as Let's Encrypt takes in one certificate; no CA of the table takes more.
MAX_NAMES = 100
# What separates labels, as people type it (RFC 3490 section 3.1).
DOTS = (".", "\u3002", "\uff0e", "\uff61")


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
    name = as_text(value)  # to_ascii folds its case: not each letter's is Python's
    said = shown(value)
    if "://" in name or "/" in name:
        raise ValueError(f"{said} is an address of a page; write the name alone")
    if name.endswith(DOTS):
        raise ValueError(f"{said} ends in a dot; leave it out")
    if "*" in name.removeprefix("*."):
        raise ValueError(f"{said}: a * can only be the whole first label, as in *.a.example")
    try:
        name = to_ascii(name)
    except ValueError as exc:
        raise ValueError(
            f"{said} cannot be an internationalized name ({exc}); write it in its xn-- form, as "
            "it is registered"
        ) from None
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
        raise ValueError(f"{said} is an IP address; those stand under ipAddresses")
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


def _ip_address(value: object) -> str:
    written = as_text(value)
    if written.startswith("*."):
        raise ValueError(f"{shown(written)} is a wildcard; there is none of an IP address")
    try:
        address = ipaddress.ip_address(written)
    except ValueError:
        raise ValueError(
            f"{shown(written)} is not an IP address such as 192.0.2.7 or 2001:db8::7"
        ) from None
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        raise ValueError(f"{shown(written)} has a zone, which means something on one machine only")
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        # CAs put the IPv4 address into the certificate, which then is not what was ordered
        raise ValueError(
            f"{shown(written)} is an IPv4 address in an IPv6 form; write {address.ipv4_mapped}"
        )
    return str(address)


IpAddress = Annotated[
    str,
    BeforeValidator(_ip_address),
    WithJsonSchema({"type": "string", "maxLength": 45, "pattern": "^[0-9A-Fa-f.:]+$"}),
]


class WindowConfig(Section):
    """When listeners may be changed: at *cron*'s times, for *duration*, in *timezone*."""

    cron: str
    duration: Pause
    timezone: str = "UTC"


def _one_of_each(schema: dict[str, Any]) -> None:
    """Say in the schema what `settings_checks` says in words."""
    schema["anyOf"] = [
        {"required": [key], "properties": {key: {"minItems": 1}}}
        for key in ("dnsNames", "ipAddresses")
    ]
    schema["oneOf"] = [{"required": ["issuer"]}, {"required": ["issuers"]}]


class CertificateConfig(Section):
    """One certificate, its names, and the Services that serve it."""

    name: Annotated[str, Field(json_schema_extra={"pattern": CERTIFICATE_NAME.pattern})]
    dns_names: list[DnsName] = Field(default=[], max_length=MAX_NAMES)
    ip_addresses: list[IpAddress] = Field(default=[], max_length=MAX_NAMES)
    issuer: str | None = None
    issuers: list[str] | None = Field(default=None, min_length=1, max_length=8)
    solver: str
    key_type: KeyType = Field(default=KeyType.RSA_2048, strict=False)
    reuse_key: bool = False
    lifetime: Pause | None = None
    services: list[ServiceConfig] = Field(default=[])
    paused: bool = False
    rollout_windows: list[WindowConfig] | None = None

    model_config = ConfigDict(json_schema_extra=_one_of_each)

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

    @property
    def names(self) -> list[str]:
        """All that the certificate is for: DNS names in A-labels, and IP addresses."""
        return [*self.dns_names, *self.ip_addresses]

    @property
    def issuer_names(self) -> list[str]:
        """The CAs that may issue it, the wanted one first."""
        return self.issuers or ([] if self.issuer is None else [self.issuer])

    @field_validator("dns_names", "ip_addresses")
    @classmethod
    def _once_each(cls, names: list[str]) -> list[str]:
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{both_forms(name)!r} stands there twice")
        return names
