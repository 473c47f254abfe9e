"""CAs that do not answer: it counts against them, and not against a certificate."""

from __future__ import annotations

from dataclasses import replace

import pytest

from certbaton.errors import CaUnavailable, Conflict
from certbaton.model import IssuerSpec, WaitKind
from fakes.ca import DIRECTORY
from loop.world import MINUTE, SECOND, World, a_spec, settle

ONE, TWO, THREE = a_spec("one", "one"), a_spec("two", "two"), a_spec("three", "three")
OTHER = "https://other.test/directory"


@pytest.mark.parametrize("request_", ["newAccount", "newOrder", "challenge", "finalize"])
def test_a_ca_that_does_not_answer_is_no_failure_of_the_certificate(request_: str) -> None:
    """The Journal has none; it is told, and tried again after a minute."""
    world = World(ONE)
    process = world.process()
    world.ca.fail(request_, CaUnavailable("no route"))
    report = process.turn("one")
    assert report.failed == ["no route"]
    assert "CertificateFailed" in world.events()
    (wait,) = [each for each in report.waits if each.kind is WaitKind.BACK_OFF]
    assert wait.until == world.now + MINUTE and "does not answer" in wait.what
    journal = process.cluster.store.journal("one")
    assert journal is None or journal.failures == {}
    asked = len(world.ca.calls)
    world.now += 59 * SECOND
    process.turn("one")
    assert len(world.ca.calls) == asked
    world.now += SECOND
    settle(world, process)
    assert world.named("one") is not None and len(world.ca.issued) == 1
    assert process.dealings.authorities.outages.troubles() == {}


def test_a_new_process_asks_at_once() -> None:
    """What is known of CAs is in memory only."""
    world = World(ONE)
    world.ca.fail("newOrder", CaUnavailable("no route"))
    world.process().turn("one")
    settle(world, world.process())
    assert world.named("one") is not None


def test_all_certificates_wait_for_one() -> None:
    """Whoever comes first after the pause tries for all; the pause doubles when that fails."""
    world = World(ONE, TWO, THREE)
    process = world.process()
    world.away(DIRECTORY)
    for name in ("one", "two", "three"):
        process.turn(name)
    assert world.ca.calls == ["newAccount"]
    world.now += MINUTE
    for name in ("two", "one", "three"):
        process.turn(name)
    assert world.ca.calls == ["newAccount"] * 2
    world.now += MINUTE
    assert process.turn("one").failed == []
    assert world.ca.calls == ["newAccount"] * 2
    world.away(DIRECTORY, False)
    world.now += MINUTE
    for name in ("one", "two", "three"):
        settle(world, process, name)
        assert world.named(name) is not None


def test_while_one_tries_the_others_do_not() -> None:
    """Also not after the pause, as long as the try is under way."""
    world = World(ONE, TWO)
    process = world.process()
    world.ca.fail("newAccount", CaUnavailable("no route"))
    process.turn("one")
    world.now += MINUTE
    outages = process.dealings.authorities.outages
    asked = len(world.ca.calls)
    with outages.trying(DIRECTORY, "one", None):
        with pytest.raises(Conflict), outages.trying(DIRECTORY, "two", None):
            pass
        report = process.turn("two")
        assert any("one tries it again for all" in wait.what for wait in report.waits)
        assert len(world.ca.calls) == asked
    process.turn("two")
    assert len(world.ca.calls) > asked


def test_another_ca_is_not_held_up() -> None:
    """Each CA counts by itself."""
    world = World(ONE, TWO)
    world.add_ca(OTHER)
    world.away(DIRECTORY)
    process = world.process(ONE, replace(TWO, issuer=IssuerSpec("other", OTHER)))
    process.turn("one")
    settle(world, process, "two")
    assert world.named("two") is not None and world.named("one") is None


def test_a_time_that_a_busy_ca_named_is_obeyed_in_full() -> None:
    """Retry-After of a 503 counts for all."""
    world = World(ONE, TWO)
    process = world.process()
    until = world.now + 47 * MINUTE
    world.ca.fail("newAccount", CaUnavailable("busy", retry_at=until))
    process.turn("one")
    assert process.turn("two").next_at == until
    asked = len(world.ca.calls)
    world.now = until - SECOND
    process.turn("one")
    process.turn("two")
    assert len(world.ca.calls) == asked


def test_an_outage_that_nobody_asked_about_for_long_is_forgotten() -> None:
    """Else who went to another CA meanwhile would never come back to this one."""
    world = World(ONE)
    process = world.process()
    world.ca.fail("newOrder", CaUnavailable("no route"))
    process.turn("one")
    outages = process.dealings.authorities.outages
    world.now += 90 * MINUTE
    assert outages.is_away(DIRECTORY)
    world.now += SECOND
    assert not outages.is_away(DIRECTORY)


def test_a_ca_that_shows_its_orders_and_signs_none_is_still_away() -> None:
    """What failed must have worked again, whatever else is answered."""
    world = World(ONE, TWO)
    process = world.process()
    world.ca.fail("finalize", CaUnavailable("HTTP 500"), CaUnavailable("HTTP 500"))
    process.turn("one")
    world.now += MINUTE
    process.turn("one")
    assert process.dealings.authorities.outages.troubles()[DIRECTORY].count == 2
    assert "order" in world.ca.calls
