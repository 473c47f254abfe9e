"""Options that commands share, and durations as they are written."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final

import typer

from certbaton.errors import ConfigurationError

ConfigPath = Annotated[
    Path,
    typer.Option(
        "--config", "-c", envvar="CERTBATON_CONFIG", help="The configuration file (YAML)."
    ),
]
Kubeconfig = Annotated[
    str | None,
    typer.Option(
        "--kubeconfig",
        envvar="KUBECONFIG",
        help="How to reach the cluster; in a pod its service account is used.",
    ),
]
Context = Annotated[str | None, typer.Option("--context", help="A context of the kubeconfig.")]
DEFAULT_CONFIG: Final = Path("/etc/certbaton/config.yaml")


def duration(text: str, where: str = "--timeout") -> timedelta:
    """Read ``90s`` or ``5m``; ConfigurationError, of the option *where*, otherwise."""
    from pydantic import TypeAdapter, ValidationError

    from certbaton.settings_fields import Duration

    try:
        return TypeAdapter[timedelta](Duration).validate_python(text)
    except ValidationError:
        raise ConfigurationError(
            f"{text!r} is not a duration; write for example 90s or 5m", where=where
        ) from None
