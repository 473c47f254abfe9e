"""The probes of the kubelet."""

from collections.abc import Iterator
from http.client import HTTPConnection

import pytest

from certbaton.web.health import Health, HealthServer


class World:
    """What the two checks say."""

    live = Health(True, "the last tick began 3 s ago")
    ready = Health(False, "the caches are not filled yet")


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def server(world: World) -> Iterator[HealthServer]:
    server = HealthServer(0, lambda: world.live, lambda: world.ready, address="127.0.0.1")
    server.start()
    yield server
    server.close()


def get(server: HealthServer, path: str) -> tuple[int, str]:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_a_probe_gets_a_status_and_a_sentence(server: HealthServer, world: World) -> None:
    """200 where the check is content, 503 where it is not, and the sentence in both."""
    assert get(server, "/healthz") == (200, "the last tick began 3 s ago\n")
    assert get(server, "/readyz") == (503, "the caches are not filled yet\n")
    world.live = Health(False, "the running tick began 40 min ago")
    world.ready = Health(True, "ready")
    assert get(server, "/healthz") == (503, "the running tick began 40 min ago\n")
    assert get(server, "/readyz") == (200, "ready\n")


def test_there_is_nothing_else(server: HealthServer) -> None:
    """Other paths are 404."""
    assert get(server, "/") == (404, "not found\n")
    assert get(server, "/healthz/x") == (404, "not found\n")


def test_a_check_that_raises_is_not_ok() -> None:
    """500 fails the probe too, and the server goes on."""

    def broken() -> Health:
        raise RuntimeError

    server = HealthServer(0, broken, lambda: Health(True, "ready"), address="127.0.0.1")
    server.start()
    try:
        assert get(server, "/healthz") == (500, "failed\n")
        assert get(server, "/readyz") == (200, "ready\n")
    finally:
        server.close()
