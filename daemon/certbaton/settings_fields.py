"""
What the configuration's models are made of: durations, names, and a strict section.
"""

from __future__ import annotations

import ipaddress
import re
from datetime import timedelta
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel

# A version's name is <certificate>-<8>-<10> and has to fit a label (63).
MAX_CERTIFICATE_NAME = 42

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d))+")
_LONGEST = timedelta(days=3660)
LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
CERTIFICATE_NAME = re.compile(f"^[a-z0-9]([a-z0-9-]{{0,{MAX_CERTIFICATE_NAME - 2}}}[a-z0-9])?$")
# What a schema can say of a DNS name; the rest is said in words. A letter is one of ASCII, or
# anything beyond it; Go, which helm is written in, knows no escapes but these.
_LETTER = r"[^\x00-\x2f\x3a-\x40\x5b-\x60\x7b-\x7f]"
_INNER = r"[^\x00-\x2c\x2e\x2f\x3a-\x40\x5b-\x60\x7b-\x7f]"
DNS_NAME = rf"^(\*\.)?({_LETTER}({_INNER}*{_LETTER})?\.)+{_INNER}*{_LETTER}$"
HOST = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(?:\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*")
_OBJECT_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")


def is_address(value: str) -> bool:
    """Say whether *value* is an IP address."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def _read_duration(value: object) -> object:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, str) and len(value) <= 32 and _DURATION.fullmatch(value):
        parts = re.findall(r"([0-9.]+)(ms|s|m|h|d)", value)
        seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
        if seconds > _LONGEST.total_seconds():
            raise ValueError(f"{value!r} is longer than ten years")
        return timedelta(seconds=seconds)
    raise ValueError(f"{shown(value)} is not a duration; write for example 30s, 10m, 1h30m or 7d")


def _not_zero(value: timedelta) -> timedelta:
    if not value:
        raise ValueError("must be longer than zero")
    return value


def write_duration(value: timedelta) -> str:
    """Write *value* as the file has it: 30s, 10m, 7d."""
    seconds = value.total_seconds()
    for unit in ("d", "h", "m", "s"):
        if seconds and seconds % _UNITS[unit] == 0:
            return f"{int(seconds // _UNITS[unit])}{unit}"
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"


# A duration that may be zero, where that switches something off, and one that may not.
Duration = Annotated[
    timedelta,
    BeforeValidator(_read_duration),
    PlainSerializer(write_duration),
    WithJsonSchema({"type": "string", "pattern": f"^{_DURATION.pattern}$"}),
]
Pause = Annotated[Duration, AfterValidator(_not_zero)]


def shown(value: object) -> str:
    """Show *value* to whoever wrote it in the file; what holds other values by its kind only."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "keys and values"
    if isinstance(value, list):
        return "a list"
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def not_text(value: object) -> str:
    """Say that *value* should have been text."""
    quotes = "" if value is None or isinstance(value, dict | list) else "; put it in quotes"
    return f"must be text, not {shown(value)}{quotes}"


def as_text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(not_text(value))
    return value


def as_object_name(value: object) -> str:
    name = as_text(value)
    if not _OBJECT_NAME.fullmatch(name):
        raise ValueError(
            f"{shown(name)} is not a name that Kubernetes takes: lower-case letters, digits, "
            "inner hyphens and dots, at most 253 of them"
        )
    return name


ObjectName = Annotated[
    str,
    BeforeValidator(as_object_name),
    WithJsonSchema({"type": "string", "pattern": f"^{_OBJECT_NAME.pattern}$"}),
]
Text = Annotated[str, Field(min_length=1, max_length=1024)]
Port = Annotated[int, Field(ge=1, le=65535)]


class Section(BaseModel):
    # Strict, as the JSON schema is: "8089" is no port, and 1 is not true.
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        alias_generator=to_camel,
        validate_by_name=False,
        validate_by_alias=True,
    )
