"""
What a CA will not take, or takes otherwise than it looks: for ``certbaton config check``.

Advice from what is known of CAs (`certbaton.wellknown`), which may have changed since; so it
forbids nothing. Pure: nothing is asked of anybody.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from certbaton.model import KeyType
from certbaton.names import both_forms, to_unicode
from certbaton.settings import Config
from certbaton.settings_certificates import CertificateConfig
from certbaton.settings_issuers import IssuerConfig, Issuers
from certbaton.wellknown import KnownCa


def advise(config: Config) -> tuple[str, ...]:
    """Give one sentence, with the key's path in front, for whatever may not go as written."""
    issuers = Issuers(config.issuers)
    used = {name for item in config.certificates for name in item.issuer_names}
    found = [
        f"issuers.{name}{note}"
        for name in config.issuers
        if name in used and (known := issuers.known(name)) is not None
        for note in _of_issuer(config.issuers[name], known)
    ]
    for index, item in enumerate(config.certificates):
        where = f"certificates[{index}]"
        found += [f"{where}{note}" for note in _of_names(item)]
        for name in item.issuer_names:
            known = issuers.known(name)
            if known is not None:
                found += [f"{where}{note}" for note in _at(item, config.issuers[name], known)]
    found += _same_names(config, issuers)
    return tuple(dict.fromkeys(found))


def spellings(config: Config) -> tuple[str, ...]:
    """Give each internationalized name of *config* in both forms, with the key's path."""
    return tuple(
        f"certificates[{index}].dnsNames[{place}]: {both_forms(name)}"
        for index, item in enumerate(config.certificates)
        for place, name in enumerate(item.dns_names)
        if to_unicode(name) != name
    )


def _of_issuer(issuer: IssuerConfig, known: KnownCa) -> Iterator[str]:
    if (
        known.external_account
        and known.external_account_api is None
        and issuer.external_account is None
    ):
        yield (
            f".externalAccount: {known.title} makes no account without one; name the Secret with "
            "kid and hmacKey, unless the account is there already"
        )
    if issuer.profile is None or not known.profiles:
        return
    then = (
        "nothing is ordered until it has it"
        if issuer.profile_mode == "required"
        else "certificates then come without it"
    )
    profile = known.profiles.get(issuer.profile)
    if profile is None or profile.gone:
        names = ", ".join(name for name, each in known.profiles.items() if not each.gone)
        never = "has it no more" if profile else "is not known to have it"
        yield f".profile: {known.title} {never} (but {names}); {then}"


def _of_names(item: CertificateConfig) -> Iterator[str]:
    wildcards = {name.removeprefix("*."): name for name in item.dns_names if name[:2] == "*."}
    for place, name in enumerate(item.dns_names):
        wildcard = wildcards.get(name.partition(".")[2])
        if wildcard is not None and name != wildcard:
            yield (
                f".dnsNames[{place}]: {both_forms(name)} is covered by {both_forms(wildcard)}, and "
                "CAs refuse to have both in one certificate; leave it out"
            )


def _at(item: CertificateConfig, issuer: IssuerConfig, known: KnownCa) -> Iterator[str]:
    """Tell what the CA *known* makes of certificate *item*."""
    profile, named = known.profile(issuer.profile), issuer.profile or known.default_profile
    limit = min(known.max_names, profile.max_names if profile else known.max_names)
    if len(item.names) > limit:
        of = f" with profile {named}" if profile and profile.max_names <= limit else ""
        key = "dnsNames" if item.dns_names else "ipAddresses"
        yield (
            f".{key}: {len(item.names)} names, and {known.title} takes at most {limit} in one "
            f"certificate{of}"
        )
    if item.ip_addresses:
        yield from _addresses(item, issuer, known)
    if item.lifetime is not None and not known.lifetimes:
        yield f".lifetime: {known.title} decides that by itself, and gets the order without"
    elliptic = item.key_type in (KeyType.EC_P256, KeyType.EC_P384)
    if elliptic and known.directory_ec not in (None, issuer.directory):
        yield (
            f".keyType: {known.title} has another directory for {item.key_type.value} keys; "
            f"make an issuer with {known.directory_ec}"
        )


def _addresses(item: CertificateConfig, issuer: IssuerConfig, known: KnownCa) -> Iterator[str]:
    profile = known.profile(issuer.profile)
    if not known.ip_addresses:
        yield f".ipAddresses: {known.title} has no certificates for IP addresses"
        return
    if profile is not None and not profile.ip_addresses:
        fit = ", ".join(name for name, each in known.profiles.items() if each.ip_addresses)
        yield f".ipAddresses: {known.title} has them with profile {fit} only; use an issuer with it"
    for place, address in enumerate(item.ip_addresses):
        if not ipaddress.ip_address(address).is_global:
            yield (
                f".ipAddresses[{place}]: {address} is not an address of the internet, so "
                f"{known.title} cannot validate it"
            )


def _same_names(config: Config, issuers: Issuers) -> Iterator[str]:
    """Two certificates with the same names at one CA get in each other's way."""
    first: dict[tuple[str, frozenset[str]], int] = {}
    for index, item in enumerate(config.certificates):
        for name in item.issuer_names:
            which = (issuers.directory(name) or "", frozenset(item.names))
            other = first.setdefault(which, index)
            if other != index:
                yield (
                    f"certificates[{index}].dnsNames: the same names as certificates[{other}] at "
                    "the same CA, which may give both the same order and counts them together; "
                    "name all Services at one of the two"
                )
