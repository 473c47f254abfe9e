"""The daemon's clock, put wrong at run time (CERTBATON_CLOCK_OFFSET_FILE)."""

from __future__ import annotations

from pathlib import Path


class Clock:
    """A file with the seconds by which the daemon's clock is ahead."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.set(0.0)

    def set(self, seconds: float) -> None:
        """Step; negative: back. A reader sees the old or the new number, never half of one."""
        fresh = self.file.with_suffix(".new")
        fresh.write_text(f"{seconds}")
        fresh.rename(self.file)

    @property
    def environ(self) -> dict[str, str]:
        """What the daemon is to be started with."""
        return {"CERTBATON_CLOCK_OFFSET_FILE": str(self.file)}
