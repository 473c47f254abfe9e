"""`config check`: what a CA is known not to take, told as notes, and never as an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dns.rcode
import dns.rdatatype
import pytest
import yaml
from typer.testing import CliRunner

from certbaton import cli
from certbaton.config import parse
from certbaton.errors import ConfigurationError
from certbaton.settings_advice import advise
from certbaton.wellknown import KNOWN_CAS
from solvers.name_server import NameServer

ISSUERS: dict[str, Any] = {
    "letsencrypt": {},
    "short": {"directory": "letsencrypt", "profile": "shortlived"},
    "server": {"directory": "letsencrypt", "profile": "tlsserver"},
    "zerossl": {"email": "ops@example.com"},
    "google": {"externalAccount": {"secretName": "eab"}},
    "sslcom": {"externalAccount": {"secretName": "eab"}},
    "own": {"directory": "https://ca.example/directory", "profile": "any"},
}
SOLVERS = {
    "web": {"type": "http-01"},
    "dns": {"type": "dns-01", "rfc2136": {"server": "ns.example"}},
}


def certificate(**keys: Any) -> dict[str, Any]:
    given = {"name": "shop", "dnsNames": ["shop.example.com"], "solver": "dns"} | keys
    return given if "issuers" in given else {"issuer": "letsencrypt"} | given


def text(*certificates: dict[str, Any], **more: Any) -> str:
    return yaml.safe_dump(
        {"issuers": ISSUERS, "solvers": SOLVERS, "certificates": list(certificates)} | more,
        sort_keys=False,
    )


def notes(*certificates: dict[str, Any], **more: Any) -> list[str]:
    return list(advise(parse(text(*certificates, **more), {})))


def hosts(number: int) -> list[str]:
    return [f"a{each}.example.com" for each in range(number)]


NOTED: dict[str, tuple[dict[str, Any], str]] = {
    "more names than a profile takes": (
        certificate(dnsNames=hosts(26), issuer="short"),
        "certificates[0].dnsNames: 26 names, and Let's Encrypt takes at most 25 in one certificate "
        "with profile shortlived",
    ),
    "more names than the other profile takes": (
        certificate(dnsNames=hosts(26), issuer="server"),
        "certificates[0].dnsNames: 26 names, and Let's Encrypt takes at most 25 in one certificate "
        "with profile tlsserver",
    ),
    "more names than a CA takes": (
        certificate(dnsNames=hosts(3), issuer="sslcom"),
        "certificates[0].dnsNames: 3 names, and SSL.com takes at most 2 in one certificate",
    ),
    "the second CA of a list": (
        certificate(dnsNames=hosts(3), issuers=["letsencrypt", "sslcom"]),
        "certificates[0].dnsNames: 3 names, and SSL.com takes at most 2 in one certificate",
    ),
    "an IP address without the profile for it": (
        certificate(ipAddresses=["1.1.1.1"], solver="web"),
        "certificates[0].ipAddresses: Let's Encrypt has them with profile shortlived only; use an "
        "issuer with it",
    ),
    "an IP address at a CA that has none": (
        certificate(ipAddresses=["1.1.1.1"], solver="web", issuer="zerossl"),
        "certificates[0].ipAddresses: ZeroSSL has no certificates for IP addresses",
    ),
    "an IP address that nobody reaches": (
        certificate(ipAddresses=["10.0.0.1"], solver="web", issuer="short"),
        "certificates[0].ipAddresses[0]: 10.0.0.1 is not an address of the internet, so Let's "
        "Encrypt cannot validate it",
    ),
    "a name that a wildcard covers": (
        certificate(dnsNames=["example.com", "*.example.com", "shop.example.com"]),
        "certificates[0].dnsNames[2]: shop.example.com is covered by *.example.com, and CAs refuse "
        "to have both in one certificate; leave it out",
    ),
    "a lifetime where the CA chooses": (
        certificate(lifetime="30d"),
        "certificates[0].lifetime: Let's Encrypt decides that by itself, and gets the order "
        "without",
    ),
    "an EC key at the directory for RSA": (
        certificate(keyType="P-256", issuer="sslcom"),
        "certificates[0].keyType: SSL.com has another directory for P-256 keys; make an issuer "
        "with https://acme.ssl.com/sslcom-dv-ecc",
    ),
}


@pytest.mark.parametrize(("written", "expected"), NOTED.values(), ids=list(NOTED))
def test_what_a_ca_does_not_take_is_noted(written: dict[str, Any], expected: str) -> None:
    """One sentence with the key's path, and no other."""
    assert notes(written) == [expected]


FINE: dict[str, dict[str, Any]] = {
    "a hundred names in the classic profile": certificate(dnsNames=hosts(100)),
    "25 names in a short one": certificate(dnsNames=hosts(25), issuer="short"),
    "a wildcard and the name above it": certificate(dnsNames=["example.com", "*.example.com"]),
    "a wildcard and a name two below it": certificate(
        dnsNames=["*.example.com", "a.b.example.com"]
    ),
    "an IP address with its profile": certificate(
        ipAddresses=["1.1.1.1"], solver="web", issuer="short"
    ),
    "a lifetime where it is taken": certificate(issuer="google", lifetime="30d"),
    "an RSA key at the directory for it": certificate(issuer="sslcom", keyType="RSA-4096"),
    "a CA that nothing is known of": certificate(
        dnsNames=hosts(90), ipAddresses=["10.0.0.1"], solver="web", issuer="own", lifetime="1d"
    ),
}


@pytest.mark.parametrize("written", FINE.values(), ids=list(FINE))
def test_what_is_taken_is_not_noted(written: dict[str, Any]) -> None:
    """Right up to each limit."""
    assert notes(written) == []


PROFILES = {
    "unknown": ("nosuch", "is not known to have it"),
    "gone": ("tlsclient", "has it no more"),
}


@pytest.mark.parametrize(("profile", "said"), PROFILES.values(), ids=list(PROFILES))
@pytest.mark.parametrize(
    ("mode", "then"),
    [
        ("preferred", "certificates then come without it"),
        ("required", "nothing is ordered until it has it"),
    ],
)
def test_a_profile_that_is_not_in_the_table_is_noted(
    profile: str, said: str, mode: str, then: str
) -> None:
    """The CA's directory decides, so it is no mistake."""
    issuers = {"letsencrypt": {"profile": profile, "profileMode": mode}}
    assert notes(certificate(), issuers=issuers) == [
        f"issuers.letsencrypt.profile: Let's Encrypt {said} (but classic, tlsserver, shortlived); "
        f"{then}"
    ]


@pytest.mark.parametrize("name", [name for name, ca in KNOWN_CAS.items() if ca.external_account])
def test_a_ca_that_needs_an_external_account_says_so(name: str) -> None:
    """Once, and only if a certificate uses it; ZeroSSL's comes by mail."""
    issuers: dict[str, Any] = {name: {"email": "ops@example.com"}, "letsencrypt": {}}
    used = certificate(issuer=name)
    found = notes(used, used | {"name": "b", "dnsNames": ["b.example.com"]}, issuers=issuers)
    title = KNOWN_CAS[name].title
    assert found == (
        []
        if KNOWN_CAS[name].external_account_api
        else [
            f"issuers.{name}.externalAccount: {title} makes no account without one; name the "
            "Secret with kid and hmacKey, unless the account is there already"
        ]
    )
    assert notes(certificate(), issuers=issuers) == []


def test_two_certificates_with_the_same_names_are_noted() -> None:
    """A CA hands the same order to both, also under two issuers with one directory."""
    first = certificate(dnsNames=["a.example.com", "b.example.com"])
    second = certificate(name="b", dnsNames=["b.example.com", "a.example.com"], issuer="server")
    (found,) = notes(first, second)
    assert found.startswith("certificates[1].dnsNames: the same names as certificates[0] at the")
    assert notes(first, second | {"issuer": "own"}) == []


# --- the command -----------------------------------------------------------------------


def run(path: Path, *words: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, ["config", "check", "--config", str(path), *words])
    return result.exit_code, result.output


def test_the_check_ends_well_with_notes(tmp_path: Path) -> None:
    """And shows internationalized names in both forms."""
    path = tmp_path / "config.yaml"
    written = certificate(dnsNames=["*.mäh.example", "shop.mäh.example"], lifetime="1d")
    path.write_text(text(written))
    code, said = run(path)
    assert code == 0
    assert said.splitlines() == [
        f"{path}: in order, 1 certificate",
        "  note   certificates[0].dnsNames[0]: *.mäh.example (*.xn--mh-via.example)",
        "  note   certificates[0].dnsNames[1]: shop.mäh.example (shop.xn--mh-via.example)",
        "  note   certificates[0].dnsNames[1]: shop.mäh.example (shop.xn--mh-via.example) is "
        "covered by *.mäh.example (*.xn--mh-via.example), and CAs refuse to have both in one "
        "certificate; leave it out",
        "  note   certificates[0].lifetime: Let's Encrypt decides that by itself, and gets the "
        "order without",
    ]


def test_caa_is_looked_up_where_that_is_asked_for(tmp_path: Path) -> None:
    """By the configured resolvers, for each CA of the list, by the table's identities."""
    path = tmp_path / "config.yaml"
    with NameServer("example.com").running() as server:
        server.add("example.com", dns.rdatatype.CAA, '0 issue "letsencrypt.org"')
        written = certificate(issuers=["letsencrypt", "google"])
        path.write_text(text(written, resolvers=[f"127.0.0.1:{server.port}"]))
        code, said = run(path)
        assert (code, len(said.splitlines()), server.by) == (0, 1, [])
        code, said = run(path, "--caa")
    assert code == 0
    (note,) = said.splitlines()[1:]
    assert note.startswith("  note   certificates[0] at google: shop.example.com: CAA at example.")
    assert '0 issue "pki.goog"' in note


def test_dns_that_does_not_answer_is_a_note(tmp_path: Path) -> None:
    """The configuration is in order all the same."""
    path = tmp_path / "config.yaml"
    with NameServer("example.com").running() as server:
        server.rcode = dns.rcode.SERVFAIL
        path.write_text(text(certificate(), resolvers=[f"127.0.0.1:{server.port}"]))
        code, said = run(path, "--caa")
    assert code == 0
    assert "certificates[0] at letsencrypt: shop.example.com: CAA could not be looked up" in said


def test_a_mistake_is_an_error_and_no_note(tmp_path: Path) -> None:
    """A wildcard over http-01 can never work."""
    path = tmp_path / "config.yaml"
    path.write_text(text(certificate(dnsNames=["*.example.com"], solver="web")))
    result = CliRunner().invoke(cli.app, ["config", "check", "--config", str(path), "--caa"])
    assert isinstance(result.exception, ConfigurationError)
    assert "is a wildcard, which a CA only validates by dns-01" in str(result.exception)
    assert result.output == ""
