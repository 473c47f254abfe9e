"""Worlds that the end-to-end tests of one file share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.oci.faults import Faults
from lab.world import World


@pytest.fixture(scope="module")
def calm_world() -> Iterator[World]:
    """Certificates that live long, a quick cloud controller, the chart installed."""
    with World(
        lifetime=3600, poll_interval=0.2, interruption=0.1, workers=3, faults=Faults()
    ) as world:
        world.install(world.configuration())
        yield world
