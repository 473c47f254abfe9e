"""
The order half of `certbaton.core.plan`: what is ordered, where, and what holds it back.

There is never more than one order of a certificate. One that may have been signed is awaited
wherever it is; one that cannot have been is dropped as soon as another is wanted.
"""

from __future__ import annotations

from datetime import datetime

from certbaton.core import advice, rehearsals
from certbaton.core.account_keys import roll_accounts
from certbaton.core.demand import late, to_order, trial_over
from certbaton.core.handover import Draft
from certbaton.core.issuers import Chosen, choose_issuer, waits_at
from certbaton.core.limits import limit_reached, too_few
from certbaton.core.need import Need
from certbaton.core.renewal import (
    clock_trouble,
    compromised_keys,
    fits,
    issuer_at,
    late_time,
    newest_first,
    upcoming_version,
    wanted_version,
)
from certbaton.model import (
    AdvanceOrder,
    CertificateSpec,
    CloseOrder,
    DropOrder,
    EnsureAccount,
    IssuerSpec,
    PendingOrder,
    Policy,
    PutBack,
    Rehearse,
    SecretVersion,
    Snapshot,
    StageOrder,
    Wait,
    WaitKind,
)


def order(
    draft: Draft, spec: CertificateSpec | None, snapshot: Snapshot, policy: Policy, now: datetime
) -> None:
    """Plan what brings the next certificate, and all else that a CA is asked for."""
    wanted, held = to_order(spec, snapshot, policy, now) if spec else (None, None)
    if held is not None:
        draft.waits.append(held)
    if spec is not None:
        _tell_due(draft, spec, wanted, held, snapshot, policy, now)
        draft.notes += late(spec, snapshot, policy, now)
        version = wanted_version(spec, snapshot.versions, now)
        if version and version.leaf and (few := too_few(version.leaf.lifetime, policy)):
            draft.notes.append(few)
        draft.notes += advice.explanations(spec, snapshot, now)
    if snapshot.journal_lost:
        return  # nobody orders without a Journal in the cluster: it is looked at again
    chosen = choose_issuer(spec, snapshot, policy, now) if spec else None
    pending = snapshot.journal.pending if snapshot.journal else None
    if pending is not None:
        _go_on(draft, spec, chosen, pending, wanted, snapshot, policy, now)
    elif spec is not None and chosen is not None and wanted is not None:
        _begin(draft, spec, chosen, wanted, snapshot, policy, now)
    if spec is not None and chosen is not None:
        _rehearse_by_hand(draft, spec, chosen.issuer, snapshot, policy, now)
        roll_accounts(draft, spec, snapshot, policy, now)


# --- what is wanted -------------------------------------------------------------------


def _tell_due(
    draft: Draft,
    spec: CertificateSpec,
    wanted: Need | None,
    held: Wait | None,
    snapshot: Snapshot,
    policy: Policy,
    now: datetime,
) -> None:
    coming = upcoming_version(spec, snapshot.versions, now)
    if wanted:
        draft.due = wanted.since
    elif coming and coming.leaf:
        begins = coming.leaf.not_before
        draft.waits.append(Wait(f"{coming.ref} begins only then", begins, WaitKind.IN_FLIGHT))
    elif held is None:
        version = wanted_version(spec, snapshot.versions, now)
        if version and version.leaf:
            at = advice.due(spec, version, snapshot, policy, now).at
            draft.waits.append(Wait(f"{version.ref} is due for renewal", at, WaitKind.LATER))


# --- an order that is open --------------------------------------------------------------


def _go_on(
    draft: Draft,
    spec: CertificateSpec | None,
    chosen: Chosen | None,
    pending: PendingOrder,
    wanted: Need | None,
    snapshot: Snapshot,
    policy: Policy,
    now: datetime,
) -> None:
    """Bring the open order to its end, or away."""
    closing = _closing(draft.certificate, spec, pending, snapshot)
    if closing is not None:
        draft.actions.append(closing)
        return
    issuer = issuer_at(spec, pending.directory) if spec else None
    account = snapshot.accounts.get(pending.directory)
    account_url = account.url if account else None
    continues = spec is not None and issuer is not None
    continues = continues and _continues(pending, spec, issuer, account_url)
    continues = continues and pending.public_key_sha256 not in compromised_keys(snapshot.versions)
    passed_over = (
        continues
        and wanted is not None
        and chosen is not None
        and chosen.issuer.directory != pending.directory
    )
    why = f"order of {pending.staged_at:%FT%TZ} is open ({pending.reason})"
    if not continues:
        why += "; it is not what is asked for now"
    elif passed_over and chosen is not None:
        why += f"; {chosen.instead or f'{chosen.issuer.name} is asked instead'}"
    drops = not pending.committed and (passed_over or not continues)
    if chosen is not None and wanted is not None:
        draft.notes += _told(chosen, passed_over and pending.committed, pending)
    if drops and passed_over and chosen is not None and chosen.waits:
        draft.waits += chosen.waits  # what is open stays so while nobody else can be asked
        return
    if not drops:
        if wanted is not None and not pending.committed:
            draft.waits += _next(chosen, now)
        needs_ca = pending.chain is None
        waits = waits_at(
            pending.directory,
            draft.certificate,
            snapshot,
            policy,
            now,
            spec=spec if continues else None,
            needs_ca=needs_ca,
        )
        draft.waits += waits
        if waits:
            return
    if not snapshot.complete:
        draft.waits.append(_not_whole(policy, now))
    elif drops:
        why += "; it was never finalized, so it is dropped"
        draft.actions.append(DropOrder(draft.certificate, why, pending))
    elif issuer is not None and account_url is None:
        draft.actions.append(_no_account(draft.certificate, issuer))
    else:
        if not continues:
            why += ", so it is only awaited"
        draft.actions.append(AdvanceOrder(draft.certificate, why, spec, pending, not continues))


def _closing(
    certificate: str,
    spec: CertificateSpec | None,
    pending: PendingOrder,
    snapshot: Snapshot,
) -> CloseOrder | None:
    """
    Close the pending order once its certificate is stored: the key tells, and the order.

    A key that is used again is that of the version before, too. Versions of earlier releases do
    not tell of their order.
    """
    keeps_key = spec is not None and spec.reuse_key
    for version in newest_first(snapshot.versions):
        leaf = version.leaf
        if leaf is None or leaf.public_key_sha256 != pending.public_key_sha256:
            continue
        if version.order_url == pending.url or (not version.order_url and not keeps_key):
            return CloseOrder(certificate, f"it ended in {version.ref}", pending, version.ref.name)
    return None


def _continues(
    pending: PendingOrder,
    spec: CertificateSpec | None,
    issuer: IssuerSpec | None,
    account_url: str | None,
) -> bool:
    """Say whether *pending* would end in what is asked for now, once its account is there."""
    return (
        spec is not None
        and issuer is not None
        and account_url in (None, pending.account_url)
        and pending.names == spec.names
        and pending.key_type == spec.key_type
        and pending.profile == issuer.profile
        and (
            pending.url is None
            or not issuer.profile_required
            or pending.profile_got == issuer.profile
        )
    )


# --- a new order ------------------------------------------------------------------------


def _begin(
    draft: Draft,
    spec: CertificateSpec,
    chosen: Chosen,
    wanted: Need,
    snapshot: Snapshot,
    policy: Policy,
    now: datetime,
) -> None:
    """Place an order at the CA that was chosen, unless something is in the way."""
    issuer = chosen.issuer
    draft.notes += _told(chosen)
    draft.waits += (*chosen.waits, *_next(chosen, now))
    if chosen.waits:
        return
    if not snapshot.complete:
        draft.waits.append(_not_whole(policy, now))
        return
    account = snapshot.accounts.get(issuer.directory)
    if account is None or account.url is None:
        draft.actions.append(_no_account(spec.name, issuer))
        return
    if any(isinstance(action, PutBack) for action in draft.actions):
        return  # it is looked at again with what was put back
    held = _held(spec, issuer, snapshot, policy, now)
    if held is not None:
        draft.waits.append(held)
        return
    if account.rolling:
        return  # an order begun with the old key would be in its way; see `roll_accounts`
    first = rehearsals.before_order(spec, issuer, snapshot, policy, now)
    if isinstance(first, Wait):
        draft.waits.append(first)
    elif first is not None:
        draft.actions.append(first)
    else:
        why = wanted.why + (f"; {chosen.instead}" if chosen.instead else "")
        draft.actions.append(
            StageOrder(
                spec.name,
                why,
                spec,
                wanted.reason,
                _list_first(snapshot),
                issuer,
                predecessor(spec, issuer, account.url, snapshot),
                reusable(spec, snapshot) if spec.reuse_key else None,
                wanted.advised,
            )
        )


def _held(
    spec: CertificateSpec, issuer: IssuerSpec, snapshot: Snapshot, policy: Policy, now: datetime
) -> Wait | None:
    """Say what of our own holds an order at *issuer* back."""
    # records bear the API server's time
    limit = limit_reached(spec, snapshot, policy, now + snapshot.clock_apart, issuer)
    if limit is not None:
        return Wait(limit[0], limit[1] - snapshot.clock_apart, WaitKind.BACK_OFF)
    trouble = clock_trouble(snapshot, policy, now)
    current = wanted_version(spec, snapshot.versions, now)
    leaf = current.leaf if current else None
    if trouble is not None and leaf is not None and now < late_time(leaf, policy):
        return Wait(trouble, now + policy.backstop, WaitKind.BACK_OFF)
    trial = trial_over(snapshot.versions, policy, spec, now)
    if trial is not None and now < trial:
        what = "the last certificate was refused by its listeners; another is ordered"
        return Wait(what, trial, WaitKind.BACK_OFF)
    return None


def _list_first(snapshot: Snapshot) -> bool:
    """Say whether a predecessor may have stored what our watch has not delivered yet."""
    known = {version.ref.name for version in snapshot.versions}
    return snapshot.journal is None or snapshot.journal.last_version not in known


def predecessor(
    spec: CertificateSpec, issuer: IssuerSpec, account_url: str, snapshot: Snapshot
) -> SecretVersion | None:
    """
    Give the version that an order at *issuer* replaces (RFC 9773 section 5).

    The newest that shares a name, and that the same account has from the same CA.
    """
    for version in newest_first(snapshot.versions):
        leaf = version.leaf
        if (
            leaf is not None
            and leaf.ari_id is not None
            and version.directory == issuer.directory
            and version.account_url == account_url
            and set(leaf.names) & set(spec.names)
        ):
            return version
    return None


def reusable(spec: CertificateSpec, snapshot: Snapshot) -> SecretVersion | None:
    """
    Give the version whose private key is taken again: the newest that fits.

    Never a key that was compromised, by any version there is, and none that a listener refused:
    its certificate may have been refused for the key.
    """
    spoilt = compromised_keys(snapshot.versions) | {
        version.leaf.public_key_sha256
        for version in snapshot.versions
        if version.leaf is not None and version.rejected
    }
    for version in newest_first(snapshot.versions):
        leaf = version.leaf
        if leaf is not None and fits(version, spec) and leaf.public_key_sha256 not in spoilt:
            return version
    return None


# --- beside the order -------------------------------------------------------------------


def _rehearse_by_hand(
    draft: Draft,
    spec: CertificateSpec,
    issuer: IssuerSpec,
    snapshot: Snapshot,
    policy: Policy,
    now: datetime,
) -> None:
    if any(isinstance(action, EnsureAccount | Rehearse) for action in draft.actions):
        return  # one at a time; it is looked at again
    found = rehearsals.by_hand(spec, issuer, snapshot, policy, now)
    if isinstance(found, str):
        draft.notes.append(found)
    elif isinstance(found, Wait):
        draft.waits.append(found)
    elif found is not None:
        draft.actions.append(found)


# --- sentences --------------------------------------------------------------------------


def _told(chosen: Chosen, awaited: bool = False, pending: PendingOrder | None = None) -> list[str]:
    """Tell of the CA that is asked in place of the first one, or will be."""
    if awaited and pending is not None:
        return [
            f"fallback: {chosen.issuer.name} is asked once the order at {pending.directory} has "
            "ended, which may have been signed"
        ]
    return [chosen.instead] if chosen.instead else []


def _next(chosen: Chosen | None, now: datetime) -> list[Wait]:
    if chosen is None or chosen.next_at is None or chosen.next_at <= now:
        return []
    what = f"another CA is asked in place of {chosen.issuer.name}"
    return [Wait(what, chosen.next_at, WaitKind.BACK_OFF)]


def _not_whole(policy: Policy, now: datetime) -> Wait:
    what = "the cluster could not be read whole"
    return Wait(what, now + policy.backstop, WaitKind.IN_FLIGHT)


def _no_account(certificate: str, issuer: IssuerSpec) -> EnsureAccount:
    return EnsureAccount(certificate, f"there is no account at {issuer.directory} yet", issuer)
