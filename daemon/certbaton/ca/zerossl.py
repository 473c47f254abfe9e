"""
External accounts of ZeroSSL's, which gives them to anybody for an e-mail address.

One request to an API that is not ACME's: a form with the address, and JSON with the key
identifier and the HMAC key, a new pair each time. Neither is ever part of a message.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime

from certbaton.ca.net import Net, Refused
from certbaton.ca.problems import error_for, one_line
from certbaton.ca.traffic import TRAFFIC, Traffic
from certbaton.errors import AccountRefused, CaUnavailable, ConfigurationError
from certbaton.model import ExternalAccountKey, IssuerSpec, KeyType
from certbaton.pki import PrivateKey


def external_account(issuer: IssuerSpec, traffic: Traffic = TRAFFIC) -> ExternalAccountKey:
    """
    A new external account for *issuer*'s e-mail address, from its ``external_account.api``.

    The request ends with *traffic*, as all others do. ConfigurationError without an address;
    AccountRefused where the API gives none for it; CaUnavailable or RateLimited where it cannot be
    asked now, or answers nonsense.
    """
    api = issuer.external_account.api if issuer.external_account else None
    if api is None:
        raise ValueError(f"issuer {issuer.name} gets no external account by e-mail")
    if not issuer.email:
        raise ConfigurationError(
            "the CA gives an external account for an e-mail address only; set email, or name a "
            "Secret in externalAccount",
            where=f"issuer {issuer.name}",
        )
    # the key signs nothing here: a Net is what ends in time, and knows proxies and bundles
    net = Net(
        PrivateKey.generate(KeyType.EC_P256),
        None,
        ca_bundle=issuer.ca_bundle,
        timeout=issuer.timeout,
        connect_timeout=issuer.connect_timeout,
        proxy=issuer.proxy,
        traffic=traffic,
    )
    try:
        answer = _object(net.form("externalAccount", api, {"email": issuer.email}).content)
    except Refused as refused:
        raise error_for("externalAccount", refused.problem, datetime.now(UTC)) from refused
    if answer is None:
        raise CaUnavailable(f"the answer of {api} is no JSON object")
    kid, hmac_key = answer.get("eab_kid"), answer.get("eab_hmac_key")
    if answer.get("success") not in (True, 1) or not (
        isinstance(kid, str) and isinstance(hmac_key, str) and kid and hmac_key
    ):
        raise AccountRefused(
            f"{api} gives no external account for issuer {issuer.name}: {_why(answer)}; to do: "
            "see that email is right, or name a Secret in externalAccount"
        )
    return ExternalAccountKey(kid, hmac_key)


def _object(content: bytes) -> Mapping[str, object] | None:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, Mapping) else None


def _why(answer: Mapping[str, object]) -> str:
    """Its own words on what is wrong: ``{"error": {"code": 2800, "type": "invalid_email"}}``."""
    error = answer.get("error")
    words = [error.get("type"), error.get("code")] if isinstance(error, Mapping) else []
    said = [one_line(each) for each in words if isinstance(each, str | int)]
    return " ".join(said) or "it does not say why"
