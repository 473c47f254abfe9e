"""
What others say of a certificate: its CA's renewal information, and CAA records in DNS.

Both are advice. Nothing here holds anything up, or counts against a CA or a certificate.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from certbaton import caa
from certbaton.accounts import Accounts
from certbaton.authorities import Authorities
from certbaton.ca.order import CertificateAuthority
from certbaton.challenges import Challenges
from certbaton.cluster import Cluster
from certbaton.core.advice import poll_pause, trouble_pause
from certbaton.errors import (
    CaUnavailable,
    CertbatonError,
    ClusterUnavailable,
    Conflict,
    PermanentError,
    RetryableError,
)
from certbaton.model import (
    AdvanceOrder,
    CertificateSpec,
    CheckRenewalInfo,
    FailureKind,
    IssuerSpec,
    ObjectRef,
    Policy,
    Rehearse,
    RenewalAnswer,
    RenewalCheck,
    RenewalInfo,
    StageOrder,
)
from certbaton.telemetry import logger
from certbaton.wellknown import known_at

LookUpCaa = Callable[[Sequence[str], Sequence[str], str | None, str | None], caa.Advice]


@dataclass(frozen=True, slots=True)
class Advised:
    """
    What a look came to: *retry_after* without a slot, *noted* where the window is another one.

    *news* is a sentence for people.
    """

    retry_after: timedelta | None = None
    noted: bool = False
    news: str = ""


class RenewalAdvice:
    """Renewal information (RFC 9773), asked for and noted on the versions that it is of."""

    def __init__(
        self,
        cluster: Cluster,
        authorities: Authorities,
        accounts: Accounts,
        *,
        policy: Policy,
        clock: Callable[[], datetime],
    ) -> None:
        self._cluster = cluster
        self._authorities = authorities
        self._accounts = accounts
        self._policy = policy
        self._clock = clock
        self._lock = threading.Lock()
        self._checks: dict[ObjectRef, RenewalCheck] = {}

    def checks(self) -> Mapping[ObjectRef, RenewalCheck]:
        """When each version is next asked for; those that this process has not asked for miss."""
        with self._lock:
            return dict(self._checks)

    def check(self, action: CheckRenewalInfo) -> Advised:
        """
        Ask the CA of a version when it is to be renewed, and note that on the version if it is new.

        Whatever the CA does only decides when it is asked again. Raises what the cluster's calls
        raise.
        """
        version, issuer = action.version, action.issuer
        leaf = version.leaf
        if leaf is None or leaf.ari_id is None:
            return Advised()
        with self._authorities.checks.taken(issuer.directory, str(version.ref)) as wait:
            if wait is not None:
                return Advised(retry_after=wait)
            account = self._cluster.store.account(issuer.directory)
            try:
                ca = self._accounts.session(issuer, account.url if account else None)
                if "renewalInfo" not in ca.directory().resources:
                    raise PermanentError(f"the CA at {issuer.directory} has none")
                answer = ca.renewal_info(leaf.ari_id)
            except (Conflict, ClusterUnavailable):
                raise
            except CertbatonError as error:
                self._trouble(action, error, leaf.lifetime)
                return Advised()
        if answer.end <= answer.start:
            self._trouble(action, None, leaf.lifetime)
            return Advised()
        advised = self._note(action, answer)
        pause = poll_pause(answer.retry_after, leaf.lifetime, self._policy)
        self._next(version.ref, RenewalCheck(self._clock() + pause))
        return advised

    def _note(self, action: CheckRenewalInfo, answer: RenewalAnswer) -> Advised:
        """Write the window where it is another one."""
        version, before = action.version, action.version.renewal_info
        info = RenewalInfo(answer.start, answer.end, answer.explanation_url, self._clock())
        if before is not None and replace(before, fetched_at=info.fetched_at) == info:
            return Advised()
        self._cluster.store.annotate(version, renewal_info=info)
        window = f"{info.start:%FT%TZ} to {info.end:%FT%TZ}"
        logger().info(
            "renewal_info",
            certificate=action.certificate,
            version=str(version.ref),
            window=window,
            explanation=info.explanation_url,
        )
        url = info.explanation_url
        if not url or (before is not None and before.explanation_url == url):
            return Advised(noted=True)
        return Advised(
            noted=True,
            news=f"the CA asks for Secret {version.ref} to be renewed within {window}, and "
            f"explains why: {url}",
        )

    def _trouble(
        self, action: CheckRenewalInfo, error: CertbatonError | None, lifetime: timedelta
    ) -> None:
        """Note that a look was of no use; *error* None: the window ends before it starts."""
        ref, now = action.version.ref, self._clock()
        words = str(error) if error else "the CA's window ends before it starts"
        with self._lock:
            before = self._checks.get(ref)
        count = (before.count if before else 0) + 1
        pause = trouble_pause(
            count, lifetime, self._policy, temporary=isinstance(error, CaUnavailable)
        )
        named = error.retry_at if isinstance(error, RetryableError) else None
        at = max(now + pause, named) if named is not None else now + pause
        self._next(ref, RenewalCheck(at, words, count))
        if before is None or before.trouble != words:
            logger().info(
                "no_renewal_info", certificate=action.certificate, version=str(ref), why=words
            )

    def _next(self, ref: ObjectRef, check: RenewalCheck) -> None:
        there = {version.ref for version in self._cluster.store.versions()}
        with self._lock:
            self._checks[ref] = check
            for gone in [each for each in self._checks if each not in there and each != ref]:
                del self._checks[gone]


class CaaAdvice:
    """What CAA records hold against an order, told before the CA would say so."""

    def __init__(
        self,
        cluster: Cluster,
        accounts: Accounts,
        challenges: Challenges,
        look_up: LookUpCaa,
    ) -> None:
        self._cluster = cluster
        self._accounts = accounts
        self._challenges = challenges
        self._look_up = look_up

    def before(self, action: StageOrder | AdvanceOrder) -> tuple[str, ...]:
        """Give sentences on an order: on a first one, and on one after a ``caa`` failure."""
        if isinstance(action, AdvanceOrder):
            spec, directory = action.spec, action.pending.directory
            issuers = {each.directory: each for each in spec.issuers} if spec else {}
            issuer = issuers.get(directory)
            if action.pending.url is not None or not self._is_forbidden(action, directory):
                return ()
        else:
            spec, issuer = action.spec, action.issuer or action.spec.issuer
            # what was forbidden is looked at when it is placed
            directory = issuer.directory
            if self._has_issued(spec, directory) or self._is_forbidden(action, directory):
                return ()
        return self._ask(spec, issuer, None).sentences if spec and issuer else ()

    def _has_issued(self, spec: CertificateSpec, directory: str) -> bool:
        """Say whether a certificate is there of that CA's with all names of today."""
        return any(
            version.directory == directory
            and version.leaf is not None
            and set(spec.names) <= set(version.leaf.names)
            for version in self._cluster.store.versions(spec.name)
        )

    def _is_forbidden(self, action: StageOrder | AdvanceOrder, directory: str) -> bool:
        journal = self._cluster.store.journal(action.certificate)
        failure = journal.failures.get(directory) if journal else None
        return failure is not None and failure.kind is FailureKind.CAA

    def pins(self, action: Rehearse, ca: CertificateAuthority) -> bool:
        """Say whether a rehearsal's ``caa`` says nothing of the real CA: records pin accounts."""
        advice = self._ask(action.spec, action.issuer, ca)
        return advice.pinned or not advice.complete

    def _ask(
        self, spec: CertificateSpec, issuer: IssuerSpec, ca: CertificateAuthority | None
    ) -> caa.Advice:
        account = self._cluster.store.account(issuer.directory)
        url = account.url if account else None
        try:
            ca = ca or self._accounts.session(issuer, url)
            identities = ca.directory().caa_identities
        except CertbatonError:
            identities = ()
        return self._look_up(
            spec.names,
            identities or (known.caa if (known := known_at(issuer.directory)) else ()),
            url,
            self._challenges.kind(spec.name) or None,
        )
