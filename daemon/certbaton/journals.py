"""
Journals as those who order write them: on what was planned, and with what outlives an order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from certbaton.ca.problems import kind_of
from certbaton.cluster import Cluster
from certbaton.core.limits import next_failure, wish
from certbaton.core.renewal import known_lifetime
from certbaton.errors import (
    CertbatonError,
    Conflict,
    PermanentError,
    RateLimited,
    RetryableError,
)
from certbaton.model import (
    Drift,
    FailedValidation,
    Failure,
    FailureKind,
    Journal,
    NoteService,
    OrderRecord,
    PendingOrder,
    Policy,
)

# Records outlive the longest window that any limit looks at, by this.
KEEP_LONGER = timedelta(days=1)


class OrderFailed(PermanentError):
    """The order ended without a certificate; it is in the Journal already, with its back-off."""

    def __init__(self, message: str, kind: FailureKind = FailureKind.OTHER) -> None:
        super().__init__(message)
        self.kind = kind


class Journals:
    """Reads and writes the Journals of *cluster*; each write is held to what was read."""

    def __init__(self, cluster: Cluster, policy: Policy, clock: Callable[[], datetime]) -> None:
        self._cluster = cluster
        self._policy = policy
        self._clock = clock

    def server_time(self) -> datetime:
        """
        Give the API server's time, by which records are written and forgotten.

        A clock that runs ahead must not make us forget what the CA still counts.
        """
        return self._clock() + (self._cluster.api.clock_apart() or timedelta(0))

    def lifetime(self, name: str) -> timedelta | None:
        """Give what a version of *name* usually lasts; None where there was none."""
        return known_lifetime(self._cluster.store.versions(name))

    def written(self, name: str) -> Journal:
        """The Journal of *name*, or a first one; Conflict while a lost one is not back."""
        journal = self._cluster.store.journal(name)
        if journal is not None and not journal.resource_version:
            raise Conflict("the Journal was deleted; it is put back first")
        return journal or Journal()

    def current(self, name: str, planned: PendingOrder) -> tuple[Journal, PendingOrder]:
        """The Journal and the order in it; Conflict unless that is *planned*."""
        journal = self._cluster.store.journal(name)
        if journal is None or journal.pending is None or journal.pending != planned:
            raise Conflict("the Journal is not as it was when this was planned")
        if not journal.resource_version:
            raise Conflict("the Journal was deleted; it is put back first")
        return journal, journal.pending

    def save(self, name: str, journal: Journal, *, keep_key: bool = False) -> Journal:
        """Write *journal*, without records that no limit looks at any more. One request."""
        policy = self._policy
        longest = max(policy.order_limit_window, policy.validation_limit_window)
        oldest = self.server_time() - longest - KEEP_LONGER
        journal = replace(
            journal,
            orders=tuple(record for record in journal.orders if record.at > oldest),
            failed_validations=tuple(
                failed for failed in journal.failed_validations if failed.at > oldest
            ),
        )
        return self._cluster.store.save_journal(
            name, journal, key=None, csr=None, keep_key=keep_key
        )

    def counted(self, journal: Journal, pending: PendingOrder) -> Journal:
        """*journal* with a record of *pending*: it ended in a certificate, or may have."""
        record = OrderRecord(
            self.server_time(), pending.directory, pending.names, advised=pending.advised
        )
        return replace(journal, orders=(*journal.orders, record))

    def note_service(self, action: NoteService) -> None:
        """Write what a Service named before us, or how often it drifted."""
        name, key = action.certificate, str(action.service)
        journal = self._cluster.store.journal(name) or Journal()
        if action.original is not None:
            # again for a Service that was made anew: what it named years ago is no way back
            journal = replace(journal, originals={**journal.originals, key: action.original})
        if action.drift_rounds is not None:
            found = Drift(action.drift_rounds, self._clock())
            journal = replace(journal, drift={**journal.drift, key: found})
        self.save(name, journal, keep_key=True)

    def record_failure(self, name: str, directory: str, error: CertbatonError) -> None:
        """Write that ordering at *directory* failed, and when to try again."""
        journal = self._cluster.store.journal(name) or Journal()
        retry_at = error.retry_at if isinstance(error, RetryableError) else None
        failure = self._next_failure(
            name,
            journal,
            directory,
            str(error),
            kind_of(error),
            retry_at,
            of_account=isinstance(error, RateLimited) and error.of_account,
        )
        failures = {**journal.failures, directory: failure}
        self.save(name, replace(journal, failures=failures), keep_key=True)

    def fail(
        self,
        name: str,
        journal: Journal,
        message: str,
        names: Sequence[str] = (),
        kind: FailureKind = FailureKind.OTHER,
    ) -> OrderFailed:
        """Close the order as failed: back-off and failed validations go into the same write."""
        directory = journal.pending.directory if journal.pending else ""
        failed = tuple(FailedValidation(self.server_time(), directory, item) for item in names)
        failure = self._next_failure(name, journal, directory, message, kind)
        self.save(
            name,
            replace(
                journal,
                pending=None,
                failures={**journal.failures, directory: failure},
                failed_validations=journal.failed_validations + failed,
            ),
        )
        return OrderFailed(message, kind)

    def _next_failure(
        self,
        name: str,
        journal: Journal,
        directory: str,
        message: str,
        kind: FailureKind,
        retry_at: datetime | None = None,
        *,
        of_account: bool = False,
    ) -> Failure:
        order = journal.pending
        ours = order is not None and order.directory == directory
        return next_failure(
            message,
            journal.failures.get(directory),
            name,
            self.lifetime(name),
            self._policy,
            self._clock(),
            retry_at,
            kind,
            wish(order.names, order.key_type, order.profile) if ours and order else "",
            of_account=of_account,
        )
