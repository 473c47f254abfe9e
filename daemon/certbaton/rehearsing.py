"""
Rehearsals: trial orders that end where they would be finalized.

Their state is the Journal's ``rehearsal`` alone, and nothing that comes of one is a Secret. What
a rehearsal cannot tell never keeps production waiting: it is skipped.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace

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
from certbaton.challenges import CLEAN_UP_TRIES, Challenges
from certbaton.cluster import Cluster
from certbaton.core.limits import failed_rehearsal
from certbaton.core.renewal import share
from certbaton.errors import (
    AccountMissing,
    CertbatonError,
    ClusterUnavailable,
    Conflict,
    RetryableError,
    SolverNotReady,
)
from certbaton.following import Following, Progress, no_slot, not_ready
from certbaton.journals import Journals
from certbaton.model import (
    ChallengeInfo,
    FailureKind,
    Journal,
    OrderInfo,
    Outcome,
    Policy,
    Rehearsal,
    Rehearse,
)
from certbaton.telemetry import logger

Pins = Callable[[Rehearse, CertificateAuthority], bool]


class Rehearsals:
    """One rehearsal at a time of each certificate."""

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
        pins: Pins,
    ) -> None:
        """*pins* says whether CAA records may be open to our account at the real CA only."""
        self._cluster = cluster
        self._authorities = authorities
        self._accounts = accounts
        self._challenges = challenges
        self._journals = journals
        self._policy = policy
        self._following = following
        self._pins = pins
        self._server_errors = ServerErrors()
        self._answered: set[str] = set()

    def rehearse(self, action: Rehearse) -> Progress:
        """
        Bring the rehearsal as far as it gets; *what* tells how one ended that failed.

        Raises Conflict, and what the cluster's calls raise. Trouble with the CA is none of the
        certificate's: the rehearsal is skipped then.
        """
        name, directory = action.certificate, action.issuer.directory
        with self._authorities.orders.taken(directory, name) as wait:
            if wait is not None:
                return Progress(retry_after=wait, what=no_slot(directory))
            self._take_back(action)
            if action.ends:
                return Progress()
            lifetime = self._journals.lifetime(name)
            with self._authorities.outages.trying(directory, name, lifetime):
                journal = self._journals.written(name)
                rehearsal = self._begun(action, journal)
                try:
                    return self._follow(action, journal, rehearsal)
                except (Conflict, ClusterUnavailable):
                    raise
                except CertbatonError as error:
                    if isinstance(error, AccountMissing):
                        self._forgotten(directory, rehearsal.account_url)
                    # what was begun meanwhile is in the Journal
                    journal = self._journals.written(name)
                    begun = journal.rehearsal
                    if begun is not None and begun.outcome is Outcome.OPEN:
                        rehearsal = replace(begun, asked=rehearsal.asked)
                    return self._skipped(action, journal, rehearsal, str(error))

    def _begun(self, action: Rehearse, journal: Journal) -> Rehearsal:
        """The one that is open, or a new one, which counts on from those that failed."""
        spec, last = action.spec, journal.rehearsal
        account = self._cluster.store.account(action.issuer.directory)
        if account is None or account.url is None:
            raise Conflict("the account is gone")
        same = (
            last is not None
            and last.directory == action.issuer.directory
            and last.names == spec.names
        )
        if last is not None and last.outcome is Outcome.OPEN:  # else it was taken back
            return replace(last, asked=action.asked or last.asked)
        failed = last is not None and same and last.outcome is Outcome.FAILED
        return Rehearsal(
            action.issuer.directory,
            self._following.clock(),
            names=spec.names,
            account_url=account.url,
            count=last.count if last is not None and failed else 0,
            asked=action.asked,
        )

    def _follow(self, action: Rehearse, journal: Journal, rehearsal: Rehearsal) -> Progress:
        name = action.certificate
        ca = self._accounts.session(action.issuer, rehearsal.account_url)
        order: OrderInfo | None = None
        if rehearsal.url is None:
            wish = Wish(action.spec.names, action.issuer.profile)
            order = self._server_errors.place(ca, name, wish).order
            if self._is_real(order.url):
                why = "its CA hands out an order that is to end in a certificate"
                return self._skipped(action, journal, rehearsal, why)
            rehearsal = replace(rehearsal, url=order.url)
            journal = self._save(name, journal, rehearsal)
            self._challenges.begin(order.url)
        assert rehearsal.url is not None  # noqa: S101 - it was just recorded
        url = rehearsal.url
        try:
            outcome = advance(
                ca,
                url,
                "",
                challenge_type=self._challenges.kind(name),
                present=lambda challenges: self._challenges.present(name, url, challenges),
                sleep=self._following.sleep_at(self._authorities, rehearsal.directory),
                patience=self._following.patience,
                now=self._following.clock,
                order=order,
                answered=url in self._answered,
                rehearsal=True,
            )
        except SolverNotReady as error:
            if self._is_over(name, rehearsal):
                return self._skipped(action, journal, rehearsal, str(error))
            return not_ready(error, self._following.clock())
        match outcome:
            case Validated():
                return self._passed(action, journal, rehearsal)
            case Unfinished(what=what, retry_after=retry_after, answered=answered):
                if answered:
                    self._answered.add(url)
                if self._is_over(name, rehearsal):
                    return self._skipped(action, journal, rehearsal, what)
                return Progress(retry_after=retry_after, what=what)
            case Failed(message=message, kind=kind):
                if self._tells(action, ca, kind):
                    return self._failed(action, journal, rehearsal, message)
                return self._skipped(action, journal, rehearsal, message)
            case Issued():
                raise AssertionError("a rehearsal is never finalized")

    # --- how it ends --------------------------------------------------------------------

    def _tells(self, action: Rehearse, ca: CertificateAuthority, kind: FailureKind) -> bool:
        """Say whether a failure of *kind* would be one at the real CA, too."""
        if kind is FailureKind.CAA:
            return not self._pins(action, ca)
        return kind is FailureKind.VALIDATION

    def _take_back(self, action: Rehearse) -> None:
        """End one that is open and not the one to go on with: its answers may still be up."""
        journal = self._journals.written(action.certificate)
        last = journal.rehearsal
        if last is None or last.outcome is not Outcome.OPEN:
            return
        account = self._cluster.store.account(last.directory)
        ours = last.directory == action.issuer.directory and last.names == action.spec.names
        if ours and not action.ends and account and account.url == last.account_url:
            return
        there = replace(action, issuer=self._authorities.issuer(last.directory))
        if action.asked is not None and not action.ends:
            last = replace(last, asked=None)  # the next one answers
        self._skipped(there, journal, last, "something else is asked for now")

    def _passed(self, action: Rehearse, journal: Journal, rehearsal: Rehearsal) -> Progress:
        ended = replace(
            rehearsal,
            outcome=Outcome.PASSED,
            at=self._following.clock(),
            message="all names are validated",
            count=0,
            retry_at=None,
        )
        self._ended(action, journal, ended)
        return Progress()

    def _skipped(
        self, action: Rehearse, journal: Journal, rehearsal: Rehearsal, why: str
    ) -> Progress:
        ended = replace(rehearsal, outcome=Outcome.SKIPPED, at=self._following.clock(), message=why)
        self._ended(action, journal, ended)
        return Progress()

    def _failed(
        self, action: Rehearse, journal: Journal, rehearsal: Rehearsal, message: str
    ) -> Progress:
        ended = failed_rehearsal(
            rehearsal,
            message,
            action.certificate,
            self._journals.lifetime(action.certificate),
            self._policy,
            self._following.clock(),
        )
        self._ended(action, journal, ended)
        return Progress(what=f"the rehearsal at {action.issuer.name} failed: {message}")

    def _ended(self, action: Rehearse, journal: Journal, ended: Rehearsal) -> None:
        name, url = action.certificate, ended.url
        if url is not None:
            self._answered.discard(url)
            for _ in range(CLEAN_UP_TRIES):  # the last of them leaves what is left, and says so
                with contextlib.suppress(RetryableError):
                    self._clean_up(action, ended, url)
                    break
        self._save(name, journal, ended)
        logger().info(
            "rehearsed",
            certificate=name,
            directory=ended.directory,
            outcome=str(ended.outcome),
            message=ended.message,
        )
        if url is not None:  # last, since an order that is taken back looks as if it had failed
            self._abandon(action, ended, url)

    # --- pieces -------------------------------------------------------------------------

    def _is_real(self, url: str) -> bool:
        journals = self._cluster.store.journals().values()
        return any(each.pending is not None and each.pending.url == url for each in journals)

    def _is_over(self, name: str, rehearsal: Rehearsal) -> bool:
        """Say whether production has waited long enough: no longer than for failures of a CA."""
        limit, lifetime = self._policy.fallback_after, self._journals.lifetime(name)
        if lifetime is not None:
            limit = share(lifetime, self._policy.fallback_share, limit)
        limit = max(limit, self._following.patience)
        return self._following.clock() >= rehearsal.at + limit

    def _abandon(self, action: Rehearse, rehearsal: Rehearsal, url: str) -> None:
        """
        Take back what was validated there, as far as the CA answers.

        Else it would hand the same order out again, or spare the names validation, and the next
        rehearsal would pass whatever has broken since. Nothing is taken back where it may be what
        another order of ours rests on.
        """
        if self._is_shared(rehearsal) or self._authorities.outages.is_away(rehearsal.directory):
            return
        try:
            ca = self._accounts.session(action.issuer, rehearsal.account_url)
            abandon(ca, url, validated=True)
        except (Conflict, ClusterUnavailable):
            raise
        except CertbatonError as error:
            logger().info("order_not_abandoned", certificate=action.certificate, why=str(error))

    def _is_shared(self, rehearsal: Rehearsal) -> bool:
        """Say whether one of its names is in an order, or in a rehearsal, that is open there."""
        names: set[str] = set()
        for journal in self._cluster.store.journals().values():
            pending, other = journal.pending, journal.rehearsal
            if pending is not None and pending.directory == rehearsal.directory:
                names |= set(pending.names)
            if other is not None and other.directory == rehearsal.directory:
                names |= set(other.names) if other.outcome is Outcome.OPEN else set()
        return not names.isdisjoint(rehearsal.names)

    def _clean_up(self, action: Rehearse, rehearsal: Rehearsal, url: str) -> None:
        def derive(kind: str) -> list[ChallengeInfo]:
            ca = self._accounts.session(action.issuer, rehearsal.account_url)
            return challenges_of(ca, url, kind)

        asking = not self._authorities.outages.is_away(rehearsal.directory)
        self._challenges.clean_up(action.certificate, url, derive, asking=asking)

    def _forgotten(self, directory: str, account_url: str) -> None:
        try:
            self._accounts.lost(directory, account_url)
        except (Conflict, ClusterUnavailable):
            raise
        except CertbatonError as error:
            logger().info("account_not_found", directory=directory, why=str(error))

    def _save(self, name: str, journal: Journal, rehearsal: Rehearsal) -> Journal:
        return self._journals.save(name, replace(journal, rehearsal=rehearsal), keep_key=True)
