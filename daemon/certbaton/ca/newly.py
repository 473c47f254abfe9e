"""
newOrder with what not every CA takes: a predecessor, a profile, an end (RFC 9773 section 5).

None of the three is worth a certificate: where the CA refuses one, the same order is placed
without it, at once. Only a profile that is required is never left out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, Protocol

from certbaton.ca.problems import NameRefused, ReplacesRefused, ServerError, advised
from certbaton.errors import AccountMissing, CaaForbids, PermanentError, ProfileRefused
from certbaton.model import DirectoryInfo, OrderInfo

# A CA may break on a predecessor that it can't find; twice is no accident.
SERVER_ERRORS: Final = 2


class Orderer(Protocol):
    """What of a `CertificateAuthority` is needed here."""

    def directory(self) -> DirectoryInfo: ...
    def new_order(
        self,
        names: Sequence[str],
        profile: str | None = None,
        *,
        replaces: str | None = None,
        not_after: datetime | None = None,
    ) -> OrderInfo: ...


@dataclass(frozen=True, slots=True)
class Wish:
    """
    What an order is to carry, as it stands in the Journal.

    *required* is of the profile. *replaces* is the predecessor's CertID, *not_after* aware.
    """

    names: tuple[str, ...]
    profile: str | None = None
    required: bool = False
    replaces: str | None = None
    not_after: datetime | None = None


@dataclass(frozen=True, slots=True)
class Placed:
    """
    An order that the CA took, and what it carried in the end; None is without.

    *notes* say in words what it does not carry, and why.
    """

    order: OrderInfo
    profile: str | None
    replaces: str | None
    not_after: datetime | None
    notes: tuple[str, ...] = ()


def order_with_fallbacks(
    ca: Orderer, wish: Wish, *, server_errors: int = 0, say: Callable[[str], None] | None = None
) -> Placed:
    """
    Place an order for *wish* at *ca*, without what the CA doesn't take.

    *replaces* is not sent where the directory has no renewalInfo, nor after *server_errors* (how
    often this very order met a ServerError in a row) has come to ``SERVER_ERRORS``. A refusal by
    anything but a rate limit is answered at once with the same order without; a ``preferred``
    profile goes likewise, and is not sent where the directory doesn't list it. One request more
    for each. A ServerError that names no time is tried once more at once, and then without: a CA
    that has lost the predecessor would else be left alone as one that is away.

    Raises what ``new_order`` and ``directory`` raise, ProfileRefused for a required profile that
    the directory doesn't list. *say* gets each note as soon as it is known.
    """
    notes: list[str] = []

    def without(wish: Wish, part: str, why: object) -> Wish:
        notes.append(f"ordered without {part}: {why}")
        if say is not None:
            say(notes[-1])
        match part:
            case "profile":
                return replace(wish, profile=None)
            case "replaces":
                return replace(wish, replaces=None)
        return replace(wish, not_after=None)

    directory = ca.directory()
    if wish.replaces and "renewalInfo" not in directory.resources:
        wish = replace(wish, replaces=None)
    if wish.replaces and server_errors >= SERVER_ERRORS:
        wish = without(wish, "replaces", f"with it the CA failed {server_errors} times in a row")
    if wish.profile and wish.profile not in directory.profiles:
        listed = ", ".join(sorted(directory.profiles)) or "none"
        why = f"the CA's directory does not list profile {wish.profile!r}; it lists {listed}"
        if wish.required:
            raise ProfileRefused(advised(why, "newOrder", "invalidProfile"))
        wish = without(wish, "profile", why)
    while True:
        try:
            order = ca.new_order(
                wish.names, wish.profile, replaces=wish.replaces, not_after=wish.not_after
            )
        except AccountMissing:
            raise  # of the account, whatever the order carries
        except ServerError as error:
            if not wish.replaces or error.retry_at is not None:
                raise
            server_errors += 1
            if server_errors >= SERVER_ERRORS:
                wish = without(wish, "replaces", f"with it the CA failed twice: {error}")
        except PermanentError as error:
            part = _to_blame(wish, error)
            if part is None and isinstance(error, ProfileRefused) and not wish.required:
                raise PermanentError(str(error)) from error  # it had none to lack
            if part is None:
                raise
            wish = without(wish, part, error)
        else:
            return Placed(order, wish.profile, wish.replaces, wish.not_after, tuple(notes))


def _to_blame(wish: Wish, error: PermanentError) -> str | None:
    """Which part of *wish* to leave out after *error*; None where there is none."""
    if isinstance(error, ProfileRefused):
        return "profile" if wish.profile and not wish.required else None
    words = str(error).lower()
    ends = wish.not_after is not None and not isinstance(error, CaaForbids | NameRefused)
    # Let's Encrypt looks at the end first: to blame the predecessor would cost its privilege.
    if ends and "notafter" in words and not isinstance(error, ReplacesRefused):
        return "notAfter"
    if wish.replaces:
        return "replaces"
    return "notAfter" if ends and "malformed" in words else None


@dataclass(slots=True)
class ServerErrors:
    """
    How often in a row a CA failed on an order, by certificate and predecessor; for any thread.

    Only failures that named a time are counted: others are tried again at once. Kept in memory: a
    new process counts anew, which costs two requests.
    """

    _counts: dict[tuple[str, str | None], int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def place(
        self, ca: Orderer, certificate: str, wish: Wish, say: Callable[[str], None] | None = None
    ) -> Placed:
        """`order_with_fallbacks` for *certificate*, with its count kept."""
        key = certificate, wish.replaces
        with self._lock:
            count = self._counts.get(key, 0)
        try:
            placed = order_with_fallbacks(ca, wish, server_errors=count, say=say)
        except ServerError as error:
            if error.retry_at is not None:
                with self._lock:
                    self._counts[key] = count + 1
            raise
        with self._lock:
            for other in [each for each in self._counts if each[0] == certificate]:
                del self._counts[other]
        return placed
