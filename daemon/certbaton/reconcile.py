"""
One certificate's turn: look, plan, act, and look again until nothing is left to do.

No state but pauses after trouble is kept here; a new process works out where
things stand from the cluster, the CA and the listeners.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from certbaton.apply import Announcement, Applied, Applier
from certbaton.cluster import Cluster, NotLeading
from certbaton.core.plan import plan
from certbaton.dealings import Dealings
from certbaton.errors import (
    CaUnavailable,
    CertbatonError,
    ClusterUnavailable,
    Conflict,
    RetryableError,
)
from certbaton.journals import OrderFailed
from certbaton.model import (
    Action,
    AdvanceOrder,
    CertificateSpec,
    CloseOrder,
    DropOrder,
    EnsureAccount,
    GiveUp,
    NoteService,
    ObjectRef,
    Plan,
    Policy,
    Rehearse,
    Repoint,
    RollAccountKey,
    StageOrder,
    Wait,
    WaitKind,
)
from certbaton.observe import Observer
from certbaton.ordering import NotStored
from certbaton.telemetry import logger

# More rounds than any rollover takes; reaching it means going round in circles.
MAX_ROUNDS = 60
CONFLICTS_IN_A_ROW = 5
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=1), timedelta(minutes=5)
# Who stops has other things to do; what is left is tried again soon if it goes on after all.
STOPPED_PAUSE = timedelta(seconds=1)


@dataclass(slots=True)
class Report:
    """What one turn came to: *waits* are what is left, *failed* what went wrong (sentences)."""

    certificate: str
    waits: tuple[Wait, ...] = ()
    done: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    due: datetime | None = None

    @property
    def next_at(self) -> datetime | None:
        """The earliest moment at which there may be something to do."""
        return min((wait.until for wait in self.waits), default=None)


@dataclass(slots=True)
class _Pause:
    count: int
    until: datetime
    what: str
    kind: WaitKind


class Reconciler:
    """Runs turns; several certificates at a time, each one by one thread at a time."""

    def __init__(
        self,
        cluster: Cluster,
        observer: Observer,
        applier: Applier,
        dealings: Dealings,
        specs: Mapping[str, CertificateSpec],
        policy: Policy,
        clock: Callable[[], datetime],
        stop: threading.Event,
        *,
        leading: Callable[[], bool] = lambda: True,
    ) -> None:
        """*stop* and *leading* are asked before each action; *clock* gives aware UTC."""
        self._cluster = cluster
        self._observer = observer
        self._applier = applier
        self._dealings = dealings
        self._specs = specs
        self._policy = policy
        self._clock = clock
        self._stop = stop
        self._leading = leading
        self._pauses: dict[tuple[str, str], _Pause] = {}
        self._shown: dict[str, str] = {}
        self._claimed: dict[str, Mapping[ObjectRef, str]] = {}

    def certificates(self) -> tuple[str, ...]:
        """Name all that is configured, and what the cluster still holds of former ones."""
        held = {version.certificate for version in self._cluster.store.versions()}
        return tuple(sorted(held | set(self._cluster.store.journals()) | set(self._specs)))

    def plan(self, certificate: str, *, probing: bool = True) -> Plan:
        """Look and plan, and touch nothing."""
        spec = self._specs.get(certificate)
        now = self._clock()
        snapshot = self._observer.snapshot(certificate, spec, now, probing=probing)
        services = spec.services if spec is not None else ()
        refused = frozenset(
            service.ref
            for service in services
            if (pause := self._pauses.get((certificate, f"Repoint {service.ref}")))
            and now < pause.until
        )
        return plan(certificate, spec, snapshot, self._policy, now, refused)

    def turn(self, certificate: str) -> Report:
        """
        Work on *certificate* until its plan is empty or only waits.

        Raises nothing: whatever goes wrong is in the report, and tried again.
        """
        report = Report(certificate)
        began = time.monotonic()
        try:
            self._rounds(report)
        except CertbatonError as exc:
            self._pause(certificate, "turn", str(exc))
            report.failed.append(str(exc))
            report.waits += (self._wait_of(certificate, "turn"),)
        except Exception as exc:  # noqa: BLE001 - reported, and tried again
            # one certificate's trouble, also a mistake of ours, never ends the loop
            logger().error("turn_broke", certificate=certificate, exc_info=exc)
            self._pause(certificate, "turn", f"unexpected {type(exc).__name__}; see the log")
            report.failed.append(f"unexpected {type(exc).__name__}")
            report.waits += (self._wait_of(certificate, "turn"),)
        else:
            self._pauses.pop((certificate, "turn"), None)
        self._tell(report, time.monotonic() - began)
        return report

    def _rounds(self, report: Report) -> None:
        conflicts: Counter[str] = Counter()
        for _ in range(MAX_ROUNDS):
            if self._is_over():
                self._stopped(report)
                return
            now = self._clock()
            found = self.plan(report.certificate)
            report.due, report.notes = found.due, found.notes
            self._tell_claims(found)
            actions, waits = self._not_paused(found, now)
            report.waits = (*found.waits, *waits)
            if not actions:
                return
            failed: set[str] = set()
            for action in actions:
                key = _key(action)
                if self._is_over():
                    self._stopped(report)
                    return
                if key in failed:
                    continue  # it rests on what failed: no repoint before its note is written
                try:
                    if not self._act(action, report, found.due):
                        failed.add(key)
                    elif not isinstance(action, NoteService):
                        conflicts.pop(key, None)
                except NotLeading:
                    self._stopped(report)
                    return
                except Conflict as exc:
                    conflicts[key] += 1
                    if conflicts[key] > CONFLICTS_IN_A_ROW:
                        self._failed(action, f"somebody else keeps writing: {exc}", report)
                    break  # what was planned after it rests on the same look
        raise RetryableError("going round in circles; please report it, with the log")

    def _is_over(self) -> bool:
        return self._stop.is_set() or not self._leading()

    def _stopped(self, report: Report) -> None:
        """Note that work may be left: who was stopped must not pass for who had ended."""
        until = self._clock() + STOPPED_PAUSE
        report.waits += (Wait("stopped midway", until, WaitKind.IN_FLIGHT),)

    def _act(self, action: Action, report: Report, due: datetime | None) -> bool:
        """Carry out *action*; false if it failed, which is reported."""
        try:
            applied = self._applier.apply(action)
        except Conflict:
            raise
        except OrderFailed as exc:
            self._failed(action, str(exc), report, recorded=True)
        except CertbatonError as exc:
            directory = _directory(action)
            recorded = directory is not None and self._recorded(action.certificate, directory, exc)
            self._failed(action, str(exc), report, recorded=recorded)
        else:
            self._done(action, applied, report, due)
            return True
        return False

    def _failed(
        self, action: Action, message: str, report: Report, *, recorded: bool = False
    ) -> None:
        """Report it, and unless the Journal says when it is tried again (*recorded*), pause it."""
        report.failed.append(message)
        if not recorded:
            what = f"{type(action).__name__}: {message}"
            self._pause(action.certificate, _key(action), what)
        self._complain(action, message)

    def _recorded(self, name: str, directory: str, error: CertbatonError) -> bool:
        """
        Have the failure of an order noted where a plan reads when it is tried again.

        A CA that does not answer is noted already, against the CA; else the Journal has it. False
        where even that failed, and where it was no CA that failed.
        """
        if isinstance(error, ClusterUnavailable | NotStored):
            return False
        if isinstance(error, CaUnavailable):
            return self._dealings.authorities.outages.is_away(directory)
        try:
            self._dealings.journals.record_failure(name, directory, error)
        except Conflict:
            raise
        except CertbatonError as exc:
            logger().warning("failure_not_recorded", certificate=name, error=str(exc))
            return False
        return True

    def _done(self, action: Action, applied: Applied, report: Report, due: datetime | None) -> None:
        name, key = action.certificate, _key(action)
        kind = type(action).__name__
        if applied.retry_after is not None:
            until = self._clock() + applied.retry_after
            self._pauses[name, key] = _Pause(0, until, applied.what, WaitKind.IN_FLIGHT)
            return
        if not isinstance(action, NoteService):  # it only precedes a Repoint, and waits with it
            self._pauses.pop((name, key), None)
        if applied.quiet:
            return
        report.done.append(kind)
        if applied.trouble is not None:
            report.failed.append(applied.trouble)
            self._complain(action, applied.trouble)
        logger().info("done", certificate=name, action=kind, why=action.why, due=_stamp(due))
        for announcement in applied.announcements:
            self._announce(announcement)

    # --- pauses -----------------------------------------------------------------------

    def _pause(self, name: str, key: str, what: str) -> None:
        last = self._pauses.get((name, key))
        count = last.count + 1 if last else 1
        pause = min(FIRST_PAUSE * 2 ** min(count - 1, 16), LONGEST_PAUSE)
        self._pauses[name, key] = _Pause(
            count, self._clock() + pause, f"{what} (tried {count} times)", WaitKind.BACK_OFF
        )

    def _wait_of(self, name: str, key: str) -> Wait:
        pause = self._pauses[name, key]
        return Wait(pause.what, pause.until, pause.kind)

    def _not_paused(self, found: Plan, now: datetime) -> tuple[list[Action], list[Wait]]:
        actions: list[Action] = []
        waits: list[Wait] = []
        for action in found.actions:
            pause = self._pauses.get((found.certificate, _key(action)))
            if pause is None or pause.until <= now:
                actions.append(action)
            elif (wait := Wait(pause.what, pause.until, pause.kind)) not in waits:
                waits.append(wait)
        return actions, waits

    # --- telling people -----------------------------------------------------------------

    def _complain(self, action: Action, message: str) -> None:
        name = action.certificate
        logger().warning("failed", certificate=name, action=type(action).__name__, error=message)
        spec = self._specs.get(name)
        targets = (
            (action.service,)
            if isinstance(action, Repoint)
            else (spec.services if spec is not None else ())
        )
        for service in targets:
            self._announce(
                Announcement(service.ref, "CertificateFailed", f"{name}: {message}", warning=True)
            )

    def _announce(self, announcement: Announcement) -> None:
        """Post an Event; without it everything goes on all the same."""
        state = self._cluster.services.service(announcement.service)
        if state is None:
            return
        told = self._cluster.events.publish(
            announcement.service,
            state.uid,
            state.resource_version,
            "Warning" if announcement.warning else "Normal",
            announcement.reason,
            announcement.message,
        )
        if not told:
            logger().info("event_lost", service=str(announcement.service))

    def _tell_claims(self, found: Plan) -> None:
        """Say once at each Service that another instance has that it is left to that one."""
        before = self._claimed.get(found.certificate, {})
        self._claimed[found.certificate] = found.claimed
        for ref in found.claimed.keys() - before.keys():
            message = f"{found.certificate}: {found.claimed[ref]}"
            self._announce(Announcement(ref, "CertificateClaimed", message, warning=True))

    def _tell(self, report: Report, seconds: float) -> None:
        """Write one line a turn, if it says anything new."""
        news = "; ".join([*report.notes, *(wait.what for wait in report.waits)])
        if not report.done and not report.failed and self._shown.get(report.certificate) == news:
            return
        self._shown[report.certificate] = news
        log = logger().warning if report.notes or report.failed else logger().info
        log(
            "turn",
            certificate=report.certificate,
            done=report.done,
            failed=report.failed,
            notes=list(report.notes),
            waits=[
                f"{wait.what} ({wait.kind}, until {wait.until:%FT%TZ})" for wait in report.waits
            ],
            seconds=round(seconds, 3),
        )


def _directory(action: Action) -> str | None:
    """Name the CA, by its directory, at which *action* orders; None for all others."""
    match action:
        case EnsureAccount(issuer=issuer):
            return issuer.directory
        case StageOrder(spec=spec, issuer=chosen):
            return (chosen or spec.issuer).directory
        case AdvanceOrder(pending=pending) | DropOrder(pending=pending):
            return pending.directory
    return None


def _stamp(at: datetime | None) -> str | None:
    return f"{at:%FT%T.%f}Z" if at else None


def _key(action: Action) -> str:
    """Name what a pause is for: this kind of action at this Service or version."""
    match action:
        case Repoint(service=service):
            return f"Repoint {service.ref}"
        case GiveUp(service=ref):
            return f"GiveUp {ref}"
        case NoteService(service=ref):
            return f"Repoint {ref}"
        case EnsureAccount(issuer=issuer) | RollAccountKey(issuer=issuer):
            return f"{type(action).__name__} {issuer.directory}"
        case StageOrder() | AdvanceOrder() | CloseOrder() | DropOrder() | Rehearse():
            return type(action).__name__
    version = getattr(action, "version", None)
    return f"{type(action).__name__} {version.ref if version else ''}"
