"""
``make soak``: rollovers under random faults, repeatable by seed, and a verdict at the end.

Exit code 0 if all held; 1 if an invariant broke, a certificate was wasted, a good version was
rejected or a rollout never ended; 130 if it was interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from lab.process import LabError
from lab.show import Screen, span
from soak.run import Soak

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options; SystemExit 2 for a mistake in them."""
    parser = argparse.ArgumentParser(
        prog="make soak", usage='make soak ARGS="[options]"',
        description=(__doc__ or "").replace("``", ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--rollovers", type=int, metavar="N", help="until so many; 10 by default")
    length.add_argument("--minutes", type=float, metavar="N", help="for so long")
    parser.add_argument("--seed", type=int, help="which faults; by default another each time")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep logs and keys there")
    options = parser.parse_args(argv)
    if options.json is not None and not options.json.absolute().parent.is_dir():
        parser.error(f"--json: there is no folder {options.json.parent}")
    if options.keep is not None and options.keep.exists() and any(options.keep.iterdir()):
        parser.error(f"--keep: {options.keep} is not empty")
    if options.minutes is None and options.rollovers is None:
        options.rollovers = 10
    if options.seed is None:
        options.seed = int.from_bytes(os.urandom(3))
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run one; gives the exit code."""
    began = time.time()
    options = parse(argv)
    for number in _SIGNALS:
        signal.signal(number, _interrupted)
    screen = Screen(sys.stdout, began)
    screen.heading(f"certbaton soak, seed {options.seed}")
    soak = Soak(options.seed, screen, options.keep)
    try:
        report = soak.run(options.rollovers, options.minutes)
    except KeyboardInterrupt:
        screen.note("Everything is stopped and cleaned up.")
        return 130
    except LabError as error:
        print(f"soak: {error}", file=sys.stderr)
        return 1
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return conclude(screen, soak, report, time.time() - began)


def conclude(screen: Screen, soak: Soak, report: dict[str, Any], seconds: float) -> int:
    """Say what came of it; gives the exit code."""
    screen.heading("What was seen")
    injected = sum(report["faults"].values())
    screen.note(
        f"{report['rollovers']} rollovers and {injected} faults of {len(report['faults'])} kinds "
        f"in {span(seconds)}. Outside faults of the place, a listener lacked the newest good "
        f"version for at most {report['longest_unwanted_s']} s "
        f"({soak.longest_at}).",
        indent=2,
    )
    bad = {
        "Invariants broken": soak.broken,
        "Certificates wasted": soak.wasted,
        "Good versions rejected": soak.rejections,
        "Rollouts that never ended": soak.stuck,
    }
    for title, sentences in bad.items():
        if sentences:
            screen.note(f"{title}:", "red", indent=2)
            for sentence in sentences:
                screen.note(f"- {sentence}", "red", indent=4)
    if any(bad.values()):
        screen.note(f'The same faults again: make soak ARGS="--seed {soak.seed}"', indent=2)
        return 1
    screen.note("Nothing was lost, and nothing broke.", "green", indent=2)
    return 0


def _interrupted(number: int, frame: FrameType | None) -> None:
    # Once is enough: a second one must not cut the cleaning short.
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    os.write(sys.stdout.fileno(), b"\nStopping; this takes a few seconds.\n")
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
