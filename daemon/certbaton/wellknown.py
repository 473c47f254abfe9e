"""
What is known of some CAs in advance: the one table of their directories and CAA identities.

Known when this was written; a CA's directory is the authority, and may say otherwise by now.
So what stands here fills in defaults and gives advice, and never forbids anything.
``docs/issuers.md`` shows the same table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

_LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
_LETS_ENCRYPT_STAGING = "https://acme-staging-v02.api.letsencrypt.org/directory"


@dataclass(frozen=True, slots=True)
class KnownProfile:
    """
    One profile of a CA, with its limits.

    *ip_addresses*: whether it has certificates for IP addresses. *gone*: the CA had it once.
    """

    max_names: int
    ip_addresses: bool = False
    gone: bool = False


@dataclass(frozen=True, slots=True)
class KnownCa:
    """
    A CA that can be named in place of its directory.

    *caa* are the identities that CAA records may name (RFC 8659); any one of them will do.
    *rehearsal* is the well-known name of the CA at which to try first. *default_profile* is what
    it takes where none is asked for; without *profiles* nothing is known of them.
    *external_account*: an account needs one (RFC 8555 section 7.3.4); *external_account_api* gives
    one for an e-mail address. *lifetimes*: whether it takes notAfter. *directory_ec* is where
    certificates with EC keys come from, if that is elsewhere.
    """

    name: str
    title: str
    directory: str
    caa: tuple[str, ...]
    rehearsal: str | None = None
    profiles: Mapping[str, KnownProfile] = field(default_factory=dict)
    default_profile: str | None = None
    max_names: int = 100
    external_account: bool = False
    external_account_api: str | None = None
    ip_addresses: bool = False
    lifetimes: bool = False
    directory_ec: str | None = None

    def profile(self, name: str | None) -> KnownProfile | None:
        """Give what is known of the profile *name*, or of the one that it takes without."""
        return self.profiles.get(name or self.default_profile or "")


_LETS_ENCRYPT_PROFILES = {
    "classic": KnownProfile(100),
    "tlsserver": KnownProfile(25),
    "shortlived": KnownProfile(25, ip_addresses=True),
    "tlsclient": KnownProfile(100, gone=True),
}

_TABLE = (
    KnownCa(
        "letsencrypt",
        "Let's Encrypt",
        _LETS_ENCRYPT,
        ("letsencrypt.org",),
        rehearsal="letsencrypt-staging",
        profiles=_LETS_ENCRYPT_PROFILES,
        default_profile="classic",
        ip_addresses=True,
    ),
    KnownCa(
        "letsencrypt-staging",
        "Let's Encrypt (staging)",
        _LETS_ENCRYPT_STAGING,
        ("letsencrypt.org",),
        profiles=_LETS_ENCRYPT_PROFILES,
        default_profile="classic",
        ip_addresses=True,
    ),
    KnownCa(
        "zerossl",
        "ZeroSSL",
        "https://acme.zerossl.com/v2/DV90",
        ("sectigo.com", "trust-provider.com", "usertrust.com", "comodoca.com", "comodo.com"),
        external_account=True,
        external_account_api="https://api.zerossl.com/acme/eab-credentials-email",
    ),
    KnownCa(
        "google",
        "Google Trust Services",
        "https://dv.acme-v02.api.pki.goog/directory",
        ("pki.goog",),
        profiles={"standard": KnownProfile(100), "minimal": KnownProfile(100)},
        default_profile="standard",
        external_account=True,
        lifetimes=True,
    ),
    KnownCa(
        "sslcom",
        "SSL.com",
        "https://acme.ssl.com/sslcom-dv-rsa",
        ("ssl.com",),
        max_names=2,
        external_account=True,
        directory_ec="https://acme.ssl.com/sslcom-dv-ecc",
    ),
)

KNOWN_CAS: Mapping[str, KnownCa] = {ca.name: ca for ca in _TABLE}


def known_at(directory: str) -> KnownCa | None:
    """Give the well-known CA whose directory that is; None where it is somebody else's."""
    for ca in _TABLE:
        if directory in (ca.directory, ca.directory_ec):
            return ca
    return None
