"""What a good configuration means, and that no text at all gets out of hand."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from certbaton.config import env_name, json_schema, parse
from certbaton.errors import ConfigurationError
from certbaton.model import Instance, KeyType, ObjectRef, Policy, ProbeSpec
from certbaton.settings import Config
from certbaton.settings_fields import write_duration
from certbaton.settings_policy import PolicyConfig

TEXT = """
issuers:
  le:
    directory: https://ca.example/directory
    email: ops@example.com
    profile: shortlived
    caBundle: /ca.pem
    timeout: 10s
solvers:
  web: {type: http-01}
  dns: {type: dns-01, rfc2136: {server: ns.example, tsigKeyName: k., tsigSecretFile: /secret}}
certificates:
  - name: wild
    dnsNames: ["*.Shop.Example", shop.example]
    issuer: le
    solver: dns
    keyType: P-256
    services:
      - namespace: shop
        name: web
        sslPorts: false
        httpsPort: false
        probe: {address: 192.0.2.1, port: 8443, serverName: a.shop.example}
  - {name: blog, dnsNames: [blog.example], issuer: le, solver: web}
"""


def secret_file(config: Config) -> str | None:
    solver = config.solvers["dns"]
    assert solver.type == "dns-01"
    return solver.rfc2136.tsig_secret_file


def test_an_empty_file_is_a_configuration_with_nothing_to_do() -> None:
    """Each key works when absent, and the policy is the core's own."""
    config = parse("", {})
    assert config.specs() == ()
    assert config.policy.policy() == Policy()
    assert config.instance_id() == Instance("certbaton", "certbaton")
    assert parse("# nothing\n", {}) == config


def test_certificates_become_specifications_sorted_by_name() -> None:
    """With names in lower case and sorted, and all that the issuer says."""
    blog, wild = parse(TEXT, {}).specs()
    assert (blog.name, wild.name) == ("blog", "wild")
    assert wild.names == ("*.shop.example", "shop.example")
    assert wild.key_type is KeyType.EC_P256
    assert blog.key_type is KeyType.RSA_2048
    assert wild.issuer.timeout == timedelta(seconds=10)
    assert (wild.issuer.email, wild.issuer.profile) == ("ops@example.com", "shortlived")
    (service,) = wild.services
    assert service.ref == ObjectRef("shop", "web")
    assert (service.set_ssl_ports, service.add_https_port) == (False, False)
    assert service.probe == ProbeSpec("192.0.2.1", 8443, "a.shop.example")


def test_the_environment_says_which_instance_it_is() -> None:
    """The chart sets both; they go before the file."""
    env = {"CERTBATON_RELEASE": "second", "CERTBATON_NAMESPACE": "tls"}
    config = parse("instance: {release: first}", env)
    assert config.instance_id() == Instance("second", "tls")


def test_the_environment_overrides_the_paths_of_secrets_files() -> None:
    """The variable is named after the key path, and goes before the file."""
    name = "CERTBATON_SOLVERS_DNS_RFC2136_TSIGSECRETFILE"
    assert env_name("solvers.dns.rfc2136.tsigSecretFile") == name
    assert secret_file(parse(TEXT, {})) == "/secret"
    assert secret_file(parse(TEXT, {name: "/other"})) == "/other"


def test_the_environment_can_name_a_secrets_file_that_the_configuration_does_not() -> None:
    """The file then needs only the rest of the key."""
    text = TEXT.replace(", tsigSecretFile: /secret", "")
    name = "CERTBATON_SOLVERS_DNS_RFC2136_TSIGSECRETFILE"
    with pytest.raises(ConfigurationError, match="tsigSecretFile: this key is required"):
        parse(text, {})
    assert secret_file(parse(text, {name: "/other"})) == "/other"


def test_the_environment_overrides_nothing_else() -> None:
    """No other variable, and no other key."""
    env = {"CERTBATON_WORKERS": "9", "CERTBATON_ISSUERS_LE_EMAIL": "a@b.example"}
    assert parse(TEXT, env) == parse(TEXT, {})


def test_an_override_changes_its_own_path_alone() -> None:
    """Also where YAML lets two solvers share one value."""
    text = (
        "solvers:\n"
        "  dns: &dns {type: dns-01, rfc2136: {server: a, tsigKeyName: k., tsigSecretFile: /s}}\n"
        "  more: *dns\n"
    )
    config = parse(text, {"CERTBATON_SOLVERS_MORE_RFC2136_TSIGSECRETFILE": "/other"})
    assert secret_file(config) == "/s"


DURATIONS = {
    "30s": timedelta(seconds=30),
    "1h30m": timedelta(hours=1, minutes=30),
    "7d": timedelta(days=7),
    "250ms": timedelta(milliseconds=250),
    "1.5h": timedelta(minutes=90),
    "0s": timedelta(0),
}


@pytest.mark.parametrize(("text", "expected"), DURATIONS.items(), ids=DURATIONS)
def test_durations_are_numbers_with_units(text: str, expected: timedelta) -> None:
    """One or several, biggest first by custom, and zero where it switches something off."""
    assert parse(f"policy: {{retentionCeiling: {text}}}", {}).policy.retention_ceiling == expected


@settings(deadline=None)
@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=3650)))
def test_durations_are_read_as_they_are_written(value: timedelta) -> None:
    """To the microsecond."""
    text = write_duration(value)
    read = parse(f"policy: {{retentionCeiling: {text}}}", {}).policy.retention_ceiling
    assert abs(read - value) <= timedelta(microseconds=1)


def test_the_policy_has_every_number_of_the_core() -> None:
    """None can be set in the core alone."""
    assert set(PolicyConfig.model_fields) == set(Policy.__dataclass_fields__)


SCHEMA = json.loads(json_schema())
WORDS = sorted(
    {key for section in SCHEMA["$defs"].values() for key in section.get("properties", {})}
    | set(SCHEMA["properties"])
    | {
        "http-01",
        "dns-01",
        "[key]",
        "le",
        "web",
        "a.example",
        "30s",
        "*.a.example",
        "https://a.example/",
    }
)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.sampled_from(WORDS)
)
KEYS = st.one_of(st.sampled_from(WORDS), st.text(), st.integers(), st.none())
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=30,
)


def mutated(draw: st.DrawFn) -> Any:
    """A good document with one value exchanged for anything."""
    document = yaml.safe_load(TEXT)
    here: Any = document
    while True:
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        key = draw(st.sampled_from(keys))
        if not isinstance(here[key], dict | list) or not here[key] or draw(st.booleans()):
            here[key] = draw(DOCUMENTS)
            return document
        here = here[key]


def check(text: str) -> None:
    try:
        parse(text, {})
    except ConfigurationError as error:
        said = str(error)
        assert error.where
        assert said.startswith(f"{error.where}: ")
        assert "\n" not in said.removeprefix(error.where)
        assert "pydantic" not in said


@settings(deadline=None)
@given(DOCUMENTS)
def test_any_document_parses_or_is_refused_in_one_sentence(document: object) -> None:
    """Never another exception."""
    check(yaml.safe_dump(document, allow_unicode=True))


@settings(deadline=None)
@given(st.composite(mutated)())
def test_a_good_document_with_one_wrong_value_is_refused_in_one_sentence(document: object) -> None:
    """Or parses, if the value happens to be right."""
    check(yaml.safe_dump(document))


@settings(deadline=None)
@given(st.text())
def test_any_text_parses_or_is_refused_in_one_sentence(text: str) -> None:
    """Surrogates, control characters, whatever."""
    check(text)


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(
            [*"{}[]:,-?!&*|>'\"%@`#\n\t ~<=.", "\n  ", ": ", "- ", "<<: ", "&a ", "*a ", "!!int ",
             "!!timestamp ", "!!binary ", "!!set ", "!!omap ", "!!bool ", "!!null ", "---\n",
             "1", "0x", "1:30", "2026-99-99", "solvers", "issuers", "a"]
        ),
        max_size=20,
    )
)  # fmt: skip
def test_any_scraps_of_yaml_parse_or_are_refused_in_one_sentence(scraps: list[str]) -> None:
    """Tags, anchors, merges, sexagesimal numbers and dates that are none."""
    check("".join(scraps))


def test_a_yaml_bomb_is_refused_quickly() -> None:
    """Nine levels of nine aliases each are 400 million values, if anybody counts them."""
    lines = ["a0: &a0 {k: 1}"]
    for level in range(1, 10):
        keys = ", ".join(f"k{number}: *a{level - 1}" for number in range(9))
        lines.append(f"a{level}: &a{level} {{{keys}}}")
    with pytest.raises(ConfigurationError):
        parse("\n".join(lines), {})
