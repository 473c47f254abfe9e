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

from certbaton.ca.problems import CsrRefused, ResourceGone
from certbaton.model import (
    AuthorizationInfo,
    ChallengeInfo,
    DirectoryInfo,
    ExternalAccountKey,
    FailureKind,
    OrderInfo,
    RenewalAnswer,
)
from certbaton.pki import PrivateKey

POLL_FIRST: Final = timedelta(seconds=0.25)
POLL_FACTOR: Final = 1.6
POLL_CEILING: Final = timedelta(seconds=5)
# ZeroSSL asks for a day while an order is processed, and is done in seconds.
RETRY_AFTER_CEILING: Final = timedelta(minutes=10)


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
    """*what* is being waited for, and how long the next look should be away."""

    what: str
    retry_after: timedelta


@dataclass(frozen=True, slots=True)
class Failed:
    """
    This order will never give a certificate; a new one may.

    *message* is one sentence with the CA's words. *names* are those whose validation failed,
    sorted: what the CA counts against us.
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
) -> Outcome:
    """
    Bring the order at *url* as far as it gets within *patience*.

    *present* gets the challenges that must be in place, again on each call; it returns when the
    CA may look, or raises SolverNotReady. *sleep* takes seconds and returns False if it was
    interrupted. *now* is any aware clock. *order* is newOrder's answer, which saves a request.
    Whenever the order carries a certificate it is downloaded, whatever its status. *finalizing*
    is called before each finalize is sent: the intent is to be written then. A *rehearsal* ends
    where it would be finalized.

    Raises what *present* and the calls of *ca* raise, other than a resource that is gone and a
    CSR that is refused for good: those are Failed.
    """
    end = now() + patience
    delay = POLL_FIRST
    answered = False
    try:
        info = order if order is not None else ca.order(url)
        while True:
            if rehearsal and info.status in ("ready", "processing", "valid"):
                return Validated()
            if info.certificate is None and info.status == "ready":
                finalizing()
                info = ca.finalize(info, csr_pem)
            if info.certificate is not None:
                return Issued(ca.download(info.certificate), info.certificate)
            if info.status in _OVER:
                return _failure(ca, info)
            if info.status == "pending" and not answered:
                failed = _answer(ca, info, challenge_type, present)
                if failed is not None:
                    return failed
                answered = True
            wait = max(delay, min(info.retry_after or timedelta(0), RETRY_AFTER_CEILING))
            what = f"the order is {info.status or 'without a status'} at the CA"
            if now() + wait > end or not sleep(wait.total_seconds()):
                return Unfinished(what, wait)
            before, info = info.status, ca.order(url)
            # Signing is another wait than validating, and begins short again.
            changed = info.status != before
            delay = POLL_FIRST if changed else min(delay * POLL_FACTOR, POLL_CEILING)
    except (ResourceGone, CsrRefused) as error:
        return Failed(str(error))


def abandon(ca: CertificateAuthority, url: str) -> None:
    """
    Deactivate the pending authorizations of the order at *url*, so that the CA forgets them.

    Raises what the CA's calls raise; what is gone there is passed over (section 7.5.2).
    """
    try:
        info = ca.order(url)
    except ResourceGone:
        return
    for authorization in _authorizations(ca, info):
        if authorization.status == "pending":
            with contextlib.suppress(ResourceGone):
                ca.deactivate_authorization(authorization.url)


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
) -> Failed | None:
    authorizations = [ca.authorization(url) for url in info.authorizations]
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
                f"the CA offers no {challenge_type} for {_shown(authorization)}, "
                f"only {offered or 'nothing'}"
            )
        wanted.append(challenge)
    if wanted:
        present(wanted)
    for challenge in wanted:
        # "processing" was answered by an earlier call: the CA is looking, let it.
        if challenge.status == "pending":
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
    words = [
        f"{_shown(each)}: {each.error or 'its authorization is ' + each.status}"
        for each in sorted(over, key=_shown)
    ]
    if not words:
        words = [info.error or f"the order is {info.status}, and the CA gives no reason"]
    names = {_shown(each) for each in over if each.status == "invalid"}
    kind = FailureKind.VALIDATION if names else FailureKind.OTHER
    return Failed(f"the CA will not issue: {'; '.join(words)}", tuple(sorted(names)), kind)


def _shown(authorization: AuthorizationInfo) -> str:
    return f"*.{authorization.name}" if authorization.wildcard else authorization.name
