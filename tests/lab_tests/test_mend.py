"""A pinned program is built with one line of ours, or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography import x509

from lab.mend import Mend
from lab.pebble import Pebble
from lab.process import LabError, free_ports


@pytest.mark.servers
def test_no_serial_number_of_pebble_s_is_looked_for_in_vain() -> None:
    """Eight bytes, and the first one such as DER takes it; as Pebble makes them, half would be."""
    (port,) = free_ports(1)
    with Pebble(http_port=port, alternate_roots=15) as pebble:
        roots = [x509.load_pem_x509_certificate(pebble.root(number)) for number in range(16)]
    for root in roots:
        assert 0x40 <= root.serial_number >> 56 < 0x80


def a_go(folder: Path, script: str) -> Path:
    """What answers ``go mod download -json``."""
    go = folder / "go"
    go.write_text(f"#!/bin/sh\n{script}\n")
    go.chmod(0o755)
    return go


def test_a_program_that_has_changed_is_not_built_unmended(tmp_path: Path) -> None:
    """One sentence says which file it is."""
    module = tmp_path / "cache"
    module.mkdir()
    (module / "a.go").write_text("return other\n")
    go = a_go(tmp_path, f"echo '{json.dumps({'Dir': str(module)})}'")
    stage = tmp_path / "stage"
    stage.mkdir()
    with pytest.raises(LabError, match=r"example\.org/a: a\.go is not what"):
        Mend("example.org/a", "a.go", "return one\n", "return 2\n").modfile(go, stage, {}, tmp_path)


def test_a_module_that_cannot_be_had_is_told(tmp_path: Path) -> None:
    """With Go's own last line."""
    go = a_go(tmp_path, "echo 'no such host'; exit 1")
    with pytest.raises(LabError, match=r"could not be downloaded \(no such host\)"):
        Mend("example.org/a", "a.go", "x", "y").modfile(go, tmp_path, {}, tmp_path)
