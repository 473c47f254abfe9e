"""What an issuance costs the CA, as ``make bench`` measures it: on a real Pebble."""

from __future__ import annotations

import pytest

from bench.__main__ import acme_numbers
from bench.issuance import READY_AT_MOST, Issuance, at_most, measure
from certbaton.ca.traffic import Traffic

pytestmark = pytest.mark.servers

COUNTS = (1, 2, 10, 100)


@pytest.fixture(scope="module")
def issued() -> list[Issuance]:
    # Not at its own pace: that costs time, and changes no number.
    return measure(COUNTS, traffic=Traffic(rate=1000))


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("how", ["cold", "warm"])
def test_two_requests_for_each_name_and_six(issued: list[Issuance], how: str, count: int) -> None:
    """
    One authorization and one challenge each, newOrder, finalize, the certificate.

    And up to three more: a nonce where none is at hand, and the looks at the order.
    """
    (one,) = (each for each in issued if (each.how, each.names) == (how, count))
    assert one.total <= at_most(count) == 2 * count + 6, one.requests
    assert one.requests["authorization"] == one.requests["challenge"] == count
    assert one.requests.get("newNonce", 0) == one.requests.get("directory", 0) == (how == "cold")


@pytest.mark.parametrize("count", COUNTS)
def test_five_where_the_order_is_ready_at_once(issued: list[Issuance], count: int) -> None:
    """However many names: the authorizations are not even read. The nonce is one of them."""
    (one,) = (each for each in issued if (each.how, each.names) == ("ready", count))
    assert one.total <= READY_AT_MOST == 5, one.requests
    assert set(one.requests) == {
        "directory", "newNonce", "newOrder", "finalize", "order", "certificate"
    }  # fmt: skip


def test_the_bench_tells_them_by_the_number_of_names(issued: list[Issuance]) -> None:
    """The most that an issuance takes, and below it how it comes about."""
    told = acme_numbers(issued)
    assert list(told["acme_requests"]) == ["1", "2", "10", "100"]
    assert all(told["acme_requests"][str(count)] <= 2 * count + 6 for count in COUNTS)
    assert all(number <= 5 for number in told["acme_requests_ready_at_once"].values())
    assert told["acme_requests"]["100"] >= told["acme_requests_warm"]["100"] >= 203
    assert told["acme_requests_by_resource"]["cold"]["2"]["authorization"] == 2
