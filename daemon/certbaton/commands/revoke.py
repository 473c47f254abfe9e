"""
``revoke``: the intent first, then the CA.

The intent on the version (``certbaton.io/revoked``) is what makes the daemon replace it, and
survives whatever happens next. With keyCompromise the CA is told at once: somebody else may be
using the key. For any other reason a certificate that Services still name is not taken from
under its users: it is revoked when they name another one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from certbaton.ca.session import REVOCATION_REASONS
from certbaton.cluster.store import Store
from certbaton.commands.certificates import newest, tell_what_is_in_the_way
from certbaton.commands.desk import EXIT_FAILED, EXIT_OK, EXIT_WAITING, Desk
from certbaton.errors import (
    AccountMissing,
    AccountRefused,
    CertbatonError,
    ConfigurationError,
    PermanentError,
)
from certbaton.model import ObjectRef, Revocation, SecretVersion
from certbaton.pki import PrivateKey

COMPROMISED: Final = "keyCompromise"


@dataclass(frozen=True)
class Request:
    """
    What is to be revoked, and how.

    *secret* names one version; without it, those of *certificate* that are noted for *reason*
    already, or else the newest. *with_certificate_key* signs with the certificate's own key, and
    not the account's. *now* tells the CA although Services still name it; else *patience* is for
    how long to wait until none does.
    """

    certificate: str
    reason: str
    secret: str | None = None
    with_certificate_key: bool = False
    now: bool = False
    patience: timedelta | None = None


def revoke(desk: Desk, request: Request) -> int:
    """Revoke as *request* says; given again, it goes on where it was. Gives the exit code."""
    if request.reason not in REVOCATION_REASONS:
        raise ConfigurationError(
            f"{request.reason!r} is no reason that CAs take; there are "
            f"{', '.join(REVOCATION_REASONS)}",
            where="--reason",
        )
    versions = _chosen(desk, request)
    if not versions:
        desk.say(f"{request.certificate}: no valid certificate is there; nothing is to be revoked.")
        return EXIT_OK
    names = ", ".join(version.ref.name for version in versions)
    if not desk.confirm(f"Revoke {names}, for {request.reason}? It cannot be taken back."):
        desk.say("Nothing was done.")
        return EXIT_FAILED
    for version in versions:
        desk.attempt(partial(_intend, ref=version.ref, request=request, now=desk.clock()))
    spec = next((each for each in desk.specs if each.name == request.certificate), None)
    if spec is not None:
        desk.say(f"{names}: noted; the daemon obtains another certificate, and hands it over.")
        if newest(desk.look().versions(spec.name), desk.clock()) is None:
            tell_what_is_in_the_way(desk, spec)
    else:
        desk.say(
            f"{names}: noted, but {request.certificate} is not configured any more, so nobody "
            "obtains another: point its Services elsewhere."
        )
    if request.reason != COMPROMISED and not request.now and not _let_go(desk, request, versions):
        return EXIT_WAITING
    return _at_the_ca(desk, request, versions)


def _chosen(desk: Desk, request: Request) -> list[SecretVersion]:
    """Those to be revoked; after keyCompromise also all others that have the same key."""
    now = desk.clock()
    found = desk.look().versions(request.certificate)
    if not found:
        desk.certificate(request.certificate)  # a name that is nowhere is a slip
        return []
    valid = [each for each in found if each.leaf is not None and each.leaf.not_after > now]
    if request.secret is not None:
        name = request.secret.rpartition("/")[2]
        chosen = next((each for each in found if each.ref.name == name), None)
        if chosen is None:
            there = ", ".join(each.ref.name for each in found)
            raise ConfigurationError(
                f"{request.certificate} has no version {name!r}; there are {there}",
                where="--secret",
            )
        if chosen not in valid:
            return []
        wanted = [chosen]
    else:
        # Given again, it goes on with what it began: the newest is its successor by now.
        wanted = [each for each in valid if each.revoked and each.revoked.reason == request.reason]
        following = newest(found, now)
        if wanted and following is not None and found.index(following) > found.index(wanted[-1]):
            desk.say(
                f"{', '.join(each.ref.name for each in wanted)}: this goes on with what was noted "
                f"before. {following.ref.name} came after it and stays; --secret "
                f"{following.ref.name} is for that one."
            )
        elif not wanted:
            wanted = [following] if following is not None else valid[-1:]
    if request.reason != COMPROMISED:
        return wanted
    keys = {_key_of(each) for each in wanted}
    return [each for each in valid if _key_of(each) in keys]


def _key_of(version: SecretVersion) -> str:
    return version.leaf.public_key_sha256 if version.leaf is not None else ""


def _intend(store: Store, ref: ObjectRef, request: Request, now: datetime) -> None:
    version = next((v for v in store.versions(request.certificate) if v.ref == ref), None)
    if version is None:
        raise PermanentError(f"Secret {ref} was deleted meanwhile; nothing was revoked")
    # what is worse stays: after keyCompromise the key is never used again
    if version.revoked is None or request.reason == COMPROMISED != version.revoked.reason:
        store.annotate(version, revoked=Revocation(now, request.reason))


def _let_go(desk: Desk, request: Request, versions: list[SecretVersion]) -> bool:
    """Say whether no Service names them any more, waiting for it as *request* says."""
    refs = {version.ref for version in versions}

    def free(store: Store) -> bool | None:
        return True if not refs & desk.cluster.services.references_live() else None

    if desk.wait(request.patience or timedelta(0), free):
        return True
    named = ", ".join(sorted(ref.name for ref in refs & desk.cluster.services.references()))
    desk.say(
        f"{named}: a Service still names it, and its users would be turned away, so the CA was "
        "not told yet. Give this command again when the daemon has handed over another one "
        "(`certbaton plan`), or with --wait; --now does it at once."
    )
    return False


def _at_the_ca(desk: Desk, request: Request, versions: list[SecretVersion]) -> int:
    failed = 0
    for version in versions:
        try:
            how = _tell_the_ca(desk, request, version)
        except CertbatonError as error:
            failed += 1
            desk.say(f"{version.ref.name}: not revoked: {error}")
            if isinstance(error, AccountMissing | AccountRefused):
                desk.say(
                    "--with-certificate-key does it without the account; Let's Encrypt then "
                    "records keyCompromise, whatever the reason."
                )
            if not desk.configured(version.directory):
                desk.say(
                    f"No issuer of the configuration is at {version.directory} any more; if it "
                    "needs a caBundle or a proxy, name it there again."
                )
        else:
            desk.say(f"{version.ref.name}: revoked at {version.directory}, signed by {how}.")
    if failed:
        desk.say("What was noted stands, and the daemon replaces it. Give this command again.")
        return EXIT_FAILED
    desk.say("Done. `certbaton plan` says how far its successor is.")
    return EXIT_OK


def _tell_the_ca(desk: Desk, request: Request, version: SecretVersion) -> str:
    """Send the revocation; in words, what it was signed with."""
    store, issuer = desk.cluster.store, desk.issuer_at(version.directory)
    chain = store.version_chain(version.ref)
    if chain is None:
        raise PermanentError(f"Secret {version.ref} is not there any more, nor its certificate")
    account_key = _account_key(store, version)
    # Let's Encrypt bans a key only where the key itself asks for it.
    by_itself = request.with_certificate_key or request.reason == COMPROMISED
    own_key = store.version_key(version.ref) if by_itself or account_key is None else None
    if own_key is not None:
        desk.connect(issuer, own_key, None).revoke(chain, request.reason, own_key)
        return "the certificate's own key"
    if account_key is None or request.with_certificate_key:
        raise PermanentError(
            f"Secret {version.ref} has no key that can be read"
            + ("" if account_key else ", and the account that obtained it is not here")
        )
    desk.connect(issuer, account_key, version.account_url).revoke(chain, request.reason)
    return f"account {version.account_url}"


def _account_key(store: Store, version: SecretVersion) -> PrivateKey | None:
    """The key of the very account that obtained it; None where that is not known for sure."""
    account = store.account(version.directory)
    if account is None or account.rolling or account.url != version.account_url:
        return None
    return store.account_key(version.directory)
