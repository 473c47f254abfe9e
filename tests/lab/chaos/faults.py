"""What can happen to a request on its way."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from random import Random
from typing import Literal

Kind = Literal[
    "delay-before",
    "delay-after",
    "cut-before",
    "cut-after",
    "conflict",
    "gone",
    "too-many",
    "error",
    "error-after",
    "unavailable",
    "bad-nonce",
]

# These are known only once the server has carried the request out.
AFTER = ("delay-after", "cut-after", "error-after")


@dataclass(eq=False)
class WireFault:
    """
    What happens to requests that it meets.

      delay-before, -after   they wait *seconds* on their way there, or their answers do
      cut-before, -after     the connection is reset before the server gets them, or after it
                             carried them out (the lost answer)
      conflict               409, without asking the server
      gone                   410
      too-many, unavailable  429, 503; with Retry-After if *seconds* is given
      error, error-after     500 without asking the server, or in place of its answer
      bad-nonce              the CA's own, with a fresh nonce

    It meets the first and then a *share* of the requests with one of *methods* (none: any) in
    whose path and query *path* (a regular expression) is found, up to *times*; watches only
    where *watches*.
    """

    kind: Kind
    share: float = 1.0
    methods: tuple[str, ...] = ()
    path: str = ""
    seconds: float | None = None
    times: int | None = None
    watches: bool = False
    met: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()

    def take(self, method: str, path: str, watch: bool, dice: Random) -> bool:
        """Whether this request meets it; counted."""
        if watch != self.watches or (self.methods and method not in self.methods):
            return False
        if re.search(self.path, path) is None:
            return False
        with self._lock:
            if self.times is not None and self.met >= self.times:
                return False
            if self.met and self.share < 1.0 and dice.random() >= self.share:
                return False
            self.met += 1
            return True
