"""Numbers of the policy that contradict each other, and resolvers."""

from __future__ import annotations

import pytest
import yaml

from certbaton.config import parse
from certbaton.errors import ConfigurationError

CONTRADICTIONS: dict[str, tuple[dict[str, object], str]] = {
    "late before it is due": (
        {"late": 0.4},
        "late must be less than renewLeft and renewLeftShort",
    ),
    "dangerously late before it is late": (
        {"dangerous": 0.2},
        "dangerous must not be more than late",
    ),
    "a floor above the ceiling": (
        {"advicePollFloor": "2d"},
        "advicePollFloor must not be more than advicePollCeiling",
    ),
    "the usual above the ceiling": (
        {"advicePollCeiling": "1h"},
        "advicePollUsual must not be more than advicePollCeiling",
    ),
    "a first pause above the longest": (
        {"caBackOffFirst": "1h"},
        "caBackOffFirst must not be more than caBackOffCeiling",
    ),
}


@pytest.mark.parametrize(("policy", "expected"), CONTRADICTIONS.values(), ids=list(CONTRADICTIONS))
def test_numbers_that_contradict_each_other_are_refused(
    policy: dict[str, object], expected: str
) -> None:
    """With the names of both keys; the defaults do not."""
    with pytest.raises(ConfigurationError) as caught:
        parse(yaml.safe_dump({"policy": policy}), {})
    assert str(caught.value) == f"policy: {expected}"


def test_the_next_ca_may_be_asked_at_once() -> None:
    """After the first failure, without waiting."""
    policy = parse("policy: {fallbackFailures: 1, fallbackAfter: 0s}", {}).policy.policy()
    assert (policy.fallback_failures, policy.fallback_after.total_seconds()) == (1, 0)


@pytest.mark.parametrize(
    "resolver", ["192.0.2.53", "192.0.2.53:5353", "2001:db8::53", "[2001:db8::53]:5353"]
)
def test_a_resolver_is_an_address_with_or_without_a_port(resolver: str) -> None:
    """Of both families."""
    assert parse(yaml.safe_dump({"resolvers": [resolver]}), {}).resolvers == [resolver]


@pytest.mark.parametrize(
    "resolver", ["ns.example", "192.0.2.53:", "192.0.2.53:99999", "192.0.2.53:0", "[192.0.2.53"]
)
def test_a_resolver_that_is_no_address_is_refused(resolver: str) -> None:
    """A name would have to be looked up first."""
    with pytest.raises(ConfigurationError) as caught:
        parse(yaml.safe_dump({"resolvers": [resolver]}), {})
    assert str(caught.value) == (
        f"resolvers[0]: '{resolver}' is not the IP address of a name server, such as 192.0.2.53 "
        "or 192.0.2.53:5353 or [2001:db8::53]:5353"
    )
