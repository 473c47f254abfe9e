"""The contract of `certbaton.solvers.DnsProvider`: on a fake, and on a real name server."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from solvers.worlds import DnsWorld, fake_dns, knot_dns


@pytest.fixture(params=["fake", pytest.param("knot", marks=pytest.mark.servers)])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DnsWorld]:
    with (knot_dns if request.param == "knot" else fake_dns)(tmp_path) as found:
        yield found


def test_a_value_comes_and_goes(world: DnsWorld) -> None:
    """add_txt makes it visible, remove_txt takes it away."""
    name = f"_acme-challenge.shop.{world.zone}"
    assert not world.provider.visible(name, "one")
    world.provider.add_txt(name, "one")
    assert world.provider.visible(name, "one")
    assert world.txt(name) == ["one"]
    world.provider.remove_txt(name, "one")
    assert not world.provider.visible(name, "one")
    assert world.txt(name) == []


def test_both_can_be_done_twice(world: DnsWorld) -> None:
    """Adding what is there and removing what is not change nothing and succeed."""
    name = f"_acme-challenge.{world.zone}"
    world.provider.remove_txt(name, "one")
    world.provider.add_txt(name, "one")
    world.provider.add_txt(name, "one")
    assert world.txt(name) == ["one"]
    world.provider.remove_txt(name, "one")
    world.provider.remove_txt(name, "one")
    assert world.txt(name) == []


def test_values_at_one_name_are_apart(world: DnsWorld) -> None:
    """A value is added beside others and removed alone."""
    name = f"_acme-challenge.{world.zone}"
    for value in ("one", "two", "three"):
        world.provider.add_txt(name, value)
    world.provider.remove_txt(name, "two")
    assert world.txt(name) == ["one", "three"]
    assert world.provider.visible(name, "one")
    assert not world.provider.visible(name, "two")


def test_a_part_of_a_value_is_another_value(world: DnsWorld) -> None:
    """Values are compared whole and with their case."""
    name = f"_acme-challenge.{world.zone}"
    world.provider.add_txt(name, "One-two")
    assert not world.provider.visible(name, "One")
    assert not world.provider.visible(name, "one-two")


def test_threads_may_write_at_once(world: DnsWorld) -> None:
    """Several certificates' values arrive at one name at the same time."""
    name = f"_acme-challenge.{world.zone}"
    values = [f"value-{number}" for number in range(8)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda value: world.provider.add_txt(name, value), values))
    assert world.txt(name) == values
