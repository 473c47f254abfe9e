"""A place for every test of this folder."""

from __future__ import annotations

import pytest

from commands.place import Place


@pytest.fixture
def place() -> Place:
    return Place()
