"""Helm on its own for what is rendered, and one control plane for what is installed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab import build
from lab.controlplane import ControlPlane
from lab.process import LabError

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "certbaton"

HTTP01 = {"web": {"type": "http-01"}}
SHOP = {
    "name": "shop",
    "dnsNames": ["shop.example.com"],
    "issuer": "letsencrypt",
    "solver": "web",
    "services": [{"namespace": "shop", "name": "web"}],
}

Render = Callable[..., dict[tuple[str, str], dict[str, Any]]]
Helm = Callable[..., str]


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Run helm without a cluster and give what it prints; LabError if it refuses."""
    binary = build.ensure("helm")["helm"]
    home = tmp_path_factory.mktemp("helm")
    environ = {"PATH": os.environ.get("PATH", ""), "HOME": str(home)}
    environ |= {f"HELM_{name}_HOME": str(home / name) for name in ("CACHE", "CONFIG", "DATA")}

    def run(*args: str | Path, values: object = None) -> str:
        extra = [] if values is None else ["--values", "-"]
        done = subprocess.run(
            [binary, *args, *extra],
            input=yaml.safe_dump(values),
            capture_output=True,
            text=True,
            env=environ,
            timeout=60,
            check=False,
        )
        if done.returncode != 0:
            raise LabError(f"helm {args[0]}: {done.stderr}{done.stdout}")
        return done.stdout

    return run


@pytest.fixture(scope="session")
def render(helm: Helm) -> Render:
    """The objects of a release by kind and name; values are the keyword arguments."""

    def objects(release: str = "certbaton", **values: Any) -> dict[tuple[str, str], dict[str, Any]]:
        text = helm("template", release, CHART, "--namespace", "tls", values=values)
        return {
            (item["kind"], item["metadata"]["name"]): item
            for item in yaml.safe_load_all(text)
            if item
        }

    return objects


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """A real API server, the same for all tests; each takes a namespace of its own."""
    with ControlPlane() as plane:
        yield plane
