"""The lab's sockets, ports and prober, without any API server."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime

import pytest

from lab.oci import Faults, LabApp, LoadBalancer, PortMap, Prober
from lab.oci.loadbalancer import Listener
from lab.oci.prober import Sight, handshake
from lab.oci.tls import Certificate, Refused
from lab.oci.workqueue import WorkQueue
from lab_tests.oci_world import certificate, served, sha, until


@pytest.fixture
def app() -> Iterator[LabApp]:
    with LabApp() as found:
        yield found


@pytest.fixture
def balancer(app: LabApp) -> Iterator[LoadBalancer]:
    found = LoadBalancer(
        "uid",
        namespace="ns",
        service="shop",
        ports=PortMap(),
        backend=lambda: app.address,
        faults=Faults(),
        interruption=0.05,
    )
    found.add_certificate(Certificate("a-1", *certificate("a-1")))
    found.put_listener(Listener(443, certificate="a-1"))
    yield found
    found.close()


def test_a_handshake_shows_the_whole_chain(balancer: LoadBalancer) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    raw = socket.create_connection(balancer.endpoint(443))
    with raw, context.wrap_socket(raw) as tls:
        assert tls.version() == "TLSv1.2"
        # What was sent is only reachable through the handshake object before Python 3.13.
        chain = tls._sslobj.get_unverified_chain()  # type: ignore[attr-defined]
        assert len(chain) == 2
        tls.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b""
        while data := tls.recv(65536):
            answer += data
    assert answer.endswith(b"hello from shop-0\n")


def test_big_answers_pass_whole(balancer: LoadBalancer, app: LabApp) -> None:
    app.big = b"x" * 3_000_000
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    raw = socket.create_connection(balancer.endpoint(443))
    with raw, context.wrap_socket(raw) as tls:
        tls.sendall(b"GET /big HTTP/1.0\r\n\r\n")
        size = 0
        while data := tls.recv(65536):
            size += len(data)
    assert size > 3_000_000


def test_a_change_refuses_new_connections_and_cuts_open_ones(balancer: LoadBalancer) -> None:
    balancer.add_certificate(Certificate("a-2", *certificate("a-2")))
    refused = []
    with socket.create_connection(balancer.endpoint(443)) as open_one:
        open_one.settimeout(5)

        def during(seconds: float) -> None:
            refused.append(served(balancer))

        balancer._wait = during
        balancer.put_listener(Listener(443, certificate="a-2"))
        with suppress(ConnectionResetError):
            assert open_one.recv(1) == b""
    assert refused == ["ConnectionRefusedError"]
    assert served(balancer) == sha("a-2")


def test_an_idle_connection_blocks_nobody(balancer: LoadBalancer) -> None:
    with socket.create_connection(balancer.endpoint(443)):
        assert served(balancer) == sha("a-1")


def test_tls_spoken_to_the_plain_app_is_answered_at_once(app: LabApp) -> None:
    with pytest.raises(ssl.SSLError):
        handshake(*app.address, "shop.example", timeout=1)


@pytest.mark.parametrize("name", ["a.b", "", "ü", "a" * 256, "a b"])
def test_names_are_letters_digits_dash_and_underscore(name: str) -> None:
    with pytest.raises(Refused, match="Invalid certificate name"):
        Certificate(name, *certificate("a-1")).check()


def test_every_port_is_real_once_and_every_address_distinct(app: LabApp) -> None:
    ports = PortMap({80: 5002})
    assert ports(80) == 5002
    assert len({ports(80), ports(443), ports(8443)}) == 3
    assert ports(443) == ports(443)
    balancers = [
        LoadBalancer(
            str(number),
            namespace="ns",
            service="shop",
            ports=ports,
            backend=lambda: app.address,
            faults=Faults(),
            addresses=2,
        )
        for number in range(3)
    ]
    addresses = [one for balancer in balancers for one in balancer.addresses]
    assert len(set(addresses)) == 6
    assert all(one.startswith("127.") for one in addresses)


def test_the_prober_measures_from_the_last_old_to_the_first_new(balancer: LoadBalancer) -> None:
    with Prober(*balancer.endpoint(443), "shop.example", interval=0.01) as prober:
        first = prober.wait_for(sha("a-1"), 5)
        balancer.add_certificate(Certificate("a-2", *certificate("a-2")))
        balancer.interruption = 0.2
        balancer.put_listener(Listener(443, certificate="a-2"))
        prober.wait_for(sha("a-2"), 5)
    assert prober.first_seen(sha("a-1")) == first
    assert [one.leaf for one in prober.changes()] == [sha("a-1"), sha("a-2")]
    assert 200 <= prober.interruption_ms(sha("a-1"), sha("a-2")) < 2000
    with pytest.raises(ValueError, match="never saw"):
        prober.interruption_ms(sha("a-2"), sha("a-1"))
    (outage,) = prober.outages()
    assert outage.milliseconds is not None
    assert outage.milliseconds >= 200


def test_an_outage_that_is_not_over_has_no_end() -> None:
    with Prober("127.0.0.1", 1, "shop.example", interval=0.01) as prober:
        until(lambda: prober.sights)
    now = datetime.now(UTC)
    assert prober.outages() == []
    prober._sights = [Sight(1.0, now, "x"), Sight(2.0, now, None, "gone")]
    (outage,) = prober.outages()
    assert outage.end is None
    assert outage.errors == ("gone",)


def test_the_queue_never_gives_a_key_to_two_workers() -> None:
    queue = WorkQueue()
    key = ("ns", "shop")
    queue.add(key)
    queue.add(key)
    assert queue.get() == key
    queue.add(key)
    queue.add(("ns", "other"))
    assert queue.get() == ("ns", "other")
    queue.done(key)
    assert queue.get() == key
    assert not queue.idle
    queue.shut_down()
    assert queue.get() is None


def test_back_off_doubles_up_to_its_most() -> None:
    queue = WorkQueue(base=5, most=300)
    key = ("ns", "shop")
    delays = [queue.add_after_failure(key) for _ in range(8)]
    assert delays == [5, 10, 20, 40, 80, 160, 300, 300]
    queue.forget(key)
    assert queue.add_after_failure(key) == 5
