"""Accounts in Secrets: made, imported, their keys changed, and what binds them."""

from __future__ import annotations

import pytest

from certbaton.cluster import records
from certbaton.cluster.contract import Kind
from certbaton.cluster.store import Store
from certbaton.errors import ConfigurationError, Conflict, PermanentError
from certbaton.model import Account, ObjectRef
from certbaton.pki import PrivateKey
from cluster.builders import ACCOUNT_URL, DIRECTORY, INSTANCE, b64, key, reader
from fakes.kube import FakeApi

OTHER_URL = "https://ca.example/acct/2"


def entries(api: FakeApi) -> dict[str, str]:
    """What lies in the one Secret that is there."""
    (obj,) = api.all(Kind.SECRET).values()
    return {name: (records.decode(obj, name) or b"").decode() for name in obj["data"]}


def known(store: Store, mine: PrivateKey) -> Account:
    """An account that the CA knows."""
    return store.save_account_url(store.create_account(DIRECTORY, mine), ACCOUNT_URL)


def test_an_account_is_its_key_first(api: FakeApi, store: Store) -> None:
    """Key stored, then the URL; one request each."""
    mine = key()
    account = store.create_account(DIRECTORY, mine)
    assert (account.directory, account.url) == (DIRECTORY, None)
    assert store.account_key(DIRECTORY) == mine
    account = store.save_account_url(account, ACCOUNT_URL)
    assert store.account(DIRECTORY) == account == reader(api).account(DIRECTORY)
    assert reader(api).account_key(DIRECTORY) == mine
    account = store.save_account_url(account, None)
    assert account.url is None
    assert [asked.verb for asked in api.requests] == ["create", "merge", "merge"]


def test_the_first_key_of_an_account_wins(api: FakeApi, store: Store) -> None:
    """A second writer gets the account that is there, with its key."""
    mine = key()
    first = reader(api).create_account(DIRECTORY, mine)
    assert store.create_account(DIRECTORY, key()) == first
    assert store.account_key(DIRECTORY) == mine


def test_an_account_may_lie_in_a_secret_of_another_name(api: FakeApi) -> None:
    """Where it is written and looked for; other directories keep the usual name."""
    named = Store(api, INSTANCE, {DIRECTORY: "le-account"})
    named.cache.relist()
    account = named.save_account_url(named.create_account(DIRECTORY, key()), ACCOUNT_URL)
    assert list(api.all(Kind.SECRET)) == [ObjectRef("certbaton", "le-account")]
    assert named.account(DIRECTORY) == account
    other = "https://other.example/directory"
    assert named.account_secret(other) == reader(api).account_secret(other)


def test_an_account_without_its_key_is_a_problem(api: FakeApi, store: Store) -> None:
    """It is no account, and is not overwritten."""
    store.create_account(DIRECTORY, key())
    (ref,) = api.all(Kind.SECRET)
    api.merge(Kind.SECRET, ref, {"data": {"tls.key": None}})
    store.cache.relist()
    assert store.account(DIRECTORY) is None
    assert "key is missing" in store.problems()[0]
    with pytest.raises(PermanentError, match="key is missing"):
        store.create_account(DIRECTORY, key())


def test_a_key_that_cannot_be_read_is_permanent_and_not_quoted(api: FakeApi, store: Store) -> None:
    """The error names the Secret only."""
    store.create_account(DIRECTORY, key())
    (ref,) = api.all(Kind.SECRET)
    api.merge(Kind.SECRET, ref, {"data": {"tls.key": b64("S3CRET")}})
    store.cache.relist()
    with pytest.raises(PermanentError) as caught:
        store.account_key(DIRECTORY)
    assert "S3CRET" not in str(caught.value)
    assert caught.value.__context__ is None


def test_the_external_account_stays_noted(api: FakeApi, store: Store) -> None:
    """It was used once, and the CA takes it once: a later URL does not forget it."""
    account = store.save_account_url(
        store.create_account(DIRECTORY, key()), ACCOUNT_URL, external_kid="kid-1"
    )
    account = store.save_account_url(account, None)
    assert account == reader(api).account(DIRECTORY)
    assert (account.url, account.external_kid) == (None, "kid-1")


# --- another key -----------------------------------------------------------------------


def test_the_next_key_lies_beside_the_present_one(api: FakeApi, store: Store) -> None:
    """Another process finds both, and knows that a roll-over is under way."""
    old, new = key(), key()
    account = store.stage_next_key(known(store, old), new)
    assert account.rolling
    seen = reader(api)
    assert seen.account(DIRECTORY) == account == store.account(DIRECTORY)
    assert (seen.account_key(DIRECTORY), seen.next_account_key(DIRECTORY)) == (old, new)


def test_a_next_key_that_the_ca_may_know_is_never_overwritten(api: FakeApi, store: Store) -> None:
    """The same again is fine: the answer to the write may have been lost."""
    new = key()
    account = store.stage_next_key(known(store, key()), new)
    account = store.stage_next_key(account, new)
    with pytest.raises(PermanentError, match="being changed already"):
        store.stage_next_key(account, key())
    assert reader(api).next_account_key(DIRECTORY) == new


def test_promotion_is_one_write(api: FakeApi, store: Store) -> None:
    """The new key in, the old one out: no crash leaves half of it."""
    old, new = key(), key()
    account = store.stage_next_key(known(store, old), new)
    api.requests.clear()
    account = store.promote_next_key(account)
    assert [asked.verb for asked in api.requests] == ["merge"]
    assert entries(api).keys() == {"account", "tls.key"}
    assert reader(api).account(DIRECTORY) == account
    assert (account.url, account.rolling) == (ACCOUNT_URL, False)
    assert reader(api).account_key(DIRECTORY) == new
    with pytest.raises(Conflict, match="no next key"):
        store.promote_next_key(account)


def test_what_changed_meanwhile_is_not_promoted(api: FakeApi, store: Store) -> None:
    """Somebody else wrote: look again."""
    account = store.stage_next_key(known(store, key()), key())
    reader(api).save_account_url(account, OTHER_URL)
    with pytest.raises(Conflict):
        store.promote_next_key(account)
    store.cache.relist()
    with pytest.raises(Conflict):
        store.promote_next_key(account)
    assert "next.key" in entries(api)


def test_a_refused_key_is_dropped(api: FakeApi, store: Store) -> None:
    """The old one stays the account's."""
    old = key()
    account = store.drop_next_key(store.stage_next_key(known(store, old), key()))
    assert reader(api).account(DIRECTORY) == account
    assert (account.rolling, reader(api).next_account_key(DIRECTORY)) == (False, None)
    assert reader(api).account_key(DIRECTORY) == old


def test_a_next_key_that_cannot_be_read_is_told_by_its_name(api: FakeApi, store: Store) -> None:
    """Never quoted, and never promoted."""
    account = known(store, key())
    (ref,) = api.all(Kind.SECRET)
    api.merge(Kind.SECRET, ref, {"data": {"next.key": b64("S3CRET")}})
    store.cache.relist()
    rolling = store.account(DIRECTORY)
    assert rolling is not None
    assert rolling.rolling
    for ask in (
        lambda: store.next_account_key(account.directory),
        lambda: store.promote_next_key(rolling),
    ):
        with pytest.raises(PermanentError, match=r"its next\.key cannot be read") as caught:
            ask()
        assert "S3CRET" not in str(caught.value)


# --- import ----------------------------------------------------------------------------


def test_an_imported_account_is_one_like_any_other(api: FakeApi, store: Store) -> None:
    """One request; the same once more is none."""
    mine = key()
    account = store.import_account(DIRECTORY, mine, ACCOUNT_URL)
    assert [asked.verb for asked in api.requests] == ["create"]
    assert store.import_account(DIRECTORY, mine, ACCOUNT_URL) == account
    assert [asked.verb for asked in api.requests] == ["create"]
    assert reader(api).account(DIRECTORY) == account
    assert reader(api).account_key(DIRECTORY) == mine


def test_another_account_is_replaced_only_when_told_to(api: FakeApi, store: Store) -> None:
    """And its key is kept in the Secret, however often that happens."""
    keys = [key(), key(), key()]
    known(store, keys[0])
    with pytest.raises(PermanentError, match="another account"):
        store.import_account(DIRECTORY, keys[1], OTHER_URL)
    for each in keys[1:]:
        account = store.import_account(DIRECTORY, each, OTHER_URL, replacing=True)
    assert reader(api).account(DIRECTORY) == account
    assert reader(api).account_key(DIRECTORY) == keys[2]
    previous = {
        PrivateKey.load(text) for name, text in entries(api).items() if name.startswith("previous.")
    }
    assert previous == set(keys[:2])


def test_an_import_brings_a_lost_key_back(api: FakeApi, store: Store) -> None:
    """Somebody took tls.key away: nothing is replaced by it."""
    mine = key()
    known(store, mine)
    (ref,) = api.all(Kind.SECRET)
    api.merge(Kind.SECRET, ref, {"data": {"tls.key": None}})
    store.cache.relist()
    store.import_account(DIRECTORY, mine, ACCOUNT_URL)
    assert (store.account_key(DIRECTORY), store.problems()) == (mine, ())


def test_an_import_waits_for_a_roll_over_unless_told_not_to(api: FakeApi, store: Store) -> None:
    """
    The CA may know the next key only: it must not be lost. An account that is dead in the middle
    of it can be replaced all the same, and both keys are kept then.
    """
    old, following, mine = key(), key(), key()
    staged = store.stage_next_key(known(store, old), following)
    for each, replacing in ((mine, False), (old, True), (following, True)):
        with pytest.raises(PermanentError, match="being changed"):
            store.import_account(DIRECTORY, each, OTHER_URL, replacing=replacing)
    account = store.import_account(DIRECTORY, mine, OTHER_URL, replacing=True)
    assert (account.rolling, account.url) == (False, OTHER_URL)
    assert reader(api).account(DIRECTORY) == account
    assert reader(api).account_key(DIRECTORY) == mine
    previous = {
        PrivateKey.load(text) for name, text in entries(api).items() if name.startswith("previous.")
    }
    assert previous == {old, following}
    with pytest.raises(Conflict):
        store.promote_next_key(staged)


def test_an_import_takes_the_place_of_a_key_that_cannot_be_read(api: FakeApi, store: Store) -> None:
    """As the sentence about that key says; what lay there is kept, whatever it is."""
    mine = key()
    known(store, mine)
    (ref,) = api.all(Kind.SECRET)
    api.merge(Kind.SECRET, ref, {"data": {"tls.key": "Z2FyYmxlZA=="}})
    store.cache.relist()
    with pytest.raises(PermanentError, match="import --replace"):
        store.account_key(DIRECTORY)
    with pytest.raises(PermanentError, match="--replace"):
        store.import_account(DIRECTORY, mine, ACCOUNT_URL)
    store.import_account(DIRECTORY, mine, ACCOUNT_URL, replacing=True)
    assert (store.account_key(DIRECTORY), store.problems()) == (mine, ())
    assert "garbled" in entries(api).values()


def test_an_import_over_what_changed_is_a_conflict(api: FakeApi, store: Store) -> None:
    """The account that is replaced is the one that was looked at."""
    account = known(store, key())
    reader(api).save_account_url(account, OTHER_URL)
    with pytest.raises(Conflict):
        store.import_account(DIRECTORY, key(), ACCOUNT_URL, replacing=True)


def test_no_repr_shows_the_next_key(store: Store) -> None:
    """Nor the present one."""
    old, new = key(), key()
    store.stage_next_key(known(store, old), new)
    shown = repr(store.cache.items())
    for each in (old, new):
        assert each.pem.splitlines()[1] not in shown


# --- external accounts -----------------------------------------------------------------


def external(api: FakeApi, **data: str) -> None:
    body = records.secret(ObjectRef("certbaton", "eab"), {}, data)
    api.create(Kind.SECRET, "certbaton", body)


def test_an_external_account_is_read_live(api: FakeApi, store: Store) -> None:
    """One request, whatever line ends somebody's editor added; its key is in no repr."""
    external(api, kid="kid-1\n", hmacKey="c2VjcmV0\n")
    api.requests.clear()
    found = store.external_account("eab")
    assert [asked.verb for asked in api.requests] == ["read"]
    assert (found.kid, found.hmac_key) == ("kid-1", "c2VjcmV0")
    assert "c2VjcmV0" not in repr(found)


def test_a_missing_external_account_is_a_mistake_told_by_its_name(
    api: FakeApi, store: Store
) -> None:
    """The Secret, or the entry, and what to do."""
    with pytest.raises(ConfigurationError, match=r"Secret certbaton/eab: there is no such Secret"):
        store.external_account("eab")
    external(api, kid="kid-1", hmacKey=" ")
    with pytest.raises(ConfigurationError, match=r"Secret certbaton/eab: hmacKey: it is missing"):
        store.external_account("eab")
