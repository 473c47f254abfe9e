"""Looking at listeners of every kind, on real sockets."""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from certbaton.model import Sight
from certbaton.probe import look, server_name_for

Serve = Callable[[socket.socket], None]


@dataclass(frozen=True)
class Leaf:
    """A self-signed certificate with its key in one file."""

    file: Path
    sha256: str


def make_leaf(folder: Path, name: str, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> Leaf:
    """A certificate that has been expired for years."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    then = datetime(2020, 1, 1, tzinfo=UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(then)
        .not_valid_after(then + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    file = folder / f"{name}.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    der = certificate.public_bytes(serialization.Encoding.DER)
    return Leaf(file, hashlib.sha256(der).hexdigest())


@pytest.fixture(scope="module")
def leaf(tmp_path_factory: pytest.TempPathFactory) -> Leaf:
    folder = tmp_path_factory.mktemp("leaf")
    return make_leaf(folder, "a.example", ec.generate_private_key(ec.SECP256R1()))


def context_of(leaf: Leaf) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_cert_chain(leaf.file)
    return context


def tls(context: ssl.SSLContext) -> Serve:
    def serve(sock: socket.socket) -> None:
        with suppress(OSError), context.wrap_socket(sock, server_side=True) as secure:
            secure.recv(1)

    return serve


@contextmanager
def listening(serve: Serve, address: str = "127.0.0.1") -> Iterator[int]:
    """A port where every connection is handed to *serve*, in a thread of its own."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = socket.create_server((address, 0), family=family)
    threads: list[threading.Thread] = []

    def handle(sock: socket.socket) -> None:
        with sock, suppress(OSError):
            sock.settimeout(5)
            serve(sock)

    def loop() -> None:
        while True:
            try:
                sock, _ = server.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=handle, args=(sock,)))
            threads[-1].start()

    threads.append(threading.Thread(target=loop))
    threads[0].start()
    try:
        yield server.getsockname()[1]
    finally:
        server.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        server.close()


def look_once(port: int, timeout: float = 5) -> Sight:
    (sight,) = look(["127.0.0.1"], [port], "a.example", timeout)
    return sight


def test_the_leaf_is_seen_whatever_its_worth(leaf: Leaf) -> None:
    """Expired, self-signed, for another name: still the leaf that is served."""
    with listening(tls(context_of(leaf))) as port:
        assert look(["127.0.0.1"], [port], "other.example", 5) == (
            Sight("127.0.0.1", port, leaf.sha256),
        )


def test_the_server_name_is_asked_for(leaf: Leaf, tmp_path: Path) -> None:
    """The listener chooses by SNI."""
    other = make_leaf(tmp_path, "b.example", ec.generate_private_key(ec.SECP256R1()))
    context, contexts = context_of(leaf), {"b.example": context_of(other)}

    def choose(secure: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        secure.context = contexts.get(name or "", context)

    context.sni_callback = choose
    with listening(tls(context)) as port:
        assert look(["127.0.0.1"], [port], "b.example", 5)[0].leaf_sha256 == other.sha256
        assert look(["127.0.0.1"], [port], "a.example", 5)[0].leaf_sha256 == leaf.sha256


@pytest.mark.parametrize("cipher", ["AES128-SHA", "AES256-GCM-SHA384", "ECDHE-RSA-AES128-SHA256"])
def test_an_old_listener_is_seen(tmp_path: Path, cipher: str) -> None:
    """TLS 1.2 with one old cipher and a short key is evidence as well."""
    old = make_leaf(tmp_path, "old", rsa.generate_private_key(65537, 1024))
    context = context_of(old)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(f"{cipher}:@SECLEVEL=0")
    with listening(tls(context)) as port:
        assert look_once(port).leaf_sha256 == old.sha256


def test_tls_1_3_alone_is_seen(leaf: Leaf) -> None:
    """TLS 1.3, also where a client certificate is wanted."""
    context = context_of(leaf)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    with listening(tls(context)) as port:
        assert look_once(port).leaf_sha256 == leaf.sha256


def test_every_address_and_port_is_looked_at(leaf: Leaf) -> None:
    """In the order given, IPv6 too, one without listener among them."""
    serve = tls(context_of(leaf))
    with listening(serve) as first, listening(serve) as second:
        sights = look(["127.0.0.1", "127.0.0.2"], [first, second], "a.example", 5)
    assert [(sight.address, sight.port) for sight in sights] == [
        ("127.0.0.1", first),
        ("127.0.0.1", second),
        ("127.0.0.2", first),
        ("127.0.0.2", second),
    ]
    assert [sight.leaf_sha256 for sight in sights] == [leaf.sha256, leaf.sha256, None, None]
    assert [sight.trouble for sight in sights[2:]] == ["connection refused"] * 2
    if socket.has_ipv6:
        with listening(serve, "::1") as port:
            assert look(["::1"], [port], "a.example", 5)[0].leaf_sha256 == leaf.sha256
    assert look([], [443], "a.example", 5) == ()


def refuse(description: ssl.AlertDescription) -> Callable[[Leaf], Serve]:
    def make(leaf: Leaf) -> Serve:
        context = context_of(leaf)
        context.sni_callback = lambda *_: description
        return tls(context)

    return make


def no_common_cipher(leaf: Leaf) -> Serve:
    context = context_of(leaf)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-SHA:@SECLEVEL=0")  # needs an RSA key, and the leaf has none
    return tls(context)


def says(answer: bytes) -> Callable[[Leaf], Serve]:
    def make(_: Leaf) -> Serve:
        def serve(sock: socket.socket) -> None:
            sock.recv(4096)
            sock.sendall(answer)

        return serve

    return make


def resets(_: Leaf) -> Serve:
    def serve(sock: socket.socket) -> None:
        sock.recv(1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    return serve


@pytest.mark.parametrize(
    ("make", "trouble"),
    [
        pytest.param(
            no_common_cipher, "TLS alert handshake_failure", id="no cipher for the key type"
        ),
        pytest.param(
            refuse(ssl.AlertDescription.ALERT_DESCRIPTION_UNRECOGNIZED_NAME),
            "TLS alert unrecognized_name",
            id="unknown server name",
        ),
        pytest.param(
            refuse(ssl.AlertDescription.ALERT_DESCRIPTION_INTERNAL_ERROR),
            "TLS alert internal_error",
            id="internal error",
        ),
        pytest.param(
            says(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
            "no TLS there: wrong version number",
            id="plain HTTP",
        ),
        pytest.param(says(b""), "no TLS there: closed during the handshake", id="closed"),
        pytest.param(resets, "connection reset", id="reset"),
    ],
)
def test_trouble_is_a_few_words(leaf: Leaf, make: Callable[[Leaf], Serve], trouble: str) -> None:
    """What went wrong is told apart, and is never a leaf."""
    with listening(make(leaf)) as port:
        alert = trouble.startswith("TLS alert")
        assert look_once(port) == Sight("127.0.0.1", port, None, trouble, alert)


def test_nobody_keeps_a_handshake_waiting() -> None:
    """Silence and trickling end at the deadline, and not one after the other."""
    end = threading.Event()

    def silent(sock: socket.socket) -> None:
        end.wait(20)

    def trickles(sock: socket.socket) -> None:
        sock.sendall(b"\x16\x03\x03\x40\x00")  # the head of a record of 16 KiB
        while not end.wait(0.02):
            sock.sendall(b"\x02")

    with listening(silent) as first, listening(trickles) as second:
        before = time.monotonic()
        sights = look(["127.0.0.1"], [first, second], "a.example", 2.0)
        took = time.monotonic() - before
        end.set()
    assert [sight.trouble for sight in sights] == ["timeout", "timeout"]
    assert 1.9 < took < 3.9


def test_a_name_that_does_not_resolve_is_trouble() -> None:
    """An address may be a host name; one that is none is told."""
    (sight,) = look(["nowhere.invalid"], [443], "a.example", 1)
    assert sight.trouble == "the address cannot be resolved"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.example"], "a.example"),
        (["*.a.example", "a.example"], "a.example"),
        (["*.a.example"], "certbaton-probe.a.example"),
        (["*.a.example", "*.b.example"], "certbaton-probe.a.example"),
    ],
)
def test_a_server_name_is_no_wildcard(names: list[str], expected: str) -> None:
    """The first plain name, else one that the wildcard covers."""
    assert server_name_for(names) == expected
