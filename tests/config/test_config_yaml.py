"""Files that are missing, and text that is no YAML or says a thing twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from certbaton.config import load, parse
from certbaton.errors import ConfigurationError


def complaint(text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        parse(text, {})
    return str(caught.value)


YAML: dict[str, tuple[str, str]] = {
    "no mapping": ("- a\n", "the file: must hold keys and values, not a list"),
    "a bracket that stays open": (
        "issuers: {\n",
        "line 2, column 1: this is not YAML: expected the node content, but found '<stream end>'",
    ),
    "a tab": (
        "issuers:\n\tle: a\n",
        "line 2, column 1: this is not YAML: found character '\\t' that cannot start any token",
    ),
    "a tag of Python's": (
        "workers: !!python/object/apply:os.getpid []\n",
        "line 1, column 10: this is not YAML: could not determine a constructor for the tag "
        "'tag:yaml.org,2002:python/object/apply:os.getpid'",
    ),
    "two documents": (
        "workers: 1\n---\nworkers: 2\n",
        "line 2, column 1: this is not YAML: but found another document",
    ),
    "characters that are no text": (
        "workers: \x00",
        "the file: this is not YAML: it has characters that are no text",
    ),
    "a value that does not fit its tag": (
        "workers: !!int many\n",
        "the file: a value does not fit its YAML tag, or is too long a number",
    ),
    "a key twice": (
        "workers: 1\nroute: auto\nworkers: 2\n",
        "line 3, column 1: the key 'workers' stands there twice, first in line 1",
    ),
    "a key twice further down": (
        "issuers:\n  le:\n    directory: https://a/\n  le:\n    directory: https://b/\n",
        "line 4, column 3: the key 'le' stands there twice, first in line 2",
    ),
    "a key twice in braces": (
        "policy: {late: 0.1, late: 0.2}\n",
        "line 1, column 21: the key 'late' stands there twice, first in line 1",
    ),
    "a thing that contains itself": (
        "certificates: &all [*all]\n",
        "certificates[0]: must hold keys and values, not a list",
    ),
    "depths without end": (
        "a: " + "[" * 2000,
        "the file: it is nested too deeply",
    ),
}


@pytest.mark.parametrize(("text", "expected"), YAML.values(), ids=YAML)
def test_broken_yaml_gets_one_sentence_with_its_line(text: str, expected: str) -> None:
    """Line and column count from one, as editors do."""
    assert complaint(text) == expected


def test_a_merge_key_does_not_count_as_a_key_twice() -> None:
    """YAML's own way to share values goes on working, overriding included."""
    merged = parse(
        "issuers:\n"
        "  a: &a {directory: https://a.example/, timeout: 10s}\n"
        "  b: {<<: *a, directory: https://b.example/}\n",
        {},
    )
    assert merged.issuers["b"].directory == "https://b.example/"
    assert merged.issuers["b"].timeout == merged.issuers["a"].timeout


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Missing, a folder, or no text: the path begins the sentence."""
    missing = tmp_path / "missing.yaml"
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"workers: \xff")
    expected = {
        missing: "cannot be read (No such file or directory); give the path of the configuration "
        "with --config",
        tmp_path: "cannot be read (Is a directory); give the path of the configuration with "
        "--config",
        binary: "is not a text file in UTF-8",
    }
    for path, words in expected.items():
        with pytest.raises(ConfigurationError) as caught:
            load(path, {})
        assert str(caught.value) == f"{path}: {words}"
