"""
The ordering half of `certbaton.apply`: account, order, challenges, certificate.

Intent is written before what cannot be repeated: the private key lies in the
Journal before the CA is asked to sign for it (RFC 8555 section 7.4).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from certbaton import pki
from certbaton.ca.order import (
    CertificateAuthority,
    Failed,
    Issued,
    Unfinished,
    Validated,
    advance,
    challenges_of,
)
from certbaton.cluster import Cluster
from certbaton.core.limits import next_failure
from certbaton.core.renewal import known_lifetime
from certbaton.errors import (
    AccountMissing,
    CertbatonError,
    ClusterUnavailable,
    Conflict,
    PermanentError,
    RetryableError,
    SolverNotReady,
)
from certbaton.model import (
    AdvanceOrder,
    ChallengeInfo,
    CloseOrder,
    Drift,
    FailedValidation,
    Failure,
    IssuerSpec,
    Journal,
    KeyType,
    NoteService,
    OrderInfo,
    OrderRecord,
    PendingOrder,
    Policy,
    SecretVersion,
    StageOrder,
)
from certbaton.solvers import Solver
from certbaton.telemetry import logger

Connect = Callable[[IssuerSpec, pki.PrivateKey, str | None], CertificateAuthority]

# Records outlive the longest window that any limit looks at, by this.
KEEP_LONGER = timedelta(days=1)
LOOK_AGAIN = timedelta(seconds=5)
# A name server that is gone for good must not keep an order open for ever.
CLEAN_UP_TRIES = 3


class OrderFailed(PermanentError):
    """The order ended without a certificate; it is in the Journal already, with its back-off."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an order got: *version* when it ended in one, else when to go on."""

    version: SecretVersion | None = None
    retry_after: timedelta | None = None
    what: str = ""


class Orders:
    """Everything that talks to a CA."""

    def __init__(
        self,
        cluster: Cluster,
        connect: Connect,
        solvers: Mapping[str, Solver],
        issuers: Mapping[str, IssuerSpec],
        solver_of: Mapping[str, str],
        *,
        policy: Policy,
        clock: Callable[[], datetime],
        sleep: Callable[[float], bool],
        patience: timedelta = timedelta(minutes=2),
    ) -> None:
        """
        *issuers* by directory; *solver_of* names each certificate's solver;
        *sleep* returns False when the process is to stop; *patience* is how long
        one call follows an order before the Journal takes over.
        """
        self._cluster = cluster
        self._connect = connect
        self._solvers = solvers
        self._issuers = issuers
        self._solver_of = solver_of
        self._policy = policy
        self._clock = clock
        self._sleep = sleep
        self._patience = patience
        self._locks: dict[str, threading.Lock] = {}
        self._presented: dict[str, dict[str, ChallengeInfo]] = {}
        self._unclean: dict[str, int] = {}

    # --- account ----------------------------------------------------------------------

    def ensure_account(self, issuer: IssuerSpec) -> None:
        """Key stored, then newAccount, then URL stored: the same key gives the same account."""
        # certificates of one issuer share its account; other issuers are not held up
        with self._locks.setdefault(issuer.directory, threading.Lock()):
            account = self._cluster.store.account(issuer.directory)
            if account is None:
                key = pki.PrivateKey.generate(KeyType.EC_P256)
                account = self._cluster.store.create_account(issuer.directory, key)
            if account.url is not None:
                return
            stored = self._cluster.store.account_key(issuer.directory)
            if stored is None:
                raise PermanentError(
                    f"the account Secret of {issuer.directory} has no readable key; restore it, "
                    "or delete it for a new account"
                )
            url = self._connect(issuer, stored, None).new_account()
            self._cluster.store.save_account_url(account, url)

    # --- order ------------------------------------------------------------------------

    def stage(self, action: StageOrder) -> None:
        """Write key and CSR into the Journal; see the crash table."""
        spec = action.spec
        if action.list_first:
            known = {version.ref for version in self._cluster.store.versions(spec.name)}
            live = {version.ref for version in self._cluster.store.list_versions_live(spec.name)}
            if live - known:
                raise Conflict("the cluster holds versions that the watch has not delivered yet")
        account = self._cluster.store.account(spec.issuer.directory)
        if account is None or account.url is None:
            raise Conflict("the account is gone")
        key = pki.PrivateKey.generate(spec.key_type)
        pending = PendingOrder(
            directory=spec.issuer.directory,
            account_url=account.url,
            names=spec.names,
            key_type=spec.key_type,
            public_key_sha256=key.public_key_sha256,
            reason=action.reason,
            staged_at=self._clock(),
            profile=spec.issuer.profile,
        )
        journal = self._cluster.store.journal(spec.name) or Journal()
        if journal.pending is not None:
            raise Conflict("an order is open already")
        self._cluster.store.save_journal(
            spec.name,
            replace(journal, pending=pending),
            key=key,
            csr=pki.make_csr(key, spec.names),
        )

    def advance(self, action: AdvanceOrder) -> Progress:
        """Bring the order as far as it gets; raises OrderFailed when it came to nothing."""
        try:
            return self._advance(action)
        except AccountMissing:
            # the CA forgot it: the next turn makes a new one, with the same key
            account = self._cluster.store.account(action.pending.directory)
            if account is not None and account.url == action.pending.account_url:
                self._cluster.store.save_account_url(account, None)
            raise

    def _advance(self, action: AdvanceOrder) -> Progress:
        name = action.certificate
        journal, pending = self._current(name, action.pending)
        key, csr = self._cluster.store.pending_key(name), self._cluster.store.pending_csr(name)
        account_key = self._cluster.store.account_key(pending.directory)
        if key is None or csr is None or account_key is None:
            if pending.url is not None:  # it may be signed by now, and nobody can tell
                journal = _counted(journal, pending, self._server_time())
            raise self._fail(name, journal, "its key, or the account's, is gone from the cluster")
        if pending.chain is not None:
            return self._store(name, journal, pending, key, pending.chain)
        issuer = self._issuers.get(pending.directory) or IssuerSpec(
            name=pending.directory, directory=pending.directory
        )
        ca = self._connect(issuer, account_key, pending.account_url)
        order: OrderInfo | None = None
        if pending.url is None:
            if action.finish_only:
                self._save(name, replace(journal, pending=None))
                return Progress()
            order = ca.new_order(pending.names, pending.profile)
            if self._is_anothers(name, order.url):
                what = "the CA hands out an order that another certificate works on"
                return Progress(retry_after=self._policy.back_off[0], what=what)
            pending = replace(pending, url=order.url, expires=order.expires)
            journal = self._save(name, replace(journal, pending=pending), keep_key=True)
            # from here on this process knows all that is presented for it
            self._presented[name] = {}
        assert pending.url is not None  # noqa: S101 - it was just recorded
        if action.finish_only and not (spent := self._is_spent(ca, pending.url)):
            self._clean_up(name, pending)
            if spent is None:
                journal = _counted(journal, pending, self._server_time())
            self._save(name, replace(journal, pending=None))
            return Progress()
        # one that left the configuration has no solver; its order is only awaited
        solver = self._solver(name)
        try:
            outcome = advance(
                ca,
                pending.url,
                csr,
                challenge_type=solver.challenge_type if solver else "",
                present=lambda challenges: self._present(name, solver, challenges),
                sleep=self._sleep,
                patience=self._patience,
                now=self._clock,
                order=order,
            )
        except SolverNotReady as exc:
            again = exc.retry_at - self._clock() if exc.retry_at else LOOK_AGAIN
            return Progress(retry_after=max(again, timedelta(0)), what=str(exc))
        match outcome:
            case Issued(chain=chain, certificate_url=url):
                pending = replace(pending, certificate_url=url)
                return self._store(name, journal, pending, key, chain)
            case Unfinished(what=what, retry_after=retry_after):
                return Progress(retry_after=retry_after, what=what)
            case Failed(message=message, names=names):
                self._clean_up(name, pending)
                raise self._fail(name, journal, message, names)
            case Validated():
                raise AssertionError("no rehearsal was asked for")

    def close(self, action: CloseOrder) -> None:
        """Clean the challenges, then take the order out of the Journal; its record stays."""
        name = action.certificate
        journal, pending = self._current(name, action.pending)
        self._clean_up(name, pending)
        if action.version is not None:
            journal = _counted(journal, pending, self._server_time())
        self._save(
            name,
            replace(
                journal,
                pending=None,
                failures={},
                last_version=action.version or journal.last_version,
            ),
        )

    def note_service(self, action: NoteService) -> None:
        """Write into the Journal what a Service named before us, or how often it drifted."""
        name, key = action.certificate, str(action.service)
        journal = self._cluster.store.journal(name) or Journal()
        if action.original is not None:
            # again for a Service that was made anew: what it named years ago is no way back
            journal = replace(journal, originals={**journal.originals, key: action.original})
        if action.drift_rounds is not None:
            found = Drift(action.drift_rounds, self._clock())
            journal = replace(journal, drift={**journal.drift, key: found})
        self._save(name, journal, keep_key=True)

    def record_failure(self, name: str, directory: str, error: CertbatonError) -> None:
        """Write into the Journal that ordering at *directory* failed, and when to try again."""
        journal = self._cluster.store.journal(name) or Journal()
        retry_at = error.retry_at if isinstance(error, RetryableError) else None
        failure = self._next_failure(name, journal, directory, str(error), retry_at)
        failures = {**journal.failures, directory: failure}
        self._save(name, replace(journal, failures=failures), keep_key=True)

    # --- pieces -----------------------------------------------------------------------

    def _current(self, name: str, planned: PendingOrder) -> tuple[Journal, PendingOrder]:
        journal = self._cluster.store.journal(name)
        if journal is None or journal.pending is None or journal.pending != planned:
            raise Conflict("the Journal is not as it was when this was planned")
        if not journal.resource_version:
            raise Conflict("the Journal was deleted; it is put back first")
        return journal, journal.pending

    def _save(self, name: str, journal: Journal, *, keep_key: bool = False) -> Journal:
        policy = self._policy
        longest = max(policy.order_limit_window, policy.validation_limit_window)
        oldest = self._server_time() - longest - KEEP_LONGER
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

    def _server_time(self) -> datetime:
        """
        Give the API server's time, by which records are written and forgotten.

        A clock that runs ahead must not make us forget what the CA still counts.
        """
        return self._clock() + (self._cluster.api.clock_apart() or timedelta(0))

    def _is_anothers(self, name: str, url: str) -> bool:
        """Say whether another Journal has that order: Let's Encrypt hands open ones out again."""
        return any(
            other != name and journal.pending is not None and journal.pending.url == url
            for other, journal in self._cluster.store.journals().items()
        )

    def _solver(self, name: str) -> Solver | None:
        return self._solvers[self._solver_of[name]] if name in self._solver_of else None

    def _present(
        self, name: str, solver: Solver | None, challenges: Sequence[ChallengeInfo]
    ) -> None:
        if solver is None:
            raise PermanentError(f"no solver is configured for {name}")
        for challenge in challenges:
            if name in self._presented:
                self._presented[name][challenge.url] = challenge
            solver.present(challenge)
        for challenge in challenges:
            solver.ready(challenge)

    def _clean_up(self, name: str, pending: PendingOrder) -> None:
        """Take the answers away again; after a restart they are derived from order and key."""
        solver = self._solver(name)
        if solver is None:
            return
        try:
            presented = self._presented.get(name)
            known = list(presented.values()) if presented is not None else []
            if presented is None and pending.url is not None:
                account_key = self._cluster.store.account_key(pending.directory)
                issuer = self._issuers.get(pending.directory)
                if account_key is not None and issuer is not None:
                    ca = self._connect(issuer, account_key, pending.account_url)
                    known = challenges_of(ca, pending.url, solver.challenge_type)
            for challenge in known:
                solver.clean_up(challenge)
        except AccountMissing:
            pass  # its orders are gone with it, and nothing says what to look for
        except (RetryableError, PermanentError) as exc:
            tries = self._unclean[name] = self._unclean.get(name, 0) + 1
            if tries < CLEAN_UP_TRIES:
                raise RetryableError(f"challenges could not be taken away yet: {exc}") from exc
            logger().warning("challenges_left", certificate=name, error=str(exc))
        self._unclean.pop(name, None)
        self._presented.pop(name, None)

    def _is_spent(self, ca: CertificateAuthority, url: str) -> bool | None:
        """Say whether the CA has begun to sign it; None where it does not tell us any more."""
        try:
            order = ca.order(url)
        except PermanentError:
            return None
        return order.certificate is not None or order.status in ("processing", "valid")

    def _store(
        self,
        name: str,
        journal: Journal,
        pending: PendingOrder,
        key: pki.PrivateKey,
        chain: str,
    ) -> Progress:
        try:
            chain = pki.normalise_chain(chain)
            pki.check_bundle(chain, key, pending.names, KeyType(pending.key_type), self._clock())
        except PermanentError as exc:
            self._clean_up(name, pending)
            # it is spent at the CA, so it counts
            journal = _counted(journal, pending, self._server_time())
            raise self._fail(name, journal, str(exc)) from exc
        try:
            version = self._cluster.store.create_version(
                name,
                chain,
                key,
                directory=pending.directory,
                account_url=pending.account_url,
                certificate_url=pending.certificate_url or "",
                profile=pending.profile,
            )
        except (ClusterUnavailable, PermanentError):
            if pending.chain is None:
                # the order may be gone from the CA when writing works again
                kept = replace(pending, chain=chain)
                self._save(name, replace(journal, pending=kept), keep_key=True)
            raise
        return Progress(version=version)

    def _next_failure(
        self,
        name: str,
        journal: Journal,
        directory: str,
        message: str,
        retry_at: datetime | None = None,
    ) -> Failure:
        lifetime = known_lifetime(self._cluster.store.versions(name))
        return next_failure(
            message,
            journal.failures.get(directory),
            name,
            lifetime,
            self._policy,
            self._clock(),
            retry_at,
        )

    def _fail(
        self, name: str, journal: Journal, message: str, names: Sequence[str] = ()
    ) -> OrderFailed:
        """Close the order as failed: back-off and failed validations go into the same write."""
        directory = journal.pending.directory if journal.pending else ""
        failed = tuple(FailedValidation(self._server_time(), directory, item) for item in names)
        self._save(
            name,
            replace(
                journal,
                pending=None,
                failures={
                    **journal.failures,
                    directory: self._next_failure(name, journal, directory, message),
                },
                failed_validations=journal.failed_validations + failed,
            ),
        )
        return OrderFailed(message)


def _counted(journal: Journal, pending: PendingOrder, now: datetime) -> Journal:
    """*journal* with a record of *pending* for our own limits: it ended in a certificate."""
    record = OrderRecord(now, pending.directory, pending.names)
    return replace(journal, orders=(*journal.orders, record))
