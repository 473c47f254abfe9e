"""
Rollovers in a row on real servers, told by what was there and what was seen on the wire.

Two worlds run side by side, as most of it is waiting. In the *quick* one, five rollovers of a
certificate of http-01 that two Services in two namespaces share, and of one of dns-01. In the
*observed* one, the cloud controller polls as Oracle's was seen to. Renewals come earlier than by
default, at 0.4 and 0.35 of a lifetime.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from e2e.harness import (
    content,
    leaf_hash,
    name_of,
    not_before,
    our_events,
    proofs,
)
from e2e.history import FOREVER
from e2e.story import DUO, SLOW, THEIRS, WILD, Ref, Story, begin, follow, served_at
from lab.oci.controller import OBSERVED_POLL_S
from lab.world import NAMESPACE, SSL_PORTS, TLS_SECRET, World

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

ROLLOVERS = 5
QUICK_LIFETIME_S = 32
OBSERVED_LIFETIME_S = 120


@pytest.fixture(scope="module")
def stories() -> Iterator[tuple[Story, Story]]:
    with ExitStack() as stack:
        slow = stack.enter_context(
            World(lifetime=OBSERVED_LIFETIME_S, poll_interval=OBSERVED_POLL_S, interruption=1.0)
        )
        observed = begin(stack, slow, {"slow": SLOW}, due_at=0.35)
        fast = stack.enter_context(
            World(lifetime=QUICK_LIFETIME_S, poll_interval=0.5, dns=True, workers=3)
        )
        quick = begin(stack, fast, {"duo": DUO, "wild": WILD}, due_at=0.4)
        follow(quick, {"duo": DUO, "wild": WILD}, ROLLOVERS + 1)
        quick.end()
        follow(observed, {"slow": SLOW}, 2)
        observed.end()
        yield quick, observed


@pytest.fixture
def quick(stories: tuple[Story, Story]) -> Story:
    return stories[0]


@pytest.fixture
def observed(stories: tuple[Story, Story]) -> Story:
    return stories[1]


@pytest.fixture(params=["quick", "observed"])
def story(request: pytest.FixtureRequest, stories: tuple[Story, Story]) -> Story:
    return stories[0] if request.param == "quick" else stories[1]


# On the wire


@pytest.mark.parametrize(
    ("certificate", "services"), [("duo", DUO), ("wild", WILD)], ids=["http-01", "dns-01"]
)
def test_every_listener_served_every_version_in_turn(
    quick: Story, certificate: str, services: list[Ref]
) -> None:
    """Five rollovers in a row, each leaf seen in handshakes that are not the daemon's."""
    versions = quick.versions(certificate)
    assert len(versions) >= ROLLOVERS + 1
    for ref in services:
        seen = [sight.leaf for sight in quick.probers[ref].changes()]
        assert seen == [leaf_hash(version) for version in versions]


def test_with_the_polling_interval_as_observed_a_rollover_is_seen_on_the_wire(
    observed: Story,
) -> None:
    """About ten seconds from due to served, and the listener is closed for a part of them."""
    versions = observed.versions("slow")
    prober = observed.probers[SLOW[0]]
    assert [sight.leaf for sight in prober.changes()] == [leaf_hash(v) for v in versions]
    due = datetime.fromisoformat(observed.done("StageOrder", "slow")[1]["due"])
    sight = prober.first_seen(leaf_hash(versions[1]))
    assert sight is not None
    assert timedelta(0) < sight.utc - due < timedelta(seconds=30)
    interruption = prober.interruption_ms(*map(leaf_hash, versions[:2]))
    assert interruption < 2_500


def test_every_handover_was_proven_by_sight(story: Story) -> None:
    """None was given up as unproven, and nothing failed."""
    for certificate in ("duo", "wild", "slow"):
        for version in story.versions(certificate):
            assert set(proofs(version).values()) == {"wire"}
    assert [line for line in story.world.lines if line["event"] == "failed"] == []
    assert not any(line["level"] in ("warning", "error") for line in story.world.lines)


# One listener at a time


def test_the_listeners_of_one_certificate_are_never_in_change_at_the_same_time(
    quick: Story,
) -> None:
    """By the load balancers' own work requests, looked at every few milliseconds."""
    uids = {quick.before[ref]["metadata"]["uid"] for ref in DUO}
    assert uids <= quick.sampler.seen
    assert not any(uids <= together for together in quick.sampler.together)


def test_the_second_service_is_repointed_when_the_first_serves(quick: Story) -> None:
    """By the order of etcd's revisions: served is noted first, then the next Service is written."""
    first, second = DUO
    for version in map(name_of, quick.versions("duo")):
        begun = {
            key: begin
            for key, secret, begin, _ in quick.history.references()
            if secret == (NAMESPACE, version)
        }
        assert begun[first] < served_at(quick, version, first) < begun[second]


# Names


def test_no_service_ever_named_a_secret_that_was_not_there(story: Story) -> None:
    assert story.history.references()
    assert story.history.dangling() == []


def test_a_version_stays_until_long_after_the_last_service_left_it(story: Story) -> None:
    """All but the newest and one for rollback are collected, after the next one's handover."""
    gone = {
        state.key[1]: state.version
        for state in story.history.states("Secret")
        if state.obj is None and state.key[1].partition("-")[0] in ("duo", "wild", "slow")
    }
    for certificate, services in (("duo", DUO), ("wild", WILD), ("slow", SLOW)):
        versions = [name_of(version) for version in story.versions(certificate)]
        assert [name for name in versions if name not in gone] == versions[-2:]
        for version, successor in pairwise(versions):
            if version in gone:
                assert all(served_at(story, successor, ref) < gone[version] for ref in services)
                assert all(
                    end <= gone[version]
                    for _, secret, _, end in story.history.references()
                    if secret == (NAMESPACE, version)
                )


def test_a_name_never_comes_back_with_other_content(story: Story) -> None:
    """In the cluster, and on the load balancer, which keeps what it got first."""
    for certificate, services in (("duo", DUO), ("wild", WILD), ("slow", SLOW)):
        for version in story.versions(certificate):
            assert len(story.history.contents(name_of(version))) == 1
            for ref in services:
                kept = story.world.cloud.load_balancer(*ref).certificate(name_of(version))
                assert kept.chain == content(version, "tls.crt")


# What is others'


def test_nothing_of_others_was_touched(story: Story) -> None:
    """Annotations, ports, selector, labels: what was there before is there, and nothing else."""
    for ref, before in story.before.items():
        after = story.world.service(*ref)
        ours = {TLS_SECRET, SSL_PORTS}
        annotations = after["metadata"]["annotations"]
        assert ours <= set(annotations)
        assert {k: v for k, v in annotations.items() if k not in ours} == THEIRS
        ports = after["spec"].pop("ports")
        assert [port for port in ports if port["port"] != 443] == before["spec"].pop("ports")
        (https,) = [port for port in ports if port["port"] == 443]
        assert (https["name"], https["targetPort"]) == ("https", 8080)
        assert after["spec"] == before["spec"]
        assert after["metadata"].get("labels") == before["metadata"].get("labels")
        assert after["metadata"]["uid"] == before["metadata"]["uid"]


def test_port_80_was_never_interrupted_and_no_challenge_is_left(quick: Story) -> None:
    assert quick.world.dns is not None
    assert quick.world.dns.txt("_acme-challenge.wild.example.test.") == []
    for ref in DUO + WILD:
        uid = quick.before[ref]["metadata"]["uid"]
        listeners = [what for what, of in quick.world.cloud.api.calls if of == uid]
        # 80 and 9100 came with the load balancer; 443 is made once, then changed.
        assert listeners.count("CreateListener") == 1
        assert "DeleteListener" not in listeners


# How many requests


@pytest.mark.parametrize(
    ("certificate", "services", "limit"),
    [("wild", WILD, 8), ("duo", DUO, 8 + 3)],
    ids=["one-service", "two-services"],
)
def test_a_rollover_takes_few_api_requests(
    quick: Story, certificate: str, services: list[Ref], limit: int
) -> None:
    """
    From due to served, our own Events included: 8, one more the first time, and 3 more for a
    further Service.

    Collecting is counted by itself, though it may fall into the same seconds.
    """
    staged = quick.done("StageOrder", certificate)
    versions = quick.versions(certificate)
    for line, version in zip(staged, versions, strict=True):
        due = datetime.fromisoformat(line["due"])
        noted = [
            datetime.fromisoformat(done["at"])
            for done in quick.done("MarkServed", certificate)
            if name_of(version) in done["why"]
        ]
        assert len(noted) == len(services)
        served = max(noted) + timedelta(seconds=0.5)  # the Event follows the note
        others = {name_of(other) for other in versions if other is not version}
        names = [certificate, *(service for _, service in services)]
        told = [
            f"{event.received} {event.verb} {event.uri} {event.code}"
            for event in quick.requests(due, served, *names)
            if event.name not in others
        ]
        first = version is versions[0]
        assert len(told) <= limit + first, "\n".join(told)


def test_collecting_takes_few_api_requests(quick: Story) -> None:
    """At most 4 each, and the pages of one list of all Services."""
    for certificate in ("duo", "wild"):
        versions = quick.versions(certificate)
        for version, successor in zip(versions, versions[2:], strict=False):
            since = not_before(successor)
            requests = quick.requests(since, quick.ended, name_of(version))
            told = [f"{event.verb} {event.name}" for event in requests]
            assert told, "it was not collected"
            assert len(told) <= 4, told
    listed = [
        event
        for event in quick.world.plane.audit(quick.world.user, not_before(versions[1]), quick.ended)
        if (event.verb, event.resource, event.namespace) == ("list", "services", "")
    ]
    assert len(listed) <= len(quick.done("DeleteVersion", "duo")) + len(
        quick.done("DeleteVersion", "wild")
    )


def test_an_issuance_takes_at_most_eight_acme_requests(observed: Story) -> None:
    """From newOrder to download, a nonce included; the account is known."""
    staged = datetime.fromisoformat(observed.done("StageOrder", "slow")[1]["due"])
    closed = datetime.fromisoformat(observed.done("CloseOrder", "slow")[1]["at"])
    requests = observed.world.pebble.requests(staged, closed + timedelta(seconds=0.5))
    assert len(requests) <= 8, requests
    # on a slow machine another renewal comes before the story ends: that is not its matter
    assert observed.world.pebble.certificates_issued(until=closed) == 2


def test_a_resting_daemon_makes_hardly_any_requests(observed: Story) -> None:
    """Between the end of one handover and the next renewal: at most 6 a minute."""
    served = datetime.fromisoformat(observed.done("MarkServed", "slow")[0]["at"])
    since = served + timedelta(seconds=1)
    due = datetime.fromisoformat(observed.done("StageOrder", "slow")[1]["due"])
    requests = observed.world.plane.audit(observed.world.user, since, due, leases=True)
    assert due - since > timedelta(seconds=20)
    assert len(requests) <= 6 * (due - since) / timedelta(minutes=1), requests


# Keys


def test_no_key_material_is_told_to_anybody(story: Story) -> None:
    """Neither keys nor tokens are in logs, in Events or on Services."""
    keys = {
        content(state.obj, entry).decode()
        for state in story.history.states("Secret")
        if state.obj is not None
        for entry in state.obj.get("data", {})
        if entry == "tls.key"
    }
    assert len(keys) >= 1 + len(story.before)  # the account's, and the versions'
    secrets = set()
    for pem in keys:
        body = [line for line in pem.splitlines() if line and not line.startswith("-----")]
        # A last line may be short enough to be met by chance.
        secrets |= {line for line in body if len(line) >= 32}
    tokens = {path.rpartition("/")[2] for path in story.world.app.paths if "acme-challenge" in path}
    assert tokens
    told = "\n".join(log.read_text() for log in story.world.folder.glob("daemon-*.log"))
    assert "StageOrder" in told
    for ref in story.before:
        told += json.dumps(our_events(story.world, *ref)) + json.dumps(story.world.service(*ref))
    assert "PRIVATE KEY" not in told
    assert [secret for secret in secrets | tokens if secret in told] == []
    assert re.findall(r"eyJ[A-Za-z0-9_-]{20,}", told) == []  # a ServiceAccount's token, a JWS


def test_each_service_ends_with_the_newest_version(story: Story) -> None:
    """And no revision since says otherwise."""
    for ref in story.before:
        last = [item for item in story.history.references() if item[0] == ref][-1]
        certificate = last[1][1].partition("-")[0]
        assert last[1][1] == name_of(story.versions(certificate)[-1])
        assert last[3] == FOREVER
