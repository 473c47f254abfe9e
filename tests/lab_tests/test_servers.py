"""The lab's real servers: each starts, answers, stops, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import dns.name
import dns.query
import dns.rcode
import dns.tsig
import dns.update
import psutil
import pytest
from acme import challenges, client, messages
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from josepy.jwa import ES256
from josepy.jwk import JWKEC

from lab import build
from lab.controlplane import ControlPlane
from lab.dns import Knot
from lab.kube import KubeError
from lab.pebble import Pebble
from lab.process import LabError, Process, free_ports

pytestmark = pytest.mark.servers

TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane() as plane:
        yield plane


@pytest.fixture(scope="module")
def knot() -> Iterator[Knot]:
    with Knot() as knot:
        yield knot


def eventually(check: Callable[[], object], *, seconds: float = 60.0) -> None:
    """Wait until *check* is true."""
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


# --- the control plane -----------------------------------------------------------------------


def test_the_audit_log_shows_a_serviceaccounts_requests(plane: ControlPlane) -> None:
    """A request is there at once, a watch once, Leases only when asked for."""
    plane.create_namespace("audited")
    plane.admin.create(
        "/api/v1/namespaces/audited/serviceaccounts", {"metadata": {"name": "robot"}}
    )
    user = "system:serviceaccount:audited:robot"
    role = {"kind": "ClusterRole", "name": "cluster-admin", "apiGroup": "rbac.authorization.k8s.io"}
    plane.admin.apply(
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/robot",
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "robot"},
            "roleRef": role,
            "subjects": [{"kind": "ServiceAccount", "name": "robot", "namespace": "audited"}],
        },
        manager="lab",
    )
    with plane.client(plane.token("audited", "robot")) as robot:

        def may_list() -> bool:
            try:
                robot.list("/api/v1/namespaces/audited/secrets")
            except KubeError as error:
                assert error.reason == "Forbidden"
                return False
            return True

        eventually(may_list)
        since = datetime.now(UTC)
        version = robot.list("/api/v1/namespaces/audited/secrets")["metadata"]["resourceVersion"]
        with robot.watch("/api/v1/namespaces/audited/secrets", resource_version=version) as watch:
            robot.create(
                "/api/v1/namespaces/audited/secrets",
                {"metadata": {"name": "found"}, "stringData": {"a": "b"}},
            )
            assert next(watch)["object"]["metadata"]["name"] == "found"
        robot.patch(
            "/api/v1/namespaces/audited/secrets/found", {"metadata": {"labels": {"a": "b"}}}
        )
        with pytest.raises(KubeError) as missing:
            robot.get("/apis/coordination.k8s.io/v1/namespaces/audited/leases/none")
        assert (missing.value.status, missing.value.reason) == (404, "NotFound")
        until = datetime.now(UTC)
        seen = plane.audit(user, since, until)
        with_leases = plane.audit(user, since, until, leases=True)
        robot.list("/api/v1/namespaces/audited/secrets")
    assert [(event.verb, event.resource, event.code) for event in seen] == [
        ("list", "secrets", 200),
        ("watch", "secrets", 200),
        ("create", "secrets", 201),
        ("patch", "secrets", 200),
    ]
    assert (seen[3].namespace, seen[3].name) == ("audited", "found")
    assert [event.code for event in with_leases if event.resource == "leases"] == [404]
    assert plane.audit(user, since, until) == seen


def test_a_restart_of_either_server_keeps_the_data(plane: ControlPlane) -> None:
    """
    Same port and objects after a restart of the API server, polite or not, and of etcd.

    What the new API server does not remember is an error (410) to a watch, not an empty watch.
    """
    forgotten = plane.admin.list("/api/v1/namespaces")["metadata"]["resourceVersion"]
    plane.create_namespace("kept")
    before = plane.admin.get("/api/v1/namespaces/kept")["metadata"]["uid"]
    restarts: list[Callable[[], None]] = [
        plane.restart_apiserver,
        lambda: plane.restart_apiserver(kill=True),
        plane.restart_etcd,
    ]
    for restart in restarts:
        restart()
        assert plane.admin.get("/api/v1/namespaces/kept")["metadata"]["uid"] == before
    with pytest.raises(KubeError) as refused:
        list(plane.admin.watch("/api/v1/namespaces", resource_version=forgotten, timeout=30.0))
    assert (refused.value.status, refused.value.reason) in {(410, "Expired"), (410, "Gone")}


def test_another_thread_can_end_a_watch(plane: ControlPlane) -> None:
    """`close` wakes the reader, who gets no further event and no error."""
    version = plane.admin.list("/api/v1/nodes")["metadata"]["resourceVersion"]
    watch = plane.admin.watch("/api/v1/nodes", resource_version=version)
    events: list[object] = []
    reader = threading.Thread(target=lambda: events.extend(watch))
    reader.start()
    watch.close()
    reader.join(30.0)
    assert not reader.is_alive()
    assert events == []


def test_a_kubeconfig_works_and_is_private(plane: ControlPlane) -> None:
    """kubectl finds itself to be the ServiceAccount; nobody else may read the file."""
    plane.create_namespace("config")
    plane.admin.create("/api/v1/namespaces/config/serviceaccounts", {"metadata": {"name": "bot"}})
    file = plane.kubeconfig_for(plane.token("config", "bot"), "config")
    assert file.stat().st_mode & 0o777 == 0o600
    user = plane.kubectl("--kubeconfig", file, "auth", "whoami", "-o=jsonpath={..username}")
    assert user == "system:serviceaccount:config:bot"


def test_helm_installs_a_chart_and_reaches_no_network(plane: ControlPlane, tmp_path: Path) -> None:
    """A chart's objects appear; a chart by URL fails with what helm says."""
    templates = tmp_path / "chart" / "templates"
    templates.mkdir(parents=True)
    (tmp_path / "chart" / "Chart.yaml").write_text("apiVersion: v2\nname: tiny\nversion: 0.1.0\n")
    (templates / "map.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: tiny}\ndata: {a: b}\n"
    )
    plane.create_namespace("charts")
    plane.helm("install", "tiny", tmp_path / "chart", "--namespace", "charts")
    got = plane.admin.get("/api/v1/namespaces/charts/configmaps/tiny")
    assert got["data"] == {"a": "b"}
    with pytest.raises(LabError, match="helm pull"):
        plane.helm("pull", "https://charts.invalid/tiny-0.1.0.tgz")


def test_a_control_plane_leaves_nothing_behind() -> None:
    """No process and no folder; it says how much memory it took."""
    with ControlPlane() as plane:
        pids = [plane.apiserver.pid, plane.etcd.pid]
        assert plane.versions()["kube-apiserver"] == build.pinned_version("kube-apiserver")
        assert plane.apiserver.peak_rss_mb > 50
        assert plane.apiserver.cpu_s > 0
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert not plane.folder.exists()
    assert plane.apiserver.peak_rss_mb > 50


# --- Pebble and Knot -------------------------------------------------------------------------


def test_pebble_issues_by_the_real_dns_server(knot: Knot) -> None:
    """dns-01 end to end: signed update, validation by Knot's answer, requests counted."""
    (http_port,) = free_ports(1)
    with Pebble(http_port=http_port, dns_server=knot.address) as pebble:
        since = datetime.now(UTC)
        names = issue(pebble, knot, "w.example.test")
        seen = pebble.requests(since)
        assert names == ["w.example.test"]
        assert pebble.certificates_issued() == 1
        assert pebble.certificates_issued(until=since) == 0
        assert [request.endpoint for request in seen if request.method == "GET"] == ["directory"]
        assert [request.endpoint for request in seen if request.method == "HEAD"] == ["newNonce"]
        assert {"newAccount", "newOrder", "challenge", "finalize", "certificate"} <= {
            request.endpoint for request in seen
        }
        assert all(since <= request.at for request in seen)
        with pytest.raises(LabError, match="another DNS server"):
            pebble.set_a("w.example.test", "127.0.0.1")


def issue(pebble: Pebble, knot: Knot, name: str) -> list[str]:
    """Obtain a certificate with the acme library alone; the names in it."""
    key = JWKEC(key=ec.generate_private_key(ec.SECP256R1()))
    net = client.ClientNetwork(key, alg=ES256, verify_ssl=str(pebble.ca_file))  # type: ignore[arg-type]
    acme = client.ClientV2(client.ClientV2.get_directory(pebble.directory, net), net)
    acme.new_account(messages.NewRegistration.from_data(terms_of_service_agreed=True))
    leaf_key = ec.generate_private_key(ec.SECP256R1())
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    )
    pem = csr.sign(leaf_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    order = acme.new_order(pem, profile="lab")
    for authorization in order.authorizations:
        for body in authorization.body.challenges:
            if isinstance(body.chall, challenges.DNS01):
                add_txt(knot, body.chall.validation_domain_name(name), body.chall.validation(key))
                acme.answer_challenge(body, body.chall.response(key))
    chain = acme.poll_and_finalize(order).fullchain_pem
    net.session.close()
    leaf = x509.load_pem_x509_certificates(chain.encode())[0]
    return leaf.extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    ).value.get_values_for_type(x509.DNSName)


def add_txt(knot: Knot, name: str, value: str, *, signed: bool = True) -> dns.rcode.Rcode:
    """Send an update with dnspython, as the daemon will."""
    secret = knot.key_file.read_text()
    key = dns.tsig.Key(knot.key_name, secret, knot.key_algorithm)
    update = dns.update.UpdateMessage(knot.zone, keyring=key if signed else None)
    update.add(dns.name.from_text(name), 1, "TXT", value)
    return dns.query.udp(update, knot.server, timeout=30.0, port=knot.port).rcode()


def test_pebble_with_its_own_dns_server_forgets_all_at_a_restart() -> None:
    """The directory stays where it was, the root is a new one, counts go on."""
    (http_port,) = free_ports(1)
    with Pebble(http_port=http_port, profiles={"brief": 20}) as pebble:
        assert pebble.dns is not None
        pids = [pebble.process.pid, pebble.dns.pid]
        pebble.set_a("a.example.test", "127.0.0.9")
        pebble.set_txt("b.example.test", "value")
        pebble.clear_txt("b.example.test")
        root = pebble.root()
        before = len(pebble.requests())
        pebble.restart()
        pids.append(pebble.process.pid)
        assert pebble.root() != root
        assert len(pebble.requests()) > before
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_knot_takes_a_signed_update_and_refuses_another(knot: Knot) -> None:
    """Both TXT values of one name are served; without the key nothing changes."""
    name = "_acme-challenge.both.example.test"
    assert knot.txt(name) == []
    for value in ("one", "two"):
        assert add_txt(knot, name, value) == dns.rcode.NOERROR
    assert add_txt(knot, name, "three", signed=False) in {dns.rcode.REFUSED, dns.rcode.NOTAUTH}
    assert knot.txt(name) == ["one", "two"]
    assert knot.key_file.stat().st_mode & 0o777 == 0o600


def test_knot_leaves_nothing_behind() -> None:
    """No process and no folder."""
    with Knot(zone="other.test") as other:
        other.set_a("a.other.test", "127.0.0.7")
        pid = other.process.pid
    assert not psutil.pid_exists(pid)
    assert not other.folder.exists()


# --- processes and builds --------------------------------------------------------------------


def test_a_server_that_dies_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    """No waiting for the deadline then."""
    command = ["sh", "-c", "echo no such luck; exit 3"]
    process = Process("unlucky", command, log=tmp_path / "log")
    with pytest.raises(LabError, match=r"exit code 3:\nno such luck"):
        process.start().wait_ready(lambda: False)


def test_a_deaf_server_is_killed(tmp_path: Path) -> None:
    """SIGKILL follows SIGTERM, and reaches the group."""
    command = ["sh", "-c", "trap '' TERM; echo ready; sleep 600 & echo $!; wait; sleep 600"]
    lines: list[str] = []
    with Process("deaf", command, log=tmp_path / "log", on_line=lines.append) as process:
        process.wait_ready(lambda: len(lines) == 2)
        process.stop(deadline=0.2)
    assert process.exit_code == -signal.SIGKILL
    eventually(lambda: not alive(int(lines[1])))


def test_children_die_with_a_killed_parent(tmp_path: Path) -> None:
    """Even if it was started from a thread that has ended, and not while the parent lives."""
    code = (
        "import sys, threading, time, pathlib\n"
        "from lab.process import Process\n"
        "log = pathlib.Path(sys.argv[1])\n"
        "child = Process('child', ['sleep', '600'], log=log)\n"
        "starter = threading.Thread(target=child.start)\n"
        "starter.start(); starter.join(); time.sleep(0.3)\n"
        "print(child.pid if child.running else 'gone', flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "log")],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
    eventually(lambda: not alive(pid))


def alive(pid: int) -> bool:
    """Whether it runs (a zombie whose new parent has yet to look does not)."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_failed_build_says_which_command_tries_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One sentence with the compiler's last word."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    broken = build.Tool("broken", "pebble", "certbaton.invalid/broken", 1)
    monkeypatch.setitem(build.TOOLS, "broken", broken)
    with pytest.raises(LabError, match=r"broken could not be built .*make tools"):
        build.ensure("broken")


def test_only_one_process_fills_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A second one waits until the first has ended, however that was."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    code = "from lab.build import locked\nwith locked(): print('in', flush=True); input()\n"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"in\n"
        entered = threading.Event()

        def enter() -> None:
            with build.locked():
                entered.set()

        other = threading.Thread(target=enter)
        other.start()
        assert not entered.wait(1.0)
        holder.kill()
        other.join(30.0)
        assert entered.is_set()


def test_given_binaries_are_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """KUBEBUILDER_ASSETS, as envtest sets it, stands in for a build."""
    for name in ("etcd", "kube-apiserver"):
        (tmp_path / name).touch()
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    assert build.ensure("etcd")["etcd"] == tmp_path / "etcd"
