"""A cluster in memory for every test of this folder."""

from __future__ import annotations

import pytest

from certbaton.cluster.store import Store
from cluster.builders import INSTANCE, NOW
from fakes.kube import FakeApi


@pytest.fixture
def api() -> FakeApi:
    return FakeApi(now=lambda: NOW)


@pytest.fixture
def store(api: FakeApi) -> Store:
    """A store that has listed and hears nothing but the answers to its own writes."""
    store = Store(api, INSTANCE)
    store.cache.relist()
    api.requests.clear()
    return store
