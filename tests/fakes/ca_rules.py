"""What a `fakes.ca.FakeCa` refuses, and in whose words: Boulder's, where it has the rule."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from certbaton import pki
from certbaton.model import ExternalAccountKey

if TYPE_CHECKING:
    from fakes.ca import FakeCa
    from fakes.ca_records import Account, Order


def check_binding(ca: FakeCa, external: ExternalAccountKey | None) -> None:
    """Refuse a new account that is not bound as *ca* wants it."""
    if external is None:
        raise ca.refuse("newAccount", 403, "externalAccountRequired", "no binding was sent")
    if ca.external_accounts.get(external.kid) != external.hmac_key:
        raise ca.refuse("newAccount", 403, "unauthorized", "the external account is not known")
    if ca.external_once and external.kid in ca.external_used:
        raise ca.refuse("newAccount", 403, "unauthorized", "the external account is used up")


def check_order(
    ca: FakeCa,
    names: Sequence[str],
    profile: str | None,
    not_after: datetime | None,
) -> None:
    """Refuse an order for what it asks, whoever asks."""
    if ca.terms_changed:
        detail = f"the terms of service have changed: {ca.terms_changed}"
        raise ca.refuse("newOrder", 403, "userActionRequired", detail, terms=ca.terms_changed)
    if not_after is not None and not ca.takes_not_after:
        detail = "NotBefore and NotAfter are not supported"
        raise ca.refuse("newOrder", 400, "malformed", detail)
    if profile and (profile not in ca.profiles or profile in ca.refused_profiles):
        raise ca.refuse("newOrder", 400, "invalidProfile", f"no profile {profile!r}")
    for name in names:
        if name in ca.blocked:
            detail = f"policy forbids issuing for {name}"
            raise ca.refuse("newOrder", 400, "rejectedIdentifier", detail)


def check_replaces(ca: FakeCa, account: Account, names: Sequence[str], replaces: str) -> None:
    """Refuse a predecessor that is none (RFC 9773 section 5)."""
    found = [each for each in ca.issued if pki.leaf_of(each.chain).ari_id == replaces]
    if not found:
        raise ca.refuse("newOrder", 404, "malformed", "the replaced certificate is not known")
    if found[0].account_url != account.url:
        raise ca.refuse("newOrder", 403, "unauthorized", "another account's certificate")
    if not set(found[0].names) & set(names):
        raise ca.refuse("newOrder", 400, "malformed", "it shares no name with what it replaces")
    if any(order.replaces == replaces and counts(ca, order) for order in ca.all_orders()):
        raise ca.refuse("newOrder", 409, "alreadyReplaced", "it was replaced already")


def counts(ca: FakeCa, order: Order) -> bool:
    """Say whether *order* stands for its predecessor: Boulder counts those that are open too."""
    status = ca.status_of(order)
    return status == "valid" or (order.expires > ca.now() and status != "invalid")


def check_limits(ca: FakeCa, names: tuple[str, ...]) -> None:
    """Refuse the sixth certificate for one set of names, and names that failed too often."""
    same = [each.at for each in ca.issued if each.names == names]
    _limit(ca, same, ca.exact_set_limit, ca.exact_set_window, "certificates", names)
    for name in names:
        failed = [at for at, which in ca.failed_validations if which == name]
        limit, window = ca.failed_validation_limit, ca.failed_validation_window
        _limit(ca, failed, limit, window, "failed validations", (name,))


def _limit(
    ca: FakeCa,
    times: list[datetime],
    limit: int,
    window: timedelta,
    what: str,
    names: tuple[str, ...],
) -> None:
    recent = [at for at in times if at > ca.now() - window]
    if limit and len(recent) >= limit:
        detail = f"too many {what} ({limit}) for {', '.join(names)} in the last {window}"
        after = recent[-limit] + window - ca.now()
        raise ca.refuse("newOrder", 429, "rateLimited", detail, after)


def check_csr(ca: FakeCa, names: tuple[str, ...], csr: x509.CertificateSigningRequest) -> None:
    """Refuse a request for other names, or with a key that is an account's."""
    der = csr.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    key_sha256 = hashlib.sha256(der).hexdigest()
    try:
        proven = csr.is_signature_valid
    except InvalidSignature:
        proven = False
    if not proven or ca.is_account_key(key_sha256):
        raise ca.refuse("finalize", 400, "badCSR", "bad signature, or an account's key")
    san = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    found = {str(name.value).lower() for name in san}
    if tuple(sorted(found)) != names:
        raise ca.refuse("finalize", 403, "unauthorized", f"CSR names {sorted(found)}")


def challenge_value(kind: str, token: str, thumb: str) -> str:
    """What is to be shown for a challenge of *kind* (RFC 8555 section 8)."""
    key_authorization = f"{token}.{thumb}"
    if kind == "http-01":
        return key_authorization
    if kind == "dns-01":
        digest = hashlib.sha256(key_authorization.encode()).digest()
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")
    return ""
