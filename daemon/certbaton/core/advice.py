"""
Renewal information (RFC 9773): when a CA wants its certificates renewed, and when it is asked.

A CA's word moves a renewal within its certificate's life, and never past the point where it
becomes dangerous. Without its word, or with one of no use, the share of the lifetime counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from certbaton.core.limits import advised_until, ca_pause
from certbaton.core.renewal import (
    dangerous_time,
    fits,
    fraction,
    issuer_at,
    rejected,
    renewal_time,
    usable,
    wanted_version,
)
from certbaton.model import (
    CertificateSpec,
    CheckRenewalInfo,
    Leaf,
    Policy,
    RenewalInfo,
    SecretVersion,
    Snapshot,
    Wait,
    WaitKind,
)


@dataclass(frozen=True, slots=True)
class Due:
    """
    When a version is to be renewed, and by whose word (*why*, a sentence in the past tense).

    *advised*: only renewal information has it so early, and it may do so only so often.
    """

    at: datetime
    why: str
    advised: bool = False


def window(spec: CertificateSpec, version: SecretVersion) -> RenewalInfo | None:
    """
    Give the window that *version*'s CA suggests, None where there is none to follow.

    An end that is not after the start is no answer (RFC 9773 section 4.2).
    """
    issuer, info = issuer_at(spec, version.directory), version.renewal_info
    if issuer is None or not issuer.renewal_info or info is None or info.end <= info.start:
        return None
    return info


def moment_in(certificate: str, leaf: Leaf, info: RenewalInfo) -> datetime:
    """
    Choose this certificate's moment within its window (RFC 9773 section 4.2).

    The same for every call and after every restart, until the window itself changes: a fresh draw
    on each look could keep landing in the future until the window has closed.
    """
    start, end = info.start.astimezone(UTC), info.end.astimezone(UTC)
    drawn = fraction(certificate, leaf.sha256, start.isoformat(), end.isoformat())
    return start + (end - start) * drawn


def due(
    spec: CertificateSpec, version: SecretVersion, snapshot: Snapshot, policy: Policy, now: datetime
) -> Due:
    """
    Say when *version*, which has a leaf, is due: by its CA's word, else by the time rule.

    The earlier of both where the last answer was of no use. Never later than dangerously late.
    What is earlier than by the time rule is held to the limit of advised orders.
    """
    leaf = version.leaf
    assert leaf is not None  # noqa: S101 - the caller looked
    rule = renewal_time(spec.name, leaf, policy)
    info = window(spec, version)
    if info is None:
        return Due(rule, f"Secret {version.ref} was due for renewal at {rule:%FT%TZ}")
    moment = moment_in(spec.name, leaf, info)
    check = snapshot.renewal_checks.get(version.ref)
    if check is not None and check.trouble is not None:
        moment = min(moment, rule)
    dangerous = dangerous_time(leaf, policy)
    advised = moment < rule
    if advised:
        until = advised_until(spec, snapshot, leaf.lifetime, policy, now)
        if until is not None and until > moment:
            moment, advised = min(until, rule), until < rule
    if moment >= dangerous:
        why = f"Secret {version.ref} is dangerously late since {dangerous:%FT%TZ}"
        return Due(dangerous, why)
    why = f"Secret {version.ref} was due for renewal at {moment:%FT%TZ}"
    if info.end <= now:
        why = f"the CA asks for Secret {version.ref} to be renewed now"
    elif moment != rule:
        why += ", by the renewal information of its CA"
    return Due(moment, why + _see(info), advised)


def told_to_go(spec: CertificateSpec, version: SecretVersion, now: datetime) -> bool:
    """Say whether *version* is to be replaced although it may live longer than its successor."""
    info = window(spec, version)
    asked = version.renew_asked is not None or version.revoked is not None
    return asked or (info is not None and info.end <= now)


def _see(info: RenewalInfo) -> str:
    return f" (see {info.explanation_url})" if info.explanation_url else ""


# --- when to ask ----------------------------------------------------------------------


def _ceiling(lifetime: timedelta, policy: Policy) -> timedelta:
    return min(policy.advice_poll_ceiling, lifetime * policy.advice_poll_share)


def poll_pause(retry_after: timedelta | None, lifetime: timedelta, policy: Policy) -> timedelta:
    """
    Say how long after an answer renewal information is asked for again.

    By *retry_after*, within a minute and a day; both at most a share of *lifetime*. 6 h without.
    """
    ceiling = _ceiling(lifetime, policy)
    if retry_after is None:
        return min(policy.advice_poll_usual, ceiling)
    return min(max(retry_after, min(policy.advice_poll_floor, ceiling)), ceiling)


def trouble_pause(count: int, lifetime: timedelta, policy: Policy, *, temporary: bool) -> timedelta:
    """
    Say how long after the *count*-th look in a row that was of no use it is tried again.

    *temporary* (network, 5xx): a minute, doubled up to the usual pause; else that at once
    (RFC 9773 section 4.3.3).
    """
    usual = poll_pause(None, lifetime, policy)
    if not temporary:
        return usual
    return min(policy.advice_poll_floor * (1 << min(max(count - 1, 0), 20)), usual)


def checks(
    spec: CertificateSpec, snapshot: Snapshot, policy: Policy, now: datetime
) -> tuple[list[CheckRenewalInfo], list[Wait]]:
    """
    Plan which versions' renewal information is asked for now, and say when it is next.

    Of the wanted version, and of one that a Service goes on naming since it is valid longer. A
    CA that does not answer is left alone, and one that we have no account key for.
    """
    actions: list[CheckRenewalInfo] = []
    waits: list[Wait] = []
    for version in _looked_after(spec, snapshot, now):
        issuer, leaf = issuer_at(spec, version.directory), version.leaf
        if issuer is None or not issuer.renewal_info or leaf is None or leaf.ari_id is None:
            continue
        if now >= dangerous_time(leaf, policy) or issuer.directory not in snapshot.accounts:
            continue
        check = snapshot.renewal_checks.get(version.ref)
        trouble = snapshot.ca_troubles.get(issuer.directory)
        next_at = check.next_at if check is not None else now
        if trouble is not None:
            next_at = max(next_at, ca_pause(trouble, leaf.lifetime, policy))
        if now >= next_at:
            why = f"what {issuer.name} says of when to renew {version.ref}"
            actions.append(CheckRenewalInfo(spec.name, why, version, issuer))
        elif next_at < dangerous_time(leaf, policy):
            what = f"renewal information of {version.ref} is asked for"
            waits.append(Wait(what, next_at, WaitKind.LATER))
    return actions, waits


def _looked_after(spec: CertificateSpec, snapshot: Snapshot, now: datetime) -> list[SecretVersion]:
    wanted = wanted_version(spec, snapshot.versions, now)
    if wanted is None or wanted.leaf is None:
        return []
    found = {wanted.ref: wanted}
    by_ref = {version.ref: version for version in snapshot.versions}
    for ref, binding in snapshot.bindings.items():
        named = by_ref.get(binding.reference) if binding.reference else None
        if (
            named is not None
            and named.leaf is not None
            and named.leaf.not_after > wanted.leaf.not_after
            and fits(named, spec)
            and usable(named, now)
            and not rejected(named, ref)
        ):
            found[named.ref] = named
    return [found[ref] for ref in sorted(found)]


def explanations(spec: CertificateSpec, snapshot: Snapshot, now: datetime) -> list[str]:
    """Give what a CA says of its windows, with the address where it explains itself."""
    return [
        f"advice: the CA explains when {version.ref} is to be renewed: {info.explanation_url}"
        for version in _looked_after(spec, snapshot, now)
        if (info := window(spec, version)) is not None and info.explanation_url
    ]
