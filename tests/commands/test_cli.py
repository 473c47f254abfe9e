"""The command line of what is done by hand: what may be given, and what is asked."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from certbaton import cli
from certbaton.cluster import Api
from certbaton.commands import app
from certbaton.errors import ConfigurationError
from fakes.kube import FakeApi


def run(*words: str) -> tuple[int, str, BaseException | None]:
    """Exit code, what was printed, and what `cli.main` would have told."""
    result = CliRunner().invoke(cli.app, list(words))
    return result.exit_code, result.output, result.exception


@pytest.mark.parametrize(
    "words",
    [
        ["renew"],
        ["revoke", "shop"],
        ["account", "show"],
        ["account", "export", "lab"],
        ["account", "import"],
    ],
)
def test_what_is_missing_is_named(words: list[str]) -> None:
    """Exit code 2, as for any mistake in the command line."""
    code, output, _ = run(*words)
    assert code == 2
    assert "Missing" in output


@pytest.mark.parametrize("more", [[], ["--input", "a", "--from-secret", "b/c"]])
def test_an_import_has_one_source(more: list[str]) -> None:
    """Neither is as wrong as both."""
    _, _, error = run("account", "import", "lab", *more)
    assert isinstance(error, ConfigurationError)
    assert "either --input or --from-secret" in str(error)


@pytest.mark.parametrize("words", [["rehearse", "shop"], ["account", "roll-key", "lab"]])
def test_a_timeout_is_a_duration(words: list[str]) -> None:
    """Told before anything else is looked at."""
    _, _, error = run(*words, "--timeout", "soon")
    assert isinstance(error, ConfigurationError)
    assert str(error).startswith("--timeout: 'soon' is not a duration")


def test_without_a_terminal_nobody_says_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script has to say that it is meant."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with pytest.raises(ConfigurationError, match=r"Revoke it\? There is nobody to ask"):
        app._confirm("Revoke it?")


def test_a_ca_that_no_certificate_names_any_more_is_reached_as_it_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What it issued is revoked there, with its roots, as long as they are configured."""
    monkeypatch.setattr(Api, "connect", lambda kubeconfig, context: FakeApi())
    config = tmp_path / "config.yaml"
    config.write_text(
        "issuers: {left: {directory: https://left.test/directory, caBundle: /etc/left.pem}}"
    )
    desk = app._desk(config, None, None)
    assert desk.issuer_at("https://left.test/directory").ca_bundle == "/etc/left.pem"


def test_no_option_takes_a_key() -> None:
    """What stands on a command line is seen by everybody on that machine."""
    for words in (["account", "import"], ["account", "export"], ["account", "roll-key"]):
        _, output, _ = run(*words, "--help")
        assert "--key" not in output
