"""Lines to a CA: connections that break, hang or never come about, and the end of the process."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any

import pytest
import requests

from ca.stub import Handler, Reply, Stub, json_reply, problem
from certbaton.ca import net
from certbaton.ca.net import Net
from certbaton.ca.traffic import Traffic
from certbaton.errors import CaUnavailable, Stopping
from certbaton.model import KeyType
from certbaton.pki import PrivateKey

KEY = PrivateKey.generate(KeyType.EC_P256)
SOON = 0.3
# Far more than anything here takes, far less than a request's own timeout.
IN_TIME = 5.0


def line(stub: Stub, traffic: Traffic | None = None, **options: Any) -> Net:
    return Net(KEY, f"{stub.url}/account/1", traffic=traffic or Traffic(), **options)


def read(stub: Stub, a_line: Net) -> requests.Response:
    return a_line.signed("order", f"{stub.url}/order", None, f"{stub.url}/newNonce")


def write(stub: Stub, a_line: Net) -> requests.Response:
    return a_line.signed("newOrder", f"{stub.url}/newOrder", {}, f"{stub.url}/newNonce")


def posts(stub: Stub) -> int:
    return sum(each.method == "POST" for each in stub.requests)


def cut(handler: Handler) -> None:
    """End the connection without a word."""
    handler.close_connection = True


def half(handler: Handler) -> None:
    """Begin an answer, and end the connection."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
    handler.close_connection = True


# --- connections ------------------------------------------------------------------------------


def test_requests_share_a_connection(stub: Stub) -> None:
    """One for each thread's line."""
    a_line = line(stub)
    for _ in range(3):
        read(stub, a_line)
    assert len({each.connection for each in stub.requests}) == 1
    read(stub, line(stub))
    assert len({each.connection for each in stub.requests}) == 2


def test_a_connection_that_rested_is_not_used_again(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A firewall forgets it without a word: the request would hang for all of its time."""
    a_line = line(stub)
    read(stub, a_line)
    monkeypatch.setattr(net, "CONNECTION_IDLE", -1.0)
    read(stub, a_line)
    assert len({each.connection for each in stub.requests}) == 2


def test_a_read_whose_connection_was_ended_is_sent_again(stub: Stub) -> None:
    """Servers end connections that rest, sometimes just when one is used."""
    a_line = line(stub)
    read(stub, a_line)
    stub.reply("/order", cut)
    assert read(stub, a_line).status_code == 200
    assert posts(stub) == 3
    assert len({each.connection for each in stub.requests}) == 2


def test_a_read_is_sent_again_once(stub: Stub) -> None:
    """On a new connection it was no rest that ended it."""
    a_line = line(stub)
    read(stub, a_line)
    stub.reply("/order", cut, cut)
    with pytest.raises(CaUnavailable, match="no answer to order"):
        read(stub, a_line)
    assert posts(stub) == 3


@pytest.mark.parametrize("reply", [cut, half])
def test_a_write_is_never_sent_again(stub: Stub, reply: Reply) -> None:
    """It may have been done: a second order would be a second certificate."""
    a_line = line(stub)
    read(stub, a_line)
    stub.reply("/newOrder", reply)
    with pytest.raises(CaUnavailable, match="no answer to newOrder"):
        write(stub, a_line)
    assert [each.path for each in stub.requests].count("/newOrder") == 1


def test_a_read_that_was_answered_in_part_is_not_sent_again(stub: Stub) -> None:
    """It was no resting connection; the next turn asks."""
    a_line = line(stub)
    read(stub, a_line)
    stub.reply("/order", half)
    with pytest.raises(CaUnavailable):
        read(stub, a_line)
    assert posts(stub) == 2


def test_a_lost_write_leaves_a_line_that_works(stub: Stub) -> None:
    """With a new nonce: the old one may be spent."""
    a_line = line(stub)
    read(stub, a_line)
    stub.reply("/newOrder", cut)
    with pytest.raises(CaUnavailable):
        write(stub, a_line)
    assert write(stub, a_line).status_code == 200
    first, second = (each.header["nonce"] for each in stub.requests if each.path == "/newOrder")
    assert first != second


def test_a_write_with_a_stale_nonce_is_sent_again(stub: Stub) -> None:
    """A refusal is an answer: nothing was done."""
    a_line = line(stub)
    fresh = (problem(stub, 400, "badNonce", Replay_Nonce=stub.nonce()) for _ in range(15))
    stub.reply("/newOrder", *fresh)
    assert write(stub, a_line).status_code == 200
    assert sum(each.method == "HEAD" for each in stub.requests) == 1


@contextmanager
def never_answers() -> Iterator[tuple[str, int]]:
    """An address where connecting takes for ever: its queue is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()


def test_connecting_has_a_limit_of_its_own(stub: Stub) -> None:
    """Ten seconds by default, of the thirty that a request has."""
    began = time.monotonic()
    a_line = line(stub, connect_timeout=timedelta(seconds=0.5))
    with never_answers() as (host, port), pytest.raises(CaUnavailable, match="connecting took"):
        a_line.fetch("directory", f"http://{host}:{port}/")
    assert 0.4 < time.monotonic() - began < IN_TIME


def test_an_address_that_never_answers_leaves_time_for_the_next(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken IPv6 route, with IPv4 behind it: half of the time each."""
    port = int(stub.url.rpartition(":")[2])
    with never_answers() as dead:

        def lookup(*asked: object, **more: object) -> list[Any]:
            kind = (socket.AF_INET, socket.SOCK_STREAM, 0, "")
            return [(*kind, dead), (*kind, ("127.0.0.1", port))]

        monkeypatch.setattr(socket, "getaddrinfo", lookup)
        a_line = line(stub, connect_timeout=timedelta(seconds=6))
        began = time.monotonic()
        assert a_line.fetch("directory", f"{stub.url}/directory").status_code == 200
    assert time.monotonic() - began < 5.5


def test_a_host_that_nobody_knows_is_told(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the resolver's words."""

    def lookup(*asked: object, **more: object) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    with pytest.raises(CaUnavailable, match=r"from ca\.test: .*Name or service not known"):
        line(stub).fetch("directory", "https://ca.test/directory")


def test_headers_count_towards_the_answer_s_bound(stub: Stub) -> None:
    """A hundred of the longest that the library takes are six megabytes."""

    def endless(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        for number in range(90):
            handler.wfile.write(b"X-%d: %s\r\n" % (number, b"x" * 60_000))
        handler.wfile.write(b"Content-Length: 2\r\n\r\n{}")

    stub.reply("/order", endless)
    with pytest.raises(CaUnavailable, match="more than 1048576 bytes"):
        read(stub, line(stub))


# --- pace -------------------------------------------------------------------------------------


def test_all_lines_to_one_ca_keep_its_pace_together(stub: Stub) -> None:
    """A CA counts what a process sends, however many threads and accounts that has."""
    traffic = Traffic(rate=10)

    def work() -> None:
        a_line = line(stub, traffic)
        for _ in range(7):
            a_line.fetch("directory", f"{stub.url}/directory")

    began = time.monotonic()
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(stub.requests) == 21
    assert time.monotonic() - began >= 2.0


def backwards() -> Callable[[], float]:
    """A clock by which the second request to the same CA waits for a quarter of an hour."""
    return iter((1000.0, 0.0)).__next__


def test_another_ca_is_not_held_up(stub: Stub) -> None:
    """Each has a pace of its own."""
    traffic = Traffic(rate=1, monotonic=backwards())
    other = Stub()
    try:
        line(stub, traffic).fetch("directory", f"{stub.url}/directory")
        line(other, traffic).fetch("directory", f"{other.url}/directory")
    finally:
        other.stop()
    assert len(stub.requests) == len(other.requests) == 1


# --- the end ----------------------------------------------------------------------------------


def trickle(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    _drip(handler)


def trickle_to_the_end(handler: Handler) -> None:
    """A body that has no length: where it ends, it is over."""
    handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n{}")
    _drip(handler)


def _drip(handler: Handler) -> None:
    for _ in range(300):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.1)


def silence(handler: Handler) -> None:
    handler.connection.recv(1)  # until the client goes
    handler.close_connection = True


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def ended_after(request: Callable[[], object], close: Callable[[], None]) -> tuple[str, float]:
    """What *request* ends with in its thread, and how long after *close*."""
    caught: list[Stopping] = []

    def work() -> None:
        try:
            request()
        except Stopping as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    close()
    began = time.monotonic()
    thread.join(IN_TIME)
    assert not thread.is_alive()
    return str(caught[0]), time.monotonic() - began


@pytest.mark.parametrize("reply", [trickle, trickle_to_the_end, silence])
def test_a_running_request_is_abandoned(stub: Stub, reply: Reply) -> None:
    """A signal came: it has a little time, and not all of its own."""
    traffic = Traffic()
    stub.reply("/order", reply)

    def close() -> None:
        until(lambda: posts(stub))
        traffic.close(SOON)

    words, seconds = ended_after(lambda: read(stub, line(stub, traffic)), close)
    assert words.startswith("order to 127.0.0.1:")
    assert words.endswith(" was abandoned: the process is ending")
    assert SOON - 0.05 < seconds < IN_TIME


def test_a_running_request_may_end(stub: Stub) -> None:
    """Within the grace its answer is taken."""
    traffic = Traffic()

    def close_and_answer(handler: Handler) -> None:
        traffic.close(SOON)
        json_reply(stub, 200, {})(handler)

    stub.reply("/order", close_and_answer)
    assert read(stub, line(stub, traffic)).status_code == 200


def test_connecting_is_abandoned_too(stub: Stub) -> None:
    """Nobody answers, and the limit for that is far away."""
    traffic = Traffic()

    def close() -> None:
        until(lambda: traffic.busy)
        traffic.close(SOON)

    with never_answers() as (host, port):
        url = f"http://{host}:{port}/"
        words, seconds = ended_after(lambda: line(stub, traffic).fetch("directory", url), close)
    assert words == f"directory to {host}:{port} was abandoned: the process is ending"
    assert seconds < IN_TIME


def test_a_handshake_is_abandoned_too(stub: Stub) -> None:
    """Here with a server that speaks no TLS, and waits."""
    traffic = Traffic()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/"

        def close() -> None:
            accepted, _ = listener.accept()
            accepted.recv(1)  # the first of its hello
            held.append(accepted)
            traffic.close(SOON)

        held: list[socket.socket] = []
        words, seconds = ended_after(lambda: line(stub, traffic).fetch("directory", url), close)
        held[0].close()
    assert words.endswith("was abandoned: the process is ending")
    assert seconds < IN_TIME


def test_nothing_begins_after_the_signal(stub: Stub) -> None:
    """Not even another try of a nonce that was refused."""
    traffic = Traffic()

    def refuse(handler: Handler) -> None:
        traffic.close(SOON)
        problem(stub, 400, "badNonce", Replay_Nonce=stub.nonce())(handler)

    stub.reply("/order", refuse)
    with pytest.raises(Stopping, match=r"order was not sent to .*: the process is ending"):
        read(stub, line(stub, traffic))
    assert posts(stub) == 1


def test_waiting_for_its_turn_ends_at_once(stub: Stub) -> None:
    """No request is worth waiting for then."""
    traffic = Traffic(rate=1, monotonic=backwards())
    a_line = line(stub, traffic)
    a_line.fetch("directory", f"{stub.url}/directory")

    def close() -> None:
        traffic.close(60)

    words, seconds = ended_after(
        lambda: a_line.fetch("directory", f"{stub.url}/directory"),
        close,
    )
    assert "was not sent" in words
    assert seconds < IN_TIME
    assert len(stub.requests) == 1
