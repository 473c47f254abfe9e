"""A CA behind an HTTP proxy: the issuer's own, or the one that the environment names."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import pytest

from ca.stub import Stub
from certbaton.ca.session import Session
from certbaton.errors import CaUnavailable
from certbaton.model import IssuerSpec, KeyType
from certbaton.pki import PrivateKey
from contracts.connect_proxy import ConnectProxy
from lab.certs import Authority
from lab.process import free_ports

KEY = PrivateKey.generate(KeyType.EC_P256)
# Nobody but the proxy knows where that is.
HOST = "ca.proxied.invalid"
VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.lower(), raising=False)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"), "ca")


@pytest.fixture
def stub(authority: Authority) -> Iterator[Stub]:
    certificate, key = authority.issue("stub", hosts=(HOST, "127.0.0.1"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = Stub(context, HOST)
    yield server
    server.stop()


@pytest.fixture
def proxy() -> Iterator[ConnectProxy]:
    with ConnectProxy() as running:
        yield running


def session(stub: Stub, authority: Authority, proxy: str | None = None) -> Session:
    spec = IssuerSpec("s", f"{stub.url}/directory", str(authority.file), proxy=proxy)
    return Session(spec, KEY)


def where(stub: Stub) -> str:
    return stub.url.removeprefix("https://")


def test_an_issuer_has_a_proxy_of_its_own(
    stub: Stub, authority: Authority, proxy: ConnectProxy
) -> None:
    """All of its requests go through it, on one connection, with TLS to the CA itself."""
    session(stub, authority, f"http://{proxy.address}").new_account()
    assert [each.path for each in stub.requests] == ["/directory", "/newNonce", "/newAccount"]
    assert proxy.asked == [where(stub)]


def test_the_environment_s_proxy_is_obeyed(
    stub: Stub, authority: Authority, proxy: ConnectProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTPS_PROXY, for issuers that have none of their own."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.address}")
    session(stub, authority).new_account()
    assert proxy.asked == [where(stub)]


@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
@pytest.mark.parametrize("exempt", ["127.0.0.1", "*,10.96.0.1"])
def test_an_exemption_is_obeyed(
    authority: Authority,
    proxy: ConnectProxy,
    monkeypatch: pytest.MonkeyPatch,
    stub: Stub,
    exempt: str,
    variable: str,
) -> None:
    """The chart writes the API server's address behind what the user wrote."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.address}")
    monkeypatch.setenv(variable, exempt)
    stub.url = stub.url.replace(HOST, "127.0.0.1")
    session(stub, authority).new_account()
    assert proxy.asked == []


def test_the_issuer_s_proxy_comes_before_the_environment_s(
    stub: Stub, authority: Authority, proxy: ConnectProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever that exempts: who named it for one CA meant that CA."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", f"{HOST},*")
    session(stub, authority, f"http://{proxy.address}").new_account()
    assert proxy.asked == [where(stub)]


def test_its_credentials_are_sent_to_it_alone_and_never_told(
    stub: Stub, authority: Authority, proxy: ConnectProxy
) -> None:
    """Not even when it does not answer."""
    session(stub, authority, f"http://me:hunter2@{proxy.address}").new_account()
    assert proxy.credentials == ["Basic bWU6aHVudGVyMg=="]
    (port,) = free_ports(1)
    with pytest.raises(CaUnavailable) as caught:
        session(stub, authority, f"http://me:hunter2@127.0.0.1:{port}").new_account()
    assert str(caught.value) == (
        f"no answer to directory from {where(stub)} through its proxy: "
        "[Errno 111] Connection refused"
    )


@pytest.mark.parametrize("value", ["http://me:hunter2@", "://", "http://[bad/"])
def test_a_proxy_that_is_none_is_told(stub: Stub, authority: Authority, value: str) -> None:
    """With what to do, and without its password."""
    with pytest.raises(CaUnavailable, match="proxy that the issuer names") as caught:
        session(stub, authority, value).new_account()
    assert "hunter2" not in repr(caught.value)
    assert stub.requests == []


def test_a_proxy_needs_no_name_server_here(
    stub: Stub, authority: Authority, proxy: ConnectProxy
) -> None:
    """It looks the CA up itself; without it that name leads nowhere."""
    with pytest.raises(CaUnavailable, match=HOST):
        session(stub, authority).new_account()
    session(stub, authority, f"http://{proxy.address}").new_account()
