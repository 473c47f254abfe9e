"""
When to try again, and how often at all: back-off, pauses of CAs, and limits of our own.

They outlive restarts: what they are counted from stands in the Journals. Only what is known of
a CA that does not answer is in the memory of the process.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from math import ceil
from typing import Final

from certbaton.core.renewal import fraction, known_lifetime, newest_first, share
from certbaton.model import (
    CaTrouble,
    CertificateSpec,
    Failure,
    FailureKind,
    IssuerSpec,
    Outcome,
    Policy,
    Rehearsal,
    Snapshot,
)
from certbaton.names import both_forms

# So long before and after a leaf begins its order's record may have been written: the CA's clock
# may be ahead of ours, and Let's Encrypt has its certificates begin an hour in the past.
RECORDED_BEFORE, RECORDED_AFTER = timedelta(minutes=5), timedelta(hours=2)


def wish(names: Sequence[str], key_type: str, profile: str | None) -> str:
    """Give a short word for what of a configuration an order is made of."""
    parts = json.dumps([sorted(names), str(key_type), profile])
    return hashlib.sha256(parts.encode()).hexdigest()[:16]


def counts(failure: Failure, spec: CertificateSpec, issuer: IssuerSpec) -> bool:
    """
    Say whether *failure* says anything of what *spec* asks of *issuer* now.

    A name that was mistyped fails no order without it. What the CA holds against the account, or
    named a time for, stands whatever is ordered.
    """
    general = failure.kind in (FailureKind.ACCOUNT, FailureKind.LIMIT, FailureKind.OUTAGE)
    if general or failure.named or not failure.wish:
        return True
    if failure.kind is FailureKind.PROFILE and not issuer.profile_required:
        return False
    return failure.wish == wish(spec.names, spec.key_type, issuer.profile)


# The back-off's first two steps; and as many failures as send a certificate to the next CA.
OF_ACCOUNT_STEPS: Final = 2
OF_ACCOUNT_COUNTS: Final = 3


def next_failure(
    message: str,
    last: Failure | None,
    certificate: str,
    lifetime: timedelta | None,
    policy: Policy,
    now: datetime,
    retry_at: datetime | None = None,
    kind: FailureKind = FailureKind.OTHER,
    wished: str = "",
    *,
    of_account: bool = False,
) -> Failure:
    """
    Note a failure at one CA: how often in a row, and when to try again.

    *last* is the one before at the same CA, *wished* what was ordered (`wish`): with another one
    it begins anew. A time that the CA named (*retry_at*) is obeyed in
    full; else the back-off list counts, at most a share of the lifetime, give or take a fifth by
    hash. A CA that lacks a required profile is looked at daily, from the first time on. A limit
    *of_account* is nothing that this certificate did: thousands that wait in one line for it go
    on as it lets them, and not a day later each time that it was others' turn. Outages
    (`FailureKind.OUTAGE`) are the CA's and are noted as `CaTrouble` instead.
    """
    if last is not None and last.wish and wished and last.wish != wished:
        last = None
    count, steps = (last.count if last else 0) + 1, len(policy.back_off)
    if of_account:
        count = min(count, max(OF_ACCOUNT_COUNTS, count - 1))
        steps = min(OF_ACCOUNT_STEPS, steps)
    pause = policy.back_off[(steps if kind is FailureKind.PROFILE else min(count, steps)) - 1]
    if lifetime is not None:
        pause = min(pause, lifetime * policy.back_off_share)
    pause *= 0.8 + 0.4 * fraction(certificate, str(count), now.isoformat())
    named = retry_at is not None and retry_at >= now + pause
    return Failure(
        message,
        now,
        count,
        retry_at if retry_at is not None and named else now + pause,
        kind,
        first_at=(last.first_at or last.at) if last else now,
        named=named,
        wish=wished,
    )


def failed_rehearsal(
    rehearsal: Rehearsal,
    message: str,
    certificate: str,
    lifetime: timedelta | None,
    policy: Policy,
    now: datetime,
) -> Rehearsal:
    """
    End *rehearsal* as failed: counted, and tried again by the same rule as an order.

    Its *count* is that of the failed ones before it, which who begins the next one carries over.
    """
    last = Failure(rehearsal.message, rehearsal.at, rehearsal.count, rehearsal.at)
    failure = next_failure(message, last, certificate, lifetime, policy, now)
    return replace(
        rehearsal,
        at=now,
        outcome=Outcome.FAILED,
        message=message,
        count=failure.count,
        retry_at=failure.retry_at,
    )


def ca_pause(trouble: CaTrouble, lifetime: timedelta | None, policy: Policy) -> datetime:
    """
    Say until when a CA that does not answer is left alone, as one certificate sees it.

    1 min, doubling up to 30 min, at most a share of *lifetime*; a time that the CA named is
    obeyed in full.
    """
    doubled = policy.ca_back_off_first * (1 << min(max(trouble.count - 1, 0), 20))
    pause = min(doubled, policy.ca_back_off_ceiling)
    if lifetime is not None:
        pause = min(pause, lifetime * policy.back_off_share)
    own = trouble.at + pause
    return max(own, trouble.retry_at) if trouble.retry_at is not None else own


# --- limits of our own ----------------------------------------------------------------


def issued_at(spec: CertificateSpec, snapshot: Snapshot, issuer: IssuerSpec) -> list[datetime]:
    """
    Say when certificates for the names of *spec* were issued by *issuer*; oldest first.

    By the records of the Journals, and by versions that have no record: a Journal
    may have been lost, and versions are collected. A record is written when a
    version is stored, so that of one certificate both lie close together.
    """
    records = sorted(
        record.at
        for record in snapshot.issued
        if record.directory == issuer.directory and record.names == spec.names
    )
    unmatched = list(records)
    for version in reversed(newest_first(snapshot.versions)):
        leaf = version.leaf
        if leaf is None or (leaf.names, version.directory) != (spec.names, issuer.directory):
            continue
        first, last = leaf.not_before - RECORDED_BEFORE, leaf.not_before + RECORDED_AFTER
        record = next((at for at in unmatched if first <= at <= last), None)
        if record is not None:
            unmatched.remove(record)
        else:
            records.append(leaf.not_before)
    return sorted(records)


def limit_reached(
    spec: CertificateSpec,
    snapshot: Snapshot,
    policy: Policy,
    now: datetime,
    issuer: IssuerSpec | None = None,
) -> tuple[str, datetime] | None:
    """
    Keep to limits of our own, below the CA's: a sentence, and when it is over.

    They outlive orders, restarts and success, since they are counted from the
    Journals: identical sets of names a week, failed validations an hour. The week
    is the CA's, and no share of any lifetime. Each CA counts its own: *issuer* is the one that
    is to be asked, None the first of *spec*. *now* is the API server's time.
    """
    issuer = issuer or spec.issuer
    span = policy.order_limit_window
    issued = [at for at in issued_at(spec, snapshot, issuer) if at > now - span]
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
            and item.directory == issuer.directory
            and item.at > now - span
        )
        if len(failed) >= policy.validation_limit:
            return (
                f"{both_forms(name)} could not be validated {len(failed)} times within {span}, our "
                "own limit (policy.validationLimit)",
                failed[-policy.validation_limit] + span,
            )
    return None


def too_few(lifetime: timedelta, policy: Policy) -> str | None:
    """
    Say that our own limit would hold renewals of what lives for *lifetime* until they are late.

    A CA of one's own signs for a day, or an hour, and has no such limit: better told with the
    first certificate than when the last one that we allow has run out.
    """
    left = policy.renew_left_short if lifetime < policy.short_lifetime else policy.renew_left
    every, window = lifetime * (1 - left), policy.order_limit_window
    if every * (policy.order_limit - 1) + lifetime * (1 - policy.late) >= window:
        return None
    return (
        f"limit: what lives for {lifetime} is renewed every {every}, and our own limit of "
        f"{policy.order_limit} in {window} lets it run out; with a CA that allows as many, set "
        f"policy.orderLimit to {2 * ceil(window / every)}, or policy.orderLimitWindow to what it "
        "counts in"
    )


def advised_until(
    spec: CertificateSpec,
    snapshot: Snapshot,
    lifetime: timedelta,
    policy: Policy,
    now: datetime,
) -> datetime | None:
    """
    Say until when renewal information brings no further order, None where it may.

    It brought as many as it may within a day, or within one lifetime if that is shorter: a CA
    that asks for every new certificate to be renewed at once must not make us order without end.
    Nor may it use our own limit up: of a short life the next one by the time rule would then come
    too late.
    """
    held = (
        _advised_often(spec, snapshot, lifetime, policy, now),
        _room_at(spec, snapshot, lifetime, policy),
    )
    return max((each for each in held if each is not None and each > now), default=None)


def _room_at(
    spec: CertificateSpec, snapshot: Snapshot, lifetime: timedelta, policy: Policy
) -> datetime | None:
    """Say from when on an order leaves room in our limit for the next one, before it is late."""
    issued = issued_at(spec, snapshot, spec.issuer)
    others = max(policy.order_limit - 1, 1)
    if len(issued) < others:
        return None
    late_after = lifetime * (1 - policy.late)
    return issued[-others] - snapshot.clock_apart + policy.order_limit_window - late_after


def _advised_often(
    spec: CertificateSpec,
    snapshot: Snapshot,
    lifetime: timedelta,
    policy: Policy,
    now: datetime,
) -> datetime | None:
    apart = snapshot.clock_apart
    span = min(policy.advice_limit_window, lifetime)
    advised = sorted(
        record.at - apart  # records bear the API server's time
        for record in snapshot.issued
        if record.advised and record.names == spec.names and record.at - apart > now - span
    )
    if len(advised) < policy.advice_limit:
        return None
    return advised[-policy.advice_limit] + span
