"""The command line of what is done by hand; what each command does is in its own module."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from certbaton import config as configuration
from certbaton.commands.options import (
    DEFAULT_CONFIG,
    ConfigPath,
    Context,
    Kubeconfig,
    duration,
)
from certbaton.errors import ConfigurationError

if TYPE_CHECKING:
    from certbaton.commands.desk import Desk

account_app = typer.Typer(help="The accounts at the CAs.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The certificate, as the configuration names it.")]
Issuer = Annotated[str, typer.Argument(help="The issuer, as the configuration names it.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask whether it is meant.")]


def register(app: typer.Typer) -> None:
    """Add these commands to *app*."""
    for command in (renew, revoke, rehearse):
        app.command()(command)
    app.add_typer(account_app, name="account")


def _desk(config: Path, kubeconfig: str | None, context: str | None, *, yes: bool = False) -> Desk:
    settings = configuration.load(config)
    from certbaton.ca.session import Session  # heavy, as all below
    from certbaton.cluster import Api, Cluster
    from certbaton.commands.desk import Desk
    from certbaton.wiring import utc_now

    specs = settings.specs()
    targets = {service.ref for spec in specs for service in spec.services}
    cluster = Cluster(
        Api.connect(kubeconfig, context),
        settings.instance_id(),
        targets,
        account_secrets=settings.account_secrets(),
    )
    return Desk(
        specs,
        settings.issuer_specs(),
        settings.policy.policy(),
        cluster,
        connect=Session,
        say=typer.echo,
        confirm=(lambda question: True) if yes else _confirm,
        clock=utc_now,
        sleep=time.sleep,
    )


def _confirm(question: str) -> bool:
    if not sys.stdin.isatty():
        raise ConfigurationError(f"{question} There is nobody to ask; give --yes if it is meant")
    return typer.confirm(question)


def renew(
    name: Name,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the new certificate.")] = False,
    timeout: Annotated[str, typer.Option(help="At most this long, with --wait.")] = "10m",
    config: ConfigPath = DEFAULT_CONFIG,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """
    Renew a certificate now, whatever is due: the daemon orders another one and hands it over.

    Exit code 1: the order failed; 6: still waiting (both with --wait).
    """
    patience = duration(timeout) if wait else None
    desk = _desk(config, kubeconfig, context)
    from certbaton.commands import certificates

    raise typer.Exit(certificates.renew(desk, name, patience))


def rehearse(
    name: Name,
    timeout: Annotated[str, typer.Option(help="Wait at most this long.")] = "5m",
    config: ConfigPath = DEFAULT_CONFIG,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """
    Try an order at the issuer's rehearsal directory (staging), up to validation.

    Nothing is issued. Exit code 0: passed; 1: failed; 6: the daemon has not answered yet.
    """
    patience = duration(timeout)
    desk = _desk(config, kubeconfig, context)
    from certbaton.commands import certificates

    raise typer.Exit(certificates.rehearse(desk, name, patience))


def revoke(
    name: Name,
    reason: Annotated[
        str,
        typer.Option(help="keyCompromise, superseded, cessationOfOperation, or unspecified."),
    ],
    secret: Annotated[
        str | None, typer.Option(help="This version of it; the newest one otherwise.")
    ] = None,
    with_certificate_key: Annotated[
        bool,
        typer.Option(
            "--with-certificate-key",
            help="Sign with the certificate's key, as is done for keyCompromise.",
        ),
    ] = False,
    now: Annotated[
        bool, typer.Option("--now", help="Although Services still name it (not keyCompromise).")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until no Service names it any more.")
    ] = False,
    timeout: Annotated[str, typer.Option(help="At most this long, with --wait.")] = "30m",
    yes: Yes = False,
    config: ConfigPath = DEFAULT_CONFIG,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """
    Revoke a certificate, and have it replaced.

    For keyCompromise the CA is told at once; otherwise when no Service names it any more. Exit
    code 6: noted, and the CA not told yet: give the command again.
    """
    patience = duration(timeout) if wait else None
    desk = _desk(config, kubeconfig, context, yes=yes)
    from certbaton.commands.revoke import Request
    from certbaton.commands.revoke import revoke as perform

    request = Request(name, reason, secret, with_certificate_key, now, patience)
    raise typer.Exit(perform(desk, request))


@account_app.command("show")
def account_show(
    issuer: Issuer,
    config: ConfigPath = DEFAULT_CONFIG,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Say which account an issuer has, and what the CA says to it. Never shows the key."""
    desk = _desk(config, kubeconfig, context)
    from certbaton.commands import accounts

    raise typer.Exit(accounts.show(desk, issuer))


@account_app.command("export")
def account_export(
    issuer: Issuer,
    output: Annotated[Path, typer.Option(help="A new file; it gets mode 0600.")],
    form: Annotated[
        str,
        typer.Option(
            "--format", help="backup (key, URL and directory, to restore from), pem or jwk."
        ),
    ] = "backup",
    config: ConfigPath = DEFAULT_CONFIG,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Write an issuer's account key into a file."""
    desk = _desk(config, kubeconfig, context)
    from certbaton.commands import accounts

    raise typer.Exit(accounts.export(desk, issuer, output, form))


@account_app.command("import")
def account_import(
    issuer: Issuer,
    input_: Annotated[
        Path | None,
        typer.Option("--input", help="A backup, a PEM key, or certbot's private_key.json."),
    ] = None,
    from_secret: Annotated[
        str | None,
        typer.Option(help="A Secret, namespace/name, with cert-manager's account key (tls.key)."),
    ] = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="In place of another account; its key is kept beside it."),
    ] = False,
    config: ConfigPath = DEFAULT_CONFIG,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """
    Use an account that was made elsewhere, or restore one from its backup.

    The CA is asked which account it is; nothing is stored where it knows none.
    """
    if (input_ is None) == (from_secret is None):
        raise ConfigurationError("give either --input or --from-secret")
    from certbaton.commands import accounts, keyfile

    kept = keyfile.load(input_) if input_ is not None else None
    desk = _desk(config, kubeconfig, context)
    if kept is None:
        kept = accounts.from_secret(desk, from_secret or "")
    raise typer.Exit(accounts.import_(desk, issuer, kept, replacing=replace))


@account_app.command("deactivate")
def account_deactivate(
    issuer: Issuer,
    yes: Yes = False,
    config: ConfigPath = DEFAULT_CONFIG,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Give an issuer's account up at the CA, for good."""
    desk = _desk(config, kubeconfig, context, yes=yes)
    from certbaton.commands import accounts

    raise typer.Exit(accounts.deactivate(desk, issuer))


@account_app.command("roll-key")
def account_roll_key(
    issuer: Issuer,
    timeout: Annotated[str, typer.Option(help="Wait for the daemon at most this long.")] = "5m",
    config: ConfigPath = DEFAULT_CONFIG,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """
    Change the key of an issuer's account.

    The next key is stored, and the daemon does the rest. Exit code 6: not done yet.
    """
    patience = duration(timeout)
    desk = _desk(config, kubeconfig, context)
    from certbaton.commands import accounts

    raise typer.Exit(accounts.roll_key(desk, issuer, patience))
