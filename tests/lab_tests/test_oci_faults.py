"""How the simulated controller, its Events and its routes can be made to misbehave."""

from __future__ import annotations

import http.client
import itertools
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial

import pytest

from lab.kube import Kube
from lab.oci import ApiFault, Prober
from lab.oci.prober import handshake
from lab_tests.oci_world import World, api_server, certificate, served, sha, until


@pytest.fixture(scope="module", params=["memory", pytest.param("real", marks=pytest.mark.servers)])
def kube(request: pytest.FixtureRequest) -> Iterator[Kube]:
    with api_server(request.param) as found:
        yield found


@pytest.fixture
def world(kube: Kube) -> Iterator[World]:
    with World(kube) as found:
        yield found


@pytest.fixture
def serving(world: World) -> World:
    """Service "shop" serves a-1; a-2 is there to be changed to."""
    world.secret("a-1")
    world.secret("a-2")
    world.tls_service("a-1")
    world.serving("a-1")
    until(lambda: world.ingress())
    world.settled()
    return world


# The inside route


def test_inside_plain_http_answers_and_the_handshake_fails(serving: World) -> None:
    host, port = serving.controller.inside_endpoint(serving.namespace, "shop")
    with pytest.raises(OSError, match=r"(?i)ssl|version|record|eof"):
        handshake(host, port, "shop.example")
    connection = http.client.HTTPConnection(host, port, timeout=5)
    connection.request("GET", "/")
    assert connection.getresponse().read() == b"hello from shop-0\n"
    connection.close()


def test_inside_a_foreign_leaf(serving: World) -> None:
    serving.faults.inside = "foreign"
    seen = handshake(*serving.controller.inside_endpoint(serving.namespace, "shop"), "shop.example")
    assert seen == serving.controller.inside.leaf(serving.namespace, "shop")
    assert seen not in (sha("a-1"), sha("a-2"))


def test_inside_our_old_leaf_or_what_the_pods_mount(serving: World) -> None:
    serving.faults.inside = "old"
    inside = serving.controller.inside_endpoint(serving.namespace, "shop")
    serving.annotate(tls_secret="a-2")
    serving.serving("a-2")
    assert handshake(*inside, "shop.example") == sha("a-1")
    serving.faults.inside_pem = certificate("mounted")
    assert handshake(*inside, "shop.example") == sha("mounted")


def test_the_status_can_lead_inside_unless_the_mode_is_proxy(serving: World) -> None:
    serving.faults.publish_inside = True
    serving.annotate(other="1")
    inside, _ = serving.controller.inside_endpoint(serving.namespace, "shop")
    until(lambda: [one["ip"] for one in serving.ingress()] == [inside])
    serving.annotate(ip_mode="proxy")
    addresses = serving.balancer().addresses
    until(lambda: [one["ip"] for one in serving.ingress()] == addresses)


# OCI's side


def test_a_hung_work_request_delays_others_and_is_reported_busy(kube: Kube) -> None:
    with World(kube) as world:
        world.secret("a-1")
        world.secret("a-2")
        world.tls_service("a-1")
        balancer = world.serving("a-1")
        world.faults.hang.add("UpdateListener")
        world.annotate(tls_secret="a-2")
        until(lambda: "UpdateListener" in world.operations())
        # One worker: another Service has to wait.
        world.service("other")
        with pytest.raises(LookupError):
            world.controller.load_balancer(world.namespace, "other", timeout=0.3)
        # The load balancer takes nothing else meanwhile, nor does a controller begun anew.
        assert world.controller.node_changed() == 0
        assert "already in progress" in world.messages("UpdateLoadBalancerFailed")
        world.controller.stop()
        world.controller.start()
        until(lambda: "work requests in progress" in world.messages("SyncLoadBalancerFailed"))
        world.faults.hang.clear()
        until(lambda: served(balancer) == sha("a-2"))
        world.balancer("other")


def test_the_api_answers_429_and_the_sync_is_tried_again(serving: World) -> None:
    serving.faults.api.append(ApiFault(429, "TooManyRequests", operation="CreateCertificate"))
    serving.annotate(tls_secret="a-2")
    until(lambda: "Http Status Code: 429" in serving.messages("SyncLoadBalancerFailed"))
    serving.serving("a-2")


def test_a_poll_that_meets_429_or_5xx_is_simply_repeated(serving: World) -> None:
    serving.faults.api += [
        ApiFault(429, "TooManyRequests", operation="GetWorkRequest"),
        ApiFault(503, "ServiceUnavailable", operation="GetWorkRequest"),
    ]
    serving.annotate(tls_secret="a-2")
    serving.serving("a-2")
    assert serving.events("SyncLoadBalancerFailed") == []


def test_the_client_s_own_limit_has_neither_status_nor_operation(serving: World) -> None:
    serving.faults.api.append(ApiFault(text="rate limited(true) CreateCertificate"))
    serving.annotate(tls_secret="a-2")
    until(lambda: "rate limited" in serving.messages("SyncLoadBalancerFailed"))
    assert "Http Status Code" not in serving.messages("SyncLoadBalancerFailed")


def test_an_operation_in_progress_answers_409(serving: World) -> None:
    serving.faults.hang.add("CreateCertificate")
    api, balancer = serving.controller.api, serving.balancer()
    serving.annotate(tls_secret="a-2")
    until(lambda: "CreateCertificate" in serving.operations())
    with pytest.raises(Exception, match=r"Http Status Code: 409\. Error Code: Conflict"):
        api.delete_listener(balancer, 443)
    serving.faults.hang.clear()
    serving.serving("a-2")


def test_a_refused_certificate_leaves_the_old_on_the_listener(serving: World) -> None:
    serving.faults.refuse.add("a-2")
    serving.annotate(tls_secret="a-2")
    until(lambda: serving.count("SyncLoadBalancerFailed") >= 2)
    said = serving.messages("SyncLoadBalancerFailed")
    assert said.startswith(
        "Error syncing load balancer: failed to ensure load balancer: ensuring ssl certificates: "
        "Error returned by LoadBalancer Service. Http Status Code: 400. "
        "Error Code: InvalidParameter. "
    )
    assert "Operation Name: CreateCertificate" in said
    before = serving.operations()
    # Pointing back needs no CreateCertificate, and nothing changes on the wire.
    serving.annotate(tls_secret="a-1")
    until(lambda: serving.count("EnsuredLoadBalancer") == 2)
    assert serving.operations() == before
    assert served(serving.balancer()) == sha("a-1")


@pytest.mark.parametrize("broken", ["pem", "key", "pair"])
def test_a_broken_certificate_is_refused_with_invalid_parameter(
    serving: World, broken: str
) -> None:
    chain, key = certificate("a-2")
    pem = {
        "pem": (b"no certificate", key),
        "key": (chain, b"no key"),
        "pair": (chain, certificate("a-1")[1]),
    }[broken]
    serving.secret("bad", pem)
    serving.annotate(tls_secret="bad")
    until(lambda: "Error Code: InvalidParameter" in serving.messages("SyncLoadBalancerFailed"))
    assert "bad" not in serving.balancer().certificates


def test_a_work_request_that_fails_tells_neither_status_nor_operation(serving: World) -> None:
    serving.faults.fail_work["UpdateListener"] = "out of order"
    serving.annotate(tls_secret="a-2")
    until(lambda: "failed: out of order" in serving.messages("SyncLoadBalancerFailed"))
    assert "Operation Name" not in serving.messages("SyncLoadBalancerFailed")
    assert served(serving.balancer()) == sha("a-1")
    serving.faults.fail_work.clear()
    serving.serving("a-2")


def test_a_tls_alert_on_the_listener(serving: World) -> None:
    serving.faults.tls_alert.add(443)
    with pytest.raises(OSError, match=r"(?i)alert"):
        handshake(*serving.balancer().endpoint(443), "shop.example")
    serving.faults.tls_alert.clear()
    assert served(serving.balancer()) == sha("a-1")


# Syncs


def test_a_failure_can_come_after_the_listener_was_switched(serving: World) -> None:
    serving.faults.fail_after_listener = (
        "The Load Balancer service reserved IP cannot be updated after the Load Balancer is "
        "created."
    )
    serving.annotate(tls_secret="a-2")
    until(lambda: "reserved IP" in serving.messages("SyncLoadBalancerFailed"))
    assert served(serving.balancer()) == sha("a-2")


def test_a_sync_can_begin_after_the_patch_and_work_on_the_service_as_it_was(
    serving: World,
) -> None:
    serving.faults.stale_syncs = 1
    serving.faults.hang.add("CreateCertificate")
    serving.annotate(tls_secret="a-2")
    # A whole sync, begun and ended after the patch, that changed nothing.
    until(lambda: serving.count("EnsuredLoadBalancer") == 2)
    assert served(serving.balancer()) == sha("a-1")
    serving.faults.hang.clear()
    serving.serving("a-2")
    until(lambda: serving.count("EnsuredLoadBalancer") == 3)


def test_silence_and_then_it_goes_on(serving: World) -> None:
    serving.faults.paused = True
    serving.annotate(tls_secret="a-2")
    with Prober(*serving.balancer().endpoint(443), "shop.example", interval=0.02) as prober:
        until(lambda: len(prober.sights) > 10)
        assert {one.leaf for one in prober.sights} == {sha("a-1")}
        assert serving.count("EnsuringLoadBalancer") == 1
        serving.faults.paused = False
        prober.wait_for(sha("a-2"), 10)


def test_retries_back_off_and_start_anew_after_a_success(kube: Kube) -> None:
    with World(kube, backoff_scale=0.04) as world:
        world.tls_service("a-1")
        times: list[float] = []

        def tried() -> bool:
            if world.count("EnsuringLoadBalancer") > len(times):
                times.append(time.monotonic())
            return len(times) == 4

        until(tried)
        gaps = [after - before for before, after in itertools.pairwise(times)]
        assert gaps[0] < gaps[1] < gaps[2]
        assert gaps[0] > 0.1
        world.secret("a-1")
        world.serving("a-1")


# Events


def test_25_events_per_service_and_type_then_silence(serving: World) -> None:
    for _ in range(30):
        serving.controller.node_changed()
    # Two Normal Events were there before; the recorder counts on though nobody sees it.
    assert serving.count("UpdatedLoadBalancer") == 23
    serving.annotate(tls_secret="a-2")
    serving.serving("a-2")
    assert serving.count("EnsuredLoadBalancer") == 1
    # Failures have a budget of their own.
    serving.annotate(tls_secret="a-3")
    until(lambda: serving.events("SyncLoadBalancerFailed"))


def test_failures_with_ids_in_their_text_are_folded(serving: World) -> None:
    serving.faults.refuse.add("*")
    serving.annotate(tls_secret="a-2")

    def folded() -> list[str]:
        return [
            one["message"]
            for one in serving.events("SyncLoadBalancerFailed")
            if one["message"].startswith("(combined from similar events): ")
        ]

    for number in range(12):
        failures = serving.count("SyncLoadBalancerFailed")
        serving.annotate(other=str(number))
        until(partial(_more_failures_than, serving, failures))
    until(folded)
    assert len(serving.events("SyncLoadBalancerFailed")) == 10
    first = folded()[0]
    assert "Error Code: InvalidParameter" in first
    # Behind the prefix stands the newest message.
    serving.annotate(other="again")
    until(lambda: len(folded()) == 1 and folded()[0] != first)


def _more_failures_than(world: World, count: int) -> bool:
    return world.count("SyncLoadBalancerFailed") > count


def test_no_events_at_all(serving: World) -> None:
    serving.faults.events = False
    serving.annotate(tls_secret="a-2")
    serving.serving("a-2")
    serving.settled()
    assert serving.count("EnsuringLoadBalancer") == 1


def test_events_arrive_late_with_the_time_at_which_they_were_made(serving: World) -> None:
    serving.faults.event_delay_s = 1.2
    before = serving.controller.recorder.now()
    serving.annotate(tls_secret="a-2")
    serving.serving("a-2")
    assert serving.count("EnsuringLoadBalancer") == 1
    until(lambda: serving.count("EnsuredLoadBalancer") == 2)
    last = serving.events("EnsuringLoadBalancer")[0]["lastTimestamp"]
    assert last >= before.strftime("%Y-%m-%dT%H:%M:%SZ")


def test_their_clock_is_the_controller_s(serving: World) -> None:
    serving.faults.clock_offset_s = 3600
    serving.annotate(other="1")
    until(lambda: serving.count("EnsuredLoadBalancer") == 2)
    event = serving.events("EnsuredLoadBalancer")[0]
    assert event["lastTimestamp"] > event["firstTimestamp"]
    assert event["lastTimestamp"] > datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_events_expire_and_are_made_anew_under_the_count_they_had(serving: World) -> None:
    assert serving.controller.recorder.expire(serving.namespace) >= 2
    assert serving.events() == []
    serving.annotate(other="1")
    until(lambda: serving.events("EnsuredLoadBalancer"))
    assert serving.events("EnsuredLoadBalancer")[0]["count"] == 2


def test_anybody_in_the_namespace_can_forge_them(serving: World) -> None:
    service = serving.get()
    serving.controller.recorder.forge(
        service, "Normal", "EnsuredLoadBalancer", "Ensured load balancer", resource_version="7"
    )
    forged = serving.events("EnsuredLoadBalancer")[-1]
    assert forged["involvedObject"]["resourceVersion"] == "7"
    assert forged["source"]["component"] == "service-controller"
