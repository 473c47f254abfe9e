"""`make demo` as somebody runs it: what it writes down, what it leaves behind, how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.running import USER, collecting
from lab.audit import AuditLog

pytestmark = pytest.mark.servers

TESTS = Path(__file__).resolve().parents[1]
MOST_API, MORE_API_PER_SERVICE, MOST_ACME, MOST_COLLECTING = 8, 3, 8, 4
MOST_RSS_MB = 85.0
VERBS = {"get", "list", "watch", "create", "update", "patch", "delete"}


@contextmanager
def demo(temporary: Path, *args: str) -> Iterator[subprocess.Popen[str]]:
    """The demo with *temporary* for temporary files, so that leftovers show."""
    temporary.mkdir(exist_ok=True)
    environ = {**os.environ, "PYTHONPATH": str(TESTS), "TMPDIR": str(temporary)}
    process = subprocess.Popen(
        [sys.executable, "-m", "lab.demo", *args],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_line(process: subprocess.Popen[str], word: str) -> str:
    """Everything that the demo printed up to the line with *word*."""
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if word in line:
            return seen
    raise AssertionError(f"{word!r} never came:\n{seen}")


def leftovers(temporary: Path) -> list[str]:
    """Processes and files that still have to do with *temporary*."""
    found = [str(path) for path in temporary.iterdir()]
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if process.pid != os.getpid() and any(str(temporary) in word for word in words):
            found.append(" ".join(words))
    return found


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """One run with two Services that ends by itself: its JSON, output, leftovers and logs."""
    folder = tmp_path_factory.mktemp("demo")
    file, logs, temporary = folder / "demo.json", folder / "logs", folder / "tmp"
    words = ("--renewals", "1", "--services", "2", "--json", str(file), "--keep", str(logs))
    with demo(temporary, *words) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        code = process.wait(10)
    assert code == 0, output
    yield {
        "report": json.loads(file.read_text()),
        "output": output,
        "left": leftovers(temporary) + [left for left in leftovers(logs) if " " in left],
        "audit": AuditLog(logs / "plane" / "audit.log"),
    }


def test_it_writes_down_what_was_seen(kept: dict[str, Any]) -> None:
    """Each rollover of each Service is there with its facts, in the order in which they began."""
    report = kept["report"]
    assert set(report) == {
        "versions", "rollovers", "secrets", "services", "load_balancer_certificates", "daemon",
    }  # fmt: skip
    assert set(report["versions"]) == {"kube-apiserver", "etcd", "pebble"}
    rollovers = report["rollovers"]
    assert [each["service"] for each in rollovers] == ["shop/web", "cafe/front"] * 2
    first, second = rollovers[0]["to_secret"], rollovers[2]["to_secret"]
    assert [(each["from_secret"], each["to_secret"]) for each in rollovers] == [
        (None, first), (None, first), (first, second), (first, second),
    ]  # fmt: skip
    for each in rollovers:
        assert set(each) == {
            "certificate", "challenge", "service", "from_secret", "to_secret", "leaf_sha256",
            "issued_s", "due_to_served_s", "interruption_ms", "api_requests", "acme_requests",
        }  # fmt: skip
        assert (each["certificate"], each["challenge"]) == ("shop", "http-01")
        assert len(bytes.fromhex(each["leaf_sha256"])) == 32
        assert 0 < each["issued_s"] < each["due_to_served_s"] < 60
    assert rollovers[0]["leaf_sha256"] != rollovers[2]["leaf_sha256"]
    # No listener could be interrupted the first time; afterwards it is closed for 300 ms.
    assert [each["interruption_ms"] for each in rollovers[:2]] == [0.0, 0.0]
    assert all(250 < each["interruption_ms"] < 5000 for each in rollovers[2:])


def test_the_old_secret_is_collected_and_the_services_name_the_new_one(
    kept: dict[str, Any],
) -> None:
    """At the end there is one TLS Secret; the load balancers keep every certificate."""
    report = kept["report"]
    first, second = (report["rollovers"][n]["to_secret"] for n in (0, 2))
    assert report["secrets"] == [second]
    assert sorted(report["load_balancer_certificates"]) == sorted([first, second] * 2)
    for service in report["services"]:
        annotations = service["metadata"]["annotations"]
        name = "service.beta.kubernetes.io/oci-load-balancer-"
        assert annotations[f"{name}tls-secret"] == f"certbaton/{second}"
        assert annotations[f"{name}ssl-ports"] == "443"
        ports = [
            (port["name"], port["port"], port["targetPort"]) for port in service["spec"]["ports"]
        ]
        assert ports == [("http", 80, 8080), ("https", 443, 8080)]


def test_requests_and_memory_keep_their_limits(kept: dict[str, Any]) -> None:
    """8 API requests a rollover (9 at first), 3 for a second Service, 8 at the CA, 4 to collect."""
    report = kept["report"]
    for number, each in enumerate(report["rollovers"]):
        assert set(each["api_requests"]) <= VERBS
        first = each["from_secret"] is None
        most = MOST_API + first + MORE_API_PER_SERVICE * (number % 2)
        assert 1 <= sum(each["api_requests"].values()) <= most, each
        assert 7 <= each["acme_requests"] <= MOST_ACME, each
    events = kept["audit"].events()
    counts = collecting(events, report["rollovers"][0]["to_secret"])
    assert sum(counts.values()) <= MOST_COLLECTING, counts
    assert 0 < report["daemon"]["peak_rss_mb"] <= MOST_RSS_MB
    assert report["daemon"]["cpu_s"] > 0


def test_the_daemon_works_with_the_charts_rights_alone(kept: dict[str, Any]) -> None:
    """It is told apart by its ServiceAccount, and nothing that it asked for was forbidden."""
    ours = [event for event in kept["audit"].events() if event.user == USER]
    assert ours
    assert not [event for event in ours if event.code in (401, 403)]


def test_nothing_is_left_behind(kept: dict[str, Any]) -> None:
    """No process and no temporary folder, and the output has no control characters."""
    assert kept["left"] == []
    assert "\x1b" not in kept["output"]
    assert kept["output"].rstrip().endswith("Every rollover was seen on the wire.")


@pytest.mark.parametrize("word", ["Starting", "Service shop/web made", "Service repointed"])
def test_an_interrupted_run_cleans_up(tmp_path: Path, word: str) -> None:
    """Ctrl-C, also twice, while servers start, before the daemon runs, amid a rollover."""
    with demo(tmp_path) as process:
        wait_for_line(process, word)
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        rest = process.stdout.read()
        code = process.wait(30)
    assert code == 0, rest
    assert rest.rstrip().endswith("Everything is stopped and cleaned up.")
    assert "Traceback" not in rest
    assert leftovers(tmp_path) == []


def test_a_run_that_was_to_end_by_itself_fails_if_interrupted(tmp_path: Path) -> None:
    """Exit code 130, and no JSON that could be taken for a result."""
    file = tmp_path / "demo.json"
    with demo(tmp_path / "tmp", "--renewals", "1", "--json", str(file)) as process:
        wait_for_line(process, "Starting")
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        process.stdout.read()
        assert process.wait(30) == 130
    assert not file.exists()
    assert leftovers(tmp_path / "tmp") == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--json", "f"), "--json needs --renewals"),
        (("--renewals", "-1"), "--renewals: at least 0"),
        (("--poll-interval", "0"), "--poll-interval: from 0.1 to 60"),
        (("--renewals", "1", "--json", "nowhere/f"), "there is no folder nowhere"),
    ],
)
def test_a_mistake_in_the_options_is_one_sentence(
    tmp_path: Path, words: tuple[str, ...], sentence: str
) -> None:
    """Exit code 2, before anything starts."""
    with demo(tmp_path, *words) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        assert process.wait(10) == 2
    assert sentence in output
