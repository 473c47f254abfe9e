"""
What is read off a whole collection, and made anew only when something in it changed.

With thousands of certificates every turn would else read through all that there is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, Generic, TypeVar

R = TypeVar("R")

_NEVER: Final = object()


class Derived(Generic[R]):
    """
    Give what *make* gives; it is asked again only after *state* gave something else.

    All callers get the same object, and none may change it. Any thread may call it.
    """

    def __init__(self, state: Callable[[], object], make: Callable[[], R]) -> None:
        self._state = state
        self._make = make
        self._lock = threading.Lock()
        self._at: object = _NEVER
        self._value: R

    def __call__(self) -> R:
        """As it is now, in no time where nothing has changed."""
        with self._lock:
            # before *make* reads: what changes meanwhile is another state, and seen the next time
            at = self._state()
            if self._at is _NEVER or at != self._at:
                self._value = self._make()
                self._at = at
            return self._value
