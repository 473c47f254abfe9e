"""
Drive one order from any state to its certificate (RFC 8555 section 7.1.6).

::

    pending ──answer challenges──► ready ──finalize──► processing ──► valid ──► download
       └────────────────────────► invalid ◄────────────────┘

It keeps nothing: each call asks the CA where the order stands and goes on from
there, so that a crash costs one request. The order is polled and not its
authorizations, since it is the order that says when to finalize, and one
request then does for any number of names. It knows no HTTP: the CA is a
``CertificateAuthority``, ``session.Session`` or a fake.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol, TypeAlias

from certbaton.ca.problems import (
    CsrRefused,
    ResourceGone,
    advised,
    kind_of_problem,
    shortened,
)
from certbaton.errors import AccountMissing, AccountRefused, PermanentError
from certbaton.model import (
    AuthorizationInfo,
    ChallengeInfo,
    DirectoryInfo,
    ExternalAccountKey,
    FailureKind,
    OrderInfo,
    RenewalAnswer,
)
from certbaton.names import both_forms
from certbaton.pki import PrivateKey

# Each look is a request, and a CA counts them: one should do for the validation and one for the
# signing. A CA far away, which looks from several places, takes some twenty times as long for it
# as for an answer; one on this machine is done at once.
ANSWERS: Final = 20
POLL_FIRST: Final = timedelta(seconds=0.25)
POLL_SECOND: Final = timedelta(seconds=2)
POLL_CEILING: Final = timedelta(seconds=5)
# Where the CA names a time, it doesn't mind to be asked then.
POLL_FACTOR: Final = 1.6
# ZeroSSL asks for a day while an order is processed, and is done in seconds.
RETRY_AFTER_CEILING: Final = timedelta(minutes=10)
# Whoever has waited for so long that a caller lost patience needn't be asked every few seconds.
REST: Final = timedelta(minutes=1)


class CertificateAuthority(Protocol):
    """One account at one CA; ``session.Session`` says what each call does and raises."""

    def directory(self) -> DirectoryInfo: ...
    def new_account(self, external: ExternalAccountKey | None = None) -> str: ...
    def find_account(self) -> str: ...
    def new_order(
        self,
        names: Sequence[str],
        profile: str | None = None,
        *,
        replaces: str | None = None,
        not_after: datetime | None = None,
    ) -> OrderInfo: ...
    def order(self, url: str) -> OrderInfo: ...
    def authorization(self, url: str) -> AuthorizationInfo: ...
    def answer(self, challenge: ChallengeInfo) -> None: ...
    def finalize(self, order: OrderInfo, csr_pem: str) -> OrderInfo: ...
    def download(self, certificate_url: str) -> str: ...
    def deactivate_authorization(self, url: str) -> None: ...
    def renewal_info(self, ari_id: str) -> RenewalAnswer: ...
    def change_key(self, new_key: PrivateKey) -> None: ...
    def deactivate_account(self) -> None: ...
    def revoke(
        self, certificate_pem: str, reason: str, certificate_key: PrivateKey | None = None
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Issued:
    """The CA has issued: *chain* is PEM as it came, not looked at (``pki.check_bundle``)."""

    chain: str
    certificate_url: str


@dataclass(frozen=True, slots=True)
class Unfinished:
    """
    *what* is being waited for, and how long the next look should be away.

    *answered* says that nothing is left to do but to look: see `advance`.
    """

    what: str
    retry_after: timedelta
    answered: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """
    This order will never give a certificate; a new one may.

    *message* is one sentence with the CA's words for each name, and what a person should do.
    *names* are those whose validation failed, sorted: what the CA counts against us.
    """

    message: str
    names: tuple[str, ...] = ()
    kind: FailureKind = FailureKind.OTHER


@dataclass(frozen=True, slots=True)
class Validated:
    """All names are validated, and nothing was finalized: what a rehearsal ends in."""


Outcome: TypeAlias = Issued | Unfinished | Failed | Validated


def advance(
    ca: CertificateAuthority,
    url: str,
    csr_pem: str,
    *,
    challenge_type: str,
    present: Callable[[Sequence[ChallengeInfo]], None],
    sleep: Callable[[float], bool],
    patience: timedelta,
    now: Callable[[], datetime],
    order: OrderInfo | None = None,
    finalizing: Callable[[], None] = lambda: None,
    rehearsal: bool = False,
    answered: bool = False,
) -> Outcome:
    """
    Bring the order at *url* as far as it gets within *patience*; without any it looks once.

    *present* gets the challenges that must be in place, again on each call; it returns when the
    CA may look, or raises SolverNotReady. *sleep* takes seconds and returns False if it was
    interrupted. *now* is any aware clock. *order* is newOrder's answer, which saves a request.
    *answered* is an earlier Unfinished's: the authorizations are not read again, which saves one
    for each name, and patience begins anew only when the CA has moved on. Whenever the order
    carries a certificate it is downloaded, whatever its status. *finalizing* is called before
    each finalize is sent: the intent is to be written then. A *rehearsal* ends where it would be
    finalized.

    On a poll Retry-After is the least that is waited, up to ten minutes; what asks for more is
    looked at every ten minutes, by who calls again.

    Raises what *present* and the calls of *ca* raise, other than a resource that is gone and a
    CSR that is refused for good: those are Failed. A certificate that the order names and that
    isn't there yet is waited for: it was signed, and a new order would be a second one.
    """
    resumed = answered
    end = now() if resumed else now() + patience
    pace = _Pace(now)
    try:
        with pace.timing() if order is None else contextlib.nullcontext():
            info = order or ca.order(url)
        while True:
            if rehearsal and info.status in _VALIDATED:
                return Validated()
            if info.certificate is None and info.status == "ready":
                finalizing()
                with pace.timing():
                    info = ca.finalize(info, csr_pem)
                if resumed:
                    end = now() + patience
            if info.certificate is not None:
                with contextlib.suppress(ResourceGone):
                    return Issued(ca.download(info.certificate), info.certificate)
            elif info.status in _OVER:
                return _failure(ca, info)
            elif info.status == "pending" and not answered:
                failed = _answer(ca, info, challenge_type, present, pace)
                if failed is not None:
                    return failed
                answered = True
            wait = pace.wait(info)
            what = f"the order is {info.status or 'without a status'} at the CA"
            answered = answered or info.status in _VALIDATED
            if now() + wait > end:
                return Unfinished(what, max(wait, REST), answered)
            if not sleep(wait.total_seconds()):
                return Unfinished(what, wait, answered)
            with pace.timing():
                info = ca.order(url)
    except (ResourceGone, CsrRefused) as error:
        return Failed(str(error))


class _Pace:
    """How long to wait for an order until it is looked at again."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._status, self._looks = "", 0
        self._answers: list[timedelta] = []

    @contextlib.contextmanager
    def timing(self) -> Iterator[None]:
        """
        Note how long the CA takes to answer one request.

        The fastest tells how far away it is; what else took longer had to wait for its turn.
        """
        began = self._now()
        yield
        self._answers.append(self._now() - began)

    def wait(self, info: OrderInfo) -> timedelta:
        """Give the time from now to the next look at the order, which is like *info*."""
        if info.status != self._status:
            # Signing is another wait than validating, and begins short again.
            self._status, self._looks = info.status, 0
        looks, self._looks = self._looks, self._looks + 1
        if info.retry_after is not None:
            grown = POLL_FIRST * POLL_FACTOR ** min(looks, 10)
            return max(min(info.retry_after, RETRY_AFTER_CEILING), min(grown, POLL_CEILING))
        first = ANSWERS * min(self._answers, default=timedelta(0))
        first = min(max(first, POLL_FIRST), POLL_CEILING)
        return (first, max(first, POLL_SECOND), POLL_CEILING)[min(looks, 2)]


def abandon(ca: CertificateAuthority, url: str, *, validated: bool = False) -> None:
    """
    Deactivate the pending authorizations of the order at *url*, so that the CA forgets them.

    One request, and up to two for each name; none but the first where the order is past being
    validated. With *validated* those that are valid go as well: the next order there is then a
    new one, and looks again. What is gone or decided there is passed over (section 7.5.2).
    Raises what the CA's calls raise besides.
    """
    try:
        info = ca.order(url)
    except ResourceGone:
        return
    if info.status in _VALIDATED and not validated:
        return
    for authorization in _authorizations(ca, info):
        if authorization.status == "pending" or (validated and authorization.status == "valid"):
            try:
                ca.deactivate_authorization(authorization.url)
            except (AccountMissing, AccountRefused):
                raise
            except PermanentError:
                continue


def challenges_of(ca: CertificateAuthority, url: str, challenge_type: str) -> list[ChallengeInfo]:
    """
    All challenges of *challenge_type* of the order at *url*, whatever their status.

    For cleaning up what an earlier process presented. What is gone at the CA is left out: an
    order that is gone has none. One request, and one for each name.
    """
    try:
        info = ca.order(url)
    except ResourceGone:
        return []
    return [
        challenge
        for authorization in _authorizations(ca, info)
        for challenge in authorization.challenges
        if challenge.type == challenge_type and challenge.value
    ]


_VALIDATED: Final = ("ready", "processing", "valid")
# "expired" and the rest are authorizations' words, but CAs have mixed them up.
_OVER: Final = ("invalid", "expired", "deactivated", "revoked")


def _authorizations(ca: CertificateAuthority, info: OrderInfo) -> Iterator[AuthorizationInfo]:
    for url in info.authorizations:
        try:
            yield ca.authorization(url)
        except ResourceGone:
            continue


def _answer(
    ca: CertificateAuthority,
    info: OrderInfo,
    challenge_type: str,
    present: Callable[[Sequence[ChallengeInfo]], None],
    pace: _Pace,
) -> Failed | None:
    authorizations: list[AuthorizationInfo] = []
    for url in info.authorizations:
        with pace.timing():
            authorizations.append(ca.authorization(url))
    over = [each for each in authorizations if each.status in _OVER]
    if over:
        return _refused(info, over)
    wanted: list[ChallengeInfo] = []
    for authorization in authorizations:
        if authorization.status == "valid":
            continue
        challenge = _pick(authorization, challenge_type)
        if challenge is None:
            offered = ", ".join(sorted({each.type for each in authorization.challenges}))
            return Failed(
                f"the CA offers no {challenge_type} for {both_forms(_shown(authorization))}, "
                f"only {offered or 'nothing'}"
            )
        wanted.append(challenge)
    if wanted:
        present(wanted)
    # "processing" was answered by an earlier call: the CA is looking, let it.
    for challenge in wanted:
        if challenge.status == "pending":
            with pace.timing():
                ca.answer(challenge)
    return None


def _pick(authorization: AuthorizationInfo, challenge_type: str) -> ChallengeInfo | None:
    for challenge in authorization.challenges:
        if challenge.type == challenge_type and challenge.value:
            return challenge
    return None


def _failure(ca: CertificateAuthority, info: OrderInfo) -> Failed:
    over = [each for each in _authorizations(ca, info) if each.status in _OVER]
    return _refused(info, over)


def _refused(info: OrderInfo, over: Sequence[AuthorizationInfo]) -> Failed:
    invalid = [each for each in over if each.status == "invalid"]
    names = tuple(sorted({_shown(each) for each in invalid}))
    if over:
        words = [
            f"{both_forms(_shown(each))}: {each.error or 'its authorization is ' + each.status}"
            for each in sorted(over, key=_shown)
        ]
        request, problems = "validation", [each.problem for each in invalid]
    else:
        words = [info.error or f"the order is {info.status}, and the CA gives no reason"]
        request, problems = "issuance", [info.problem]
    kinds = {kind_of_problem(request, each) for each in problems}
    return Failed(
        advised(f"the CA will not issue: {shortened('; '.join(words))}", request, *problems),
        names,
        next((kind for kind in _GRAVEST_FIRST if kind in kinds), FailureKind.OTHER),
    )


# Of several names' failures the one that says most about what comes next.
_GRAVEST_FIRST: Final = (
    FailureKind.ACCOUNT,
    FailureKind.CAA,
    FailureKind.LIMIT,
    FailureKind.VALIDATION,
    FailureKind.OUTAGE,
)


def _shown(authorization: AuthorizationInfo) -> str:
    return f"*.{authorization.name}" if authorization.wildcard else authorization.name
