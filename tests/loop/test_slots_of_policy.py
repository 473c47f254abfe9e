"""How many orders a CA has at a time is the policy's."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from certbaton.authorities import Authorities
from certbaton.model import Policy

CA = "https://ca.test/directory"


@pytest.mark.parametrize("limit", [1, 4])
def test_so_many_orders_and_no_more(limit: int) -> None:
    """Another CA has slots of its own; a slot that is given back is free."""
    now = datetime(2027, 3, 1, 12, tzinfo=UTC)
    authorities = Authorities(
        lambda issuer, key, url: pytest.fail("nobody is connected"),
        {},
        policy=Policy(orders_at_a_time=limit),
        clock=lambda: now,
    )
    held = [authorities.orders.taken(CA, f"c{number}") for number in range(limit)]
    assert [each.__enter__() for each in held] == [None] * limit
    with authorities.orders.taken(CA, "more") as wait:
        assert wait is not None
    with authorities.orders.taken("https://other.test/directory", "more") as wait:
        assert wait is None
    for each in held:
        each.__exit__(None, None, None)
    with authorities.orders.taken(CA, "more") as wait:
        assert wait is None
