"""
What can go wrong, told as an answer to "what now?".

::

    CertbatonError
    ├── ConfigurationError     the operator must change something; exit 2 at start
    ├── RetryableError         the world may change by itself
    │   ├── RateLimited        the CA named a time; obey it
    │   ├── CaUnavailable
    │   ├── ClusterUnavailable
    │   └── SolverNotReady
    ├── PermanentError         a person must change something outside; tried again all the same
    │   ├── AccountMissing     the CA doesn't know our account
    │   ├── AccountRefused     it knows it, and won't have it: deactivated, new terms
    │   │   └── ExternalAccountRequired   also a ConfigurationError: only an operator has one
    │   ├── ProfileRefused     the CA doesn't have the profile
    │   └── CaaForbids         the domain's CAA records
    └── Conflict               somebody wrote first: look again, at once
        └── Stopping           this process is ending

No message or ``repr`` of these ever carries key material. The original error,
where there is one, is the ``__cause__``.
"""

from __future__ import annotations

from datetime import datetime


class CertbatonError(Exception):
    """Base of everything certbaton raises on purpose; ``str()`` is one sentence for a person."""


class ConfigurationError(CertbatonError):
    """
    The operator must change something.

    *where* is a key path (``certificates[0].dnsNames[1]``), or an object
    (``Service shop/shop``).
    """

    def __init__(self, message: str, *, where: str = "") -> None:
        super().__init__(f"{where}: {message}" if where else message)
        self.where = where


class RetryableError(CertbatonError):
    """
    The world may change by itself.

    *retry_at* (aware, UTC) is set where the other side named a time; without
    it the back-off of the policy decides.
    """

    def __init__(self, message: str, *, retry_at: datetime | None = None) -> None:
        super().__init__(message)
        self.retry_at = retry_at


class RateLimited(RetryableError):
    """
    The CA refused because of a rate limit (RFC 8555 section 6.6).

    *of_account* says that it counts all that the account asks for, whatever certificate it is for.
    """

    of_account = False


class CaUnavailable(RetryableError):
    """The CA could not be reached, or answered 5xx."""


class ClusterUnavailable(RetryableError):
    """The API server could not be reached, or answered 429 or 5xx."""


class SolverNotReady(RetryableError):
    """A challenge's answer is not yet where the CA will look for it."""


class PermanentError(CertbatonError):
    """A person must change something outside: CAA, a rejected name, missing rights."""


class AccountMissing(PermanentError):
    """The CA does not know our account (``accountDoesNotExist``, RFC 8555 section 7.3.1)."""


class AccountRefused(PermanentError):
    """The CA will not work for our account: deactivated, unbound, or new terms to agree to."""


class ExternalAccountRequired(AccountRefused, ConfigurationError):
    """The CA binds accounts to those that it knows otherwise, and none was given (7.3.4)."""


class ProfileRefused(PermanentError):
    """The CA does not have the profile that was asked for (``invalidProfile``)."""


class CaaForbids(PermanentError):
    """CAA records of a name forbid this CA, account or method (``caa``, RFC 8659)."""


class Conflict(CertbatonError):
    """Somebody wrote first (HTTP 409): look again, without back-off."""


class Stopping(Conflict):
    """This process is ending: it asks a CA nothing more, and it has left what it asked last."""


class ObjectGone(Conflict):
    """The object that should be changed is not there any more (HTTP 404)."""
