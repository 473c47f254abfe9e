"""Without the Lease nothing is written: not to the cluster, not to the CA, not by a solver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from certbaton import pki
from certbaton.ca.fenced import FencedAuthority
from certbaton.ca.session import thumbprint
from certbaton.cluster import Cluster, FencedApi, Kind, NotLeading
from certbaton.model import (
    ChallengeInfo,
    IssuerSpec,
    Journal,
    KeyType,
    ObjectRef,
    Outcome,
    PendingOrder,
    Rehearsal,
    WaitKind,
)
from certbaton.others import OthersChallenges
from certbaton.solvers import AnswersOthers, Solver
from certbaton.solvers.fenced import FencedSolver
from certbaton.solvers.http01 import Http01Solver
from fakes.ca import DIRECTORY, FakeCa
from fakes.kube import FakeApi
from loop.world import INSTANCE, NOW, World, a_spec
from solvers.worlds import challenge, fetch

SHOP = ObjectRef("certbaton", "shop")
PATH = "/.well-known/acme-challenge/"
TOKEN = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"
ELSEWHERE = "https://other.example/directory"


@dataclass
class Fence:
    """Open until it is closed, or for so many more times."""

    left: int | None = None
    asked: list[None] = field(default_factory=list)

    def check(self) -> None:
        self.asked.append(None)
        if self.left is not None:
            if self.left == 0:
                raise NotLeading("closed")
            self.left -= 1


WRITES: dict[str, Callable[[FencedApi], object]] = {
    "create": lambda api: api.create(Kind.SECRET, "certbaton", {"metadata": {"name": "new"}}),
    "replace": lambda api: api.replace(Kind.SECRET, SHOP, {"metadata": {"labels": {"a": "b"}}}),
    "merge": lambda api: api.merge(Kind.SECRET, SHOP, {"metadata": {"labels": {"a": "b"}}}),
    "apply": lambda api: api.apply(Kind.SECRET, SHOP, {"metadata": {"uid": "x"}}, "me"),
    "delete": lambda api: api.delete(Kind.SECRET, SHOP, "x", "1"),
}


@pytest.mark.parametrize("verb", WRITES)
def test_no_write_reaches_the_api_server(verb: str) -> None:
    """And reading goes on."""
    server = FakeApi()
    server.create(Kind.SECRET, "certbaton", {"metadata": {"name": "shop"}})
    client = server.client("certbaton")
    api = FencedApi(client, Fence(left=0).check)
    with pytest.raises(NotLeading):
        WRITES[verb](api)
    assert client.requests == []
    assert api.read(Kind.SECRET, SHOP)["metadata"]["name"] == "shop"
    assert len(api.list(Kind.SECRET, "certbaton")[0]) == 1
    assert [len(page) for page, _ in api.pages(Kind.SECRET)] == [1]
    stream = api.watch(Kind.SECRET, resource_version="100", timeout_seconds=5)
    assert next(stream)[0] == "ADDED"
    stream.close()


def test_a_write_passes_after_one_look_at_the_lease() -> None:
    server = FakeApi()
    fence = Fence()
    FencedApi(server, fence.check).create(Kind.SECRET, "certbaton", {"metadata": {"name": "a"}})
    assert len(fence.asked) == len(server.writes) == 1


def test_the_ca_is_asked_for_nothing() -> None:
    """But an order that is there can be followed."""
    ca = FakeCa(now=lambda: NOW)
    key = pki.PrivateKey.generate(KeyType.EC_P256)
    plain = ca.connect(IssuerSpec("lab", DIRECTORY), key, None)
    plain.new_account()
    order = plain.new_order(["a.example"])
    authorization = plain.authorization(order.authorizations[0])
    before = list(ca.calls)
    fenced = FencedAuthority(plain, Fence(left=0).check)
    for refused in (
        fenced.new_account,
        lambda: fenced.new_order(["a.example"]),
        lambda: fenced.answer(authorization.challenges[0]),
        lambda: fenced.finalize(order, ""),
        lambda: fenced.deactivate_authorization(authorization.url),
    ):
        with pytest.raises(NotLeading):
            refused()
    assert ca.calls == before
    assert fenced.order(order.url).status == "pending"
    assert fenced.authorization(order.authorizations[0]) == authorization
    assert fenced.find_account() == plain.find_account()


def test_a_solver_neither_puts_up_nor_takes_away() -> None:
    """What its successor has put up for the same order stays."""
    solver = Http01Solver(address="127.0.0.1", port=0)
    one = challenge("http-01", "a.example", TOKEN)
    solver.start()
    try:
        solver.present(one)
        fenced: Solver = FencedSolver(solver, Fence(left=0).check)
        with pytest.raises(NotLeading):
            fenced.clean_up(one)
        with pytest.raises(NotLeading):
            fenced.present(one)
        fenced.ready(one)
        assert fenced.challenge_type == "http-01"
        assert fetch(solver.port, PATH + TOKEN)[0] == 200
    finally:
        solver.close()


@pytest.mark.parametrize("writes", range(12))
def test_a_turn_ends_at_the_first_write_that_is_refused(writes: int) -> None:
    """At whichever it is: nothing failed, nothing is backing off, and nothing more is tried."""
    world = World(a_spec("one", "one"))
    fence = Fence(left=writes)
    process = world.process()
    fenced = FencedApi(process.cluster.api, fence.check)
    for part in (process.cluster.store, process.cluster.services, process.cluster.events):
        part._api = fenced
    report = process.turn("one")
    if fence.left == 0 and len(fence.asked) > writes:
        assert report.failed == []
        assert all(wait.kind is not WaitKind.BACK_OFF for wait in report.waits)
    # an Event that is refused is a hint that nobody gets, and ends nothing
    assert len(fence.asked) <= writes + 3
    world.process().turn("one")
    assert world.named("one") is not None
    assert len(world.versions()) == 1


# --- challenges of others -----------------------------------------------------------------


def cluster_with(*directories: str, pending: tuple[str, ...] = ()) -> Cluster:
    """A cluster with an account for each directory, and an order open at each of *pending*."""
    cluster = Cluster(FakeApi(), INSTANCE, [])
    for directory in directories:
        key = pki.PrivateKey.generate(KeyType.EC_P256)
        cluster.store.create_account(directory, key)
    for number, directory in enumerate(pending):
        key = pki.PrivateKey.generate(KeyType.EC_P256)
        order = PendingOrder(
            directory=directory,
            account_url="https://ca.example/account/1",
            names=("a.example",),
            key_type=KeyType.EC_P256,
            public_key_sha256=key.public_key_sha256,
            reason="DoesNotExist",
            staged_at=NOW,
        )
        name = f"c{number}"
        cluster.store.save_journal(name, Journal(pending=order), key=key, csr="csr")
    return cluster


def test_a_token_of_an_open_order_is_answered_with_that_orders_account() -> None:
    """Also where there are other accounts, and several orders at one CA."""
    cluster = cluster_with(DIRECTORY, ELSEWHERE, pending=(DIRECTORY, DIRECTORY))
    key = cluster.store.account_key(DIRECTORY)
    assert key is not None
    others = OthersChallenges(cluster)
    assert others.value_of(TOKEN) == f"{TOKEN}.{thumbprint(key)}"
    assert others.value_of(TOKEN) == f"{TOKEN}.{thumbprint(key)}", "and from memory"


def test_a_token_of_an_open_rehearsal_is_answered_with_its_account() -> None:
    """Its CA's request comes to any replica, too; once it has ended nothing is answered."""
    cluster = cluster_with(DIRECTORY, ELSEWHERE, pending=())
    key = cluster.store.account_key(ELSEWHERE)
    assert key is not None
    rehearsal = Rehearsal(ELSEWHERE, NOW, url="https://other.test/order/1")
    journal = cluster.store.save_journal("c", Journal(rehearsal=rehearsal))
    assert OthersChallenges(cluster).value_of(TOKEN) == f"{TOKEN}.{thumbprint(key)}"
    ended = replace(rehearsal, outcome=Outcome.PASSED)
    cluster.store.save_journal("c", replace(journal, rehearsal=ended))
    assert OthersChallenges(cluster).value_of(TOKEN) is None


SILENT = {
    "no order is open": ((DIRECTORY,), ()),
    "orders are open at two CAs": ((DIRECTORY, ELSEWHERE), (DIRECTORY, ELSEWHERE)),
    "the account is gone": ((), (DIRECTORY,)),
}


@pytest.mark.parametrize(("accounts", "pending"), SILENT.values(), ids=SILENT)
def test_nothing_is_answered_where_it_is_not_known_who_asks(
    accounts: tuple[str, ...], pending: tuple[str, ...]
) -> None:
    assert OthersChallenges(cluster_with(*accounts, pending=pending)).value_of(TOKEN) is None


@pytest.mark.parametrize(
    "token",
    ["", "x", "A" * 21, "A" * 129, "A" * 30 + ".", "A" * 30 + "\n", "A" * 30 + "é", "../" * 10],
)
def test_what_is_no_token_is_not_answered(token: str) -> None:
    """At least 128 bits of base64url (RFC 8555 section 8.3), and nothing else, is echoed."""
    assert OthersChallenges(cluster_with(DIRECTORY, pending=(DIRECTORY,))).value_of(token) is None


def test_the_http01_server_asks_only_about_what_it_was_not_given() -> None:
    """And says 404 where nobody knows."""
    solver = Http01Solver(address="127.0.0.1", port=0)
    assert isinstance(solver, AnswersOthers)
    own: ChallengeInfo = challenge("http-01", "a.example", TOKEN)
    solver.answer_others(lambda token: f"{token}.other" if token == "B" * 43 else None)
    solver.start()
    try:
        solver.present(own)
        assert fetch(solver.port, PATH + TOKEN)[2] == own.value.encode()
        assert fetch(solver.port, PATH + "B" * 43)[::2] == (200, b"B" * 43 + b".other")
        assert fetch(solver.port, PATH + "C" * 43)[0] == 404
    finally:
        solver.close()
