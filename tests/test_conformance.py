"""docs/conformance.md names tests; here they are looked for."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "conformance.md"
UNTESTED = "not tested here"
_NAMED = re.compile(r"`(tests/[\w/]+\.py)::([\w:]+)`")
_HEADING = "test"
_CELLS = 4


def tables(text: str) -> list[list[str]]:
    """The rows of all tables whose last column is the one of tests; each row its cells."""
    found: list[list[str]] = []
    inside = False
    for line in text.splitlines():
        if not line.startswith("|"):
            inside = False
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[-1] == _HEADING:
            inside = True
        elif inside and not set(line) <= set("|- "):
            found.append(cells)
    return found


@cache
def named_in(path: str) -> frozenset[str]:
    """The tests of a file: functions by name, methods as ``Class::name``."""
    file = ROOT / path
    if not file.is_file():
        return frozenset()
    found: set[str] = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{m.name}" for m in node.body if isinstance(m, ast.FunctionDef)}
    return frozenset(name for name in found if name.rpartition("::")[2].startswith("test_"))


@cache
def is_run(path: str, name: str) -> bool:
    """Whether pytest collects it: by the file's name, or since a test class there is a subclass."""
    if Path(path).name.startswith("test_"):
        return True
    below = re.compile(rf"^class Test\w*\((?:\w+, )*{name.partition('::')[0]}\b", re.MULTILINE)
    return any(below.search(file.read_text()) for file in (ROOT / path).parent.glob("test_*.py"))


def flaws(text: str) -> list[str]:
    """What is wrong with the page *text*, a sentence each."""
    wrong = [
        f"{path} has no {name}" for path, name in _NAMED.findall(text) if name not in named_in(path)
    ]
    wrong += [
        f"nobody runs {path}::{name}"
        for path, name in _NAMED.findall(text)
        if not is_run(path, name)
    ]
    for cells in tables(text):
        if len(cells) != _CELLS:
            wrong.append(f"a row has {len(cells)} cells: {cells[0]}")
        # all of the cell is names that were understood, so that a slip in one is no silence
        elif UNTESTED not in cells[-1] and _NAMED.sub("", cells[-1]).strip(", ") != "":
            wrong.append(f"what tests the row of {cells[0]} is not understood: {cells[-1]}")
        elif UNTESTED not in cells[-1] and not _NAMED.search(cells[-1]):
            wrong.append(f"the row of {cells[0]} has no test: {cells[1]}")
    return wrong


def test_every_row_has_a_test_that_exists() -> None:
    """Or says that it has none; a renamed test is told."""
    assert flaws(PAGE.read_text()) == []


@pytest.mark.parametrize(("rfc", "rows"), [("8555", 50), ("9773", 15)])
def test_both_rfcs_are_there(rfc: str, rows: int) -> None:
    """With about as many rows as they ask for things of a client."""
    parts = re.split(r"(?m)^## ", PAGE.read_text())
    of_it = [part for part in parts if part.startswith(f"RFC {rfc}")]
    assert sum(len(tables(part)) for part in of_it) >= rows


def test_what_could_not_be_tested_is_told_at_the_end() -> None:
    """The CAs themselves, and what only they have."""
    end = PAGE.read_text().rpartition("## What could not be tested here")[2]
    for what in ("CAs themselves", "chains", "vantage points", "rate limits", "external accounts"):
        assert what in end


GOOD = """\
| section | asked | certbaton | test |
| --- | --- | --- | --- |
| 1 | a | b | `tests/test_conformance.py::test_both_rfcs_are_there` |
| 2 | a | b | not tested here: no CA |
"""


@pytest.mark.parametrize(
    ("old", "new", "flaw"),
    [
        ("test_both_rfcs_are_there", "test_renamed", "tests/test_conformance.py has no test_renam"),
        ("tests/test_conformance.py", "tests/gone.py", "tests/gone.py has no test_both"),
        ("test_both_rfcs_are_there", "flaws", "has no flaws"),
        ("not tested here: no CA", "", "the row of 2 has no test"),
        ("not tested here: no CA", "later", "the row of 2 is not understood: later"),
        ("`tests/", "tests/", "the row of 1 is not understood"),
        ("| b | not", "| b | c | not", "a row has 5 cells"),
    ],
)
def test_a_slip_in_the_page_is_noticed(old: str, new: str, flaw: str) -> None:
    """The guard itself works."""
    assert flaws(GOOD) == []
    contract = "`tests/ca/advance_contract.py::AdvanceContract::test_a_key_has_one_account`"
    assert flaws(contract) == []
    assert "nobody runs" in flaws(contract.replace("AdvanceContract", "World"))[-1]
    assert flaw in "\n".join(flaws(GOOD.replace(old, new)))
