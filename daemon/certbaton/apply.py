"""
Does what a plan says, and decides nothing: one handler an action.

Every handler may be cut off before or after any of its writes and may run
again: it then finds what it did, or is told Conflict and the tick looks again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from certbaton.cluster import Cluster
from certbaton.dealings import Dealings
from certbaton.errors import Conflict, RetryableError
from certbaton.following import no_slot
from certbaton.model import (
    Action,
    AdvanceOrder,
    CheckRenewalInfo,
    CloseOrder,
    DeleteVersion,
    DropOrder,
    EnsureAccount,
    GiveUp,
    MarkForDeletion,
    MarkServed,
    NoteService,
    ObjectRef,
    Policy,
    Proof,
    PutBack,
    PutBackJournal,
    Rehearse,
    Reject,
    Rejection,
    Repoint,
    RollAccountKey,
    SecretVersion,
    StageOrder,
    Unmark,
)
from certbaton.targets import Target
from certbaton.telemetry import logger

# A version that an answer to our own write showed this recently need not be read again.
FRESH = timedelta(seconds=10)
# The same end of a handover is told again only after this.
AGAIN = timedelta(minutes=10)
ENDED = {
    "wire": "the listener serves it, seen in a TLS handshake",
    "events": "the cloud controller has put it on the listener, by its own Events",
    "unproven": (
        "not seen on the listener in the time for it; the rollout goes on, and the listener is "
        "still looked at"
    ),
}


@dataclass(frozen=True, slots=True)
class Announcement:
    """Something worth an Event on a Service. Best effort; it never stops anything."""

    service: ObjectRef
    reason: str
    message: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Applied:
    """
    What an action came to; *retry_after* where it has to go on later.

    *trouble* is a sentence for somebody to look at, although the action was done. *quiet*: nothing
    came of it that anybody should read of.
    """

    announcements: tuple[Announcement, ...] = ()
    retry_after: timedelta | None = None
    what: str = ""
    trouble: str | None = None
    quiet: bool = False


class Applier:
    """The hands: writes to the cluster and to the CA."""

    def __init__(
        self,
        cluster: Cluster,
        target: Target,
        dealings: Dealings,
        *,
        policy: Policy,
        field_manager: str,
        clock: Callable[[], datetime],
    ) -> None:
        """*clock* gives aware UTC; *field_manager* is the instance's."""
        self._cluster = cluster
        self._target = target
        self._dealings = dealings
        self._policy = policy
        self._field_manager = field_manager
        self._clock = clock
        self._lock = threading.Lock()
        self._answered: dict[ObjectRef, datetime] = {}
        self._freed: dict[ObjectRef, datetime] = {}

    def apply(self, action: Action) -> Applied:
        """
        Carry out *action*.

        Raises Conflict when somebody wrote first, RetryableError when the world
        may change by itself, PermanentError when a person must change something.
        """
        match action:
            case Repoint():
                return self._repoint(action)
            case MarkServed():
                return self._mark_served(action)
            case Reject():
                return self._reject(action)
            case GiveUp():
                return self._give_up(action)
            case NoteService(service=service, why=why, drift_rounds=rounds):
                self._dealings.journals.note_service(action)
                told = Announcement(service, "CertificateDrift", why, warning=True)
                return Applied((told,) if rounds else ())
            case PutBack(ref=ref):
                self._note(self._cluster.store.put_back(ref))
                return Applied()
            case PutBackJournal(certificate=certificate):
                self._cluster.store.put_back_journal(certificate)
                return Applied()
            case Unmark(version=version):
                self._note(self._cluster.store.annotate(version, marked_at=None))
                return Applied()
            case MarkForDeletion(version=version):
                self._cluster.store.annotate(version, marked_at=self._clock())
                return Applied()
            case DeleteVersion(version=version):
                return self._delete(version)
            case EnsureAccount() | RollAccountKey():
                return self._account(action)
            case StageOrder():
                return self._stage(action)
            case AdvanceOrder():
                return self._advance(action)
            case DropOrder(pending=pending):
                wait = self._dealings.orders.drop(action)
                return Applied(retry_after=wait, what=no_slot(pending.directory))
            case CloseOrder():
                self._dealings.orders.close(action)
                return Applied()
            case Rehearse():
                progress = self._dealings.rehearsals.rehearse(action)
                if progress.retry_after is None:
                    return Applied(trouble=progress.what or None)
                return Applied(retry_after=progress.retry_after, what=progress.what)
            case CheckRenewalInfo():
                return self._advice(action)
        raise AssertionError(f"no handler for {type(action).__name__}")

    # --- at CAs -------------------------------------------------------------------

    def _account(self, action: EnsureAccount | RollAccountKey) -> Applied:
        accounts, issuer = self._dealings.accounts, action.issuer
        do = accounts.roll if isinstance(action, RollAccountKey) else accounts.ensure
        wait = do(issuer, action.certificate, self._dealings.journals.lifetime(action.certificate))
        what = f"another certificate works on the account at {issuer.name}"
        return Applied(retry_after=wait, what=what)

    def _stage(self, action: StageOrder) -> Applied:
        """Not before there is room for the order: of a fleet each would make its key at once."""
        directory = (action.issuer or action.spec.issuer).directory
        with self._dealings.authorities.orders.taken(directory, action.certificate) as wait:
            if wait is not None:
                return Applied(retry_after=wait, what=no_slot(directory))
            return self._staged(action)

    def _staged(self, action: StageOrder) -> Applied:
        told = self._caa(action)
        self._dealings.orders.stage(action)
        return Applied(told)

    def _advance(self, action: AdvanceOrder) -> Applied:
        told = self._caa(action)
        progress = self._dealings.orders.advance(action)
        if progress.version is not None:
            self._note(progress.version)
        return Applied(told, retry_after=progress.retry_after, what=progress.what)

    def _caa(self, action: StageOrder | AdvanceOrder) -> tuple[Announcement, ...]:
        told = self._dealings.caa.before(action)
        for sentence in told:
            logger().warning("caa", certificate=action.certificate, advice=sentence)
        return self._at_all(action.certificate, "CertificateCaa", told, warning=True)

    def _advice(self, action: CheckRenewalInfo) -> Applied:
        advised = self._dealings.advice.check(action)
        told = (advised.news,) if advised.news else ()
        return Applied(
            self._at_all(action.certificate, "CertificateRenewalAdvised", told),
            retry_after=advised.retry_after,
            what=f"renewal information of {action.version.ref} is asked for",
            quiet=not advised.noted,
        )

    def _at_all(
        self, certificate: str, reason: str, sentences: Sequence[str], *, warning: bool = False
    ) -> tuple[Announcement, ...]:
        spec = self._dealings.specs.get(certificate)
        return tuple(
            Announcement(service.ref, reason, f"{certificate}: {sentence}", warning)
            for sentence in sentences
            for service in (spec.services if spec else ())
        )

    # --- the rollout --------------------------------------------------------------

    def _note(self, version: SecretVersion) -> None:
        now = self._clock()
        with self._lock:  # turns of several certificates run at a time
            for ref in [ref for ref, at in self._answered.items() if at <= now - FRESH]:
                del self._answered[ref]
            self._answered[version.ref] = now

    def _repoint(self, action: Repoint) -> Applied:
        service, version = action.service, action.version
        if version is not None:
            self._look_at(action.certificate, version)
        state = self._cluster.services.service(service.ref)
        if state is None:
            raise Conflict(f"Service {service.ref} is gone")
        if state.reference != action.named:  # it is not noted what is there now, or why to undo it
            raise Conflict(f"Service {service.ref} was changed meanwhile")
        body = self._target.body(state, service, action.reference)
        self._cluster.services.apply(service.ref, body, self._field_manager)
        return Applied()

    def _give_up(self, action: GiveUp) -> Applied:
        self._cluster.store.foreign.check_absent(action.reference)
        state = self._cluster.services.service(action.service)
        if state is None:
            raise Conflict(f"Service {action.service} is gone")
        now, before = self._clock(), self._freed.get(action.service)
        if before is not None and now < before + AGAIN:
            raise RetryableError(
                f"Service {action.service}: somebody put the name of Secret {action.reference} "
                "back, which is not there; take it out of what sets it (docs/gitops.md)",
                retry_at=before + AGAIN,
            )
        self._cluster.services.merge(action.service, self._target.without_secret(state))
        self._freed[action.service] = now
        return Applied(
            (Announcement(action.service, "CertificateMissing", action.why, warning=True),)
        )

    def _look_at(self, certificate: str, version: SecretVersion) -> None:
        """Make sure that *version* is there and unmarked, now."""
        answered = self._answered.get(version.ref)
        if answered is not None and self._clock() - answered <= FRESH:
            return
        live = {item.ref: item for item in self._cluster.store.list_versions_live(certificate)}
        there = live.get(version.ref)
        if there is None or there.uid != version.uid or there.marked_at is not None:
            raise Conflict(f"Secret {version.ref} is gone or marked for deletion")
        self._note(there)

    def _reject(self, action: Reject) -> Applied:
        rejection = Rejection(self._clock(), action.why)
        self._note(
            self._cluster.store.annotate(action.version, rejected={action.service: rejection})
        )
        return Applied(trouble=f"{action.version.ref} is refused: {action.why}")

    def _mark_served(self, action: MarkServed) -> Applied:
        version, service = action.version, str(action.service)
        before = version.served.get(service)
        now = self._clock()
        proof = Proof(max(now, action.since) if action.since else now, action.how)
        self._note(self._cluster.store.annotate(version, served={service: proof}))
        if before is not None and before.how == action.how and before.at >= now - AGAIN:
            return Applied()
        unproven = action.how == "unproven"
        message = f"Secret {version.ref}: {ENDED[action.how]}"
        if action.hint:
            message += f" ({action.hint})"
        return Applied(
            (
                Announcement(
                    action.service,
                    "CertificateUnproven" if unproven else "CertificateServed",
                    message,
                    warning=unproven,
                ),
            )
        )

    def _delete(self, version: SecretVersion) -> Applied:
        if version.ref in self._cluster.services.references_live():
            raise Conflict(f"Secret {version.ref} is named by a Service again")
        self._cluster.store.delete_version(version)
        return Applied()
