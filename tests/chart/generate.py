"""
What the chart has from elsewhere: the configuration's schema, and its README's table of values.

``python tests/chart/generate.py`` writes both; a test says when they are stale.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

from certbaton.config import json_schema

CHART = Path(__file__).resolve().parents[2] / "helm" / "certbaton"
README = CHART / "README.md"
SCHEMA = CHART / "values.schema.json"

_TABLE = re.compile(r"(<!-- values: .*? -->\n).*(<!-- end of values -->\n)", re.DOTALL)


def values_schema() -> str:
    """values.schema.json with the newest schema of the configuration in it."""
    schema = json.loads(SCHEMA.read_text())
    config = json.loads(json_schema())
    for key in ("$schema", "title"):
        del config[key]
    schema["$defs"] = config.pop("$defs")
    # The chart says which instance it is, by environment variables.
    del config["properties"]["instance"]
    del schema["$defs"]["InstanceConfig"]
    schema["properties"]["config"] = config
    return json.dumps(schema, indent=2) + "\n"


def readme() -> str:
    """README.md with the newest table of values in it."""
    rows = ["", "| value | default | what |", "| --- | --- | --- |"]
    rows += [f"| `{path}` | {default} | {text} |" for path, default, text in described()]
    table = "\n".join([*rows, "", ""])
    return _TABLE.sub(lambda found: found[1] + table + found[2], README.read_text())


def described() -> list[tuple[str, str, str]]:
    """Path, default and description of each value that has a comment ``# --`` above it."""
    text = (CHART / "values.yaml").read_text()
    values = yaml.safe_load(text)
    found: list[tuple[str, str, str]] = []
    path: list[str] = []
    description = shown = ""
    for line in text.splitlines():
        if match := re.match(r"\s*# -- (.*)", line):
            description = match[1]
        elif match := re.match(r"\s*# @default -- (.*)", line):
            shown = match[1]
        elif match := re.match(r"( *)(\w+):", line):
            path = [*path[: len(match[1]) // 2], match[2]]
            if description:
                here: Any = values
                for part in path:
                    here = here[part]
                found.append((".".join(path), shown or f"`{json.dumps(here)}`", description))
            description = shown = ""
    return found


if __name__ == "__main__":
    SCHEMA.write_text(values_schema())
    README.write_text(readme())
    sys.exit(0)
