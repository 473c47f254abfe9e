"""
``account show``, ``export``, ``import``, ``deactivate`` and ``roll-key``.

What a CA says counts, not what was stored: an account is imported only after the CA has said
which one it is. Keys go into Secrets and files, never to the terminal.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Final

from certbaton.ca.session import thumbprint
from certbaton.cluster import Kind, records
from certbaton.cluster.store import Store
from certbaton.commands import keyfile
from certbaton.commands.desk import EXIT_FAILED, EXIT_OK, EXIT_WAITING, Desk
from certbaton.commands.keyfile import Kept
from certbaton.errors import (
    AccountMissing,
    CertbatonError,
    ConfigurationError,
    ObjectGone,
    PermanentError,
    RetryableError,
)
from certbaton.model import Account, IssuerSpec, ObjectRef
from certbaton.pki import PrivateKey

# Where cert-manager keeps an issuer's key, unless told otherwise.
_ENTRY: Final = "tls.key"


def show(desk: Desk, name: str) -> int:
    """Print what is known of an issuer's account, here and at the CA. Gives the exit code."""
    issuer = desk.issuer(name)
    store = desk.look()
    account, key = store.account(issuer.directory), store.account_key(issuer.directory)
    desk.say(f"issuer      {issuer.name}")
    desk.say(f"directory   {issuer.directory}")
    desk.say(f"Secret      {store.account_secret(issuer.directory)}")
    if account is None or key is None:
        return _tell_of_none(desk, store, issuer)
    desk.say(f"account     {account.url or '(not known to the CA yet)'}")
    desk.say(f"key         {key.type}, thumbprint {thumbprint(key)}")
    if account.external_kid:
        desk.say(f"external    {account.external_kid}")
    status, well = _status(desk, issuer, account, key)
    desk.say(f"status      {status}")
    if well:
        terms = desk.connect(issuer, key, account.url).directory().terms_of_service
        desk.say(f"terms       {terms or '(none)'}")
    if account.url is None:
        desk.say("The daemon makes it before its first order; `certbaton plan` says what it is at.")
    elif account.rolling:
        desk.say("Its key is being changed; the daemon brings that to its end.")
    elif well:
        desk.say("Nothing is to be done. `certbaton account export` makes a backup.")
    return EXIT_OK if well else EXIT_FAILED


def _tell_of_none(desk: Desk, store: Store, issuer: IssuerSpec) -> int:
    secret = store.account_secret(issuer.directory)
    for problem in store.problems():
        if str(secret) in problem:
            desk.say(problem)
            return EXIT_FAILED
    desk.say("There is no account yet: the daemon makes one before its first order there.")
    return EXIT_OK


def _status(desk: Desk, issuer: IssuerSpec, account: Account, key: PrivateKey) -> tuple[str, bool]:
    """What the CA says to the account's key, and whether that is as it should be."""
    if account.url is None:
        return "the daemon has still to make it at the CA", True
    try:
        url = desk.connect(issuer, key, None).find_account()
    except AccountMissing:
        if account.rolling:
            return "the CA does not know this key: the next one may be the account's by now", False
        return "the CA does not know it: the daemon makes it anew, with the same key", False
    except RetryableError as error:
        return f"not known now: {error}", False
    except PermanentError as error:
        return f"refused: {error}", False
    if url != account.url:
        return f"the CA knows this key as another account, {url}", False
    return "valid", True


def export(desk: Desk, name: str, path: Path, form: str) -> int:
    """Write an issuer's account into a new file, mode 0600. Gives the exit code."""
    issuer = desk.issuer(name)
    if form not in keyfile.FORMATS:
        raise ConfigurationError(
            f"{form!r} is no format; there are {', '.join(keyfile.FORMATS)}", where="--format"
        )
    store = desk.look()
    account, key = _present(store, issuer)
    next_key = store.next_account_key(issuer.directory)
    if next_key is not None and form != "backup":
        raise PermanentError(
            "the account's key is being changed, so that one key alone may be the wrong one; "
            "export it as a backup, or when that is done"
        )
    keyfile.save(path, keyfile.write(form, account, key, next_key))
    desk.say(
        f"{path}: the {'backup' if form == 'backup' else 'key'} of account "
        f"{account.url or '(not known to the CA yet)'}. Whoever has it is that account: put it "
        f"where only you can read it. `certbaton account import {name} --input FILE` restores it."
    )
    return EXIT_OK


def from_secret(desk: Desk, where: str) -> Kept:
    """The key in a Secret, ``namespace/name``, as cert-manager keeps it (``tls.key``)."""
    namespace, _, name = where.partition("/")
    if not namespace or not name or "/" in name:
        raise ConfigurationError(
            f"{where!r} is not of the form namespace/name", where="--from-secret"
        )
    ref = ObjectRef(namespace, name)
    try:
        obj = desk.cluster.api.read(Kind.SECRET, ref)
    except ObjectGone:
        raise ConfigurationError("there is no such Secret", where=f"Secret {ref}") from None
    pem = records.decode(obj, _ENTRY)
    if pem is None:
        raise ConfigurationError(f"it has no {_ENTRY}", where=f"Secret {ref}")
    return keyfile.read_named(pem, f"Secret {ref}: {_ENTRY}")


def import_(desk: Desk, name: str, kept: Kept, *, replacing: bool = False) -> int:
    """
    Make *kept* the account of an issuer, once the CA has said which one it is.

    With *replacing* also in place of another one, whose key then stays in the Secret beside it.
    Gives the exit code; nothing is stored where the CA does not know the key.
    """
    issuer = desk.issuer(name)
    if kept.directory is not None and kept.directory != issuer.directory:
        raise ConfigurationError(
            f"the backup is of an account at {kept.directory}, and issuer {issuer.name} is at "
            f"{issuer.directory}; name the issuer whose account it is"
        )
    store = desk.look()
    there = store.account(issuer.directory)
    if there is not None and there.rolling and not replacing:
        raise PermanentError(
            "the account's key is being changed; import when that is done, or with --replace, "
            "which gives the change up"
        )
    present = None
    if there is not None and not replacing:  # what cannot be read is replaced too
        present = store.account_key(issuer.directory)
    key, url = _recognised(desk, issuer, kept)
    if present is not None and present != key:
        desk.say(
            f"{issuer.name} has another account already, {there.url if there else None}; nothing "
            f"was done. With --replace {url} takes its place, and its key stays in the Secret."
        )
        return EXIT_FAILED
    account = desk.attempt(
        lambda now: now.import_account(issuer.directory, key, url, replacing=replacing)
    )
    if kept.external_kid and account.external_kid != kept.external_kid:
        desk.attempt(lambda now: _note_external(now, issuer.directory, kept.external_kid))
    desk.say(
        f"{issuer.name} has account {url} now, with key {thumbprint(key)}. The daemon uses it "
        "from its next order on; `certbaton account show` says how it is."
    )
    return EXIT_OK


def _recognised(desk: Desk, issuer: IssuerSpec, kept: Kept) -> tuple[PrivateKey, str]:
    """The key that the CA knows, and as which account; PermanentError where it knows none."""
    for key in filter(None, (kept.key, kept.next_key)):
        try:
            return key, desk.connect(issuer, key, None).find_account()
        except AccountMissing:
            continue
    raise PermanentError(
        f"{issuer.directory} knows no account of this key; nothing was stored. Is it of another "
        "CA, or of its staging?"
    )


def _note_external(store: Store, directory: str, kid: str | None) -> None:
    account = store.account(directory)
    if account is not None:
        store.save_account_url(account, account.url, kid)


def deactivate(desk: Desk, name: str) -> int:
    """Give an issuer's account up at the CA, for good. Gives the exit code."""
    issuer = desk.issuer(name)
    store = desk.look()
    account, key = _present(store, issuer)
    if account.rolling:
        raise PermanentError("the account's key is being changed; deactivate when that is done")
    session = desk.connect(issuer, key, None)
    try:
        url = session.find_account()
    except AccountMissing:
        desk.say(f"{issuer.directory} knows no account of this key; there is nothing to give up.")
        return EXIT_OK
    users = ", ".join(desk.users_of(issuer)) or "none"
    if not desk.confirm(
        f"Deactivate {url}? It cannot be taken back. Nothing more is issued to it; the "
        f"certificates that use this issuer: {users}."
    ):
        desk.say("Nothing was done.")
        return EXIT_FAILED
    session.deactivate_account()
    desk.say(
        f"{url} is deactivated; its certificates stay valid. The daemon reports it, and makes no "
        f"other one by itself: import one with --replace, or delete Secret "
        f"{store.account_secret(issuer.directory)} for a new one."
    )
    return EXIT_OK


def roll_key(desk: Desk, name: str, patience: timedelta) -> int:
    """
    Have the key of an issuer's account changed, and wait until the daemon has done it.

    A change that is under way already is waited for. Gives the exit code: 0 done, 1 not to be
    done, 6 still under way.
    """
    issuer = desk.issuer(name)
    if not desk.turns_for(issuer):
        raise PermanentError(
            f"no certificate uses issuer {issuer.name}, so the daemon would not change the key of "
            "its account; let one use it, or `certbaton account deactivate`"
        )
    store = desk.look()
    account, key = _present(store, issuer)
    if account.url is None:
        raise PermanentError("the CA does not know the account yet; it has to be made first")
    if account.rolling:
        desk.say("The account's key is being changed already; waiting for the daemon.")
    else:
        if "keyChange" not in desk.connect(issuer, key, account.url).directory().resources:
            raise PermanentError(f"the CA at {issuer.directory} has no way to change a key")
        status, well = _status(desk, issuer, account, key)
        if not well:  # a change that is begun and cannot end keeps all else from the account
            raise PermanentError(f"the key cannot be changed now; the account: {status}")
        new = PrivateKey.generate(issuer.account_key_type)
        desk.attempt(lambda now: _stage(now, issuer, new))
        desk.say(
            f"The next key, {thumbprint(new)}, lies beside the present one in Secret "
            f"{store.account_secret(issuer.directory)}; waiting for the daemon."
        )
    wanted = store.next_account_key(issuer.directory)

    def over(now: Store) -> Account | None:
        found = now.account(issuer.directory)
        return found if found is None or not found.rolling else None

    try:
        ended = desk.wait(patience, over)
    except CertbatonError as error:
        desk.say(f"Not known: {error}")
        return EXIT_WAITING
    if ended is None:
        desk.say(
            "Not done yet; both keys are safe in the Secret, and the daemon goes on. Give this "
            "command again to wait on."
        )
        return EXIT_WAITING
    present = desk.cluster.store.account_key(issuer.directory)
    if present is None or present != wanted:
        desk.say("The key was not changed; the daemon's log says why. The old one goes on.")
        return EXIT_FAILED
    desk.say(
        f"{ended.url} has key {thumbprint(present)} now, and the old one is of no use any more. "
        "Make a new backup: `certbaton account export`."
    )
    return EXIT_OK


def _stage(store: Store, issuer: IssuerSpec, key: PrivateKey) -> None:
    busy = sorted(
        name
        for name, journal in store.journals().items()
        if journal.pending is not None and journal.pending.directory == issuer.directory
    )
    if busy:
        # what is presented for its challenges is made of the present key
        raise PermanentError(
            f"an order is open on this account, for {', '.join(busy)}; change the key when it is "
            "done (`certbaton plan`)"
        )
    store.stage_next_key(_present(store, issuer)[0], key)


def _present(store: Store, issuer: IssuerSpec) -> tuple[Account, PrivateKey]:
    """The account of *issuer* with its key; PermanentError where there is none to speak of."""
    account, key = store.account(issuer.directory), store.account_key(issuer.directory)
    if account is None or key is None:
        secret = store.account_secret(issuer.directory)
        problems = [problem for problem in store.problems() if str(secret) in problem]
        raise PermanentError(
            problems[0]
            if problems
            else f"issuer {issuer.name} has no account yet: the daemon makes one before its "
            "first order there, or import one"
        )
    return account, key
