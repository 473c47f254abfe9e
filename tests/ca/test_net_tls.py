"""TLS to a CA: whose certificates are believed, and what that costs."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from ca.stub import Stub
from certbaton.ca import transport
from certbaton.ca.session import Session
from certbaton.errors import CaUnavailable, ConfigurationError
from certbaton.model import IssuerSpec, KeyType
from certbaton.pki import PrivateKey
from lab.certs import Authority

KEY = PrivateKey.generate(KeyType.EC_P256)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ours", "ca")


@pytest.fixture
def stub(authority: Authority) -> Iterator[Stub]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("stub", hosts=("127.0.0.1",)))
    server = Stub(context)
    yield server
    server.stop()


def session(stub: Stub, bundle: Path | None) -> Session:
    """A line of its own, as each worker has one for each account."""
    return Session(IssuerSpec("s", f"{stub.url}/directory", str(bundle) if bundle else None), KEY)


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """One entry for each time that roots are loaded into memory."""
    made: list[None] = []

    class Counted(ssl.SSLContext):
        def load_verify_locations(self, *args: object, **kwargs: object) -> None:
            made.append(None)
            super().load_verify_locations(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr("urllib3.util.ssl_.SSLContext", Counted)
    monkeypatch.setattr(transport, "_ROOTS", transport._Roots())
    return made


def test_all_lines_share_what_was_read_of_the_roots(
    stub: Stub, authority: Authority, loads: list[None]
) -> None:
    """Else sixteen workers at three CAs hold the system's roots a hundred times: 70 MB."""
    lines = [session(stub, authority.file) for _ in range(8)]
    for line in lines:
        line.new_account()
    assert len(loads) == 1


@pytest.mark.usefixtures("loads")
def test_roots_that_were_exchanged_count_at_once(
    stub: Stub, authority: Authority, tmp_path: Path
) -> None:
    """A ConfigMap with a private CA's roots changes under a process that runs for months."""
    bundle = tmp_path / "bundle.pem"
    other = Authority(tmp_path / "other", "another ca")
    bundle.write_bytes(other.file.read_bytes())
    with pytest.raises(CaUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        session(stub, bundle).new_account()
    bundle.write_bytes(other.file.read_bytes() + authority.file.read_bytes())
    session(stub, bundle).new_account()


def test_only_the_issuer_s_own_roots_are_believed(stub: Stub, authority: Authority) -> None:
    """Not because another issuer's bundle has one: the system's are separate from it."""
    session(stub, authority.file).new_account()
    with pytest.raises(CaUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        session(stub, None).new_account()


def test_the_name_is_checked(stub: Stub, authority: Authority) -> None:
    """A certificate of another host is none."""
    stub.url = stub.url.replace("127.0.0.1", "localhost")
    with pytest.raises(CaUnavailable, match=r"localhost|Hostname"):
        session(stub, authority.file).new_account()


def test_a_bundle_without_certificates_is_the_operators_to_correct(
    stub: Stub, tmp_path: Path
) -> None:
    """It says which issuer's host it is for, and not that the CA were away."""
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("no certificate\n")
    with pytest.raises(ConfigurationError, match=r"^CA bundle for 127\.0\.0\.1"):
        session(stub, bundle).new_account()
