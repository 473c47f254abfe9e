"""The API server through a proxy: what the environment and the kubeconfig say is obeyed."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from kubernetes.client.rest import should_bypass_proxies
from kubernetes.config import incluster_config

from certbaton.cluster import Api, Kind, connecting
from certbaton.errors import ClusterUnavailable, ConfigurationError
from contracts.connect_proxy import ConnectProxy
from lab.controlplane import ControlPlane

pytestmark = pytest.mark.servers

# A name that no resolver knows: only the proxy gets there.
ELSEWHERE = "kube.proxied.invalid"
NAMES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")


@pytest.fixture
def proxy() -> Iterator[ConnectProxy]:
    with ConnectProxy() as running:
        yield running


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine's environment says has no say here."""
    for name in (*NAMES, "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


def named(plane: ControlPlane, folder: Path, **more: str) -> Path:
    """A kubeconfig for the same server under a name that is not this machine's."""
    text = json.loads(plane.kubeconfig_admin.read_text())
    (cluster,) = text["clusters"]
    cluster["cluster"] |= {
        "server": f"https://{ELSEWHERE}:{urlsplit(plane.url).port}",
        "tls-server-name": "localhost",
        **more,
    }
    config = folder / "kubeconfig"
    config.write_text(json.dumps(text))
    return config


@pytest.fixture
def elsewhere(control_plane: ControlPlane, tmp_path: Path) -> Path:
    return named(control_plane, tmp_path)


def works(kubeconfig: Path) -> bool:
    api = Api.connect(str(kubeconfig))
    try:
        return bool(api.list(Kind.SERVICE)[1])
    finally:
        api.close()


def test_https_proxy_leads_to_the_api_server(
    elsewhere: Path, proxy: ConnectProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists and watches go through it, as with kubectl."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.address}")
    api = Api.connect(str(elsewhere))
    version = api.list(Kind.SERVICE)[1]
    stream = api.watch(Kind.SERVICE, resource_version=version, timeout_seconds=1)
    assert list(stream) == []
    api.close()
    assert {host.partition(":")[0] for host in proxy.asked} == {ELSEWHERE}


@pytest.mark.parametrize(
    "exempt", [ELSEWHERE, ".proxied.invalid", "a.example, proxied.invalid", "*.proxied.invalid"]
)
def test_no_proxy_is_obeyed(
    elsewhere: Path, proxy: ConnectProxy, monkeypatch: pytest.MonkeyPatch, exempt: str
) -> None:
    """The server is then asked directly: here under a name that there is not."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.address}")
    monkeypatch.setenv("NO_PROXY", exempt)
    with pytest.raises(ClusterUnavailable):
        works(elsewhere)
    assert proxy.asked == []


def test_no_proxy_takes_networks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a pod the API server is an address: the Services' network is what people exempt."""
    account = tmp_path / "account"
    account.mkdir()
    for name in ("token", "ca.crt"):
        (account / name).write_text("x")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(account / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(account / "ca.crt"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    found = connecting.load()
    assert found.proxy == "http://proxy.example:3128"
    assert not should_bypass_proxies(found.host, found.no_proxy or "")
    monkeypatch.setenv("NO_PROXY", "localhost,10.96.0.0/12")
    found = connecting.load()
    assert found.proxy is None


def test_this_very_machine_is_never_reached_through_a_proxy(
    control_plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """127.0.0.1 means another machine to the proxy."""
    for name in NAMES:
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert works(control_plane.kubeconfig_admin)


def test_the_kubeconfigs_own_proxy_goes_first(
    control_plane: ControlPlane,
    tmp_path: Path,
    proxy: ConnectProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And whatever NO_PROXY says: who wrote it there meant it."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "*")
    assert works(named(control_plane, tmp_path, **{"proxy-url": f"http://{proxy.address}"}))
    assert proxy.asked


def test_a_proxys_password_is_sent_to_it_and_shown_nowhere(
    elsewhere: Path, proxy: ConnectProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Proxy-Authorization, with what an URL must escape."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:s%40cret@{proxy.address}")
    assert works(elsewhere)
    assert proxy.credentials[0] == "Basic " + base64.b64encode(b"me:s@cret").decode()
    monkeypatch.setenv("HTTPS_PROXY", "http://me:s%40cret@127.0.0.1:1")
    with pytest.raises(ClusterUnavailable) as caught:
        works(elsewhere)
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize("wrong", ["socks5://me:s3cret@proxy:1", "me:s3cret@proxy", "http://:80"])
def test_what_is_no_proxy_is_a_mistake_in_one_sentence(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    """By the variable's name, without its value."""
    monkeypatch.setenv("HTTPS_PROXY", wrong)
    with pytest.raises(ConfigurationError, match=r"HTTPS_PROXY.*http://HOST:PORT") as caught:
        works(elsewhere)
    assert "s3cret" not in str(caught.value)
