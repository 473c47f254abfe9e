"""docs/issuers.md and docs/configuration.md say what the table and the models say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from certbaton.config import parse
from certbaton.settings_advice import advise
from certbaton.wellknown import KNOWN_CAS, KnownCa, known_at
from config.test_config_files import KEYS, WITHOUT_DEFAULT, plain

DOCS = Path(__file__).resolve().parents[2] / "docs"
ISSUERS = (DOCS / "issuers.md").read_text()
CONFIGURATION = (DOCS / "configuration.md").read_text()


def rows(text: str) -> list[list[str]]:
    """The cells of each line of a table, without its head."""
    found = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return [row for row in found if row[0].startswith("`")]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


TABLE = {
    quoted(row[0])[0]: row
    for row in rows(ISSUERS.partition("<!-- table:")[2].partition("<!-- end of table -->")[0])
}


def test_the_page_has_every_ca_of_the_table_and_no_other() -> None:
    """In the same order."""
    assert list(TABLE) == list(KNOWN_CAS)


@pytest.mark.parametrize("ca", KNOWN_CAS.values(), ids=list(KNOWN_CAS))
def test_the_page_says_what_the_table_says(ca: KnownCa) -> None:
    """Directories, CAA identities, external accounts, limits."""
    _, directory, caa, external, names, addresses, lifetime = TABLE[ca.name]
    assert quoted(directory) == [each for each in (ca.directory, ca.directory_ec) if each]
    assert quoted(caa) == list(ca.caa)
    by_mail = "by e-mail" if ca.external_account_api else "yes"
    assert external == (by_mail if ca.external_account else "no")
    assert names == str(ca.max_names)
    fit = [f"profile `{name}`" for name, each in ca.profiles.items() if each.ip_addresses]
    assert addresses == (", ".join(fit) or "no")
    assert lifetime == ("yes" if ca.lifetimes else "no")


def test_the_page_has_the_profiles_with_their_limits() -> None:
    """Those that Let's Encrypt has now."""
    text = ISSUERS.partition("| Let's Encrypt |")[2].partition("\n\n")[0]
    said = {quoted(row[0])[0]: (int(row[2]), row[3] == "yes") for row in rows(text)}
    profiles = KNOWN_CAS["letsencrypt"].profiles
    assert said == {
        name: (each.max_names, each.ip_addresses)
        for name, each in profiles.items()
        if not each.gone
    }


def test_the_table_is_sound() -> None:
    """Rehearsals and default profiles exist, directories are told apart."""
    directories = [d for ca in KNOWN_CAS.values() for d in (ca.directory, ca.directory_ec) if d]
    assert len(set(directories)) == len(directories)
    for name, ca in KNOWN_CAS.items():
        assert ca.name == name
        assert ca.caa
        assert ca.rehearsal is None or ca.rehearsal in KNOWN_CAS
        assert ca.rehearsal != name
        assert ca.default_profile is None or ca.default_profile in ca.profiles
        assert all(known_at(each) is ca for each in (ca.directory, ca.directory_ec) if each)


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", ISSUERS, re.DOTALL))
def test_the_examples_of_the_page_are_valid(block: str) -> None:
    """With a solver and names, which they leave out; nothing is advised about them."""
    read = yaml.safe_load(block)
    read = read.get("config", read)
    for item in read.get("certificates", []):
        item |= {"dnsNames": ["shop.example.com"], "solver": "web"}
    read["solvers"] = {"web": {"type": "http-01"}}
    assert advise(parse(yaml.safe_dump(read), {})) == ()


# --- configuration.md ------------------------------------------------------------------

SECTIONS = {"issuers": "issuers.NAME", "solvers": "solvers.NAME", "certificates": "certificates[]"}


def said_of_keys() -> dict[str, str]:
    """The default of each key in the tables of the page, by its path."""
    text = CONFIGURATION.partition("## Every key")[2].partition("\n## ")[0]
    return {quoted(row[0])[0]: row[1] for row in rows(text)}


def path_on_page(path: str) -> str:
    first, _, rest = path.partition(".")
    path = f"{SECTIONS.get(first, first)}.{rest}" if rest else first
    return path.replace(".services.", ".services[].").replace("Windows.", "Windows[].")


def test_the_page_has_every_key_and_no_other() -> None:
    """By its path; in the order of the models."""
    assert list(said_of_keys()) == [path_on_page(path) for path in KEYS]


@pytest.mark.parametrize("path", KEYS)
def test_the_page_has_the_defaults(path: str) -> None:
    """A key without one is required, or null where it may be left out."""
    default, said = plain(KEYS[path][0]), said_of_keys()[path_on_page(path)]
    if path.rsplit(".", 1)[-1] in WITHOUT_DEFAULT and default is None:
        return
    if isinstance(default, float):
        assert float(said.strip("`")) == pytest.approx(default, rel=2e-3)
    else:
        assert yaml.safe_load(said.strip("`")) == default
