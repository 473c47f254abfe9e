"""The http-01 server: exact, small, and not to be blocked."""

import logging
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from certbaton.errors import ConfigurationError, SolverNotReady
from certbaton.httpd import HttpServer, answer
from certbaton.solvers.http01 import Http01Solver
from solvers.worlds import challenge, fetch

PATH = "/.well-known/acme-challenge/"
TOKEN = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"
ONE = challenge("http-01", "a.example", TOKEN)


@pytest.fixture
def solver() -> Iterator[Http01Solver]:
    solver = Http01Solver(address="127.0.0.1", port=0)
    solver.start()
    solver.present(ONE)
    yield solver
    solver.close()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=5)


def test_the_answer_is_the_key_authorization_alone(solver: Http01Solver) -> None:
    """200, text/plain, its exact bytes, and no word about the server."""
    status, headers, body = fetch(solver.port, PATH + TOKEN)
    assert (status, body) == (200, ONE.value.encode())
    assert headers["Content-Type"].startswith("text/plain")
    assert headers["Content-Length"] == str(len(ONE.value))
    assert "Server" not in headers
    assert "Via" not in headers


def test_head_is_get_without_body(solver: Http01Solver) -> None:
    """HEAD has the same status and length."""
    status, headers, body = fetch(solver.port, PATH + TOKEN, "HEAD")
    assert (status, body) == (200, b"")
    assert headers["Content-Length"] == str(len(ONE.value))


@pytest.mark.parametrize(
    "path",
    [
        "/",
        PATH,
        PATH + "other",
        PATH + TOKEN[:-1],
        PATH + TOKEN + "/",
        PATH + "../acme-challenge/" + TOKEN,
        PATH.upper() + TOKEN,
        "/" + TOKEN,
        "/metrics",
    ],
)
def test_everything_else_is_404(solver: Http01Solver, path: str) -> None:
    """What it does not know has an answer too, without a word about the server."""
    status, headers, body = fetch(solver.port, path)
    assert (status, body) == (404, b"not found\n")
    assert "Server" not in headers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_are_404(solver: Http01Solver, method: str) -> None:
    """A token is only ever read."""
    assert fetch(solver.port, PATH + TOKEN, method)[0] == 404


def test_hundreds_of_idle_connections_block_nobody(solver: Http01Solver) -> None:
    """More idle connections than it keeps, some of them half-way through: still at once."""
    with ExitStack() as stack:
        for number in range(400):
            idle = stack.enter_context(connect(solver.port))
            if number % 2:
                idle.sendall(b"GET / HTTP/1.1\r\nHost: ")
        before = time.monotonic()
        for _ in range(5):
            assert fetch(solver.port, PATH + TOKEN)[0] == 200
        assert time.monotonic() - before < 10


def test_a_client_that_trickles_is_closed() -> None:
    """A byte now and then does not keep a connection open."""

    server = HttpServer(
        lambda environ, start_response: answer(environ, start_response, "200 OK", b""),
        name="test",
        address="127.0.0.1",
        port=0,
        patience=0.3,
    )
    server.start()
    try:
        with connect(server.port) as slow:
            slow.settimeout(0.05)
            end = time.monotonic() + 10
            closed = False
            while not closed and time.monotonic() < end:
                try:
                    slow.sendall(b"x")
                    closed = slow.recv(1) == b""
                except TimeoutError:
                    continue
                except OSError:
                    closed = True
            assert closed
    finally:
        server.close()


def test_large_requests_are_cut_short(solver: Http01Solver) -> None:
    """8 KiB of headers is the limit; more is answered by 431 without a word about the server."""
    with connect(solver.port) as client:
        with suppress(OSError):
            client.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000)
        answered = client.recv(4096)
    assert answered.startswith(b"HTTP/1.0 431")
    assert b"aitress" not in answered
    assert b"\r\nServer:" not in answered


def test_no_token_is_logged(solver: Http01Solver, caplog: pytest.LogCaptureFixture) -> None:
    """Neither requests nor clients that go away in the middle leave a token in the log."""
    caplog.set_level(logging.DEBUG)
    request = f"GET {PATH}{TOKEN} HTTP/1.1\r\nHost: a.example\r\n\r\n".encode()
    for _ in range(50):
        with connect(solver.port) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.sendall(request * 3)
    fetch(solver.port, PATH + TOKEN)
    assert TOKEN not in caplog.text


def test_closing_frees_the_port(solver: Http01Solver) -> None:
    """The same port can be had at once, also with connections still open."""
    with connect(solver.port) as idle:
        fetch(solver.port, PATH + TOKEN)
        solver.close()
        assert idle.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            connect(solver.port)
        again = Http01Solver(address="127.0.0.1", port=solver.port)
        again.start()
        again.close()


def test_a_taken_port_is_a_sentence(solver: Http01Solver) -> None:
    """Where the port is in use, the operator is told which."""
    with pytest.raises(ConfigurationError, match=f"cannot listen on .* port {solver.port}"):
        Http01Solver(address="127.0.0.1", port=solver.port).start()


def test_nothing_is_ready_without_the_server(solver: Http01Solver) -> None:
    """A solver whose server does not run says so."""
    solver.close()
    with pytest.raises(SolverNotReady):
        solver.ready(ONE)


def test_by_default_both_families_are_answered() -> None:
    """The default address takes IPv4 and IPv6, where the machine has both."""
    solver = Http01Solver(port=0)
    solver.start()
    try:
        assert fetch(solver.port, PATH)[0] == 404
        if socket.has_dualstack_ipv6():
            socket.create_connection(("::1", solver.port), timeout=5).close()
    finally:
        solver.close()
