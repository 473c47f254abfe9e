"""Quiet, and no echo of what a test provokes."""

from __future__ import annotations

import pytest

from certbaton import telemetry


@pytest.fixture(autouse=True, scope="session")
def _quiet() -> None:
    telemetry.configure("critical", "json")
