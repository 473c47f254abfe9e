"""The table of refusals: that it is whole, that every line can be reached, and its page."""

from __future__ import annotations

from pathlib import Path

import pytest

from certbaton.ca.refusals import NO_DOCUMENT, TABLE, Row, page, row_of

DOCS = Path(__file__).parents[2] / "docs" / "acme-errors.md"

# RFC 8555 section 6.7; RFC 9773 section 7.4; draft-aaron-acme-profiles.
TYPES = [
    *("accountDoesNotExist", "alreadyRevoked", "badCSR", "badNonce", "badPublicKey"),
    *("badRevocationReason", "badSignatureAlgorithm", "caa", "compound", "connection", "dns"),
    *("externalAccountRequired", "incorrectResponse", "invalidContact", "malformed"),
    *("orderNotReady", "rateLimited", "rejectedIdentifier", "serverInternal", "tls"),
    *("unauthorized", "unsupportedContact", "unsupportedIdentifier", "userActionRequired"),
    *("alreadyReplaced", "invalidProfile"),
]


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_has_a_line_of_its_own(kind: str) -> None:
    """None is left to the line for all the rest."""
    assert any(row.problem == kind for row in TABLE)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.request}-{row.problem}-{row.status}")
def test_every_line_counts_for_something(row: Row) -> None:
    """One that an earlier line hides would say what is never done."""
    status = int(row.status.replace("xx", "02") or 418)
    problem = {NO_DOCUMENT: "", "": "somethingElse"}.get(row.problem, row.problem)
    assert row_of(row.request or "newNonce", problem, status, paused=row.paused) is row


def test_every_line_says_what_comes_next() -> None:
    """In a sentence that needs no other; a bar would break the page."""
    for row in TABLE:
        assert row.then
        assert "|" not in row.then + row.person


def test_the_page_is_the_table() -> None:
    """Written anew with python -c "from certbaton.ca.refusals import page; print(page())"."""
    assert DOCS.read_text().strip() == page().strip()
