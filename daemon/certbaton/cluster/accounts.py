"""
The accounts of one instance in Secrets: their keys, and what the CA called them.

The half of `Store` that is about accounts. An account's Secret holds ``account`` (directory and
URL) and ``tls.key``; while its key is being changed also ``next.key``, and after an import over
another account ``previous.<hash>.key``, which nothing here ever reads or removes.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from dataclasses import replace

from certbaton.cluster import codec, records
from certbaton.cluster.cache import WatchCache
from certbaton.cluster.contract import AlreadyExists, Kind, KubeApi, Obj, version_of
from certbaton.cluster.records import AccountRecord, Record
from certbaton.cluster.writes import SecretWrites
from certbaton.errors import (
    CertbatonError,
    ConfigurationError,
    Conflict,
    ObjectGone,
    PermanentError,
)
from certbaton.model import Account, ExternalAccountKey, Instance, ObjectRef
from certbaton.pki import PrivateKey

_RESTORE = (
    "; `certbaton account import --replace` restores it; or delete the Secret for a new account"
)


class Accounts:
    """What `Store` knows of accounts; its constructor sets what is declared here."""

    _api: KubeApi
    _instance: Instance
    _namespace: str
    _account_secrets: Mapping[str, str]
    _secrets: SecretWrites
    cache: WatchCache[Record]

    # --- reading: no request, unless it says live --------------------------------------

    def account(self, directory: str) -> Account | None:
        """The account at *directory*; None where there is none, or it is broken (`problems`)."""
        record = self._account(directory)
        return record.account if record and record.problem is None else None

    def account_key(self, directory: str) -> PrivateKey | None:
        """The key of the account at *directory*. PermanentError where it cannot be read."""
        record = self._account(directory)
        if record is None or record.key is None:
            return None
        return load_key(record.ref, record.key, then=_RESTORE)

    def next_account_key(self, directory: str) -> PrivateKey | None:
        """
        The key that the account at *directory* is to have; None where none is to come.

        PermanentError where it cannot be read.
        """
        record = self._account(directory)
        if record is None or record.next_key is None:
            return None
        return load_key(record.ref, record.next_key, records.NEXT_KEY)

    def account_secret(self, directory: str) -> ObjectRef:
        """Where the account at *directory* lies, or would lie."""
        usual = records.account_name(directory, self._instance)
        return ObjectRef(self._namespace, self._account_secrets.get(directory, usual))

    def external_account(self, secret_name: str) -> ExternalAccountKey:
        """
        What binds an account, from the keys ``kid`` and ``hmacKey`` of that Secret. Read live.

        One request. ConfigurationError where the Secret or one of its keys is missing or empty.
        """
        ref = ObjectRef(self._namespace, secret_name)
        try:
            obj = self._api.read(Kind.SECRET, ref)
        except ObjectGone:
            raise ConfigurationError(
                "there is no such Secret; make it with the keys kid and hmacKey, as the CA gave"
                " them for the external account",
                where=f"Secret {ref}",
            ) from None
        return ExternalAccountKey(_entry(obj, ref, "kid"), _entry(obj, ref, "hmacKey"))

    # --- writing -----------------------------------------------------------------------

    def create_account(self, directory: str, key: PrivateKey) -> Account:
        """
        Store the key of a new account, before the CA hears of it. One request.

        Where there is one already, that one is answered and *key* is not used:
        take the key from `account_key` afterwards.
        """
        # The Conflict has made the cache look at what is there.
        with contextlib.suppress(AlreadyExists):
            self._create(directory, key, None)
        record = self._account(directory)
        if record is None or record.account is None or record.problem is not None:
            ref = self.account_secret(directory)
            raise PermanentError(
                (record.problem if record else None)
                or f"Secret {ref}: it is not the account of this instance; delete or rename it"
            )
        _check_directory(record, directory)
        return record.account

    def save_account_url(
        self, account: Account, url: str | None, external_kid: str | None = None
    ) -> Account:
        """
        Note the URL that newAccount answered; None when the CA forgot it. One request.

        *external_kid* is that of the external account that it was bound to; None keeps what was
        noted before.
        """
        kid = external_kid if external_kid is not None else account.external_kid
        text = codec.write_account(account.directory, url, kid)
        version = self._change(account, {records.ACCOUNT: text})
        return replace(account, url=url, external_kid=kid, resource_version=version)

    def import_account(
        self, directory: str, key: PrivateKey, url: str | None, *, replacing: bool = False
    ) -> Account:
        """
        Store an account that was made elsewhere, or comes back. One request, none if it is there.

        With *replacing* it takes the place of another one, whose key stays in the Secret as
        ``previous.<hash>.key``; without, PermanentError where there is another one. So does the
        next key of a roll-over that is under way, which ends with it; PermanentError where
        *replacing* is not said then, or *key* is one of the two between which it is.
        """
        record = self._account(directory)
        if record is None:
            answer = self._create(directory, key, url)
            return Account(directory, url, version_of(answer))
        _check_directory(record, directory)
        old = [pem for pem in (record.key, record.next_key) if pem is not None]
        if record.next_key is not None and (not replacing or any(_is_key(pem, key) for pem in old)):
            raise PermanentError(
                f"Secret {record.ref}: the account's key is being changed; let that end first"
            )
        same = record.key is not None and _is_key(record.key, key)
        if same and record.account is not None and record.account.url == url:
            return record.account
        if record.key is not None and not same and not replacing:
            raise PermanentError(
                f"Secret {record.ref}: it holds another account's key; --replace takes its place"
            )
        kid = record.account.external_kid if same and record.account is not None else None
        data: dict[str, str | None] = {
            records.ACCOUNT: codec.write_account(directory, url, kid),
            records.TLS_KEY: key.pem,
        }
        if not same:
            data |= {
                f"previous.{_short_hash(pem)}.key": pem.decode("utf-8", "replace") for pem in old
            }
        if record.next_key is not None:
            data[records.NEXT_KEY] = None
        answer = self._secrets.merge(record.ref, record.resource_version, data)
        return Account(directory, url, version_of(answer), external_kid=kid)

    def stage_next_key(self, account: Account, key: PrivateKey) -> Account:
        """
        Store the key that *account* is to have, beside the present one. One request.

        Before the CA hears of it, so that it cannot be lost. PermanentError where another next
        key is there: the CA may know that one by now.
        """
        there = self.next_account_key(account.directory)
        if there is not None and there != key:
            raise PermanentError(
                f"Secret {self.account_secret(account.directory)}: the account's key is being"
                " changed already"
            )
        version = self._change(account, {records.NEXT_KEY: key.pem})
        return replace(account, rolling=True, resource_version=version)

    def promote_next_key(self, account: Account) -> Account:
        """
        Make the next key the account's, and forget the old one, in one write. One request.

        Only after the CA has answered the next key with this account's URL. Conflict where there
        is no next key, or the Secret isn't as *account* says.
        """
        record = self._account(account.directory)
        if record is None or record.next_key is None:
            raise Conflict(
                f"Secret {self.account_secret(account.directory)}: there is no next key any more"
            )
        if record.resource_version != account.resource_version:
            raise Conflict(f"Secret {record.ref}: somebody changed it first")
        key = load_key(record.ref, record.next_key, records.NEXT_KEY)
        version = self._change(account, {records.TLS_KEY: key.pem, records.NEXT_KEY: None})
        return replace(account, rolling=False, resource_version=version)

    def drop_next_key(self, account: Account) -> Account:
        """Give the change of the key up: only where the CA refused the next one. One request."""
        version = self._change(account, {records.NEXT_KEY: None})
        return replace(account, rolling=False, resource_version=version)

    # --- inside ------------------------------------------------------------------------

    def _create(self, directory: str, key: PrivateKey, url: str | None) -> Obj:
        data = {records.ACCOUNT: codec.write_account(directory, url), records.TLS_KEY: key.pem}
        return self._secrets.create(
            self.account_secret(directory), records.labels(records.ACCOUNT, self._instance), data
        )

    def _change(self, account: Account, data: dict[str, str | None]) -> str:
        """Write *data* into the account's Secret if it still is as *account* says."""
        ref = self.account_secret(account.directory)
        return version_of(self._secrets.merge(ref, account.resource_version, data))

    def _account(self, directory: str) -> AccountRecord | None:
        record = self.cache.get(self.account_secret(directory))
        return record if isinstance(record, AccountRecord) else None


def load_key(
    ref: ObjectRef, pem: bytes, entry: str = records.TLS_KEY, *, then: str = ""
) -> PrivateKey:
    """
    The key in *entry* of Secret *ref*; PermanentError, without any of it, if unreadable.

    *then* ends the sentence with what to do.
    """
    try:
        return PrivateKey.load(pem)
    except CertbatonError:
        problem = PermanentError(f"Secret {ref}: its {entry} cannot be read{then}")
    raise problem


def _check_directory(record: AccountRecord, directory: str) -> None:
    if record.account is not None and record.account.directory != directory:
        raise PermanentError(f"Secret {record.ref}: it holds the account of another directory")


def _is_key(pem: bytes, key: PrivateKey) -> bool:
    try:
        return PrivateKey.load(pem) == key
    except CertbatonError:
        return False


def _short_hash(pem: bytes) -> str:
    """Tell kept keys apart: by the public key, or the text where it is no key."""
    try:
        return PrivateKey.load(pem).public_key_sha256[:10]
    except CertbatonError:
        return hashlib.sha256(pem).hexdigest()[:10]


def _entry(obj: Obj, ref: ObjectRef, key: str) -> str:
    value = (records.decode(obj, key) or b"").decode("utf-8", "replace").strip()
    if not value:
        raise ConfigurationError(
            "it is missing or empty; write there what the CA gave for the external account",
            where=f"Secret {ref}: {key}",
        )
    return value
