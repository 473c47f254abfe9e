"""
Why a new version is wanted: a list of small checks, first hit wins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from certbaton.core.advice import due
from certbaton.core.renewal import (
    fits,
    issuer_at,
    newest_first,
    rejected,
    upcoming_version,
    usable,
    wanted_version,
    withdrawn,
)
from certbaton.model import CertificateSpec, Policy, Reason, SecretVersion, Snapshot
from certbaton.names import both_forms

DEFAULT_PROFILE = "the CA's default"


@dataclass(frozen=True, slots=True)
class Need:
    """
    A new version is wanted: why, in words, and since when.

    *advised*: it is renewal information alone that asks for it.
    """

    reason: Reason
    why: str
    since: datetime
    advised: bool = False


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
            f"names asked for are {', '.join(map(both_forms, spec.names))}, "
            f"Secret {newest.ref} has {', '.join(map(both_forms, newest.leaf.names))}",
            now,
        )
    if newest.leaf.key_type != spec.key_type:
        return Need(
            Reason.REQUEST_CHANGED,
            f"key type asked for is {spec.key_type}, Secret {newest.ref} has "
            f"{newest.leaf.key_type}",
            now,
        )
    issuer = issuer_at(spec, newest.directory)
    if issuer is not None and newest.profile != issuer.profile:
        return Need(
            Reason.REQUEST_CHANGED,
            f"profile asked for is {issuer.profile or DEFAULT_PROFILE}, Secret {newest.ref} "
            f"was asked for with {newest.profile or DEFAULT_PROFILE}",
            now,
        )
    if issuer is not None and issuer.profile_required and newest.profile_got != issuer.profile:
        return Need(
            Reason.REQUEST_CHANGED,
            f"profile {issuer.profile} is required, Secret {newest.ref} came with "
            f"{newest.profile_got or DEFAULT_PROFILE}",
            now,
        )
    return None


def _issuer_same(
    spec: CertificateSpec, versions: Sequence[SecretVersion], now: datetime
) -> Need | None:
    newest = newest_first(versions)[0]
    if issuer_at(spec, newest.directory) is None:
        asked = " or ".join(issuer.directory for issuer in spec.issuers)
        return Need(
            Reason.INCORRECT_ISSUER,
            f"issuer asked for is {asked}, Secret {newest.ref} came from "
            f"{newest.directory or 'an unknown one'}",
            now,
        )
    return None


def _not_revoked(
    spec: CertificateSpec, versions: Sequence[SecretVersion], now: datetime
) -> Need | None:
    return _revoked(newest_first(versions)[0], versions, now)


def _revoked(
    version: SecretVersion, versions: Sequence[SecretVersion], now: datetime
) -> Need | None:
    if version.revoked is not None:
        why = f"Secret {version.ref} is revoked ({version.revoked.reason})"
        return Need(Reason.REVOKED, why, version.revoked.at)
    if withdrawn(version, versions):
        return Need(Reason.REVOKED, f"the key of Secret {version.ref} is compromised", now)
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
CHECKS: tuple[Check, ...] = (
    _exists,
    _key_fits,
    _request_same,
    _issuer_same,
    _not_revoked,
    _not_expired,
)


def need(spec: CertificateSpec, snapshot: Snapshot, policy: Policy, now: datetime) -> Need | None:
    """Say whether a new version is wanted, and why; None while a good one is not yet due."""
    versions = snapshot.versions
    if upcoming_version(spec, versions, now) is not None:
        return None
    version = wanted_version(spec, versions, now)
    if version is not None:
        found = _replaced(spec, version, versions, now)
        if found is not None:
            return found
        renewal = due(spec, version, snapshot, policy, now)
        if now < renewal.at:
            return None
        return Need(Reason.RENEWING, renewal.why, renewal.at, renewal.advised)
    existing = [item for item in versions if not rejected(item)]
    for check in CHECKS:
        hit = check(spec, existing, now)
        if hit is not None:
            return hit
    raise AssertionError("the last check always finds something")


def _replaced(
    spec: CertificateSpec,
    version: SecretVersion,
    versions: Sequence[SecretVersion],
    now: datetime,
) -> Need | None:
    """
    Say that *version*, which is wanted, is to be replaced whatever its dates.

    Somebody asked for it, and no newer one came of that; or what was newer is revoked, and this
    one only bridges the time until its successor is there.
    """
    newest = newest_first(item for item in versions if fits(item, spec))[0]
    if newest.ref != version.ref and usable(newest, now) and not rejected(newest):
        return _revoked(newest, versions, now)  # nothing else keeps it from being wanted
    if version.renew_asked is not None and newest.renew_asked is not None:
        why = (
            f"somebody asked at {version.renew_asked:%FT%TZ} for Secret {version.ref} to be renewed"
        )
        return Need(Reason.FORCED, why, version.renew_asked)
    return None
