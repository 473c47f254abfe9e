"""Each mistake in the configuration gives one sentence, and it begins with the key path."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from certbaton import cli
from certbaton.config import parse
from certbaton.errors import ConfigurationError

GOOD = """
issuers:
  le: {directory: https://ca.example/directory}
solvers:
  web: {type: http-01}
  dns: {type: dns-01, rfc2136: {server: ns.example}}
certificates:
  - name: shop
    dnsNames: [shop.example.com]
    issuer: le
    solver: web
    services: [{namespace: shop, name: web}]
"""


def complaint(text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse(text, {})
    return str(caught.value)


def with_change(path: list[str | int], value: object) -> str:
    """GOOD with *value* at *path*."""
    raw: Any = yaml.safe_load(GOOD)
    here = raw
    for part in path[:-1]:
        here = here[part]
    here[path[-1]] = value
    return yaml.safe_dump(raw)


def certificate(**change: object) -> dict[str, object]:
    good = {"name": "blog", "dnsNames": ["blog.example.com"], "issuer": "le", "solver": "web"}
    return good | change


SHOP: list[str | int] = ["certificates", 0]

VALUES: dict[str, tuple[list[str | int], object, str]] = {
    "an unknown key with nothing like it": (
        ["solvers", "web", "zone"],
        "a",
        "solvers.web.zone: unknown key; known here are type, port, address",
    ),
    "an unknown key in a long section": (
        ["policy"],
        {"speed": 1},
        "policy.speed: unknown key; config/default.yaml has all keys",
    ),
    "a misspelt key": (
        [*SHOP, "dnsnames"],
        ["a.example"],
        "certificates[0].dnsnames: unknown key; did you mean dnsNames?",
    ),
    "a key written as Python would": (
        ["health_port"],
        80,
        "health_port: unknown key; did you mean healthPort?",
    ),
    "a misspelt key deep down": (
        [*SHOP, "services", 0, "probe"],
        {"servername": "a.example"},
        "certificates[0].services[0].probe.servername: unknown key; did you mean serverName?",
    ),
    "an unknown key of a solver that is named as another type": (
        ["solvers", "dns-01"],
        {"type": "http-01", "prt": 1},
        "solvers.dns-01.prt: unknown key; did you mean port?",
    ),
    "an unknown key of an issuer that is named as a solver's type": (
        ["issuers", "dns-01"],
        {"directory": "https://ca.example/", "mail": "a@b.example"},
        "issuers.dns-01.mail: unknown key; did you mean email?",
    ),
    "a required key that is missing": (
        SHOP,
        {"name": "shop"},
        "certificates[0].solver: this key is required",
    ),
    "a misspelt key rather than the missing one": (
        SHOP,
        {"name": "shop", "dnsName": ["a.example"]},
        "certificates[0].dnsName: unknown key; did you mean dnsNames?",
    ),
    "a certificate's name with a dot": (
        [*SHOP, "name"],
        "shop.example",
        "certificates[0].name: 'shop.example' must be lower-case letters, digits and inner "
        "hyphens, at most 42 of them (it begins the names of Secrets, and the OCI load balancer "
        "allows no dots)",
    ),
    "an issuer that is not configured": (
        [*SHOP, "issuer"],
        "letsencrypt",
        "certificates[0].issuer: there is no issuer 'letsencrypt'; known are le; add "
        "letsencrypt: {} to issuers, its directory is known",
    ),
    "an issuer where none is configured": (
        ["issuers"],
        {},
        "certificates[0].issuer: there is no issuer 'le'; none is configured",
    ),
    "a solver that is not configured": (
        [*SHOP, "solver"],
        "http",
        "certificates[0].solver: there is no solver 'http'; known are dns, web",
    ),
    "a wildcard over http-01": (
        [*SHOP, "dnsNames"],
        ["shop.example", "*.shop.example"],
        "certificates[0].dnsNames[1]: '*.shop.example' is a wildcard, which a CA only validates "
        "by dns-01, and solver 'web' is http-01",
    ),
    "two certificates with one name": (
        ["certificates"],
        [certificate(), certificate()],
        "certificates[1].name: 'blog' is already the name of certificates[0]",
    ),
    "two certificates for one Service": (
        ["certificates"],
        [
            certificate(name="a", services=[{"namespace": "n", "name": "s"}]),
            certificate(name="b", services=[{"namespace": "n", "name": "s"}]),
        ],
        "certificates[1].services[0]: Service n/s is already served by certificates[0]; a "
        "listener has one certificate, so put all names on one",
    ),
    "a Service twice in one certificate": (
        [*SHOP, "services"],
        [{"namespace": "n", "name": "s"}] * 2,
        "certificates[0].services[1]: Service n/s is already served by certificates[0]; a "
        "listener has one certificate, so put all names on one",
    ),
    "a DNS name twice": (
        [*SHOP, "dnsNames"],
        ["a.example", "A.example"],
        "certificates[0].dnsNames: 'a.example' stands there twice",
    ),
    "no DNS name at all": (
        [*SHOP, "dnsNames"],
        [],
        "certificates[0].dnsNames: this key is required, with at least one name, where there are "
        "no ipAddresses",
    ),
    "101 DNS names": (
        [*SHOP, "dnsNames"],
        [f"a{number}.example" for number in range(101)],
        "certificates[0].dnsNames: must have at most 100 entries",
    ),
    "one DNS name without a list": (
        [*SHOP, "dnsNames"],
        "a.example",
        "certificates[0].dnsNames: must be a list, not 'a.example'",
    ),
    "a key type that does not exist": (
        [*SHOP, "keyType"],
        "ed25519",
        "certificates[0].keyType: 'ed25519' is not one of RSA-2048, RSA-3072, RSA-4096, P-256, "
        "P-384",
    ),
    "a solver type that does not exist": (
        ["solvers", "web"],
        {"type": "foo"},
        "solvers.web.type: 'foo' is not a solver type; known are dns-01, http-01",
    ),
    "a solver without a type": (
        ["solvers", "web"],
        {"port": 80},
        "solvers.web.type: this key is required",
    ),
    "a solver that is a number": (
        ["solvers", "web"],
        8089,
        "solvers.web: must hold keys and values, not 8089",
    ),
    "dns-01 without its provider's keys": (
        ["solvers", "dns"],
        {"type": "dns-01"},
        "solvers.dns.rfc2136: this key is required",
    ),
    "a TSIG key without a secret": (
        ["solvers", "dns", "rfc2136", "tsigKeyName"],
        "certbaton.",
        "solvers.dns.rfc2136.tsigSecretFile: this key is required, as tsigKeyName is set",
    ),
    "a TSIG secret without its key": (
        ["solvers", "dns", "rfc2136", "tsigSecretFile"],
        "/secret",
        "solvers.dns.rfc2136.tsigKeyName: this key is required, as tsigSecretFile is set",
    ),
    "two servers on one port": (
        ["solvers", "web", "port"],
        8080,
        "solvers.web.port: 8080 is already the port of healthPort",
    ),
    "a port as text": (["healthPort"], "80", "healthPort: must be a whole number, not '80'"),
    "a port with a fraction": (
        ["healthPort"],
        80.5,
        "healthPort: must be a whole number, not 80.5",
    ),
    "a port that is true": (["healthPort"], True, "healthPort: must be a whole number, not true"),
    "a port out of range": (["healthPort"], 65536, "healthPort: must be at most 65535, not 65536"),
    "no workers": (["workers"], 0, "workers: must be at least 1, not 0"),
    "a share of one": (["policy"], {"late": 1}, "policy.late: must be less than 1, not 1"),
    "a share that is no number": (
        ["policy"],
        {"late": float("nan")},
        "policy.late: must be a number, not nan",
    ),
    "late before it is due": (
        ["policy"],
        {"late": 0.4},
        "policy: late must be less than renewLeft and renewLeftShort",
    ),
    "a duration without a unit": (
        ["probeTimeout"],
        10,
        "probeTimeout: 10 is not a duration; write for example 30s, 10m, 1h30m or 7d",
    ),
    "a duration with an unknown unit": (
        ["policy"],
        {"backOff": ["1m", "1week"]},
        "policy.backOff[1]: '1week' is not a duration; write for example 30s, 10m, 1h30m or 7d",
    ),
    "a duration of zero where it would never rest": (
        ["policy"],
        {"pollListener": "0s"},
        "policy.pollListener: must be longer than zero",
    ),
    "a duration of ages": (
        ["policy"],
        {"backstop": "9999999999d"},
        "policy.backstop: '9999999999d' is longer than ten years",
    ),
    "an empty section": (["issuers"], None, "issuers: must hold keys and values, not nothing"),
    "a list where keys belong": (
        ["instance"],
        ["a"],
        "instance: must hold keys and values, not a list",
    ),
    "a yes where true belongs": (
        [*SHOP, "services", 0, "sslPorts"],
        "always",
        "certificates[0].services[0].sslPorts: must be true or false, not 'always'",
    ),
    "a number as a namespace": (
        [*SHOP, "services", 0, "namespace"],
        1234,
        "certificates[0].services[0].namespace: must be text, not 1234; put it in quotes",
    ),
    "a name that is a number": (
        ["issuers"],
        {1: {"directory": "https://ca.example/"}},
        "issuers.1: must be text, not 1; put it in quotes",
    ),
    "a name that Kubernetes does not take": (
        ["issuers"],
        {"Lets_Encrypt": {"directory": "https://ca.example/"}},
        "issuers.Lets_Encrypt: 'Lets_Encrypt' is not a name that Kubernetes takes: lower-case "
        "letters, digits, inner hyphens and dots, at most 253 of them",
    ),
    "a release without its namespace": (
        ["takeOverFrom"],
        ["certbaton"],
        "takeOverFrom[0]: 'certbaton' is not a release written as namespace/name",
    ),
    "a release that it is itself": (
        ["takeOverFrom"],
        ["old/certbaton", "certbaton/certbaton"],
        "takeOverFrom[1]: certbaton/certbaton is this very release",
    ),
    "a password in a directory's address": (
        ["issuers", "le", "directory"],
        "https://user:hunter2@ca.example/",
        "issuers.le.directory: an @ has no place in the address of an ACME directory",
    ),
    "a directory without TLS": (
        ["issuers", "le", "directory"],
        "http://ca.example/",
        "issuers.le.directory: 'http://ca.example/' is not an https:// address of an ACME "
        "directory, and not one of the well-known names letsencrypt, letsencrypt-staging, zerossl, "
        "google, sslcom",
    ),
    "an e-mail address as a link": (
        ["issuers", "le", "email"],
        "mailto:ops@example.com",
        "issuers.le.email: 'mailto:ops@example.com' is not one e-mail address such as "
        "ops@example.com",
    ),
    "an empty text": (
        ["solvers", "dns", "rfc2136", "server"],
        "",
        "solvers.dns.rfc2136.server: must not be empty",
    ),
    "a word that is not among the choices": (
        ["logLevel"],
        "loud",
        "logLevel: 'loud' is not one of debug, info, warning, error",
    ),
}


@pytest.mark.parametrize(("path", "value", "expected"), VALUES.values(), ids=VALUES)
def test_a_wrong_value_gets_one_sentence(
    path: list[str | int], value: object, expected: str
) -> None:
    """It begins with the path of the key, and nothing of pydantic's is in it."""
    assert complaint(with_change(path, value)) == expected


NAMES: dict[str, tuple[object, str]] = {
    "one label": ("localhost", "'localhost' is not a full DNS name such as shop.example.com"),
    "a whole URL": (
        "https://a.example",
        "'https://a.example' is an address of a page; write the name alone",
    ),
    "a path": ("a.example/b", "'a.example/b' is an address of a page; write the name alone"),
    "an IP address": (
        "10.0.0.1",
        "'10.0.0.1' is an IP address; those stand under ipAddresses",
    ),
    "a dot at the end": ("a.example.", "'a.example.' ends in a dot; leave it out"),
    "two dots in a row": ("a..example", "'a..example' is not a DNS name: a label is empty"),
    "an underscore": (
        "a_b.example",
        "'a_b.example' is not a DNS name: 'a_b' is not letters, digits and inner hyphens",
    ),
    "a hyphen at the edge": (
        "-a.example",
        "'-a.example' is not a DNS name: '-a' is not letters, digits and inner hyphens",
    ),
    "a blank": (
        "a b.example",
        "'a b.example' is not a DNS name: 'a b' is not letters, digits and inner hyphens",
    ),
    "a letter that no name can have": (
        "mä‽h.example",
        "'mä‽h.example' cannot be an internationalized name (Codepoint U+203D at position 3 of "
        "'mä‽h' not allowed); write it in its xn-- form, as it is registered",
    ),
    "an internationalized label that is too long": (
        "ä" * 60 + ".example",
        f"'{'ä' * 60}.example' cannot be an internationalized name (Label too long); write it in "
        "its xn-- form, as it is registered",
    ),
    "a star in the middle": (
        "a.*.example",
        "'a.*.example': a * can only be the whole first label, as in *.a.example",
    ),
    "a star and more": (
        "*a.example",
        "'*a.example': a * can only be the whole first label, as in *.a.example",
    ),
    "a star for a whole top level": (
        "*.example",
        "'*.example' is not a full DNS name such as shop.example.com",
    ),
    "a label of 64": (
        "a" * 64 + ".example",
        f"'{'a' * 64}.example' is not a DNS name: a label is longer than 63 characters",
    ),
    "a number at the end": ("a.1", "'a.1' is not a DNS name: its last label is a number"),
    "nothing": (None, "must be text, not nothing"),
    "a number": (1.5, "must be text, not 1.5; put it in quotes"),
    "an empty text": ("", "'' is not a DNS name: a label is empty"),
}


@pytest.mark.parametrize(("name", "expected"), NAMES.values(), ids=NAMES)
def test_a_wrong_dns_name_gets_one_sentence(name: object, expected: str) -> None:
    """It says what is wrong with that very name, and which one it is."""
    said = complaint(with_change([*SHOP, "dnsNames"], ["good.example", name]))
    assert said == f"certificates[0].dnsNames[1]: {expected}"


def test_a_dns_name_has_at_most_253_characters() -> None:
    """The limit is of the name as a whole; what is shown of it is cut short."""
    longest = ".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])
    assert len(longest) == 253
    parse(with_change([*SHOP, "dnsNames"], [longest]), {})
    said = complaint(with_change([*SHOP, "dnsNames"], [longest + "d"]))
    assert said.endswith("... is longer than the 253 characters of a DNS name")
    assert len(said) < 200


def test_a_window_that_cannot_be_read_is_told_by_its_path() -> None:
    """Its words are read where the daemon is, so `config check` and every start look."""
    windows = [{"cron": "0 2 * * 1", "duration": "1h"}, {"cron": "0 2 1 * 1", "duration": "1h"}]
    config = parse(with_change(["certificates", 0, "rolloutWindows"], windows), {})
    with pytest.raises(ConfigurationError) as caught:
        cli._check_windows(config)
    assert str(caught.value).startswith("certificates[0].rolloutWindows[1]: '0 2 1 * 1'")
