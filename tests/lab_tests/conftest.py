"""One calm Pebble for a module, and a proxy with Boulder's manners in front of it for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ca.pebble_world import Answers
from lab.boulder import Boulder
from lab.pebble import Pebble


@pytest.fixture(scope="module")
def answers() -> Iterator[Answers]:
    server = Answers()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def calm(answers: Answers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    with Pebble(tmp_path_factory.mktemp("calm"), http_port=answers.port) as pebble:
        yield pebble


@pytest.fixture
def boulder(calm: Pebble) -> Iterator[Boulder]:
    """Fails in the end when a limit was hit, unless the test sets `may_hit_limits`."""
    with Boulder(calm) as proxy:
        yield proxy
