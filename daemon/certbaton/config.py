"""
The configuration file: YAML in, specifications and a policy out.

Unknown keys are refused by name; every error is one sentence that begins with
the path of the key. Nothing here reads the cluster or the network.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from certbaton.errors import ConfigurationError
from certbaton.model import ObjectRef
from certbaton.settings import Config


def _cross_check(config: Config) -> None:
    """Refuse what no single key can show: names that point nowhere, things named twice."""
    names: dict[str, str] = {}
    claimed: dict[ObjectRef, str] = {}
    for index, item in enumerate(config.certificates):
        where = f"certificates[{index}]"
        if item.name in names:
            raise ConfigurationError(
                f"{item.name!r} is already the name of {names[item.name]}", where=f"{where}.name"
            )
        names[item.name] = where
        if item.issuer not in config.issuers:
            raise ConfigurationError(
                f"there is no issuer {item.issuer!r}; {_known(config.issuers)}",
                where=f"{where}.issuer",
            )
        solver = config.solvers.get(item.solver)
        if solver is None:
            raise ConfigurationError(
                f"there is no solver {item.solver!r}; {_known(config.solvers)}",
                where=f"{where}.solver",
            )
        for place, name in enumerate(item.dns_names):
            if name.startswith("*.") and solver.type != "dns-01":
                raise ConfigurationError(
                    f"{name!r} is a wildcard, which a CA only validates by dns-01, and solver "
                    f"{item.solver!r} is {solver.type}",
                    where=f"{where}.dnsNames[{place}]",
                )
        for place, service in enumerate(item.services):
            ref = ObjectRef(service.namespace, service.name)
            if ref in claimed:
                raise ConfigurationError(
                    f"Service {ref} is already served by {claimed[ref]}; a listener has one "
                    "certificate, so put all names on one",
                    where=f"{where}.services[{place}]",
                )
            claimed[ref] = where


def _known(section: Mapping[str, object]) -> str:
    return f"known are {', '.join(sorted(section))}" if section else "none is configured"


def _path(location: tuple[int | str, ...], raw: object) -> str:
    """Write pydantic's location as a key path, without its names of union members."""
    path = ""
    here: Any = raw
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
            here = here[part] if isinstance(here, list) and part < len(here) else None
        elif part == "[key]" or (
            part in ("http-01", "dns-01") and not (isinstance(here, dict) and part in here)
        ):
            continue
        else:
            path += f".{part}" if path else part
            here = here.get(part) if isinstance(here, dict) else None
    return path


def _sentence(error: Mapping[str, Any]) -> str:
    kind, message = error["type"], str(error["msg"])
    if kind == "extra_forbidden":
        return "unknown key; see config/default.yaml for all keys"
    if kind == "missing":
        return "this key is required"
    message = message.removeprefix("Value error, ")
    if kind == "value_error":
        return message
    return f"{message[:1].lower()}{message[1:]} (it is {error.get('input')!r:.80})"


def env_name(path: str) -> str:
    """Name the environment variable that overrides the file path at key *path*."""
    return "CERTBATON_" + re.sub(r"[^A-Z0-9]+", "_", path.upper()).strip("_")


def _override_files(raw: object, env: Mapping[str, str], path: str = "") -> None:
    """Let the environment say where the files with secrets lie (keys that end in ``File``)."""
    if not isinstance(raw, dict):
        return
    if isinstance(raw.get("rfc2136"), dict):
        raw["rfc2136"].setdefault("tsigSecretFile", None)
    for key, value in raw.items():
        here = f"{path}.{key}" if path else str(key)
        if str(key).endswith("File") and env_name(here) in env:
            raw[key] = env[env_name(here)]
        else:
            _override_files(value, env, here)


def parse(text: str, env: Mapping[str, str] | None = None) -> Config:
    """
    Read a configuration from YAML *text*.

    *env* (default: the process's) may override paths of secrets' files, and
    the instance by ``CERTBATON_RELEASE`` and ``CERTBATON_NAMESPACE``. Raises
    ConfigurationError with one sentence that begins with a key path.
    """
    env = os.environ if env is None else env
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        line = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "the file"
        problem = getattr(exc, "problem", None) or "not YAML"
        raise ConfigurationError(f"this is not YAML: {problem}", where=line) from None
    raw = {} if raw is None else raw
    if not isinstance(raw, dict):
        raise ConfigurationError(
            f"the file must hold keys and values, not a {type(raw).__name__}", where="the file"
        )
    _override_files(raw, env)
    instance = raw.setdefault("instance", {})
    if isinstance(instance, dict):
        for key in ("release", "namespace"):
            if f"CERTBATON_{key.upper()}" in env:
                instance[key] = env[f"CERTBATON_{key.upper()}"]
    try:
        config = Config.model_validate(raw)
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        raise ConfigurationError(_sentence(first), where=_path(first["loc"], raw)) from None
    _cross_check(config)
    return config


def load(path: Path, env: Mapping[str, str] | None = None) -> Config:
    """Read the file at *path*; see `parse`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(
            f"cannot be read ({exc.__class__.__name__}); give its path with --config",
            where=str(path),
        ) from exc
    return parse(text, env)


def json_schema() -> str:
    """Give the JSON schema of the file, as ``config/schema.json`` holds it."""
    schema = Config.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "certbaton configuration"
    return json.dumps(schema, indent=2) + "\n"
