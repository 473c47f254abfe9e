"""What CAA records hold against an order, by the sections of RFC 8659 and RFC 8657."""

import pytest

from certbaton.caa import Advice, Found, Property, judge

ACCOUNT = "https://acme-v02.api.letsencrypt.org/acme/acct/1"
OTHER = "https://acme-v02.api.letsencrypt.org/acme/acct/2"
IDENTITIES = ("letsencrypt.org",)


def found(*records: str | tuple[int, str, bytes], name: str = "www.example.com") -> Found:
    """Records at example.com; a bare string is the value of an ``issue``."""
    properties = tuple(
        Property(0, "issue", each.encode("latin-1")) if isinstance(each, str) else Property(*each)
        for each in records
    )
    return Found(name, "example.com" if records else "", "", properties)


def wild(*records: str | tuple[int, str, bytes]) -> Found:
    """The same, asked for a wildcard."""
    return found(*records, name="*.example.com")


def told(
    *sets: Found,
    identities: tuple[str, ...] = IDENTITIES,
    account: str | None = ACCOUNT,
    method: str | None = "http-01",
) -> Advice:
    """Judge."""
    return judge(sets, identities, account, method)


FREE = {
    "RFC 8659 section 3: no records anywhere, no restriction": found(),
    "4.1: a tag that nobody knows is ignored": found((0, "unknown", b"x")),
    "4.1: flags that mean nothing are ignored": found((64, "unknown", b"x")),
    "4.1: a critical flag on a tag that CAs know": found((128, "issue", b"letsencrypt.org")),
    "4.2: it is named": found("letsencrypt.org"),
    "4.2: one of several is enough": found("pki.goog", "letsencrypt.org"),
    "4.2: a refusal beside a grant grants": found(";", "letsencrypt.org"),
    "4.2: spaces around it": found(" \tletsencrypt.org \t"),
    "4.2: a semicolon after it, and nothing": found("letsencrypt.org; "),
    "4.2: parameters that nobody knows": found("letsencrypt.org; policy=ev;tier=1"),
    "4.2: spaces around the parts of a parameter": found(
        f"letsencrypt.org ; accounturi = {ACCOUNT}"
    ),
    "4.2: a broken record beside a good one": found("letsencrypt.org; what", "letsencrypt.org"),
    "4.2: only iodef": found((0, "iodef", b"mailto:a@example.com")),
    "4.2: a critical iodef": found((128, "iodef", b"mailto:a@example.com")),
    "4.3: issuewild is no matter of other names": found((0, "issuewild", b"pki.goog")),
    "4.3: issue holds for wildcards without issuewild": wild("letsencrypt.org"),
    "4.3: issuewild in place of issue": wild(";", (0, "issuewild", b"letsencrypt.org")),
    "RFC 8657 section 3: our account": found(f"letsencrypt.org; accounturi={ACCOUNT}"),
    "3: ours beside another's": found(
        f"letsencrypt.org; accounturi={OTHER}", f"letsencrypt.org; accounturi={ACCOUNT}"
    ),
    "4: our method": found("letsencrypt.org; validationmethods=http-01"),
    "4: our method among others": found("letsencrypt.org; validationmethods=dns-01,ca-x,http-01"),
}


@pytest.mark.parametrize("records", FREE.values(), ids=FREE)
def test_nothing_is_said_where_nothing_is_in_the_way(records: Found) -> None:
    """What the two RFCs have a CA accept."""
    assert told(records).sentences == ()


IN_THE_WAY = {
    "RFC 8659 section 4.1: a critical tag that nobody knows": (
        found("letsencrypt.org", (128, "tbs", b"x")),
        'www.example.com: CAA at example.com has 128 tbs "x", whose flag forbids every CA that '
        "does not know the tag to issue: take it away, or set its flag to 0",
    ),
    "4.1: the flag 1, which Boulder takes for critical": (
        found((1, "tbs", b"x")),
        'www.example.com: CAA at example.com has 1 tbs "x", whose flag forbids every CA that '
        "does not know the tag to issue: take it away, or set its flag to 0",
    ),
    "4.2: others are named": (
        found("pki.goog", "sectigo.com"),
        "www.example.com: CAA at example.com does not let this CA issue: it has "
        '0 issue "pki.goog" and 0 issue "sectigo.com"; add the record '
        '0 issue "letsencrypt.org" there',
    ),
    "4.2: nobody is": (
        found(";"),
        'www.example.com: CAA at example.com lets no CA issue: it has 0 issue ";"; add the '
        'record 0 issue "letsencrypt.org" there',
    ),
    "4.2: nobody is, by an empty value": (
        found(""),
        'www.example.com: CAA at example.com lets no CA issue: it has 0 issue ""; add the record '
        '0 issue "letsencrypt.org" there',
    ),
    "4.2: a name below ours is another": (
        found("ca.letsencrypt.org"),
        "www.example.com: CAA at example.com does not let this CA issue: it has "
        '0 issue "ca.letsencrypt.org"; add the record 0 issue "letsencrypt.org" there',
    ),
    "4.2: what is no domain grants nothing": (
        found("letsencrypt.org."),
        'www.example.com: CAA at example.com lets no CA issue: it has 0 issue "letsencrypt.org." '
        '("letsencrypt.org." is not the name of a domain); add the record '
        '0 issue "letsencrypt.org" there',
    ),
    "4.2: parameters that are none grant nothing": (
        found("letsencrypt.org; http-01"),
        "www.example.com: CAA at example.com names letsencrypt.org, but in a record that CAs take "
        'for a refusal, since "http-01" is not of the form tag=value; add the record '
        '0 issue "letsencrypt.org" there',
    ),
    "4.2: a semicolon at the end of parameters": (
        found("letsencrypt.org; validationmethods=http-01;"),
        "www.example.com: CAA at example.com names letsencrypt.org, but in a record that CAs take "
        "for a refusal, since a parameter is empty; add the record "
        '0 issue "letsencrypt.org; validationmethods=http-01" there',
    ),
    "4.2: capital letters, which Boulder takes for another name": (
        found("LetsEncrypt.org"),
        "www.example.com: CAA at example.com names letsencrypt.org, but with capital letters, "
        'which not every CA takes for the same; add the record 0 issue "letsencrypt.org" there',
    ),
    "4.3: issuewild for others": (
        wild("letsencrypt.org", (0, "issuewild", b"pki.goog")),
        "*.example.com: CAA at example.com does not let this CA issue: it has "
        '0 issuewild "pki.goog"; add the record 0 issuewild "letsencrypt.org" there',
    ),
    "4.3: issue for others, without issuewild": (
        wild("pki.goog"),
        "*.example.com: CAA at example.com does not let this CA issue: it has "
        '0 issue "pki.goog"; add the record 0 issue "letsencrypt.org" there',
    ),
    "RFC 8657 section 3: another's account": (
        found(f"letsencrypt.org; accounturi={OTHER}"),
        "www.example.com: CAA at example.com names letsencrypt.org, but for the account "
        f"{OTHER} only, and ours is {ACCOUNT}; add the record "
        f'0 issue "letsencrypt.org; accounturi={ACCOUNT}" there',
    ),
    "3: URLs are compared letter by letter": (
        found(f"letsencrypt.org; accounturi={ACCOUNT}/"),
        "www.example.com: CAA at example.com names letsencrypt.org, but for the account "
        f"{ACCOUNT}/ only, and ours is {ACCOUNT}; add the record "
        f'0 issue "letsencrypt.org; accounturi={ACCOUNT}" there',
    ),
    "3: two accounts in one record are nobody's": (
        found(f"letsencrypt.org; accounturi={ACCOUNT}; accounturi={OTHER}"),
        "www.example.com: CAA at example.com names letsencrypt.org, but in a record that CAs take "
        "for a refusal, since it has accounturi more than once; add the record "
        f'0 issue "letsencrypt.org; accounturi={ACCOUNT}" there',
    ),
    "4: another method": (
        found("letsencrypt.org; validationmethods=dns-01,tls-alpn-01"),
        "www.example.com: CAA at example.com names letsencrypt.org, but validated by dns-01, "
        "tls-alpn-01 only, and ours is http-01; add the record "
        '0 issue "letsencrypt.org; validationmethods=http-01" there',
    ),
    "4: no method at all": (
        found("letsencrypt.org; validationmethods="),
        "www.example.com: CAA at example.com names letsencrypt.org, but in a record that CAs take "
        'for a refusal, since validationmethods "" is not a list of methods; add the record '
        '0 issue "letsencrypt.org; validationmethods=http-01" there',
    ),
    "3 and 4: the record that is nearest is told, with all that it lacks": (
        found(
            f"letsencrypt.org; accounturi={OTHER}; validationmethods=dns-01",
            f"letsencrypt.org; accounturi={ACCOUNT}; validationmethods=dns-01",
        ),
        "www.example.com: CAA at example.com names letsencrypt.org, but validated by dns-01 only, "
        "and ours is http-01; add the record "
        f'0 issue "letsencrypt.org; accounturi={ACCOUNT}; validationmethods=http-01" there',
    ),
}


@pytest.mark.parametrize(("records", "sentence"), IN_THE_WAY.values(), ids=IN_THE_WAY)
def test_what_is_in_the_way_is_told(records: Found, sentence: str) -> None:
    """What it is, where it is, and the record that would change it."""
    assert told(records).sentences == (sentence,)


def test_the_record_that_is_told_helps() -> None:
    """Whoever adds it hears nothing more, and keeps accounts and methods restricted."""
    for records, _ in IN_THE_WAY.values():
        (sentence,) = told(records).sentences
        if "add the record" not in sentence:
            continue
        flags, tag, value = (
            sentence.split("add the record ")[1].removesuffix(" there").split(" ", 2)
        )
        added = Property(int(flags), tag, value.strip('"').encode())
        better = Found(records.name, records.owner, "", (*records.records, added))
        assert told(better).sentences == ()


def test_any_identity_of_the_ca_will_do() -> None:
    """A CA may have several; the first one is told."""
    identities = ("sectigo.com", "comodoca.com")
    assert told(found("comodoca.com"), identities=identities).sentences == ()
    (sentence,) = told(found("pki.goog"), identities=identities).sentences
    assert 'add the record 0 issue "sectigo.com" there' in sentence


def test_an_identity_is_read_as_a_domain() -> None:
    """Capital letters and a dot at the end in a directory make no difference."""
    assert told(found("letsencrypt.org"), identities=("LetsEncrypt.org.", "")).sentences == ()


def test_an_account_that_is_not_known() -> None:
    """``config check`` knows none: the pinned one is told, and what to write if it isn't ours."""
    (sentence,) = told(found(f"letsencrypt.org; accounturi={OTHER}"), account=None).sentences
    assert f"for the account {OTHER} only, and whether that is ours is not known here" in sentence
    assert "; unless it is, add the record" in sentence
    assert "accounturi=<our account>" in sentence


def test_a_method_that_is_not_known_is_left_alone() -> None:
    """No word about validationmethods without a challenge type."""
    assert told(found("letsencrypt.org; validationmethods=dns-01"), method=None).sentences == ()


def test_a_ca_without_identities() -> None:
    """Whether it is named cannot be known; that nobody is, can."""
    (unknown,) = told(found("pki.goog"), identities=()).sentences
    assert "whether one of them is this CA is not known, without caaIdentities" in unknown
    (nobody,) = told(found(";"), identities=()).sentences
    assert "CAA at example.com lets no CA issue" in nobody
    assert told(found(), identities=()).sentences == ()


def test_an_alias_is_told() -> None:
    """The records stand where the alias leads, and there the record is to be added."""
    records = (Property(0, "issue", b"pki.goog"),)
    (sentence,) = told(Found("www.a.test", "www.a.test", "edge.cdn.test", records)).sentences
    assert "CAA at edge.cdn.test (of which www.a.test is an alias) does not let" in sentence


def test_a_name_that_could_not_be_looked_up() -> None:
    """A CA that sees the same refuses, so it is told; and that the answer is not complete."""
    advice = told(Found("a.test", trouble="resolver 192.0.2.1 answers SERVFAIL about test"))
    assert advice.sentences == (
        "a.test: CAA could not be looked up: resolver 192.0.2.1 answers SERVFAIL about test; a CA "
        "that sees the same refuses: see that the zone's name servers answer questions for CAA",
    )
    assert not advice.complete
    assert told(found()).complete


def test_the_same_is_said_once() -> None:
    """A hundred names of a zone make one sentence."""
    names = [f"n{number}.example.com" for number in range(100)]
    (sentence,) = told(*(found("pki.goog", name=name) for name in names)).sentences
    assert sentence.startswith("n0.example.com, n1.example.com, n2.example.com and 97 more: CAA")


def test_there_are_never_many_sentences() -> None:
    """A hundred zones make ten, and one that tells how many are left out."""
    sets = [
        Found(f"a{n}.test", f"a{n}.test", "", (Property(0, "issue", b"x.test"),))
        for n in range(100)
    ]
    sentences = told(*sets).sentences
    assert len(sentences) == 11
    assert sentences[-1] == "CAA says 90 more such things about other names"


PINNED = {
    "to another's account": (found(f"letsencrypt.org; accounturi={OTHER}"), True),
    "to ours": (found(f"letsencrypt.org; accounturi={ACCOUNT}"), True),
    "by one of two records": (
        found(f"letsencrypt.org; accounturi={OTHER}", "letsencrypt.org"),
        False,
    ),
    "at another CA": (found("pki.goog; accounturi=https://x.test/1", "letsencrypt.org"), False),
    "at another CA only": (found("pki.goog; accounturi=https://x.test/1"), False),
    "by the record for our method": (
        found(
            f"letsencrypt.org; accounturi={OTHER}; validationmethods=http-01",
            "letsencrypt.org; validationmethods=dns-01",
        ),
        True,
    ),
    "for wildcards only": (
        found("letsencrypt.org", (0, "issuewild", f"letsencrypt.org; accounturi={OTHER}".encode())),
        False,
    ),
    "of a wildcard": (
        wild("letsencrypt.org", (0, "issuewild", f"letsencrypt.org; accounturi={OTHER}".encode())),
        True,
    ),
    "in a record that grants nothing": (found(f"letsencrypt.org; accounturi={OTHER};"), False),
    "nowhere": (found("letsencrypt.org"), False),
    "without records": (found(), False),
}


@pytest.mark.parametrize(("records", "pinned"), PINNED.values(), ids=PINNED)
def test_whether_an_account_is_pinned(records: Found, pinned: bool) -> None:
    """Only if every record that lets this CA in by our method is for one account."""
    assert told(records).pinned is pinned
    assert told(found(name="other.test"), records).pinned is pinned


def test_a_ca_without_identities_may_be_pinned() -> None:
    """Then any record may be the one for it."""
    assert told(found(f"x.test; accounturi={OTHER}"), identities=()).pinned


HOSTILE = {
    "long": b"a" * 60000,
    "many parameters": b"letsencrypt.org" + b"; a=b" * 10000,
    "control characters": b"letsencrypt.org\n\x1b[31m\x00\r\x7f",
    "not ASCII": "letsencrypt.örg\u202e\u2028".encode(),
    "no text at all": bytes(range(256)) * 4,
    "quotes": b'"; add the record 0 issue "evil.test',
    "a long account": b"letsencrypt.org; accounturi=" + b"x" * 60000,
    "long methods": b"letsencrypt.org; validationmethods=" + b"x," * 30000 + b"x",
}


@pytest.mark.parametrize("tag", ["issue", "issuewild", "x" * 255])
@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
def test_hostile_records_make_one_printable_line(value: bytes, tag: str) -> None:
    """Whatever stands in a record: short lines of printable ASCII, and no exception."""
    records = (Property(128, tag, value),) * 5
    for name in ("a.test", "*.a.test"):
        for sentence in told(Found(name, "a.test", "b.test", records)).sentences:
            assert sentence.isascii()
            assert sentence.isprintable()
            assert len(sentence) <= 1010


def test_what_the_ca_says_of_itself_is_shown_with_care() -> None:
    """Identities and account URLs come from outside, too."""
    evil = "x\n\x1b" + "y" * 5000
    (sentence,) = judge([found("pki.goog; accounturi=z")], [evil], evil, "http-01").sentences
    assert sentence.isprintable()
    assert len(sentence) <= 1010
