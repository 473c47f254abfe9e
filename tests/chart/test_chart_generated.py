"""What stands in the chart and somewhere else too is the same in both."""

from __future__ import annotations

import json
import tomllib

import yaml

from chart import generate
from chart.conftest import CHART, ROOT


def test_the_generated_parts_are_up_to_date() -> None:
    """`python tests/chart/generate.py` brings them there."""
    assert generate.SCHEMA.read_text() == generate.values_schema()
    assert generate.README.read_text() == generate.readme()


def test_every_value_is_described_and_in_the_schema() -> None:
    """The configuration has its own pages."""
    described = {path for path, _, _ in generate.described()}
    schema = json.loads(generate.SCHEMA.read_text())["properties"]
    for key, value in yaml.safe_load((CHART / "values.yaml").read_text()).items():
        assert key in schema
        if schema[key].get("additionalProperties") is False and key not in ("config", "resources"):
            below = schema[key]["properties"]
            assert (
                set(below)
                == {path.split(".")[1] for path in described if path.startswith(f"{key}.")}
                or not value
            )
        else:
            assert key in described


def test_the_versions_are_those_of_the_package() -> None:
    """The chart's default image is the one that it came with."""
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == package["version"]
    assert chart["kubeVersion"].endswith("-0")
    assert chart["annotations"]["artifacthub.io/license"] == package["license"]
