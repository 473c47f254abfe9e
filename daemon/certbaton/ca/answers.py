"""
What a CA's answers say, in the words of ``model``: the reading half of ``session``.

It tolerates what CAs really send: status strings and challenge types that nobody knows, junk in
the directory, names in upper case and in any order.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urljoin

import requests

from certbaton.ca.net import jwk_of
from certbaton.ca.problems import (
    Problem,
    ResourceGone,
    one_line,
    read_error,
    read_json,
    retry_after,
    web_page,
)
from certbaton.errors import CaUnavailable, PermanentError
from certbaton.model import (
    AuthorizationInfo,
    ChallengeInfo,
    DirectoryInfo,
    OrderInfo,
    RenewalAnswer,
)
from certbaton.pki import PrivateKey, UnreadableCertificate, top_issuer

_BEGIN: Final = re.compile(r"-----BEGIN ([^\n-]*)")
_END: Final = "-----END CERTIFICATE-----"
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]+")  # section 8.3: base64url, nothing that steers a path


def thumbprint(account_key: PrivateKey) -> str:
    """What stands behind the token in a key authorization (section 8.1); it is no secret."""
    return base64url(jwk_of(account_key).thumbprint())


def read_directory(resources: Mapping[str, str], meta: object) -> DirectoryInfo:
    """What the directory's *meta* says (section 7.1.1), whatever that is."""
    given = meta if isinstance(meta, Mapping) else {}
    profiles, identities = given.get("profiles"), given.get("caaIdentities")
    terms = given.get("termsOfService")
    return DirectoryInfo(
        resources=frozenset(resources),
        profiles={str(name): str(text) for name, text in profiles.items()}
        if isinstance(profiles, Mapping)
        else {},
        caa_identities=tuple(str(each) for each in identities)
        if isinstance(identities, list)
        else (),
        external_account_required=given.get("externalAccountRequired") is True,
        terms_of_service=str(terms) if terms else None,
    )


def read_authorization(url: str, response: requests.Response, thumb: str) -> AuthorizationInfo:
    """The authorization with its challenges, answered by the account whose key has *thumb*."""
    document = json_object(response, "authorization")
    identifier = document.get("identifier")
    value = identifier.get("value") if isinstance(identifier, Mapping) else None
    name = one_line(value).lower()
    offered = document.get("challenges")
    refused = _challenge_error(offered)
    return AuthorizationInfo(
        url=url,
        name=name.removeprefix("*."),
        wildcard=document.get("wildcard") is True or name.startswith("*."),
        status=one_line(document.get("status")),
        challenges=tuple(
            _challenge(challenge, name.removeprefix("*."), thumb)
            for challenge in (offered if isinstance(offered, list) else ())
            if isinstance(challenge, Mapping)
        ),
        error=None if refused is None else str(refused),
        problem="" if refused is None else refused.type,
    )


def _challenge(document: Mapping[str, object], name: str, thumb: str) -> ChallengeInfo:
    kind = one_line(document.get("type"))
    token = str(document.get("token") or "")
    return ChallengeInfo(
        type=kind,
        url=str(document.get("url", "")),
        name=name,
        token=token,
        value=_value(kind, token, thumb),
        status=one_line(document.get("status") or "pending"),
    )


def _value(kind: str, token: str, thumb: str) -> str:
    if not _TOKEN.fullmatch(token):
        return ""
    key_authorization = f"{token}.{thumb}"
    if kind == "http-01":
        return key_authorization
    if kind == "dns-01":
        return base64url(hashlib.sha256(key_authorization.encode()).digest())
    return ""


def read_renewal(response: requests.Response) -> RenewalAnswer:
    """
    The window of RFC 9773 section 4.2; PermanentError for an answer that makes no sense.

    It is asked again soon enough, and would say the same: that is no outage.
    """
    try:
        document = json_object(response, "renewalInfo")
    except CaUnavailable as error:
        raise PermanentError(str(error)) from None
    window = document.get("suggestedWindow")
    start = _time(window.get("start")) if isinstance(window, Mapping) else None
    end = _time(window.get("end")) if isinstance(window, Mapping) else None
    if start is None or end is None or end <= start:
        raise PermanentError(
            f"the renewal information at {response.url} has no window that makes sense"
        )
    return RenewalAnswer(
        start,
        end,
        web_page(document.get("explanationURL")),
        retry_after(response.headers, datetime.now(UTC)),
    )


def read_order(url: str, response: requests.Response) -> OrderInfo:
    """The order at *url* as it stands (section 7.1.3)."""
    document = json_object(response, "order")
    authorizations = document.get("authorizations")
    certificate = document.get("certificate")
    refused = read_error(document.get("error"))
    return OrderInfo(
        url=url,
        status=one_line(document.get("status")),
        authorizations=tuple(
            str(each) for each in (authorizations if isinstance(authorizations, list) else ())
        ),
        finalize=str(document.get("finalize", "")),
        certificate=str(certificate) if certificate else None,
        expires=_time(document.get("expires")),
        error=None if refused is None else str(refused),
        retry_after=retry_after(response.headers, datetime.now(UTC)),
        problem="" if refused is None else refused.type,
    )


def _challenge_error(challenges: object) -> Problem | None:
    for challenge in challenges if isinstance(challenges, list) else ():
        if isinstance(challenge, Mapping) and (refused := read_error(challenge.get("error"))):
            return refused
    return None


def read_chain(response: requests.Response) -> str:
    """
    The chain as it came, not looked at.

    PermanentError where anything but certificates is in it, a private key say (section 11.4).
    ResourceGone where there is none, or one that breaks off: a proxy may have answered, and what
    was signed is no less signed for that.
    """
    text = response.content.decode("utf-8", "replace")
    begun = _BEGIN.findall(text)
    if set(begun) - {"CERTIFICATE"}:
        raise PermanentError(f"the chain at {response.url} holds more than certificates")
    if not begun or len(begun) > text.count(_END):
        raise ResourceGone(f"the answer at {response.url} is no whole chain of certificates")
    return text


def root_of(chain: str) -> str:
    """What stands above *chain*, in words where that isn't known."""
    try:
        return top_issuer(chain) or "one without a name"
    except UnreadableCertificate as error:
        return f"one that is unreadable ({error})"


def json_object(response: requests.Response, what: str) -> Mapping[str, object]:
    """Its body as a JSON object; CaUnavailable where it is none: a proxy may have answered."""
    document = read_json(response.content)
    if not isinstance(document, Mapping):
        raise CaUnavailable(f"the answer to {what} from {response.url} is no JSON object")
    return document


def location(response: requests.Response, what: str) -> str:
    """The URL of what was made; CaUnavailable where none came, or what is no URL."""
    found = response.headers.get("Location")
    if not found:
        raise CaUnavailable(f"the answer to {what} from {response.url} has no Location")
    return absolute(response, found, what)


def absolute(response: requests.Response, link: str, what: str) -> str:
    """A *link* of the answer to *what*, which may be relative; CaUnavailable where it is none."""
    try:
        return urljoin(response.url, link)
    except ValueError as error:
        words = f"the answer to {what} from {response.url} leads to no URL: {one_line(link)}"
        raise CaUnavailable(words) from error


def _time(value: object) -> datetime | None:
    """RFC 3339 as aware UTC; None for anything else, which then simply isn't known."""
    try:
        at = datetime.fromisoformat(str(value).upper())  # "t" and "z" are allowed, too
        return at.astimezone(UTC) if at.tzinfo else None
    except (ValueError, OverflowError):  # the first and the last day there is, in some zones
        return None


def base64url(data: bytes) -> str:
    """*data* as RFC 8555 writes it: without padding."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
