"""Let's Encrypt's limits as token buckets: refused as it refuses, and told in the end."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from ca.pebble_world import Answers
from certbaton.ca.order import Failed
from certbaton.errors import CaUnavailable, RateLimited
from lab.boulder import Boulder, LimitHit, Limits
from lab.boulder.limits import (
    FAILED,
    LETS_ENCRYPT,
    NEW_ACCOUNTS,
    NEW_ORDERS,
    PER_DOMAIN,
    PER_SET,
    exact_set,
    registered_domains,
)
from lab.pebble import Pebble
from lab_tests.boulder_world import Client, cert_id, refused

pytestmark = pytest.mark.servers

HOUR = 3600.0
HERE = "127.0.0.1"


class Clock:
    def __init__(self) -> None:
        self.at = 0.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def boulder(calm: Pebble, clock: Clock) -> Iterator[Boulder]:
    """Its buckets stand still unless the clock is set on."""
    with Boulder(calm, limits=Limits(clock), may_hit_limits=True) as proxy:
        yield proxy


@pytest.fixture
def client(boulder: Boulder, answers: Answers) -> Client:
    return Client(boulder, answers)


def fill(boulder: Boulder, limit: str, size: int, seconds: float = HOUR) -> None:
    """Let the bucket of *limit* be so large."""
    boulder.limits.sizes[limit] = size, seconds


def due_in(error: object) -> timedelta:
    """How far away the moment is that the CA named."""
    assert isinstance(error, RateLimited)
    assert error.retry_at is not None
    return error.retry_at - datetime.now(UTC)


def test_the_sizes_are_lets_encrypts() -> None:
    """What its documentation says (August 2026)."""
    day = 24 * HOUR
    assert LETS_ENCRYPT[NEW_ACCOUNTS] == (10, 3 * HOUR)
    assert LETS_ENCRYPT[NEW_ORDERS] == (300, 3 * HOUR)
    assert LETS_ENCRYPT[PER_DOMAIN] == (50, 7 * day)
    assert LETS_ENCRYPT[PER_SET] == (5, 7 * day)
    assert LETS_ENCRYPT[FAILED] == (5, HOUR)


def test_a_bucket_fills_again(clock: Clock) -> None:
    """Slowly, to its size and no further; the wait that is named is enough."""
    limits = Limits(clock)
    for _ in range(5):
        assert limits.take((FAILED, "x")) is None
    refusal = limits.take((FAILED, "x"))
    assert refusal is not None
    assert (refusal.status, refusal.type, refusal.retry_after) == (429, "rateLimited", 720)
    assert limits.take((FAILED, "y")) is None
    clock.at += 719
    assert limits.take((FAILED, "x")) is not None
    clock.at += 1
    assert limits.take((FAILED, "x")) is None
    clock.at += 1_000_000
    assert limits.left(FAILED, "x") == 5
    assert [hit.what for hit in limits.hits] == ["x", "x"]


def test_what_is_counted() -> None:
    """Two labels are a registered domain here; an address is itself."""
    names = ["*.a.example.com", "b.example.com", "example.org", "192.0.2.1"]
    assert registered_domains(names) == ["192.0.2.1", "example.com", "example.org"]
    assert exact_set(["b", "a"]) == "a,b"


def test_orders_of_an_account(boulder: Boulder, answers: Answers, clock: Clock) -> None:
    """429 with the time; another account has its own; the same call works afterwards."""
    fill(boulder, NEW_ORDERS, 2)
    client = Client(boulder, answers)
    client.order("o1.example.com")
    client.order("o2.example.com")
    error = refused(lambda: client.order("o3.example.com"))
    assert "too many new orders (2) from this account in the last 1:00:00, retry after" in str(
        error
    )
    assert timedelta(minutes=29) < due_in(error) <= timedelta(minutes=30)
    Client(boulder, answers).order("o3.example.com")
    clock.at += HOUR / 2
    client.issue("o3.example.com")
    (hit,) = boulder.limits_hit
    assert (hit.limit, hit.what) == (NEW_ORDERS, client.account)


def test_certificates_of_a_domain(boulder: Boulder, client: Client) -> None:
    """Spent when an order is finalized, whoever orders; looked at with the next newOrder."""
    fill(boulder, PER_DOMAIN, 2)
    client.issue("d1.domain.test")
    client.order("never.domain.test")
    client.issue("d2.domain.test", "d3.domain.test")
    error = refused(lambda: client.order("d4.domain.test"))
    assert "too many certificates (2) already issued for domain.test" in str(error)
    client.issue("d4.other.test")
    # The same names as before are exempt from it.
    client.issue("d1.domain.test")


def test_certificates_of_an_exact_set(boulder: Boulder, client: Client) -> None:
    """Also for a renewal that doesn't say what it replaces."""
    fill(boulder, PER_SET, 2)
    client.issue("set.example.com")
    client.issue("set.example.com")
    error = refused(lambda: client.order("set.example.com"))
    assert "for this exact set of identifiers: set.example.com" in str(error)
    client.issue("set.example.com", "one-more.example.com")
    (hit,) = boulder.limits_hit
    assert hit.limit == PER_SET


def test_a_renewal_in_its_window_counts_nowhere(boulder: Boulder, client: Client) -> None:
    """With `replaces`, now in [start, end): any number of them; outside it counts as others do."""
    fill(boulder, PER_SET, 1)
    fill(boulder, NEW_ORDERS, 1)
    now = datetime.now(UTC)
    boulder.advise((now - timedelta(hours=1), now + timedelta(hours=1)))
    chain = client.issue("window.example.com").chain
    assert isinstance(refused(lambda: client.order("window.example.com")), RateLimited)
    for _ in range(2):
        chain = client.issue("window.example.com", replaces=cert_id(chain)).chain
    boulder.advise("past")
    late = refused(lambda: client.order("window.example.com", replaces=cert_id(chain)))
    assert isinstance(late, RateLimited)


def test_failed_validations_of_a_name(boulder: Boulder, client: Client, answers: Answers) -> None:
    """What Pebble found invalid, and what the proxy refused; by name and account."""
    fill(boulder, FAILED, 2)
    name = "failing.example.com"
    outcome = client.advance(client.order(name), name, publish=False)
    assert isinstance(outcome, Failed)
    assert outcome.names == (name,)
    boulder.refuse(name, times=1)
    assert isinstance(client.advance(client.order(name), name), Failed)
    error = refused(lambda: client.order(name, "innocent.example.com"))
    assert f"too many failed authorizations (2) for {name}" in str(error)
    client.issue("innocent.example.com")
    Client(boulder, answers).issue(name)


def test_accounts_of_an_address(boulder: Boulder, answers: Answers) -> None:
    """Finding one that is there is none."""
    fill(boulder, NEW_ACCOUNTS, 2)
    first = Client(boulder, answers)
    Client(boulder, answers)
    error = refused(lambda: Client(boulder, answers))
    assert "too many registrations (2) from this IP address" in str(error)
    assert Client(boulder, answers, key=first.key).account == first.account
    assert first.session.find_account() == first.account


def test_requests_a_second(boulder: Boulder, client: Client, clock: Clock) -> None:
    """503 with Retry-After: the CA is busy, the certificate isn't at fault."""
    fill(boulder, "requests", 3, 3)
    order = client.order("busy.example.com")
    # Orders have a bucket of their own.
    assert boulder.limits.left("requests:newOrder", HERE) == 299
    clock.at += 100
    for _ in range(3):
        client.session.order(order.url)
    error = refused(lambda: client.session.order(order.url))
    assert isinstance(error, CaUnavailable)
    assert "Service busy; retry later (rateLimited, HTTP 503)" in str(error)
    assert error.retry_at is not None
    clock.at += 100
    assert client.session.order(order.url).status == "pending"


def test_nonces_a_second(clock: Clock) -> None:
    """20 a second, 10 at once."""
    limits = Limits(clock)
    for _ in range(10):
        assert limits.request("newNonce", HERE) is None
    assert limits.request("newNonce", HERE) is not None
    clock.at += 1 / 20
    assert limits.request("newNonce", HERE) is None


def test_a_hit_fails_what_did_not_want_it(calm: Pebble, answers: Answers) -> None:
    """When the block is left; an error of its own is not hidden."""

    def hit(may_hit: bool) -> None:
        with Boulder(calm, may_hit_limits=may_hit) as boulder:
            fill(boulder, NEW_ORDERS, 1)
            client = Client(boulder, answers)
            client.order("hit.example.com")
            refused(lambda: client.order("hit2.example.com"))

    with pytest.raises(LimitHit, match=r"1 requests hit a limit of the CA's: newOrders for https"):
        hit(may_hit=False)
    hit(may_hit=True)
    with pytest.raises(KeyError), Boulder(calm) as boulder:
        fill(boulder, NEW_ACCOUNTS, 0)
        refused(lambda: Client(boulder, answers))
        raise KeyError
