"""Dynamic updates: where the record goes, and what is said when it cannot."""

import dataclasses
import logging
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dns.rcode
import dns.tsig
import pytest

from certbaton.errors import PermanentError, SolverNotReady
from certbaton.solvers.rfc2136 import Rfc2136, _read
from solvers.name_server import CNAME, NS, NameServer
from solvers.worlds import SECRET, knot_dns, rfc2136

NAME = "_acme-challenge.shop.a.example"


@pytest.fixture
def server() -> Iterator[NameServer]:
    key = dns.tsig.Key("certbaton", SECRET)
    with NameServer("a.example", "sub.a.example", "acme.example", key=key).running() as running:
        yield running


def test_the_zone_is_found(server: NameServer, tmp_path: Path) -> None:
    """The innermost zone that the server has is updated."""
    name = "_acme-challenge.deep.down.sub.a.example"
    rfc2136(server, tmp_path).add_txt(name, "one")
    rfc2136(server, tmp_path).add_txt("_acme-challenge.a.example", "two")
    assert server.txt(name) == ["one"]
    assert server.txt("_acme-challenge.a.example") == ["two"]


def test_a_zone_that_is_set_is_taken(server: NameServer, tmp_path: Path) -> None:
    """It holds for the names within, and not for where a CNAME leads outside of it."""
    server.add(NAME, CNAME, "shop.acme.example.")
    provider = rfc2136(server, tmp_path, zone="a.example")
    provider.add_txt("_acme-challenge.other.a.example", "one")
    provider.add_txt(NAME, "two")
    assert server.txt("_acme-challenge.other.a.example") == ["one"]
    assert server.txt("shop.acme.example") == ["two"]


def test_a_cname_is_followed(server: NameServer, tmp_path: Path) -> None:
    """The record is written, seen and removed where the alias leads, over several steps."""
    server.add(NAME, CNAME, "step.sub.a.example.")
    server.add("step.sub.a.example", CNAME, "shop.acme.example.")
    provider = rfc2136(server, tmp_path)
    provider.add_txt(NAME, "one")
    assert server.txt("shop.acme.example") == ["one"]
    assert server.txt(NAME) == []
    assert provider.visible(NAME, "one")
    provider.remove_txt(NAME, "one")
    assert server.txt("shop.acme.example") == []


def test_the_secret_is_read_each_time(server: NameServer, tmp_path: Path) -> None:
    """A file that is replaced takes effect at the next update."""
    provider = rfc2136(server, tmp_path)
    assert provider.key is not None
    provider.key.secret_file.write_text("b3RoZXI=", encoding="ascii")
    with pytest.raises(PermanentError):
        provider.add_txt(NAME, "one")
    provider.key.secret_file.write_text(f"\n {SECRET} \n", encoding="ascii")
    provider.add_txt(NAME, "one")
    assert server.txt(NAME) == ["one"]


def test_truncated_answers_are_asked_for_by_tcp(server: NameServer, tmp_path: Path) -> None:
    """The TC flag changes the exchange to TCP."""
    server.truncates = True
    rfc2136(server, tmp_path).add_txt(NAME, "one")
    assert server.txt(NAME) == ["one"]
    assert "tcp" in server.by


def test_a_network_without_udp_does(server: NameServer, tmp_path: Path) -> None:
    """Where nothing comes back by UDP, TCP is tried within the same time."""
    server.silent_udp = True
    provider = rfc2136(server, tmp_path, timeoutSeconds=1)
    assert not provider.visible(NAME, "one")


Break = Callable[[NameServer, Rfc2136], Rfc2136]


def _server(**faults: object) -> Break:
    def spoil(server: NameServer, provider: Rfc2136) -> Rfc2136:
        for fault, value in faults.items():
            setattr(server, fault, value)
        return provider

    return spoil


def _key_named(name: str) -> Break:
    def spoil(server: NameServer, provider: Rfc2136) -> Rfc2136:
        assert provider.key is not None
        return dataclasses.replace(provider, key=dataclasses.replace(provider.key, name=name))

    return spoil


def _secret(content: str | None) -> Break:
    def spoil(server: NameServer, provider: Rfc2136) -> Rfc2136:
        assert provider.key is not None
        if content is None:
            provider.key.secret_file.unlink()
        else:
            provider.key.secret_file.write_text(content, encoding="utf-8")
        return provider

    return spoil


def _no_key(server: NameServer, provider: Rfc2136) -> Rfc2136:
    return dataclasses.replace(provider, key=None)


def _circle(server: NameServer, provider: Rfc2136) -> Rfc2136:
    server.add(NAME, CNAME, "circle.a.example.")
    server.add("circle.a.example", CNAME, f"{NAME}.")
    return provider


def _delegated(server: NameServer, provider: Rfc2136) -> Rfc2136:
    server.add("shop.a.example", NS, "ns.elsewhere.example.")
    return provider


def _elsewhere(server: NameServer, provider: Rfc2136) -> Rfc2136:
    server.add(NAME, CNAME, "shop.elsewhere.example.")
    return provider


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        pytest.param(_key_named("other"), "does not know the TSIG key other", id="unknown key"),
        pytest.param(_secret("b3RoZXI="), "another secret for the TSIG key", id="wrong secret"),
        pytest.param(
            _secret(None),
            r"tsigSecretFile names cannot be read \(FileNotFoundError\)",
            id="no file",
        ),
        pytest.param(_secret("%%%"), "hold the TSIG secret in base64", id="no base64"),
        pytest.param(_secret("gehéim"), "hold the TSIG secret in base64", id="no ASCII"),
        pytest.param(_secret(" \n"), "is empty", id="empty file"),
        pytest.param(_no_key, r"unsigned update \(no tsigKeyName\)", id="no key"),
        pytest.param(_server(tsig_error=dns.rcode.BADTIME), "the clocks", id="clocks"),
        pytest.param(_server(tsig_error=dns.rcode.BADTRUNC), "another secret", id="truncation"),
        pytest.param(_server(unsigned=True), "does not sign its answer", id="unsigned answer"),
        pytest.param(_server(rcode=dns.rcode.REFUSED), "refuses to answer", id="refused"),
        pytest.param(_circle, "go round in circles", id="circle of CNAMEs"),
        pytest.param(_delegated, "is not authoritative for", id="delegated zone"),
        pytest.param(_elsewhere, "about shop.elsewhere.example", id="alias to another server"),
    ],
)
def test_what_a_person_must_change_is_said(
    server: NameServer, tmp_path: Path, spoil: Break, sentence: str
) -> None:
    """One sentence says what is wrong, and never what the secret is."""
    with pytest.raises(PermanentError, match=sentence) as caught:
        spoil(server, rfc2136(server, tmp_path)).add_txt(NAME, "one")
    assert SECRET not in repr(caught.value) + repr(caught.value.__cause__)
    assert server.txt(NAME) == []


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        pytest.param(_server(rcode=dns.rcode.SERVFAIL), "answers SERVFAIL", id="SERVFAIL"),
        pytest.param(_server(silent_udp=True, silent_tcp=True), "does not answer", id="silence"),
    ],
)
def test_what_may_pass_is_tried_again(
    server: NameServer, tmp_path: Path, spoil: Break, sentence: str
) -> None:
    """A server in trouble is a SolverNotReady, within the timeout."""
    before = time.monotonic()
    with pytest.raises(SolverNotReady, match=sentence):
        spoil(server, rfc2136(server, tmp_path, timeoutSeconds=0.4)).add_txt(NAME, "one")
    assert time.monotonic() - before < 2


def test_a_server_that_is_not_there_is_tried_again() -> None:
    """Nothing listens: SolverNotReady."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        provider = Rfc2136("127.0.0.1", taken.getsockname()[1], timeout=0.4)
        with pytest.raises(SolverNotReady, match="does not answer"):
            provider.visible(NAME, "one")


def test_a_server_name_that_does_not_resolve_is_tried_again() -> None:
    """A name without address: SolverNotReady."""
    with pytest.raises(SolverNotReady, match="cannot be resolved"):
        Rfc2136("ns.invalid").visible(NAME, "one")


def test_no_repr_and_no_log_shows_the_secret(
    server: NameServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the provider nor the key that signs shows it."""
    caplog.set_level(logging.DEBUG)
    provider = rfc2136(server, tmp_path)
    provider.add_txt(NAME, "one")
    assert provider.key is not None
    assert SECRET not in repr(provider) + repr(_read(provider.key)) + caplog.text


@pytest.mark.servers
def test_knot_refuses_as_the_fake_does(tmp_path: Path) -> None:
    """An unknown key, a wrong secret and no key at all get the same sentences from Knot."""
    with knot_dns(tmp_path) as world:
        provider = world.provider
        assert isinstance(provider, Rfc2136)
        assert provider.key is not None
        name = f"_acme-challenge.shop.{world.zone}"
        wrong = tmp_path / "wrong"
        wrong.write_text("b3RoZXIgc2VjcmV0IG9mIHNvbWUgbGVuZ3RoIGZvciBhIGtleQ==", encoding="ascii")
        for key, sentence in (
            (dataclasses.replace(provider.key, name="other"), "does not know the TSIG key"),
            (dataclasses.replace(provider.key, secret_file=wrong), "has another secret"),
            (None, "unsigned update"),
        ):
            with pytest.raises(PermanentError, match=sentence):
                dataclasses.replace(provider, key=key).add_txt(name, "one")
        with pytest.raises(PermanentError, match="name the server of its zone"):
            provider.add_txt("_acme-challenge.elsewhere.test", "one")
        assert world.txt(name) == []
