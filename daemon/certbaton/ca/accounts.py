"""
What is signed inside of a request about accounts (RFC 8555 sections 7.3.4 and 7.3.5).

The inner JWS of an external account binding and of a key change: no HTTP here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final

from acme import jws, messages
from josepy.jwk import JWK

from certbaton.ca.net import Net, jwk_and_algorithm
from certbaton.errors import ConfigurationError, ExternalAccountRequired
from certbaton.model import ExternalAccountKey
from certbaton.pki import PrivateKey

# Base64url; some CAs pad it, and pasting leaves white space.
_HMAC_KEY: Final = re.compile(r"[A-Za-z0-9_-]+={0,2}")


def check(external: ExternalAccountKey, where: str = "") -> None:
    """ConfigurationError, without any of it, where *external*, read from *where*, binds nothing."""
    hmac_key = "".join(external.hmac_key.split())
    if not external.kid.strip() or not _HMAC_KEY.fullmatch(hmac_key):
        raise ConfigurationError(
            "the external account needs a key identifier (kid) and an HMAC key (hmacKey) in "
            "base64url, both as the CA shows them",
            where=where,
        )


def bind(account_key: JWK, external: ExternalAccountKey, url: str) -> Mapping[str, object]:
    """
    The ``externalAccountBinding`` of *account_key* for newAccount at *url* (section 7.3.4).

    ConfigurationError, without any of it, where the HMAC key is not base64url: the library would
    pass over what it cannot read, and the CA speak of a wrong signature.
    """
    check(external)
    hmac_key = "".join(external.hmac_key.split())
    return dict(
        messages.ExternalAccountBinding.from_data(
            account_public_key=account_key.public_key(),
            kid=external.kid.strip(),
            hmac_key=hmac_key.rstrip("="),
            directory=messages.Directory({"newAccount": url}),
        )
    )


def not_bound(issuer: str, directory: str) -> ExternalAccountRequired:
    """Tell the operator that the CA wants an external account, and *issuer* names none."""
    return ExternalAccountRequired(
        f"the CA at {directory} makes no account without an external one; get its key identifier "
        f"and HMAC key there, and name the Secret that holds them in {issuer}'s externalAccount"
    )


def key_change(net: Net, new_key: PrivateKey, url: str) -> Mapping[str, object]:
    """The payload of keyChange at *url*: signed by *new_key*, about the old one of *net*."""
    new, algorithm = jwk_and_algorithm(new_key)
    payload = {"account": net.account_url, "oldKey": net.jwk.public_key().to_json()}
    inner = jws.JWS.sign(
        json.dumps(payload).encode(), key=new, alg=algorithm, nonce=None, url=url, kid=None
    )
    document: Mapping[str, object] = json.loads(inner.json_dumps())
    return document
