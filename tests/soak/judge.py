"""
What the soak makes of what it saw: pure, so that the judge itself can be judged.

All times are seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

# A listener that answers nobody for longer than this is down.
DOWN_S = 10.0
EVERYWHERE = "*"


@dataclass
class Window:
    """
    A fault from *begin* to *end*; *offset* is of the daemon's clock.

    *place* says that it is the load balancer's or its controller's, which need their time to
    come to themselves; then *end* is after that.
    """

    kind: str
    begin: float
    end: float = float("inf")
    place: bool = False
    offset: float = 0.0


@dataclass
class Version:
    """One TLS Secret, as it was last; *refused* says that the soak had it refused."""

    certificate: str
    name: str
    leaf: str
    serial: int
    issued: float
    expires: float
    stored: float
    deleted: float | None = None
    rejected: dict[str, float] = field(default_factory=dict)
    noted: set[str] = field(default_factory=set)
    refused: bool = False

    @property
    def due(self) -> float:
        """Half of its life, which is short, less the jitter of a hundredth."""
        return self.issued + (self.expires - self.issued) * 0.49


@dataclass
class Run:
    """From *begin* to *end* each handshake showed *leaf*, or none did."""

    leaf: str | None
    begin: float
    end: float


def outside(begin: float, end: float, windows: Iterable[Window]) -> float:
    """How much of [begin, end] no window of the place covers."""
    at, free = begin, 0.0
    for window in sorted((w for w in windows if w.place), key=lambda w: w.begin):
        if window.end <= at or window.begin >= end:
            continue
        free += max(0.0, window.begin - at)
        at = max(at, window.end)
    return free + max(0.0, end - at)


def good(version: Version, service: str) -> bool:
    """Whether *service* was to serve it."""
    return not version.refused and not {service, EVERYWHERE} & set(version.rejected)


def unwanted(
    service: str,
    versions: Sequence[Version],
    runs: Sequence[Run],
    windows: Sequence[Window],
) -> tuple[float, float]:
    """
    The longest that a listener lacked the newest good version, but for faults of the place.

    And since when. *versions* are those of its certificate.
    """
    mine = sorted((v for v in versions if good(v, service)), key=lambda v: v.stored)
    if not mine:
        return 0.0, 0.0
    longest = 0.0, 0.0
    since: float | None = mine[0].stored
    for run in runs:
        for newest, until in _newest(mine, run):
            if newest is None:
                continue
            at = max(run.begin, newest.stored)
            if run.leaf == newest.leaf:
                if since is not None:
                    longest = max(longest, (outside(since, at, windows), since))
                since = None
                continue
            since = at if since is None else since
            longest = max(longest, (outside(since, max(since, until), windows), since))
    return longest


def _newest(mine: Sequence[Version], run: Run) -> Iterable[tuple[Version | None, float]]:
    """What was newest during *run*, piece by piece, each with its end."""
    current: Version | None = None
    for version in mine:
        if version.stored > run.begin:
            if version.stored >= run.end:
                break
            yield current, version.stored
        current = version
    yield current, run.end


def expired(
    service: str,
    versions: Sequence[Version],
    runs: Sequence[Run],
    windows: Sequence[Window],
) -> list[str]:
    """When a listener served what had expired, what is no version, or nothing for long."""
    by_leaf = {version.leaf: version for version in versions}
    found = []
    served = False
    for run in runs:
        if run.leaf is None:
            if served and outside(run.begin, run.end, windows) > DOWN_S:
                found.append(f"{service} answered nobody for {run.end - run.begin:.1f} s")
            continue
        served = True
        version = by_leaf.get(run.leaf)
        if version is None:
            found.append(f"{service} served a leaf that is in no version: {run.leaf[:16]}")
        elif run.end > version.expires:
            late = outside(max(run.begin, version.expires), run.end, windows)
            if late > 1.0:
                found.append(f"{service} served {version.name} {late:.1f} s after it had expired")
    return found


def wasted(
    certificates: Iterable[str],
    versions: Sequence[Version],
    signed: Sequence[tuple[int, float]],
    windows: Sequence[Window],
    forgot: Sequence[float],
) -> list[str]:
    """
    Certificates that neither due, nor a rejection, nor a deletion explains, in words.

    *signed* is what the CA signed (serial, when); what it forgot before anybody could fetch it
    (*forgot*: when) is nobody's waste.
    """
    found = []
    stored = {version.serial for version in versions}
    for serial, at in signed:
        if serial in stored or any(at - 1 <= moment <= at + 30 for moment in forgot):
            continue
        found.append(f"certificate {serial:x} was never stored")
    for certificate in certificates:
        mine = sorted((v for v in versions if v.certificate == certificate), key=lambda v: v.issued)
        for before, version in pairwise(mine):
            if not _explained(version, before, windows):
                early = before.due - version.issued
                found.append(f"{version.name} was issued {early:.1f} s before its time")
    return found


def _explained(version: Version, before: Version, windows: Sequence[Window]) -> bool:
    at = version.issued + 1  # whole seconds
    # The daemon's clock may have been ahead when it made the order; further than that, by the
    # API server's clock, it may order nothing.
    limit = max(2.0, min(300.0, (before.expires - before.issued) / 20)) + 1
    jumps = [
        w.offset
        for w in windows
        if w.offset <= limit and w.begin <= at and version.issued <= w.end + 30
    ]
    if at + max([0.0, *jumps]) >= before.due:
        return True
    if before.deleted is not None and before.deleted <= at:
        return True
    return any(moment <= at for moment in before.rejected.values())


def false_rejections(versions: Iterable[Version], windows: Sequence[Window]) -> list[str]:
    """Versions rejected though nobody refused them; an alert of the listener is the wire's word."""
    found = []
    for version in versions:
        for service, at in version.rejected.items():
            alert = any(w.kind == "tls-alert" and w.begin <= at <= w.end + 5 for w in windows)
            if not version.refused and not alert:
                found.append(f"{version.name} was rejected at {service}")
    return found
