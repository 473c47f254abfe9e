"""Solvers and DNS providers are found by entry points."""

from pathlib import Path

import pytest

from certbaton.errors import ConfigurationError
from certbaton.solvers import load, load_dns_provider


def test_both_challenge_types_are_installed() -> None:
    """load gives a solver of the type asked for, from its section of the configuration."""
    section: dict[str, object] = {"type": "http-01", "address": "0.0.0.0", "port": 8089}
    assert load("http-01", section).challenge_type == "http-01"
    section = {"type": "dns-01", "provider": "rfc2136", "settings": {"server": "ns.a.example"}}
    assert load("dns-01", section).challenge_type == "dns-01"


@pytest.mark.parametrize(
    ("kind", "settings", "sentence"),
    [
        ("tls-alpn-01", {}, "there is no solver for the challenge type 'tls-alpn-01'; installed:"),
        ("dns-01", {"provider": "acme-dns"}, "there is no DNS provider 'acme-dns'; installed:"),
        ("dns-01", {}, "rfc2136.server: this key is required"),
        ("dns-01", {"settings": "ns"}, "dns-01.settings: must hold keys and values"),
        ("http-01", {"prot": 80}, "http-01.prot: unknown key"),
        ("http-01", {"port": 70000}, "http-01.port: must be from 0 to 65535"),
        ("http-01", {"port": 80.5}, "http-01.port: must be a whole number"),
        ("http-01", {"port": True}, "http-01.port: must be a number"),
        ("http-01", {"address": 1}, "http-01.address: must be a text"),
    ],
)
def test_what_is_wrong_is_said(kind: str, settings: dict[str, object], sentence: str) -> None:
    """An unknown type, provider, key or value is refused by name."""
    with pytest.raises(ConfigurationError) as caught:
        load(kind, settings)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"tsigKeyName": "k"}, "rfc2136.tsigSecretFile: a key needs the file with its secret"),
        ({"tsigSecretFile": "/f"}, "rfc2136.tsigKeyName: a secret needs the name of its key"),
        ({"tsigAlgorithm": "md5"}, "rfc2136.tsigAlgorithm: 'md5' is not one of hmac-sha1, "),
        ({"tsigSecret": "c2VjcmV0"}, "rfc2136.tsigSecret: unknown key"),
        ({"zone": "a..example"}, "rfc2136.zone: 'a..example' is not the name of a zone"),
        ({"ttl": -1}, "rfc2136.ttl: must be from 0 to 86400"),
        ({"timeoutSeconds": 0}, "rfc2136.timeoutSeconds: must be from 0.1 to 60"),
    ],
)
def test_rfc2136_says_what_is_wrong(settings: dict[str, object], sentence: str) -> None:
    """The settings of RFC 2136 are checked before the first update, and never shown."""
    with pytest.raises(ConfigurationError) as caught:
        load_dns_provider("rfc2136", {"server": "127.0.0.1", **settings})
    assert str(caught.value).startswith(sentence)
    assert "c2VjcmV0" not in str(caught.value)


def test_absent_and_null_are_the_same(tmp_path: Path) -> None:
    """A key that the configuration has as null takes its default."""
    load_dns_provider("rfc2136", {"server": "127.0.0.1", "zone": None, "tsigKeyName": None})
