"""What the running daemon takes: rollovers, starting, and resting, on a real API server."""

from __future__ import annotations

import io
import json
import statistics
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from lab.audit import AuditEvent, AuditLog
from lab.demo import Demo, parse
from lab.process import LabError
from lab.show import Screen
from lab.world import NAMESPACE, RELEASE, World

USER = f"system:serviceaccount:{NAMESPACE}:{RELEASE}"
# The daemon's first log line about a certificate that was looked at.
FIRST_TURN = "turn"


@dataclass(frozen=True)
class Rollovers:
    """The first issuance and one renewal, as the demo's JSON has them, and one collection."""

    found: list[dict[str, Any]]
    collecting: dict[str, int]


def rollovers() -> Rollovers:
    """A short run of the demo."""
    with tempfile.TemporaryDirectory(prefix="certbaton-bench-") as temporary:
        folder = Path(temporary)
        file = folder / "demo.json"
        out = io.StringIO()
        words = ["--renewals", "1", "--json", str(file), "--keep", str(folder / "kept")]
        if Demo(parse(words), Screen(out, time.time())).run() != 0:
            raise LabError(f"the demo did not see every rollover:\n{out.getvalue()}")
        found = json.loads(file.read_text())["rollovers"]
        events = AuditLog(folder / "kept" / "plane" / "audit.log").events()
        return Rollovers(found, collecting(events, found[-1]["from_secret"]))


def collecting(events: list[AuditEvent], secret: str) -> dict[str, int]:
    """Requests by verb from marking *secret* for deletion to deleting it."""
    ours = sorted(
        (event for event in events if event.user == USER and event.verb != "watch"),
        key=lambda event: event.received,
    )
    about = [event for event in ours if (event.resource, event.name) == ("secrets", secret)]
    begin = max(event.received for event in about if event.verb == "patch")
    end = max(event.received for event in about if event.verb == "delete")
    between = (event.verb for event in ours if begin <= event.received <= end)
    return dict(sorted(Counter(between).items()))


@dataclass(frozen=True)
class Resting:
    """Starting with everything in place, and then doing nothing."""

    startup_s: float
    rss_mb: float
    per_minute: float
    requests: dict[str, int]


def resting(seconds: float, starts: int = 3) -> Resting:
    """Measure with one certificate of 90 days; requests are counted for *seconds*."""
    with World() as world:
        _settled(world)
        world.stop_daemon()
        startup = statistics.median(_startup(world) for _ in range(starts))
        # What it does just after starting is no rest.
        time.sleep(5.0)
        since = datetime.now(UTC)
        time.sleep(seconds)
        seen = world.plane.audit(world.user, since, datetime.now(UTC), leases=True)
        rss = psutil.Process(world.daemon.pid).memory_info().rss / 1e6
        return Resting(
            startup_s=round(startup, 2),
            rss_mb=round(rss, 1),
            per_minute=round(len(seen) * 60 / seconds, 1),
            requests=dict(Counter(f"{event.verb} {event.resource}" for event in seen)),
        )


def _settled(world: World) -> None:
    world.add_service("shop", "web", "shop.example.test")
    certificate = world.certificate("shop", ["shop.example.test"], [("shop", "web")])
    config = world.configuration(certificate)
    config["issuers"]["lab"]["profile"] = "long"
    world.install(config)
    world.start_daemon()
    world.wait_next_version("shop", "web", None)


def _startup(world: World) -> float:
    """From starting the process to the end of its first turn."""
    world.stop_daemon()
    before, began = len(world.lines), datetime.now(UTC)
    world.start_daemon()

    def turned() -> dict[str, Any] | None:
        lines = world.lines[before:]
        return next((line for line in lines if line.get("event") == FIRST_TURN), None)

    line = world.wait_for(turned, 60.0, "the daemon had no turn", interval=0.01)
    seconds: float = (line["seen"] - began).total_seconds()
    return seconds
