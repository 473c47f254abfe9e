"""
When a certificate is due, and why: a list of small checks, first hit wins.

Every time is a share of the leaf's own lifetime with a ceiling, so that the
same rules hold for a certificate of minutes, six days or ninety.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from certbaton.model import (
    EVERYWHERE,
    CertificateSpec,
    Failure,
    Leaf,
    ObjectRef,
    Policy,
    Reason,
    SecretVersion,
    Snapshot,
)

# So long before and after a leaf begins its order's record may have been written: the CA's clock
# may be ahead of ours, and Let's Encrypt has its certificates begin an hour in the past.
RECORDED_BEFORE, RECORDED_AFTER = timedelta(minutes=5), timedelta(hours=2)


DEFAULT_PROFILE = "the CA's default"


def fraction(*parts: str) -> float:
    """
    Draw a number in [0, 1) from *parts*: the same for the same parts, for ever.

    A fresh draw on each tick could keep landing in the future, and a fleet
    that restarts together would renew together.
    """
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def share(lifetime: timedelta, part: float, ceiling: timedelta) -> timedelta:
    """Give *part* of *lifetime*, at most *ceiling*."""
    return min(lifetime * part, ceiling)


def renewal_time(certificate: str, leaf: Leaf, policy: Policy) -> datetime:
    """
    Choose the moment at which *leaf* is due: 2/3 of its life, 1/2 if it is short.

    Spread by ``renew_jitter`` of the lifetime to either side, by a hash of the
    certificate and the leaf.
    """
    short = leaf.lifetime < policy.short_lifetime
    left = policy.renew_left_short if short else policy.renew_left
    spread = (2 * fraction(certificate, leaf.sha256) - 1) * policy.renew_jitter
    return leaf.not_before + leaf.lifetime * (1 - left + spread)


def late_time(leaf: Leaf, policy: Policy) -> datetime:
    """Give the moment from which *leaf* is called late."""
    return leaf.not_after - leaf.lifetime * policy.late


def usable(version: SecretVersion, now: datetime) -> bool:
    """Say whether a listener could be given *version*: it is whole, and valid at *now*."""
    return (
        version.leaf is not None
        and version.flaw is None
        and version.leaf.not_before <= now < version.leaf.not_after
    )


def rejected(version: SecretVersion, service: ObjectRef | None = None) -> bool:
    """Say whether *version* is refused at *service*; for None, by all."""
    return EVERYWHERE in version.rejected or (
        service is not None and str(service) in version.rejected
    )


def fits(version: SecretVersion, spec: CertificateSpec) -> bool:
    """Say whether *version* is what *spec* asks for, whatever its dates."""
    return (
        version.leaf is not None
        and version.flaw is None
        and version.leaf.names == spec.names
        and version.leaf.key_type == spec.key_type
        and version.directory == spec.issuer.directory
        and version.profile == spec.issuer.profile
    )


def newest_first(versions: Sequence[SecretVersion]) -> list[SecretVersion]:
    """Sort by notBefore, newest first, unreadable ones last; ties by name."""

    def key(version: SecretVersion) -> tuple[float, str]:
        began = version.leaf.not_before.timestamp() if version.leaf else 0.0
        return (-began, version.ref.name)

    return sorted(versions, key=key)


@dataclass(frozen=True, slots=True)
class Need:
    """A new version is wanted: why, in words, and since when."""

    reason: Reason
    why: str
    since: datetime


Check = Callable[[CertificateSpec, Sequence[SecretVersion], datetime], Need | None]


def _exists(spec: CertificateSpec, versions: Sequence[SecretVersion], now: datetime) -> Need | None:
    if not versions:
        return Need(Reason.DOES_NOT_EXIST, "there is no version of it yet", now)
    return None


def _key_fits(
    spec: CertificateSpec, versions: Sequence[SecretVersion], now: datetime
) -> Need | None:
    newest = newest_first(versions)[0]
    if newest.flaw is not None or newest.leaf is None:
        return Need(
            Reason.INVALID_KEY_PAIR, f"Secret {newest.ref}: {newest.flaw or 'is unreadable'}", now
        )
    return None


def _request_same(
    spec: CertificateSpec, versions: Sequence[SecretVersion], now: datetime
) -> Need | None:
    newest = newest_first(versions)[0]
    assert newest.leaf is not None  # noqa: S101 - the check before this one
    if newest.leaf.names != spec.names:
        return Need(
            Reason.REQUEST_CHANGED,
            f"names asked for are {', '.join(spec.names)}, "
            f"Secret {newest.ref} has {', '.join(newest.leaf.names)}",
            now,
        )
    if newest.leaf.key_type != spec.key_type:
        return Need(
            Reason.REQUEST_CHANGED,
            f"key type asked for is {spec.key_type}, Secret {newest.ref} has "
            f"{newest.leaf.key_type}",
            now,
        )
    if newest.profile != spec.issuer.profile and newest.directory == spec.issuer.directory:
        return Need(
            Reason.REQUEST_CHANGED,
            f"profile asked for is {spec.issuer.profile or DEFAULT_PROFILE}, Secret {newest.ref} "
            f"was asked for with {newest.profile or DEFAULT_PROFILE}",
            now,
        )
    return None


def _issuer_same(
    spec: CertificateSpec, versions: Sequence[SecretVersion], now: datetime
) -> Need | None:
    newest = newest_first(versions)[0]
    if newest.directory != spec.issuer.directory:
        return Need(
            Reason.INCORRECT_ISSUER,
            f"issuer asked for is {spec.issuer.directory}, Secret {newest.ref} came from "
            f"{newest.directory or 'an unknown one'}",
            now,
        )
    return None


def _not_expired(
    spec: CertificateSpec, versions: Sequence[SecretVersion], now: datetime
) -> Need | None:
    newest = newest_first(versions)[0]
    assert newest.leaf is not None  # noqa: S101 - an earlier check
    return Need(
        Reason.EXPIRED,
        f"Secret {newest.ref} is not valid at this time (until {newest.leaf.not_after:%FT%TZ})",
        newest.leaf.not_after,
    )


# Why no version will do: the first of these that hits, in this order.
CHECKS: tuple[Check, ...] = (_exists, _key_fits, _request_same, _issuer_same, _not_expired)


def wanted_version(
    spec: CertificateSpec, versions: Sequence[SecretVersion], now: datetime
) -> SecretVersion | None:
    """Choose what listeners should serve: the newest that fits, is valid, and is not refused."""
    good = [
        item for item in versions if fits(item, spec) and usable(item, now) and not rejected(item)
    ]
    return newest_first(good)[0] if good else None


def upcoming_version(
    spec: CertificateSpec, versions: Sequence[SecretVersion], now: datetime
) -> SecretVersion | None:
    """
    Choose the newest version that fits and only begins after *now*.

    A clock a little behind the CA's sees its newest certificate so: it is waited
    for, since another order would bring just such another one.
    """
    coming = [
        item
        for item in versions
        if fits(item, spec) and item.leaf is not None and now < item.leaf.not_before
    ]
    return newest_first(coming)[0] if coming else None


def need(
    spec: CertificateSpec, versions: Sequence[SecretVersion], policy: Policy, now: datetime
) -> Need | None:
    """Say whether a new version is wanted, and why; None while a good one is not yet due."""
    if upcoming_version(spec, versions, now) is not None:
        return None
    version = wanted_version(spec, versions, now)
    if version is not None and version.leaf is not None:
        due = renewal_time(spec.name, version.leaf, policy)
        if now < due:
            return None
        return Need(
            Reason.RENEWING, f"Secret {version.ref} was due for renewal at {due:%FT%TZ}", due
        )
    existing = [item for item in versions if not rejected(item)]
    for check in CHECKS:
        found = check(spec, existing, now)
        if found is not None:
            return found
    raise AssertionError("the last check always finds something")


def clock_trouble(snapshot: Snapshot, policy: Policy, now: datetime) -> str | None:
    """
    Say that our clock cannot be right, where the API server's is too far from it.

    Until that is sorted out nothing is refused, deleted or ordered, unless what
    is there is late.
    """
    lifetime = known_lifetime(snapshot.versions)
    limit = policy.clock_ceiling
    if lifetime is not None:
        limit = max(policy.clock_floor, share(lifetime, policy.clock_share, limit))
    apart = snapshot.clock_apart
    if abs(apart) <= limit:
        return None
    return (
        f"the clock here is {abs(apart).total_seconds():.0f} s "
        f"{'behind' if apart > timedelta(0) else 'ahead of'} the API server's: nothing is refused, "
        "deleted or ordered until one of them is set right (late certificates are renewed all "
        "the same)"
    )


def known_lifetime(versions: Sequence[SecretVersion]) -> timedelta | None:
    """Give the lifetime of the newest readable leaf: what the next one's will probably be."""
    for version in newest_first(versions):
        if version.leaf is not None:
            return version.leaf.lifetime
    return None


def next_failure(
    message: str,
    last: Failure | None,
    certificate: str,
    lifetime: timedelta | None,
    policy: Policy,
    now: datetime,
    retry_at: datetime | None = None,
) -> Failure:
    """
    Note a failure: how often in a row, and when to try again.

    A time that the CA named (*retry_at*) is obeyed in full; else the back-off
    list counts, at most a share of the lifetime, give or take a fifth by hash.
    """
    count = (last.count if last else 0) + 1
    pause = policy.back_off[min(count, len(policy.back_off)) - 1]
    if lifetime is not None:
        pause = min(pause, lifetime * policy.back_off_share)
    pause *= 0.8 + 0.4 * fraction(certificate, str(count), now.isoformat())
    return Failure(message, now, count, max(now + pause, retry_at) if retry_at else now + pause)


def issued_at(spec: CertificateSpec, snapshot: Snapshot) -> list[datetime]:
    """
    Say when certificates for the names of *spec* were issued by its CA; oldest first.

    By the records of the Journals, and by versions that have no record: a Journal
    may have been lost, and versions are collected. A record is written when a
    version is stored, so that of one certificate both lie close together.
    """
    records = sorted(
        record.at
        for record in snapshot.issued
        if record.directory == spec.issuer.directory and record.names == spec.names
    )
    unmatched = list(records)
    for version in reversed(newest_first(snapshot.versions)):
        leaf = version.leaf
        if leaf is None or (leaf.names, version.directory) != (spec.names, spec.issuer.directory):
            continue
        first, last = leaf.not_before - RECORDED_BEFORE, leaf.not_before + RECORDED_AFTER
        record = next((at for at in unmatched if first <= at <= last), None)
        if record is not None:
            unmatched.remove(record)
        else:
            records.append(leaf.not_before)
    return sorted(records)


def limit_reached(
    spec: CertificateSpec, snapshot: Snapshot, policy: Policy, now: datetime
) -> tuple[str, datetime] | None:
    """
    Keep to limits of our own, below the CA's: a sentence, and when it is over.

    They outlive orders, restarts and success, since they are counted from the
    Journals: identical sets of names a week, failed validations an hour. The week
    is the CA's, and no share of any lifetime.
    """
    span = policy.order_limit_window
    issued = [at for at in issued_at(spec, snapshot) if at > now - span]
    if len(issued) >= policy.order_limit:
        return (
            f"{len(issued)} certificates for these very names were issued within {span}, our own "
            "limit (policy.orderLimit)",
            issued[-policy.order_limit] + span,
        )
    lifetime = known_lifetime(snapshot.versions)
    span = policy.validation_limit_window
    if lifetime is not None:
        span = share(lifetime, 0.1, span)
    for name in spec.names:
        failed = sorted(
            item.at
            for item in snapshot.failed_validations
            if item.name.removeprefix("*.") == name.removeprefix("*.")
            and item.directory == spec.issuer.directory
            and item.at > now - span
        )
        if len(failed) >= policy.validation_limit:
            return (
                f"{name} could not be validated {len(failed)} times within {span}, our own limit "
                "(policy.validationLimit)",
                failed[-policy.validation_limit] + span,
            )
    return None
