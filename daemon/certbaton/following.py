"""
How an order, or a rehearsal, is followed within one call, and how far it got.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from certbaton.authorities import Authorities
from certbaton.errors import SolverNotReady
from certbaton.model import SecretVersion

LOOK_AGAIN = timedelta(seconds=5)
# So long an order that only waits keeps others from beginning; what is usual is over by then.
KEEPS_SLOT = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it got: *version* when it ended in one, else when to go on."""

    version: SecretVersion | None = None
    retry_after: timedelta | None = None
    what: str = ""


@dataclass(frozen=True, slots=True)
class Following:
    """
    How an order is followed within one call: *clock* is aware UTC.

    *sleep* takes seconds and returns False when the process is to stop; *patience* is how long
    one call follows an order before the Journal takes over.
    """

    clock: Callable[[], datetime]
    sleep: Callable[[float], bool]
    patience: timedelta = timedelta(minutes=2)

    def sleep_at(self, authorities: Authorities, directory: str) -> Callable[[float], bool]:
        """*sleep*, which gives a slot at *directory* up for others after a while."""
        return authorities.sleeper(directory, self.clock, self.sleep, KEEPS_SLOT)


def no_slot(directory: str) -> str:
    """Say why somebody is to ask again soon."""
    return f"as many other certificates as may be are at work with {directory}"


def not_ready(error: SolverNotReady, now: datetime) -> Progress:
    """Go on when the answers are where the CA looks for them."""
    again = error.retry_at - now if error.retry_at else LOOK_AGAIN
    return Progress(retry_after=max(again, timedelta(0)), what=str(error))
