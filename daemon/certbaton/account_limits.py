"""
Limits that a CA puts on an account: what one certificate is told of them, holds for all.

In memory, and not in any Journal: losing it costs one request that is refused.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from certbaton.errors import RateLimited

T = TypeVar("T")


class AccountLimits:
    """Until when CAs take nothing new from our accounts. Any thread may call it."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._held: dict[tuple[str, str | None], tuple[datetime, str]] = {}

    def ask(
        self, directory: str, account: str | None, call: Callable[[], T], *, exempt: bool = False
    ) -> T:
        """
        Give what *call* gives, which asks the CA for something new for *account* (None: for one).

        RateLimited in place of asking until the time that the CA named, whoever it was said to.
        *exempt*: it is asked all the same. Raises what *call* raises.
        """
        key = directory, account
        with self._lock:
            until, words = self._held.get(key, (None, ""))
        if until is not None and self._clock() < until and not exempt:
            held = RateLimited(f"{words} (said of another certificate)", retry_at=until)
            held.of_account = True
            raise held
        try:
            return call()
        except RateLimited as error:
            if error.of_account and error.retry_at is not None:
                with self._lock:
                    self._held[key] = error.retry_at, str(error)
            raise
