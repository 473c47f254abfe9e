"""
The command line: ``run``, ``once``, ``plan``, ``config check``, ``version``.

What is done by hand (``renew``, ``revoke``, ``rehearse``, ``account``) is in ``commands``.
Exit codes: 0 well, 1 failed, 2 a mistake in the configuration or the command
line, 6 still waiting.
"""

from __future__ import annotations

import socket
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from certbaton import config as configuration
from certbaton import telemetry
from certbaton.commands import app as commands
from certbaton.commands.options import (
    DEFAULT_CONFIG,
    ConfigPath,
    Context,
    Kubeconfig,
    duration,
)
from certbaton.errors import CertbatonError, ConfigurationError
from certbaton.model import RolloutWindow
from certbaton.settings import Config
from certbaton.settings_advice import advise, spellings
from certbaton.settings_issuers import Issuers

if TYPE_CHECKING:
    from certbaton.cluster import Cluster, Lease

EXIT_FAILED, EXIT_CONFIGURATION = 1, 2

app = typer.Typer(
    name="certbaton",
    help="Obtains, renews and hands over TLS certificates on OCI load balancers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
config_app = typer.Typer(help="The configuration file.", no_args_is_help=True)
app.add_typer(config_app, name="config")


def _connect(config: Config, kubeconfig: str | None, context: str | None) -> tuple[Cluster, Lease]:
    """Give the cluster, which can be written to while the lease is held, and the lease."""
    from certbaton.cluster import Api, Cluster, FencedApi, Lease  # heavy: only where needed
    from certbaton.wiring import utc_now

    api = Api.connect(kubeconfig, context)
    instance, every = config.instance_id(), config.lease.renew_every
    lease = Lease(
        api.within(max(1.0, every.total_seconds() / 2)),
        instance,
        # the pod's name, for people; the rest so that no two processes ever share it
        identity=f"{socket.gethostname()}_{uuid.uuid4()}",
        duration=config.lease.duration,
        renew_every=every,
        wall=utc_now,
    )
    targets = {service.ref for spec in config.specs() for service in spec.services}
    fenced = FencedApi(api, lease.ensure)
    return Cluster(fenced, instance, targets, account_secrets=config.account_secrets()), lease


def _check_windows(config: Config) -> None:
    """Refuse a window that cannot be read, by its key path."""
    from certbaton import windows

    lists = {"rolloutWindows": config.rollout_windows} | {
        f"certificates[{index}].rolloutWindows": item.rollout_windows or []
        for index, item in enumerate(config.certificates)
    }
    for path, found in lists.items():
        for index, window in enumerate(found):
            try:
                windows.check(RolloutWindow(window.cron, window.duration, window.timezone))
            except ConfigurationError as exc:
                raise ConfigurationError(str(exc), where=f"{path}[{index}]") from None


def _start(path: Path) -> Config:
    config = configuration.load(path)
    _check_windows(config)
    telemetry.configure(config.log_level, config.log_format)
    return config


@app.command()
def run(
    config: ConfigPath = DEFAULT_CONFIG,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Run as a daemon, until SIGTERM or SIGINT."""
    settings = _start(config)
    cluster, lease = _connect(settings, kubeconfig, context)
    from certbaton import daemon

    raise typer.Exit(daemon.run(settings, cluster, lease))


@app.command()
def once(
    config: ConfigPath = DEFAULT_CONFIG,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    timeout: Annotated[str, typer.Option(help="At most this long, such as 90s or 5m.")] = "5m",
) -> None:
    """
    Work until nothing is left to do or wait for.

    Exit code 0: nothing left; 1: something failed; 6: still waiting, also for a daemon that runs.
    """
    settings = _start(config)
    patience = duration(timeout)
    cluster, lease = _connect(settings, kubeconfig, context)
    from certbaton import daemon

    raise typer.Exit(daemon.once(settings, cluster, lease, patience))


@app.command()
def plan(
    config: ConfigPath = DEFAULT_CONFIG,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """
    Print what would be done next, and why; touch nothing.

    Each step is planned from what is there when it is due, so later steps are not shown.
    """
    settings = _start(config)
    cluster, _ = _connect(settings, kubeconfig, context)
    from certbaton import daemon

    found = daemon.plans(settings, cluster)
    configured = {certificate.name for certificate in settings.certificates}
    if not configured:
        typer.echo("No certificate is configured; add one under certificates.")
    for item in found:
        if not (item.notes or item.actions or item.waits) and item.certificate not in configured:
            continue  # only its record is left, for the limits
        typer.echo(f"{item.certificate}:")
        for note in item.notes:
            typer.echo(f"  note   {note}")
        for action in item.actions:
            typer.echo(f"  do     {type(action).__name__}: {action.why}")
        for wait in item.waits:
            typer.echo(f"  wait   until {wait.until:%Y-%m-%d %H:%M:%S} UTC: {wait.what}")
        if not item.actions and not item.waits:
            typer.echo("  nothing to do")


@config_app.command("check")
def config_check(
    config: ConfigPath = DEFAULT_CONFIG,
    caa: Annotated[
        bool, typer.Option("--caa", help="Ask DNS whether CAA records are in a CA's way.")
    ] = False,
) -> None:
    """
    Read the configuration, and say what is wrong with it. Needs no cluster.

    Notes tell what a CA is known not to take; with them alone the exit code is 0.
    """
    settings = configuration.load(config)
    _check_windows(settings)
    count = len(settings.certificates)
    typer.echo(f"{config}: in order, {count} certificate{'' if count == 1 else 's'}")
    for note in (*spellings(settings), *advise(settings)):
        typer.echo(f"  note   {note}")
    for note in _caa_notes(settings) if caa else ():
        typer.echo(f"  note   {note}")


def _caa_notes(settings: Config) -> Iterator[str]:
    """Look CAA records up, of every certificate at each of its CAs; trouble is a note too."""
    from certbaton import caa

    issuers = Issuers(settings.issuers)
    for index, item in enumerate(settings.certificates):
        found = caa.look_up(item.dns_names, settings.resolvers)
        for name in item.issuer_names:
            known = issuers.known(name)
            # no account: it is in the cluster, which is not asked here
            advice = caa.judge(
                found, known.caa if known else (), None, settings.solvers[item.solver].type
            )
            yield from (f"certificates[{index}] at {name}: {each}" for each in advice.sentences)


@app.command()
def version() -> None:
    """Print the version."""
    from importlib.metadata import version as installed

    typer.echo(installed("certbaton"))


commands.register(app)


def main() -> None:
    """Entry point: a mistake of the user's is one sentence, never a traceback."""
    try:
        app()
    except ConfigurationError as exc:
        print(f"certbaton: {exc}", file=sys.stderr)  # noqa: T201
        sys.exit(EXIT_CONFIGURATION)
    except CertbatonError as exc:
        print(f"certbaton: {exc}", file=sys.stderr)  # noqa: T201
        sys.exit(EXIT_FAILED)


if __name__ == "__main__":
    main()
