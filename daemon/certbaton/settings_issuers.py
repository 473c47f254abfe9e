"""
The keys of an issuer, and what they come to with what is known of the CA.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, field_validator

from certbaton.model import ExternalAccountSpec, IssuerSpec, KeyType
from certbaton.settings_fields import HOST, ObjectName, Pause, Section, Text, is_address, shown
from certbaton.wellknown import KNOWN_CAS, KnownCa, known_at

_URL = re.compile(r"https://[^\s/]+(/\S*)?")
# What the issuer of a rehearsal has from the issuer that it is for, where its own keys say nothing.
_INHERITED = {
    "ca_bundle",
    "email",
    "profile",
    "timeout",
    "connect_timeout",
    "proxy",
    "account_key_type",
}
_PROXY = re.compile(r"https?://(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s/:\[\]]+)(:(?P<port>[0-9]{1,5}))?/?")


def check_url(value: str) -> str:
    """Give *value* if it is the address of a directory; ValueError, with a sentence, if not."""
    if "@" in value:
        # not shown: what stands before the @ may be a password
        raise ValueError("an @ has no place in the address of an ACME directory")
    if not _URL.fullmatch(value):
        names = ", ".join(KNOWN_CAS)
        raise ValueError(
            f"{shown(value)} is not an https:// address of an ACME directory, and not one of the "
            f"well-known names {names}"
        )
    return value


def _rehearsal(value: object) -> object:
    if value is None or value is False or (isinstance(value, str) and 0 < len(value) <= 1024):
        return value
    raise ValueError(
        f"must be an issuer's name, the address of an ACME directory, or false, not {shown(value)}"
    )


Rehearsal = Annotated[
    str | Literal[False] | None,
    BeforeValidator(_rehearsal),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1, "maxLength": 1024},
                {"const": False},
                {"type": "null"},
            ]
        }
    ),
]


class ExternalAccountConfig(Section):
    """The Secret, in certbaton's namespace, with the keys kid and hmacKey (RFC 8555, 7.3.4)."""

    secret_name: ObjectName


class IssuerConfig(Section):
    """One ACME CA (RFC 8555)."""

    directory: Text | None = None
    ca_bundle: Text | None = None
    email: Text | None = None
    account_secret: ObjectName | None = None
    account_key_type: KeyType = Field(default=KeyType.EC_P256, strict=False)
    external_account: ExternalAccountConfig | None = None
    profile: Text | None = None
    profile_mode: Literal["preferred", "required"] = "preferred"
    preferred_chain: Text | None = None
    connect_timeout: Pause = timedelta(seconds=10)
    timeout: Pause = timedelta(seconds=30)
    proxy: Text | None = None
    rehearsal: Rehearsal = None
    renewal_info: bool = True

    @field_validator("directory")
    @classmethod
    def _https(cls, value: str | None) -> str | None:
        return value if value is None or value in KNOWN_CAS else check_url(value)

    @field_validator("email")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[^\s@:,?]+@[^\s@:,?]+", value):
            raise ValueError(f"{shown(value)} is not one e-mail address such as ops@example.com")
        return value

    @field_validator("proxy")
    @classmethod
    def _proxy(cls, value: str | None) -> str | None:
        if value is None:
            return value
        if "@" in value:
            # not shown: what stands before the @ may be a password
            raise ValueError(
                "an @ has no place here, as user and password are secrets; set HTTPS_PROXY from "
                "a Secret instead"
            )
        found = _PROXY.fullmatch(value)
        host = found["host"].strip("[]") if found else ""
        if (
            found is None
            or not (HOST.fullmatch(host) or is_address(host))
            or not 0 < int(found["port"] or 1) < 65536
        ):
            raise ValueError(
                f"{shown(value)} is not a proxy's address such as http://proxy.example.com:3128"
            )
        return value


@dataclass(frozen=True, slots=True)
class Issuers:
    """
    All issuers of a configuration, by name, as specifications are made of them.

    `settings_checks` has made sure beforehand that they go together.
    """

    configured: Mapping[str, IssuerConfig]

    def directory(self, name: str) -> str | None:
        """Give the address of the directory of issuer *name*; None where it says none."""
        written = self.configured[name].directory
        if written is not None and written not in KNOWN_CAS:
            return written
        known = KNOWN_CAS.get(written or name)
        return known.directory if known else None

    def known(self, name: str) -> KnownCa | None:
        """Give what is known of the CA behind issuer *name*."""
        directory = self.directory(name)
        return known_at(directory) if directory else None

    def at(self, directory: str) -> str | None:
        """Give the name of the issuer with that directory; the first one where there are more."""
        return next((name for name in self.configured if self.directory(name) == directory), None)

    def rehearsal(self, name: str) -> tuple[str, str | None] | None:
        """
        Say where issuer *name* rehearses: the directory, and the issuer that has it, if any.

        None where it doesn't. LookupError where *rehearsal* names nothing.
        """
        written = self.configured[name].rehearsal
        if written is None:
            known = self.known(name)
            written = known.rehearsal if known else None
        if not written:
            return None
        if written in self.configured:
            directory = self.directory(written)
            if directory is None:
                raise LookupError(written)
            return directory, written
        if written in KNOWN_CAS:
            directory = KNOWN_CAS[written].directory
            return directory, self.at(directory)
        if not _URL.fullmatch(written):
            raise LookupError(written)
        return written, self.at(written)

    def spec(self, name: str) -> IssuerSpec:
        """Give issuer *name* as the core takes it, with its rehearsal."""
        spec = self._alone(name)
        where = self.rehearsal(name)
        if where is None:
            return spec
        directory, other = where
        known = known_at(directory)
        # The same way out, the same person to write to, unless its own keys say otherwise. A
        # profile decides which names are taken, so it is rehearsed with; but never insisted on.
        there = replace(
            spec,
            name=known.name if known else f"{name}-rehearsal",
            directory=directory,
            external_account=_external_account(None, known),
            preferred_chain=None,
            profile_required=False,
        )
        if other is not None:
            own = self._alone(other)
            written = {
                key: getattr(own, key)
                for key in self.configured[other].model_fields_set & _INHERITED
            }
            there = replace(there, name=other, external_account=own.external_account, **written)
        return replace(spec, rehearsal=there)

    def _alone(self, name: str) -> IssuerSpec:
        issuer = self.configured[name]
        directory = self.directory(name)
        assert directory is not None, "checked when the file was read"  # noqa: S101
        return IssuerSpec(
            name=name,
            directory=directory,
            ca_bundle=issuer.ca_bundle,
            email=issuer.email,
            profile=issuer.profile,
            timeout=issuer.timeout,
            connect_timeout=min(issuer.connect_timeout, issuer.timeout),
            profile_required=issuer.profile_mode == "required",
            preferred_chain=issuer.preferred_chain,
            proxy=issuer.proxy,
            account_key_type=issuer.account_key_type,
            external_account=_external_account(issuer.external_account, self.known(name)),
            renewal_info=issuer.renewal_info,
        )


def _external_account(
    written: ExternalAccountConfig | None, known: KnownCa | None
) -> ExternalAccountSpec | None:
    if written is not None:
        return ExternalAccountSpec(secret=written.secret_name)
    if known is not None and known.external_account_api is not None:
        return ExternalAccountSpec(api=known.external_account_api)
    return None
