"""Leaves of hand-made Secrets, and of our own that somebody took out of use."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives import serialization

from certbaton.cluster import records
from certbaton.cluster.contract import Kind
from certbaton.cluster.store import Store
from certbaton.model import Instance, ObjectRef
from certbaton.pki import PrivateKey
from cluster.builders import INSTANCE, b64, chain, key, stored
from fakes.kube import FakeApi

HAND_MADE = ObjectRef("certbaton", "legacy")
KEY = key()
PASSPHRASE = "a pass phrase"


Data = Mapping[str, str | PrivateKey | None]


def hand_made(
    api: FakeApi, text: str, namespace: str = "certbaton", data: Data | None = None
) -> None:
    """A Secret with *text* for its chain, and *data* beside it: `KEY` unless it says otherwise."""
    body = records.secret(ObjectRef(namespace, HAND_MADE.name), {}, {})
    body["data"] = {
        name: b64(value.pem if isinstance(value, PrivateKey) else value)
        for name, value in {"tls.crt": text, "tls.key": KEY, **(data or {})}.items()
        if value is not None
    }
    api.client("kubectl").create(Kind.SECRET, namespace, body)


def encrypted(of: PrivateKey) -> str:
    """As ``openssl genpkey -aes256`` writes it."""
    return of.unwrapped.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(PASSPHRASE.encode()),
    ).decode()


def test_a_hand_made_leaf_is_read_now_and_then(
    api: FakeApi, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One request in ten minutes."""
    clock = timedelta(days=1)
    monkeypatch.setattr("certbaton.cluster.foreign.time.monotonic", lambda: clock.total_seconds())
    assert store.foreign.leaf(HAND_MADE) is None
    hand_made(api, chain(KEY))
    api.requests.clear()
    assert store.foreign.leaf(HAND_MADE) is None, "asked a moment ago"
    assert api.requests == []
    clock += timedelta(seconds=601)
    leaf = store.foreign.leaf(HAND_MADE)
    assert leaf is not None and leaf.names == ("a.example",)
    assert store.foreign.leaf(HAND_MADE) == leaf
    assert [asked.verb for asked in api.requests] == ["read"]


@pytest.mark.parametrize("text", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA"])
def test_one_that_is_broken_is_none(api: FakeApi, store: Store, text: str) -> None:
    """It counts as due."""
    hand_made(api, text)
    assert store.foreign.leaf(HAND_MADE) is None


KEYS: dict[str, tuple[Data, bool]] = {
    "its own": ({}, True),
    "none": ({"tls.key": None}, False),
    "an empty one": ({"tls.key": ""}, False),
    "another one's": ({"tls.key": key()}, False),
    "no key at all": ({"tls.key": "by hand"}, False),
    "its own, encrypted, with the pass phrase that Oracle's controller takes": (
        {"tls.key": encrypted(KEY), "passphrase": PASSPHRASE},
        True,
    ),
    "its own, with a pass phrase that it does not need": ({"passphrase": PASSPHRASE}, True),
    "its own, encrypted, with another pass phrase": (
        {"tls.key": encrypted(KEY), "passphrase": "x"},
        False,
    ),
    "its own, encrypted, without": ({"tls.key": encrypted(KEY)}, False),
}


@pytest.mark.parametrize(("data", "good"), KEYS.values(), ids=KEYS)
def test_its_key_has_to_be_there_and_its_own(
    api: FakeApi, store: Store, data: Data, good: bool
) -> None:
    """No listener could serve it otherwise, so it is replaced at once; no key is kept."""
    hand_made(api, chain(KEY), data=data)
    assert (store.foreign.leaf(HAND_MADE) is not None) is good
    assert "PRIVATE KEY" not in repr(vars(store.foreign))


def test_one_elsewhere_is_not_asked_for(api: FakeApi, store: Store) -> None:
    """We have no rights there."""
    hand_made(api, chain(KEY), "shop")
    api.requests.clear()
    assert store.foreign.leaf(ObjectRef("shop", HAND_MADE.name)) is None
    assert api.requests == []


def test_a_version_that_a_person_took_out_of_use_is_none(api: FakeApi, store: Store) -> None:
    """By its label, as docs/operations.md says: it is no hand-made Secret that would do."""
    version = stored(store)
    api.merge(Kind.SECRET, version.ref, {"metadata": {"labels": {"certbaton.io/kind": None}}})
    assert store.foreign.leaf(version.ref) is None


def test_a_version_of_another_release_is_one_like_any_other(api: FakeApi, store: Store) -> None:
    """It is not ours, by its label; and neither are its labels ours to read anything into."""
    other = Store(api.client("other"), Instance("other", INSTANCE.namespace))
    version = stored(other)
    assert store.foreign.leaf(version.ref) == version.leaf
    store.cache.learn(api.read(Kind.SECRET, version.ref))
    assert store.versions() == ()
