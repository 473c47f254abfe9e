"""
Fail points and the clock's offset are for tests: without the lab's variables they do nothing.

And nothing that is shipped sets those.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "daemon" / "certbaton" / "failpoints.py"
NAMES = sorted(set(re.findall(r'environ\.get\("(\w+)"', SOURCE.read_text())))

THREE_WRITES = """
from datetime import UTC, datetime
from certbaton import failpoints
from certbaton.wiring import utc_now
for number in range(3):
    with failpoints.write("cluster create Secret"):
        print("written", flush=True)
apart = abs((utc_now() - datetime.now(UTC)).total_seconds())
print("right" if apart < 60 else "wrong")
"""


def three_writes(folder: Path, **environ: str) -> tuple[int, list[str]]:
    """The exit code and the output of a process that writes thrice and looks at the clock."""
    plain = {key: value for key, value in os.environ.items() if key not in NAMES}
    done = subprocess.run(
        [sys.executable, "-c", THREE_WRITES],
        env={**plain, **environ},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout.split()


def test_these_are_all() -> None:
    """Found in the source, so that a new one is looked after here as well."""
    assert NAMES == [
        "CERTBATON_CLOCK_OFFSET_FILE",
        "CERTBATON_CRASH_AT",
        "CERTBATON_STOP_AT",
        "CERTBATON_WRITE_LOG",
    ]


@pytest.mark.parametrize("environ", [{}, dict.fromkeys(NAMES, "")], ids=["unset", "empty"])
def test_without_the_variables_nothing_happens(tmp_path: Path, environ: dict[str, str]) -> None:
    """Every write goes through, the clock is right, and no file is made."""
    assert three_writes(tmp_path, **environ) == (0, ["written"] * 3 + ["right"])
    assert list(tmp_path.iterdir()) == []


def test_with_them_something_does(tmp_path: Path) -> None:
    """Or the test above would prove nothing."""
    assert three_writes(tmp_path, CERTBATON_CRASH_AT="before:2") == (-9, ["written"])
    offset = tmp_path / "offset"
    offset.write_text("3600")
    assert three_writes(tmp_path, CERTBATON_CLOCK_OFFSET_FILE=str(offset))[1][-1] == "wrong"
    log = tmp_path / "log"
    three_writes(tmp_path, CERTBATON_WRITE_LOG=str(log))
    assert log.read_text() == "cluster create Secret\n" * 3


def test_a_clock_file_that_is_missing_or_broken_changes_nothing(tmp_path: Path) -> None:
    """An offset is in that file, or there is none."""
    for text in (None, "", "an hour"):
        file = tmp_path / "offset"
        if text is not None:
            file.write_text(text)
        told = three_writes(tmp_path, CERTBATON_CLOCK_OFFSET_FILE=str(file))
        assert told == (0, ["written"] * 3 + ["right"])


def test_nothing_that_is_shipped_sets_them() -> None:
    """Not the image, not the chart, no example; in the daemon one file alone knows them."""
    shipped = [ROOT / "Dockerfile"]
    for folder in ("helm", "config", "daemon"):
        shipped += [path for path in (ROOT / folder).rglob("*") if path.is_file()]
    named = {
        path
        for path in shipped
        if path.suffix != ".pyc" and any(name.encode() in path.read_bytes() for name in NAMES)
    }
    assert named == {SOURCE}
