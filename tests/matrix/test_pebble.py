"""
Let's Encrypt's test CA in every mood: all certificates are there in the end, none twice.

In every cell the CA has signed as many certificates as were stored. Lifetimes are seconds, so
that renewals are seen; each certificate is ordered `1 + RENEWALS` times.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from certbaton.model import SecretVersion
from lab.pebble import Pebble
from lab.process import free_ports
from matrix.place import NAMES, Obj, Place, until

pytestmark = pytest.mark.servers

LIFETIME = 10
PROFILES = {"short": LIFETIME, "middle": 24, "long": 7_776_000}
# What is left of so short a life has to be enough to order, on a machine with other things to do.
EARLY = {"renewLeft": 0.5, "late": 0.45, "dangerous": 0.4}
RENEWALS = 1
# Of no use anywhere else: 48 times the same letter.
EAB = {"kid-1": base64.urlsafe_b64encode(b"k" * 48).decode()}


@dataclass(frozen=True)
class Cell:
    """How the CA is (*pebble*), what the configuration has of it (*issuer*), and the time zone."""

    pebble: Mapping[str, Any] = field(default_factory=dict)
    issuer: Mapping[str, Any] = field(default_factory=dict)
    zone: str = "UTC"
    certificate: Obj = field(default_factory=dict)


CELLS: Mapping[str, Cell] = {
    "nonces rejected never, authorizations reused never": Cell(),
    "nonces rejected half of the time": Cell({"nonce_reject": 50}),
    "authorizations reused always": Cell({"authz_reuse": 100}),
    "both": Cell({"nonce_reject": 50, "authz_reuse": 100}),
    "validations that sleep": Cell({"va_sleep": 2}),
    # where Retry-After comes, it is as often a date as not
    "Asia/Tokyo": Cell({"retry_after": (1, 1)}, zone="Asia/Tokyo"),
    "America/New_York": Cell({"retry_after": (1, 1)}, zone="America/New_York"),
    "alternate roots": Cell({"alternate_roots": 2, "chain_length": 2}),
    "RSA keys": Cell(certificate={"keyType": "RSA-2048"}),
    "polls with Retry-After 3": Cell({"retry_after": (3, 3)}),
}


@pytest.fixture
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The time zone that this process believes to be in."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def a_pebble(folder: Path, port: int, **more: Any) -> Pebble:
    """A CA whose certificates live for `LIFETIME` seconds."""
    folder.mkdir()
    return Pebble(folder, http_port=port, profiles=PROFILES, **more)


def an_issuer(pebble: Pebble, **more: Any) -> Obj:
    """What the configuration has of it; of renewal information there are cells of its own."""
    return {
        "directory": pebble.directory,
        "caBundle": str(pebble.ca_file),
        "profile": "short",
        "renewalInfo": False,
        **more,
    }


@pytest.mark.parametrize(
    ("cell", "zone"),
    [(cell, cell.zone) for cell in CELLS.values()],
    ids=list(CELLS),
    indirect=["zone"],
)
def test_all_are_issued_and_renewed_and_none_is_lost(
    cell: Cell, zone: None, tmp_path: Path
) -> None:
    """However the CA is, what it signed is stored, once."""
    (port,) = free_ports(1)
    with a_pebble(tmp_path / "pebble", port, **cell.pebble) as pebble:
        place = Place(
            {"lab": an_issuer(pebble, **cell.issuer)},
            resolver=pebble.dns_server,
            solver_port=port,
            certificates=dict.fromkeys(NAMES, cell.certificate),
        )
        with place.running():
            place.wait_stored(1 + RENEWALS)
        assert pebble.certificates_issued() == place.stored()


def test_an_account_that_has_to_be_bound(tmp_path: Path) -> None:
    """The key that binds it comes from a Secret; which one it was is noted with the account."""
    (port,) = free_ports(1)
    with a_pebble(tmp_path / "pebble", port, external_accounts=EAB) as pebble:
        external = {"secretName": "eab"}
        place = Place(
            {"lab": an_issuer(pebble, externalAccount=external)},
            resolver=pebble.dns_server,
            solver_port=port,
        )
        place.add_secret("eab", kid="kid-1", hmacKey=EAB["kid-1"])
        with place.running():
            place.wait_stored(2)
        assert pebble.certificates_issued() == place.stored()
        assert place.account(pebble.directory)["externalKid"] == "kid-1"


def test_a_ca_that_starts_anew_and_has_forgotten_all(tmp_path: Path) -> None:
    """Accounts and orders are gone: another account is made, and what was due is issued."""
    (port,) = free_ports(1)
    with a_pebble(tmp_path / "pebble", port) as pebble:
        # long enough that none is being renewed when all is forgotten: it would be lost
        issuer = an_issuer(pebble, profile="middle")
        place = Place({"lab": issuer}, resolver=pebble.dns_server, solver_port=port)
        with place.running():
            place.wait_stored(1)
            pebble.restart()
            had = {name: place.stored(name) for name in NAMES}
            place.wait_stored(1 + max(had.values()))
        assert pebble.certificates_issued() == place.stored()


def test_the_second_ca_of_two_stands_in_and_the_first_comes_back(tmp_path: Path) -> None:
    """While the first one is away the second is asked; each renewal begins with the first."""
    (port,) = free_ports(1)
    with (
        a_pebble(tmp_path / "first", port) as first,
        a_pebble(tmp_path / "second", port) as second,
    ):
        place = Place(
            {"first": an_issuer(first), "second": an_issuer(second)},
            resolver=second.dns_server,
            solver_port=port,
        )
        first.process.stop()
        with place.running():
            place.wait_stored(1)
            assert first.certificates_issued() == 0
            first.restart()
            until(lambda: first.certificates_issued() >= len(NAMES), "the first is not asked")
        assert first.certificates_issued() + second.certificates_issued() == place.stored()


# --- renewal information -------------------------------------------------------------


def a_window(start: timedelta, end: timedelta, now: datetime) -> str:
    """Renewal information with a window from *start* to *end* after *now*."""
    window = {"start": f"{now + start:%FT%TZ}", "end": f"{now + end:%FT%TZ}"}
    return json.dumps({"suggestedWindow": window, "explanationURL": "https://ca.example/why"})


HOUR = timedelta(hours=1)


# What renewalInfo answers, given the time.
NO_USE: Mapping[str, Callable[[datetime], str]] = {
    "malformed": lambda now: "<html>",
    "no window": lambda now: "{}",
    "turned round": lambda now: a_window(HOUR, -HOUR, now),
    "far in the future": lambda now: a_window(1000 * HOUR, 1001 * HOUR, now),
}


@pytest.mark.parametrize("answer", NO_USE.values(), ids=list(NO_USE))
def test_a_window_of_no_use_does_not_keep_a_certificate_from_being_renewed(
    answer: Callable[[datetime], str], tmp_path: Path
) -> None:
    """By the time rule, or when it becomes dangerous: it is renewed before it ends."""
    (port,) = free_ports(1)
    with a_pebble(tmp_path / "pebble", port) as pebble:
        issuer = an_issuer(pebble, renewalInfo=True, profile="middle")
        place = Place({"lab": issuer}, resolver=pebble.dns_server, solver_port=port, policy=EARLY)

        def tell(version: SecretVersion) -> None:
            pebble.set_renewal_info(place.certificate_pem(version), answer(datetime.now(UTC)))

        with place.running(), place.on_stored(tell):
            place.wait_stored(2)
            kept = {name: place.versions(name) for name in NAMES}
        assert pebble.certificates_issued() == place.stored()
        for name in NAMES:
            one, two = (version.leaf for version in kept[name][-2:])
            assert one is not None
            assert two is not None
            assert two.not_before < one.not_after


def test_a_window_in_the_past_brings_one_at_once(tmp_path: Path) -> None:
    """Long before a third of its lifetime is left, with the CA's explanation."""
    (port,) = free_ports(1)
    with a_pebble(tmp_path / "pebble", port) as pebble:
        place = Place(
            {"lab": an_issuer(pebble, renewalInfo=True, profile="long")},
            resolver=pebble.dns_server,
            solver_port=port,
        )
        with place.running():
            place.wait_stored(1)
            first = {name: place.versions(name)[0] for name in NAMES}
        for version in first.values():
            text = a_window(-2 * HOUR, -HOUR, datetime.now(UTC))
            pebble.set_renewal_info(place.certificate_pem(version), text)
        with place.running():  # a new process asks at once
            place.wait_stored(2)
        assert pebble.certificates_issued() == place.stored() == 2 * len(NAMES)
        for name in NAMES:
            assert place.versions(name)[-1].ref != first[name].ref
