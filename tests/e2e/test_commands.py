"""``run``, ``once``, ``plan`` and ``config check``: exit codes, what they say, what they touch."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from e2e.harness import Certbaton, Ended, leaf_hash, name_of, proofs, served_leaf, until
from lab.boulder import Boulder, Ways
from lab.kube import KubeError
from lab.pebble import Pebble
from lab.process import Process
from lab.world import NAMESPACE, TLS_SECRET, World

pytestmark = pytest.mark.servers

Obj = dict[str, Any]


class Shop:
    """A Service, its certificate, and a release of its own."""

    def __init__(self, world: World, name: str, **top: Any) -> None:
        self.world = world
        self.name = name
        world.add_service("shop", name, f"{name}.example.test")
        entry = world.certificate(name, [f"{name}.example.test"], [("shop", name)])
        self.config = world.configuration(entry, healthPort=0, **top)
        self.certbaton = Certbaton(world, self.config, release=name)

    @property
    def served(self) -> bool:
        """The newest version is on the listener, and noted as served."""
        versions = self.certbaton.versions(self.name)
        return bool(
            versions
            and proofs(versions[-1])
            and self.world.tls_secret("shop", self.name) == name_of(versions[-1])
            and served_leaf(self.world, "shop", self.name) == leaf_hash(versions[-1])
        )


@pytest.fixture(scope="module")
def slow_ca(calm_world: World) -> Iterator[Boulder]:
    """A CA that signs for as long as a test wants (`signing`), and never sooner."""
    with (
        Pebble(
            calm_world.folder / "slow-ca",
            http_port=calm_world.ports(80),
            dns_server=calm_world.pebble.dns_server,
            profiles={"lab": 3600},
        ) as pebble,
        Boulder(pebble, calm_world.folder / "slow-boulder", ways=Ways(retry_after=1)) as boulder,
    ):
        yield boulder


@contextlib.contextmanager
def signing(ca: Boulder) -> Iterator[None]:
    """Whatever is finalized in this block is processing until its end."""
    ca.ways.processing = timedelta(hours=1)
    try:
        yield
    finally:
        ca.ways.processing = timedelta(0)


def issuer(ca: Pebble | Boulder) -> Obj:
    return {
        "lab": {
            "directory": ca.directory,
            "caBundle": str(ca.ca_file),
            "profile": "lab",
            "renewalInfo": False,
        }
    }


def sentence(ended: Ended) -> str:
    """The one line on standard error, with nothing on standard output that says more."""
    assert "Traceback" not in ended.output + ended.errors, ended
    (line,) = ended.errors.splitlines()
    assert line.startswith("certbaton: ")
    return line


# once


def test_once_ends_with_0_when_nothing_is_left_to_do(calm_world: World) -> None:
    """And at once the next time: what is due later is no wait."""
    shop = Shop(calm_world, "calm")
    ended = shop.certbaton.once()
    assert ended.code == 0, ended
    assert shop.served
    again = shop.certbaton.once()
    assert (again.code, again.done) == (0, [])


def test_once_ends_with_1_when_the_ca_cannot_be_reached(calm_world: World) -> None:
    """That is no failure of the certificate: it is told, and each process tries once."""
    nowhere = {"lab": {"directory": "https://127.0.0.1:9/dir"}}
    shop = Shop(calm_world, "no-ca", issuers=nowhere)
    ended = shop.certbaton.once()
    assert ended.code == 1, ended
    for _ in range(2):
        (told,) = ended.events("ca_away")
        assert "no answer to directory from 127.0.0.1" in told["error"]
        assert "failures" not in shop.certbaton.journal("no-ca")
        # A back-off is no wait.
        ended = shop.certbaton.once()
        assert (ended.code, ended.done) == (1, [])


def test_once_ends_with_1_when_the_ca_cannot_validate(calm_world: World) -> None:
    """With the CA's own words, the name that failed on record, and no order left open."""
    shop = Shop(calm_world, "elsewhere")
    calm_world.set_a("elsewhere.example.test", "127.0.0.99")
    ended = shop.certbaton.once()
    assert ended.code == 1, ended
    journal = shop.certbaton.journal("elsewhere")
    (failure,) = journal["failures"].values()
    assert "elsewhere.example.test" in failure["message"]
    assert [failed["name"] for failed in journal["failedValidations"]] == ["elsewhere.example.test"]
    assert "pending" not in journal
    assert shop.certbaton.versions("elsewhere") == []


def test_once_ends_with_6_while_the_controller_is_silent(calm_world: World) -> None:
    """Silence is no failure: nothing is rolled back or ordered again, and it ends well later."""
    shop = Shop(calm_world, "silent")
    until(lambda: calm_world.cloud.idle, "the controller does not come to rest")
    calm_world.cloud.faults.paused = True
    issued = calm_world.pebble.certificates_issued()
    try:
        began = time.monotonic()
        ended = shop.certbaton.once("10s")
        assert ended.code == 6, ended
        assert time.monotonic() - began < 30
        assert any(
            "waiting until its listener" in line["what"] for line in ended.events("still_waiting")
        )
    finally:
        calm_world.cloud.faults.paused = False
    ended = shop.certbaton.once()
    assert ended.code == 0, ended
    assert shop.served
    assert calm_world.pebble.certificates_issued() == issued + 1


# plan


def test_plan_says_what_and_why_and_touches_nothing(calm_world: World) -> None:
    """No write to the cluster, no request to the CA."""
    shop = Shop(calm_world, "planned")
    since = datetime.now(UTC)
    before = calm_world.service("shop", "planned")
    first = shop.certbaton.call("plan")
    assert first.code == 0, first
    assert "planned:" in first.output
    assert "there is no account at" in first.output
    assert calm_world.service("shop", "planned")["metadata"] == before["metadata"]
    assert shop.certbaton.journal("planned") == {}
    requests = calm_world.plane.audit(calm_world.user, since, datetime.now(UTC), leases=True)
    assert {event.verb for event in requests} <= {"get", "list"}
    assert calm_world.pebble.requests(since) == []

    assert shop.certbaton.once().code == 0
    rests = shop.certbaton.call("plan")
    assert rests.code == 0, rests
    assert "is due for renewal" in rests.output
    assert " do " not in rests.output
    (version,) = shop.certbaton.versions("planned")
    assert name_of(version) in rests.output


# config check


def test_a_mistake_in_the_configuration_is_one_sentence_and_exit_code_2(
    calm_world: World,
) -> None:
    """With the key's path; the same from the check and from every command."""
    shop = Shop(calm_world, "mistaken")
    checked = shop.certbaton.call("config", "check", "--no-caa")
    assert (checked.code, checked.errors) == (0, ""), checked
    shop.config["certificates"][0]["dnsName"] = shop.config["certificates"][0].pop("dnsNames")
    shop.certbaton.configure(shop.config)
    for words in (["config", "check"], ["plan"], ["once"], ["run"]):
        refused = shop.certbaton.call(*words)
        assert refused.code == 2, refused
        assert "certificates[0].dnsName: unknown key; did you mean dnsNames?" in sentence(refused)
        assert refused.output == ""


# run


def test_sigterm_in_the_middle_of_an_order_ends_it_quickly_and_it_is_resumed(
    calm_world: World, slow_ca: Boulder
) -> None:
    """The same order, found by its URL in the Journal: one newOrder, one certificate."""
    shop = Shop(calm_world, "resumed", issuers=issuer(slow_ca))
    orders, finalized = len(slow_ca.seen("newOrder")), len(slow_ca.finalized)
    issued = slow_ca.pebble.certificates_issued()
    with signing(slow_ca):
        daemon = shop.certbaton.start()
        until(lambda: len(slow_ca.finalized) > finalized, "no order was finalized")
        began = time.monotonic()
        daemon.stop(deadline=20)
        assert time.monotonic() - began < 10  # and not the minutes that an order is followed
        assert daemon.exit_code == 0, daemon.log_tail()
        assert shop.certbaton.journal("resumed")["pending"]["url"]
        assert shop.certbaton.versions("resumed") == []
    with shop.certbaton.start() as again:
        until(lambda: shop.served, f"not resumed:\n{again.log_tail()}")
        assert again.running
    assert again.exit_code == 0
    assert len(slow_ca.seen("newOrder")) == orders + 1
    assert slow_ca.pebble.certificates_issued() == issued + 1


def test_a_service_that_is_not_there_yet_is_waited_for_and_holds_nobody(
    calm_world: World,
) -> None:
    """Reported, no failure; other certificates go on, and it is picked up when it appears."""
    shop = Shop(calm_world, "early")
    late = calm_world.certificate("late", ["late.example.test"], [("shop", "late")])
    calm_world.set_a("late.example.test", calm_world.address_of("shop", "early"))
    shop.config["certificates"].insert(0, late)
    shop.certbaton.configure(shop.config)
    waiting = shop.certbaton.once("10s")
    assert waiting.code == 6, waiting
    assert waiting.events("failed") == []
    assert any(
        "Service shop/late is not there" in line["what"] for line in waiting.events("still_waiting")
    )
    assert shop.served
    with shop.certbaton.start() as daemon:
        until(lambda: "not there" in daemon.log_tail(), "its absence is not reported")
        calm_world.add_service("shop", "late")
        (version,) = shop.certbaton.versions("late")
        until(
            lambda: served_leaf(calm_world, "shop", "late") == leaf_hash(version),
            f"not picked up:\n{daemon.log_tail()}",
        )
    assert daemon.exit_code == 0


def test_a_ca_that_is_down_at_the_start_is_tried_again_until_it_answers(
    calm_world: World,
) -> None:
    """Told, backed off, counted, and nothing of it is left after success."""
    ca = Pebble(
        calm_world.folder / "late-ca",
        http_port=calm_world.ports(80),
        dns_server=calm_world.pebble.dns_server,
        profiles={"lab": 3600},
    )
    shop = Shop(calm_world, "patient", issuers=issuer(ca))
    shop.config["policy"]["caBackOffFirst"] = "1s"
    shop.certbaton.configure(shop.config)
    lines: list[str] = []
    with shop.certbaton.start(on_line=lines.append) as daemon:
        twice = "does not answer (2 time(s) in a row)"
        until(lambda: any(twice in line for line in list(lines)), "not tried twice")
        assert any("no answer to directory" in line for line in lines)
        assert daemon.running
        with ca:
            until(lambda: shop.served, f"not served:\n{daemon.log_tail()}")
            assert "failures" not in shop.certbaton.journal("patient")
    assert daemon.exit_code == 0


# Rights, and the API server


def bind(world: World, account: str) -> None:
    """Give *account* the chart's Roles."""
    subject = {"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}
    group = "/apis/rbac.authorization.k8s.io/v1"
    for path, kind, name in (
        (f"{group}/namespaces/{NAMESPACE}/rolebindings", "Role", "certbaton"),
        (f"{group}/clusterrolebindings", "ClusterRole", f"{NAMESPACE}.certbaton"),
    ):
        world.plane.admin.create(
            path,
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": f"{kind}Binding",
                "metadata": {"name": account},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
                "subjects": [subject],
            },
        )


def test_without_rights_one_clear_sentence_says_which_one_is_missing(calm_world: World) -> None:
    """No traceback; the running daemon waits for them, and goes on when it has them."""
    calm_world.plane.admin.create(
        f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts", {"metadata": {"name": "nobody"}}
    )
    token = calm_world.plane.token(NAMESPACE, "nobody")
    shop = Shop(calm_world, "rightless")
    powerless = Certbaton(
        calm_world,
        shop.config,
        release="rightless",
        kubeconfig=calm_world.plane.kubeconfig_for(token, NAMESPACE),
    )
    planned = powerless.call("plan")
    assert planned.code == 1, planned
    assert "certbaton is not allowed to list secrets in namespace certbaton" in sentence(planned)
    once = powerless.once("3s")
    assert once.code == 1, once
    assert "Traceback" not in str(once)
    assert any(
        "not allowed to list secrets" in line["error"] for line in once.events("not_done")
    ), once
    with powerless.start() as daemon:
        until(lambda: "not allowed to list secrets" in daemon.log_tail(), "nothing was said")
        assert daemon.running
        assert "Traceback" not in daemon.log_tail(100)
        bind(calm_world, "nobody")
        until(lambda: shop.served, f"it did not go on:\n{daemon.log_tail()}", 60)


def test_the_api_server_may_be_restarted_in_the_middle(calm_world: World, slow_ca: Boulder) -> None:
    """An order is under way meanwhile: it ends in one certificate, and the watches come back."""
    shop = Shop(calm_world, "restarted", issuers=issuer(slow_ca))
    issued, finalized = slow_ca.pebble.certificates_issued(), len(slow_ca.finalized)

    def served(daemon: Process) -> bool:
        assert daemon.running, daemon.log_tail()
        try:
            return shop.served
        except KubeError as error:
            if error.status not in (0, 429, 500, 503, 504):
                raise
            return False

    with shop.certbaton.start() as daemon:
        with signing(slow_ca):
            until(lambda: len(slow_ca.finalized) > finalized, "nothing was finalized")
            calm_world.plane.restart_apiserver(kill=True)
        until(lambda: served(daemon), f"it did not go on:\n{daemon.log_tail()}", 90)
        assert "Traceback" not in daemon.log.read_text()
        # The watches live: what changes now is heard of, and put right at once.
        calm_world.plane.kubectl(
            *("annotate", "service", "restarted", "-n", "shop", "--overwrite"),
            f"{TLS_SECRET}={NAMESPACE}/there-is-none",
        )
        until(lambda: served(daemon), f"the watch is dead:\n{daemon.log_tail()}", 60)
    assert slow_ca.pebble.certificates_issued() == issued + 1
    assert len(shop.certbaton.versions("restarted")) == 1


def test_no_line_of_any_log_is_unreadable(calm_world: World) -> None:
    """Every line that ``run`` printed in this file is JSON with a time and a level."""
    lines = [
        line
        for log in calm_world.folder.glob("release-*/run-*.log")
        for line in log.read_text().splitlines()
    ]
    assert lines
    for line in lines:
        entry = json.loads(line)
        assert {"at", "level", "event"} <= set(entry)
        at = datetime.fromisoformat(entry["at"])
        assert abs(datetime.now(UTC) - at) < timedelta(hours=1)
