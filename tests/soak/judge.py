"""
What the soak makes of what it saw: pure, so that the judge itself can be judged.

All times are seconds since the epoch; Services are called ``namespace/name``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise

# A listener that answers nobody for longer than this is down.
DOWN_S = 10.0
# What one round takes when all is well: the daemon's look, the controller's sync, the next look.
ROUND_S = 3.0
# A look that began under an alert ends, and is acted on, within this.
LOOK_S = 2.0
EVERYWHERE = "*"
# The daemon's settings, which are the defaults: D and what is late, as shares of a lifetime.
TRIAL_SHARE, LATE_SHARE = 1 / 10, 1 / 6

Span = tuple[float, float]


class Effect(StrEnum):
    """What a fault can do to a listener: nothing else is explained by it."""

    NONE = "none"
    DELAYS = "delays"  # a change of it takes longer
    REVERTS = "reverts"  # so, and what was there before may come back for a while
    STOPS = "stops"  # it answers nobody, and a change of it takes longer


@dataclass
class Window:
    """
    A fault from *begin* to *end*; *offset* is of the daemon's clock.

    *services* are those that it can have touched (None: all of them). The place needs a round to
    come to itself, and where its controller was in a back-off then, that: *over* says until when.
    """

    kind: str
    begin: float
    end: float = float("inf")
    effect: Effect = Effect.NONE
    services: frozenset[str] | None = None
    over: Mapping[str, float] = field(default_factory=dict)
    offset: float = 0.0

    def touches(self, service: str) -> bool:
        """Whether it can have to do with *service*."""
        return self.services is None or service in self.services

    def until(self, service: str) -> float:
        """When *service* had come to itself."""
        return max(self.end + ROUND_S, self.over.get(service, 0.0))


@dataclass
class Version:
    """
    One TLS Secret, as it was last.

    *refused* says that the soak had it refused, *taken* when the soak deleted it. The times of
    *rejected* are the daemon's own, or when they were seen if that was earlier.
    """

    certificate: str
    name: str
    leaf: str
    serial: int
    issued: float
    expires: float
    stored: float
    deleted: float | None = None
    taken: float | None = None
    rejected: dict[str, float] = field(default_factory=dict)
    noted: set[str] = field(default_factory=set)
    refused: bool = False

    @property
    def due(self) -> float:
        """Half of its life, which is short, less the jitter of a hundredth."""
        return self.issued + (self.expires - self.issued) * 0.49

    @property
    def late(self) -> float:
        """A sixth of its life is left."""
        return self.expires - (self.expires - self.issued) * LATE_SHARE

    def refused_everywhere(self, at: float = float("inf")) -> bool:
        """Whether the daemon had given it up by then."""
        return self.rejected.get(EVERYWHERE, float("inf")) <= at


@dataclass
class Run:
    """From *begin* to *end* each handshake showed *leaf*, or none did."""

    leaf: str | None
    begin: float
    end: float


@dataclass
class Signed:
    """What the CA signed, and when, for which of its orders."""

    serial: int
    at: float
    order: str = ""


@dataclass
class Order:
    """Whose an order was, and from when to when its Journal held it."""

    certificate: str
    opened: float
    closed: float = float("inf")


def spans(
    windows: Iterable[Window], services: Collection[str], effects: Collection[Effect]
) -> list[Span]:
    """When faults with one of *effects* could be felt at one of *services*."""
    return [
        (window.begin, max(window.until(service) for service in services))
        for window in windows
        if window.effect in effects and any(window.touches(service) for service in services)
    ]


# What can be the reason that a change does not arrive; and that nothing is to be seen at all.
HOLDS = (Effect.DELAYS, Effect.REVERTS, Effect.STOPS)


def outside(begin: float, end: float, covered: Iterable[Span]) -> float:
    """How much of [begin, end] is not covered."""
    at, free = begin, 0.0
    for first, last in sorted(covered):
        if last <= at or first >= end:
            continue
        free += max(0.0, first - at)
        at = max(at, last)
    return free + max(0.0, end - at)


def good(version: Version, service: str) -> bool:
    """Whether *service* was to serve it."""
    return not version.refused and not {service, EVERYWHERE} & set(version.rejected)


def unwanted(
    service: str,
    versions: Sequence[Version],
    runs: Sequence[Run],
    windows: Sequence[Window],
    siblings: Collection[str] = (),
) -> tuple[float, float]:
    """
    The longest that a listener lacked the newest good version, but for faults of the place.

    And since when. *versions* are those of its certificate, *siblings* the other Services of
    that: they are handed over one after the other, so one's trouble holds the next. What was
    there already can only be away where a listener stops, or an old sync brings the old back.
    """
    mine = sorted((v for v in versions if good(v, service)), key=lambda v: v.stored)
    if not mine:
        return 0.0, 0.0
    waiting = spans(windows, {service, *siblings}, HOLDS)
    stopped = spans(windows, {service}, (Effect.STOPS,))
    reverted = spans(windows, {service}, (Effect.REVERTS,))
    longest = 0.0, 0.0
    lacked, since = 0.0, mine[0].stored
    mark: float | None = since  # up to where the lack is counted; None: there is none
    had: str | None = None
    excused = waiting
    for run in runs:
        for newest, until in _newest(mine, run):
            if newest is None:
                continue
            at = max(run.begin, newest.stored)
            if mark is None and run.leaf != newest.leaf:
                lacked, since, mark = 0.0, at, at
            if mark is not None:
                excused = waiting
                if had == newest.leaf and not any(a <= since <= b for a, b in reverted):
                    excused = stopped
                upto = at if run.leaf == newest.leaf else max(mark, until)
                lacked += outside(mark, upto, excused)
                mark = upto
                longest = max(longest, (lacked, since))
            if run.leaf == newest.leaf:
                mark, had = None, newest.leaf
    return longest


def _newest(mine: Sequence[Version], run: Run) -> Iterator[tuple[Version | None, float]]:
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
    siblings: Collection[str] = (),
) -> list[str]:
    """
    When a listener served what had expired, what is no version, or nothing for long.

    The place is an excuse for the first only if it was bad from the time at which the leaf was
    due: there was half a life to replace it.
    """
    by_leaf = {version.leaf: version for version in versions}
    held = spans(windows, {service, *siblings}, HOLDS)
    stopped = spans(windows, {service}, (Effect.STOPS,))
    found = []
    served = False
    for run in runs:
        if run.leaf is None:
            if served and outside(run.begin, run.end, stopped) > DOWN_S:
                found.append(f"{service} answered nobody for {run.end - run.begin:.1f} s")
            continue
        served = True
        version = by_leaf.get(run.leaf)
        if version is None:
            found.append(f"{service} served a leaf that is in no version: {run.leaf[:16]}")
        elif run.end > version.expires + 1.0 and outside(version.due, version.expires, held) > 0:
            late = run.end - max(run.begin, version.expires)
            found.append(f"{service} served {version.name} {late:.1f} s after it had expired")
    return found


def collected(versions: Sequence[Version]) -> list[str]:
    """Good versions that were deleted though no newer one was there."""
    found = []
    for version in versions:
        at = version.deleted
        if at is None or version.taken is not None or at >= version.expires:
            continue
        if version.refused or version.refused_everywhere(at):
            continue
        newer = (
            other
            for other in versions
            if other.certificate == version.certificate
            and other.issued >= version.issued
            and other is not version
            and other.stored <= at
            and not other.refused
            and not other.refused_everywhere(at)
        )
        if not any(newer):
            found.append(f"{version.name} was deleted, and was the newest good one")
    return found


def wasted(
    certificates: Iterable[str],
    versions: Sequence[Version],
    signed: Sequence[Signed],
    windows: Sequence[Window],
    forgot: Sequence[float],
    orders: Mapping[str, Order],
) -> list[str]:
    """
    Certificates that neither due, nor a rejection, nor a deletion by the soak explains, in words.

    What the CA forgot (*forgot*: when) before anybody could fetch it is nobody's waste: that is
    one certificate per order that a Journal held then. *orders* are by their name at the CA.
    """
    found = []
    stored = {version.serial for version in versions}
    lost: set[tuple[str, float]] = set()
    for one in sorted(signed, key=lambda one: one.at):
        if one.serial in stored:
            continue
        order = orders.get(one.order)
        moment = next(
            (
                moment
                for moment in sorted(forgot)
                if order is not None
                and one.at - 1 <= moment
                and order.opened - 1 <= moment <= order.closed + 1
                and (order.certificate, moment) not in lost
            ),
            None,
        )
        if order is None or moment is None:
            found.append(f"certificate {one.serial:x} was never stored")
        else:
            lost.add((order.certificate, moment))
    for certificate in certificates:
        mine = sorted((v for v in versions if v.certificate == certificate), key=lambda v: v.issued)
        for before, version in pairwise(mine):
            earlier = mine[: mine.index(version)]
            if not _explained(version, earlier, windows):
                early = before.due - version.issued
                what = f"{early:.1f} s before its time"
                if before.rejected:
                    what = f"too soon after {before.name} was refused"
                found.append(f"{version.name} was issued {what}")
    return found


def _ahead(windows: Sequence[Window], begin: float, end: float, limit: float) -> list[float]:
    """
    By how much the daemon's clock may have been wrong in [begin, end].

    Where it is wrong by more than *limit*, by the API server's clock, it may do nothing.
    """
    return [0.0] + [
        window.offset
        for window in windows
        if window.offset and abs(window.offset) <= limit
        if window.begin <= end and begin <= window.end
    ]


def _limit(version: Version) -> float:
    return max(2.0, min(300.0, (version.expires - version.issued) / 20)) + 1


def _explained(version: Version, earlier: Sequence[Version], windows: Sequence[Window]) -> bool:
    """Whether *version* had to be, after *earlier*."""
    before = earlier[-1]
    at = version.issued + 1  # whole seconds
    if before.taken is not None and before.taken <= at:
        return True
    # The order may have been made some time before it was signed.
    at += max(_ahead(windows, version.issued - 30, at, _limit(before)))
    standing = [one for one in earlier if not one.refused_everywhere(at)]
    current = standing[-1] if standing else None
    refusals = [
        one.rejected[EVERYWHERE]
        for one in earlier
        if one.refused_everywhere(at) and (current is None or one.issued > current.issued)
    ]
    late = current is None or at >= current.late
    pause = TRIAL_SHARE * (before.expires - before.issued)
    if refusals:
        doubled = pause if late else pause * 2 ** (len(refusals) - 1)
        return at >= max(refusals) + doubled and (current is None or at >= current.due)
    if current is not None and at >= current.due:
        return True
    return any(_sick(service, earlier, at, pause) for one in earlier for service in one.rejected)


def _sick(service: str, earlier: Sequence[Version], at: float, pause: float) -> bool:
    """Whether *service* had refused, D ago, all that was not late."""
    rejected = [one.rejected[service] for one in earlier if service in one.rejected]
    takes = [one for one in earlier if not {service, EVERYWHERE} & set(one.rejected)]
    return (
        max(rejected) <= at
        and at >= max(max(rejected), earlier[-1].issued) + pause
        and all(at >= one.late for one in takes)
    )


def false_rejections(
    versions: Iterable[Version], windows: Sequence[Window], blind: Collection[str] = ()
) -> list[str]:
    """
    Versions rejected though nobody refused them; an alert of the listener is the wire's word.

    *blind* are Services on an inside route: nothing that is seen there speaks against anything.
    """
    found = []
    for version in versions:
        for service, at in version.rejected.items():
            # By the daemon's clock, which may have been wrong.
            moments = [at - offset for offset in _ahead(windows, at - 10, at + 10, _limit(version))]
            alert = service not in blind and any(
                window.kind == "tls-alert" and window.begin <= moment <= window.end + LOOK_S
                for window in windows
                for moment in moments
            )
            if not version.refused and not alert:
                found.append(f"{version.name} was rejected at {service}")
    return found
