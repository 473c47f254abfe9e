"""
When validations are tried at another CA first: the certificate's issuer has a rehearsal directory.

After validations that failed, since a CA lets them fail only so often; and where somebody asks
for it. What a rehearsal cannot tell never holds production up.
"""

from __future__ import annotations

from datetime import datetime

from certbaton.core.issuers import away_until, waits_at
from certbaton.core.renewal import dangerous_time, is_dangerous, wanted_version
from certbaton.model import (
    Action,
    CertificateSpec,
    EnsureAccount,
    FailureKind,
    IssuerSpec,
    Outcome,
    Policy,
    Rehearsal,
    Rehearse,
    Snapshot,
    Wait,
    WaitKind,
)


def before_order(
    spec: CertificateSpec, issuer: IssuerSpec, snapshot: Snapshot, policy: Policy, now: datetime
) -> Action | Wait | None:
    """
    Say what comes before an order at *issuer*, whose last validations failed; None: nothing.

    Nothing, too, where the rehearsal's CA is away, refuses our account or has its key changed, and
    where the certificate is dangerously late.
    """
    journal, stage = snapshot.journal, issuer.rehearsal
    failure = journal.failures.get(issuer.directory) if journal else None
    if stage is None or journal is None or failure is None:
        return None
    if failure.kind is not FailureKind.VALIDATION:
        return None
    if is_dangerous(spec, snapshot.versions, policy, now):
        return None
    last = _of(spec, journal.rehearsal, stage)
    if last is not None and last.at >= failure.at:
        if last.outcome in (Outcome.PASSED, Outcome.SKIPPED):
            return None
        if last.outcome is Outcome.FAILED and last.retry_at is not None and now < last.retry_at:
            what = f"the rehearsal at {stage.name} failed {last.count} time(s) in a row, tried "
            version, until = wanted_version(spec, snapshot.versions, now), last.retry_at
            if version is not None and version.leaf is not None:
                # from then on there are none
                until = min(until, dangerous_time(version.leaf, policy))
            return Wait(f"{what}again then: {last.message}", until, WaitKind.BACK_OFF)
    if _cannot_tell(spec, stage, snapshot, policy, now):
        return None
    why = f"validation failed at {issuer.name}; {stage.name} is tried first"
    asked = last.asked if last is not None and last.outcome is Outcome.OPEN else None
    if is_asked(snapshot):
        asked = journal.rehearsal_asked  # one answers both
    return _rehearse(spec, stage, snapshot, why, asked)


def by_hand(
    spec: CertificateSpec, issuer: IssuerSpec, snapshot: Snapshot, policy: Policy, now: datetime
) -> Action | Wait | str | None:
    """
    Plan the rehearsal that somebody asked for, and one that was begun; or say why it cannot be.

    *issuer* is the CA that is asked for orders; where that has no rehearsal, another one's will do.
    """
    journal = snapshot.journal
    if journal is None:
        return None
    last = journal.rehearsal
    asked = journal.rehearsal_asked
    if is_asked(snapshot):
        stages = [each.rehearsal for each in (issuer, *spec.issuers) if each.rehearsal]
        if not stages:
            return f"{refused(spec)}: no issuer of it has a rehearsal directory"
        stage, why = stages[0], f"somebody asked at {asked:%FT%TZ} for a rehearsal"
    elif last is not None and last.outcome is Outcome.OPEN:
        begun = [
            each.rehearsal
            for each in spec.issuers
            if each.rehearsal and _of(spec, last, each.rehearsal) is not None
        ]
        if not begun:
            return _taken_back(spec, last)
        stage, why, asked = begun[0], f"the rehearsal of {last.at:%FT%TZ} is open", last.asked
    else:
        return None
    account = snapshot.accounts.get(stage.directory)
    if account is not None and account.rolling:
        until = now + policy.backstop
        return Wait(f"the account key at {stage.name} is being changed", until, WaitKind.IN_FLIGHT)
    waits = waits_at(stage.directory, spec.name, snapshot, policy, now)
    return (
        max(waits, key=lambda wait: wait.until)
        if waits
        else _rehearse(spec, stage, snapshot, why, asked)
    )


def refused(spec: CertificateSpec) -> str:
    """Begin the sentence that tells why there is no rehearsal."""
    return f"the rehearsal that was asked for {spec.name} is not made"


def is_asked(snapshot: Snapshot) -> bool:
    """Say whether somebody waits for a rehearsal."""
    journal = snapshot.journal
    if journal is None or journal.rehearsal_asked is None:
        return False
    answered = journal.rehearsal.asked if journal.rehearsal else None
    return answered is None or answered < journal.rehearsal_asked


def _of(spec: CertificateSpec, rehearsal: Rehearsal | None, stage: IssuerSpec) -> Rehearsal | None:
    """Give *rehearsal* if it is one of these names at *stage*."""
    if rehearsal is None or rehearsal.directory != stage.directory:
        return None
    return rehearsal if rehearsal.names in ((), spec.names) else None


def _cannot_tell(
    spec: CertificateSpec, stage: IssuerSpec, snapshot: Snapshot, policy: Policy, now: datetime
) -> bool:
    account = snapshot.accounts.get(stage.directory)
    failure = snapshot.journal.failures.get(stage.directory) if snapshot.journal else None
    return (
        away_until(stage.directory, spec.name, snapshot, policy, now) is not None
        or (account is not None and account.rolling)
        or (failure is not None and now < failure.retry_at)
    )


def _taken_back(spec: CertificateSpec, open_: Rehearsal) -> Action:
    """End one for other names, or at a directory that no issuer rehearses at any more."""
    why = f"the rehearsal of {open_.at:%FT%TZ} is open, and not what is asked for now"
    there = IssuerSpec(name=open_.directory, directory=open_.directory)
    return Rehearse(spec.name, why, spec, there, open_.asked, ends=True)


def _rehearse(
    spec: CertificateSpec,
    stage: IssuerSpec,
    snapshot: Snapshot,
    why: str,
    asked: datetime | None,
) -> Action:
    account = snapshot.accounts.get(stage.directory)
    if account is None or account.url is None:
        return EnsureAccount(spec.name, f"there is no account at {stage.directory} yet", stage)
    return Rehearse(spec.name, why, spec, stage, asked)
