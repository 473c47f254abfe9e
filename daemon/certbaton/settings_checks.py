"""
What no single key of the configuration can show: names that point nowhere, things named twice.
"""

from __future__ import annotations

from collections.abc import Mapping

from certbaton.errors import ConfigurationError
from certbaton.model import ObjectRef
from certbaton.settings import Config, Http01Config
from certbaton.settings_certificates import MAX_NAMES, CertificateConfig
from certbaton.settings_fields import shown
from certbaton.settings_issuers import Issuers
from certbaton.wellknown import KNOWN_CAS


def check(config: Config) -> None:
    """Refuse what does not go together: ConfigurationError, one sentence with the key's path."""
    _check_solvers(config)
    _check_issuers(config)
    for index, release in enumerate(config.take_over_from):
        if release == f"{config.instance.namespace}/{config.instance.release}":
            raise ConfigurationError(
                f"{release} is this very release", where=f"takeOverFrom[{index}]"
            )
    names: dict[str, str] = {}
    claimed: dict[ObjectRef, str] = {}
    for index, item in enumerate(config.certificates):
        where = f"certificates[{index}]"
        if item.name in names:
            raise ConfigurationError(
                f"{item.name!r} is already the name of {names[item.name]}", where=f"{where}.name"
            )
        names[item.name] = where
        _check_names(item, where)
        _check_issuers_of(config, item, where)
        _check_solver_of(config, item, where)
        for place, service in enumerate(item.services):
            ref = ObjectRef(service.namespace, service.name)
            if ref in claimed:
                raise ConfigurationError(
                    f"Service {ref} is already served by {claimed[ref]}; a listener has one "
                    "certificate, so put all names on one",
                    where=f"{where}.services[{place}]",
                )
            claimed[ref] = where


def _check_names(item: CertificateConfig, where: str) -> None:
    if not item.names:
        raise ConfigurationError(
            "this key is required, with at least one name, where there are no ipAddresses",
            where=f"{where}.dnsNames",
        )
    if len(item.names) > MAX_NAMES:
        raise ConfigurationError(
            f"dnsNames and ipAddresses are {len(item.names)} names, and a certificate has at most "
            f"{MAX_NAMES}; make two certificates",
            where=where,
        )


def _check_issuers_of(config: Config, item: CertificateConfig, where: str) -> None:
    if item.issuers is not None and item.issuer is not None:
        raise ConfigurationError(
            "issuer is set too; write one of the two", where=f"{where}.issuers"
        )
    if not item.issuer_names:
        raise ConfigurationError(
            "this key is required: the name of a CA under issuers (or, as issuers, several names "
            "in the order in which they are asked)",
            where=f"{where}.issuer",
        )
    issuers = Issuers(config.issuers)
    asked: dict[str, str] = {}
    for place, name in enumerate(item.issuer_names):
        here = f"{where}.issuer" if item.issuers is None else f"{where}.issuers[{place}]"
        if name not in config.issuers:
            hint = f"; add {name}: {{}} to issuers, its directory is known" * (name in KNOWN_CAS)
            raise ConfigurationError(
                f"there is no issuer {shown(name)}; {_known(config.issuers)}{hint}", where=here
            )
        directory = issuers.spec(name).directory
        if name in asked.values():
            raise ConfigurationError(f"{name!r} stands there twice", where=here)
        if directory in asked:
            raise ConfigurationError(
                f"{name!r} and {asked[directory]!r} have the same directory, so the one cannot "
                "stand in for the other",
                where=here,
            )
        asked[directory] = name


def _check_solver_of(config: Config, item: CertificateConfig, where: str) -> None:
    solver = config.solvers.get(item.solver)
    if solver is None:
        raise ConfigurationError(
            f"there is no solver {item.solver!r}; {_known(config.solvers)}",
            where=f"{where}.solver",
        )
    for place, name in enumerate(item.dns_names):
        if name.startswith("*.") and solver.type != "dns-01":
            raise ConfigurationError(
                f"{name!r} is a wildcard, which a CA only validates by dns-01, and solver "
                f"{item.solver!r} is {solver.type}",
                where=f"{where}.dnsNames[{place}]",
            )
    if item.ip_addresses and solver.type != "http-01":
        raise ConfigurationError(
            f"{item.ip_addresses[0]!r} is an IP address, which a CA never validates by dns-01, and "
            f"solver {item.solver!r} is {solver.type}",
            where=f"{where}.ipAddresses[0]",
        )


def _check_issuers(config: Config) -> None:
    issuers = Issuers(config.issuers)
    for name, issuer in config.issuers.items():
        where = f"issuers.{name}"
        if issuers.directory(name) is None:
            raise ConfigurationError(
                "this key is required: the address of the CA's directory, or one of the well-known "
                f"names {', '.join(KNOWN_CAS)}",
                where=f"{where}.directory",
            )
        if issuer.profile_mode == "required" and issuer.profile is None:
            raise ConfigurationError(
                "this key is required, as profileMode is required", where=f"{where}.profile"
            )
        known = issuers.known(name)
        if (
            known is not None
            and known.external_account_api is not None
            and issuer.external_account is None
            and issuer.email is None
        ):
            raise ConfigurationError(
                f"this key is required for {known.title} without externalAccount: it gives an "
                "external account for an e-mail address",
                where=f"{where}.email",
            )
        if "connect_timeout" in issuer.model_fields_set and issuer.connect_timeout > issuer.timeout:
            raise ConfigurationError(
                "must not be longer than timeout, which is for the whole request",
                where=f"{where}.connectTimeout",
            )
        _check_rehearsal(issuers, name)
    _check_accounts(config, issuers)


def _check_rehearsal(issuers: Issuers, name: str) -> None:
    where = f"issuers.{name}.rehearsal"
    try:
        found = issuers.rehearsal(name)
    except LookupError:
        raise ConfigurationError(
            f"{shown(issuers.configured[name].rehearsal)} is neither an issuer (known are "
            f"{', '.join(sorted(issuers.configured))}), nor a well-known name, nor the https:// "
            "address of an ACME directory; false switches rehearsals off",
            where=where,
        ) from None
    if found is not None and found[0] == issuers.directory(name):
        raise ConfigurationError(
            "it is this issuer's own directory; a rehearsal is held somewhere else", where=where
        )


def _check_accounts(config: Config, issuers: Issuers) -> None:
    """One directory, one account; one account, one Secret."""
    first: dict[str, str] = {}
    secrets: dict[str, str] = {}
    for name, issuer in config.issuers.items():
        directory = issuers.directory(name) or ""
        other = first.setdefault(directory, name)
        for key in ("account_secret", "account_key_type", "external_account", "email"):
            if getattr(config.issuers[other], key) != getattr(issuer, key):
                alias = type(issuer).model_fields[key].alias
                raise ConfigurationError(
                    f"must be as in issuers.{other}, which has the same directory: the account "
                    "there is one and the same",
                    where=f"issuers.{name}.{alias}",
                )
        if issuer.account_secret is None:
            continue
        owner = secrets.setdefault(issuer.account_secret, name)
        if issuers.directory(owner) != directory:
            raise ConfigurationError(
                f"Secret {issuer.account_secret!r} holds the account of issuers.{owner}, which has "
                "another directory; each CA has an account of its own",
                where=f"issuers.{name}.accountSecret",
            )
        if issuer.external_account and issuer.external_account.secret_name == issuer.account_secret:
            raise ConfigurationError(
                "is also externalAccount.secretName; certbaton makes the account's Secret itself",
                where=f"issuers.{name}.accountSecret",
            )


def _check_solvers(config: Config) -> None:
    ports = {config.health_port: "healthPort"}
    for name, solver in config.solvers.items():
        where = f"solvers.{name}"
        if isinstance(solver, Http01Config):
            if solver.port in ports:
                raise ConfigurationError(
                    f"{solver.port} is already the port of {ports[solver.port]}",
                    where=f"{where}.port",
                )
            ports[solver.port] = where
        elif (solver.rfc2136.tsig_key_name is None) != (solver.rfc2136.tsig_secret_file is None):
            missing, given = "tsigKeyName", "tsigSecretFile"
            if solver.rfc2136.tsig_key_name is not None:
                missing, given = given, missing
            raise ConfigurationError(
                f"this key is required, as {given} is set", where=f"{where}.rfc2136.{missing}"
            )


def _known(section: Mapping[str, object]) -> str:
    return f"known are {', '.join(sorted(section))}" if section else "none is configured"
