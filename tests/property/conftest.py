"""Quiet: thousands of runs would log every turn."""

from __future__ import annotations

import pytest

from certbaton import telemetry


@pytest.fixture(autouse=True, scope="session")
def _quiet() -> None:
    telemetry.configure("error", "json")
