"""A server that answers as a test says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ca.stub import Stub


@pytest.fixture
def stub() -> Iterator[Stub]:
    """One that listens, with nothing to say yet; a file may have another of that name."""
    server = Stub()
    yield server
    server.stop()
