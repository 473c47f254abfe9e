"""
``make bench``: what certbaton takes, in requests, seconds and megabytes, as a table.

Nothing is asserted: requests and memory have their limits in tests, and times depend on the
machine. ``--json FILE`` writes the same numbers down. Requests to a CA are counted from newOrder
to the download, with an account that is there, every look at the order and a nonce included. The
directory is not among them: a process fetches it once a day for all of its certificates.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.issuance import Issuance, measure
from bench.running import Resting, Rollovers, resting, rollovers
from lab import build
from lab.process import LabError
from lab.show import Screen

NAMES = (1, 2, 10, 100)
RESTING_S = 65.0
HOW = {
    "cold": "2N+6 at most, a nonce included",
    "warm": "with a nonce at hand",
    "ready": "ready at once: 5 at most",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure everything; gives the exit code."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there")
    options = parser.parse_args(argv)
    screen = Screen(sys.stdout, time.time())
    try:
        build.ensure("pebble", "pebble-challtestsrv", "etcd", "helm", "kube-apiserver")
        screen.step(f"issuing certificates with {', '.join(map(str, NAMES))} names")
        issued = measure(NAMES)
        screen.step("two rollovers (about a minute)")
        rolled = rollovers()
        screen.step(f"starting, and resting for {RESTING_S:.0f} s")
        rested = resting(RESTING_S)
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    except LabError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    show(screen, issued, rolled, rested)
    if options.json is not None:
        options.json.write_text(json.dumps(numbers(issued, rolled, rested), indent=2) + "\n")
    return 0


def numbers(issued: list[Issuance], rolled: Rollovers, rested: Resting) -> dict[str, Any]:
    """All numbers, for JSON."""
    return {
        **acme_numbers(issued),
        "rollovers": rolled.found,
        "collecting_api_requests": rolled.collecting,
        "due_to_stored_s": [rollover["issued_s"] for rollover in rolled.found],
        "startup_s": rested.startup_s,
        "resting": {
            "rss_mb": rested.rss_mb,
            "api_requests_per_minute": rested.per_minute,
            "api_requests": rested.requests,
        },
    }


def acme_numbers(issued: list[Issuance]) -> dict[str, Any]:
    """
    What issuances took, by the number of names.

    ``acme_requests`` are those of a session that has no nonce yet, as before any renewal;
    2N+6 at most. ``acme_requests_warm`` are another's a moment later; of an order that is ready
    at once there are 5 at most, with a nonce.
    """

    def by_names(how: str) -> list[Issuance]:
        return [one for one in issued if one.how == how]

    return {
        "acme_requests": {str(one.names): one.total for one in by_names("cold")},
        "acme_requests_warm": {str(one.names): one.total for one in by_names("warm")},
        "acme_requests_ready_at_once": {str(one.names): one.total for one in by_names("ready")},
        "acme_requests_by_resource": {
            how: {str(one.names): one.requests for one in by_names(how)}
            for how in dict.fromkeys(one.how for one in issued)
        },
        "acme_seconds": {str(one.names): one.seconds for one in by_names("cold")},
    }


def show(screen: Screen, issued: list[Issuance], rolled: Rollovers, rested: Resting) -> None:
    """The table."""
    rows = [
        (f"issuance, {one.names} names" if one.names > 1 else "issuance, 1 name", what, value)
        for one in issued
        for what, value in (
            (f"CA requests, {HOW[one.how]}", str(one.total)),
            ("seconds", f"{one.seconds:.2f}"),
        )
    ]
    for which, rollover in zip(("first rollover", "renewal"), rolled.found, strict=True):
        rows += [
            (which, f"API requests ({_verbs(rollover['api_requests'])})",
             str(sum(rollover["api_requests"].values()))),
            (which, "CA requests", str(rollover["acme_requests"])),
            (which, "seconds from due to stored", f"{rollover['issued_s']:.2f}"),
            (which, "seconds from due to served", f"{rollover['due_to_served_s']:.2f}"),
        ]  # fmt: skip
    rows += [
        ("collecting a Secret", f"API requests ({_verbs(rolled.collecting)})",
         str(sum(rolled.collecting.values()))),
        ("starting", "seconds to the end of the first turn", f"{rested.startup_s:.2f}"),
        ("resting", f"API requests a minute ({_verbs(rested.requests)})",
         f"{rested.per_minute:.1f}"),
        ("resting", "resident memory, MB", f"{rested.rss_mb:.1f}"),
    ]  # fmt: skip
    screen.note()
    screen.table(("what", "of", "value"), rows)


def _verbs(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {verb}" for verb, count in counts.items()) or "none"


if __name__ == "__main__":
    sys.exit(main())
