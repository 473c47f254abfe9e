"""``certbaton account``: show, export, import, deactivate, roll-key."""

from __future__ import annotations

import stat
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from certbaton.ca.jwk import write_jwk
from certbaton.ca.session import thumbprint
from certbaton.cluster import Kind, records
from certbaton.cluster.store import Store
from certbaton.commands import accounts, keyfile
from certbaton.commands.keyfile import Kept
from certbaton.errors import CaUnavailable, ConfigurationError, PermanentError
from certbaton.model import Account, KeyType, ObjectRef
from certbaton.pki import PrivateKey
from commands.place import LAB, NOW, SPEC, Place, key
from fakes.ca import DIRECTORY

MINUTE = timedelta(minutes=1)


def there(place: Place) -> Account:
    """The account as it stands in the cluster."""
    account = place.store.account(DIRECTORY)
    assert account is not None
    return account


# --- show ------------------------------------------------------------------------------


def test_show_tells_all_but_the_key(place: Place) -> None:
    """URL, thumbprint, directory, what the CA says, and the terms; nothing is written."""
    mine = key()
    account = place.account(mine)
    assert accounts.show(place.desk, "lab") == 0
    for words in (account.url, thumbprint(mine), DIRECTORY, "status      valid", "terms"):
        assert str(words) in place.output
    assert mine.pem.splitlines()[1] not in place.output
    assert place.hands.writes == []


def test_show_says_what_is_wrong_with_it(place: Place) -> None:
    """Deactivated, forgotten, another one, or a CA that is away: exit code 1, in the CA's words."""
    account = place.account()
    place.ca.fail("findAccount", CaUnavailable("no answer"))
    assert accounts.show(place.desk, "lab") == 1
    assert "not known now: no answer" in place.output
    place.store.save_account_url(account, "https://ca.test/account/old")
    assert accounts.show(place.desk, "lab") == 1
    assert f"as another account, {account.url}" in place.output
    place.ca.deactivate_account(str(account.url))
    assert accounts.show(place.desk, "lab") == 1
    assert "the account is deactivated" in place.output
    place.ca.forget()
    assert accounts.show(place.desk, "lab") == 1
    assert "the CA does not know it: the daemon makes it anew" in place.output


def test_show_makes_no_alarm_of_a_key_that_the_ca_has_changed_already(place: Place) -> None:
    """Before the daemon has noted it: nothing is made anew."""
    old, new = key(), key()
    account = place.store.stage_next_key(place.account(old), new)
    place.ca.session(old, account.url).change_key(new)
    assert accounts.show(place.desk, "lab") == 1
    assert "the next one may be the account's by now" in place.output
    assert "anew" not in place.output
    assert "the daemon brings that to its end" in place.said[-1]


def test_show_before_the_ca_knows_it(place: Place) -> None:
    """There is nothing to back up, and what keeps the daemon from it is said elsewhere."""
    place.store.create_account(DIRECTORY, key())
    assert accounts.show(place.desk, "lab") == 0
    assert "before its first order" in place.said[-1] and "certbaton plan" in place.said[-1]


def test_show_before_there_is_an_account(place: Place) -> None:
    """No fault: the daemon makes it when it is needed."""
    assert accounts.show(place.desk, "lab") == 0
    assert "There is no account yet" in place.said[-1]


def test_show_names_what_is_broken(place: Place) -> None:
    """A Secret whose key somebody took away."""
    place.account()
    ref = place.store.account_secret(DIRECTORY)
    place.api.merge(Kind.SECRET, ref, {"data": {"tls.key": None}})
    assert accounts.show(place.desk, "lab") == 1
    assert "account's key is missing" in place.said[-1]


def test_an_issuer_is_known_by_name_directory_or_as_a_rehearsal(place: Place) -> None:
    """Anything else is a slip, told with the names that there are."""
    desk = place.desk
    assert desk.issuer("lab") == desk.issuer(DIRECTORY)
    assert desk.issuer("lab-staging").directory == "https://staging.ca.test/directory"
    with pytest.raises(ConfigurationError, match=r"'lap'.*there are the issuers lab, lab-staging"):
        desk.issuer("lap")


def test_an_account_that_no_certificate_needs_any_more_can_be_given_up(place: Place) -> None:
    """The issuer still stands in the configuration; only the daemon has no turn for it."""
    place.account()
    place.specs = (replace(SPEC, issuer=replace(LAB, name="next", directory="https://next.test")),)
    with pytest.raises(PermanentError, match="no certificate uses issuer lab"):
        accounts.roll_key(place.desk, "lab", MINUTE)
    assert not there(place).rolling
    assert accounts.show(place.desk, "lab") == 0
    assert accounts.deactivate(place.desk, "lab") == 0
    assert "the certificates that use this issuer: none" in place.asked[-1]


# --- export and import -----------------------------------------------------------------


def test_a_backup_restores_the_account(place: Place, tmp_path: Path) -> None:
    """In a cluster that has lost everything: same account, same key, same external account."""
    mine = key()
    account = place.account(mine)
    account = place.store.save_account_url(account, account.url, external_kid="kid-1")
    file = tmp_path / "backup.json"
    assert accounts.export(place.desk, "lab", file, "backup") == 0
    assert str(file) in place.output
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    ref = place.store.account_secret(DIRECTORY)
    metadata = place.api.read(Kind.SECRET, ref)["metadata"]
    place.api.delete(Kind.SECRET, ref, metadata["uid"], metadata["resourceVersion"])
    assert accounts.import_(place.desk, "lab", keyfile.load(file)) == 0
    assert place.store.account_key(DIRECTORY) == mine
    restored = there(place)
    assert (restored.url, restored.external_kid) == (account.url, "kid-1")
    assert str(account.url) in place.said[-1]


@pytest.mark.parametrize("form", ["pem", "jwk"])
def test_other_clients_get_the_key_in_their_form(place: Place, tmp_path: Path, form: str) -> None:
    """And what they keep is read back."""
    mine = key()
    place.account(mine)
    file = tmp_path / "key"
    assert accounts.export(place.desk, "lab", file, form) == 0
    assert file.read_text() == (mine.pem if form == "pem" else write_jwk(mine))
    assert keyfile.load(file) == Kept(mine)
    place.output  # noqa: B018 - holds no key


def test_an_export_overwrites_nothing(place: Place, tmp_path: Path) -> None:
    """Not a file, and not what a link leads to."""
    place.account()
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("precious")
    link.symlink_to(tmp_path / "elsewhere")
    for path in (file, link):
        with pytest.raises(ConfigurationError, match="not overwritten"):
            accounts.export(place.desk, "lab", path, "pem")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        accounts.export(place.desk, "lab", tmp_path / "no" / "file", "pem")
    assert file.read_text() == "precious"
    assert not (tmp_path / "elsewhere").exists()


def test_in_the_middle_of_a_roll_over_only_a_backup_holds_enough(
    place: Place, tmp_path: Path
) -> None:
    """Both keys; the CA says which one it knows by then."""
    old, new = key(), key()
    account = place.account(old)
    place.store.stage_next_key(account, new)
    with pytest.raises(PermanentError, match="being changed"):
        accounts.export(place.desk, "lab", tmp_path / "key", "pem")
    file = tmp_path / "backup"
    accounts.export(place.desk, "lab", file, "backup")
    place.ca.session(old, account.url).change_key(new)
    place.store.promote_next_key(there(place))
    assert accounts.import_(place.desk, "lab", keyfile.load(file)) == 0
    assert (there(place).url, place.store.account_key(DIRECTORY)) == (account.url, new)


def test_nothing_is_stored_that_the_ca_does_not_know(place: Place) -> None:
    """A key of another CA, or of its staging."""
    with pytest.raises(PermanentError, match="knows no account of this key; nothing was stored"):
        accounts.import_(place.desk, "lab", Kept(key()))
    assert place.hands.writes == []


def test_a_ca_that_is_away_keeps_an_import_waiting(place: Place) -> None:
    """Which account it is, only the CA can say."""
    place.ca.fail("findAccount", CaUnavailable("no answer"))
    with pytest.raises(CaUnavailable):
        accounts.import_(place.desk, "lab", Kept(key()))
    assert place.hands.writes == []


def test_another_account_is_replaced_when_told_to_and_its_key_kept(place: Place) -> None:
    """Without being told, nothing is done, and it is said how."""
    old, new = key(), key()
    before = place.account(old)
    url = place.ca.session(new).new_account()
    assert accounts.import_(place.desk, "lab", Kept(new)) == 1
    assert there(place) == before
    assert "--replace" in place.said[-1]
    assert accounts.import_(place.desk, "lab", Kept(new), replacing=True) == 0
    assert (there(place).url, place.store.account_key(DIRECTORY)) == (url, new)
    kept = [value for name, value in place.secret() if name.startswith("previous.")]
    assert kept == [records.encode(old.pem)]


def test_an_import_may_be_given_twice(place: Place) -> None:
    """The second time there is nothing to write."""
    mine = key()
    place.account(mine)
    assert accounts.import_(place.desk, "lab", Kept(mine)) == 0
    assert place.hands.writes == []


def test_a_backup_of_another_ca_is_refused_by_both_addresses(place: Place) -> None:
    """Before the CA is asked anything."""
    kept = Kept(key(), directory="https://elsewhere/directory")
    with pytest.raises(ConfigurationError, match=rf"https://elsewhere/directory.*{DIRECTORY}"):
        accounts.import_(place.desk, "lab", kept)
    assert place.ca.calls == []


def test_cert_managers_secret_is_read_where_it_lies(place: Place) -> None:
    """An RSA key in PKCS#1, under tls.key."""
    mine = PrivateKey.generate(KeyType.RSA_2048)
    ref = ObjectRef("cert-manager", "letsencrypt-account")
    place.api.create(Kind.SECRET, ref.namespace, records.secret(ref, {}, {"tls.key": mine.pem}))
    assert accounts.from_secret(place.desk, str(ref)) == Kept(mine)
    with pytest.raises(ConfigurationError, match="namespace/name"):
        accounts.from_secret(place.desk, "letsencrypt-account")
    with pytest.raises(ConfigurationError, match="no such Secret"):
        accounts.from_secret(place.desk, "cert-manager/nothing")
    place.api.merge(Kind.SECRET, ref, {"data": {"tls.key": records.encode("S3CRET")}})
    with pytest.raises(ConfigurationError, match=r"letsencrypt-account: tls\.key") as caught:
        accounts.from_secret(place.desk, str(ref))
    assert "S3CRET" not in str(caught.value)


# --- deactivate ------------------------------------------------------------------------


def test_deactivation_is_asked_first_and_is_for_good(place: Place) -> None:
    """The Secret stays, so that the daemon reports the account and makes no other one."""
    account = place.account()
    place.answer = False
    assert accounts.deactivate(place.desk, "lab") == 1
    assert accounts.show(place.desk, "lab") == 0
    place.answer = True
    assert accounts.deactivate(place.desk, "lab") == 0
    assert "the certificates that use this issuer: shop" in place.asked[-1]
    assert there(place) == account
    assert accounts.show(place.desk, "lab") == 1
    assert "the account is deactivated" in place.output


def test_there_is_nothing_to_deactivate_that_the_ca_does_not_know(place: Place) -> None:
    """It is not made for the purpose."""
    place.account()
    place.ca.forget()
    assert accounts.deactivate(place.desk, "lab") == 0
    assert place.asked == []
    assert "newAccount" not in place.ca.calls[1:]


# --- roll-key --------------------------------------------------------------------------


def promote(place: Place, after: timedelta) -> None:
    """Let the daemon change the key at the CA, and promote it, after a while."""

    def daemon(store: Store) -> None:
        account, new = store.account(DIRECTORY), store.next_account_key(DIRECTORY)
        old = store.account_key(DIRECTORY)
        if place.now >= NOW + after and account and old and new:
            place.ca.session(old, account.url).change_key(new)
            store.promote_next_key(account)

    place.daemon = daemon


def test_the_next_key_is_stored_and_the_daemon_awaited(place: Place) -> None:
    """One write, and 0 when the daemon has promoted it."""
    old = key()
    account = place.account(old)
    promote(place, timedelta(seconds=5))
    assert accounts.roll_key(place.desk, "lab", MINUTE) == 0
    assert [asked.verb for asked in place.hands.writes] == ["merge"]
    new = place.store.account_key(DIRECTORY)
    assert new is not None
    assert new != old
    assert there(place).url == account.url == place.ca.session(new).find_account()
    assert thumbprint(new) in place.said[-1]
    assert "new backup" in place.said[-1]


def test_the_new_key_is_of_the_issuers_type(place: Place) -> None:
    """RSA to EC, as configured."""
    place.account(PrivateKey.generate(KeyType.RSA_2048))
    promote(place, timedelta(0))
    accounts.roll_key(place.desk, "lab", MINUTE)
    new = place.store.account_key(DIRECTORY)
    assert new is not None
    assert new.type == "P-256"


def test_given_again_it_waits_for_the_same_key(place: Place) -> None:
    """6 while the daemon is away; no second key is made."""
    place.account()
    assert accounts.roll_key(place.desk, "lab", MINUTE) == 6
    staged = place.store.next_account_key(DIRECTORY)
    assert "Give this command again" in place.said[-1]
    promote(place, timedelta(0))
    assert accounts.roll_key(place.desk, "lab", MINUTE) == 0
    assert place.store.account_key(DIRECTORY) == staged


def test_it_is_refused_while_an_order_is_open_there(place: Place) -> None:
    """Its challenges are answered with the present key."""
    place.account()
    place.open_order("other")
    with pytest.raises(PermanentError, match="an order is open on this account, for other"):
        accounts.roll_key(place.desk, "lab", MINUTE)
    assert not there(place).rolling


def test_a_key_that_the_daemon_dropped_is_reported(place: Place) -> None:
    """The CA would not have it; the old one goes on."""
    place.account()
    place.daemon = lambda store: store.drop_next_key(there(place))
    assert accounts.roll_key(place.desk, "lab", MINUTE) == 1
    assert "was not changed" in place.said[-1]


def test_a_ca_without_key_changes_is_told_before_anything_is_stored(place: Place) -> None:
    """It would never end."""
    place.account()
    place.ca.resources -= {"keyChange"}
    with pytest.raises(PermanentError, match="no way to change a key"):
        accounts.roll_key(place.desk, "lab", MINUTE)
    assert not there(place).rolling


def test_no_change_is_begun_for_an_account_that_the_ca_does_not_take(place: Place) -> None:
    """It could not end, and nothing else could be done to that account meanwhile."""
    account = place.account()
    place.ca.deactivate_account(str(account.url))
    with pytest.raises(PermanentError, match=r"cannot be changed now.*deactivated"):
        accounts.roll_key(place.desk, "lab", MINUTE)
    place.ca.forget()
    with pytest.raises(PermanentError, match=r"cannot be changed now.*does not know it"):
        accounts.roll_key(place.desk, "lab", MINUTE)
    assert not there(place).rolling


def test_an_account_that_is_dead_while_its_key_is_changed_is_replaced(place: Place) -> None:
    """By --replace, as the CA's refusal is answered; that there is such a way is said before."""
    account = place.store.stage_next_key(place.account(), key())
    place.ca.deactivate_account(str(account.url))
    new = key()
    url = place.ca.session(new).new_account()
    with pytest.raises(PermanentError, match="or with --replace"):
        accounts.import_(place.desk, "lab", Kept(new))
    assert accounts.import_(place.desk, "lab", Kept(new), replacing=True) == 0
    assert (there(place).url, there(place).rolling) == (url, False)
    assert place.store.account_key(DIRECTORY) == new


def test_a_key_that_cannot_be_read_is_restored(place: Place) -> None:
    """From the backup, with --replace, as is said."""
    mine = key()
    place.account(mine)
    ref = place.store.account_secret(DIRECTORY)
    place.api.merge(Kind.SECRET, ref, {"data": {"tls.key": "Z2FyYmxlZA=="}})
    with pytest.raises(PermanentError, match="account import --replace"):
        accounts.import_(place.desk, "lab", Kept(mine))
    assert accounts.import_(place.desk, "lab", Kept(mine), replacing=True) == 0
    assert accounts.show(place.desk, "lab") == 0


def test_without_an_account_there_is_no_key_to_change(place: Place) -> None:
    """Nor one to export or give up."""
    none = pytest.raises(PermanentError, match="issuer lab has no account yet")
    with none:
        accounts.roll_key(place.desk, "lab", MINUTE)
    with none:
        accounts.export(place.desk, "lab", Path("unwritten"), "pem")
    with none:
        accounts.deactivate(place.desk, "lab")


def test_nothing_else_is_done_to_an_account_whose_key_is_being_changed(place: Place) -> None:
    """The next key may be the only one that the CA knows."""
    mine = key()
    place.store.stage_next_key(place.account(mine), key())
    for kept, replacing in ((key(), False), (mine, True)):
        with pytest.raises(PermanentError, match="being changed"):
            accounts.import_(place.desk, "lab", Kept(kept), replacing=replacing)
    with pytest.raises(PermanentError, match="being changed"):
        accounts.deactivate(place.desk, "lab")
