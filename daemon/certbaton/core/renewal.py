"""
Versions judged one by one: what fits, what is usable, and the moments of a leaf's life.

Every time is a share of the leaf's own lifetime with a ceiling, so that the
same rules hold for a certificate of minutes, six days or ninety.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from certbaton.model import (
    EVERYWHERE,
    CertificateSpec,
    IssuerSpec,
    Leaf,
    ObjectRef,
    Policy,
    SecretVersion,
    Snapshot,
)

# The reason of RFC 5280 after which CAs revoke every certificate with that key.
KEY_COMPROMISE = "keyCompromise"


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
    certificate and the leaf. Where its CA says otherwise, see `certbaton.core.advice`.
    """
    short = leaf.lifetime < policy.short_lifetime
    left = policy.renew_left_short if short else policy.renew_left
    spread = (2 * fraction(certificate, leaf.sha256) - 1) * policy.renew_jitter
    return leaf.not_before + leaf.lifetime * (1 - left + spread)


def late_time(leaf: Leaf, policy: Policy) -> datetime:
    """Give the moment from which *leaf* is called late."""
    return leaf.not_after - leaf.lifetime * policy.late


def dangerous_time(leaf: Leaf, policy: Policy) -> datetime:
    """Give the moment from which *leaf* is dangerously late: nobody's advice counts then."""
    return leaf.not_after - leaf.lifetime * policy.dangerous


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


def compromised_keys(versions: Iterable[SecretVersion]) -> frozenset[str]:
    """Give the public keys (by hash) that are never to be used again, as far as *versions* tell."""
    return frozenset(
        version.leaf.public_key_sha256
        for version in versions
        if version.leaf is not None
        and version.revoked is not None
        and version.revoked.reason == KEY_COMPROMISE
    )


def withdrawn(version: SecretVersion, versions: Iterable[SecretVersion]) -> bool:
    """
    Say whether *version* is revoked, or has the key of one that was, for its key.

    *versions* are all there are: a CA revokes every certificate with a compromised key.
    """
    if version.revoked is not None:
        return True
    return version.leaf is not None and version.leaf.public_key_sha256 in compromised_keys(versions)


def issuer_at(spec: CertificateSpec, directory: str) -> IssuerSpec | None:
    """Give the issuer of *spec* whose directory that is, None where it lists none."""
    return next((issuer for issuer in spec.issuers if issuer.directory == directory), None)


def fits(version: SecretVersion, spec: CertificateSpec) -> bool:
    """
    Say whether *version* is what *spec* asks for, whatever its dates.

    Any listed issuer will do, and each has its profile. It is the profile that was asked for
    that counts: a CA that did not have a preferred one would not have it the next time either.
    Where it is required by now, what came without it does not fit.
    """
    return (
        version.leaf is not None
        and version.flaw is None
        and version.leaf.names == spec.names
        and version.leaf.key_type == spec.key_type
        and (issuer := issuer_at(spec, version.directory)) is not None
        and version.profile == issuer.profile
        and (not issuer.profile_required or version.profile_got == issuer.profile)
    )


def newest_first(versions: Iterable[SecretVersion]) -> list[SecretVersion]:
    """Sort by notBefore, newest first, unreadable ones last; ties by name."""

    def key(version: SecretVersion) -> tuple[float, str]:
        began = version.leaf.not_before.timestamp() if version.leaf else 0.0
        return (-began, version.ref.name)

    return sorted(versions, key=key)


def wanted_version(
    spec: CertificateSpec, versions: Sequence[SecretVersion], now: datetime
) -> SecretVersion | None:
    """Choose what listeners should serve: the newest that fits, is valid, and nobody refused."""
    good = [
        item
        for item in versions
        if fits(item, spec)
        and usable(item, now)
        and not rejected(item)
        and not withdrawn(item, versions)
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
        if fits(item, spec)
        and item.leaf is not None
        and now < item.leaf.not_before
        and not withdrawn(item, versions)
    ]
    return newest_first(coming)[0] if coming else None


def is_late(
    spec: CertificateSpec, versions: Sequence[SecretVersion], policy: Policy, now: datetime
) -> bool:
    """Say whether what there is, is late, or nothing that fits is valid."""
    version = wanted_version(spec, versions, now)
    return version is None or version.leaf is None or now >= late_time(version.leaf, policy)


def is_dangerous(
    spec: CertificateSpec, versions: Sequence[SecretVersion], policy: Policy, now: datetime
) -> bool:
    """
    Say whether what there is, is dangerously late, or has expired.

    A certificate that never was is neither: nothing of it runs out.
    """
    begun = [
        item.leaf
        for item in newest_first(versions)
        if fits(item, spec) and item.leaf and item.leaf.not_before <= now and not rejected(item)
    ]
    version = wanted_version(spec, versions, now)
    leaf = version.leaf if version else (begun[0] if begun else None)
    return leaf is not None and now >= dangerous_time(leaf, policy)


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


def known_lifetime(versions: Iterable[SecretVersion]) -> timedelta | None:
    """Give the lifetime of the newest readable leaf: what the next one's will probably be."""
    for version in newest_first(versions):
        if version.leaf is not None:
            return version.leaf.lifetime
    return None
