"""
The configuration file: YAML in, specifications and a policy out.

Unknown keys are refused by name; every error is one sentence that begins with
the path of the key. Nothing here reads the cluster or the network.
``python -m certbaton.config`` prints the JSON schema of the file.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.json_schema import GenerateJsonSchema

from certbaton.errors import ConfigurationError
from certbaton.settings import Config
from certbaton.settings_checks import check
from certbaton.settings_fields import not_text, shown, write_duration

# No key lies deeper (solvers.NAME.rfc2136.tsigSecretFile); YAML aliases can go on for ever.
_DEPTH = 6


class _DuplicateKeyError(yaml.MarkedYAMLError):
    """A key stands twice in one mapping."""


class _Loader(yaml.SafeLoader):
    """YAML as the file is meant: no key twice (PyYAML takes the last), no dates."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        first: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.value in first:
                raise _DuplicateKeyError(
                    problem=f"the key {shown(key.value)} stands there twice, first in line "
                    f"{first[key.value]}",
                    problem_mark=key.start_mark,
                )
            first[key.value] = key.start_mark.line + 1
        return node


_Loader.yaml_implicit_resolvers = {
    first: [entry for entry in entries if entry[0] != "tag:yaml.org,2002:timestamp"]
    for first, entries in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _read_yaml(text: str) -> object:
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - it is a SafeLoader
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "the file"
        problem = getattr(exc, "problem", None) or "it has characters that are no text"
        problem = " ".join(problem.split())
        if not isinstance(exc, _DuplicateKeyError):
            problem = f"this is not YAML: {problem}"
        raise ConfigurationError(problem, where=where) from None
    except RecursionError:
        raise ConfigurationError("it is nested too deeply", where="the file") from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        # PyYAML's own constructors: `!!int x`, a number of 5,000 digits.
        raise ConfigurationError(
            "a value does not fit its YAML tag, or is too long a number", where="the file"
        ) from None


def _is_tag(location: tuple[int | str, ...], index: int) -> bool:
    """Whether pydantic's location has a solver's type there, which is no key of the path."""
    return index == 2 and location[0] == "solvers"


def _path(location: tuple[int | str, ...], raw: object) -> str:
    """Write pydantic's location as a key path."""
    path = ""
    here: Any = raw
    for index, part in enumerate(location):
        if isinstance(part, int) and isinstance(here, list):
            path += f"[{part}]"
            here = here[part]
        elif part == "[key]" or _is_tag(location, index):
            continue
        else:
            path += f".{part}" if path else str(part)
            here = here.get(part) if isinstance(here, dict) else None
    return path or "the file"


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


def _siblings(location: tuple[int | str, ...]) -> list[str]:
    """List the keys that could stand in place of the last part of *location*."""
    here: list[type[BaseModel]] = [Config]
    for index, part in enumerate(location[:-1]):
        below = [
            model
            for section in here
            for name, field in section.model_fields.items()
            if part in (name, field.alias)
            for model in _models(field.annotation)
        ]
        if below:
            here = below
        elif _is_tag(location, index):
            here = [m for m in here if part in get_args(m.model_fields["type"].annotation)]
    return [field.alias or name for model in here for name, field in model.model_fields.items()]


def _unknown_key(location: tuple[int | str, ...]) -> str:
    known = _siblings(location)
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    if close:
        return f"unknown key; did you mean {close[0]}?"
    if len(known) <= 12:
        return f"unknown key; known here are {', '.join(known)}"
    return "unknown key; config/default.yaml has all keys"


# Kinds of pydantic's errors: what the sentence says, with the error's own numbers in it.
_SENTENCES = {
    "missing": "this key is required",
    "union_tag_not_found": "this key is required",
    "union_tag_invalid": "{value} is not a solver type; known are dns-01, http-01",
    "string_type": "{text}",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "invalid_key": "a key {text}",
    "int_type": "must be a whole number, not {value}",
    "int_from_float": "must be a whole number, not {value}",
    "int_parsing_size": "{value} is too large a number",
    "float_type": "must be a number, not {value}",
    "finite_number": "must be a number, not {value}",
    "bool_type": "must be true or false, not {value}",
    "dict_type": "must hold keys and values, not {value}",
    "model_type": "must hold keys and values, not {value}",
    "model_attributes_type": "must hold keys and values, not {value}",
    "list_type": "must be a list, not {value}",
    "too_short": "must have at least {min_length} entry",
    "too_long": "must have at most {max_length} entries",
    "greater_than": "must be more than {gt}, not {value}",
    "greater_than_equal": "must be at least {ge}, not {value}",
    "less_than": "must be less than {lt}, not {value}",
    "less_than_equal": "must be at most {le}, not {value}",
    "literal_error": "{value} is not one of {expected}",
    "enum": "{value} is not one of {expected}",
    "recursion_loop": "it contains itself",
}


def _sentence(error: Mapping[str, Any]) -> str:
    kind, message = error["type"], str(error["msg"])
    context = {
        key: f"{value:g}" if isinstance(value, float) else str(value)
        for key, value in error.get("ctx", {}).items()
    }
    if "expected" in context:
        context["expected"] = context["expected"].replace("'", "").replace(" or ", ", ")
    if kind == "extra_forbidden":
        return _unknown_key(error["loc"])
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    if kind in _SENTENCES:
        value = error.get("input")
        return _SENTENCES[kind].format(**context, value=shown(value), text=not_text(value))
    return f"{message[:1].lower()}{message[1:]}, and is {shown(error.get('input'))}"


def _mistake(exc: ValidationError, raw: object) -> ConfigurationError:
    """Turn one of pydantic's errors into our own: a misspelt key explains a missing one."""
    errors = exc.errors(include_url=False)
    first = next((error for error in errors if error["type"] == "extra_forbidden"), errors[0])
    where = _path(first["loc"], raw)
    if first["type"].startswith("union_tag_"):
        where += ".type"
        first["input"] = first["input"].get("type") if isinstance(first["input"], dict) else None
    return ConfigurationError(_sentence(first), where=where)


def env_name(path: str) -> str:
    """Name the environment variable that overrides the file path at key *path*."""
    return "CERTBATON_" + re.sub(r"[^A-Z0-9]+", "_", path.upper()).strip("_")


def _override_files(
    raw: Mapping[Any, Any], env: Mapping[str, str], path: str = "", depth: int = 0
) -> dict[Any, Any]:
    """Give *raw* with the paths of secrets' files (keys that end in ``File``) from *env*."""
    given = dict(raw)
    if path.startswith("solvers.") and path.endswith(".rfc2136"):
        given.setdefault("tsigSecretFile", None)
    for key, value in given.items():
        here = f"{path}.{key}" if path else str(key)
        if str(key).endswith("File") and env_name(here) in env:
            given[key] = env[env_name(here)]
        elif isinstance(value, dict) and depth < _DEPTH:
            given[key] = _override_files(value, env, here, depth + 1)
    return given


def parse(text: str, env: Mapping[str, str] | None = None) -> Config:
    """
    Read a configuration from YAML *text*.

    *env* (default: the process's) may override paths of secrets' files, and
    the instance by ``CERTBATON_RELEASE`` and ``CERTBATON_NAMESPACE``. Raises
    ConfigurationError with one sentence that begins with a key path.
    """
    env = os.environ if env is None else env
    raw = _read_yaml(text)
    raw = {} if raw is None else raw
    if not isinstance(raw, dict):
        raise ConfigurationError(f"must hold keys and values, not {shown(raw)}", where="the file")
    given = _override_files(raw, env)
    instance = given.setdefault("instance", {})
    if isinstance(instance, dict):
        for key in ("release", "namespace"):
            if f"CERTBATON_{key.upper()}" in env:
                instance[key] = env[f"CERTBATON_{key.upper()}"]
    try:
        config = Config.model_validate(given)
    except ValidationError as exc:
        raise _mistake(exc, given) from None
    check(config)
    return config


def load(path: Path, env: Mapping[str, str] | None = None) -> Config:
    """Read the file at *path*; see `parse`."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigurationError("is not a text file in UTF-8", where=str(path)) from None
    except OSError as exc:
        raise ConfigurationError(
            f"cannot be read ({exc.strerror or exc.__class__.__name__}); give the path of the "
            "configuration with --config",
            where=str(path),
        ) from exc
    return parse(text, env)


class _Schema(GenerateJsonSchema):
    """Defaults as the file has them, and no titles made of key names."""

    def encode_default(self, dft: Any) -> Any:
        if isinstance(dft, timedelta):
            return write_duration(dft)
        if isinstance(dft, list):
            return [self.encode_default(item) for item in dft]
        return super().encode_default(dft)

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def json_schema() -> str:
    """Give the JSON schema of the file, as ``config/schema.json`` holds it."""
    schema = Config.model_json_schema(by_alias=True, schema_generator=_Schema)
    for section in ("issuers", "solvers"):
        # pydantic writes what names may look like, and lets all others pass.
        schema["properties"][section]["additionalProperties"] = False
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "certbaton configuration",
    }
    return json.dumps(schema, indent=2) + "\n"


if __name__ == "__main__":
    sys.stdout.write(json_schema())
