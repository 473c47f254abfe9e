"""Journals, proofs and accounts as JSON."""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certbaton.cluster import codec
from certbaton.model import (
    Account,
    Drift,
    FailedValidation,
    Failure,
    FailureKind,
    Journal,
    OrderRecord,
    Outcome,
    PendingOrder,
    Proof,
    Rehearsal,
    Rejection,
    RenewalInfo,
    Revocation,
)

times = st.datetimes(timezones=st.just(UTC))
texts = st.text(max_size=20)
names = st.lists(texts, max_size=3).map(tuple)
maybe_text = st.none() | texts
journals = st.builds(
    Journal,
    resource_version=st.just("7"),
    pending=st.none()
    | st.builds(
        PendingOrder,
        directory=texts,
        account_url=texts,
        names=names,
        key_type=texts,
        public_key_sha256=texts,
        reason=texts,
        staged_at=times,
        profile=maybe_text,
        profile_got=maybe_text,
        replaces=maybe_text,
        not_after=st.none() | times,
        finalizing=st.booleans(),
        advised=st.booleans(),
        url=maybe_text,
        expires=st.none() | times,
        certificate_url=maybe_text,
        chain=maybe_text,
    ),
    failures=st.dictionaries(
        texts,
        st.builds(
            Failure,
            message=texts,
            at=times,
            count=st.integers(0, 99),
            retry_at=times,
            kind=st.sampled_from(FailureKind),
            first_at=st.none() | times,
            named=st.booleans(),
            wish=texts,
        ),
        max_size=3,
    ),
    rehearsal=st.none()
    | st.builds(
        Rehearsal,
        directory=texts,
        at=times,
        names=names,
        account_url=texts,
        url=maybe_text,
        outcome=st.sampled_from(Outcome),
        message=texts,
        count=st.integers(0, 99),
        retry_at=st.none() | times,
        asked=st.none() | times,
    ),
    rehearsal_asked=st.none() | times,
    orders=st.lists(
        st.builds(OrderRecord, at=times, directory=texts, names=names, advised=st.booleans()),
        max_size=3,
    ).map(tuple),
    originals=st.dictionaries(texts, texts, max_size=3),
    drift=st.dictionaries(texts, st.builds(Drift, st.integers(0, 99), times), max_size=3),
    failed_validations=st.lists(
        st.builds(FailedValidation, at=times, directory=texts, name=texts), max_size=3
    ).map(tuple),
    last_version=maybe_text,
)


@given(journals)
def test_a_journal_comes_back_as_it_was(journal: Journal) -> None:
    """Every field, for every content; a field that the codec forgets would show here."""
    assert codec.read_journal(codec.write_journal(journal), "7") == journal


@given(st.dictionaries(texts, st.builds(Rejection, at=times, why=texts), max_size=3))
def test_rejections_come_back_as_they_were(rejected: dict[str, Rejection]) -> None:
    """What was written is what is read."""
    assert codec.read_rejected(codec.write_rejected(rejected)) == rejected


@given(st.dictionaries(texts, st.builds(Proof, at=times, how=texts), max_size=3))
def test_proofs_come_back_as_they_were(served: dict[str, Proof]) -> None:
    """The annotation certbaton.io/served."""
    assert codec.read_served(codec.write_served(served)) == served


def test_unknown_keys_are_left_out() -> None:
    """A newer certbaton may have written them."""
    record = json.loads(codec.write_journal(Journal()))
    record["future"] = {"a": 1}
    assert codec.read_journal(json.dumps(record), "") == Journal()


def test_what_is_missing_has_its_default() -> None:
    """An older certbaton did not write it."""
    assert codec.read_journal("{}", "") == Journal()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"pending": {}}',
        '{"pending": 7}',
        '{"orders": 7}',
        '{"orders": [7]}',
        '{"orders": [{"at": "yesterday", "directory": "d", "names": []}]}',
        '{"orders": [{"at": "2026-01-01T00:00:00Z", "directory": "d", "names": "n"}]}',
        '{"failures": {"d": {"message": "m", "at": "2026-01-01T00:00:00Z", "count": "x"}}}',
    ],
)
def test_a_wrong_shape_is_unreadable(text: str) -> None:
    """Never half believed, and the error quotes nothing of it."""
    with pytest.raises(codec.Unreadable) as caught:
        codec.read_journal(text, "")
    assert "yesterday" not in str(caught.value)


def test_times_are_rfc_3339_in_utc() -> None:
    """Offsets are turned into UTC, a missing one is taken for it."""
    moment = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert codec.write_time(moment) == "2026-01-01T12:00:00Z"
    for text in ("2026-01-01T12:00:00Z", "2026-01-01T13:00:00+01:00", "2026-01-01T12:00:00"):
        assert codec.read_time(text) == moment
        assert codec.read_time(text).tzinfo is UTC
    east = moment.astimezone(timezone(timedelta(hours=5)))
    assert codec.write_time(east) == "2026-01-01T12:00:00Z"


def test_an_account_comes_back_as_it_was() -> None:
    """With and without a URL, and an external account."""
    for url in (None, "https://ca/acct/1"):
        for kid in (None, "kid-1"):
            text = codec.write_account("https://ca/dir", url, kid)
            assert codec.read_account(text) == Account("https://ca/dir", url, external_kid=kid)


@given(
    st.builds(
        RenewalInfo,
        start=times,
        end=times,
        explanation_url=st.none() | texts,
        fetched_at=st.none() | times,
    )
)
def test_renewal_information_comes_back_as_it_was(info: RenewalInfo) -> None:
    """The annotation certbaton.io/renewal-info; one that ends before it begins is none."""
    if info.start < info.end:
        assert codec.read_renewal_info(codec.write_renewal_info(info)) == info
    else:
        with pytest.raises(codec.Unreadable):
            codec.read_renewal_info(codec.write_renewal_info(info))


@given(st.builds(Revocation, at=times, reason=texts))
def test_revocations_come_back_as_they_were(revocation: Revocation) -> None:
    """The annotation certbaton.io/revoked."""
    assert codec.read_revocation(codec.write_revocation(revocation)) == revocation


def test_the_codec_knows_every_field() -> None:
    """A field that the words gain must be written, read, and drawn above."""
    words = {
        Journal: "resource_version pending failures orders failed_validations last_version"
        " originals drift rehearsal rehearsal_asked",
        PendingOrder: "directory account_url names key_type public_key_sha256 reason staged_at"
        " profile profile_got replaces not_after url expires finalizing certificate_url chain"
        " advised",
        Failure: "message at count retry_at kind first_at named wish",
        Rehearsal: "directory at names account_url url outcome message count retry_at asked",
        OrderRecord: "at directory names advised",
        FailedValidation: "at directory name",
        Proof: "at how",
        Drift: "rounds at",
        Rejection: "at why",
        RenewalInfo: "start end explanation_url fetched_at",
        Revocation: "at reason",
        Account: "directory url resource_version rolling external_kid",
    }
    for word, known in words.items():
        assert {field.name for field in fields(word)} == set(known.split()), word


def test_an_order_of_a_release_that_did_not_tell_may_have_been_finalized() -> None:
    """With a URL: it is awaited, not dropped. Without one it was never placed."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    for url in ("https://ca.example/order/1", None):
        order = PendingOrder("d", "a", ("n",), "RSA-2048", "k", "r", at, url=url)
        record = json.loads(codec.write_journal(Journal(pending=order)))
        del record["pending"]["finalizing"]
        read = codec.read_journal(json.dumps(record), "1")
        assert read.pending is not None and read.pending.finalizing is (url is not None)
