"""
Orders: staged in the Journal, brought to a certificate at the CA, and closed.

Intent is written before what cannot be repeated: the private key lies in the Journal before the
CA is asked to sign for it (RFC 8555 section 7.4), and that it is finalized before it is.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from certbaton import pki
from certbaton.accounts import Accounts
from certbaton.authorities import Authorities
from certbaton.ca.newly import ServerErrors, Wish
from certbaton.ca.order import (
    CertificateAuthority,
    Failed,
    Issued,
    Unfinished,
    Validated,
    abandon,
    advance,
    challenges_of,
)
from certbaton.challenges import Challenges
from certbaton.cluster import Cluster
from certbaton.core.renewal import issuer_at
from certbaton.errors import (
    AccountMissing,
    CertbatonError,
    ClusterUnavailable,
    Conflict,
    PermanentError,
    RetryableError,
    SolverNotReady,
)
from certbaton.following import Following, Progress, no_slot, not_ready
from certbaton.handouts import Handouts
from certbaton.journals import Journals
from certbaton.model import (
    AdvanceOrder,
    ChallengeInfo,
    CloseOrder,
    DropOrder,
    IssuerSpec,
    Journal,
    KeyType,
    OrderInfo,
    PendingOrder,
    Policy,
    StageOrder,
)
from certbaton.staging import stage
from certbaton.telemetry import logger


class NotStored(PermanentError):
    """
    The certificate is there, and the cluster does not take its Secret (quota, admission).

    It is kept in the Journal, and storing is tried again; nothing is ordered for that.
    """


class Orders:
    """One order at a time of each certificate."""

    def __init__(
        self,
        cluster: Cluster,
        authorities: Authorities,
        accounts: Accounts,
        challenges: Challenges,
        journals: Journals,
        *,
        policy: Policy,
        following: Following,
    ) -> None:
        self._cluster = cluster
        self._authorities = authorities
        self._accounts = accounts
        self._challenges = challenges
        self._journals = journals
        self._policy = policy
        self._following = following
        self._server_errors = ServerErrors()
        self._handouts = Handouts(cluster)
        self._answered: set[str] = set()  # URLs of orders whose challenges are answered

    def stage(self, action: StageOrder) -> None:
        """Write key and CSR into the Journal; see the crash table. Raises what `stage` does."""
        stage(self._cluster.store, action, self._following.clock())

    # --- advancing ----------------------------------------------------------------------

    def advance(self, action: AdvanceOrder) -> Progress:
        """
        Bring the order as far as it gets.

        Raises OrderFailed when it came to nothing, NotStored where its Secret cannot be written,
        and what the CA's calls raise.
        """
        name, directory = action.certificate, action.pending.directory
        journal, pending = self._journals.current(name, action.pending)
        if action.pending.chain is not None:
            key = self._pending_key(name, journal, pending)
            return self._store(name, journal, pending, key, action.pending.chain)
        with self._authorities.orders.taken(directory, name, begun=True) as wait:
            if wait is not None:
                return Progress(retry_after=wait, what=no_slot(directory))
            lifetime = self._journals.lifetime(name)
            with self._authorities.outages.trying(directory, name, lifetime):
                try:
                    return self._advance(action)
                except AccountMissing:
                    # the CA forgot it, or knows its key by another URL
                    self._accounts.lost(directory, action.pending.account_url)
                    raise

    def _advance(self, action: AdvanceOrder) -> Progress:
        name = action.certificate
        journal, pending = self._journals.current(name, action.pending)
        key = self._pending_key(name, journal, pending)
        csr = self._cluster.store.pending_csr(name)
        if csr is None:
            raise self._lost(name, journal, pending, "its signing request")
        issuer = self._issuer(action)
        ca = self._accounts.session(issuer, pending.account_url)
        order: OrderInfo | None = None
        if pending.url is None:
            if action.finish_only:
                self._journals.save(name, replace(journal, pending=None))
                return Progress()
            placed = self._place(name, ca, issuer, journal, pending)
            if isinstance(placed, Progress):
                return placed
            journal, pending, order = placed
        assert pending.url is not None  # noqa: S101 - it was just recorded
        url = pending.url
        if action.finish_only and not (spent := self._is_spent(ca, url)):
            if spent is None:
                journal = self._journals.counted(journal, pending)
            self._end(name, ca, pending)
            self._journals.save(name, replace(journal, pending=None))
            return Progress()

        def finalizing() -> None:
            nonlocal journal, pending
            if not pending.finalizing:
                pending = replace(pending, finalizing=True)
                kept = replace(journal, pending=pending)
                journal = self._journals.save(name, kept, keep_key=True)

        try:
            outcome = advance(
                ca,
                url,
                csr,
                # one that left the configuration has no solver; its order is only awaited
                challenge_type=self._challenges.kind(name),
                present=lambda challenges: self._challenges.present(name, url, challenges),
                sleep=self._following.sleep_at(self._authorities, pending.directory),
                patience=self._following.patience,
                now=self._following.clock,
                order=order,
                answered=url in self._answered,
                finalizing=finalizing,
            )
        except SolverNotReady as error:
            if self._following.clock() >= self._deadline(pending):
                raise self._give_up(name, ca, journal, pending, str(error)) from error
            return not_ready(error, self._following.clock())
        match outcome:
            case Issued(chain=chain, certificate_url=certificate_url):
                self._answered.discard(url)
                pending = replace(pending, certificate_url=certificate_url)
                return self._store(name, journal, pending, key, chain)
            case Unfinished(what=what, retry_after=retry_after, answered=answered):
                if answered:
                    self._answered.add(url)
                if self._following.clock() >= self._deadline(pending):
                    raise self._give_up(name, ca, journal, pending, what)
                return Progress(retry_after=retry_after, what=what)
            case Failed(message=message, names=names, kind=kind):
                self._end(name, ca, pending, others_pending=len(pending.names) > 1)
                raise self._journals.fail(name, journal, message, names, kind)
            case Validated():
                raise AssertionError("no rehearsal was asked for")

    def _place(
        self,
        name: str,
        ca: CertificateAuthority,
        issuer: IssuerSpec,
        journal: Journal,
        pending: PendingOrder,
    ) -> tuple[Journal, PendingOrder, OrderInfo] | Progress:
        """Ask for the order, and write what it is to be known by."""
        staged_at = self._begun(pending)
        if pending.not_after is not None:  # as long a life as was asked for
            later = staged_at - pending.staged_at
            pending = replace(pending, not_after=pending.not_after + later)
        wish = Wish(
            pending.names,
            pending.profile,
            issuer.profile_required,
            pending.replaces,
            pending.not_after,
        )

        def say(note: str) -> None:
            logger().info("order_without", certificate=name, directory=pending.directory, why=note)

        placed = self._authorities.limits.ask(
            pending.directory,
            pending.account_url,
            lambda: self._server_errors.place(ca, name, wish, say),
            exempt=pending.replaces is not None,  # Let's Encrypt does not count renewals
        )
        order = placed.order
        with self._handouts.noting(name, order.url) as ours:
            if not ours:
                what = "the CA hands out an order that another certificate works on"
                return Progress(retry_after=self._policy.back_off[0], what=what)
            pending = replace(
                pending,
                staged_at=staged_at,
                url=order.url,
                expires=order.expires,
                profile_got=placed.profile,
                replaces=placed.replaces,
                not_after=placed.not_after,
                finalizing=order.status == "ready",
            )
            journal = self._journals.save(name, replace(journal, pending=pending), keep_key=True)
        # from here on this process knows all that is presented for it
        self._challenges.begin(order.url)
        return journal, pending, order

    def _issuer(self, action: AdvanceOrder) -> IssuerSpec:
        """The certificate's own: several issuers may be one CA, with other profiles and chains."""
        directory = action.pending.directory
        own = issuer_at(action.spec, directory) if action.spec is not None else None
        return own or self._authorities.issuer(directory)

    def _begun(self, pending: PendingOrder) -> datetime:
        """One that lay in the Journal while no process ran has its time from now on."""
        now = self._following.clock()
        old = now - pending.staged_at > self._policy.order_limit_open / 24
        return now if old else pending.staged_at

    def _is_spent(self, ca: CertificateAuthority, url: str) -> bool | None:
        """Say whether the CA has begun to sign it; None where it does not tell us any more."""
        try:
            order = ca.order(url)
        except PermanentError:
            return None
        return order.certificate is not None or order.status in ("processing", "valid")

    def _deadline(self, pending: PendingOrder) -> datetime:
        end = pending.staged_at + self._policy.order_limit_open
        return min(end, pending.expires) if pending.expires is not None else end

    def _give_up(
        self,
        name: str,
        ca: CertificateAuthority,
        journal: Journal,
        pending: PendingOrder,
        what: str,
    ) -> CertbatonError:
        if pending.committed:  # it may be signed yet, and nobody will look
            journal = self._journals.counted(journal, pending)
        self._end(name, ca, pending)
        since = f"{pending.staged_at:%FT%TZ}"
        return self._journals.fail(name, journal, f"nothing came of it since {since}: {what}")

    # --- ending -------------------------------------------------------------------------

    def drop(self, action: DropOrder) -> timedelta | None:
        """
        Take an order that was never finalized out of the Journal, and away from the CA.

        What the CA does not answer to is left there to expire. Gives when to ask again where
        there is no slot.
        """
        name = action.certificate
        journal, pending = self._journals.current(name, action.pending)
        directory = pending.directory
        with self._authorities.orders.taken(directory, name, begun=True) as wait:
            if wait is not None:
                return wait
            if pending.url is not None:
                issuer = self._authorities.issuer(directory)
                away = self._authorities.outages.is_away(directory)
                try:
                    ca = self._accounts.session(issuer, pending.account_url)
                except PermanentError:  # there is no account any more
                    ca, away = None, True
                self._end(name, ca, pending, asking=not away)
        self._journals.save(name, replace(journal, pending=None))
        return None

    def close(self, action: CloseOrder) -> None:
        """Clean the challenges, then take the order out of the Journal; its record stays."""
        name = action.certificate
        journal, pending = self._journals.current(name, action.pending)
        self._clean_up(name, pending)
        if action.version is not None:
            journal = self._journals.counted(journal, pending)
        self._journals.save(
            name,
            replace(
                journal,
                pending=None,
                failures={},
                last_version=action.version or journal.last_version,
            ),
        )

    # --- pieces -------------------------------------------------------------------------

    def _pending_key(self, name: str, journal: Journal, pending: PendingOrder) -> pki.PrivateKey:
        key = self._cluster.store.pending_key(name)
        if key is None or self._cluster.store.account_key(pending.directory) is None:
            raise self._lost(name, journal, pending, "its key, or the account's,")
        return key

    def _lost(
        self, name: str, journal: Journal, pending: PendingOrder, what: str
    ) -> CertbatonError:
        if pending.url is not None:  # it may be signed by now, and nobody can tell
            journal = self._journals.counted(journal, pending)
        return self._journals.fail(name, journal, f"{what} is gone from the cluster")

    def _end(
        self,
        name: str,
        ca: CertificateAuthority | None,
        pending: PendingOrder,
        *,
        asking: bool = True,
        others_pending: bool = True,
    ) -> None:
        """Clean up after an order that comes to nothing, here and as far as the CA answers."""
        self._clean_up(name, pending, asking=asking)
        if pending.url is None or ca is None or not asking or not others_pending:
            return
        self._answered.discard(pending.url)
        try:
            abandon(ca, pending.url)
        except Conflict:
            raise
        except CertbatonError as error:
            logger().info("order_not_abandoned", certificate=name, why=str(error))

    def _clean_up(self, name: str, pending: PendingOrder, *, asking: bool = True) -> None:
        url = pending.url

        def derive(kind: str) -> list[ChallengeInfo]:
            if url is None or self._cluster.store.account_key(pending.directory) is None:
                return []
            issuer = self._authorities.issuer(pending.directory)
            return challenges_of(self._accounts.session(issuer, pending.account_url), url, kind)

        self._challenges.clean_up(name, url, derive, asking=asking)

    def _clean_up_early(self, name: str, pending: PendingOrder) -> None:
        """Clean up while the order stays open; what fails is tried again when it is closed."""
        try:
            self._clean_up(name, pending)
        except RetryableError as error:
            logger().info("challenges_left_for_now", certificate=name, why=str(error))
        else:
            if pending.url is not None:
                self._challenges.begin(pending.url)

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
            now = self._following.clock()
            pki.check_bundle(chain, key, pending.names, KeyType(pending.key_type), now)
        except PermanentError as error:
            self._clean_up(name, pending)
            # it is spent at the CA, so it counts
            journal = self._journals.counted(journal, pending)
            raise self._journals.fail(name, journal, str(error)) from error
        try:
            version = self._cluster.store.create_version(
                name,
                chain,
                key,
                directory=pending.directory,
                account_url=pending.account_url,
                certificate_url=pending.certificate_url or "",
                order_url=pending.url,
                profile=pending.profile,
                profile_got=pending.profile_got,
            )
        except (ClusterUnavailable, PermanentError) as error:
            if pending.chain is None:
                # the order may be gone from the CA when writing works again
                kept = replace(pending, chain=chain)
                self._journals.save(name, replace(journal, pending=kept), keep_key=True)
            # as long as this process lives, or the CA tells, it is known what to take away
            self._clean_up_early(name, pending)
            if isinstance(error, PermanentError):
                raise NotStored(str(error)) from error
            raise
        return Progress(version=version)
