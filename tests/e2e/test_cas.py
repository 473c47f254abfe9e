"""A daemon with two CAs and a stage: fallback, rehearsal, keys, and what is done by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.rdatatype
import pytest
from cryptography import x509

from certbaton.ca.session import thumbprint
from certbaton.pki import PrivateKey
from e2e.harness import content, leaf, name_of, our_events
from e2e.running import Running
from lab.pebble import Pebble
from lab.world import NAMESPACE, World
from solvers.name_server import NameServer

pytestmark = pytest.mark.servers

Obj = dict[str, Any]
SECRETS = f"/api/v1/namespaces/{NAMESPACE}/secrets"


@pytest.fixture(scope="module")
def other(calm_world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    """Another CA, for which http-01 looks the same."""
    with Pebble(
        tmp_path_factory.mktemp("other"),
        http_port=calm_world.ports(80),
        dns_server=calm_world.pebble.dns_server,
        profiles={"lab": calm_world.lifetime},
    ) as pebble:
        yield pebble


def entry(pebble: Pebble, **more: Any) -> Obj:
    """A CA as the configuration has it; what Pebble advises is any moment of a short life."""
    return {
        "directory": pebble.directory,
        "caBundle": str(pebble.ca_file),
        "profile": "lab",
        "renewalInfo": False,
        **more,
    }


def a_site(world: World, name: str, issuers: Obj, **more: Any) -> Running:
    """A Service, and a release whose one certificate it is to serve."""
    host = f"{name}.example.test"
    world.add_service("shop", name, host)
    certificate = world.certificate(name, [host], [("shop", name)])
    del certificate["issuer"]
    certificate["issuers"] = list(issuers)
    known = {**issuers, **more.pop("known", {})}
    return Running(world, name, certificate, issuers=known, **more)


def directory_of(version: Obj) -> str:
    return str(version["metadata"]["annotations"]["certbaton.io/directory"])


def account(world: World, release: str, directory: str) -> Obj:
    """The Secret of a release's account at a CA."""
    found: list[Obj] = [
        secret
        for secret in world.plane.admin.list(
            SECRETS,
            labelSelector=f"certbaton.io/instance={release}.{NAMESPACE},certbaton.io/kind=account",
        )["items"]
        if json.loads(content(secret, "account"))["directory"] == directory
    ]
    assert len(found) == 1
    return found[0]


def test_the_second_ca_stands_in_for_one_that_is_away(
    calm_world: World, other: Pebble, tmp_path: Path
) -> None:
    """Nothing is there yet, so one failure is enough; the next renewal begins with the first."""
    with Pebble(
        tmp_path,
        http_port=calm_world.ports(80),
        dns_server=calm_world.pebble.dns_server,
        profiles={"lab": calm_world.lifetime},
    ) as first:
        first.process.stop()
        policy = {"pollListener": "250ms", "caBackOffFirst": "1s"}
        issuers = {"first": entry(first), "second": entry(other)}
        site = a_site(calm_world, "standin", issuers, policy=policy)
        with site:
            stood_in = site.wait_whole("standin")
            assert directory_of(stood_in) == other.directory
            first.restart()
            assert site.certbaton.call("renew", "standin").code == 0
            back = site.wait_whole("standin", than=name_of(stood_in))
            assert directory_of(back) == first.directory
            assert not site.told("Traceback")
        assert first.certificates_issued() == 1


def test_caa_is_looked_up_by_the_resolvers_and_is_no_wall(calm_world: World) -> None:
    """Log and Event say what is in the way; Pebble, which looks at no CAA, issues."""
    with NameServer("example.test").running() as server:
        server.add("forbidden.example.test", dns.rdatatype.CAA, '0 issue ";"')
        issuers = {"lab": entry(calm_world.pebble)}
        site = a_site(calm_world, "forbidden", issuers, resolvers=[f"127.0.0.1:{server.port}"])
        with site:
            site.wait_whole("forbidden")
    (event,) = [
        each
        for each in our_events(calm_world, "shop", "forbidden")
        if each["reason"] == "CertificateCaa"
    ]
    assert "CAA at forbidden.example.test lets no CA issue" in event["message"]
    assert site.told("lets no CA issue")


def test_a_rehearsal_by_hand_passes_and_issues_nothing(calm_world: World, other: Pebble) -> None:
    """At the stage's own account; no TLS Secret comes of it, and production is not asked."""
    issuers = {"lab": entry(calm_world.pebble, rehearsal="stage")}
    site = a_site(calm_world, "rehearsed", issuers, known={"stage": entry(other)})
    with site:
        site.wait_whole("rehearsed")
        signed, orders = other.certificates_issued(), _orders(calm_world.pebble)
        ended = site.certbaton.call("rehearse", "rehearsed", "--timeout", "60s")
        assert ended.code == 0, ended
        assert other.certificates_issued() == signed
        assert _orders(calm_world.pebble) == orders
        assert _orders(other) > 0
        assert len(site.versions("rehearsed")) == 1


def _orders(pebble: Pebble) -> int:
    return sum(1 for one in pebble.requests() if one.endpoint == "newOrder")


def test_the_daemon_changes_the_key_of_an_account(calm_world: World) -> None:
    """Same account, other key; and what comes next is ordered with it."""
    directory = calm_world.pebble.directory
    site = a_site(calm_world, "keyed", {"lab": entry(calm_world.pebble)})
    with site:
        first = site.wait_whole("keyed")
        before = account(calm_world, "keyed", directory)
        ended = site.certbaton.call("account", "roll-key", "lab", "--timeout", "60s")
        assert ended.code == 0, ended
        after = account(calm_world, "keyed", directory)
        old, new = (PrivateKey.load(content(one, "tls.key")) for one in (before, after))
        assert new != old
        assert "next.key" not in after["data"]
        urls = [json.loads(content(one, "account"))["url"] for one in (before, after)]
        assert urls[0] == urls[1]
        assert thumbprint(new) in ended.output
        assert site.certbaton.call("renew", "keyed", "--wait", "--timeout", "60s").code == 0
        second = site.wait_whole("keyed", than=name_of(first))
        assert second["metadata"]["annotations"]["certbaton.io/account"] == urls[0]


def test_a_certificate_whose_key_leaked_is_revoked_and_replaced(calm_world: World) -> None:
    """The CA is told at once; the listener has another one, with another key, soon after."""
    site = a_site(calm_world, "leaks", {"lab": entry(calm_world.pebble)})
    with site:
        first = site.wait_whole("leaks")
        ended = site.certbaton.call("revoke", "leaks", "--reason", "keyCompromise", "--yes")
        assert ended.code == 0, ended
        second = site.wait_whole("leaks", than=name_of(first))
        assert leaf(second).public_key() != leaf(first).public_key()


def test_a_deactivated_account_is_told_of_and_not_replaced(calm_world: World) -> None:
    """Someone gave it up on purpose: nobody makes another one behind his back."""
    directory = calm_world.pebble.directory
    site = a_site(calm_world, "refused", {"lab": entry(calm_world.pebble)})
    with site:
        first = site.wait_whole("refused")
        url = json.loads(content(account(calm_world, "refused", directory), "account"))["url"]
        assert site.certbaton.call("account", "deactivate", "lab", "--yes").code == 0
        assert site.certbaton.call("renew", "refused").code == 0
        site.wait_told("deactivated")
        now = json.loads(content(account(calm_world, "refused", directory), "account"))["url"]
        assert now == url
        assert site.names("refused", first)


def test_a_certificate_for_an_address_is_served_there(calm_world: World) -> None:
    """Validated by http-01 at the load balancer's own address, beside its name."""
    name, host = "addressed", "addressed.example.test"
    calm_world.add_service("shop", name, host)
    address = calm_world.address_of("shop", name)
    certificate = calm_world.certificate(name, [host], [("shop", name)], ipAddresses=[address])
    with Running(calm_world, name, certificate) as site:
        version = site.wait_whole(name)
    names = leaf(version).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [host]
    assert [str(each) for each in names.get_values_for_type(x509.IPAddress)] == [address]
