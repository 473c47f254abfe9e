"""
The table of all that a CA may refuse: what happens next, and what a person should do.

Its key is (request, type, status), since one type means different things in different requests.
The types are those of RFC 8555 section 6.7, RFC 9773 (alreadyReplaced), the profiles draft
(invalidProfile), and what Let's Encrypt sends besides; RFC 8738 (IP addresses) adds none. Requests
are named as RFC 8555 names them: directory, newNonce, newAccount, findAccount (newAccount with
onlyReturnExisting), newOrder, order, authorization, challenge, finalize, certificate,
deactivateAuthorization, deactivateAccount, keyChange, revokeCert, renewalInfo. Two are no requests,
but problems inside of answers: *validation* is a challenge's, *issuance* an order's.

`page` writes it as docs/acme-errors.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from certbaton.errors import (
    AccountMissing,
    AccountRefused,
    CaaForbids,
    CaUnavailable,
    CertbatonError,
    ConfigurationError,
    ExternalAccountRequired,
    PermanentError,
    ProfileRefused,
    RateLimited,
)


class ResourceGone(PermanentError):
    """The order, authorization or certificate isn't there (any more): HTTP 404 or 410."""


class CsrRefused(PermanentError):
    """The CA will never sign this request (badCSR): a new order with a new key is needed."""


class OrderNotReady(PermanentError):
    """The order is not (or no longer) ready to be finalized; what it is instead, it says itself."""


class NameRefused(PermanentError):
    """The CA does not issue for one of the names: its policy, or a kind of name it doesn't know."""


class ReplacesRefused(PermanentError):
    """The predecessor that newOrder named is replaced already, by another order."""


class AlreadyRevoked(PermanentError):
    """The certificate was revoked before: what was wanted is so."""


class ValidationFailed(PermanentError):
    """The CA could not see the answer to a challenge."""


class ServerError(CaUnavailable):
    """The CA answered, with a failure of its own (5xx): the request reached it."""


NO_DOCUMENT: Final = "-"


@dataclass(frozen=True, slots=True)
class Row:
    """
    One line of the table: a refusal, the error that it becomes, and two sentences.

    *request* and *problem* (a type) ``""`` are any; *problem* ``NO_DOCUMENT`` is an answer
    without a problem document. *status* is a number or ``5xx``, ``""`` any. *paused* rows want a
    refusal without Retry-After whose words name a page. *person* is ``""`` where nobody need do
    anything.
    """

    request: str
    problem: str
    status: str
    error: type[CertbatonError]
    then: str
    person: str = ""
    paused: bool = False

    def fits(self, request: str, problem: str, status: int, paused: bool) -> bool:
        """Say whether it is about this refusal; *problem* is ``""`` where no document came."""
        return (
            self.request in ("", request)
            and self.problem in ("", problem or NO_DOCUMENT)
            and (not self.status or self.status in (str(status), f"{status // 100}xx"))
            and (paused or not self.paused)
        )


_CA = "it counts against the CA: one request for all tries again after 1 to 30 minutes"
_BACK_OFF = "another order after the back-off"
_AGAIN = "tried again after the back-off"
_ACCOUNT = "the next CA of the certificate's list is asked at once; this one after the back-off"
_WITHOUT_REPLACES = "the same order at once again, without `replaces`"
_GONE = "what is gone is not waited for: a new order where one is needed"
_SEE_ACCOUNT = (
    "see `certbaton account show`; a deactivated account cannot be taken back: import another "
    "with --replace, or delete the account's Secret for a new one"
)
_AGREE = "open the page that the CA names, and agree to the terms of service there"
_NAME = "take the name out of the certificate, or ask a CA that issues for it"
_CAA = (
    "let the CAA records of the name allow this CA, its account and the kind of validation; "
    "`certbaton config check` says what they hold"
)
_KEY = "set the issuer's accountKeyType to another one (P-256 and RSA-2048 are taken everywhere)"
_MAIL = "correct the issuer's email, or take it away"
_PROFILE = (
    "correct the issuer's profile (the CA's directory lists those that there are), or let its "
    "profileMode be `preferred`"
)
_CONTENT = (
    "see who answers there: for http-01 the address that the name has for the CA, IPv6 included, "
    "must lead to the solver; for dns-01 the TXT record must stand at _acme-challenge on every "
    "name server of the zone"
)
_REACH = (
    "see that the CA gets through: for http-01 to port 80 of the name, on every address that it "
    "has, from everywhere; for dns-01 to the name servers of the zone"
)
_RESOLVE = (
    "see that the name resolves for everybody: its A and AAAA records, the delegation, DNSSEC; for "
    "dns-01 also the TXT record at _acme-challenge"
)
_TLS = "see where the request to port 80 is redirected: what answers there has trouble with TLS"
_DEFECT = "nothing, if it passes; if it stays, report it with the CA's words"

TABLE: Final[tuple[Row, ...]] = (
    # What a validation came to (section 8; the types are RFC 8555's).
    Row("validation", "caa", "", CaaForbids, _BACK_OFF, _CAA),
    Row("validation", "connection", "", ValidationFailed, _BACK_OFF, _REACH),
    Row("validation", "dns", "", ValidationFailed, _BACK_OFF, _RESOLVE),
    Row("validation", "incorrectResponse", "", ValidationFailed, _BACK_OFF, _CONTENT),
    Row("validation", "unauthorized", "", ValidationFailed, _BACK_OFF, _CONTENT),
    Row("validation", "tls", "", ValidationFailed, _BACK_OFF, _TLS),
    Row("validation", "rejectedIdentifier", "", NameRefused, _BACK_OFF, _NAME),
    Row("validation", "serverInternal", "", PermanentError, _BACK_OFF),
    Row("validation", "", "", ValidationFailed, _BACK_OFF),
    Row("issuance", "serverInternal", "", PermanentError, _BACK_OFF),
    Row("issuance", "unauthorized", "", PermanentError, _BACK_OFF, _DEFECT),
    # Section 6.6. Let's Encrypt says rateLimited with 503 when it is merely busy.
    Row("", "rateLimited", "503", CaUnavailable, _CA),
    Row(
        "",
        "rateLimited",
        "",
        RateLimited,
        _BACK_OFF,
        "open the page that the CA's words name, and lift the pause there",
        paused=True,
    ),
    Row("", "rateLimited", "", RateLimited, "tried again at the time that the CA names"),
    Row("", "", "429", RateLimited, "tried again at the time that the answer names"),
    Row("", "serverInternal", "", ServerError, _CA),
    Row(
        "", "badNonce", "", CaUnavailable, "20 times at once, each with the new nonce; then " + _CA
    ),
    # Accounts: sections 7.3 and 7.3.1 to 7.3.6.
    Row(
        "",
        "accountDoesNotExist",
        "",
        AccountMissing,
        "the account is looked for by its key, and made again where the CA has none",
        "where CAA records or a dashboard name the account, give them the new one's URL",
    ),
    Row(
        "",
        "externalAccountRequired",
        "",
        ExternalAccountRequired,
        _ACCOUNT,
        "get a key identifier and an HMAC key from the CA, and name the Secret that holds them in "
        "the issuer's externalAccount",
    ),
    Row("newAccount", "invalidContact", "", ConfigurationError, _AGAIN, _MAIL),
    Row("newAccount", "unsupportedContact", "", ConfigurationError, _AGAIN, _MAIL),
    Row("newAccount", "invalidEmail", "", ConfigurationError, _AGAIN, _MAIL),
    Row(
        "newAccount",
        "unauthorized",
        "",
        AccountRefused,
        _ACCOUNT,
        "where the external account is mistyped, used up or too old, get a new one; else "
        + _SEE_ACCOUNT,
    ),
    Row(
        "keyChange",
        "",
        "409",
        PermanentError,
        "the account keeps its key",
        "the next key is another account's: give `certbaton account roll-key` again",
    ),
    Row("", "userActionRequired", "", AccountRefused, _ACCOUNT, _AGREE),
    # Section 7.4, RFC 9773 section 5, and the profiles draft.
    Row(
        "newOrder",
        "invalidProfile",
        "",
        ProfileRefused,
        "a `preferred` profile: at once again, without; a `required` one: tried daily",
        _PROFILE,
    ),
    Row("newOrder", "unsupportedProfile", "", ProfileRefused, "as invalidProfile", _PROFILE),
    Row("newOrder", "alreadyReplaced", "", ReplacesRefused, _WITHOUT_REPLACES),
    Row("newOrder", "", "409", ReplacesRefused, _WITHOUT_REPLACES),
    Row("", "rejectedIdentifier", "", NameRefused, _BACK_OFF, _NAME),
    Row("", "unsupportedIdentifier", "", NameRefused, _BACK_OFF, _NAME),
    Row("", "caa", "", CaaForbids, _BACK_OFF, _CAA),
    Row("finalize", "badCSR", "", CsrRefused, "a new order with a new key, after the back-off"),
    Row(
        "finalize",
        "badPublicKey",
        "",
        CsrRefused,
        "a new order with a new key, after the back-off",
        "if it stays, set the certificate's keyType to another one",
    ),
    Row("issuance", "badCSR", "", CsrRefused, "a new order with a new key, after the back-off"),
    Row("finalize", "orderNotReady", "", OrderNotReady, "the order is read again, and followed"),
    Row(
        "finalize",
        "unauthorized",
        "",
        PermanentError,
        "the order is read again; is it ready still, " + _BACK_OFF,
        _DEFECT,
    ),
    # A challenge that is answered already: Pebble says malformed, Boulder 409.
    Row("challenge", "malformed", "", PermanentError, "the order is read, and says where it is"),
    Row("challenge", "", "409", PermanentError, "the order is read, and says where it is"),
    # Section 7.6.
    Row("revokeCert", "alreadyRevoked", "", AlreadyRevoked, "nothing: it is revoked"),
    Row(
        "revokeCert",
        "badRevocationReason",
        "",
        PermanentError,
        "nothing is revoked",
        "give `certbaton revoke` another --reason",
    ),
    Row(
        "revokeCert",
        "unauthorized",
        "",
        PermanentError,
        "nothing is revoked",
        "revoke it by its own key (--with-certificate-key)",
    ),
    # Boulder answers 404 for an order past its expiry, Pebble with an empty body.
    *(
        Row(request, "", status, ResourceGone, _GONE)
        for request in (
            "order",
            "authorization",
            "challenge",
            "finalize",
            "certificate",
            "deactivateAuthorization",
        )
        for status in ("404", "410")
    ),
    *(
        Row(
            "directory",
            "",
            status,
            ConfigurationError,
            _AGAIN,
            "correct the issuer's directory: nothing is at that URL",
        )
        for status in ("404", "410")
    ),
    *(Row("newNonce", "", status, CaUnavailable, _CA) for status in ("404", "410")),
    Row(
        "renewalInfo",
        "",
        "404",
        PermanentError,
        "the time rule alone decides; asked again after 6 hours",
    ),
    # A deactivated account may be told in any request.
    Row("", "unauthorized", "", AccountRefused, _ACCOUNT, _SEE_ACCOUNT),
    Row("", "badPublicKey", "", ConfigurationError, _AGAIN, _KEY),
    *(
        Row(request, "badSignatureAlgorithm", "", ConfigurationError, _AGAIN, _KEY)
        for request in ("newAccount", "findAccount", "keyChange")
    ),
    # Pebble says so where the account has a key of another type than the one that signed.
    Row(
        "",
        "badSignatureAlgorithm",
        "",
        PermanentError,
        _AGAIN,
        "see `certbaton account show`: the account may have another key by now",
    ),
    Row(
        "newOrder",
        "malformed",
        "",
        PermanentError,
        "at once again without `replaces`, and without `notAfter`, where it had one; then "
        + _BACK_OFF,
        _DEFECT,
    ),
    Row("", "malformed", "", PermanentError, _AGAIN, _DEFECT),
    # What it is made of is looked up instead; this is for one that says nothing of it.
    Row("", "compound", "", PermanentError, _AGAIN),
    # Neither 5xx, nor a page of some proxy, nor a redirect, is the CA's word on anything.
    Row("", "", "5xx", ServerError, _CA),
    Row("", "", "408", CaUnavailable, _CA),
    Row("", "", "425", CaUnavailable, _CA),
    Row(
        "",
        NO_DOCUMENT,
        "",
        CaUnavailable,
        _CA,
        "if it stays, see which proxy or filter answers in the CA's place",
    ),
    Row("", "", "", PermanentError, _AGAIN),
)


def row_of(request: str, problem: str, status: int, *, paused: bool = False) -> Row:
    """The first row about this refusal; the last one is about all. *status* 0: there is none."""
    return next(row for row in TABLE if row.fits(request, problem, status, paused))


def page() -> str:
    """The table as Markdown, for people: docs/acme-errors.md."""
    return _HEAD + "\n".join(_lines()) + "\n" + _FOOT


def _lines() -> Iterator[str]:
    yield "| Request | Type of problem | Status | What certbaton does | What you should do |"
    yield "|---|---|---|---|---|"
    for row in TABLE:
        request = row.request or "any"
        kind = {"": "any", NO_DOCUMENT: "no problem document"}.get(row.problem, f"`{row.problem}`")
        if row.paused:
            kind += ", paused: no Retry-After, and the words name a page"
        cells = (request, kind, row.status or "any", row.then, row.person or "nothing")
        yield f"| {' | '.join(cells)} |"


_HEAD: Final = """\
# What a CA may refuse

<!-- Written by `certbaton.ca.refusals.page`; tests/ca/test_refusals.py holds the two together. -->

A CA that refuses something says why: a type of problem, and a sentence. certbaton shows its words,
those for each name included, in the log, in Events and in `certbaton plan`, and after "to do:" what
a person should do where there is something.

The first line that fits counts. `validation` is what a CA says of a challenge that it looked at,
`issuance` what it says of an order that came to nothing; all others are requests, by the names of
RFC 8555. Of a problem that is several (`compound`), the first line that fits one of them counts.

"""

_FOOT: Final = """
- The back-off is 1, 10 and 100 minutes, then 24 hours each time, at most a fiftieth of the
  certificate's lifetime. A `Retry-After` of the CA's, in seconds or as a date, is obeyed in full.
- Where the configuration has changed since (other names, another `keyType` or `profile`, a profile
  that is no longer `required`), the next order does not wait for that, and counts anew; it does for
  a limit, a refused account, and a time that the CA named.
- A limit with a time that counts new accounts, or new orders of the account (Let's Encrypt: "from
  this account"), is said to one certificate and obeyed by all. Renewals that name what they
  replace are not counted there, and so ask for themselves. Who waits for others there asks again
  every ten minutes, or when the CA says: the back-off does not grow beyond that.
- With several issuers, the next one is asked after three failures over an hour; after one, where
  the certificate is late.
- The types are those of RFC 8555 section 6.7, RFC 9773 (`alreadyReplaced`) and the profiles draft
  (`invalidProfile`). RFC 8738 (IP addresses) has none of its own. `conflict`, `invalidEmail` and
  `unsupportedProfile` are CAs' own.
"""
