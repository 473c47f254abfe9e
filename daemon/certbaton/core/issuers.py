"""
Which CA is asked: the first of a certificate's list, unless that one is out of the running.

Failures since the last certificate are kept by CA in the Journal, and forgotten when an order
ends well: so each renewal begins with the first one again. Limits of our own never lead to
another CA: what they are there to stop would go on at the next one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from certbaton.core.limits import ca_pause, counts, limit_reached
from certbaton.core.renewal import (
    is_late,
    issuer_at,
    known_lifetime,
    late_time,
    share,
    wanted_version,
)
from certbaton.model import (
    CaTrouble,
    CertificateSpec,
    Failure,
    FailureKind,
    IssuerSpec,
    Outcome,
    Policy,
    Snapshot,
    Wait,
    WaitKind,
)


@dataclass(frozen=True, slots=True)
class Standing:
    """
    How one CA stands with one certificate.

    *out*: why it is passed over where another one can be asked, None while it is in the running;
    *out_at* is when that becomes so if nothing changes. *waits* say why, and until when, it is
    not asked now.
    """

    issuer: IssuerSpec
    out: str | None = None
    out_at: datetime | None = None
    waits: tuple[Wait, ...] = ()

    def ready_at(self, now: datetime) -> datetime:
        """Say from when on it may be asked; *now* where it may."""
        return max((wait.until for wait in self.waits), default=now)


@dataclass(frozen=True, slots=True)
class Chosen:
    """
    The CA for the next order, and why not the first one (*instead*, a sentence).

    *next_at* is when the next one takes its place if nothing changes.
    """

    issuer: IssuerSpec
    waits: tuple[Wait, ...] = ()
    instead: str | None = None
    next_at: datetime | None = None


def choose_issuer(
    spec: CertificateSpec, snapshot: Snapshot, policy: Policy, now: datetime
) -> Chosen:
    """
    Choose the CA for the next order of *spec*, or for the one that is open.

    The one with the open order while that is in the running; else the first one, else the next
    that is in the running and that our own limits let us ask; else the one that may be asked
    soonest.
    """
    all_ = [standing(spec, issuer, snapshot, policy, now) for issuer in spec.issuers]
    first = all_[0]
    pending = snapshot.journal.pending if snapshot.journal else None
    for each in all_:
        if pending and each.issuer.directory == pending.directory and each.out is None:
            return _chosen(each, all_)
    if first.out is None:
        return _chosen(first, all_)
    limits = {
        each.issuer.directory: limit[1] - snapshot.clock_apart
        for each in all_
        if (limit := limit_reached(spec, snapshot, policy, now + snapshot.clock_apart, each.issuer))
    }
    for each in all_[1:]:
        if each.out is None and each.issuer.directory not in limits:
            return _chosen(each, all_)

    def soonest(each: Standing) -> tuple[datetime, bool]:
        directory = each.issuer.directory
        elsewhere = pending is None or pending.directory != directory
        return max(each.ready_at(now), limits.get(directory, now)), elsewhere

    return _chosen(min(all_, key=soonest), all_)


def _chosen(standing: Standing, all_: list[Standing]) -> Chosen:
    first = all_[0]
    instead = None
    if standing is not first:
        why = first.out or f"an order is open at {standing.issuer.name}"
        instead = (
            f"fallback: {standing.issuer.name} is asked in place of {first.issuer.name}: {why}"
        )
    return Chosen(standing.issuer, standing.waits, instead, standing.out_at if all_[1:] else None)


def standing(
    spec: CertificateSpec, issuer: IssuerSpec, snapshot: Snapshot, policy: Policy, now: datetime
) -> Standing:
    """Say how *issuer* stands with *spec* now."""
    journal = snapshot.journal
    failure = journal.failures.get(issuer.directory) if journal else None
    if failure is not None and not counts(failure, spec, issuer):
        failure = None
    trouble = snapshot.ca_troubles.get(issuer.directory)
    late_at = _late_at(spec, snapshot, policy, now)
    out, out_at = None, None
    for why, since in _reasons(issuer, failure, trouble, snapshot, policy, now, late_at):
        if since <= now:
            out = out or why
        else:
            out_at = min(out_at, since) if out_at else since
    return Standing(
        issuer,
        out,
        None if out else out_at,
        waits_at(issuer.directory, spec.name, snapshot, policy, now, spec=spec),
    )


def _late_at(spec: CertificateSpec, snapshot: Snapshot, policy: Policy, now: datetime) -> datetime:
    """Say from when on one failure is enough: what there is, is late, or nothing is valid."""
    version = wanted_version(spec, snapshot.versions, now)
    if version is None or version.leaf is None or is_late(spec, snapshot.versions, policy, now):
        return now
    return late_time(version.leaf, policy)


def _reasons(
    issuer: IssuerSpec,
    failure: Failure | None,
    trouble: CaTrouble | None,
    snapshot: Snapshot,
    policy: Policy,
    now: datetime,
    late_at: datetime,
) -> Iterator[tuple[str, datetime]]:
    """Tell why *issuer* is out of the running, each with the moment from which that holds."""
    lifetime = known_lifetime(snapshot.versions)
    span = policy.fallback_after
    if lifetime is not None:
        span = share(lifetime, policy.fallback_share, span)
    if failure is not None:
        words = failure.message
        if failure.kind is FailureKind.ACCOUNT:
            yield words, now
        if failure.named and failure.retry_at > late_at:
            yield f"it is to be asked again at {failure.retry_at:%FT%TZ} only: {words}", now
        count = failure.count + _failed_rehearsals(issuer, failure, snapshot)
        told = f"it failed {count} time(s): {words}"
        if count >= policy.fallback_failures:
            yield told, (failure.first_at or failure.at) + span
        yield told, late_at
    if trouble is not None:
        words = f"it does not answer since {trouble.since:%FT%TZ}: {trouble.message}"
        if trouble.retry_at is not None and trouble.retry_at > late_at:
            yield words, now
        if trouble.count >= policy.fallback_failures:
            yield words, trouble.since + span
        yield words, late_at


def _failed_rehearsals(issuer: IssuerSpec, failure: Failure, snapshot: Snapshot) -> int:
    """Count the rehearsals that failed since: each stands for an order that was spared."""
    rehearsal = snapshot.journal.rehearsal if snapshot.journal else None
    if rehearsal is None or issuer.rehearsal is None or rehearsal.outcome is Outcome.SKIPPED:
        return 0
    ours = rehearsal.directory == issuer.rehearsal.directory and rehearsal.at >= failure.at
    return rehearsal.count if ours and rehearsal.outcome is not Outcome.PASSED else 0


def waits_at(
    directory: str,
    certificate: str,
    snapshot: Snapshot,
    policy: Policy,
    now: datetime,
    *,
    spec: CertificateSpec | None = None,
    needs_ca: bool = True,
) -> tuple[Wait, ...]:
    """
    Say what keeps *certificate* from going on at the CA at *directory* now, and until when.

    *spec*: what goes on is what that asks for, and a failure of something else is none of it.
    *needs_ca* false: what is left to do asks it for nothing.
    """
    failure = snapshot.journal.failures.get(directory) if snapshot.journal else None
    issuer = issuer_at(spec, directory) if spec else None
    if failure is not None and spec and issuer and not counts(failure, spec, issuer):
        failure = None
    found = []
    if failure is not None and now < failure.retry_at:
        what = f"failed {failure.count} time(s) in a row, tried again then: {failure.message}"
        found.append(Wait(what, failure.retry_at, WaitKind.BACK_OFF))
    away = away_until(directory, certificate, snapshot, policy, now) if needs_ca else None
    if away is not None:
        found.append(away)
    return tuple(found)


def away_until(
    directory: str, certificate: str, snapshot: Snapshot, policy: Policy, now: datetime
) -> Wait | None:
    """
    Say until when the CA at *directory* is left alone, since it does not answer.

    After its pause whoever comes first tries it for all; the others wait until that is known.
    """
    trouble = snapshot.ca_troubles.get(directory)
    if trouble is None:
        return None
    lifetime = known_lifetime(snapshot.versions)
    until = ca_pause(trouble, lifetime, policy)
    words = f"{directory} does not answer ({trouble.count} time(s) in a row): {trouble.message}"
    if now < until:
        return Wait(words, until, WaitKind.BACK_OFF)
    if trouble.probing is None or trouble.probing == certificate:
        return None
    look = policy.ca_back_off_first
    if lifetime is not None:
        look = share(lifetime, policy.back_off_share, look)
    what = f"{words}; {trouble.probing} tries it again for all"
    return Wait(what, now + max(look, timedelta(seconds=1)), WaitKind.BACK_OFF)
