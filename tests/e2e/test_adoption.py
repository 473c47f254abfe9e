"""
Services that people set up by hand, with Secrets of their own: taken over, and nothing is lost.

One daemon; each Service is as the procedure by hand leaves it, and serves its Secret already.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from e2e.harness import leaf_hash, name_of, not_before, served_leaf
from e2e.history import History
from e2e.running import Clerk, Running, bad_certificate, rejections
from lab.oci.api import ServiceError
from lab.world import NAMESPACE, SSL_PORTS, TLS_SECRET, World

pytestmark = [pytest.mark.servers, pytest.mark.timeout(180)]

Obj = dict[str, Any]

# Where the Secret is, how long it is valid in all, and what else is peculiar about it.
SHORT_S, LONG_S = 36, 3600
BY_HAND = "made-by-hand"


@dataclass(frozen=True)
class Hand:
    """A hand-made set-up: its Service is called *name*."""

    name: str
    namespace: str = NAMESPACE
    lifetime: int = LONG_S
    self_signed: bool = False
    host: str | None = None

    @property
    def host_name(self) -> str:
        return f"{self.host or self.name}.example.test"

    @property
    def secret(self) -> str:
        return f"{self.name}-{BY_HAND}"

    @property
    def reference(self) -> str:
        """As it stands in the annotation."""
        return self.secret if self.namespace == "shop" else f"{self.namespace}/{self.secret}"


HANDS = (
    Hand("unreadable", namespace="shop"),
    Hand("fits"),
    Hand("short", lifetime=SHORT_S),
    Hand("selfsigned", self_signed=True),
    Hand("othername", host="elsewhere"),
    Hand("refused", namespace="shop"),
)


@dataclass
class Taken:
    """The Services some time after the daemon was started."""

    running: Running
    history: History
    clerk: Clerk
    hands: dict[str, Obj]
    started: datetime


def tls_secret(hand: Hand) -> Obj:
    """A Secret with a key, and a certificate of a CA that nobody knows, or of nobody's."""
    key = rsa.generate_private_key(65537, 2048)
    now = datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hand.host_name)])
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a CA of somebody's")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if hand.self_signed else issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(seconds=1))
        .not_valid_after(now + timedelta(seconds=hand.lifetime))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(hand.host_name)]), critical=False)
    )
    signer = key if hand.self_signed else rsa.generate_private_key(65537, 2048)
    leaf = builder.sign(signer, hashes.SHA256())
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": hand.secret, "namespace": hand.namespace},
        "type": "kubernetes.io/tls",
        "data": {
            "tls.crt": base64.b64encode(leaf.public_bytes(serialization.Encoding.PEM)).decode(),
            "tls.key": base64.b64encode(pem).decode(),
        },
    }


@pytest.fixture(scope="module")
def taken(calm_world: World) -> Iterator[Taken]:
    world = calm_world
    clerk = Clerk(world)
    world.plane.create_namespace("shop")
    hands: dict[str, Obj] = {}
    for hand in HANDS:
        path = f"/api/v1/namespaces/{hand.namespace}/secrets"
        hands[hand.name] = world.plane.admin.create(path, tls_secret(hand))
        world.add_service(
            "shop",
            hand.name,
            f"{hand.name}.example.test",
            annotations={TLS_SECRET: hand.reference, SSL_PORTS: "443"},
            ports=[
                {"name": "http", "port": 80, "targetPort": 8080},
                {"name": "https", "port": 443, "targetPort": 8080},
            ],
        )

    def rule(service: str, certificate: str, number: int) -> ServiceError | None:
        return bad_certificate() if certificate == "refused" and number == 1 else None

    clerk.rule = rule
    entries = [
        world.certificate(hand.name, [f"{hand.name}.example.test"], [("shop", hand.name)])
        for hand in HANDS
    ]
    policy = {"pollListener": "250ms", "renewJitter": 0, "backOff": ["1s"]}
    running = Running(world, "adoption", *entries, policy=policy)
    with History(world.plane.admin, NAMESPACE) as history:
        started = datetime.now(UTC)
        with running:
            for name in ("unreadable", "selfsigned", "othername", "short"):
                running.wait_whole(name, timeout=60)
            running.wait(lambda: any(map(rejections, running.versions("refused"))), "not refused")
            running.wait(
                lambda: running.named("refused") == f"refused-{BY_HAND}", "it did not go back"
            )
            yield Taken(running, history, clerk, hands, started)


def after(taken: Taken, name: str) -> float:
    """How many seconds after the start its first version was issued."""
    return (not_before(taken.running.versions(name)[0]) - taken.started).total_seconds()


@pytest.mark.parametrize(
    "name",
    ["unreadable", "selfsigned", "othername"],
    ids=["in-another-namespace", "self-signed", "other-names"],
)
def test_a_hand_made_secret_that_will_not_do_is_replaced_at_once(taken: Taken, name: str) -> None:
    """What cannot be read counts as due."""
    assert after(taken, name) < 15
    assert taken.running.whole(name, name)


def test_a_hand_made_secret_that_does_is_left_until_it_is_due(taken: Taken) -> None:
    """Its issuer is not judged; nothing is issued that would not be used."""
    assert taken.running.versions("fits") == []
    assert taken.running.named("fits") == f"{NAMESPACE}/fits-{BY_HAND}"
    assert served_leaf(taken.running.world, "shop", "fits") == leaf_hash(taken.hands["fits"])
    (wait,) = [
        wait
        for line in taken.running.told('"turn"', '"fits"')
        for wait in line["waits"]
        if "hand-made" in wait
    ][-1:]
    due = not_before(taken.hands["fits"]) + timedelta(seconds=LONG_S / 2)
    said = datetime.fromisoformat(wait.rpartition("until ")[2].rstrip(")"))
    assert abs(said - due) < timedelta(seconds=3)


def test_a_hand_made_secret_is_replaced_when_it_is_due(taken: Taken) -> None:
    """By the same share of its lifetime as one of ours; it was served until then."""
    version = taken.running.versions("short")[0]
    due = not_before(taken.hands["short"]) + timedelta(seconds=SHORT_S / 2)
    assert due - timedelta(seconds=2) < not_before(version) < due + timedelta(seconds=12)
    named = [item[1] for item in taken.history.references() if item[0] == ("shop", "short")]
    assert named == [(NAMESPACE, f"short-{BY_HAND}"), (NAMESPACE, name_of(version))]


def test_what_a_service_named_before_is_in_the_journal(taken: Taken) -> None:
    """As the annotation said it; written before the Service was."""
    for hand in HANDS:
        journal = taken.running.certbaton.journal(hand.name)
        if hand.name == "fits":
            assert journal.get("originals", {}) == {}
        else:
            assert journal["originals"] == {f"shop/{hand.name}": hand.reference}


@pytest.mark.parametrize("hand", HANDS, ids=lambda hand: hand.name)
def test_hand_made_secrets_are_left_alone(taken: Taken, hand: Hand) -> None:
    path = f"/api/v1/namespaces/{hand.namespace}/secrets/{hand.secret}"
    assert taken.running.world.plane.admin.get(path) == taken.hands[hand.name]


def test_a_service_whose_first_version_is_refused_goes_back_to_the_hand_made_secret(
    taken: Taken,
) -> None:
    """It worked there, whatever was asked for since."""
    assert set(rejections(taken.running.versions("refused")[0])) == {"*"}
    named = [item[1] for item in taken.history.references() if item[0] == ("shop", "refused")]
    first = name_of(taken.running.versions("refused")[0])
    by_hand = ("shop", f"refused-{BY_HAND}")
    assert named == [by_hand, (NAMESPACE, first), by_hand]
    assert served_leaf(taken.running.world, "shop", "refused") == leaf_hash(taken.hands["refused"])


def test_no_service_ever_named_a_secret_of_ours_that_was_not_there(taken: Taken) -> None:
    """Secrets of other namespaces are not watched here."""
    ours = f"named ('{NAMESPACE}', "
    assert [line for line in taken.history.dangling() if ours in line] == []


def test_a_refused_version_is_tried_again_when_a_person_takes_the_note_away(taken: Taken) -> None:
    """As docs/operations.md says; the cause is gone by then, and nothing is ordered for it."""
    running = taken.running
    (version,) = running.versions("refused")
    taken.clerk.rule = lambda service, certificate, number: None
    running.world.plane.kubectl(
        *("annotate", "secret", name_of(version), "-n", NAMESPACE, "certbaton.io/rejected-")
    )
    assert name_of(running.wait_whole("refused")) == name_of(version)
    assert len(running.versions("refused")) == 1
