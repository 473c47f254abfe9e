"""
Our accounts at CAs: made, found again, and given another key.

What a CA knows by a key is written before the CA hears of that key, so that a crash anywhere
costs a request and no account.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from certbaton.authorities import Authorities
from certbaton.ca import zerossl
from certbaton.ca.accounts import check
from certbaton.ca.order import CertificateAuthority
from certbaton.cluster import Cluster
from certbaton.errors import (
    AccountMissing,
    AccountRefused,
    ConfigurationError,
    Conflict,
    PermanentError,
)
from certbaton.model import Account, ExternalAccountKey, IssuerSpec
from certbaton.pki import PrivateKey
from certbaton.telemetry import logger

ByEmail = Callable[[IssuerSpec], ExternalAccountKey]


class Accounts:
    """The accounts of one instance; one certificate's turn works on one account at a time."""

    def __init__(
        self,
        cluster: Cluster,
        authorities: Authorities,
        *,
        by_email: ByEmail = zerossl.external_account,
    ) -> None:
        """*by_email* gives an external account for an issuer's e-mail address."""
        self._cluster = cluster
        self._authorities = authorities
        self._by_email = by_email

    def session(self, issuer: IssuerSpec, account_url: str | None) -> CertificateAuthority:
        """A session with the stored key. PermanentError where that cannot be read."""
        return self._authorities.session(issuer, self._key(issuer), account_url)

    def ensure(
        self, issuer: IssuerSpec, certificate: str, lifetime: timedelta | None
    ) -> timedelta | None:
        """
        Key stored, then newAccount, then URL stored: the same key gives the same account.

        Gives when to ask again where another certificate is at it. Raises what the CA's calls
        raise; AccountRefused where the external account is missing.
        """
        with self._authorities.accounts.taken(issuer.directory, certificate) as wait:
            if wait is not None:
                return wait
            account = self._cluster.store.account(issuer.directory)
            if account is None:
                key = PrivateKey.generate(issuer.account_key_type)
                account = self._cluster.store.create_account(issuer.directory, key)
            if account.url is not None:
                return None
            with self._authorities.outages.trying(issuer.directory, certificate, lifetime):
                self._make(issuer, account)
        return None

    def _make(self, issuer: IssuerSpec, account: Account) -> None:
        ca = self.session(issuer, None)
        url, external = None, None
        if issuer.external_account is not None:
            # what binds it works once: an answer that was lost must not have it sent again
            try:
                url = ca.find_account()
            except AccountMissing:
                external = self._external(issuer)
        if url is None:
            url = self._authorities.limits.ask(
                issuer.directory, None, lambda: ca.new_account(external)
            )
        self._cluster.store.save_account_url(account, url, external.kid if external else None)

    def _external(self, issuer: IssuerSpec) -> ExternalAccountKey:
        wanted = issuer.external_account
        try:
            if wanted is not None and wanted.secret is not None:
                found = self._cluster.store.external_account(wanted.secret)
                namespace = self._cluster.store.account_secret(issuer.directory).namespace
                check(found, f"Secret {namespace}/{wanted.secret}")
                return found
            # its own server, but as much the CA's as any: without it nothing is issued there
            return self._authorities.outages.ask(
                issuer.directory, "externalAccount", lambda: self._by_email(issuer)
            )
        except ConfigurationError as error:
            raise AccountRefused(str(error)) from error

    def lost(self, directory: str, account_url: str) -> None:
        """
        The CA said that it does not know *account_url*: ask it by the key, and note what it says.

        Only where that is not known either another account is made, with the same key, on the
        next turn. Nothing is noted while the key is being changed. Raises what the CA's calls
        raise.
        """
        account = self._cluster.store.account(directory)
        if account is None or account.url != account_url or account.rolling:
            return
        issuer = self._authorities.issuer(directory)
        try:
            url: str | None = self.session(issuer, None).find_account()
        except AccountMissing:
            url = None
        if url != account_url:
            logger().warning("account_lost", directory=directory, account=account_url, now=url)
            self._cluster.store.save_account_url(account, url)

    # --- another key --------------------------------------------------------------------

    def roll(
        self, issuer: IssuerSpec, certificate: str, lifetime: timedelta | None
    ) -> timedelta | None:
        """
        Bring the change of the account's key to its end (RFC 8555 section 7.3.5).

        The CA is asked first whether it knows the next key: an earlier process may have come so
        far. Gives when to ask again where another certificate is at it. Conflict while an order
        is open; PermanentError where the CA will not have the next key, which is then given up.
        """
        directory = issuer.directory
        with self._authorities.accounts.taken(directory, certificate) as wait:
            if wait is not None:
                return wait
            account = self._cluster.store.account(directory)
            if account is None or account.url is None or not account.rolling:
                return None
            following = self._cluster.store.next_account_key(directory)
            if following is None:
                raise Conflict(f"there is no next key for the account at {directory} any more")
            for name, journal in self._cluster.store.journals().items():
                if journal.pending is not None and journal.pending.directory == directory:
                    raise Conflict(f"{name} has an order open at {directory}")
            with self._authorities.outages.trying(directory, certificate, lifetime):
                self._change(issuer, account, account.url, following)
        return None

    def _change(
        self, issuer: IssuerSpec, account: Account, url: str, following: PrivateKey
    ) -> None:
        try:
            found = self._known_as(issuer, following)
            if found is None:
                self.session(issuer, url).change_key(following)
                found = self._known_as(issuer, following)
        except AccountRefused:
            raise  # says nothing of the key
        except PermanentError as error:
            # Its answer may have been lost once, and the refusal be of the second time.
            found = self._known_as(issuer, following)
            if found is None:
                raise self._given_up(issuer, account, str(error)) from error
        if found != url:
            words = f"it knows that key as account {found or 'none'}, and not as {url}"
            if self._known_as(issuer, self._key(issuer)) == url:
                # else nothing would be ordered there until somebody has looked
                raise self._given_up(issuer, account, words)
            raise PermanentError(
                f"the CA at {issuer.directory} knows neither key as the account: {words}; nothing "
                "is changed: see docs/accounts.md"
            )
        self._cluster.store.promote_next_key(account)
        logger().info("account_key_changed", directory=issuer.directory, account=url)

    def _given_up(self, issuer: IssuerSpec, account: Account, why: str) -> PermanentError:
        self._cluster.store.drop_next_key(account)
        return PermanentError(
            f"the CA at {issuer.directory} does not take the next key of the account, so the "
            f"change is given up and the present key stays: {why}"
        )

    def _known_as(self, issuer: IssuerSpec, key: PrivateKey) -> str | None:
        try:
            return self._authorities.session(issuer, key, None).find_account()
        except AccountMissing:
            return None

    def _key(self, issuer: IssuerSpec) -> PrivateKey:
        key = self._cluster.store.account_key(issuer.directory)
        if key is None:
            raise PermanentError(
                f"the account Secret of {issuer.directory} has no readable key; restore it, "
                "or delete it for a new account"
            )
        return key
