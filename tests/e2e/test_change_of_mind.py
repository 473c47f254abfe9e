"""
People change their minds, and delete what they should not: each ends well by itself.

One daemon, a certificate for each case. All are obtained and served; then come new configuration
and what is done by hand, all at once, with the daemon down for a moment; then all are looked at.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography import x509

from e2e.harness import leaf, leaf_hash, name_of, proofs, served_leaf
from e2e.history import History
from e2e.running import Running
from lab.kube import KubeError
from lab.oci.faults import Faults
from lab.pebble import Pebble
from lab.world import NAMESPACE, SSL_PORTS, TLS_SECRET, World

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]

Obj = dict[str, Any]

SECRETS = f"/api/v1/namespaces/{NAMESPACE}/secrets"
RELEASE = "minds"
POLICY = {
    "pollListener": "250ms",
    "renewJitter": 0,
    "backOff": ["1s"],
    "retentionCeiling": "1s",
    "sweepCeiling": "1s",
    "keepPrevious": 0,
}
# Certificates of the first configuration that keep their one Service throughout.
STEADY = ("more", "less", "moves-in", "journal", "account", "forgotten", "deleted", "restored")
ISSUERS = ("lab", "other", "third")


@dataclass
class Minds:
    """The world after everybody changed their minds."""

    world: World
    running: Running
    history: History
    firsts: dict[str, Obj]
    journals: dict[str, Obj]
    accounts: dict[str, Obj]
    issued: dict[str, int]
    other: Pebble
    third: Pebble


def entry(world: World, name: str, *more: str, services: tuple[str, ...] = (), **keys: Any) -> Obj:
    """A certificate of dns-01; without *services*, for the one called like itself."""
    names = [f"{host}.example.test" for host in (name, *more)]
    found = world.certificate(
        name, names, [("shop", one) for one in services or (name,)], solver="dns"
    )
    return {**found, **keys}


def account_of(world: World, directory: str) -> Obj | None:
    """The Secret of the account at a CA."""

    for secret in world.plane.admin.list(
        SECRETS,
        labelSelector=f"certbaton.io/kind=account,certbaton.io/instance={RELEASE}.certbaton",
    )["items"]:
        noted = json.loads(base64.b64decode(secret["data"]["account"]))
        if noted["directory"] == directory:
            return {**secret, "account": noted}
    return None


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World(
        lifetime=3600, poll_interval=0.2, interruption=0.1, dns=True, workers=8, faults=Faults()
    ) as world:
        world.install(world.configuration())
        yield world


@pytest.fixture(scope="module")
def minds(world: World) -> Iterator[Minds]:
    assert world.dns is not None
    with ExitStack() as stack:
        others = [
            stack.enter_context(
                Pebble(
                    world.folder / name,
                    http_port=world.ports(80),
                    dns_server=world.dns.address,
                    profiles={"lab": 3600},
                )
            )
            for name in ISSUERS[1:]
        ]
        other, third = others
        issuers: Obj = {
            name: {
                "directory": ca.directory,
                "caBundle": str(ca.ca_file),
                "profile": "lab",
                "renewalInfo": False,
            }
            for name, ca in zip(ISSUERS, (world.pebble, *others), strict=True)
        }
        for name in (*STEADY, "again", "passed-on", "dropped", "let-go"):
            world.add_service("shop", name)
        before = [
            entry(world, "more"),
            entry(world, "less", "www.less"),
            entry(world, "moves-in"),  # to another issuer
            entry(world, "journal"),
            entry(world, "account", issuer="third"),
            entry(world, "forgotten", issuer="other"),
            entry(world, "deleted"),
            entry(world, "restored"),
            entry(world, "again"),
            entry(world, "giver", services=("passed-on",)),
            entry(world, "dropped"),
            entry(world, "let-go"),
        ]
        running = Running(world, RELEASE, *before, policy=POLICY, issuers=issuers)
        history = stack.enter_context(History(world.plane.admin, NAMESPACE))
        stack.enter_context(running)
        services = {"giver": "passed-on"}
        firsts = {
            name: running.wait_whole(name, services.get(name, name))
            for name in (str(one["name"]) for one in before)
        }
        # an order is closed a moment after its certificate is there
        running.wait(
            lambda: not any("pending" in running.certbaton.journal(name) for name in firsts),
            "orders stay open",
        )
        there = Minds(
            world,
            running,
            history,
            firsts,
            {name: running.certbaton.journal(name) for name in firsts},
            {name: account_of(world, issuers[name]["directory"]) or {} for name in ISSUERS},
            {},
            other,
            third,
        )
        running.__exit__(None, None, None)
        by_hand(there)
        there.issued = {
            name: ca.certificates_issued()
            for name, ca in zip(ISSUERS, (world.pebble, *others), strict=True)
        }
        running.restart(
            entry(world, "more", "www.more"),
            entry(world, "less"),
            entry(world, "moves-in", issuer="other"),
            entry(world, "journal"),
            entry(world, "account", "www.account", issuer="third"),
            entry(world, "forgotten", "www.forgotten", issuer="other"),
            entry(world, "deleted"),
            entry(world, "restored"),
            entry(world, "again"),
            {**entry(world, "giver"), "services": []},
            entry(world, "taker", services=("passed-on",)),
        )
        yield there


def by_hand(minds: Minds) -> None:
    """What people do while nobody looks."""
    admin, firsts = minds.world.plane.admin, minds.firsts
    admin.delete(f"{SECRETS}/journal.journal.{RELEASE}.{NAMESPACE}")
    admin.delete(f"{SECRETS}/{name_of(minds.accounts['third'])}")
    minds.other.restart()
    # two Services from a backup: one names a Secret that there never was here, the other one's is
    # there; neither has managed fields of ours
    for name, secret in (("restored", "restored-20200101-0123456789"), ("again", None)):
        admin.delete(f"/api/v1/namespaces/shop/services/{name}")
        minds.running.wait(lambda name=name: gone(minds.world, name), f"{name} stays")  # type: ignore[misc]
        minds.world.add_service(
            "shop",
            name,
            annotations={
                TLS_SECRET: f"{NAMESPACE}/{secret or name_of(firsts[name])}",
                SSL_PORTS: "443",
            },
            wait=secret is None,
        )


def gone(world: World, service: str) -> bool:
    try:
        world.service("shop", service)
    except KubeError as error:
        return error.status == 404
    return False


def dns_names(version: Obj) -> set[str]:
    """Of a version's leaf."""
    names = leaf(version).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return set(names.value.get_values_for_type(x509.DNSName))


# The configuration


@pytest.mark.parametrize(
    ("name", "hosts"),
    [("more", {"more", "www.more"}), ("less", {"less"})],
    ids=["added", "removed"],
)
def test_names_that_change_bring_a_new_certificate(
    minds: Minds, name: str, hosts: set[str]
) -> None:
    """It is handed over, and the old one is collected."""
    version = minds.running.wait_whole(name, than=name_of(minds.firsts[name]))
    assert dns_names(version) == {f"{host}.example.test" for host in hosts}
    minds.running.wait(lambda: len(minds.running.versions(name)) == 1, "the old one stays")


def test_another_issuer_brings_a_new_certificate(minds: Minds) -> None:
    """As from staging to production."""
    version = minds.running.wait_whole("moves-in", than=name_of(minds.firsts["moves-in"]))
    directory = version["metadata"]["annotations"]["certbaton.io/directory"]
    assert directory == minds.other.directory
    assert leaf(version).issuer != leaf(minds.firsts["moves-in"]).issuer


def test_a_service_that_is_moved_to_another_certificate_gets_that_one(minds: Minds) -> None:
    """The one that it had is kept, since it is still configured, and named by nobody."""
    version = minds.running.wait_whole("taker", "passed-on")
    assert minds.running.names("passed-on", version)
    assert [name_of(one) for one in minds.running.versions("giver")] == [
        name_of(minds.firsts["giver"])
    ]


def test_a_certificate_that_left_the_configuration_stays_while_it_is_named(minds: Minds) -> None:
    """It is reported, and nobody renews it."""
    minds.running.wait_told(
        '"turn"',
        "no longer configured",
        name_of(minds.firsts["dropped"]),
        since=minds.running.began,
    )
    assert minds.running.names("dropped", minds.firsts["dropped"])
    assert len(minds.running.versions("dropped")) == 1


def test_it_is_collected_when_nobody_names_it_any_more(minds: Minds) -> None:
    """The Service went with it."""
    assert len(minds.running.versions("let-go")) == 1
    minds.world.plane.admin.delete("/api/v1/namespaces/shop/services/let-go")
    minds.running.wait(lambda: not minds.running.versions("let-go"), "it stays")


# By hand


def test_a_journal_that_was_deleted_brings_no_order(minds: Minds) -> None:
    """While nobody looked: the version is there and good, and its date counts for the limits."""
    assert [name_of(one) for one in minds.running.versions("journal")] == [
        name_of(minds.firsts["journal"])
    ]
    assert minds.running.names("journal", minds.firsts["journal"])
    assert minds.running.certbaton.journal("journal").get("orders", []) == []


def test_a_journal_that_is_deleted_under_a_running_daemon_is_put_back(minds: Minds) -> None:
    """With the records that our own limits are counted from."""
    running = minds.running
    before = running.certbaton.journal("deleted")
    assert len(before["orders"]) == 1
    minds.world.plane.admin.delete(f"{SECRETS}/journal.deleted.{RELEASE}.{NAMESPACE}")
    running.wait(lambda: running.done("PutBackJournal", "deleted"), "it stays away")
    assert running.certbaton.journal("deleted") == before


def test_an_account_that_was_deleted_is_made_anew(minds: Minds) -> None:
    """With another key; what was obtained with the old one is renewed with the new."""
    minds.running.wait_whole("account", than=name_of(minds.firsts["account"]))
    account = account_of(minds.world, minds.third.directory)
    assert account is not None
    assert account["account"]["url"] is not None
    assert account["data"]["tls.key"] != minds.accounts["third"]["data"]["tls.key"]


def test_a_ca_that_forgot_the_account_is_given_it_again(minds: Minds) -> None:
    """With the same key."""
    minds.running.wait_whole("forgotten", than=name_of(minds.firsts["forgotten"]))
    account = account_of(minds.world, minds.other.directory)
    assert account is not None
    assert account["account"]["url"] is not None
    assert account["data"]["tls.key"] == minds.accounts["other"]["data"]["tls.key"]


def test_a_version_that_was_deleted_while_it_is_named_is_put_back(minds: Minds) -> None:
    """Same name, same content, and what was noted of it; the listener never noticed."""
    first = minds.firsts["deleted"]
    minds.world.plane.admin.delete(f"{SECRETS}/{name_of(first)}")
    (back,) = minds.running.wait(lambda: minds.running.versions("deleted"), "it stays away")
    assert back["metadata"]["uid"] != first["metadata"]["uid"]
    assert name_of(back) == name_of(first)
    assert back["data"] == first["data"]
    assert back["immutable"]
    assert proofs(back) == proofs(first)
    minds.running.wait(
        lambda: minds.running.done("PutBack", "deleted"), "it is not told who put it back"
    )
    assert minds.running.names("deleted", first)


def test_a_version_that_was_deleted_while_the_daemon_was_down_is_made_up_for(
    minds: Minds,
) -> None:
    """Its content is known to nobody: another one is ordered, and the Service names that."""
    running, first = minds.running, minds.firsts["journal"]
    running.__exit__(None, None, None)
    minds.world.plane.admin.delete(f"{SECRETS}/{name_of(first)}")
    running.__enter__()
    version = running.wait_whole("journal", than=name_of(first))
    assert running.names("journal", version)


def test_a_restored_service_that_names_what_is_not_there_gets_the_version(minds: Minds) -> None:
    """Without it the cloud would not even make its load balancer. Nothing is ordered for it."""
    version = minds.running.wait_whole("restored")
    assert name_of(version) == name_of(minds.firsts["restored"])
    assert minds.world.address_of("shop", "restored")


def test_a_restored_service_is_ours_again(minds: Minds) -> None:
    """It named the right Secret from the start; port 443 was missing, and is there."""
    version = minds.running.wait_whole("again")
    assert name_of(version) == name_of(minds.firsts["again"])


def test_an_old_version_that_comes_back_from_a_snapshot_is_collected_again(minds: Minds) -> None:
    """As etcd was restored: it is marked and deleted like any that nobody needs."""
    newest = minds.running.wait_whole("more", than=name_of(minds.firsts["more"]))
    minds.running.wait(lambda: len(minds.running.versions("more")) == 1, "the old one stays")
    old = minds.firsts["more"]
    metadata = {key: old["metadata"][key] for key in ("name", "namespace", "labels", "annotations")}
    minds.world.plane.admin.create(SECRETS, {**old, "metadata": metadata})
    path = f"{SECRETS}/{name_of(old)}"

    def collected() -> bool:
        try:
            minds.world.plane.admin.get(path)
        except KubeError as error:
            return error.status == 404
        return False

    minds.running.wait(collected, "it stays")
    assert served_leaf(minds.world, "shop", "more") == leaf_hash(newest)


def test_no_more_was_ordered_than_that(minds: Minds) -> None:
    """Names twice, the Service that was moved, and the one whose content nobody knew."""
    world = minds.world
    assert world.pebble.certificates_issued() - minds.issued["lab"] == 4
    assert minds.other.certificates_issued() - minds.issued["other"] == 2
    assert minds.third.certificates_issued() - minds.issued["third"] == 1


def test_a_version_that_is_taken_out_of_use_by_its_label_is_replaced(minds: Minds) -> None:
    """As docs/operations.md says: it stays as it is, and named, until another one is there."""
    running, old = minds.running, minds.firsts["restored"]
    running.world.plane.kubectl(
        *("label", "secret", name_of(old), "-n", NAMESPACE, "certbaton.io/kind-")
    )
    version = running.wait_whole("restored", than=name_of(old))
    assert running.names("restored", version)
    assert minds.world.plane.admin.get(f"{SECRETS}/{name_of(old)}")["data"] == old["data"]
    assert running.done("PutBack", "restored") == []


def test_no_service_ever_named_what_was_not_there_by_our_doing(minds: Minds) -> None:
    """But what people deleted, or wrote there."""
    ours = f"named ('{NAMESPACE}', "
    by_people = ("'deleted'", "'journal'", "restored-20200101-0123456789")
    found = [line for line in minds.history.dangling() if ours in line]
    assert [line for line in found if not any(one in line for one in by_people)] == []
