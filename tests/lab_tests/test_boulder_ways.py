"""Boulder's ways in front of Pebble: what the client gets, and what comes of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from ca.pebble_world import Answers
from certbaton.ca.order import Failed, Issued, Unfinished
from certbaton.ca.problems import ResourceGone
from certbaton.errors import PermanentError
from certbaton.model import ChallengeInfo, ExternalAccountKey, KeyType
from certbaton.pki import PrivateKey, check_bundle
from lab.boulder import Boulder, pebbles_own
from lab.pebble import Pebble
from lab_tests.boulder_world import KEY, PROFILE, Client, cert_id, refused

pytestmark = pytest.mark.servers


@pytest.fixture
def client(boulder: Boulder, answers: Answers) -> Client:
    return Client(boulder, answers)


def test_signed_urls_match_through_the_proxy(boulder: Boulder, client: Client) -> None:
    """An issuance, every URL at the proxy; its requests, order and finalize are counted."""
    before = boulder.certificates_issued()
    issued = client.issue("plain.example.com", "plain2.example.com")
    check_bundle(
        issued.chain,
        KEY,
        ("plain.example.com", "plain2.example.com"),
        KeyType.EC_P256,
        datetime.now(UTC),
    )
    assert boulder.certificates_issued() == before + 1
    (order,) = boulder.orders(client.account)
    (finalized,) = boulder.finalized
    assert finalized.order == order.url
    assert finalized.names == ("plain.example.com", "plain2.example.com")
    counts = boulder.counts(client.account)
    assert counts["newOrder"] == counts["finalize"] == counts["certificate"] == 1
    assert counts["authorization"] == counts["challenge"] == 2
    assert boulder.counts()["newAccount"] == 1
    assert all(each.reached_pebble for each in boulder.seen())
    assert issued.certificate_url.startswith(boulder.directory.removesuffix("/dir"))


def test_an_identical_open_order_is_handed_back(boulder: Boulder, client: Client) -> None:
    """By another session of the account too; one finalize, one certificate."""
    first = client.order("a.reuse.example.com", "b.reuse.example.com")
    second = client.order("b.reuse.example.com", "A.reuse.example.com")
    assert second.url == first.url
    assert second.authorizations == first.authorizations
    assert len(boulder.orders()) == 1
    names = ("a.reuse.example.com", "b.reuse.example.com")
    assert isinstance(client.advance(second, *names), Issued)
    # The second client of that order gets the certificate that is there.
    assert isinstance(client.advance(first, *names), Issued)
    assert len(boulder.finalized) == 1


def test_of_orders_at_the_same_time_one_is_made(
    boulder: Boulder, client: Client, answers: Answers
) -> None:
    """Reuse and `replaces` hold for requests side by side as well."""
    name = "race.example.com"
    old = cert_id(client.issue(name).chain)
    clients = [client, *(Client(boulder, answers, key=client.key) for _ in range(7))]
    with ThreadPoolExecutor(8) as pool:
        orders = list(pool.map(lambda each: each.order("many." + name), clients))
        assert len({each.url for each in orders}) == 1
        wide = [(each, f"{at}.{name}") for at, each in enumerate(clients)]
        list(pool.map(lambda pair: _try(pair[0], old, name, pair[1]), wide))
    statuses = [each.status for each in boulder.seen("newOrder")[-8:]]
    assert sorted(statuses) == [201] + [409] * 7


def _try(client: Client, old: str, *names: str) -> None:
    with contextlib.suppress(PermanentError):
        client.order(*names, replaces=old)


def test_an_order_of_others_is_not_handed_back(
    boulder: Boulder, client: Client, answers: Answers
) -> None:
    """Another account, other names, another profile, or finalized: a new one."""
    name = "own.example.com"
    first = client.order(name)
    others = [
        Client(boulder, answers).order(name),
        client.order(name, "more.example.com"),
        client.order(name, profile="lab"),
    ]
    assert isinstance(client.advance(first, name), Issued)
    others.append(client.order(name))
    assert len({each.url for each in (first, *others)}) == 5


def test_an_order_with_a_failed_name_is_not_handed_back(boulder: Boulder, client: Client) -> None:
    """What is tried next is a new order."""
    boulder.refuse("failed.example.com", times=1)
    first = client.order("failed.example.com")
    assert isinstance(client.advance(first, "failed.example.com"), Failed)
    second = client.order("failed.example.com")
    assert second.url != first.url
    assert isinstance(client.advance(second, "failed.example.com"), Issued)


def test_a_replacing_order_is_in_the_way_of_another(boulder: Boulder, client: Client) -> None:
    """409 while it is open and when it is done; without `replaces` the order is had."""
    name = "replaced.example.com"
    old = cert_id(client.issue(name).chain)
    first = client.order(name, "one.example.com", replaces=old)
    pending = refused(lambda: client.order(name, "two.example.com", replaces=old))
    assert "alreadyReplaced" in str(pending)
    assert isinstance(pending, PermanentError)
    assert isinstance(client.advance(first, name, "one.example.com"), Issued)
    done = refused(lambda: client.order(name, "two.example.com", replaces=old))
    assert "alreadyReplaced" in str(done)
    client.issue(name, "two.example.com")
    assert [each.status for each in boulder.seen("newOrder")] == [201, 201, 409, 409, 201]
    assert len(boulder.finalized) == 3


def test_a_failed_replacing_order_is_in_nobodys_way(boulder: Boulder, client: Client) -> None:
    """The next one may replace the same certificate."""
    name = "second.example.com"
    old = cert_id(client.issue(name).chain)
    boulder.refuse(name, times=1)
    order = client.order(name, replaces=old)
    assert isinstance(client.advance(order, name), Failed)
    client.issue(name, replaces=old)


def test_an_order_is_gone_after_its_expiry(boulder: Boulder, client: Client) -> None:
    """404, as with its authorizations; the order is failed, and a new one works."""
    name = "expired.example.com"
    boulder.ways.order_life = timedelta(seconds=0)
    order = client.order(name)
    assert order.expires is not None
    assert order.expires <= datetime.now(UTC)
    outcome = client.advance(order, name)
    assert isinstance(outcome, Failed)
    assert "HTTP 404" in outcome.message
    assert isinstance(
        refused(lambda: client.session.authorization(order.authorizations[0])), ResourceGone
    )
    boulder.ways.order_life = None
    client.issue(name)
    assert len(boulder.finalized) == 1


def test_an_issued_order_is_gone_too_and_its_certificate_stays(
    boulder: Boulder, client: Client
) -> None:
    """As in Boulder: the certificate's URL is worth keeping."""
    name = "kept.example.com"
    order = client.order(name)
    issued = client.advance(order, name)
    assert isinstance(issued, Issued)
    (known,) = boulder.orders(client.account)
    known.expires = datetime.now(UTC)
    assert isinstance(refused(lambda: client.session.order(order.url)), ResourceGone)
    assert client.session.download(issued.certificate_url) == issued.chain


def test_not_after_is_refused(boulder: Boulder, client: Client) -> None:
    """Malformed, and no order made; without it there is one."""
    name = "notafter.example.com"
    end = datetime.now(UTC) + timedelta(days=10)
    error = refused(lambda: client.order(name, not_after=end))
    assert isinstance(error, PermanentError)
    assert "NotBefore and NotAfter are not supported (malformed, HTTP 400)" in str(error)
    assert boulder.orders() == []
    client.issue(name)
    boulder.ways.refuse_not_after = False
    client.order("b." + name, not_after=end)


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (("*.over.example.com", "b.over.example.com"), False),
        (("*.over.example.com", "over.example.com"), True),
        (("*.over.example.com", "a.b.over.example.com"), True),
    ],
)
def test_a_wildcard_and_a_name_under_it_are_refused(
    client: Client, names: tuple[str, ...], taken: bool
) -> None:
    """Of one level only; the name itself and deeper ones are no overlap."""
    if taken:
        assert client.order(*names).status == "pending"
        return
    error = refused(lambda: client.order(*names))
    assert '"b.over.example.com" is redundant with a wildcard domain' in str(error)


def test_names_are_limited_by_profile(boulder: Boulder, client: Client) -> None:
    """100 by default, and what is set for a profile; one less is taken."""
    boulder.ways.max_names_of["lab"] = 2
    names = [f"n{number}.many.example.com" for number in range(101)]
    assert "more than 100 identifiers" in str(refused(lambda: client.order(*names)))
    assert "more than 2 ident" in str(refused(lambda: client.order(*names[:3], profile="lab")))
    assert len(client.order(*names[:100]).authorizations) == 100
    assert len(client.order(*names[:2], profile="lab").authorizations) == 2


@pytest.fixture
def bound(answers: Answers) -> Iterator[Pebble]:
    with Pebble(http_port=answers.port, external_accounts={"kid-1": "c2VjcmV0" * 6}) as pebble:
        yield pebble


def test_an_external_account_is_good_for_one_key(bound: Pebble, answers: Answers) -> None:
    """A second key is refused; the first is found again, and issues."""
    external = ExternalAccountKey("kid-1", "c2VjcmV0" * 6)
    with Boulder(bound) as boulder:
        first = Client(boulder, answers, external=external)
        error = refused(lambda: Client(boulder, answers, external=external))
        assert isinstance(error, PermanentError)
        assert "external account key was used before" in str(error)
        again = Client(boulder, answers, external=external, key=first.key)
        assert again.account == first.account
        first.issue("bound.example.com")


@pytest.mark.parametrize("status", [409, 400, None])
def test_a_repeated_challenge_is_refused_and_decides_nothing(
    boulder: Boulder, client: Client, status: int | None
) -> None:
    """409 of Boulder, 400 of Pebble: the client reads the order, and gets its certificate."""
    boulder.ways.repeated_challenge = status
    name = f"repeated{status}.example.com"
    order = client.order(name)
    (challenge,) = _challenges(client, order.authorizations[0])
    # A process that dies after its answer, and the next that answers again.
    assert isinstance(client.advance(order, name, patience=0), Unfinished)
    client.session.answer(challenge)
    statuses = [each.status for each in boulder.seen("challenge")]
    assert statuses == [200, status or 400]
    assert isinstance(client.advance(order, name), Issued)


def _challenges(client: Client, url: str) -> list[ChallengeInfo]:
    found = client.session.authorization(url).challenges
    return [each for each in found if each.type == "http-01"]


def test_a_valid_authorization_is_reused(answers: Answers) -> None:
    """Pebble's own work: the second order is ready at once, and takes five requests."""
    with Pebble(http_port=answers.port, authz_reuse=100) as pebble, Boulder(pebble) as boulder:
        client = Client(boulder, answers)
        client.issue("valid.example.com")
        before = len(boulder.seen())
        order = client.order("valid.example.com")
        assert order.status == "ready"
        assert isinstance(client.advance(order, "valid.example.com"), Issued)
        assert len(boulder.seen()) - before <= 5
        assert len(client.presented) == 1
        assert len(boulder.finalized) == 2


def test_an_order_is_processed_for_a_while(boulder: Boulder, client: Client) -> None:
    """Shown as processing without a certificate; polled, and finalized once."""
    name = "slow.example.com"
    boulder.ways.processing = timedelta(seconds=1.5)
    order = client.order(name)
    outcome = client.advance(order, name, patience=1)
    assert isinstance(outcome, Unfinished)
    assert "processing" in outcome.what
    assert isinstance(client.advance(order, name), Issued)
    assert len(boulder.finalized) == boulder.counts()["finalize"] == 1


@pytest.mark.parametrize("seconds", [None, 0, 3])
def test_polls_are_as_far_apart_as_the_ca_asks(
    boulder: Boulder, client: Client, seconds: int | None
) -> None:
    """0 by default: the client's own pace. With 3 s no wait is shorter."""
    name = f"poll{seconds}.example.com"
    assert boulder.ways.retry_after == 0
    boulder.ways.retry_after = seconds
    order = client.order(name)
    assert isinstance(client.advance(order, name), Issued)
    if seconds == 3:
        assert min(client.slept) >= 3
    else:
        assert min(client.slept) < 1


def test_without_its_ways_it_is_pebble(calm: Pebble, answers: Answers) -> None:
    """What is refused above is taken."""
    with Boulder(calm, ways=pebbles_own()) as boulder:
        client = Client(boulder, answers)
        name = "own-ways.example.com"
        first = client.order(name, not_after=datetime.now(UTC) + timedelta(days=10))
        assert client.order(name).url != first.url
        many = [f"{number}.{name}" for number in range(101)]
        assert client.session.new_order([f"*.{name}", *many], PROFILE).status == "pending"
        old = cert_id(client.issue(name).chain)
        client.order(name, replaces=old)
        client.order(name, replaces=old)


def test_a_restarted_ca_hands_out_no_order_of_before(answers: Answers) -> None:
    """All accounts are gone with it; the next one has orders of its own."""
    with Pebble(http_port=answers.port) as pebble, Boulder(pebble) as boulder:
        client = Client(boulder, answers)
        order = client.order("restart.example.com")
        pebble.restart()
        assert "accountDoesNotExist" in str(refused(lambda: client.order("restart.example.com")))
        fresh = Client(boulder, answers, key=PrivateKey.generate(KeyType.EC_P256))
        assert fresh.order("restart.example.com").url != order.url
        fresh.issue("restart.example.com")
        assert len(boulder.finalized) == 1
