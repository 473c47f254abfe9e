"""config/: the default file, the examples and the schema agree with the models."""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Iterator
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from pydantic import BaseModel

from certbaton.config import json_schema, parse
from certbaton.settings import Config
from certbaton.settings_certificates import CertificateConfig
from certbaton.settings_fields import write_duration
from certbaton.solvers import rfc2136

FOLDER = Path(__file__).resolve().parents[2] / "config"
DEFAULT = FOLDER / "default.yaml"
EXAMPLES = sorted((FOLDER / "examples").glob("*.yaml"))
# Every key that has no default, and what the chart has too.
WITHOUT_DEFAULT = {"directory", "type", "server", "namespace", "name", "dnsNames", "issuer"}
WITHOUT_DEFAULT |= {"issuers", "secretName", "solver", "rfc2136", "cron", "duration"}


def uncommented() -> str:
    """default.yaml with its examples: lines that begin with # and no blank, or two."""
    lines = DEFAULT.read_text().splitlines()
    return "\n".join(
        line if re.match(r"#( \S|$)", line) else line.removeprefix("#") for line in lines
    )


def schema() -> dict[str, Any]:
    read: dict[str, Any] = json.loads((FOLDER / "schema.json").read_text())
    return read


def complaints(document: object) -> list[str]:
    return [error.message for error in Draft202012Validator(schema()).iter_errors(document)]


def models(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in models(part)]


def model_shown_elsewhere(name: str) -> bool:
    """The default of the same key for all certificates; its form is shown at a certificate."""
    return name in CertificateConfig.model_fields


def leaves(section: type[BaseModel], here: list[Any], path: str) -> Iterator[tuple[str, Any, Any]]:
    """Path, default and value in each of *here* for every key that holds no further ones."""
    for name, field in section.model_fields.items():
        key = field.alias or name
        found = [given[key] for given in here if key in given]
        below = models(field.annotation)
        if not below:
            default = None if field.is_required() else field.get_default()
            yield f"{path}.{key}", default, found
        if found == [[]] and model_shown_elsewhere(name):
            continue
        for model in below:
            entries = [entry for value in found for entry in _entries(field.annotation, value)]
            kind = model.model_fields.get("type")
            if kind is not None:
                words = typing.get_args(kind.annotation)
                entries = [entry for entry in entries if entry["type"] in words]
            yield from leaves(model, entries, f"{path}.{key}")


def _entries(annotation: object, value: Any) -> list[Any]:
    if typing.get_origin(annotation) is dict:
        return list(value.values())
    return value if isinstance(value, list) else [value]


def plain(value: Any) -> Any:
    if isinstance(value, timedelta):
        return write_duration(value)
    if isinstance(value, Enum):
        return value.value
    return [plain(item) for item in value] if isinstance(value, list) else value


KEYS = {
    path.removeprefix("."): (default, found)
    for path, default, found in leaves(Config, [yaml.safe_load(uncommented())], "")
}


def test_the_schema_is_the_one_of_the_models() -> None:
    """`python -m certbaton.config > config/schema.json` brings it up to date."""
    assert (FOLDER / "schema.json").read_text() == json_schema()


def test_the_schema_is_a_schema() -> None:
    """It keeps to its own meta-schema."""
    Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("path", KEYS)
def test_the_default_file_has_every_key_with_its_default(path: str) -> None:
    """Keys without a default have an example, in a comment where nothing is asked for."""
    default, found = KEYS[path]
    assert found, f"config/default.yaml lacks {path}"
    if path.rsplit(".", 1)[-1] in WITHOUT_DEFAULT:
        return
    for value in found:
        if isinstance(default, float):
            assert value == pytest.approx(default, rel=2e-3)
        else:
            assert value == plain(default)


def test_the_default_file_explains_every_key() -> None:
    """Above a key, or above the first of its group, stands a comment."""
    lines = DEFAULT.read_text().splitlines()
    blank = [number for number, line in enumerate(lines) if not line.strip()]
    for number in blank:
        assert lines[number + 1].startswith("# "), f"line {number + 2} begins without a comment"


@pytest.mark.parametrize("text", [DEFAULT.read_text(), uncommented()], ids=["as it is", "all on"])
def test_the_default_file_is_valid(text: str) -> None:
    """As it is, and with every example in it uncommented."""
    parse(text, {})
    assert complaints(yaml.safe_load(text)) == []


def test_the_default_file_names_the_override_of_the_example() -> None:
    """The environment variable in the comment is the one that works."""
    name = "CERTBATON_SOLVERS_DNS_RFC2136_TSIGSECRETFILE"
    assert name in DEFAULT.read_text()
    text = uncommented().replace("tsigKeyName: null", "tsigKeyName: k.")
    solver = parse(text, {name: "/elsewhere"}).solvers["dns"]
    assert solver.type == "dns-01"
    assert solver.rfc2136.tsig_secret_file == "/elsewhere"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_are_valid(path: Path) -> None:
    """By the parser and by the schema."""
    parse(path.read_text(), {})
    assert complaints(yaml.safe_load(path.read_text())) == []


def test_the_examples_show_what_they_are_for() -> None:
    """http-01 with one Service, a wildcard over dns-01, two namespaces with one certificate."""
    read = {path.stem: parse(path.read_text(), {}) for path in EXAMPLES}
    assert read["http-01"].solvers["web"].type == "http-01"
    assert any(name.startswith("*.") for name in read["dns-01-wildcard"].certificates[0].dns_names)
    assert len({item.namespace for item in read["shared"].certificates[0].services}) == 2


def sections(document: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(document, dict):
        yield path or "the top", document
        for key, value in document.items():
            yield from sections(value, f"{path}.{key}")
    if isinstance(document, list):
        for value in document:
            yield from sections(value, f"{path}[]")


def test_the_schema_refuses_an_unknown_key_in_every_section() -> None:
    """Names of issuers and solvers are free, if they are names."""
    document = yaml.safe_load(uncommented())
    for where, section in sections(document):
        section["Un known"] = 1
        assert complaints(document), where
        del section["Un known"]
    assert complaints(document) == []


WRONG: dict[str, str] = {
    "a port as text": "healthPort: '80'",
    "a duration without a unit": "probeTimeout: 10",
    "an unknown word": "logLevel: loud",
    "a solver without a type": "solvers: {web: {port: 80}}",
    "an unknown type": "solvers: {web: {type: foo}}",
    "another type's key": "solvers: {web: {type: http-01, rfc2136: {server: a}}}",
    "a name with a dot": "certificates: [{name: a.b, dnsNames: [a.b], issuer: a, solver: b}]",
    "no names": "certificates: [{name: a, dnsNames: [], issuer: a, solver: b}]",
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_the_schema_refuses_what_the_parser_refuses(text: str) -> None:
    """As far as a schema can."""
    assert complaints(yaml.safe_load(text))


def test_every_algorithm_of_the_models_is_known_to_the_provider() -> None:
    """A configuration that passes the check starts."""
    algorithms = schema()["$defs"]["Rfc2136Config"]["properties"]["tsigAlgorithm"]["enum"]
    for algorithm in algorithms:
        rfc2136.build(
            {
                "server": "a",
                "tsigKeyName": "k.",
                "tsigSecretFile": "/s",
                "tsigAlgorithm": algorithm,
            }
        )
