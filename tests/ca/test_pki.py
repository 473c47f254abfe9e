"""Keys, requests and chains."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from certbaton import pki
from certbaton.errors import ConfigurationError, PermanentError
from certbaton.model import KeyType
from certbaton.pki import PrivateKey
from fakes.x509 import hierarchy, pem

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
NAMES = ("shop.example.com", "www.shop.example.com")
KEY = PrivateKey.generate(KeyType.EC_P256)
OTHER = PrivateKey.generate(KeyType.EC_P256)


def chain_for(
    key: PrivateKey = KEY,
    names: tuple[str, ...] = NAMES,
    begin: datetime = NOW - timedelta(hours=1),
    days: float = 90,
) -> str:
    public_key = key.unwrapped.public_key()
    return hierarchy().sign(public_key, names, begin, begin + timedelta(days=days))


GOOD = chain_for()
LEAF, INTERMEDIATE = (pem(each) for each in pki.read_chain(GOOD))
STRANGER = pem(hierarchy("Other").intermediate)
BROKEN = LEAF.replace("MII", "QUJ", 1)


@pytest.mark.parametrize("key_type", list(KeyType))
def test_a_key_survives_its_pem(key_type: KeyType) -> None:
    """Every key type is made, written as PKCS#8, read back, and knows its own type."""
    key = PrivateKey.generate(key_type)
    assert key.pem.startswith("-----BEGIN PRIVATE KEY-----\n")
    assert PrivateKey.load(key.pem) == key
    assert key.type == key_type


def test_a_key_shows_its_type_only() -> None:
    """Neither repr nor str nor a formatted container holds key material."""
    assert repr(KEY) == str(KEY) == "<PrivateKey P-256>"
    assert f"{[KEY]}" == "[<PrivateKey P-256>]"


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("a broken key", KEY.pem.replace("\n", "\nSECRET", 2)),
        ("no key", "SECRET"),
        ("nothing", ""),
        (
            "a key with a passphrase",
            KEY.unwrapped.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b"SECRET"),
            ).decode(),
        ),
        (
            "an Ed25519 key",
            ed25519.Ed25519PrivateKey.generate()
            .private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            .decode(),
        ),
    ],
)
def test_what_is_no_key_is_refused_without_its_content(what: str, text: str) -> None:
    """The whole traceback, causes included, holds nothing of what was read."""
    with pytest.raises(ConfigurationError, match="private key") as caught:
        PrivateKey.load(text)
    told = "".join(traceback.format_exception_only(caught.value)) + repr(caught.value)
    assert "SECRET" not in told
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_a_request_names_all_in_the_san_and_nothing_in_the_subject() -> None:
    """RFC 8555 section 7.4; a common name would be limited to 64 characters."""
    csr = x509.load_pem_x509_csr(pki.make_csr(KEY, ("*.example.com", *NAMES)).encode())
    san = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert san.get_values_for_type(x509.DNSName) == ["*.example.com", *NAMES]
    assert not list(csr.subject)
    assert csr.is_signature_valid


@pytest.mark.parametrize("names", [(), ("bücher.example",)])
def test_a_request_needs_names_that_fit(names: tuple[str, ...]) -> None:
    """No name, or one that isn't an A-label, is the operator's to correct."""
    with pytest.raises(ConfigurationError):
        pki.make_csr(KEY, names)


def test_the_facts_of_a_leaf() -> None:
    """Of a chain it is the first certificate; names are sorted and in lower case."""
    leaf = pki.leaf_of(chain_for(names=("WWW.Example.com", "a.example.com")))
    assert leaf.names == ("a.example.com", "www.example.com")
    assert leaf.not_before == NOW - timedelta(hours=1)
    assert leaf.lifetime == timedelta(days=90)
    assert leaf.key_type == "P-256"
    assert leaf.public_key_sha256 == KEY.public_key_sha256
    assert not leaf.self_signed
    assert pki.leaf_of(pem(hierarchy().root)).self_signed


def test_a_handshake_shows_the_same_facts() -> None:
    """DER and PEM of one certificate are one leaf."""
    der = pki.read_chain(GOOD)[0].public_bytes(serialization.Encoding.DER)
    assert pki.leaf_from_der(der) == pki.leaf_of(GOOD)
    with pytest.raises(pki.UnreadableCertificate):
        pki.leaf_from_der(der[:-1])


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("CRLF", GOOD.replace("\n", "\r\n")),
        ("text around", f"subject=CN\n{LEAF}\nissuer\n\n{INTERMEDIATE}trailing"),
        ("a key in between", LEAF + KEY.pem + INTERMEDIATE),
        ("other columns", LEAF + INTERMEDIATE.replace("\n", "").replace("-----M", "-----\nM")),
    ],
)
def test_equal_chains_become_equal_texts(what: str, text: str) -> None:
    """However it was written, the normal form, and so the version's name, is one."""
    assert pki.normalise_chain(text) == GOOD
    assert pki.normalise_chain(text.encode()) == GOOD


def test_a_version_is_named_by_its_content() -> None:
    """Certificate, day of notBefore and the hash of tls.crt: fit for a label, free of dots."""
    name = pki.version_name("shop", GOOD)
    assert name.startswith("shop-20261124-")
    assert len(name) == len("shop-20261124-") + 10
    assert name == pki.version_name("shop", GOOD)
    assert name != pki.version_name("shop", chain_for(OTHER))


@pytest.mark.parametrize(
    ("sentence", "chain", "key"),
    [
        ("the chain is unreadable: there is no certificate in it", "", KEY),
        ("the chain is unreadable: certificate 1 is not base64", LEAF.replace("MII", "!!!"), KEY),
        ("the chain is unreadable: certificate 2 cannot be parsed", LEAF + BROKEN, KEY),
        ("the private key is missing", GOOD, None),
        ("not an unencrypted private key in PEM form", GOOD, "junk"),
        ("the private key does not fit the certificate", GOOD, OTHER),
        ("the private key does not fit the certificate", INTERMEDIATE + LEAF, KEY),
        ("the chain is out of order: 2 did not issue 1", LEAF + LEAF, KEY),
        ("the chain is out of order: 2 did not issue 1", LEAF + pem(hierarchy().root), KEY),
        ("the chain is out of order: 2 did not issue 1", LEAF + STRANGER, KEY),
        (None, GOOD, KEY),
        (None, GOOD, KEY.pem),
        (None, GOOD + pem(hierarchy().root), KEY),
        (None, LEAF, KEY),
    ],
)  # fmt: skip
def test_a_flaw_is_one_sentence(
    sentence: str | None, chain: str, key: PrivateKey | str | None
) -> None:
    """What is wrong with a stored bundle, or None."""
    assert pki.flaw(chain, key) == sentence


def test_the_same_name_on_another_issuer_is_out_of_order() -> None:
    """Issuer and subject are compared, and the signature as well."""
    impostor = ec.generate_private_key(ec.SECP256R1())
    same_name = hierarchy().intermediate.subject
    forged = (
        x509.CertificateBuilder()
        .subject_name(same_name)
        .issuer_name(same_name)
        .public_key(impostor.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
        .sign(impostor, hashes.SHA256())
    )
    assert pki.flaw(LEAF + pem(forged), KEY) == "the chain is out of order: 2 did not issue 1"


@pytest.mark.parametrize(
    ("sentence", "make"),
    [
        ("does not fit", lambda: chain_for(OTHER)),
        ("it is for shop.example.com, not for shop", lambda: chain_for(names=NAMES[:1])),
        ("it is for a.example.com, shop", lambda: chain_for(names=("a.example.com", *NAMES))),
        ("it expired at 2026-11-24 11:30:00 UTC", lambda: chain_for(days=1 / 48)),
        ("begins at 2026-11-24 13:00:00 UTC", lambda: chain_for(begin=NOW + timedelta(hours=1))),
        ("out of order", lambda: LEAF + LEAF),
    ],
)  # fmt: skip
def test_a_certificate_that_was_not_asked_for_is_refused(
    sentence: str, make: Callable[[], str]
) -> None:
    """Before anything is stored: what the CA sent is not believed."""
    with pytest.raises(PermanentError, match=sentence):
        pki.check_bundle(make(), KEY, NAMES, KeyType.EC_P256, NOW)


def test_a_key_of_another_type_is_refused() -> None:
    """OCI's default cipher suite is RSA only: a P-256 leaf would fail every handshake there."""
    with pytest.raises(PermanentError, match=r"its key is P-256, not RSA-2048"):
        pki.check_bundle(GOOD, KEY, NAMES, KeyType.RSA_2048, NOW)


def test_an_expired_intermediate_is_refused() -> None:
    """A listener would send it, and many clients stop there."""
    late = datetime(2199, 12, 31, tzinfo=UTC)
    with pytest.raises(PermanentError, match="certificate 2 of its chain expired"):
        pki.check_bundle(
            chain_for(begin=late), KEY, NAMES, KeyType.EC_P256, late + timedelta(days=2)
        )


def test_what_was_asked_for_is_taken() -> None:
    """In any order and letter case of the names, and with a CA's clock slightly ahead."""
    pki.check_bundle(GOOD, KEY, ("WWW.shop.example.com", "shop.example.com"), KeyType.EC_P256, NOW)
    early = chain_for(begin=NOW + timedelta(minutes=2))
    pki.check_bundle(early, KEY, NAMES, KeyType.EC_P256, NOW)
