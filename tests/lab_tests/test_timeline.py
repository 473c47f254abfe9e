"""The demo's timeline: what it misses, and what it says and writes down; without servers."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab.audit import AuditEvent
from lab.show import Screen, sentence
from lab.timeline import Kind, Moment, Rollover, Timeline, Version
from lab.world import World

T0 = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def version(name: str, **more: Any) -> Version:
    facts: dict[str, Any] = {"stored_at": at(1), "due": at(0), "acme_requests": 7} | more
    return Version("shop", name, "ab" * 32, T0, at(60), **facts)


def request(verb: str) -> AuditEvent:
    return AuditEvent("robot", verb, "", "secrets", "", "", "", 200, at(1), at(1), "", "")


def rollover(to: Version, old: str | None = None, **more: Any) -> Rollover:
    facts: dict[str, Any] = {
        "served_at": at(3),
        "interruption_ms": 400.0 if old else 0.0,
        "requests": [request("patch"), request("create"), request("patch")],
    } | more
    return Rollover("http-01", "shop/web", old, to, at(2), **facts)


def timeline(*rollovers: Rollover) -> Timeline:
    world = SimpleNamespace(plane=SimpleNamespace(admin=None))
    made = Timeline(cast(World, world), {"shop": "http-01"}, {})
    for each in rollovers:
        made.rollovers.append(each)
        made.versions[each.version.name] = each.version
    return made


def test_a_rollover_is_written_down_as_the_issue_asks() -> None:
    """Seconds are counted from due, requests by verb."""
    assert rollover(version("b"), "a").as_json() == {
        "certificate": "shop",
        "challenge": "http-01",
        "service": "shop/web",
        "from_secret": "a",
        "to_secret": "b",
        "leaf_sha256": "ab" * 32,
        "issued_s": 1.0,
        "due_to_served_s": 3.0,
        "interruption_ms": 400.0,
        "api_requests": {"create": 1, "patch": 2},
        "acme_requests": 7,
    }


GONE = version("a", deleted_at=at(9))
HERE = version("a", marked_at=at(8))


@pytest.mark.parametrize(
    ("seen", "lacks"),
    [
        ([rollover(GONE), rollover(version("b"), "a")], []),
        ([], ["shop/web: 0 of 2 rollovers began"]),
        ([rollover(GONE)], ["shop/web: 1 of 2 rollovers began"]),
        (
            [rollover(GONE, served_at=None), rollover(version("b"), "a")],
            ["shop/web: no handshake showed a (rollover 1)"],
        ),
        (
            [rollover(GONE), rollover(version("b"), "a", requests=None)],
            ["shop/web: the daemon did not note that b is served"],
        ),
        (
            [rollover(HERE), rollover(version("b"), "a")],
            ["shop/web: a was not collected after b"],
        ),
    ],
)
def test_what_is_missing_is_said(seen: list[Rollover], lacks: list[str]) -> None:
    """A rollover that nobody saw on the wire is none, however sure the daemon is of it."""
    assert timeline(*seen).missing(["shop/web"], 2) == lacks


def test_every_moment_has_a_sentence() -> None:
    """None is empty, and none is the word that stands for it in the code."""
    new = version("b")
    for kind in Kind:
        moment = Moment(kind, T0, "shop", new, rollover(new, "a"), "something")
        assert len(sentence(moment)) > len(kind.value)


def test_colour_is_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file gets plain text; so does a terminal with NO_COLOR."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    for out, coloured in ((io.StringIO(), False), (Terminal(), True)):
        Screen(out, T0.timestamp()).step("served", "green", at(1.5))
        assert ("\x1b[" in out.getvalue()) is coloured
        assert out.getvalue().startswith("    1.5 s  ")
    monkeypatch.setenv("NO_COLOR", "1")
    plain = Terminal()
    Screen(plain, T0.timestamp()).step("served", "green")
    assert "\x1b" not in plain.getvalue()
