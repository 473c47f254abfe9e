"""Accounts and revocation by the command line, at a real API server and a real CA."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path
from typing import Any

import pytest
import requests

from certbaton.ca.jwk import read_jwk
from certbaton.ca.session import Session, thumbprint
from certbaton.model import IssuerSpec, KeyType
from certbaton.pki import PrivateKey
from e2e.harness import Certbaton, Ended, content, leaf, name_of
from e2e.test_no_keys import fragments
from lab.kube import KubeError
from lab.pebble import Pebble
from lab.world import NAMESPACE, World

pytestmark = pytest.mark.servers

Obj = dict[str, Any]
SECRETS = f"/api/v1/namespaces/{NAMESPACE}/secrets"


class Site:
    """A release of its own with one certificate, and what lies in its account's Secret."""

    def __init__(self, world: World, name: str, *, kubeconfig: Path | None = None) -> None:
        self.world = world
        self.name = name
        try:
            world.add_service("shop", name, f"{name}.example.test")
        except KubeError as error:
            if error.status != 409:
                raise
        entry = world.certificate(name, [f"{name}.example.test"], [("shop", name)])
        self.certbaton = Certbaton(
            world,
            world.configuration(entry, healthPort=0),
            release=name,
            kubeconfig=kubeconfig,
        )

    def obtain(self) -> Obj:
        """A certificate, handed over."""
        ended = self.certbaton.once()
        assert ended.code == 0, ended
        return self.certbaton.versions(self.name)[-1]

    def call(self, *words: str) -> Ended:
        """One command, which says something, and none of any key."""
        ended = self.certbaton.call(*words)
        said = ended.output + ended.errors
        assert said.strip()
        assert "Traceback" not in said
        secret = self.account_secret()
        for entry in ("tls.key", "next.key"):
            if secret is not None and entry in secret["data"]:
                pem = content(secret, entry).decode()
                assert not [piece for piece in fragments(pem) if piece in said]
        return ended

    def account_secret(self) -> Obj | None:
        found = self.world.plane.admin.list(
            SECRETS,
            labelSelector=f"certbaton.io/instance={self.name}.{NAMESPACE},"
            "certbaton.io/kind=account",
        )["items"]
        return found[0] if found else None

    @property
    def account_url(self) -> str:
        """As it is stored."""
        secret = self.account_secret()
        assert secret is not None
        return str(json.loads(content(secret, "account"))["url"])

    @property
    def account_key(self) -> PrivateKey:
        secret = self.account_secret()
        assert secret is not None
        return PrivateKey.load(content(secret, "tls.key"))


def status_at(pebble: Pebble, version: Obj) -> Obj:
    """What the CA says of a certificate: its status, and the reason of a revocation."""
    with requests.Session() as session:
        session.trust_env = False
        session.verify = str(pebble.ca_file)
        serial = f"{leaf(version).serial_number:x}"
        url = f"{pebble.management}/cert-status-by-serial/{serial}"
        answer: Obj = session.get(url, timeout=10).json()
        return answer


def notes_on(site: Site, version: Obj) -> Obj:
    found: Obj = site.world.plane.admin.get(f"{SECRETS}/{name_of(version)}")
    return dict(found["metadata"].get("annotations", {}))


def test_show_tells_which_account_it_is_and_how(calm_world: World) -> None:
    """By what the CA says to the key."""
    site = Site(calm_world, "shown")
    before = site.call("account", "show", "lab")
    assert before.code == 0, before
    assert "There is no account yet" in before.output
    site.obtain()
    ended = site.call("account", "show", "lab")
    assert ended.code == 0, ended
    for words in (
        site.account_url,
        calm_world.pebble.directory,
        thumbprint(site.account_key),
        "status      valid",
        "terms       data:text/plain",
    ):
        assert words in ended.output
    slip = site.call("account", "show", "lap")
    assert slip.code == 2, slip
    assert "there are the issuers lab" in slip.errors


def test_a_backup_moves_an_account_to_another_release(calm_world: World, tmp_path: Path) -> None:
    """Which orders on it then: the CA makes no other one."""
    old, new = Site(calm_world, "moves"), Site(calm_world, "moved")
    old.obtain()
    file = tmp_path / "backup.json"
    exported = old.call("account", "export", "lab", "--output", str(file))
    assert exported.code == 0, exported
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert old.call("account", "export", "lab", "--output", str(file)).code == 2
    imported = new.call("account", "import", "lab", "--input", str(file))
    assert imported.code == 0, imported
    version = new.obtain()
    assert notes_on(new, version)["certbaton.io/account"] == old.account_url
    assert new.account_key == old.account_key


def test_accounts_of_other_clients_are_imported(calm_world: World, tmp_path: Path) -> None:
    """certbot's JWK, a PEM key, and cert-manager's Secret; a key that no CA knows is refused."""
    lab = IssuerSpec("lab", calm_world.pebble.directory, ca_bundle=str(calm_world.pebble.ca_file))
    site = Site(calm_world, "imports", kubeconfig=calm_world.plane.kubeconfig_admin)
    theirs = Site(calm_world, "certbots")
    theirs.obtain()
    jwk = tmp_path / "private_key.json"
    theirs.call("account", "export", "lab", "--output", str(jwk), "--format", "jwk")
    assert read_jwk(json.loads(jwk.read_text())) == theirs.account_key
    assert site.call("account", "import", "lab", "--input", str(jwk)).code == 0
    assert site.account_url == theirs.account_url

    rsa = PrivateKey.generate(KeyType.RSA_2048)
    stranger = tmp_path / "stranger.pem"
    stranger.write_text(rsa.pem)
    refused = site.call("account", "import", "lab", "--input", str(stranger), "--replace")
    assert refused.code == 1, refused
    assert "knows no account of this key; nothing was stored" in refused.errors
    assert site.account_url == theirs.account_url

    url = Session(lab, rsa).new_account()
    calm_world.plane.create_namespace("cert-manager")
    calm_world.plane.admin.create(
        "/api/v1/namespaces/cert-manager/secrets",
        {
            "metadata": {"name": "lab-account"},
            "data": {"tls.key": base64.b64encode(rsa.pem.encode()).decode()},
        },
    )
    words = ("account", "import", "lab", "--from-secret", "cert-manager/lab-account")
    other = site.call(*words)
    assert other.code == 1, other
    assert "--replace" in other.output
    assert site.call(*words, "--replace").code == 0
    assert (site.account_url, site.account_key) == (url, rsa)
    secret = site.account_secret()
    assert secret is not None
    (kept,) = [entry for entry in secret["data"] if entry.startswith("previous.")]
    assert PrivateKey.load(content(secret, kept)) == theirs.account_key


def test_a_deactivated_account_is_reported_and_not_replaced(calm_world: World) -> None:
    """Nobody is there to ask, so it has to be said that it is meant."""
    site = Site(calm_world, "given-up")
    site.obtain()
    url = site.account_url
    asked = site.call("account", "deactivate", "lab")
    assert asked.code == 2, asked
    assert "give --yes if it is meant" in asked.errors
    assert site.call("account", "show", "lab").code == 0
    done = site.call("account", "deactivate", "lab", "--yes")
    assert done.code == 0, done
    assert url in done.output
    shown = site.call("account", "show", "lab")
    assert shown.code == 1, shown
    assert "status      refused: the CA refused findAccount" in shown.output, shown
    assert site.account_url == url
    again = site.call("account", "deactivate", "lab", "--yes")
    assert again.code == 1, again
    assert "deactivated" in again.errors


def test_a_leaked_key_is_revoked_and_the_intent_noted(calm_world: World) -> None:
    """Given again, it is well too."""
    site = Site(calm_world, "leaked")
    version = site.obtain()
    for _ in range(2):
        ended = site.call("revoke", "leaked", "--reason", "keyCompromise", "--yes")
        assert ended.code == 0, ended
        answer = status_at(calm_world.pebble, version)
        assert (answer["Status"], answer["Reason"]) == ("Revoked", 1)
    noted = json.loads(notes_on(site, version)["certbaton.io/revoked"])
    assert noted["reason"] == "keyCompromise"


def test_a_certificate_of_an_issuer_that_was_left_is_revoked(calm_world: World) -> None:
    """By that issuer's CA bundle, as it still stands in the configuration; given up then too."""
    site = Site(calm_world, "left")
    version, url = site.obtain(), site.account_url
    entry = calm_world.certificate("left", ["left.example.test"], [("shop", "left")])
    config = calm_world.configuration({**entry, "issuer": "next"}, healthPort=0)
    config["issuers"]["next"] = {"directory": "https://127.0.0.1:1/directory"}
    site.certbaton.configure(config)
    ended = site.call("revoke", "left", "--reason", "keyCompromise", "--yes")
    assert ended.code == 0, ended
    assert status_at(calm_world.pebble, version)["Status"] == "Revoked"
    done = site.call("account", "deactivate", "lab", "--yes")
    assert done.code == 0, done
    assert url in done.output


def test_the_same_command_again_leaves_the_successor_alone(calm_world: World) -> None:
    """Which the daemon has handed over meanwhile; it is the first one that the CA is told of."""
    site = Site(calm_world, "again")
    first = site.obtain()
    words = ("revoke", "again", "--reason", "superseded", "--yes")
    assert site.call(*words).code == 6
    second = site.obtain()
    assert name_of(second) != name_of(first)
    ended = site.call(*words)
    assert ended.code == 0, ended
    assert status_at(calm_world.pebble, first)["Status"] == "Revoked"
    assert status_at(calm_world.pebble, second)["Status"] == "Valid"
    assert "certbaton.io/revoked" not in notes_on(site, second)


def test_what_a_service_names_is_not_taken_from_under_its_users(calm_world: World) -> None:
    """Noted, 6, and valid still; --now revokes it, on the account that obtained it."""
    site = Site(calm_world, "superseded")
    version = site.obtain()
    words = ("revoke", "superseded", "--reason", "superseded", "--yes")
    waiting = site.call(*words)
    assert waiting.code == 6, waiting
    assert status_at(calm_world.pebble, version)["Status"] == "Valid"
    assert "certbaton.io/revoked" in notes_on(site, version)
    done = site.call(*words, "--now", "--secret", name_of(version))
    assert done.code == 0, done
    assert site.account_url in done.output
    answer = status_at(calm_world.pebble, version)
    assert (answer["Status"], answer["Reason"]) == ("Revoked", 4)


def test_a_wish_for_renewal_is_written_where_the_daemon_finds_it(calm_world: World) -> None:
    """With the rights of the chart's ServiceAccount."""
    site = Site(calm_world, "wished")
    version = site.obtain()
    ended = site.call("renew", "wished")
    assert ended.code == 0, ended
    assert name_of(version) in ended.output
    assert notes_on(site, version)["certbaton.io/renew-asked"]


def test_a_roll_over_stores_the_next_key_and_waits(calm_world: World) -> None:
    """Without a daemon it is not done, and says so; the present key goes on meanwhile."""
    site = Site(calm_world, "rolled")
    site.obtain()
    present = site.account_key
    waiting = site.call("account", "roll-key", "lab", "--timeout", "1s")
    assert waiting.code == 6, waiting
    secret = site.account_secret()
    assert secret is not None
    next_key = PrivateKey.load(content(secret, "next.key"))
    assert next_key != present == site.account_key
    assert thumbprint(next_key) in waiting.output
    shown = site.call("account", "show", "lab")
    assert "Its key is being changed" in shown.output
