"""``docs/caa.md`` has each sentence that may be told, and no other."""

import re
from pathlib import Path

from caa.test_judge import ACCOUNT, IN_THE_WAY, OTHER, found, told
from certbaton.caa import Found
from certbaton.wellknown import KNOWN_CAS

TEXT = (Path(__file__).parents[2] / "docs" / "caa.md").read_text(encoding="utf-8")


def patterns() -> list[re.Pattern[str]]:
    """The sentences of the page, with what stands for something else taken as anything."""
    rows = re.findall(r"^\| `(NAME: .*?)` \|", TEXT, re.MULTILINE)
    return [
        re.compile(re.sub("NAME|PLACE|…", ".+", re.escape(row).replace(r"\…", "…"))) for row in rows
    ]


def test_the_page_has_each_sentence() -> None:
    """Whoever searches for what an Event says finds it; nothing is explained that never comes."""
    pinned = found(f"letsencrypt.org; accounturi={OTHER}")
    sentences = [
        *(sentence for _, sentence in IN_THE_WAY.values()),
        *told(pinned, account=None).sentences,
        *told(found("pki.goog"), identities=()).sentences,
        *told(found(";"), identities=()).sentences,
        *told(Found("a.test", trouble="no answer")).sentences,
    ]
    rows = patterns()
    assert len(rows) == 10
    assert [each for each in sentences if not any(row.fullmatch(each) for row in rows)] == []
    assert [row for row in rows if not any(row.fullmatch(each) for each in sentences)] == []


def test_the_page_has_each_well_known_ca() -> None:
    """By its name in the configuration, with the first of its identities."""
    rows = re.findall(r'^\| (`.*`) \| `example.com. CAA 0 issue "(.*)"` \|$', TEXT, re.MULTILINE)
    told_of = {name: domain for names, domain in rows for name in re.findall("`(.+?)`", names)}
    assert told_of == {name: ca.caa[0] for name, ca in KNOWN_CAS.items()}


def test_the_records_of_the_page_help() -> None:
    """Each can be read by a CA, the narrowed one too."""
    records = re.findall(r'^(?:\|.*`)?example\.com\. CAA 0 issue "(.*)"', TEXT, re.M)
    assert len(records) == 5
    for record in records:
        domain = record.partition(";")[0]
        account = "https://acme-v02.api.letsencrypt.org/acme/acct/123"
        assert account != ACCOUNT
        advice = told(found(record), identities=(domain,), account=account, method="dns-01")
        assert advice.sentences == ()
