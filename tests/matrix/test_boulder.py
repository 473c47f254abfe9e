"""
The daemon's own parts on a CA with the manners of Let's Encrypt's Boulder, and its limits.

Whatever goes wrong on the way: all certificates are there in the end, the CA has signed as many
as were stored, and no limit of Let's Encrypt's was hit (leaving the block fails on that).
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

from lab.boulder import After, Boulder
from lab.pebble import Pebble
from lab.process import free_ports
from matrix.place import NAMES, Obj, Place, until

pytestmark = pytest.mark.servers

SECOND = timedelta(seconds=1)
# What takes minutes and hours elsewhere, so that nobody waits for it here.
QUICK = {"backOff": ["1s"], "caBackOffFirst": "1s", "caBackOffCeiling": "1s"}


class Site:
    """CAs in a row, and a release that has them as *ca*, *second*, ..."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._folder, self._stack = folder, stack
        (self.port,) = free_ports(1)
        self.ca = self.another("ca")

    def another(self, name: str, **pebble: Any) -> Boulder:
        """One more CA."""
        folder = self._folder / name
        folder.mkdir()
        profiles = {"middle": 24, "long": 7_776_000}
        behind = self._stack.enter_context(
            Pebble(folder, http_port=self.port, profiles=profiles, **pebble)
        )
        return self._stack.enter_context(Boulder(behind))

    def place(self, *more: Boulder, certificates: Mapping[str, Obj] | None = None) -> Place:
        """The release."""
        names = ("ca", "second", "third")
        issuers = {
            name: {
                "directory": ca.directory,
                "caBundle": str(ca.ca_bundle),
                "profile": "long",
                "renewalInfo": False,
            }
            for name, ca in zip(names, (self.ca, *more), strict=False)
        }
        resolver = self.ca.pebble.dns_server
        return Place(
            issuers,
            resolver=resolver,
            solver_port=self.port,
            certificates=certificates,
            policy=dict(QUICK),
        )


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        yield Site(tmp_path, stack)


Fault = Callable[[Boulder], object]

CUTS: tuple[tuple[str, Literal["before", "after"]], ...] = (
    ("newAccount", "after"),
    ("newOrder", "before"),
    ("newOrder", "after"),
    ("challenge", "after"),
    ("finalize", "before"),
    ("finalize", "after"),
    ("certificate", "after"),
)


# What is left of a chain where a connection ends that says of no answer how long it is.
HALF = b"-----BEGIN CERTIFICATE-----\nMIIBQzCB66ADAgECAgUAh2VD\n"


def cut(kind: str, when: Literal["before", "after"]) -> Fault:
    """Twice; the CA has done what it was asked for, where it is *after*."""
    return lambda ca: ca.cut(kind, when, times=2)


FAULTS: Mapping[str, Fault] = {
    "nothing wrong": lambda ca: None,
    "the Date is hours behind": lambda ca: setattr(ca, "date_off", -5 * 3600 * SECOND),
    "the Date is hours ahead": lambda ca: setattr(ca, "date_off", 5 * 3600 * SECOND),
    "ten bad nonces in a row": lambda ca: ca.bad_nonce("newOrder", times=10),
    "429 with seconds": lambda ca: ca.answer("newOrder", 429, "rateLimited", retry_after=2),
    "429 with a date": lambda ca: ca.answer("newOrder", 429, "rateLimited", retry_after=After(2)),
    "busy": lambda ca: ca.answer("newOrder", 503, "rateLimited", retry_after=1, times=3),
    "a proxy's page": lambda ca: ca.answer("*", 502, page=b"<html>", times=3),
    "a page in place of the chain": lambda ca: ca.rewrite("certificate", body=b"<html>", times=3),
    "half of the chain": lambda ca: ca.rewrite("certificate", body=HALF, times=3),
    "no nonces to be had": lambda ca: ca.answer("newNonce", 404, "malformed", times=3),
    "409 at finalize": lambda ca: ca.answer("finalize", 409, "conflict", times=2),
    "a slow trickle": lambda ca: ca.rewrite("order", trickle=0.001, times=4),
    "orders that are signed for seconds": lambda ca: setattr(ca.ways, "processing", 3 * SECOND),
    "polls with Retry-After 3": lambda ca: setattr(ca.ways, "retry_after", 3),
    **{f"cut {when} it answered: {kind}": cut(kind, when) for kind, when in CUTS},
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=list(FAULTS))
def test_all_are_issued_in_the_end_and_none_is_lost(fault: Fault, site: Site) -> None:
    """Each once: what was signed is stored."""
    place = site.place()
    fault(site.ca)
    with place.running():
        place.wait_stored(1)
    assert place.stored() == len(site.ca.finalized) == len(NAMES)


def test_renewals_say_what_they_replace(site: Site) -> None:
    """Advised over and over, they are ordered twice a day; within the window no limit counts."""
    place = site.place()
    place.issuers["ca"]["renewalInfo"] = True
    with place.running():
        place.wait_stored(1)
    site.ca.advise("past", explanation="https://ca.example/why")
    with place.running():
        place.wait_stored(3)
    assert place.stored() == len(site.ca.finalized) == 3 * len(NAMES)
    replaced = [order.replaces for order in site.ca.orders() if order.replaces]
    refused = [each for each in site.ca.seen("newOrder") if each.status != 201]
    assert len(set(replaced)) == len(replaced) == 2 * len(NAMES), refused


def test_what_the_ca_does_not_take_is_left_out(site: Site) -> None:
    """An end of one's own choice is refused by Let's Encrypt; the certificate is issued."""
    place = site.place(certificates={"one": {"lifetime": "240h"}})
    with place.running():
        place.wait_stored(1)
    assert place.stored() == len(site.ca.finalized) == 1


def test_a_name_that_is_paused_or_forbidden_fails_its_own_certificate_only(site: Site) -> None:
    """The others are issued meanwhile; the CA's words stand in the Journal."""
    place = site.place()
    site.ca.pause("0.three.example.com")
    site.ca.refuse("4.ten.example.com", "caa", times=1)
    with place.running():
        until(lambda: place.stored("one"), "one is held up by others")
        until(lambda: "failures" in place.journal("three"), "nothing is told of the pause")
        (failure,) = place.journal("three")["failures"].values()
        assert "temporarily prevented from requesting" in failure["message"]
        assert not place.stored("three")
        until(lambda: place.stored("ten"), "another order was not made")
        site.ca.calm()
        place.wait_stored(1)
    assert place.stored() == len(site.ca.finalized) == len(NAMES)


INSTEAD: Mapping[str, Fault] = {
    "a day to wait": lambda ca: ca.answer(
        "newOrder", 429, "rateLimited", retry_after=86400, times=None
    ),
    "new terms": lambda ca: ca.change_terms(),
    "it is away": lambda ca: ca.answer("*", 503, times=None),
}


@pytest.mark.parametrize("fault", INSTEAD.values(), ids=list(INSTEAD))
def test_the_next_ca_is_asked_at_once(fault: Fault, site: Site) -> None:
    """Nothing is there yet, so nobody waits."""
    second = site.another("second")
    place = site.place(second)
    fault(site.ca)
    with place.running():
        place.wait_stored(1)
    assert not site.ca.finalized
    assert place.stored() == len(second.finalized) == len(NAMES)


def test_a_replacement_whose_answer_was_lost_is_no_second_one(site: Site) -> None:
    """Its order is open at the CA, which refuses another: the same one is asked for without."""
    place = site.place(certificates={"one": {}})
    place.issuers["ca"]["renewalInfo"] = True
    with place.running():
        place.wait_stored(1)
    site.ca.advise("past")
    lost = site.ca.cut("newOrder", "after", times=1)
    with place.running():
        place.wait_stored(2)
    assert lost.hits == 1
    assert 409 in [each.status for each in site.ca.seen("newOrder")]
    assert place.stored() == len(site.ca.finalized)


REFUSED: Mapping[str, Fault] = {
    "429": lambda ca: ca.answer("renewalInfo", 429, "rateLimited", retry_after=86400, times=None),
    "503": lambda ca: ca.answer("renewalInfo", 503, retry_after=After(86400), times=None),
    "404": lambda ca: ca.advise("absent"),
    "in a day": lambda ca: ca.advise("future", retry_after=86400),
}


@pytest.mark.parametrize("fault", REFUSED.values(), ids=list(REFUSED))
def test_renewal_information_that_is_not_to_be_had_holds_nothing_up(
    fault: Fault, site: Site
) -> None:
    """Its Retry-After is for itself: the certificate is renewed before it ends."""
    place = site.place(certificates={"one": {}})
    place.issuers["ca"] |= {"renewalInfo": True, "profile": "middle"}
    fault(site.ca)
    with place.running():
        place.wait_stored(2)
        one, two = (version.leaf for version in place.versions("one")[-2:])
    assert one is not None
    assert two is not None
    assert two.not_before < one.not_after
    assert site.ca.counts()["renewalInfo"]
    assert place.stored() == len(site.ca.finalized)


def test_an_external_account_is_used_once_though_the_answer_is_lost(site: Site) -> None:
    """The account is found by its key, and the CA is not asked to bind a second one."""
    keys = {"kid-1": base64.urlsafe_b64encode(b"k" * 48).decode()}
    ca = site.another("bound", external_accounts=keys)
    place = site.place(ca, certificates={"one": {"issuers": ["second"]}})
    place.issuers["second"]["externalAccount"] = {"secretName": "eab"}
    place.add_secret("eab", kid="kid-1", hmacKey=keys["kid-1"])
    lost = ca.cut("newAccount", "after", times=1)
    with place.running():
        place.wait_stored(1)
    assert lost.hits == 1
    assert place.stored() == len(ca.finalized) == 1


def test_orders_that_ran_out_are_made_anew(site: Site) -> None:
    """The CA knows nothing of them any more, and nothing was signed."""
    ca, place = site.ca, site.place()
    ca.ways.order_life = SECOND
    held = ca.answer("challenge", 503, times=None)

    def under_way() -> bool:
        now = datetime.now(UTC)
        ends = [order.expires for order in ca.orders() if order.expires is not None]
        return any(now <= end < now + 3600 * SECOND for end in ends)

    with place.running():
        until(lambda: 404 in [each.status for each in ca.seen("order")], "none has run out")
        ca.ways.order_life = None
        # one that is cut short just now would run out while it is signed
        until(lambda: not under_way(), "there are always others")
        held.stop()
        place.wait_stored(1)
    assert place.stored() == len(ca.finalized) == len(NAMES)


def test_an_order_that_may_be_signed_is_waited_for(site: Site) -> None:
    """Though the next CA would be there: the first one answers late, and nothing is lost."""
    second = site.another("second")
    place = site.place(second, certificates={"one": {}})
    away = site.ca.cut("finalize", "after", times=1)
    with place.running():
        until(lambda: away.hits, "not finalized")
        gone = site.ca.answer("*", 503, times=None)
        until(lambda: gone.hits >= 2, "not asked again")
        gone.stop()
        place.wait_stored(1)
    assert len(site.ca.finalized) == place.stored() == 1
    assert not second.finalized
