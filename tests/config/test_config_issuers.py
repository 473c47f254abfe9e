"""Issuers: what each key comes to, what is known of CAs, and one sentence for each mistake."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import yaml

from certbaton.config import parse
from certbaton.errors import ConfigurationError
from certbaton.model import CertificateSpec, ExternalAccountSpec, IssuerSpec, KeyType
from certbaton.wellknown import KNOWN_CAS, known_at

LE = "https://acme-v02.api.letsencrypt.org/directory"
STAGING = "https://acme-staging-v02.api.letsencrypt.org/directory"
OWN = "https://ca.example/directory"


def text(issuers: dict[str, Any], /, **certificate: Any) -> str:
    asked = {"issuer": next(iter(issuers), "le")} | certificate
    if "issuers" in certificate:
        del asked["issuer"]
    shop = {"name": "shop", "dnsNames": ["shop.example.com"], "solver": "web"} | asked
    solvers = {"web": {"type": "http-01"}}
    return yaml.safe_dump(
        {"issuers": issuers, "solvers": solvers, "certificates": [shop]}, sort_keys=False
    )


def spec(issuers: dict[str, Any], /, **certificate: Any) -> CertificateSpec:
    (found,) = parse(text(issuers, **certificate), {}).specs()
    return found


def complaint(issuers: dict[str, Any], /, **certificate: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse(text(issuers, **certificate), {})
    return str(caught.value)


def test_every_key_of_an_issuer_reaches_the_specification() -> None:
    """One by one, under the names that the core has for them."""
    issuer = spec(
        {
            "own": {
                "directory": OWN,
                "caBundle": "/ca.pem",
                "email": "ops@example.com",
                "accountKeyType": "RSA-3072",
                "externalAccount": {"secretName": "eab"},
                "profile": "short",
                "profileMode": "required",
                "preferredChain": "Root X",
                "connectTimeout": "3s",
                "timeout": "20s",
                "proxy": "http://proxy.example:3128",
                "rehearsal": "https://stage.example/directory",
                "renewalInfo": False,
            }
        }
    ).issuer
    rehearsal = issuer.rehearsal
    assert issuer == IssuerSpec(
        name="own",
        directory=OWN,
        ca_bundle="/ca.pem",
        email="ops@example.com",
        profile="short",
        timeout=timedelta(seconds=20),
        connect_timeout=timedelta(seconds=3),
        profile_required=True,
        preferred_chain="Root X",
        proxy="http://proxy.example:3128",
        account_key_type=KeyType.RSA_3072,
        external_account=ExternalAccountSpec(secret="eab"),
        rehearsal=rehearsal,
        renewal_info=False,
    )
    assert rehearsal is not None
    assert rehearsal.directory == "https://stage.example/directory"


def test_the_defaults_are_those_of_the_issue() -> None:
    """10 s for getting through, 30 s for a request, renewal information on, a P-256 account."""
    assert spec({"own": {"directory": OWN}}).issuer == IssuerSpec("own", OWN)
    issuer = IssuerSpec("own", OWN)
    assert issuer.connect_timeout == timedelta(seconds=10)
    assert issuer.timeout == timedelta(seconds=30)
    assert issuer.renewal_info
    assert issuer.account_key_type is KeyType.EC_P256


def test_a_short_timeout_bounds_getting_through_as_well() -> None:
    """Nobody has to write both."""
    issuer = spec({"own": {"directory": OWN, "timeout": "4s"}}).issuer
    assert issuer.connect_timeout == issuer.timeout == timedelta(seconds=4)


@pytest.mark.parametrize("name", KNOWN_CAS)
def test_a_well_known_name_needs_no_directory(name: str) -> None:
    """Nor does another name whose directory is a well-known one."""
    known = KNOWN_CAS[name]
    keys = {"email": "ops@example.com"}
    assert spec({name: keys}).issuer.directory == known.directory
    assert spec({"mine": keys | {"directory": name}}).issuer.directory == known.directory
    assert known_at(known.directory) is known


def test_a_well_known_name_can_have_another_directory() -> None:
    """What is written goes first."""
    assert spec({"letsencrypt": {"directory": OWN}}).issuer.directory == OWN


def test_lets_encrypt_rehearses_at_its_staging_ca() -> None:
    """By default: with the same way out, the same mail address and the same profile."""
    keys = {"email": "ops@example.com", "proxy": "http://p.example:1", "profile": "shortlived"}
    rehearsal = spec({"letsencrypt": keys | {"profileMode": "required"}}).issuer.rehearsal
    assert rehearsal == IssuerSpec(
        name="letsencrypt-staging",
        directory=STAGING,
        email="ops@example.com",
        proxy="http://p.example:1",
        profile="shortlived",
    )


def test_a_configured_issuer_is_used_for_rehearsals() -> None:
    """Named, by its directory or by default; it has no rehearsal of its own."""
    stage = {"directory": STAGING, "email": "stage@example.com", "rehearsal": OWN}
    for way in ({}, {"rehearsal": "stage"}, {"rehearsal": STAGING}):
        keys = {"email": "ops@example.com"} | way
        rehearsal = spec({"letsencrypt": keys, "stage": stage}).issuer.rehearsal
        assert rehearsal == IssuerSpec("stage", STAGING, email="stage@example.com")


def test_a_rehearsal_goes_the_way_of_its_issuer() -> None:
    """Where its own keys say nothing; so an empty entry for it changes nothing."""
    keys = {"email": "ops@example.com", "proxy": "http://p.example:1", "timeout": "9s"}
    alone = spec({"letsencrypt": keys}).issuer
    assert spec({"letsencrypt": keys, "letsencrypt-staging": {}}).issuer == alone
    direct = spec({"letsencrypt": keys, "letsencrypt-staging": {"proxy": None}}).issuer.rehearsal
    assert direct is not None
    assert direct.proxy is None


def test_a_rehearsal_has_the_profile_that_the_certificate_needs() -> None:
    """Without it a CA may refuse names that the real one takes."""
    issuers = {"le": {"directory": LE, "profile": "shortlived"}, "letsencrypt-staging": {}}
    rehearsal = spec(issuers).issuer.rehearsal
    assert rehearsal is not None
    assert rehearsal.profile == "shortlived"


def test_rehearsals_can_be_switched_off() -> None:
    """And other CAs have none unless one is named."""
    assert spec({"letsencrypt": {"rehearsal": False}}).issuer.rehearsal is None
    assert spec({"own": {"directory": OWN}}).issuer.rehearsal is None


def test_a_list_of_issuers_keeps_its_order() -> None:
    """The first one is the wanted one, the others stand in for it."""
    issuers = {"a": {"directory": OWN}, "letsencrypt": {}, "zerossl": {"email": "o@example.com"}}
    found = spec(issuers, issuers=["zerossl", "letsencrypt", "a"])
    assert [each.name for each in found.issuers] == ["zerossl", "letsencrypt", "a"]
    assert found.issuer.name == "zerossl"


def test_zerossl_gives_its_external_account_by_mail() -> None:
    """Unless there is a Secret with one."""
    by_mail = spec({"zerossl": {"email": "o@example.com"}}).issuer.external_account
    assert by_mail == ExternalAccountSpec(api=KNOWN_CAS["zerossl"].external_account_api)
    secret = spec({"zerossl": {"externalAccount": {"secretName": "eab"}}}).issuer
    assert secret.external_account == ExternalAccountSpec(secret="eab")


def test_the_names_of_accounts_secrets_are_known_by_directory() -> None:
    """Only those that are written down."""
    issuers = {"a": {"directory": OWN, "accountSecret": "mine"}, "letsencrypt": {}}
    assert parse(text(issuers), {}).account_secrets() == {OWN: "mine"}


MISTAKES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no directory, and no well-known name": (
        {"le": {}},
        {},
        "issuers.le.directory: this key is required: the address of the CA's directory, or one of "
        "the well-known names letsencrypt, letsencrypt-staging, zerossl, google, sslcom",
    ),
    "a required profile that is not named": (
        {"le": {"directory": OWN, "profileMode": "required"}},
        {},
        "issuers.le.profile: this key is required, as profileMode is required",
    ),
    "a profile mode that does not exist": (
        {"le": {"directory": OWN, "profileMode": "must"}},
        {},
        "issuers.le.profileMode: 'must' is not one of preferred, required",
    ),
    "ZeroSSL without a mail address and without an external account": (
        {"zerossl": {}},
        {},
        "issuers.zerossl.email: this key is required for ZeroSSL without externalAccount: it gives "
        "an external account for an e-mail address",
    ),
    "an external account without its Secret": (
        {"google": {"externalAccount": {}}},
        {},
        "issuers.google.externalAccount.secretName: this key is required",
    ),
    "an external account's key in the file": (
        {"google": {"externalAccount": {"secretName": "eab", "hmacKey": "secret"}}},
        {},
        "issuers.google.externalAccount.hmacKey: unknown key; known here are secretName",
    ),
    "a proxy without a scheme": (
        {"le": {"directory": OWN, "proxy": "proxy.example:3128"}},
        {},
        "issuers.le.proxy: 'proxy.example:3128' is not a proxy's address such as "
        "http://proxy.example.com:3128",
    ),
    "a proxy with a port that is none": (
        {"le": {"directory": OWN, "proxy": "http://proxy.example:99999"}},
        {},
        "issuers.le.proxy: 'http://proxy.example:99999' is not a proxy's address such as "
        "http://proxy.example.com:3128",
    ),
    "a proxy with a password": (
        {"le": {"directory": OWN, "proxy": "http://me:hunter2@proxy.example:3128"}},
        {},
        "issuers.le.proxy: an @ has no place here, as user and password are secrets; set "
        "HTTPS_PROXY from a Secret instead",
    ),
    "a rehearsal that is nowhere": (
        {"le": {"directory": OWN, "rehearsal": "stage"}},
        {},
        "issuers.le.rehearsal: 'stage' is neither an issuer (known are le), nor a well-known name, "
        "nor the https:// address of an ACME directory; false switches rehearsals off",
    ),
    "a rehearsal that is a yes": (
        {"le": {"directory": OWN, "rehearsal": True}},
        {},
        "issuers.le.rehearsal: must be an issuer's name, the address of an ACME directory, or "
        "false, not true",
    ),
    "a rehearsal at the issuer itself": (
        {"le": {"directory": OWN, "rehearsal": "le"}},
        {},
        "issuers.le.rehearsal: it is this issuer's own directory; a rehearsal is held somewhere "
        "else",
    ),
    "an unknown issuer in a list": (
        {"le": {"directory": OWN}},
        {"issuers": ["le", "lets"]},
        "certificates[0].issuers[1]: there is no issuer 'lets'; known are le",
    ),
    "an issuer twice in a list": (
        {"le": {"directory": OWN}},
        {"issuers": ["le", "le"]},
        "certificates[0].issuers[1]: 'le' stands there twice",
    ),
    "one CA under two names in a list": (
        {"a": {"directory": OWN}, "b": {"directory": OWN, "profile": "short"}},
        {"issuers": ["a", "b"]},
        "certificates[0].issuers[1]: 'b' and 'a' have the same directory, so the one cannot stand "
        "in for the other",
    ),
    "an empty list of issuers": (
        {"le": {"directory": OWN}},
        {"issuers": []},
        "certificates[0].issuers: must have at least 1 entry",
    ),
    "one Secret for two accounts": (
        {
            "a": {"directory": OWN, "accountSecret": "same"},
            "letsencrypt": {"accountSecret": "same"},
        },
        {},
        "issuers.letsencrypt.accountSecret: Secret 'same' holds the account of issuers.a, which "
        "has another directory; each CA has an account of its own",
    ),
    "two Secrets for one account": (
        {
            "a": {"directory": OWN, "accountSecret": "one"},
            "b": {"directory": OWN, "accountSecret": "two"},
        },
        {},
        "issuers.b.accountSecret: must be as in issuers.a, which has the same directory: the "
        "account there is one and the same",
    ),
    "two mail addresses for one account": (
        {
            "a": {"directory": OWN, "email": "a@example.com"},
            "b": {"directory": OWN, "email": "b@example.com"},
        },
        {},
        "issuers.b.email: must be as in issuers.a, which has the same directory: the account there "
        "is one and the same",
    ),
    "one Secret for the account and for the external one": (
        {
            "a": {
                "directory": OWN,
                "accountSecret": "same",
                "externalAccount": {"secretName": "same"},
            }
        },
        {},
        "issuers.a.accountSecret: is also externalAccount.secretName; certbaton makes the "
        "account's Secret itself",
    ),
    "getting through may take longer than the whole": (
        {"le": {"directory": OWN, "connectTimeout": "1m"}},
        {},
        "issuers.le.connectTimeout: must not be longer than timeout, which is for the whole "
        "request",
    ),
    "an account key that no CA takes": (
        {"le": {"directory": OWN, "accountKeyType": "ed25519"}},
        {},
        "issuers.le.accountKeyType: 'ed25519' is not one of RSA-2048, RSA-3072, RSA-4096, P-256, "
        "P-384",
    ),
}


@pytest.mark.parametrize(
    ("issuers", "certificate", "expected"), MISTAKES.values(), ids=list(MISTAKES)
)
def test_a_mistake_about_issuers_gets_one_sentence(
    issuers: dict[str, Any], certificate: dict[str, Any], expected: str
) -> None:
    """It begins with the path of the key, and has no password in it."""
    said = complaint(issuers, **certificate)
    assert said == expected
    assert "hunter2" not in said


def test_issuer_and_issuers_exclude_each_other() -> None:
    """One of the two there must be."""
    both = yaml.safe_load(text({"le": {"directory": OWN}}))
    both["certificates"][0]["issuers"] = ["le"]
    with pytest.raises(ConfigurationError, match=r"^certificates\[0\].issuers: issuer is set too"):
        parse(yaml.safe_dump(both), {})
    neither = yaml.safe_load(text({"le": {"directory": OWN}}))
    del neither["certificates"][0]["issuer"]
    with pytest.raises(ConfigurationError, match=r"^certificates\[0\].issuer: this key is requi"):
        parse(yaml.safe_dump(neither), {})
